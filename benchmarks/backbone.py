"""Our backbone's forward and training step against an equal-size diffusers transformer of the same kind.

The other one is HunyuanVideoTransformer3DModel: dual-stream blocks, then single-stream blocks, joint attention over video
and text, RMSNorm on q and k, rotary positions on three axes. Both get the same widths, heads, depth, feed-forward ratio,
inputs and dtype, and both attend through torch's scaled_dot_product_attention; "longtake" is our network as it is, which
replaces that by plain matrix products where they are faster (bf16 on a CPU).

Two pairs, because the two count parameters differently: ours projects the modulation once ("shared") or with six parts
in every block, theirs with three parts in single-stream blocks.
    starter   the starter's layout, 2 + 6 blocks: equal arithmetic per token; ours has fewer parameters
    equal     6 + 2 blocks and modulation in every block: equal arithmetic and parameters within a few per cent

"matmul" runs the matrix products of our blocks alone (linear layers and attention, three times for a training step):
nothing with these layers can be faster, and the share of it that we reach is printed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from longtake.backbones.waver import HybridStreamDiT
from longtake.layers import attention
from longtake.layers.rotary import split_head
from timing import Comparison, arguments, compare, save

WIDTH, HEADS, TEXT = 256, 4, 128
BATCH, GRID, LENGTH, WORDS = 8, (5, 8, 8), 20, 14  # 320 video tokens, 20 text tokens of which 14 are words
PAIRS = {"starter": (2, 6, "shared"), "equal": (6, 2, "block")}


@dataclass(frozen=True)
class Inputs:
    """What both networks are given."""

    latents: Tensor
    condition: Tensor
    timestep: Tensor
    text: Tensor
    mask: Tensor


def inputs() -> Inputs:
    """A batch with fixed seed."""
    torch.manual_seed(0)
    mask = (torch.arange(LENGTH) < WORDS).expand(BATCH, -1)
    condition = torch.randn(BATCH, 20, *GRID)
    return Inputs(
        torch.randn(BATCH, 16, *GRID), condition, torch.rand(BATCH) * 1000, torch.randn(BATCH, LENGTH, TEXT), mask
    )


def ours(dual: int, single: int, modulation: str) -> HybridStreamDiT:
    """Our network, with weights as after some training (at the start its gates are zero)."""
    return scrambled(
        HybridStreamDiT(
            text_width=TEXT, width=WIDTH, heads=HEADS, dual_blocks=dual, single_blocks=single, modulation=modulation
        )
    )


def theirs(dual: int, single: int) -> HunyuanVideoTransformer3DModel:
    """diffusers' network of the same layout, its text refiner left out."""
    return scrambled(
        HunyuanVideoTransformer3DModel(
            in_channels=36,
            out_channels=16,
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            num_layers=dual,
            num_single_layers=single,
            num_refiner_layers=0,
            mlp_ratio=4.0,
            patch_size=1,
            patch_size_t=1,
            guidance_embeds=False,
            text_embed_dim=TEXT,
            pooled_projection_dim=TEXT,
            rope_axes_dim=split_head(WIDTH // HEADS),
        )
    )


def scrambled(network: nn.Module) -> nn.Module:
    """Draw every matrix from N(0, 0.02^2), so that no product is with zeros."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    return network


def our_forward(network: HybridStreamDiT, given: Inputs) -> Callable[[], Tensor]:
    return lambda: network(given.latents, given.timestep, given.text, given.mask, given.condition)


def their_forward(network: HunyuanVideoTransformer3DModel, given: Inputs) -> Callable[[], Tensor]:
    pooled = given.text.mean(1)

    def forward() -> Tensor:
        x = torch.cat([given.latents, given.condition], dim=1)
        return network(x, given.timestep, given.text, given.mask.long(), pooled, return_dict=False)[0]

    return forward


def plain_attention(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same with torch's fused attention everywhere, as theirs."""

    def run() -> Tensor:
        small, attention.SMALL = attention.SMALL, 0
        try:
            return forward()
        finally:
            attention.SMALL = small

    return run


def matmuls(layers: int, dtype: torch.dtype, times: int) -> Callable[[], None]:
    """The matrix products of `layers` blocks: four linear layers on all tokens, and attention as two products."""
    tokens, keys = BATCH * (GRID[0] * GRID[1] * GRID[2] + LENGTH), GRID[0] * GRID[1] * GRID[2] + LENGTH
    x, wide = torch.randn(tokens, WIDTH, dtype=dtype), torch.randn(tokens, 4 * WIDTH, dtype=dtype)
    weights = [torch.randn(n * WIDTH, WIDTH, dtype=dtype) for n in (3, 1, 4)]
    down = torch.randn(WIDTH, 4 * WIDTH, dtype=dtype)
    q = torch.randn(BATCH * HEADS, keys, WIDTH // HEADS, dtype=dtype)
    scores = torch.randn(BATCH * HEADS, keys, keys, dtype=dtype)

    @torch.no_grad()
    def run() -> None:
        for _ in range(layers * times):
            for weight in weights:
                F.linear(x, weight)
            F.linear(wide, down)
            torch.bmm(q, q.mT)
            torch.bmm(scores, q)

    return run


def as_forward(forward: Callable[[], Tensor], dtype: torch.dtype) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            forward()

    return run


def as_step(forward: Callable[[], Tensor], network: nn.Module, dtype: torch.dtype) -> Callable[[], None]:
    """Forward, mean squared error and backward; the optimiser is left out, being the same for both."""

    def run() -> None:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = forward()
        out.float().square().mean().backward()

    return run


def check(one: Callable[[], Tensor], other: Callable[[], Tensor]) -> None:
    """Both attentions give the same result, and it is not trivial."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        a, b = one().float(), other().float()
    assert a.std() > 1e-6 and (a - b).norm() < 0.05 * b.norm(), "the two attentions disagree"


def main() -> None:
    chosen = arguments(__doc__)
    given, results, sizes = inputs(), {}, {}
    for pair, (dual, single, modulation) in PAIRS.items():
        mine, hunyuan = ours(dual, single, modulation), theirs(dual, single)
        sizes[pair] = {"longtake": count(mine), "diffusers": count(hunyuan)}
        millions = {name: f"{number / 1e6:.2f} M" for name, number in sizes[pair].items()}
        print(f"\n{pair}: {millions['longtake']} parameters, diffusers {millions['diffusers']}")
        forward, other = our_forward(mine, given), their_forward(hunyuan, given)
        check(forward, plain_attention(forward))
        for dtype in (torch.float32, torch.bfloat16):
            for what, times in (("forward", 1), ("training step", 3)):
                candidates = {
                    "diffusers": wrapped(other, hunyuan, dtype, times),
                    "longtake": wrapped(forward, mine, dtype, times),
                    "longtake, same attention": wrapped(plain_attention(forward), mine, dtype, times),
                    "matmul": matmuls(dual + single, dtype, times),
                }
                result = compare(candidates, repeats=chosen.repeats)
                name = f"{pair} {what} {str(dtype).removeprefix('torch.')}"
                print(f"\n{name}\n{result}\nlongtake runs at {share(result):.0%} of the speed of its matrix products")
                results[name] = result
    results["share of matmul"] = {n: share(r) for n, r in results.items() if isinstance(r, Comparison)}
    setting = {"batch": BATCH, "grid": GRID, "text": LENGTH, "width": WIDTH, "heads": HEADS, "parameters": sizes}
    print("\nwritten:", save("backbone", results, setting=setting, folder=chosen.out))


def wrapped(forward: Callable[[], Tensor], network: nn.Module, dtype: torch.dtype, times: int) -> Callable[[], None]:
    return as_forward(forward, dtype) if times == 1 else as_step(forward, network, dtype)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def share(result: Comparison) -> float:
    return result["matmul"].median / result["longtake"].median


if __name__ == "__main__":
    main()
