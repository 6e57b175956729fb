"""FlexDiT and DyDiT: seconds against multiply-accumulates of one call, and where the difference goes.

Calls of a batch of two (both branches of guidance) without gradients, float32. Weights matter to no time, so they are
random ones; what routers decide is set by hand. The baseline is the dense network.

starter    the size of `starter-latte`: width 192, 8 blocks, 16x4x4 tokens
S/2        Latte-S/2: width 384, 12 blocks, 16x8x8 tokens

flexdit    one call in each stage, from the clean end to the noisy one
dydit      half of all heads and groups, half of all tokens, both; cut and gathered, and the same decisions masked
tokens     feed-forward networks for a share of all tokens, to find where gathering begins to pay

The ratio of seconds is to be read beside that of multiply-accumulates. "products" is the share of a call's time, by
torch's profiler, that goes into linear layers and attention; the rest goes into norms, modulation, copies and pooling.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from longtake.backbones.latte import Latte
from longtake.methods.dynamic.dydit import to_dydit
from longtake.methods.dynamic.dydit.feeding import DynamicFeed
from longtake.methods.dynamic.dydit.routing import WidthRouter
from longtake.methods.dynamic.flexdit import Density, to_flexdit
from longtake.runtime.macs import counting
from longtake.runtime.views import view_of
from timing import arguments, compare, save

SIZES: dict[str, tuple[dict[str, Any], int, str, tuple[tuple[int, int, int], ...]]] = {
    "starter": (
        {"latent_channels": 16, "width": 192, "depth": 8, "heads": 4, "classes": 40},
        8,
        "1+2x[1,1,1,0]+1",
        ((16, 3, 3), (16, 2, 2), (8, 2, 2), (4, 2, 2)),
    ),
    "S/2": (
        {"latent_channels": 4, "width": 384, "depth": 12, "heads": 6, "classes": 40},
        16,
        "2+2x[1,2,1,0]+2",
        ((16, 6, 6), (16, 4, 4), (8, 4, 4), (4, 4, 4)),
    ),
}
"""Name -> configuration, rows of latents, FlexDiT's layout and grids."""
PRODUCTS = ("linear", "mm", "attention", "conv")


class Chosen(nn.Module):
    """In place of a token router: keeps a share of all tokens, always the same ones."""

    number, steers = 0, True

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        """(B, S, D) -> (B, S)."""
        order = torch.randperm(h.shape[1], generator=torch.Generator().manual_seed(0))
        return (order < round(self.share * h.shape[1])).float().expand(h.shape[0], -1) - 0.5


class Call:
    """One call of a network at a timestep.

    Args:
        masked: with masks, as while learning, but nothing is learned.
    """

    def __init__(self, network: nn.Module, rows: int, timestep: float = 500.0, masked: bool = False) -> None:
        self.network, self.masked = network.eval().requires_grad_(False), masked
        channels = network.config.latent_channels  # type: ignore[union-attr]
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(2, channels, 16, rows, rows, generator=generator)
        self.timestep, self.labels = torch.full((2,), timestep), torch.tensor([3, 40])

    def __call__(self) -> Tensor:
        with torch.set_grad_enabled(self.masked):
            return self.network(self.latents, self.timestep, labels=self.labels)

    def macs(self) -> int:
        """Multiply-accumulates of the call; what is decided once for a noise level is left out."""
        self()
        with counting(view_of(self.network)) as counter:
            self()
        return counter.costs.total

    def spent(self) -> dict[str, float]:
        """Share of the time in products and in all else."""
        self()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(5):
                self()
        times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
        products = sum(time for key, time in times.items() if any(word in key for word in PRODUCTS))
        return {"products": products / sum(times.values()), "else": 1 - products / sum(times.values())}


def dense(config: dict[str, Any]) -> Latte:
    """A network of random weights, no zeros among them."""
    torch.manual_seed(0)
    network = Latte(patch=2, learned_variance=False, **config)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.02)
    return network


def dynamic(network: Latte, width: float, tokens: float) -> nn.Module:
    """A DyDiT with these shares on at all noise levels."""
    made = to_dydit(network)
    for module in made.modules():
        if isinstance(module, WidthRouter):
            on = torch.arange(1, module.units) < round(width * module.units)
            nn.init.zeros_(module.linear.weight)
            module.linear.bias.data.copy_(on.float() - 0.5)
        if isinstance(module, DynamicFeed):
            module.token_router = Chosen(tokens)  # type: ignore[assignment]
    return made


def main() -> None:
    """Time, count, print, write."""
    chosen = arguments(__doc__ or "")
    results, notes = {}, {}
    for size, (config, rows, layout, grids) in SIZES.items():
        network = dense(config)
        flex = to_flexdit(network, layout, Density(grids=grids))
        half, few, both = (dynamic(network, *shares) for shares in ((0.5, 1.0), (1.0, 0.5), (0.5, 0.5)))
        tables = {
            "flexdit": {f"stage {i}": Call(flex, rows, 125.0 + 250 * i) for i in range(4)},
            "dydit": {
                "half the width": Call(half, rows),
                "half the width, masked": Call(half, rows, masked=True),
                "half the tokens": Call(few, rows),
                "half the tokens, masked": Call(few, rows, masked=True),
                "half of both": Call(both, rows),
            },
            "tokens": {f"{share}": Call(dynamic(network, 1.0, share), rows) for share in (1.0, 0.9, 0.75, 0.5, 0.25)},
        }
        for name, calls in tables.items():
            candidates = {"dense": Call(network, rows), **calls}
            results[f"{size}, {name}"] = found = compare(candidates, repeats=chosen.repeats)
            whole = candidates["dense"].macs()
            notes[f"{size}, {name}"] = {
                one: {"macs": call.macs() / whole, **call.spent()} for one, call in candidates.items()
            }
            print(f"{size}, {name}\n{found}")
            for one, row in notes[f"{size}, {name}"].items():
                print(
                    f"    {one:24} macs {row['macs']:.3f}  seconds {found[one].ratio:.3f}  products {row['products']:.2f}"
                )
    setting = {"sizes": {name: one[0] for name, one in SIZES.items()}, "calls": notes, "threads": chosen.threads}
    print("written:", save("dynamic", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()
