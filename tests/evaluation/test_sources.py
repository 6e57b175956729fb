"""Sources: folders, frame folders, scenes and tensors give the same frames and tell what is wrong with files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.data.scenes import SceneOptions, prerender, render_folder, sample_scene
from longtake.errors import BadData, BadInput, BadVideo
from longtake.evaluation.sources import TensorSource, open_source
from longtake.video import Clip, from_uint8, to_uint8, write_clip


def noise(frames: int, height: int = 12, width: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8)


def write(path: Path, frames: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(Clip(from_uint8(frames)[None], 8.0), path, codec="ffv1" if path.suffix == ".mkv" else "libx264")


def test_a_folder_gives_the_frames_of_its_videos(tmp_path: Path) -> None:
    clips = {"a.mkv": noise(4, seed=1), "sub/b.mkv": noise(6, seed=2)}
    for name, frames in clips.items():
        write(tmp_path / name, frames)
    source = open_source(tmp_path)
    assert [(v.name, v.frames, v.height, v.width, v.fps) for v in source.videos] == [
        ("a.mkv", 4, 12, 16, 8.0),
        ("sub/b.mkv", 6, 12, 16, 8.0),
    ]
    for number, frames in enumerate(clips.values()):
        assert torch.equal(source.read(number, [0, 3, 2]), frames[[0, 3, 2]])
    assert not source.videos[0].mp4 and not source.videos[0].jpeg


def test_frame_folders_and_compressed_files_are_known_as_such(tmp_path: Path) -> None:
    frames = noise(3)
    for suffix in ("png", "jpg"):
        folder = tmp_path / suffix / "clip"
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame.numpy()).save(folder / f"{number:03d}.{suffix}")
    png, jpg = open_source(tmp_path / "png"), open_source(tmp_path / "jpg")
    assert torch.equal(png.read(0, [2, 0]), frames[[2, 0]]) and not png.videos[0].jpeg
    assert jpg.videos[0].jpeg and jpg.digest(0, [0]) != png.digest(0, [0])
    assert png.digest(0, [0]) != png.digest(0, [1])
    write(tmp_path / "mp4" / "a.mp4", frames)
    assert open_source(tmp_path / "mp4").videos[0].mp4


def test_unreadable_files_are_listed_and_the_others_measured(tmp_path: Path) -> None:
    write(tmp_path / "good.mkv", noise(4))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    source = open_source(tmp_path)
    assert [video.name for video in source.videos] == ["good.mkv"]
    assert sorted(name for name, _ in source.problems) == ["empty.mp4", "text.mp4"]


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not exist"):
        open_source(tmp_path / "gone")
    with pytest.raises(BadData, match="empty"):
        open_source(tmp_path)
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(BadData, match=r"none of the 1 videos .* a\.mp4"):
        open_source(tmp_path)


def test_a_hash_is_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.mkv", noise(4, seed=1))
    (tmp_path / "two").mkdir()
    shutil.copy(tmp_path / "one" / "a.mkv", tmp_path / "two" / "z.mkv")
    write(tmp_path / "three" / "a.mkv", noise(4, seed=2))
    one, two, three = (open_source(tmp_path / name) for name in ("one", "two", "three"))
    assert one.digest(0, [0, 1]) == two.digest(0, [0, 1]) != three.digest(0, [0, 1])
    assert one.digest(0, [0, 1]) != one.digest(0, [0, 2]) != one.digest(0, [1, 2])


def test_a_file_that_goes_away_is_a_bad_video(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", noise(4))
    source = open_source(tmp_path)
    (tmp_path / "a.mkv").unlink()
    with pytest.raises(BadVideo, match=r"a\.mkv"):
        source.digest(0, [0])


def test_scenes_know_what_they_show(tmp_path: Path) -> None:
    index = prerender(tmp_path / "ahead", 2, frames=5, height=16, width=16, progress=False)
    ahead = open_source(tmp_path / "ahead")
    render_folder(tmp_path / "files", 2, SceneOptions(), frames=5, height=16, width=16, progress=False)
    files = open_source(tmp_path / "files")
    for number in range(2):
        scene = sample_scene(number)
        assert ahead.videos[number].attributes == files.videos[number].attributes == scene.attributes
        assert ahead.videos[number].prompt == files.videos[number].prompt == scene.caption
        assert torch.equal(ahead.read(number, [0, 4]), index.render(number)[[0, 4]])
    assert ahead.digest(0, [0]) != ahead.digest(1, [0])


def test_a_folder_of_videos_may_have_an_index_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", noise(4))
    for content in ("[1]", '{"format": "other"}', "no JSON"):
        (tmp_path / "index.json").write_text(content)
        assert open_source(tmp_path).videos[0].name == "a.mkv"


def test_a_tensor_of_floats_and_one_of_bytes() -> None:
    pixels = torch.rand(2, 3, 4, 6, 8) * 2 - 1
    source = TensorSource(pixels, prompts=["a", "b"])
    assert torch.equal(source.read(1, [3, 1]), to_uint8(pixels)[1, [3, 1]])
    levels = to_uint8(pixels).permute(0, 4, 1, 2, 3)
    same = TensorSource(levels)
    assert same.digest(0, [0]) == source.digest(0, [0]) and source.videos[1].prompt == "b"
    cut = TensorSource(pixels, rounding="truncate").read(0, [0]).numpy().astype(int)
    exact = (pixels[0, :, 0].permute(1, 2, 0).double().numpy() + 1) * 127.5
    assert np.abs(cut - np.floor(exact)).max() <= 1e-6


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(torch.zeros(3, 4, 8, 8), "(N, 3, T, H, W)"), (torch.zeros(1, 3, 2, 4, 4, dtype=torch.int64), "int64")],
)
def test_no_clips(pixels: torch.Tensor, words: str) -> None:
    with pytest.raises(BadInput) as error:
        TensorSource(pixels)
    assert words in str(error.value)
