"""Attentions of networks of diffusers, seen where torch computes them."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import FAMILIES, build

from longtake.runtime import AttnCall, TokenGrid
from longtake.runtime.interception import Interception
from longtake.runtime.views import view_of

GRID = TokenGrid(2, 2, 1)


def intercept(call, text_at="last", seen=None):
    calls = []

    def note(one, dense, number):
        calls.append((one, number))
        return dense(one) if seen is None else seen(one, dense)

    with Interception(GRID, text_at, note):
        return call(), calls


def test_a_call_is_seen_with_its_mask_scale_and_text():
    q, k, v = torch.randn(3, 2, 2, 7, 4)
    mask = torch.rand(2, 1, 7, 7) > 0.3
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
    made, ((call, number),) = intercept(lambda: F.scaled_dot_product_attention(q, k, v, mask, scale=0.3))
    assert torch.equal(made, plain)
    assert (call.q is q, call.k is k, call.v is v, call.mask is mask) == (True,) * 4
    assert (call.scale, call.text_len, call.text_at, call.grid, number) == (0.3, 3, "last", GRID, 0)


def test_what_is_seen_can_be_replaced_and_changed():
    q, k, v = torch.randn(3, 1, 2, 4, 4)
    made, _ = intercept(lambda: F.scaled_dot_product_attention(q, k, v), "none", lambda call, dense: call.v * 2)
    assert torch.equal(made, v * 2)
    other = torch.randn(1, 2, 4, 4)
    swapped = lambda call, dense: dense(AttnCall(call.q, call.k, other, GRID))  # noqa: E731
    made, _ = intercept(lambda: F.scaled_dot_product_attention(q, k, v), "none", swapped)
    assert torch.equal(made, F.scaled_dot_product_attention(q, k, other))


def test_several_calls_are_numbered_and_nothing_else_is_touched():
    q = torch.randn(1, 1, 4, 4)
    made, calls = intercept(
        lambda: (torch.relu(q), *(F.scaled_dot_product_attention(q, q, q) for _ in range(3))), "none"
    )
    assert [number for _, number in calls] == [0, 1, 2]
    assert torch.equal(made[0], q.relu())


@pytest.mark.filterwarnings("ignore:In CPU autocast")
@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("our")])
def test_every_attention_of_every_family_is_seen_with_its_own_tokens(family):
    """Video tokens and text tokens add up at each site, whatever the family does with them."""
    from dataclasses import dataclass

    from longtake.runtime.method import Method
    from longtake.runtime.stack import Stack

    found = {}

    @dataclass(frozen=True)
    class Look(Method):
        name = "look"

        def rank(self):
            return "observer"

        def attend(self, here, call, nxt):
            found.setdefault(here.site.name.partition("#")[0], []).append((here.site, call))
            here.receipt.observed += 1
            return nxt(call)

    tiny = build(family)
    noise, text = tiny.draw()
    with Stack([Look()]).attach(tiny.network):
        tiny(noise, text["cond"], 500.0, "cond")
    assert set(found) == {part.site.name for part in view_of(tiny.network).attentions}
    for calls in found.values():
        for site, call in calls:
            assert (call.q.shape[1], call.q.shape[3]) == (site.heads, site.head_dim)
            if site.kind == "attn.cross":
                assert call.q.shape[2] == call.grid.tokens
            else:
                assert call.q.shape[2] == call.k.shape[2] == call.grid.tokens + call.text_len
            assert (call.text_at == "none") == (call.text_len == 0)
