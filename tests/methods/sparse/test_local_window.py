"""Window attention against a loop over tokens."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import build, sample

from longtake.errors import BadInput
from longtake.methods.sparse.local_window import LocalWindow
from longtake.runtime import AttnCall, TokenGrid
from longtake.runtime.stack import Stack

GRID = TokenGrid(2, 3, 4)


def reached(a, b, window):
    """Whether token a sees token b of GRID."""
    places = [(f, r, c) for f in range(2) for r in range(3) for c in range(4)]
    return all(w < 0 or abs(x - y) <= w for x, y, w in zip(places[a], places[b], window, strict=True))


class Here:
    """As much of a place as the method uses."""

    def __init__(self):
        self.receipt = type("Receipt", (), {"notes": {}})()
        self.kernels = []

    def changed(self, kernel):
        self.kernels.append(kernel)


@pytest.mark.parametrize("text_at", ["none", "first", "last"])
@pytest.mark.parametrize("window", [(0, 1, 1), (-1, 0, 2), (1, -1, 0)])
@pytest.mark.parametrize("masked", ["no", "bool", "bias"])
def test_attention_under_the_window_is_that_of_a_loop(window, text_at, masked):
    words, n = (0 if text_at == "none" else 3), GRID.tokens
    q, k, v = torch.randn(3, 2, 2, n + words, 8)
    keep = torch.rand(2, 1, 1, n + words) > 0.2
    keep[..., [0, n - 1]] = True
    bias = {"no": None, "bool": keep, "bias": torch.where(keep, torch.randn(()), float("-inf"))}[masked]
    call = AttnCall(q, k, v, GRID, words, text_at, bias, scale=0.4)
    here = Here()
    made = LocalWindow(*window).attend(
        here, call, lambda call: F.scaled_dot_product_attention(call.q, call.k, call.v, call.mask, scale=call.scale)
    )
    start = words if text_at == "first" else 0
    video = range(start, start + n)
    scores = 0.4 * q @ k.transpose(-1, -2)
    if masked == "bias":
        scores = scores + bias
    elif masked == "bool":
        scores = scores.masked_fill(~keep, float("-inf"))
    for a in video:
        for b in video:
            if not reached(a - start, b - start, window):
                scores[..., a, b] = float("-inf")
    expected = scores.softmax(-1) @ v
    alive = scores.isfinite().any(-1)  # a token whose whole window is padding has nothing to see
    torch.testing.assert_close(made[alive], expected[alive], atol=1e-5, rtol=1e-5)
    seen = sum(reached(a, b, window) for a in range(n) for b in range(n)) + (n + words) ** 2 - n**2
    assert here.receipt.notes["density"] == pytest.approx(seen / (n + words) ** 2)
    assert here.kernels == ["masked"]


def test_a_window_over_everything_is_the_dense_call_itself():
    call = AttnCall(*torch.randn(3, 1, 1, 24, 4), GRID)
    given = []
    LocalWindow(1, 2, 3).attend(Here(), call, lambda call: given.append(call) or call.q)
    assert given == [call]


def test_tokens_out_of_reach_do_not_matter_to_one_layer():
    """Spatial attention of a single block sees one frame; a window of one row leaves the far rows out."""
    tiny = build("our-latte")
    noise, text = tiny.draw(size=(8, 4))
    moved = noise.clone()
    moved[..., 6:, :] += 1
    with Stack([LocalWindow(0, 1, -1)]).attach(tiny.network) as stack:
        a, b = (sample(tiny, x, text, stack, steps=1) for x in (noise, moved))
    assert not torch.equal(a, b)
    assert {c.changed for c in stack.receipts[0].branches.values()} == {6}
    assert stack.receipts[0].kernels["masked"] == 12


def test_bad_windows():
    with pytest.raises(BadInput, match="less than -1"):
        LocalWindow(rows=-2)
