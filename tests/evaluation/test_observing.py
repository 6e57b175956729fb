"""Streaming: one pass, shards that survive a kill, the same rows for any batch, order and number of processes."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing

from longtake.errors import BadData, BadInput, BadVideo
from longtake.evaluation import observing
from longtake.evaluation.cuts import cut
from longtake.evaluation.observing import Observer, observe
from longtake.evaluation.protocol import Side
from longtake.evaluation.sources import TensorSource

SIDE = Side(frames=3)


def clips(count: int = 11) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 3, 8, 8), generator=generator, dtype=torch.uint8)


def mean_of(seen: observing.Seen) -> torch.Tensor:
    return seen.pixels.double().mean((2, 3, 4))[:, None]


MEAN = Observer("mean", "1", mean_of)


class Counting(TensorSource):
    """Counts what is read; some clips are damaged; the one numbered `dies` ends the run."""

    def __init__(self, pixels: torch.Tensor, damaged: tuple[int, ...] = (), dies: int | None = None) -> None:
        super().__init__(pixels)
        self.read_so_far: list[int] = []
        self.damaged, self.dies = damaged, dies

    def read(self, number, frames):
        self.read_so_far.append(number)
        if number in self.damaged:
            raise BadVideo(f"clip {number} is damaged")
        if number == self.dies:
            raise KeyboardInterrupt
        return super().read(number, frames)

    def digest(self, number, frames):
        return TensorSource.read(self, number, frames).numpy().tobytes().hex()


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "SHARD", 4)


def test_every_clip_is_decoded_once_for_all_observers() -> None:
    source = Counting(clips())
    found = cut(source, SIDE)
    seen = observe(found, [MEAN, Observer("twice", "2", lambda s: mean_of(s).repeat(1, 2, 1))], batch=3)
    assert sorted(source.read_so_far) == list(range(11)) and seen.decoded == 11
    assert seen.rows["mean"].shape == (11, 1, 3) and seen.rows["twice"].shape == (11, 2, 3)
    expected = torch.stack([clips()[one.video].double().mean((1, 2, 3)) for one in seen.clips])
    assert torch.equal(seen.rows["mean"][:, 0], expected)


def test_batches_workers_and_the_order_of_clips_change_nothing() -> None:
    reference = observe(cut(TensorSource(clips()), SIDE), [MEAN], batch=4)
    turned = observe(cut(TensorSource(clips().flip(0)), SIDE), [MEAN], batch=1)
    forked = observe(cut(TensorSource(clips()), SIDE), [MEAN], batch=3, workers=2)
    for other in (turned, forked):
        assert torch.equal(reference.rows["mean"], other.rows["mean"])


def test_no_more_than_a_batch_of_clips_is_held() -> None:
    held = []
    observe(
        cut(TensorSource(clips()), SIDE),
        [Observer("size", "1", lambda s: held.append(len(s.pixels)) or mean_of(s))],
        batch=2,
    )
    assert max(held) == 2


def test_a_killed_run_goes_on_behind_its_last_shard(tmp_path: Path) -> None:
    order = [one.video for one in cut(Counting(clips()), SIDE).clips]
    dying = Counting(clips(), dies=order[9])  # in the third shard
    with pytest.raises(KeyboardInterrupt):
        observe(cut(dying, SIDE), [MEAN], cache=tmp_path, batch=2)
    again = Counting(clips())
    seen = observe(cut(again, SIDE), [MEAN], cache=tmp_path, batch=2)
    assert sorted(again.read_so_far) == sorted(order[8:]) and seen.decoded == 3
    assert torch.equal(seen.rows["mean"], observe(cut(Counting(clips()), SIDE), [MEAN]).rows["mean"])
    third = Counting(clips())
    assert observe(cut(third, SIDE), [MEAN], cache=tmp_path).decoded == 0 and third.read_so_far == []


def test_a_new_observer_looks_alone_and_a_half_written_shard_is_written_again(tmp_path: Path) -> None:
    observe(cut(TensorSource(clips()), SIDE), [MEAN], cache=tmp_path)
    looked = []
    new = Observer("new", "1", lambda s: looked.append(1) or mean_of(s))
    changed = Observer("mean", "2", mean_of)
    again = Observer("mean", "1", lambda s: pytest.fail("was in the cache"))
    assert observe(cut(TensorSource(clips()), SIDE), [again, new], cache=tmp_path, batch=4).decoded == 11
    assert len(looked) == 3
    assert observe(cut(TensorSource(clips()), SIDE), [changed], cache=tmp_path).decoded == 11
    shard = sorted(tmp_path.glob("new-*/000004.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-5])
    assert observe(cut(TensorSource(clips()), SIDE), [new], cache=tmp_path).decoded == 4


def test_other_content_or_another_preparation_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    observe(cut(TensorSource(clips()), SIDE), [MEAN], cache=tmp_path)
    other = clips()
    other[0, 0, 0, 0, 0] ^= 1
    assert observe(cut(TensorSource(other), SIDE), [MEAN], cache=tmp_path).decoded == 11
    smaller = Side(frames=3, height=4, width=4)
    assert observe(cut(TensorSource(clips()), smaller), [MEAN], cache=tmp_path).decoded == 11


def test_damaged_clips_are_listed_and_left_out(tmp_path: Path) -> None:
    for _ in range(2):  # and the list comes out of the cache too
        seen = observe(cut(Counting(clips(), damaged=(2, 5)), SIDE), [MEAN], cache=tmp_path, batch=3)
        assert len(seen.clips) == len(seen.rows["mean"]) == 9 and 2 not in [one.video for one in seen.clips]
        assert sorted(seen.problems) == [("000002", "clip 2 is damaged"), ("000005", "clip 5 is damaged")]
    with pytest.raises(BadData, match="none of the 11 clips"):
        observe(cut(Counting(clips(), damaged=tuple(range(11))), SIDE), [MEAN])


def test_partners_come_with_their_clips() -> None:
    fake, real = cut(TensorSource(clips()), SIDE), cut(TensorSource(255 - clips()), SIDE)
    place = {one.video: number for number, one in enumerate(real.clips)}
    places = [place[one.video] for one in fake.clips]
    total = Observer(
        "sum", "1", lambda s: (s.pixels.int() + s.partners.int()).double().mean((1, 2, 3, 4))[:, None, None], True
    )
    seen = observe(fake, [total], partners=(real, places), batch=3)
    assert torch.equal(seen.rows["sum"], torch.full((11, 1, 1), 255.0, dtype=torch.float64))


def test_a_batch_out_of_range() -> None:
    with pytest.raises(BadInput, match="batch is 0"):
        observe(cut(TensorSource(clips()), SIDE), [MEAN], batch=0)


def run_process(rank: int, folder: str, damaged: tuple[int, ...]) -> None:
    observing.SHARD = 4
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    source = Counting(clips(), damaged)
    seen = observe(cut(source, SIDE), [MEAN, Observer("twice", "2", lambda s: mean_of(s).float())], batch=2)
    torch.save({"rows": seen.rows, "problems": seen.problems, "read": source.read_so_far}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_share_the_work_and_see_the_same(tmp_path: Path) -> None:
    multiprocessing.spawn(run_process, (str(tmp_path), (3,)), nprocs=2)
    alone = observe(cut(Counting(clips(), (3,)), SIDE), [MEAN], batch=3)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for part in parts:
        assert torch.equal(part["rows"]["mean"], alone.rows["mean"])
        assert part["rows"]["twice"].dtype == torch.float32 and part["problems"] == alone.problems
    assert sorted(parts[0]["read"] + parts[1]["read"]) == list(range(11)) and all(part["read"] for part in parts)
