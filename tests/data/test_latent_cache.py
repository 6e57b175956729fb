import copy
import errno
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from longtake.data.latent_cache import CachedLatents, cache_latents, read_index
from longtake.data.order import ResumableOrder
from longtake.errors import BadData, BadOutput


class PoolTokenizer:
    """A stand-in with the real one's interface: 2x2 means of each frame, every fourth frame."""

    def __init__(self, name: str = "pool") -> None:
        self.name, self.encoded = name, 0

    def encode(self, pixels: Tensor) -> Tensor:
        if pixels.shape[2] > 1:
            self.encoded += len(pixels)
        return torch.nn.functional.avg_pool3d(pixels[:, :, ::4], (1, 2, 2))

    def content_hash(self) -> str:
        return f"{self.name}-0123456789abcdef"


class Clips(torch.utils.data.Dataset):
    def __init__(self, size: int, fail_at: int | None = None, frames: int = 5) -> None:
        self.size, self.fail_at, self.frames = size, fail_at, frames

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        if index == self.fail_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(index)
        return {
            "pixels": torch.rand(3, self.frames, 4, 8, generator=generator) * 2 - 1,
            "prompt": f"clip {index}",
            "prompts": [f"clip {index}", f"the {index}th clip", f"no. {index}"],
            "fps": 8.0,
            "source": f"{index}.mp4",
            "marks": torch.tensor([index, 255], dtype=torch.uint8),
        }


def make(out: Path, size: int = 11, **options) -> PoolTokenizer:
    tokenizer = PoolTokenizer()
    cache_latents(Clips(size), tokenizer, out, batch=2, shard_size=3, progress=False, **options)
    return tokenizer


@pytest.mark.parametrize("in_memory", [True, False])
def test_items_are_the_encoded_clips(tmp_path: Path, in_memory: bool) -> None:
    tokenizer = make(tmp_path / "cache", dtype=torch.float32)
    cached = CachedLatents(tmp_path / "cache", tokenizer_hash=tokenizer.content_hash(), in_memory=in_memory)
    assert len(cached) == 11
    for index in (0, 2, 3, 10):
        clip = Clips(11)[index]
        item = cached[index]
        assert torch.equal(item["latents"], tokenizer.encode(clip["pixels"][None])[0])
        assert torch.equal(item["last_image_latents"], tokenizer.encode(clip["pixels"][None, :, -1:])[0])
        assert item["last_image_latents"].shape == (3, 1, 2, 4)
        assert (item["prompt"], item["fps"], item["source"]) == (f"clip {index}", 8.0, f"{index}.mp4")
    assert cached.index.pixel_shape == (3, 5, 4, 8)
    assert cached.index.latent_shape == (3, 2, 2, 4)
    assert [count for _, count in cached.index.shards] == [3, 3, 3, 2]
    with pytest.raises(IndexError):
        cached[11]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_as_such_and_read_as_float(tmp_path: Path, dtype: torch.dtype) -> None:
    make(tmp_path / "cache", dtype=dtype)
    expected = PoolTokenizer().encode(Clips(11)[4]["pixels"][None])[0].to(dtype)
    item = CachedLatents(tmp_path / "cache")[4]
    assert item["latents"].dtype == torch.float32
    assert torch.equal(item["latents"], expected.float())
    shard = (tmp_path / "cache" / "shard-00000.safetensors").stat().st_size
    assert shard < 3 * (48 + 24) * 2 + 1024


def test_an_interrupted_run_goes_on_and_encodes_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "cache"
    first = PoolTokenizer()
    with pytest.raises(KeyboardInterrupt):
        cache_latents(Clips(11, fail_at=8), first, out, batch=2, shard_size=3, progress=False)
    assert read_index(out).count == 6
    assert first.encoded == 8
    with pytest.raises(BadData, match="6 of 11 clips"):
        CachedLatents(out)
    assert len(CachedLatents(out, partial=True)) == 6
    second = make(out)
    assert second.encoded == 5
    make(tmp_path / "whole")
    broken, whole = CachedLatents(out), CachedLatents(tmp_path / "whole")
    assert all(torch.equal(broken[i]["latents"], whole[i]["latents"]) for i in range(11))
    assert [broken[i]["prompt"] for i in range(11)] == [f"clip {i}" for i in range(11)]
    assert make(out).encoded == 0  # complete: nothing to do
    assert not list(out.glob("*.part"))


def test_paraphrases_are_drawn_by_epoch(tmp_path: Path) -> None:
    make(tmp_path / "cache")
    cached = CachedLatents(tmp_path / "cache", seed=1)
    drawn = [cached[(epoch, 3)]["prompt"] for epoch in range(40)]
    assert set(drawn) == set(cached.prompts(3)) == {"clip 3", "the 3th clip", "no. 3"}
    again = CachedLatents(tmp_path / "cache", seed=1)
    assert drawn == [again[(epoch, 3)]["prompt"] for epoch in range(40)]
    other = CachedLatents(tmp_path / "cache", seed=2)
    assert drawn != [other[(epoch, 3)]["prompt"] for epoch in range(40)]


def test_workers_read_from_files_in_the_samplers_order(tmp_path: Path) -> None:
    make(tmp_path / "cache", dtype=torch.float32)
    cached = CachedLatents(tmp_path / "cache", in_memory=False)
    cached[0]  # opens a file before the fork
    order = ResumableOrder(11, 4, seed=7, with_epoch=True)
    batches = iter(DataLoader(cached, batch_sampler=order, num_workers=2))
    for step in range(4):
        batch = next(batches)
        keys = ResumableOrder(11, 4, seed=7, with_epoch=True).indices(step)
        assert batch["source"] == [f"{index}.mp4" for _, index in keys]
        assert batch["prompt"] == [cached[key]["prompt"] for key in keys]
        assert torch.equal(batch["latents"], torch.stack([cached[key]["latents"] for key in keys]))
    assert torch.equal(copy.deepcopy(cached)[5]["latents"], cached[5]["latents"])


@pytest.mark.parametrize("in_memory", [True, False])
def test_further_tensors_are_kept_as_they_are(tmp_path: Path, in_memory: bool) -> None:
    make(tmp_path / "cache", keep=("marks",))
    cached = CachedLatents(tmp_path / "cache", in_memory=in_memory)
    assert torch.equal(cached[7]["marks"], torch.tensor([7, 255], dtype=torch.uint8))
    assert cached[7]["latents"].dtype == torch.float32
    with pytest.raises(BadData, match="another choice of tensors"):
        make(tmp_path / "cache")
    make(tmp_path / "without")
    assert "marks" not in CachedLatents(tmp_path / "without")[7]


def test_another_tokenizer_is_refused_for_reading_and_for_resuming(tmp_path: Path) -> None:
    out = tmp_path / "cache"
    make(out)
    with pytest.raises(BadData, match="encoded by tokenizer pool-0123456"):
        CachedLatents(out, tokenizer_hash="other-hash")
    with pytest.raises(BadData, match="another tokenizer"):
        cache_latents(Clips(11), PoolTokenizer("other"), out, progress=False)
    with pytest.raises(BadData, match="another dtype"):
        cache_latents(Clips(11), PoolTokenizer(), out, dtype=torch.float32, progress=False)
    with pytest.raises(BadData, match="another clip count"):
        cache_latents(Clips(12), PoolTokenizer(), out, progress=False)
    with pytest.raises(BadData, match="another data"):
        cache_latents(Clips(11), PoolTokenizer(), out, source="elsewhere", progress=False)
    assert len(CachedLatents(out)) == 11  # untouched


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"index\.json is missing"):
        CachedLatents(tmp_path)
    with pytest.raises(BadOutput, match="missing/cache"):
        make(tmp_path / "missing" / "cache")
    with pytest.raises(BadData, match="the data set is empty"):
        make(tmp_path / "cache", size=0)
    (tmp_path / "index.json").write_text(json.dumps({"format": "something else"}))
    with pytest.raises(BadData, match="another format"):
        CachedLatents(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    make(tmp_path / "cache")
    (tmp_path / "cache" / "shard-00001.safetensors").write_bytes(b"cut off")
    with pytest.raises(BadData, match=r"shard-00001\.safetensors"):
        CachedLatents(tmp_path / "cache")


def test_clips_of_two_sizes_are_refused(tmp_path: Path) -> None:
    both = torch.utils.data.ConcatDataset([Clips(3), Clips(3, frames=9)])
    with pytest.raises(BadData, match="one cache holds one size"):
        cache_latents(both, PoolTokenizer(), tmp_path / "cache", batch=2, progress=False)


def test_latents_that_overflow_are_refused(tmp_path: Path) -> None:
    class Loud(PoolTokenizer):
        def encode(self, pixels: Tensor) -> Tensor:
            return super().encode(pixels) * 1e6

    with pytest.raises(BadData, match="not finite as float16"):
        cache_latents(Clips(3), Loud(), tmp_path / "cache", progress=False)


def test_a_full_disk_is_one_error_and_leaves_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        cache_latents(Clips(11, fail_at=8), PoolTokenizer(), out, batch=2, shard_size=3, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(BadOutput, match="No space left"):
            make(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "index.json",
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    ]
    assert make(out).encoded == 5


class IdTokenizer(PoolTokenizer):
    """A stand-in for a discrete one, whose clips are multiples of 4 frames: large ids, no single images."""

    def encode(self, pixels: Tensor) -> Tensor:
        assert pixels.shape[2] % 4 == 0
        return (pixels[:, 0, ::4] * 8000).long() + 16000


def test_ids_are_kept_whole_and_without_a_last_image(tmp_path: Path) -> None:
    clips, tokenizer = Clips(5, frames=8), IdTokenizer()
    cache_latents(clips, tokenizer, tmp_path / "ids", batch=2, dtype=torch.int32, last_image=False, progress=False)
    cached = CachedLatents(tmp_path / "ids", dtype=torch.int64)
    for index in range(5):
        expected = tokenizer.encode(clips[index]["pixels"][None])[0]
        assert cached[index]["latents"].dtype == torch.int64
        assert torch.equal(cached[index]["latents"], expected)
    assert expected.unique().numel() > 30 and "last_image_latents" not in cached[0]
    with pytest.raises(BadData, match="choice of tensors"):
        cache_latents(clips, tokenizer, tmp_path / "ids", dtype=torch.int32, progress=False)
