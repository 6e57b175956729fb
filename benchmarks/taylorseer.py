"""TaylorSeer: what a forecast step and a full one cost, and ours beside diffusers' hook and cache-dit.

    pip install --no-deps --target FOLDER cache-dit; PYTHONPATH=FOLDER python benchmarks/taylorseer.py [--only errors]

Without cache-dit its rows are left out. It is no dependency of the library.

forecast   one call of the starter's network (both branches of guidance in a batch, 320 video tokens) in which everything
           is forecast, by granularity and order, against a dense call
dense      the same call with a stack attached in which nothing is skipped: methods that pass everything on at every
           place ("everywhere"), at attentions and feed-forward networks ("parts"), and TaylorSeer with interval 1
Wan, HunyuanVideo
           whole runs of diffusers' networks with random weights, equal ones for all, no zeros among them; Euler steps, one
           call each, order 1, equal full steps, factors in float32. "module": diffusers' hook, told the names of the modules
           that ours finds (by itself it finds none on Wan, and half of them on HunyuanVideo). "range": cache-dit, which
           computes the first block of each list and forecasts what the others add; ours with `first=1`, which computes
           the first of all. The error is that of the final latents, mean squared over the variance of the dense ones.

errors     the same runs with orders 1 and 2, and with every fourth step full, which diffusers' rule has no setting for.
           cache-dit takes no difference before a run's fourth step, so that with two full steps at the beginning it holds
           its value until the third one; with every fourth step full it forecasts what ours does.

How often the last block really ran is counted on all of them and asserted to be equal before anything is timed.
"""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import HunyuanVideoTransformer3DModel, TaylorSeerCacheConfig, WanTransformer3DModel
from torch import Tensor, nn

import longtake
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.runtime.method import Block, Here, Method
from longtake.runtime.nouns import AttnCall, StepInfo
from longtake.runtime.stack import Stack
from timing import arguments, compare, save

WIDTH, HEADS, DEPTH, LATENTS, WORDS, TEXT = 384, 6, 8, (1, 16, 8, 16, 16), 32, 128
STEPS, WARMUP, INTERVAL = 12, 2, 4
NEVER = 1_000_000  # an interval that is longer than any run


def full_steps(warmup: int) -> list[int]:
    """By the rule of diffusers' hook, which is given to all; every fourth for a warmup of 0."""
    if not warmup:
        return list(range(0, STEPS, INTERVAL))
    return [s for s in range(STEPS) if s < warmup or (s - warmup - 1) % INTERVAL == 0]


@dataclass(frozen=True)
class Everywhere(Method):
    """Passes everything on, at every place of a network."""

    name: ClassVar[str] = "everywhere"

    def rank(self) -> str:
        return "observer"

    def predict(self, here: Here, nxt: Callable[[], Any]) -> Any:
        return nxt()

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[..., Block]) -> Block:
        return nxt(h, text)

    def part(self, here: Here, x: Tensor, nxt: Callable[[], Any]) -> Any:
        return nxt()

    def attend(self, here: Here, call: AttnCall, nxt: Callable[[AttnCall], Tensor]) -> Tensor:
        return nxt(call)


@dataclass(frozen=True)
class Parts(Method):
    """Passes everything on at attentions and feed-forward networks."""

    name: ClassVar[str] = "parts"

    def rank(self) -> str:
        return "observer"

    def part(self, here: Here, x: Tensor, nxt: Callable[[], Any]) -> Any:
        return nxt()


class Steps:
    """Calls of the starter's network, one step further each time.

    Args:
        network: whose weights are shared.
        method: that is attached; None calls it without a stack.
        full: steps to make at once.
    """

    def __init__(self, network: nn.Module, method: Method | None = None, full: int = 0) -> None:
        self.network = type(network).from_config(network.config).eval()
        self.network.load_state_dict(network.state_dict(), assign=True)
        self.stack = None if method is None else Stack([method], allow_inert=True).attach(self.network)
        generator = torch.Generator().manual_seed(0)
        self.given = (
            torch.randn(2, 16, 5, 8, 8, generator=generator),
            torch.full((2,), 500.0),
            torch.randn(2, 16, 128, generator=generator),
            torch.ones(2, 16, dtype=torch.bool),
        )
        self.run, self.s = 0 if self.stack is None else self.stack.begin(), 0
        for _ in range(full):
            self()

    @torch.no_grad()
    def __call__(self) -> Tensor:
        info = StepInfo(self.run, self.s, None, 500.0, 0.5, 0.5, "cond_uncond") if self.stack else None
        self.s += 1
        return self.network(*self.given, None, info=info)


def of_the_starter() -> tuple[dict[str, Steps], dict[str, Steps]]:
    """Candidates of the first two tables."""
    network = longtake.load("starter").transformer.requires_grad_(False)
    forecast = {"dense": Steps(network)}
    for granularity in ("output", "range", "block", "module"):
        for order in (0, 1, 2):
            method = TaylorSeer(NEVER, order, order + 1, granularity, last_full=False)
            forecast[f"{granularity}, order {order}"] = Steps(network, method, order + 2)
    attached = {"everywhere": Everywhere(), "parts": Parts(), "taylorseer": TaylorSeer(interval=1)}
    dense = {"dense": Steps(network), **{name: Steps(network, method, 1) for name, method in attached.items()}}
    wanted = dense["dense"]()
    assert all(torch.equal(steps(), wanted) for steps in dense.values()), (
        "a stack that skips nothing changes the output"
    )
    return forecast, dense


# ------------------------------------------------------------------------------------------------------- side by side


@dataclass(frozen=True)
class Kind:
    """A family of networks.

    Args:
        make: a network. last: path of a module of the last block that runs on full steps alone.
        active: what diffusers' hook forecasts, and idle: what it leaves out, as patterns of names.
    """

    make: Callable[[], nn.Module]
    last: str
    active: tuple[str, ...]
    idle: tuple[str, ...] = ()


def wan() -> nn.Module:
    return WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, text_dim=TEXT, ffn_dim=4 * WIDTH,
        num_layers=DEPTH, rope_max_seq_len=32,
    )  # fmt: skip


def hunyuan_video() -> nn.Module:
    return HunyuanVideoTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, num_layers=DEPTH // 4,
        num_single_layers=DEPTH - DEPTH // 4, num_refiner_layers=1, guidance_embeds=False, text_embed_dim=TEXT,
        pooled_projection_dim=TEXT, rope_axes_dim=(16, 24, 24),
    )  # fmt: skip


KINDS = {
    "Wan": Kind(wan, f"blocks.{DEPTH - 1}.attn1.to_q", (r"blocks\.\d+\.(attn1|attn2|ffn)",)),
    "HunyuanVideo": Kind(
        hunyuan_video,
        f"single_transformer_blocks.{DEPTH - DEPTH // 4 - 1}.attn.to_q",
        (r"transformer_blocks\.\d+\.(attn|ff|ff_context)", r"single_transformer_blocks\.\d+\.proj_out"),
        (r"single_transformer_blocks\.\d+\.(attn|proj_mlp|act_mlp)",),
    ),
}


class Runs:
    """Whole runs of one network with one cache.

    Args:
        kind: of network; the weights depend on it alone.
        cache: "dense", "diffusers", "cache-dit", or a setting of ours.
        order, warmup: of the forecasts.
    """

    def __init__(self, kind: Kind, cache: str | TaylorSeer, order: int, warmup: int) -> None:
        torch.manual_seed(0)
        self.cache, self.network = cache, kind.make()
        with torch.no_grad():
            for weight in self.network.parameters():
                spread = 1.2 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
                weight.normal_(0, spread) if weight.ndim > 1 else weight.add_(spread * torch.randn_like(weight))
        self.network.eval().requires_grad_(False)
        self.noise, words = torch.randn(LATENTS), torch.randn(1, WORDS, TEXT)
        self.given: dict[str, Any] = {"encoder_hidden_states": words}
        if kind.make is hunyuan_video:
            mask = torch.ones(1, WORDS, dtype=torch.bool)
            self.given |= {"encoder_attention_mask": mask, "pooled_projections": words[:, 0]}
        self.times_full = 0
        self.network.get_submodule(kind.last).register_forward_hook(self._count)
        if cache == "diffusers":
            self.network.enable_cache(
                TaylorSeerCacheConfig(
                    INTERVAL, warmup, None, order, torch.float32, list(kind.idle) or None, list(kind.active)
                )
            )
        elif cache == "cache-dit":
            attach_cache_dit(self.network, order, warmup)
        elif isinstance(cache, TaylorSeer):
            Stack([cache]).attach(self.network)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """The final latents."""
        if self.cache == "cache-dit":
            import cache_dit

            cache_dit.refresh_context(self.network, num_inference_steps=STEPS)
        x, self.times_full = self.noise, 0
        for s in range(STEPS):
            timestep = torch.full((1,), 1000 * (STEPS - s) // STEPS)
            with self.network.cache_context("cond"):
                x = x - self.network(x, timestep, **self.given, return_dict=False)[0] / STEPS
        self.network._reset_stateful_cache()
        return x

    def _count(self, *call: Any) -> None:
        self.times_full += 1


def attach_cache_dit(network: nn.Module, order: int, warmup: int) -> None:
    """Its block cache with Taylor forecasts, on a fixed list of steps, with as few blocks computed as it allows."""
    import cache_dit
    from cache_dit import BlockAdapter, DBCacheConfig, ForwardPattern, TaylorSeerCalibratorConfig

    lists = [network.blocks] if hasattr(network, "blocks") else [network.transformer_blocks]
    pattern = ForwardPattern.Pattern_2 if hasattr(network, "blocks") else ForwardPattern.Pattern_0
    if not hasattr(network, "blocks"):
        lists.append(network.single_transformer_blocks)
    cache_dit.enable_cache(
        BlockAdapter(
            transformer=network, blocks=lists, forward_pattern=[pattern] * len(lists), check_forward_pattern=True,
            check_num_outputs=False, has_separate_cfg=False,
        ),
        cache_config=DBCacheConfig(
            Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=warmup, enable_separate_cfg=False,
            num_inference_steps=STEPS, steps_computation_mask=[int(s in full_steps(warmup)) for s in range(STEPS)],
            steps_computation_policy="static",
        ),
        calibrator_config=TaylorSeerCalibratorConfig(taylorseer_order=order),
    )  # fmt: skip


def caches(order: int, warmup: int) -> dict[str, str | TaylorSeer]:
    """Candidates of a side-by-side table, the baseline first."""
    mask = "".join("01"[s in full_steps(warmup)] for s in range(STEPS))
    return {
        "dense": "dense",
        **({"diffusers, module": "diffusers"} if warmup else {}),
        "longtake, module": TaylorSeer(order=order, mask=mask, factor_dtype="float32"),
        **({"cache-dit, range": "cache-dit"} if cache_dit_version() else {}),
        "longtake, range": TaylorSeer(order=order, mask=mask, granularity="range", first=1),
        "longtake, output": TaylorSeer(order=order, mask=mask, granularity="output"),
    }


def run_once(
    kind: Kind, order: int, warmup: int, dense: Tensor | None = None
) -> tuple[dict[str, Runs], dict[str, float], Tensor]:
    """Runs by name, their errors, and the dense latents, which are made unless given; all made as many full steps."""
    runs, errors, full = {}, {}, len(full_steps(warmup))
    for name, cache in caches(order, warmup).items():
        if name == "dense" and dense is not None:
            continue
        runs[name] = Runs(kind, cache, order, warmup)
        made = runs[name]()
        assert runs[name].times_full == (STEPS if name == "dense" else full), f"{name}: {runs[name].times_full} full"
        if name == "dense":
            dense = made
            continue
        assert dense is not None
        errors[name] = float((made - dense).square().mean() / dense.var())
    assert dense is not None
    return runs, errors, dense


def errors_of(kind: Kind) -> dict[str, dict[str, float]]:
    """Errors by order and schedule."""
    found, dense = {}, None
    for warmup, schedule in ((WARMUP, f"{WARMUP} at the beginning"), (0, "every fourth")):
        for order in (1, 2):
            _, found[f"order {order}, {schedule}"], dense = run_once(kind, order, warmup, dense)
    return found


def main() -> None:
    tables = ("forecast", "dense", *KINDS, "errors")
    chosen = arguments(__doc__, repeats=5, only=tables)
    if cache_dit_version() is None:
        print("cache-dit is not there, and its rows are left out: pip install --no-deps --target FOLDER cache-dit, and")
        print("run this again with PYTHONPATH=FOLDER")
    before = chosen.out / "taylorseer.json"
    results: dict[str, Any] = json.loads(before.read_text())["results"] if chosen.only and before.exists() else {}
    asked = chosen.only or tables
    starter = dict(
        zip(("forecast", "dense"), of_the_starter() if {"forecast", "dense"} & set(asked) else (), strict=False)
    )
    for name, times in (("forecast", 3), ("dense", 9)):
        if name in asked:
            results[name] = compare(starter[name], repeats=times * chosen.repeats, warmup=2)
            print(f"\n{name}\n{results[name]}", flush=True)
    starter.clear()
    for name, kind in KINDS.items():
        if name in asked:
            results[name] = compare(run_once(kind, 1, WARMUP)[0], repeats=chosen.repeats, warmup=0)
            print(f"\n{name}\n{results[name]}", flush=True)
        if "errors" in asked:
            results[f"{name} errors"] = errors_of(kind)
            for setting, errors in results[f"{name} errors"].items():
                print(
                    f"{name}, {setting}:", ", ".join(f"{one} {value:.4f}" for one, value in errors.items()), flush=True
                )
    setting = {
        "width": WIDTH, "heads": HEADS, "depth": DEPTH, "latents": LATENTS, "tokens": 8 * 8 * 8, "words": WORDS,
        "steps": STEPS, "full": full_steps(WARMUP), "threads": torch.get_num_threads(), "cache_dit": cache_dit_version(),
    }  # fmt: skip
    print("\nwritten:", save("taylorseer", results, setting=setting, folder=chosen.out))


def cache_dit_version() -> str | None:
    """Of the one that is there."""
    if importlib.util.find_spec("cache_dit") is None:
        return None
    import cache_dit

    return str(cache_dit.__version__)


if __name__ == "__main__":
    main()
