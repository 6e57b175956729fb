"""The presets on small copies of the four data sets: layout, split, windows and pixels, end to end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from longtake.data.folder import VideoFolder
from longtake.data.presets import PRESETS, FolderOptions, find_preset, resolve
from longtake.errors import BadData, BadInput, UnknownName

LATTE = [0, 3, 6, 9, 12, 15, 18, 21, 25, 28, 31, 34, 37, 40, 43, 47]
SQUEEZED = [0, 1, 3, 5, 7, 9, 11, 13, 14, 16, 18, 20, 22, 24, 26, 28]


def folder(root: Path, preset: str, size: int, **changes) -> VideoFolder:
    return VideoFolder(root, FolderOptions(preset, height=size, width=size, **changes), progress=False)


def unit(frames: Tensor) -> Tensor:
    return frames.permute(3, 0, 1, 2).float() / 127.5 - 1


def found_start(item: dict, expected: Callable[[int], Tensor], starts: range) -> tuple[int, bool]:
    """Return which start, mirrored or not, an item's pixels are of, to 1e-5."""
    for start in starts:
        wanted = expected(start)
        for mirrored in (False, True):
            if (item["pixels"] - (wanted.flip(-1) if mirrored else wanted)).abs().max() < 1e-5:
                return start, mirrored
    raise AssertionError("the item is none of the windows")


def test_ucf101_latte(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    long = write_video(tmp_path / "YoYo" / "v_YoYo_g01_c01.avi", 60, 16, 16, key=1)
    short = write_video(tmp_path / "Archery" / "v_Archery_g01_c01.avi", 29, 16, 16, key=2)
    write_video(tmp_path / "Archery" / "v_Archery_g01_c02.avi", 15, 16, 16, key=3)
    data = folder(tmp_path, "ucf101/latte", 16)
    assert (data.layout, data.split, data.classes, len(data)) == ("L1", "all", ("Archery", "YoYo"), 2)
    assert data.problems == (
        ("Archery/v_Archery_g01_c02.avi", "too short: 15 frames from first to last frame, a clip needs 16 frames"),
    )
    seen = set()
    for epoch in range(8):
        item = data[(epoch, 0)]
        assert item["prompt"] == "archery"
        assert item["label"] == 0
        seen.add(found_start(item, lambda start: unit(short[SQUEEZED]), range(1)))
    assert seen == {(0, False), (0, True)}
    seen = {
        found_start(data[(epoch, 1)], lambda start: unit(long[[start + i for i in LATTE]]), range(60 - 47))
        for epoch in range(24)
    }
    assert {mirrored for _, mirrored in seen} == {False, True}
    assert max(start for start, _ in seen) <= 60 - 48 - 1
    assert len({start for start, _ in seen}) >= 8
    assert data[1]["fps"] == pytest.approx(25 * 15 / 47)


def test_ucf101_latte_resizes_without_antialias_by_the_short_side(
    tmp_path: Path, write_video: Callable[..., Tensor]
) -> None:
    frames = write_video(tmp_path / "A" / "1.avi", 16, 24, 34)
    write_video(tmp_path / "B" / "2.avi", 16, 24, 34)
    item = folder(tmp_path, "ucf101/latte", 16, flip=0.0)[0]
    pixels = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2) / 255, scale_factor=16 / 24, mode="bilinear")
    assert pixels.shape[-1] == 22
    expected = (pixels[..., 3:19].transpose(0, 1) - 0.5) / 0.5
    assert (item["pixels"] - expected).abs().max() < 1e-5


def test_ucf101_tats_takes_every_window_of_the_train_split(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    frames = write_video(tmp_path / "train" / "YoYo" / "a.avi", 20, 16, 16, key=1)
    other = write_video(tmp_path / "train" / "Archery" / "b.avi", 17, 16, 16, key=2)
    write_video(tmp_path / "test" / "YoYo" / "c.avi", 20, 16, 16, key=3)
    data = folder(tmp_path, "ucf101/tats", 16)
    assert (data.layout, data.split, len(data)) == ("L2", "train", 2 + 5)
    for index in range(2):
        assert torch.allclose(data[index]["pixels"], unit(other[index : index + 16]), atol=1e-5)
    for index in range(5):
        assert torch.allclose(data[(3, 2 + index)]["pixels"], unit(frames[index : index + 16]), atol=1e-5)
    assert data[6]["label"] == 1
    assert len(folder(tmp_path, "ucf101/tats", 16, split="test")) == 5


@pytest.mark.parametrize("flavour", ["latte", "tats"])
def test_faceforensics_takes_every_file_below(tmp_path: Path, write_video: Callable[..., Tensor], flavour: str) -> None:
    root = tmp_path / "preprocess_ffs" / "train" / "videos"
    frames = [write_video(root / f"{number:03d}.avi", 48, 16, 16, key=number) for number in range(2)]
    (root / ".DS_Store").write_bytes(b"x")
    data = folder(root, f"faceforensics/{flavour}", 16)
    assert data.layout == "L3"
    if flavour == "latte":
        assert len(data) == 2
        start, _ = found_start(data[1], lambda start: unit(frames[1][LATTE]), range(1))
        assert start == 0
    else:
        assert len(data) == 2 * 33
        assert torch.allclose(data[34]["pixels"], unit(frames[1][1:17]), atol=1e-5)


def test_sky_timelapse_latte(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    frames = write_frames(tmp_path / "sky_train" / "v1" / "clip", 60, 16, 16, key=1, name="v1_{:d}.png", first=95)
    write_frames(tmp_path / "sky_train" / "v2", 48, 16, 16, key=2)
    data = folder(tmp_path / "sky_train", "sky-timelapse/latte", 16)
    assert (data.layout, len(data)) == ("L4", 1)
    assert data.problems[0][0] == "v2"
    assert "48 frames" in data.problems[0][1]
    assert "49 frames" in data.problems[0][1]
    seen = {
        found_start(data[(epoch, 0)], lambda start: unit(frames[start : start + 48 : 3]), range(12))
        for epoch in range(60)
    }
    assert seen == {(start, False) for start in range(12)}


def test_sky_timelapse_tats(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    frames = write_frames(tmp_path / "v1", 19, 20, 27)
    write_frames(tmp_path / "v2", 16, 20, 27)
    data = folder(tmp_path, "sky-timelapse/tats", 16)
    assert len(data) == 1

    def expected(start: int) -> Tensor:
        squares = [Image.fromarray(f[:, 3:23].contiguous().numpy()) for f in frames[start : start + 16]]
        small = np.stack([np.asarray(square.resize((16, 16), Image.Resampling.LANCZOS)) for square in squares])
        return unit(torch.from_numpy(small))

    seen = {found_start(data[(epoch, 0)], expected, range(4)) for epoch in range(16)}
    assert seen == {(start, False) for start in range(3)}


def test_taichi_hd(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    frames = write_frames(tmp_path / "train" / "a", 70, 16, 16, key=1)
    write_frames(tmp_path / "train" / "b", 70, 16, 18, key=2)
    write_frames(tmp_path / "train" / "c", 45, 16, 16, key=3)
    latte = folder(tmp_path / "train", "taichi-hd/latte", 16)
    assert (latte.split, len(latte)) == ("all", 1)
    reasons = dict(latte.problems)
    assert reasons["b"] == "is 18x16, this preset takes 16x16 as it is"
    assert "46 frames" in reasons["c"]
    seen = {
        found_start(latte[(epoch, 0)], lambda start: unit(frames[start : start + 48 : 3]), range(22))
        for epoch in range(12)
    }
    assert {mirrored for _, mirrored in seen} == {False, True}
    tats = folder(tmp_path / "train", "taichi-hd/tats", 16)
    assert len(tats) == 2
    start, mirrored = found_start(tats[0], lambda start: unit(frames[start : start + 64 : 4]), range(6))
    assert not mirrored
    assert start < 6


def test_ours_for_the_four_sets(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    frames = write_video(tmp_path / "A" / "1.avi", 51, 16, 16, key=1)
    write_video(tmp_path / "B" / "2.avi", 49, 16, 16, key=2)
    data = folder(tmp_path, "ucf101", 16)
    assert data.preset.name == "ucf101/ours+"
    seen = {
        found_start(data[(epoch, 0)], lambda start: unit(frames[start : start + 49 : 3]), range(3))
        for epoch in range(16)
    }
    assert seen == {(0, False), (1, False), (2, False)}


def test_a_preset_refuses_another_layout(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    write_video(tmp_path / "a.avi", 16, 16, 16)
    with pytest.raises(BadData, match=r"not L2|not L1"):
        folder(tmp_path, "ucf101/tats", 16)
    assert len(folder(tmp_path, "ucf101/tats", 16, layout="L3", split="all")) == 1


def test_published_numbers() -> None:
    assert set(PRESETS) == {"ours"} | {
        f"{name}/{flavour}"
        for name in ("ucf101", "sky-timelapse", "faceforensics", "taichi-hd")
        for flavour in ("latte", "tats", "ours")
    }
    for name, preset in PRESETS.items():
        if name.endswith("/latte"):
            assert (preset.frames, preset.stride, preset.height, preset.width) == (16, 3, 256, 256)
        if name.endswith("/tats"):
            assert (preset.frames, preset.height, preset.width) == (16, 128, 128)
            assert preset.stride == (4 if name.startswith("taichi") else 1)
            assert preset.flip == 0
    assert find_preset("taichi-hd") is PRESETS["taichi-hd/ours"]
    assert PRESETS["sky-timelapse/latte"].flip == 0


def test_options_are_checked() -> None:
    assert resolve(FolderOptions()).name == "ours"
    assert resolve(FolderOptions(frames=17)).name == "ours"
    assert resolve(FolderOptions(frames=9)).name == "ours+"
    with pytest.raises(UnknownName, match="Did you mean 'ucf101/latte'"):
        resolve(FolderOptions("ucf101/lattte"))
    with pytest.raises(UnknownName, match="Did you mean 'random'"):
        resolve(FolderOptions(take="randm"))
    with pytest.raises(BadInput, match="square"):
        resolve(FolderOptions("ucf101/latte", height=64))
    with pytest.raises(BadInput, match="only with 'ours'"):
        resolve(FolderOptions("ucf101/latte", fps=8.0))
    with pytest.raises(BadInput, match=r"flip=1\.5"):
        resolve(FolderOptions(flip=1.5))
    with pytest.raises(BadInput, match="window_seconds"):
        resolve(FolderOptions(window_seconds=0.0))
