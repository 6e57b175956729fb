"""Attention maps against the softmax written out, and that looking changes nothing."""

import pytest
import torch
from tiny_networks import build, sample

from longtake.errors import BadInput
from longtake.layers.attention import attend
from longtake.methods.observers.attention_maps import AttentionMaps, attention_map
from longtake.runtime import AttnCall, TokenGrid
from longtake.runtime.stack import Stack


@pytest.mark.parametrize("mask", ["none", "bool", "bias"])
def test_a_map_times_the_values_is_the_attention(mask):
    """For one clip and each head, so that no mean hides anything."""
    q, k, v = torch.randn(3, 1, 3, 7, 4)
    keep = torch.rand(1, 1, 7, 7) > 0.3
    keep[..., 0] = True
    given = {"none": None, "bool": keep, "bias": torch.randn(1, 1, 7, 7)}[mask]
    call = AttnCall(q, k, v, TokenGrid(1, 7, 1), mask=given, scale=0.7)
    seen = attention_map(call, heads=True)
    torch.testing.assert_close(seen @ v[0], attend(q, k, v, given, scale=0.7)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention_map(call), seen.mean(0))


def test_chosen_layers_and_steps_are_noted_and_nothing_changes():
    tiny = build("our-waver")
    given = tiny.draw()
    dense = sample(tiny, *given)
    with Stack([AttentionMaps("1/3", "0/3")]).attach(tiny.network) as stack:
        assert torch.equal(sample(tiny, *given, stack), dense)
    receipt = stack.receipts[0]
    expected = {(b, s, f"blocks.{i}.attention.attend") for b in ("cond", "uncond") for s in (0, 3) for i in (1, 3)}
    assert set(receipt.notes["maps"]) == expected
    assert receipt.observed == len(expected)
    for seen in receipt.notes["maps"].values():
        assert seen.shape == (37, 37)
        torch.testing.assert_close(seen.sum(-1), torch.ones(37))
        assert seen[:, -2:].abs().max() == 0  # words that are padding are never seen


def test_two_attentions_of_one_layer_have_maps_of_their_own():
    from longtake.backbones.latte import Latte
    from longtake.runtime import StepInfo

    network = Latte(latent_channels=4, width=16, depth=2, heads=2, variant="3").eval()
    info = StepInfo(0, 0, 1, 500.0, 0.5, 0.5, "cond")
    with Stack([AttentionMaps()]).attach(network) as stack:
        network(torch.randn(1, 4, 3, 4, 4), torch.tensor([500.0]), info=info)
    shapes = {site.split(".")[3]: seen.shape for (_, _, site), seen in stack.receipts[0].notes["maps"].items()}
    assert shapes == {"space": (4, 4), "time": (3, 3)}


def test_too_many_tokens_are_refused_before_they_are_held():
    tiny = build("our-waver")
    with pytest.raises(BadInput, match="most=37"), Stack([AttentionMaps(most=36)]).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    with pytest.raises(BadInput, match="layers"):
        AttentionMaps(layers="one")
