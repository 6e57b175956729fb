"""Δ-DiT against its formula and against hooks that do what its algorithm says."""

import math

import pytest
import torch
from tiny_networks import build, sample

from longtake.errors import BadInput, Unsupported
from longtake.methods.caches.delta_dit import DeltaDiT
from longtake.runtime import StepInfo
from longtake.runtime.stack import Stack


def run(tiny, method, given=None, **options):
    with Stack([method], allow_inert=True).attach(tiny.network) as stack:
        return sample(tiny, *(given or tiny.draw()), stack, **options), stack.receipts[0]


def test_published_operating_points():
    """1 / (1 - N_c / L (1 - ceil(T / N) / T)) with L = 28 and N = 2: the speed-ups that the paper prints."""
    for steps, skipped, printed in ((20, 21, 1.6), (4, 4, 1.08), (4, 6, 1.12)):
        method = DeltaDiT(skipped=skipped, last_full=False)
        full = len(method.schedule().steps(steps))
        assert full == math.ceil(steps / 2)
        assert round(1 / (1 - skipped / 28 * (1 - full / steps)), 2) == pytest.approx(printed, abs=0.005)
        assert DeltaDiT(speedup=printed, last_full=False).skipped_of(28, steps) == skipped


@pytest.mark.parametrize("steps", [5, 8])
@pytest.mark.parametrize("last_full", [True, False])
@pytest.mark.parametrize("skipped", [1, 3])
def test_counts_and_costs_equal_the_formula(skipped, last_full, steps):
    """All four blocks of a tiny Wan cost the same."""
    tiny = build("wan")
    method = DeltaDiT(skipped=skipped, boundary=2, last_full=last_full)
    _, receipt = run(tiny, method, steps=steps)
    full = len(range(0, steps, 2))  # nobody knows the number of steps here, so none is the last
    assert receipt.branches["cond"].skipped == receipt.branches["uncond"].skipped == skipped * (steps - full)
    n, words, d, inner = 8, 5, 24, 24
    block = 4 * n * d * d + 2 * n * n * d + 2 * n * d * d + 2 * words * d * d + 2 * n * words * d + 2 * n * d * inner
    assert receipt.macs_dense - receipt.macs_done == 2 * (steps - full) * skipped * block
    assert receipt.notes["back"] == [1]
    assert receipt.notes["front"] == list(range(3, steps, 2))


def test_the_last_step_is_full_where_the_number_of_steps_is_known():
    tiny = build("our-waver")
    for last_full, full in ((True, [0, 2, 4, 5]), (False, [0, 2, 4])):
        receipt = run(tiny, DeltaDiT(skipped=1, last_full=last_full), steps=6)[1]
        assert receipt.notes["full"] == full


@pytest.mark.parametrize("swapped", [False, True])
def test_the_algorithm_by_hand(swapped):
    """Hooks that skip the last two blocks before step 2 and the first two after it."""
    tiny = build("our-waver")
    given = tiny.draw()
    made, _ = run(tiny, DeltaDiT(skipped=2, boundary=2, swapped=swapped, last_full=False), given)
    blocks, kept, calls = tiny.network.blocks, {}, {}
    ranges = {"front": (0, 1), "back": (2, 3)}

    def after(layer):
        def seen(module, args, output):
            step, branch = divmod(calls.setdefault(layer, 0), 2)
            calls[layer] += 1
            early = (step < 2) != swapped
            side = "back" if early else "front"
            for name, (first, last) in ranges.items():
                if step % 2 == 0 and layer == first:
                    kept["into", name, branch] = args[:2]
                if step % 2 == 0 and layer == last:
                    into = kept["into", name, branch]
                    kept[name, branch] = [new - old for new, old in zip(output, into, strict=True)]
            if step % 2 and layer in ranges[side]:
                if layer != ranges[side][1]:
                    return args[:2]
                return tuple(old + added for old, added in zip(args[:2], kept[side, branch], strict=True))
            return output

        return seen

    for layer, block in enumerate(blocks):
        block.register_forward_hook(after(layer))
    torch.testing.assert_close(made, sample(tiny, *given), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["our-waver", "our-latte"])
@pytest.mark.parametrize("swapped", [False, True])
def test_reuse_right_behind_a_full_step_of_the_same_input_is_dense(family, swapped):
    tiny = build(family)
    noise, text = tiny.draw()
    dense = tiny(noise, text["cond"], 500.0, "cond")
    with Stack([DeltaDiT(skipped=2, boundary=9, swapped=swapped)]).attach(tiny.network) as stack:
        number = stack.begin()
        for s in (0, 1):
            made = tiny(noise, text["cond"], 500.0, "cond", StepInfo(number, s, 9, 500.0, 0.5, 0.5, "cond"))
        assert stack.finish(number)[0].branches["cond"].skipped == 2
    torch.testing.assert_close(made, dense, atol=2e-6, rtol=2e-6)


def test_one_difference_is_half_the_memory_and_one_full_step_more():
    tiny = build("our-waver")
    both = run(tiny, DeltaDiT(skipped=2, boundary=3, last_full=False), steps=8)[1]
    active = run(tiny, DeltaDiT(skipped=2, boundary=3, last_full=False, store="active"), steps=8)[1]
    assert both.notes == {"full": [0, 2, 4, 6], "back": [1], "front": [3, 5, 7]}
    assert active.notes == {"full": [0, 2, 3, 4, 6], "back": [1], "front": [5, 7]}
    one = 16 * (32 + 5) * 4
    assert both.state_bytes == 2 * 2 * one
    assert active.state_bytes == 2 * one


def test_differences_can_be_forecast():
    tiny = build("our-waver")
    given = tiny.draw()
    held, forecast = (run(tiny, DeltaDiT(skipped=2, boundary=9, order=order), given, steps=5)[0] for order in (0, 1))
    assert torch.equal(held[:3], forecast[:3])
    assert not torch.equal(held, forecast)


def test_the_boundary_can_be_a_noise_level():
    tiny = build("wan")
    given = tiny.draw()
    by_noise, receipt = run(tiny, DeltaDiT(skipped=1, boundary_noise=0.5), given)
    assert torch.equal(by_noise, run(tiny, DeltaDiT(skipped=1, boundary=2), given)[0])
    assert receipt.notes["back"] == [1]
    assert receipt.notes["front"] == [3]


def test_the_front_range_of_a_latte_begins_behind_its_positions_in_time():
    tiny, ran = build("latte"), []
    for name in ("transformer_blocks", "temporal_transformer_blocks"):
        for i, block in enumerate(getattr(tiny.network, name)):
            block.attn1.register_forward_pre_hook(lambda module, args, at=(i, name[:4]): ran.append(at))
    noise, text = tiny.draw()
    with Stack([DeltaDiT(skipped=3, boundary=0)]).attach(tiny.network):
        for t in (900.0, 800.0):
            ran.clear()
            tiny(noise, text["cond"], t, "cond")
    assert ran == [(0, "tran"), (0, "temp"), (2, "temp")]


def test_no_block_skipped_is_dense_bit_for_bit():
    tiny = build("our-waver")
    given = tiny.draw()
    assert torch.equal(run(tiny, DeltaDiT(speedup=1.0), given)[0], sample(tiny, *given))


def test_what_cannot_be_is_refused_in_one_line():
    tiny = build("latte")
    with pytest.raises(Unsupported, match="5 of 6 blocks") as caught:
        Stack([DeltaDiT(skipped=5)]).attach(tiny.network)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="as fast") as caught:
        DeltaDiT(speedup=3.0).skipped_of(28, 20)
    assert "\n" not in str(caught.value)
    for settings in ({"interval": 0}, {"skipped": -1}, {"speedup": 0.5}, {"store": "all"}, {"order": 4}):
        with pytest.raises(BadInput, match=r"interval|delta-dit"):
            DeltaDiT(**settings)
