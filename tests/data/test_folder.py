import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from longtake.data.folder import VideoFolder
from longtake.data.latent_cache import CachedLatents, cache_latents
from longtake.data.order import ResumableOrder
from longtake.data.presets import FolderOptions
from longtake.errors import BadData

SMALL = FolderOptions(frames=5, height=16, width=16)


def folder(root: Path, options: FolderOptions = SMALL, seed: int = 0) -> VideoFolder:
    return VideoFolder(root, options, seed=seed, progress=False)


def small(**changes) -> FolderOptions:
    return FolderOptions(**{"frames": 5, "height": 16, "width": 16, **changes})


def unit(frames: Tensor) -> Tensor:
    return frames.permute(3, 0, 1, 2).float() / 127.5 - 1


def start_of(item: dict, frames: Tensor, stride: int = 1) -> int:
    count = item["pixels"].shape[1]
    for start in range(len(frames) - (count - 1) * stride):
        if torch.allclose(item["pixels"], unit(frames[start : start + (count - 1) * stride + 1 : stride]), atol=1e-6):
            return start
    raise AssertionError("no window of these frames")


def test_an_item_is_a_window_with_its_prompt_rate_and_source(tmp_path: Path, write_video: Callable) -> None:
    frames = write_video(tmp_path / "a.avi", 12, 16, 16, fps=24)
    (tmp_path / "a.txt").write_text("noise on a ramp")
    data = folder(tmp_path, small(stride=2))
    item = data[0]
    assert set(item) == {"pixels", "prompt", "fps", "source"}
    assert item["pixels"].shape == (3, 5, 16, 16)
    assert item["pixels"].dtype == torch.float32
    assert (item["prompt"], item["source"]) == ("noise on a ramp", "a.avi")
    assert item["fps"] == pytest.approx(12.0)
    assert {start_of(data[(epoch, 0)], frames, 2) for epoch in range(16)} == {0, 1, 2, 3}


def test_windows_are_a_pure_function_of_seed_epoch_and_index(tmp_path: Path, write_video: Callable) -> None:
    videos = [write_video(tmp_path / f"{number}.avi", 30, 16, 16, key=number) for number in range(3)]
    keys = [(epoch, index) for epoch in range(3) for index in range(3)]
    first = folder(tmp_path)
    starts = {key: start_of(first[key], videos[key[1]]) for key in keys}
    again = folder(tmp_path)
    assert {key: start_of(again[key], videos[key[1]]) for key in reversed(keys)} == starts
    assert first[1]["pixels"].equal(first[(0, 1)]["pixels"])
    other = folder(tmp_path, seed=1)
    assert {key: start_of(other[key], videos[key[1]]) for key in keys} != starts
    assert len(set(starts.values())) > 5


def test_worker_processes_give_the_same_items(tmp_path: Path, write_video: Callable, write_frames: Callable) -> None:
    for number in range(4):
        write_video(tmp_path / f"{number}.avi", 20, 16, 16, key=number)
    data = folder(tmp_path)
    data[0]  # the parent has opened a file already
    order = ResumableOrder(4, 3, seed=2, with_epoch=True)
    batches = iter(DataLoader(data, batch_sampler=order, num_workers=2))
    for step in range(4):
        batch = next(batches)
        keys = ResumableOrder(4, 3, seed=2, with_epoch=True).indices(step)
        assert batch["source"] == [f"{index}.avi" for _, index in keys]
        assert torch.equal(batch["pixels"], torch.stack([data[key]["pixels"] for key in keys]))


def test_unreadable_and_short_videos_are_listed_not_fatal(tmp_path: Path, write_video: Callable) -> None:
    write_video(tmp_path / "good.avi", 12, 16, 16)
    write_video(tmp_path / "short.avi", 4, 16, 16)
    whole = (tmp_path / "good.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video at all")
    (tmp_path / "table.log").write_text("ignored")
    data = folder(tmp_path)
    assert len(data) == 1
    assert data[0]["source"] == "good.avi"
    problems = dict(data.problems)
    assert sorted(problems) == ["cut.avi", "empty.mp4", "short.avi", "text.mp4"]
    assert problems["short.avi"] == "too short: 4 frames from first to last frame, a clip needs 5 frames"
    assert "empty (0 bytes)" in problems["empty.mp4"]


def test_all_unreadable_is_fatal_and_names_folder_and_reasons(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.mp4").write_bytes(b"")
    with pytest.raises(BadData) as caught:
        folder(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "0.mp4" in message
    assert "2.mp4" in message
    assert message.endswith("and 2 more")
    assert "\n" not in message


def test_a_row_without_its_file_is_listed(tmp_path: Path, write_video: Callable) -> None:
    write_video(tmp_path / "a.avi", 8, 16, 16)
    (tmp_path / "metadata.jsonl").write_text(
        '{"video": "a.avi", "prompt": "there"}\n{"video": "gone.avi", "prompt": "not"}\n'
    )
    data = folder(tmp_path)
    assert (data.layout, len(data), data[0]["prompt"]) == ("L7", 1, "there")
    assert data.problems[0][0] == "gone.avi"


def test_damage_found_while_decoding_gives_way_to_the_next_item(
    tmp_path: Path, write_frames: Callable[..., Tensor]
) -> None:
    write_frames(tmp_path / "a", 6, 16, 16, key=1)
    write_frames(tmp_path / "b", 6, 16, 16, key=2)
    for number in range(1, 6):
        (tmp_path / "a" / f"{number:06d}.png").write_bytes(b"damaged")
    data = folder(tmp_path, small(frames=3))
    assert len(data) == 2  # the first frame of each is fine
    with pytest.warns(UserWarning, match=r"skipped: .*a"):
        item = data[0]
    assert item["source"] == "b"
    assert torch.equal(item["pixels"], data[1]["pixels"]) or item["pixels"].shape == (3, 3, 16, 16)
    for number in range(1, 6):
        (tmp_path / "b" / f"{number:06d}.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(BadData, match="2 videos in a row"):
        data[0]


def test_pieces_of_a_table_stay_inside_their_times(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    frames = write_video(tmp_path / "a.avi", 40, 16, 16, fps=10)
    rows = [
        {"video": "a.avi", "prompt": "begin", "end": 1.0},
        {"video": "a.avi", "prompt": "middle", "start": 1.5, "end": 2.5},
        {"video": "a.avi", "prompt": "frames", "start": 30, "end": 36, "unit": "frames"},
        {"video": "a.avi", "prompt": "late", "start": 7.0},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = folder(tmp_path / "t.jsonl")
    starts = [{start_of(data[(epoch, index)], frames) for epoch in range(12)} for index in range(3)]
    for drawn, inside in zip(starts, (range(6), range(15, 21), range(30, 32)), strict=True):
        assert drawn <= set(inside)
        assert len(drawn) >= min(4, len(inside))
    assert [data[index]["prompt"] for index in range(3)] == ["begin", "middle", "frames"]
    assert data.problems == (("a.avi[7-]", "has no frames between 7 and inf seconds; it ends at 3.9"),)


def test_cutting_into_pieces_makes_more_items(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    frames = write_video(tmp_path / "a.avi", 47, 16, 16, fps=10)
    data = folder(tmp_path, small(window_seconds=1.0))
    assert [piece.source.name for piece in data.pieces] == [
        "a.avi[0-1]",
        "a.avi[1-2]",
        "a.avi[2-3]",
        "a.avi[3-4]",
        "a.avi[4-4.7]",
    ]
    for index, inside in enumerate((range(6), range(10, 16), range(20, 26), range(30, 36), range(40, 43))):
        drawn = {start_of(data[(epoch, index)], frames) for epoch in range(8)}
        assert drawn <= set(inside)
        assert len(drawn) > 1
    assert len(folder(tmp_path, small(window_seconds=100.0))) == 1


def test_every_and_middle_windows(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    videos = [write_video(tmp_path / f"{key}.avi", 8 + key, 16, 16, key=key) for key in range(2)]
    every = folder(tmp_path, small(take="every"))
    assert [(every[i]["source"], start_of(every[i], videos[i > 3])) for i in range(len(every))] == [
        *(("0.avi", start) for start in range(4)),
        *(("1.avi", start) for start in range(5)),
    ]
    third = folder(tmp_path, small(take="every", every=3))
    assert [start_of(third[i], videos[i > 1]) for i in range(len(third))] == [0, 3, 0, 3]
    middle = folder(tmp_path, small(take="middle"))
    assert [start_of(middle[(epoch, 1)], videos[1]) for epoch in range(5)] == [2] * 5


def test_resampling_to_a_frame_rate(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    fast = write_video(tmp_path / "fast.avi", 40, 16, 16, key=1, fps=24)
    slow = write_video(tmp_path / "slow.avi", 20, 16, 16, key=2, fps=8)
    data = folder(tmp_path, small(fps=8.0))
    assert [data[index]["fps"] for index in range(2)] == [8.0, 8.0]
    assert start_of(data[0], fast, 3) >= 0
    assert start_of(data[1], slow, 1) >= 0


def test_flip_mirrors_half_but_never_a_prompt_with_sides(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    for name, prompt in (("a", "a ball moves on"), ("b", "a ball rolls to the Left")):
        write_video(tmp_path / f"{name}.avi", 5, 16, 16)
        (tmp_path / f"{name}.txt").write_text(prompt)
    data = folder(tmp_path, small(flip=0.5))
    plain = folder(tmp_path)[0]["pixels"]
    mirrored = [not data[(epoch, 0)]["pixels"].equal(plain) for epoch in range(40)]
    assert 10 < sum(mirrored) < 30
    assert all(data[(epoch, 0)]["pixels"].equal(plain.flip(-1)) for epoch in range(10) if mirrored[epoch])
    assert all(data[(epoch, 1)]["pixels"].equal(plain) for epoch in range(10))


def test_prompts_from_names_or_none(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    write_video(tmp_path / "big_buckBunny.avi", 5, 16, 16)
    write_video(tmp_path / "with.avi", 5, 16, 16)
    (tmp_path / "with.txt").write_text("own words")
    assert [folder(tmp_path)[i]["prompt"] for i in range(2)] == ["", "own words"]
    assert [folder(tmp_path, small(prompts="name"))[i]["prompt"] for i in range(2)] == ["big buck bunny", "own words"]
    assert [folder(tmp_path, small(prompts="none"))[i]["prompt"] for i in range(2)] == ["", ""]


def test_a_zip_of_frames(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    frames = [write_frames(tmp_path / "d" / f"v{key}", 7, 16, 16, key=key) for key in range(2)]
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in sorted((tmp_path / "d").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "d"))
    data = folder(tmp_path / "d.zip", small(folder_fps=10.0))
    assert (data.layout, len(data)) == ("L5", 2)
    assert data[1]["fps"] == pytest.approx(10.0)
    # a process of its own, not a fork of this one, whose threads may hold locks that nobody would release in it
    batch = next(iter(DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn")))
    for index in range(2):
        start_of({"pixels": batch["pixels"][index]}, frames[index])


def test_the_index_file_spares_the_second_pass(
    tmp_path: Path, write_video: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, index = tmp_path / "videos", tmp_path / "index.json"
    frames = [write_video(root / f"{key}.avi", 10, 16, 16, key=key) for key in range(3)]
    (root / "bad.mp4").write_bytes(b"nothing")
    options = small(index=str(index))
    first = folder(root, options)
    before = sorted(path.name for path in root.iterdir())
    opened: list[str] = []
    import longtake.data.survey as survey

    real = survey._facts
    monkeypatch.setattr(survey, "_facts", lambda source, fps: opened.append(source.name) or real(source, fps))
    second = folder(root, options)
    assert opened == []
    assert second.problems == first.problems
    assert len(second.problems) == 1
    assert torch.equal(second[1]["pixels"], first[1]["pixels"])
    os.utime(root / "1.avi", ns=(1, 1))
    changed = folder(root, options)
    assert opened == ["1.avi"]
    start_of(changed[1], frames[1])
    assert sorted(path.name for path in root.iterdir()) == before  # nothing is written into the data
    index.write_text("garbage")
    folder(root, options)
    assert len(opened) == 5


def test_clips_go_into_a_latent_cache(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    class Means:
        def encode(self, pixels: Tensor) -> Tensor:
            return pixels.mean((3, 4), keepdim=True)[:, :, ::4]

        def content_hash(self) -> str:
            return "means"

    for key in range(3):
        write_video(tmp_path / "v" / f"{key}.avi", 9, 16, 16, key=key)
    (tmp_path / "v" / "1.json").write_text(json.dumps({"prompt": "plain", "captions": ["plain", "other"]}))
    data = folder(tmp_path / "v")
    cache_latents(data, Means(), tmp_path / "cache", source=data.description, dtype=torch.float32, progress=False)
    cached = CachedLatents(tmp_path / "cache")
    assert cached.prompts(1) == ["plain", "other"]
    for index in range(3):
        assert torch.allclose(cached[index]["latents"], Means().encode(data[index]["pixels"][None])[0])
        assert cached[index]["source"] == f"{index}.avi"
    assert "split unknown" in cached.index.source
