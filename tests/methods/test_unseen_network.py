"""Every method on a network that the library has never seen, through a view of ten lines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longtake.methods import METHODS, parse_method
from longtake.runtime import BlockForm, Blocks, Family, ModelView, Part, TokenGrid
from longtake.runtime.stack import GUIDANCE, Stack

GRID = TokenGrid(2, 3, 3)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x, gate):
        x = x + gate * self.attention(x)
        return x + gate * self.mlp(x)


class StrangeDiT(nn.Module):
    """Takes tokens and a time; no configuration, no diffusers."""

    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width) for _ in range(4))

    def forward(self, tokens, time):
        x = tokens
        for layer in self.layers:
            x = layer(x, 1 + time.view(-1, 1, 1) / 1000)
        return x


def view(network):
    form = BlockForm(parts=(Part("attention", "attn.self"), Part("mlp", "ffn")), hidden="x")
    return ModelView(
        network,
        Family(
            name="strange",
            stacks=(Blocks("layers", form),),
            grid=lambda network, given: GRID,
            timestep="time",
            latents="tokens",
        ),
    )


def run(network, noise, steps=6):
    x = noise
    for s in range(steps):
        x = x - network(x, torch.full((noise.shape[0],), 1000.0 * (1 - s / steps))) / steps
    return x


SETTINGS = {
    "taylorseer": "taylorseer:interval=2",
    "delta-dit": "delta-dit:skipped=2,boundary=3",
    "first-block": "first-block:threshold=100",
    "local-window": "local-window:rows=0",
    "minmax8": "minmax8:bits=4",
    "attention-maps": "attention-maps",
    "w2sd": "w2sd:pair=method,weak_method=local-window:rows=0",
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_works_on_it(name):
    network, noise = StrangeDiT().eval().requires_grad_(False), torch.randn(1, GRID.tokens, 8)
    dense = run(network, noise)
    method = parse_method(SETTINGS.get(name, name))
    with Stack([method]).attach(network, [view(network)]) as stack:
        made = run(network, noise)
        if name in ("cfg-interval", "apg"):  # they act where predictions meet, wherever these come from
            made = _guided(stack, noise)
        if name == "w2sd":  # before steps of our sampling loop
            made = _sampled(stack, network, noise)
    (receipt,) = stack.receipts
    assert receipt.acted
    assert receipt.sites > 0
    assert torch.equal(made, dense) == (name == "attention-maps")
    assert torch.equal(run(network, noise), dense)
    assert not any(hasattr(module, "_diffusers_hook") or "forward" in vars(module) for module in network.modules())


def _guided(stack, noise):
    from longtake.runtime import StepInfo

    info = StepInfo(stack.begin(), 0, 6, 1000.0, 1.0, 1.0, "cond")
    if not stack.guides(info):
        assert stack.ledger(info.run).receipts[0].count(GUIDANCE).skipped == 1
        return noise
    cond, null = torch.randn(2, 1, 4, 2, 3, 3)
    return stack.guide(info, cond, null, cond, lambda cond, null: null)


def _sampled(stack, network, noise):
    from diffusers import FlowMatchEulerDiscreteScheduler

    from longtake.diffusion.conditions import Conditions
    from longtake.diffusion.sampling import sample

    def denoise(x, info, given):
        stack.conductors[0].announced = info  # as whoever calls a network for a loop does
        return network(x.flatten(2).transpose(1, 2), torch.full((1,), info.t)).transpose(1, 2).unflatten(2, GRID)

    x = noise.transpose(1, 2).unflatten(2, GRID)
    made = sample(denoise, FlowMatchEulerDiscreteScheduler(), x, Conditions(), steps=6, stack=stack)
    return made.flatten(2).transpose(1, 2)


def test_costs_are_those_of_its_layers():
    network, noise, n, d = StrangeDiT().eval().requires_grad_(False), torch.randn(1, GRID.tokens, 8), GRID.tokens, 8
    with Stack([parse_method("delta-dit:skipped=2,boundary=3")]).attach(network, [view(network)]) as stack:
        run(network, noise)
    layer = n * d * 3 * d + n * d * d + 2 * n * n * d + 2 * n * d * 2 * d
    assert stack.receipts[0].macs_dense == 6 * 4 * layer
    assert stack.receipts[0].macs_done == (6 * 4 - 3 * 2) * layer
