"""Skipping a range of blocks adds what it added before."""

import pytest
import torch
from tiny_networks import FAMILIES, build

from longtake.errors import Unsupported
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.runtime import BlockForm, Blocks, Family, ModelView, TokenGrid
from longtake.runtime.ranges import Span
from longtake.runtime.stack import Stack
from longtake.runtime.views import view_of

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def twice(tiny, span, changed=False):
    """A full call and one whose range is skipped, of the same input or with other words in the second."""
    method = TaylorSeer(granularity="range", mask="10", order=0, first=span.first, last=span.last)
    noise, text = tiny.draw()
    with Stack([method]).attach(tiny.network) as stack:
        from longtake.runtime import StepInfo

        infos = [StepInfo(stack.begin(), s, 2, 500.0, 0.5, 0.5, "cond") for s in (0, 1)] if tiny.ours else [None] * 2
        full = tiny(noise, text["cond"], 500.0, "cond", infos[0])
        again = tiny(
            noise, text["uncond" if changed else "cond"], 500.0 if tiny.ours else 499.9995, "cond", _at(infos, 1)
        )
    return full, again, stack.receipts[0]


def _at(infos, s):
    from dataclasses import replace

    return None if infos[s] is None else replace(infos[s], run=infos[0].run)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "hunyuan-video"])
def test_on_the_same_input_a_skipped_range_gives_what_it_gave(family):
    """Where the step is told from the timestep, it moves by a hair, and the range is all that could be skipped."""
    tiny = build(family)
    view = view_of(tiny.network)
    span = Span(view.first_safe, len(view.blocks) - 1)
    full, again, receipt = twice(tiny, span)
    assert receipt.branches["cond"].skipped == span.last - span.first + 1
    torch.testing.assert_close(again, full, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("family", ["our-latte", "latte"])
def test_a_range_over_both_axes_is_added_in_one_layout(family):
    """From a block over space to one over time, whose tokens lie in another order."""
    full, again, _ = twice(build(family), Span(2, 3))
    torch.testing.assert_close(again, full, atol=2e-3, rtol=2e-3)


def test_text_tokens_of_a_skipped_range_move_on_too():
    tiny, seen = build("our-waver"), []
    tiny.network.blocks[3].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    twice(tiny, Span(1, 2))
    assert len(seen) == 2
    torch.testing.assert_close(seen[1], seen[0], atol=2e-3, rtol=2e-3)
    given = []
    tiny.network.blocks[1].register_forward_pre_hook(lambda module, args: given.append(args[1]))
    twice(tiny, Span(1, 2))
    assert not torch.allclose(given[0], seen[0], atol=1e-2)


def test_what_comes_in_is_todays():
    """A range adds to the stream of now; it does not bring back the stream of then."""
    full, again, _ = twice(build("our-waver"), Span(1, 2), changed=True)
    assert not torch.allclose(again, full, atol=1e-2)


def test_spans_that_are_not_there_or_not_safe_are_refused():
    network = torch.nn.Sequential(torch.nn.Sequential(*(torch.nn.Identity() for _ in range(6))))
    family = Family("X", (Blocks("0", BlockForm(())),), lambda network, given: TokenGrid(1, 1, 1), first_safe=2)
    view = ModelView(network, family)
    Span(2, 5).check(view)
    for span, message in (
        (Span(2, 6), "2 to 6 of 6"),
        (Span(4, 3), "4 to 3"),
        (Span(1, 3), "before block 2; begin the range there"),
    ):
        with pytest.raises(Unsupported, match=message):
            span.check(view)
