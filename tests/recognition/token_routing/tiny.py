"""A tiny backbone whose gates can be set, and the library's count of what a call of it costs."""

import torch
from torch import nn

from longtake.recognition.token_routing import TokenRoutingBackbone
from longtake.runtime.macs import counting
from longtake.runtime.views import Family, ModelView

TINY = {
    "widths": (8, 8, 12, 16),
    "heads": (1, 2, 3, 4),
    "ratios": (2, 2, 2, 2),
    "reductions": (4, 2, 2, 1),
    "columns": 2,
    "classes": ("ball", "cube", "cone"),
    "early_stop": 0.0,
}


def tiny(seed=0, **changes):
    """A backbone in evaluation with all gates open, whose norms and biases are not those that it starts with."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TokenRoutingBackbone(**{**TINY, **changes})
        for name, weight in network.named_parameters():
            if ".gate." in name:
                nn.init.normal_(weight, std=1.0)
            elif weight.ndim == 1:
                nn.init.normal_(weight, mean=0.5, std=0.5)
    return set_gates(network.eval(), row=3.0, down=3.0)


def scattered(**changes):
    """One with some gates closed at every node, other ones for every token."""
    return set_gates(tiny(**changes), row=0.0, down=0.0, spread=1.0)


def set_gates(network, row, down, spread=0.0):
    """Logits of all gates: these biases, and the token's own part with the given spread."""
    generator = torch.Generator().manual_seed(1)
    for node in network.nodes:
        if node.gate is not None:
            with torch.no_grad():
                node.gate.logits.weight.normal_(0, 1, generator=generator).mul_(spread)
                node.gate.logits.bias.fill_(down)
                if node.block is not None:
                    node.gate.logits.bias[0] = row
    return network


def pictures(count=3, height=50, width=70, seed=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def counted(network, images):
    """Features of a gathered call, and the multiply-accumulates that the library's counter saw."""
    view = ModelView(network, Family("routing", (), lambda network, given: None))
    with counting(view) as counter:
        found = network(images, execution="gathered")
    return found, counter.costs.total
