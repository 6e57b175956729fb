"""Latte: our network against the published code and against diffusers', with equal weights, inputs and dtype.

    python benchmarks/latte.py --official CHECKOUT

Two pairs, because the two others are different networks:
    official    variant 1, unconditional: Vchitect/Latte's, on its default attention ("official") and on torch's fused
                one ("official flash"), from a checkout that the reader supplies; it is read, never copied
    diffusers   Latte-1, text to video: diffusers' LatteTransformer3DModel, ours filled with its weights

"compiled" is ours with its blocks compiled (torch.compile). "plain blocks" are the same blocks without conditioning and
without a change of layout (norm, attention, MLP on rows that lie as they are needed): what is left above them is
conditioning and copies. "matmul" are their matrix products alone: nothing with these layers can be faster. Both take
their products from `longtake.layers.linear`, the fastest that we know of, as ours does.

Outputs are compared before anything is timed. Peak memory is of one training step, in a process of its own.
"""

import argparse
import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import LatteTransformer3DModel
from torch import Tensor, nn

from longtake.backbones.latte_layouts import from_diffusers, from_official
from longtake.layers.linear import Linear, linear, linear_gelu
from timing import RESULTS, compare, peak_memory, save

BATCH, FRAMES, SIDE = 2, 16, 16
WIDTH, DEPTH, HEADS, PATCH, WORDS, TEXT = 384, 12, 6, 2, 20, 64
DTYPES = (torch.float32, torch.bfloat16)


def scrambled(network: nn.Module) -> nn.Module:
    """Draw every trained matrix from N(0, 0.02^2), so that no product is with zeros."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:  # positions are parameters in the published code
            nn.init.normal_(parameter, std=0.02)
    return network


def official(checkout: Path, mode: str) -> nn.Module:
    """The published network of the size above; timm's two layers are stood in where timm is not installed."""
    try:
        importlib.import_module("timm.models.vision_transformer")
    except ImportError:
        stand_in_timm()
    path = checkout / "models" / "latte.py"
    spec = importlib.util.spec_from_file_location("official_latte", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Latte(
        input_size=SIDE, patch_size=PATCH, in_channels=4, hidden_size=WIDTH, depth=DEPTH, num_heads=HEADS,
        num_frames=FRAMES, extras=1, attention_mode=mode,
    )  # fmt: skip
    return scrambled(network)


def stand_in_timm() -> None:
    """Mlp and PatchEmbed of timm in their plain form, under its names."""

    class Mlp(nn.Module):
        def __init__(self, in_features: int, hidden_features: int, act_layer: Any, drop: float = 0.0) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(in_features, hidden_features), nn.Linear(hidden_features, in_features)
            self.act = act_layer()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(self.act(self.fc1(x)))

    class PatchEmbed(nn.Module):
        def __init__(self, side: int, patch: int, channels: int, width: int, bias: bool = True) -> None:
            super().__init__()
            self.patch_size, self.num_patches = (patch, patch), (side // patch) ** 2
            self.proj = nn.Conv2d(channels, width, patch, patch, bias=bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x).flatten(2).transpose(1, 2)

    names = ("timm", "timm.models", "timm.models.vision_transformer")
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[names[-1]].Mlp, sys.modules[names[-1]].PatchEmbed = Mlp, PatchEmbed


class PlainBlocks(nn.Module):
    """Norm, attention and MLP on rows, half of the blocks on frames and half on places; no condition, no copies."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(Linear(WIDTH, 3 * WIDTH) for _ in range(DEPTH))
        self.out = nn.ModuleList(Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.up = nn.ModuleList(Linear(WIDTH, 4 * WIDTH) for _ in range(DEPTH))
        self.down = nn.ModuleList(Linear(4 * WIDTH, WIDTH) for _ in range(DEPTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B F, N, D) -> the same; every other block sees the same numbers as (B N, F, D)."""
        places = tokens.shape[1]
        for number, (qkv, out, up, down) in enumerate(zip(self.qkv, self.out, self.up, self.down, strict=True)):
            h = tokens.view(-1, FRAMES if number % 2 else places, WIDTH)
            q, k, v = qkv(F.layer_norm(h, (WIDTH,))).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            h = h + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            tokens = h + down(linear_gelu(up, F.layer_norm(h, (WIDTH,)), "tanh"))
        return tokens


def matmuls(dtype: torch.dtype, times: int) -> Callable[[], None]:
    """The matrix products of the blocks: linear layers on all tokens, and each attention as two products."""
    places = (SIDE // PATCH) ** 2
    tokens = BATCH * FRAMES * places
    x, wide = torch.randn(tokens, WIDTH, dtype=dtype), torch.randn(tokens, 4 * WIDTH, dtype=dtype)
    weights = [torch.randn(n * WIDTH, WIDTH, dtype=dtype) for n in (3, 1, 4)]
    down, head = torch.randn(WIDTH, 4 * WIDTH, dtype=dtype), WIDTH // HEADS
    rows = [(BATCH * FRAMES * HEADS, places), (BATCH * places * HEADS, FRAMES)]
    q = [torch.randn(n, length, head, dtype=dtype) for n, length in rows]
    scores = [torch.randn(n, length, length, dtype=dtype) for n, length in rows]

    @torch.no_grad()
    def run() -> None:
        for number in range(DEPTH * times):
            for weight in weights:
                linear(x, weight)
            linear(wide, down)
            torch.bmm(q[number % 2], q[number % 2].mT)
            torch.bmm(scores[number % 2], q[number % 2])

    return run


def wrapped(
    forward: Callable[[], Tensor], network: nn.Module, dtype: torch.dtype, training: bool
) -> Callable[[], None]:
    """A forward pass, or a training step (forward, mean squared error, backward; the optimiser is equal for all)."""

    def run() -> None:
        network.zero_grad()
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            made = forward()
        if training:
            made.float().square().mean().backward()

    return run


def pairs(checkout: Path | None) -> dict[str, dict[str, tuple[Callable[[], Tensor], nn.Module]]]:
    """Pair -> candidate -> (forward, network); the baseline first."""
    torch.manual_seed(0)
    x, time, text = torch.randn(BATCH, 4, FRAMES, SIDE, SIDE), torch.rand(BATCH) * 1000, torch.randn(BATCH, WORDS, TEXT)
    plain, tokens = PlainBlocks(), torch.randn(BATCH * FRAMES, (SIDE // PATCH) ** 2, WIDTH)
    limit = {"plain blocks": (lambda: plain(tokens), plain)}
    found: dict[str, dict[str, tuple[Callable[[], Tensor], nn.Module]]] = {}
    if checkout is not None:
        default, flash = official(checkout, "math"), official(checkout, "flash")
        ours, compiled = (from_official(default.state_dict(), HEADS) for _ in range(2))
        compiled.compile_repeated_blocks(dynamic=False)
        theirs = x.transpose(1, 2)
        found["official"] = {
            "official": (lambda: default(theirs, time).transpose(1, 2), default),
            "official flash": (lambda: flash(theirs, time).transpose(1, 2), flash),
            "longtake": (lambda: ours(x, time), ours),
            "compiled": (lambda: compiled(x, time), compiled),
            **limit,
        }
    other = scrambled(
        LatteTransformer3DModel(
            num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=4, out_channels=8,
            num_layers=DEPTH // 2, cross_attention_dim=WIDTH, attention_bias=True, sample_size=SIDE, patch_size=PATCH,
            activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
            norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=TEXT, video_length=FRAMES,
        )
    )  # fmt: skip
    latte_1 = from_diffusers(other.config, other.state_dict())
    found["diffusers"] = {
        "diffusers": (lambda: other(x, time, text, return_dict=False)[0], other),
        "longtake": (lambda: latte_1(x, time, text), latte_1),
    }
    return found


def check(candidates: dict[str, tuple[Callable[[], Tensor], nn.Module]]) -> None:
    """Ours gives what the baseline gives, and it is not trivial."""
    with torch.no_grad():
        wanted = next(iter(candidates.values()))[0]()
        made = candidates["longtake"][0]()
    assert wanted.std() > 1e-6 and (made - wanted).norm() < 1e-4 * wanted.norm(), "the outputs disagree"


def step_memory(checkout: Path | None, pair: str, name: str, dtype: str) -> float:
    """MiB that one training step adds to a fresh process, by the system's count of its largest size."""
    options = ["--official", str(checkout)] if checkout is not None else []
    command = [sys.executable, __file__, *options, "--only", pair, name, dtype]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def only(checkout: Path | None, pair: str, name: str, dtype: str) -> None:
    """Print what one training step adds to this process."""
    forward, network = pairs(checkout)[pair][name]
    print(peak_memory(wrapped(forward, network, getattr(torch, dtype), True)) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, help="checkout of Vchitect/Latte")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        only(chosen.official, *chosen.only)
        return
    results: dict[str, Any] = {}
    for pair, candidates in pairs(chosen.official).items():
        check(candidates)
        for dtype in DTYPES:
            for training in (False, True):
                runs = {name: wrapped(*made, dtype, training) for name, made in candidates.items()}
                runs["matmul"] = matmuls(dtype, 3 if training else 1)
                result = compare(runs, repeats=chosen.repeats)
                name = f"{pair} {'training step' if training else 'forward'} {str(dtype).removeprefix('torch.')}"
                print(f"\n{name}\n{result}")
                results[name] = result
            kind = str(dtype).removeprefix("torch.")
            compared = [name for name in candidates if name not in ("compiled", "plain blocks")]
            memory = {name: step_memory(chosen.official, pair, name, kind) for name in compared}
            print(f"{pair} {kind}: MiB that a training step adds: {memory}")
            results[f"{pair} memory {kind}"] = memory
    setting = {"batch": BATCH, "latents": [4, FRAMES, SIDE, SIDE], "width": WIDTH, "depth": DEPTH, "heads": HEADS}
    print("\nwritten:", save("latte", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()
