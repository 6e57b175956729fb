"""Methods that ask the attention inside of them for its log-sum-exp, and join attentions over parts of the keys."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tiny_networks import FAMILIES, build, sample

from longtake.errors import Unsupported
from longtake.layers.attention_lse import attend_lse, merge
from longtake.methods import parse_stack
from longtake.runtime import AttendPoint, AttnCall, Site, TokenGrid
from longtake.runtime.method import Method
from longtake.runtime.stack import Stack

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:.* did nothing")


@dataclass(frozen=True)
class Halves(Method):
    """The attention over the first keys and over the rest, merged."""

    name: ClassVar[str] = "halves"

    at: str = "control"

    def rank(self):
        return self.at

    def wants(self, site):
        return site.kind.startswith("attn")

    def attend(self, here, call, nxt):
        cut = call.k.shape[2] // 3
        parts = [nxt(part(call, keys), lse=True) for keys in (slice(cut), slice(cut, None))]
        here.changed()
        out, lse = merge(*parts[0], *parts[1])
        return (out, lse) if here.lse else out


@dataclass(frozen=True)
class Own(Method):
    """Its own attention, with or without its log-sum-exp."""

    name: ClassVar[str] = "own"

    pair: bool = True

    def rank(self):
        return "attention"

    def attend(self, here, call, nxt):
        here.changed("own")
        made = attend_lse(call.q, call.k, call.v, call.mask, call.scale, kernel="chunked")
        return made if here.lse and self.pair else made[0]


def part(call, keys):
    mask = call.mask if call.mask is None or call.mask.shape[-1] == 1 else call.mask[..., keys]
    return replace(call, k=call.k[:, :, keys], v=call.v[:, :, keys], mask=mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_the_keys_make_the_whole_on_every_family(family):
    tiny = build(family)
    given = tiny.draw()
    dense = sample(tiny, *given)
    with Stack([Halves()]).attach(tiny.network) as stack:
        made = sample(tiny, *given, stack)
    torch.testing.assert_close(made, dense, atol=2e-5, rtol=1e-4)
    (receipt,) = stack.receipts
    calls = sum(counts.changed for counts in receipt.branches.values())
    assert calls and sum(receipt.kernels.values()) == 2 * calls
    short = {"lse chunked"} if "latte" in family else set()  # a third of two frames is none: an empty set of keys
    assert set(receipt.kernels) == {"lse flash-cpu"} | short
    assert receipt.macs_dense


def test_methods_inside_pass_the_sum_on_with_what_they_were_given():
    """A window puts its mask on the parts, an observer nothing; the merged parts are the window over all keys."""
    tiny = build("wan")
    given = tiny.draw()
    with Stack(parse_stack("local-window:rows=0,columns=0")).attach(tiny.network) as stack:
        window = sample(tiny, *given, stack)

    class Rows(Halves):
        """Over parts of the queries, so that the window inside of it still sees all keys."""

        def wants(self, site):
            return site.kind == "attn.self"

        def attend(self, here, call, nxt):
            out, lse = nxt(call, lse=True)
            here.changed()
            exact = attend_lse(call.q, call.k, call.v, self.seen(call), call.scale)
            torch.testing.assert_close(lse, exact[1])
            return out

        def seen(self, call):
            return parse_stack("local-window:rows=0,columns=0")[0].mask(call.grid, call.q.device)

    methods = [Rows(), *parse_stack("local-window:rows=0,columns=0+attention-maps:layers=,steps=")]
    with Stack(methods).attach(tiny.network) as stack:
        torch.testing.assert_close(sample(tiny, *given, stack), window, atol=2e-5, rtol=1e-4)
    kernels = {receipt.method: receipt.kernels for receipt in stack.receipts}
    assert set(kernels["halves"]) == {"lse flash-cpu"}
    assert set(kernels["local-window"]) == {"masked"} and not kernels["attention-maps"]


def test_a_method_inside_may_give_a_sum_of_its_own():
    tiny = build("our-waver")
    given = tiny.draw()
    with Stack([Halves(), Own()]).attach(tiny.network) as stack:
        torch.testing.assert_close(
            sample(tiny, *given, stack), sample(build("our-waver"), *given), atol=2e-5, rtol=1e-4
        )
    kernels = {receipt.method: set(receipt.kernels) for receipt in stack.receipts}
    assert kernels == {"halves": set(), "own": {"own"}}


def test_one_that_gives_none_is_refused_by_its_name():
    tiny = build("our-waver")
    with Stack([Halves(), Own(pair=False)], allow_inert=True).attach(tiny.network) as stack:
        with pytest.raises(Unsupported, match="own computes an attention in its own way and gives no log-sum-exp"):
            sample(tiny, *tiny.draw(), stack)


def test_a_network_of_ours_may_ask_the_point_itself():
    q, k, v = torch.randn(3, 2, 2, 7, 4)
    one = AttnCall(q, k, v, TokenGrid(1, 1, 7), scale=0.3)
    out, lse = AttendPoint(Site("attn.self", 0, 1, "video", "x"))(one, lse=True)
    torch.testing.assert_close(lse, (q @ k.mT * 0.3).logsumexp(-1))
    torch.testing.assert_close(out, (q @ k.mT * 0.3).softmax(-1) @ v)
