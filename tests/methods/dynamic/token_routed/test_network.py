"""Networks with routed blocks: conversion, saving, receipts, and caches around them."""

import pytest
import torch
from tests.runtime.tiny_networks import WORDS, awake
from torch import nn

from longtake.backbones.latte import Latte
from longtake.backbones.waver import HybridStreamDiT
from longtake.errors import BadInput, Unsupported
from longtake.methods.dynamic.token_routed import RoutedHybrid, RoutedLatte, to_token_routed
from longtake.runtime.views import view_of

MADE = {
    "latte": lambda: Latte(latent_channels=4, width=32, heads=4, depth=4, learned_variance=False),
    "hybrid": lambda: HybridStreamDiT(
        latent_channels=4, text_width=16, width=32, heads=2, dual_blocks=2, single_blocks=2
    ),
}


def call(network, time=300.0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 3, 8, 8, generator=generator)
    text = {"text": torch.randn(1, WORDS, 16, generator=generator)} if isinstance(network, HybridStreamDiT) else {}
    return network(x, torch.tensor([time]), **text)


def half_open(network):
    """Gates of every other routed block differ from token to token."""
    for number in network.routed[::2]:
        gate = network.blocks[number].gate.logits
        with torch.no_grad():
            gate.logits.weight.mul_(30)
            gate.logits.bias.zero_()
    return network


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_a_new_one_gives_what_the_network_gave(name):
    network = awake(MADE[name]())
    routed = to_token_routed(network)
    assert type(routed) in (RoutedLatte, RoutedHybrid) and routed.routed == [1, 2] and not routed.training
    torch.testing.assert_close(call(routed), call(network), atol=1e-5, rtol=1e-5)
    assert routed.config.width == network.config.width


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_what_is_saved_loads_again(name, tmp_path):
    routed = half_open(to_token_routed(awake(MADE[name]()), [0, 2, 3]))
    routed.save_pretrained(tmp_path)
    again = type(routed).from_pretrained(str(tmp_path), low_cpu_mem_usage=False).eval()
    assert torch.equal(call(again), call(routed))
    assert again.routed == [0, 2, 3]


@torch.no_grad()
def test_the_receipt_tells_the_tokens_of_each_block_at_each_noise_level():
    routed = half_open(to_token_routed(awake(MADE["latte"]())))
    assert routed.receipt() is None
    for time in (900.0, 900.0, 100.0):
        call(routed, time)
    receipt = routed.receipt()
    assert receipt.acted and receipt.sites == 2
    assert [(step["noise"], step["calls"]) for step in receipt.notes["steps"]] == [(0.9, 2), (0.1, 1)]
    for step in receipt.notes["steps"]:
        first, second = step["tokens"]
        assert 0 < first < 1 and second == 1
    assert receipt.branches["all"].changed == receipt.branches["all"].computed == 3
    assert routed.receipt() is None
    open_one = to_token_routed(awake(MADE["latte"]()))
    call(open_one)
    assert not open_one.receipt().acted


@pytest.mark.parametrize("name", MADE)
def test_methods_see_a_routed_block_as_one(name):
    view = view_of(to_token_routed(awake(MADE[name]())))
    assert [bool(block.form.parts) for block in view.blocks] == [True, False, False, True]


def test_what_cannot_be_routed_is_refused():
    with pytest.raises(BadInput, match="0 to 3"):
        to_token_routed(MADE["latte"](), [4])
    with pytest.raises(Unsupported, match="Linear cannot have routed blocks"):
        to_token_routed(nn.Linear(2, 2))
