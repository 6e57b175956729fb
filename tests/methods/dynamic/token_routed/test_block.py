"""The routing unit around blocks of a Latte and of a network of two streams."""

import pytest
import torch
from tests.runtime.tiny_networks import WORDS, awake
from torch import nn

from longtake.backbones.latte import Latte
from longtake.backbones.waver import HybridStreamDiT
from longtake.errors import Unsupported
from longtake.layers.attention import FeedForward
from longtake.methods.dynamic.token_routed import TokenRoutedBlock, TokenRoutedStreamBlock, routing
from longtake.runtime.macs import counting
from longtake.runtime.views import Family, ModelView

LATTE = {"latent_channels": 4, "width": 32, "heads": 4, "depth": 4, "learned_variance": False}
TEXT = {"text": "cross", "text_width": 16}
HYBRID = {"latent_channels": 4, "text_width": 16, "width": 32, "heads": 2, "dual_blocks": 2, "single_blocks": 1}
NETWORKS = {
    "interleaved": lambda: Latte(**LATTE),
    "parallel": lambda: Latte(**LATTE, variant="4"),
    "joint": lambda: Latte(**LATTE, variant="joint"),
    "rotary": lambda: Latte(**LATTE, temporal_pos="rope"),
    "cross": lambda: Latte(**LATTE, **TEXT),
    "hybrid": lambda: HybridStreamDiT(**HYBRID),
    "dual to the end": lambda: HybridStreamDiT(**{**HYBRID, "single_blocks": 0}),
}


def build(name, bias=0.0):
    """A network of routed blocks whose gates differ from token to token, or are all on one side."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NETWORKS[name]()
        kind = TokenRoutedBlock if isinstance(network, Latte) else TokenRoutedStreamBlock
        for index, block in enumerate(network.blocks):
            network.blocks[index] = kind(block, 32)
    awake(network)
    for block in network.blocks:
        block.gate.logits.logits.bias.fill_(bias)
        block.gate.logits.logits.weight.mul_(0 if bias else 5)
    return network


def unrouted(name, network):
    """The same network without its gates."""
    twin = NETWORKS[name]()
    weights = {name.replace(".block.", "."): w for name, w in network.state_dict().items() if ".gate." not in name}
    twin.load_state_dict(weights)
    return twin.eval()


def call(network, seed=1, batch=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 4, 3, 8, 8, generator=generator)
    given = {}
    if isinstance(network, HybridStreamDiT) or network.config.text != "none":
        mask = torch.ones(batch, WORDS, dtype=torch.bool)
        mask[0, -2:] = False
        given = {"text": torch.randn(batch, WORDS, 16, generator=generator), "text_mask": mask}
    return network(x, torch.tensor([300.0, 700.0])[:batch], **given)


def gather(network, yes):
    for block in network.blocks:
        block.gather = yes
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_gathered_equals_masked(name):
    network = build(name)
    with routing(network) as gates:
        gathered = call(network)
    shares = [float(gate.mean()) for gate in gates]
    assert len(gates) == len(network.blocks) and any(0 < share < 1 for share in shares)
    torch.testing.assert_close(gathered, call(gather(network, False)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_open_equals_the_network_as_it_was_and_all_closed_skips_it(name):
    network = build(name, bias=1.0)
    torch.testing.assert_close(call(network), call(unrouted(name, network)), atol=1e-5, rtol=1e-5)
    closed = build(name, bias=-1.0)
    skipped = [call(gather(closed, yes)) for yes in (True, False)]
    torch.testing.assert_close(*skipped, atol=1e-6, rtol=0)
    for block in closed.blocks:
        for weight in block.block.parameters():
            weight.mul_(3.0)
    if isinstance(closed, Latte):  # text of a network of two streams goes on through every block, video sees none of it
        assert torch.equal(call(closed), skipped[0])
    torch.testing.assert_close(call(closed), skipped[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["interleaved", "hybrid"])
def test_the_gate_sees_the_timestep(name):
    network = build(name)
    x = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    text = {} if name == "interleaved" else {"text": torch.zeros(1, WORDS, 16)}
    with routing(network) as gates:
        for time in (100.0, 900.0):
            network(x, torch.tensor([time]), **text)
    first, later = gates[0], gates[len(network.blocks)]
    assert not torch.equal(first, later)


@pytest.mark.parametrize("name", ["interleaved", "joint", "hybrid"])
def test_tokens_that_are_skipped_cost_less(name):
    def cost(network):
        with counting(ModelView(network, Family("routed", (), lambda network, given: None))) as counter:
            call(network, batch=1)
        return counter.costs.total

    half, full, none = build(name), build(name, bias=1.0), build(name, bias=-1.0)
    assert cost(none) < cost(half) < cost(full)
    assert cost(half) < cost(gather(half, False))


@pytest.mark.parametrize("name", ["interleaved", "hybrid"])
def test_in_training_gates_are_drawn_from_seeds_and_learn(name):
    network = build(name, bias=1.0).train().requires_grad_(True)
    with routing(network, [torch.Generator().manual_seed(seed) for seed in (3, 4)]) as gates:
        made = call(network)
    assert len(gates) == len(network.blocks) and set(gates[0].unique().tolist()) == {0.0, 1.0}
    made.square().mean().backward()
    for block in network.blocks:
        assert block.gate.logits.logits.bias.grad.abs() > 0
    with routing(network, [torch.Generator().manual_seed(seed) for seed in (3, 4)]):
        assert torch.equal(call(network), made)
    with routing(network, [torch.Generator().manual_seed(seed) for seed in (5, 4)]) as others:
        call(network)
    assert not torch.equal(others[0][0], gates[0][0])
    assert torch.equal(others[0][1], gates[0][1])
    assert not network.blocks[0].gate._forward_hooks and network.blocks[0].gate.generator is None


def test_single_images_beside_a_clip_are_routed_too():
    network = build("interleaved")
    x = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    made = network(x, torch.tensor([300.0]), images=2)
    assert torch.equal(made, gather(network, False)(x, torch.tensor([300.0]), images=2))


def test_other_blocks_are_refused():
    with pytest.raises(Unsupported, match="cannot route a FeedForward: give a LatteBlock"):
        TokenRoutedBlock(FeedForward(8, 16), 8)
    with pytest.raises(Unsupported, match="give a DualStreamBlock or a SingleStreamBlock"):
        TokenRoutedStreamBlock(Latte(**LATTE).blocks[0], 32)
    with pytest.raises(Unsupported, match="'serial'"):
        TokenRoutedBlock(Latte(**LATTE, variant="3").blocks[0], 32)
    with pytest.raises(Unsupported, match="holds no routed block"), routing(nn.Linear(2, 2)):
        pass
