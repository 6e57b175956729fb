import itertools
from collections import Counter
from collections.abc import Iterable

import pytest
from torch.utils.data import DataLoader

from longtake.data.order import Part, ResumableOrder, draw_prompt, epoch_permutation, mix_seed, split_key
from longtake.errors import BadData, BadInput


def take(order: ResumableOrder, steps: int) -> list:
    return list(itertools.islice(order, steps))


def flat(batches: Iterable[list]) -> list:
    return list(itertools.chain.from_iterable(batches))


def test_every_item_once_per_epoch_and_another_shuffle_each_time() -> None:
    stream = flat(take(ResumableOrder(10, 4, seed=3), 5))
    first, second = stream[:10], stream[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != flat(take(ResumableOrder(10, 4, seed=4), 5))[:10]
    assert first == epoch_permutation(10, 3, 0).tolist()


@pytest.mark.parametrize("step", [1, 3, 17])
def test_starting_at_a_step_equals_walking_there(step: int) -> None:
    whole = take(ResumableOrder(7, 3, seed=1), step + 4)
    assert take(ResumableOrder(7, 3, seed=1, step=step), 4) == whole[step:]


def test_ranks_together_see_what_one_process_with_the_whole_batch_sees() -> None:
    one = take(ResumableOrder(11, 6, seed=5), 8)
    ranks = [take(ResumableOrder(11, 2, seed=5, rank=rank, world=3), 8) for rank in range(3)]
    assert [flat(parts) for parts in zip(*ranks, strict=True)] == one


def test_state_goes_on_exactly_even_with_prefetched_batches_and_another_world() -> None:
    whole = flat(take(ResumableOrder(9, 4, seed=2), 12))
    order = ResumableOrder(9, 4, seed=2)
    take(order, 8)  # a loader has asked ahead: the loop has used 5 of these
    state = order.state_dict(5)
    resumed = ResumableOrder(9, 4, seed=2)
    resumed.load_state_dict(state)
    assert resumed.step == 5
    assert flat(take(resumed, 3)) == whole[20:32]
    assert take(resumed, 1) == [whole[32:36]]
    assert resumed.state_dict() == {**state, "step": 9, "position": 36}
    pair = [ResumableOrder(9, 2, seed=2, rank=rank, world=2) for rank in range(2)]
    single = ResumableOrder(9, 1, seed=2)
    for other in (*pair, single):
        other.load_state_dict(state)
    assert take(pair[0], 1)[0] + take(pair[1], 1)[0] == whole[20:24]
    assert flat(take(single, 4)) == whole[20:24]


def test_epochs_travel_with_the_indices_into_workers() -> None:
    order = ResumableOrder(3, 2, seed=0, with_epoch=True)
    pairs = flat(take(order, 6))
    assert [epoch for epoch, _ in pairs] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]

    class Echo:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
            return key

    loader = DataLoader(
        Echo(),  # pyright: ignore[reportArgumentType]
        batch_sampler=ResumableOrder(3, 2, seed=0, with_epoch=True),
        num_workers=2,
        collate_fn=list,
    )
    batches = iter(loader)
    assert flat([next(batches) for _ in range(6)]) == pairs


def test_without_shuffle_it_walks_in_order() -> None:
    assert take(ResumableOrder(5, 2, shuffle=False), 5) == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


def test_batch_larger_than_the_set() -> None:
    assert Counter(take(ResumableOrder(2, 5), 2)[0]).total() == 5


def test_seeds_do_not_collide() -> None:
    seeds = {mix_seed(a, b, c) for a in range(-3, 9) for b in range(9) for c in range(9)}
    assert len(seeds) == 12 * 81
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_keys() -> None:
    assert split_key(2, 5) == (0, 2)
    assert split_key((4, -1), 5) == (4, 4)
    with pytest.raises(IndexError):
        split_key(5, 5)


def test_bad_arguments() -> None:
    with pytest.raises(BadData, match="empty"):
        ResumableOrder(0, 1)
    with pytest.raises(BadInput, match="rank=2"):
        ResumableOrder(4, 1, rank=2, world=2)
    with pytest.raises(BadData, match="4 items"):
        ResumableOrder(5, 1).load_state_dict(ResumableOrder(4, 1).state_dict())


def test_a_part_passes_epochs_on_and_maps_indices() -> None:
    class Keys:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, key: int | tuple[int, int]) -> object:
            return key

        def prompts(self, index: int) -> list[str]:
            return [str(index)]

    part = Part(Keys(), range(6, 10))
    assert len(part) == 4
    assert part[1] == 7
    assert part[(3, -1)] == (3, 9)
    assert part.__getitems__([(1, 0), 2]) == [(1, 6), 8]
    assert part.prompts(0) == ["6"]
    with pytest.raises(IndexError):
        part[4]


def test_the_plain_prompt_is_drawn_half_of_the_time() -> None:
    drawn = Counter(draw_prompt(["plain", "b", "c"], 1, epoch, 0) for epoch in range(600))
    assert 250 < drawn["plain"] < 350
    assert 100 < drawn["b"] < 200
    assert draw_prompt(["only"], 1, 2, 3) == "only"
