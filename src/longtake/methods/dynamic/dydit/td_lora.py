"""TD-LoRA: low-rank adapters whose second matrix is mixed from experts by the embedded time.

    W x + (alpha / r) (sum_j pi_j(e_t) B_j) A x,    pi = softmax(Linear(e_t))

A starts as LoRA's, every B_j at zero; one expert is LoRA. DyDiT++, arXiv 2504.06803 (that B is the matrix of experts, and
the router's form, are ours). They are PEFT layers, so PEFT's functions find, save and load them.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from longtake.errors import BadInput, Unsupported
from longtake.layers.modulation import linear_fp32

NAME = "default"
"""PEFT's name of the one adapter that a network has."""


@dataclass
class TDLoraConfig(LoraConfig):
    """PEFT's LoRA settings, and two of this kind.

    Args:
        experts: n. time_width: features of the embedded time.
    """

    experts: int = field(default=4)
    time_width: int = field(default=0)


class Clock:
    """The embedded time (B, D) of the call that the network is in."""

    def __init__(self) -> None:
        self.time: Tensor | None = None

    def see(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each call of the network."""
        given = inspect.signature(type(network).forward).bind(network, *args, **kwargs).arguments
        self.time = network.embed_time(given["timestep"].expand(given["latents"].shape[0]))


class TDLoraLinear(nn.Module, LoraLayer):
    """A linear layer with such an adapter.

    Args:
        base_layer: the layer, frozen.
        adapter_name: PEFT's name.
        config: its settings.
        rest: what else PEFT hands to its layers.
    """

    adapter_layer_names = ("lora_A", "lora_experts", "lora_router")

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config: TDLoraConfig, **rest: Any) -> None:
        nn.Module.__init__(self)
        LoraLayer.__init__(self, base_layer)
        self.lora_experts, self.lora_router = nn.ParameterDict(), nn.ModuleDict()
        self.clock = Clock()
        self._active_adapter = adapter_name
        self.r[adapter_name], self.lora_alpha[adapter_name] = config.r, config.lora_alpha
        self.scaling[adapter_name] = config.lora_alpha / config.r
        self.lora_A[adapter_name] = nn.Linear(self.in_features, config.r, bias=False)
        nn.init.kaiming_uniform_(self.lora_A[adapter_name].weight, a=5**0.5)
        self.lora_experts[adapter_name] = nn.Parameter(torch.zeros(config.experts, self.out_features, config.r))
        self.lora_router[adapter_name] = nn.Linear(config.time_width, config.experts)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def second_at(self, time: Tensor) -> Tensor:
        """The second matrix at embedded times (B, D), scaled: (B, O, r) float32."""
        router: Any = self.lora_router[NAME]
        shares = linear_fp32(router, time).softmax(-1)
        return torch.einsum("bn,nor->bor", shares, self.lora_experts[NAME].float()) * self.scaling[NAME]

    def weights_at(self, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias at one embedded time (1, D)."""
        base: Any = self.get_base_layer()
        low: Any = self.lora_A[NAME].weight
        return base.weight + (self.second_at(time)[0] @ low.float()).to(base.weight), base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B', ..., I) -> (B', ..., O), where the first axis runs over the samples, each of them any number of times."""
        assert self.clock.time is not None
        second = self.second_at(self.clock.time)
        low = self.lora_A[NAME](x).reshape(second.shape[0], -1, second.shape[2])
        made = self.base_layer(x)
        return made + torch.bmm(low, second.transpose(1, 2).to(low)).view(made.shape)


def add_td_lora(network: Any, rank: int = 8, alpha: float | None = None, experts: int = 4) -> list[str]:
    """Put such adapters on all linear layers of attention and feed-forward networks, and freeze everything else.

    Args:
        network: one of ours (it has `embed_time` and `blocks`); it is changed.
        rank: r. alpha: None = r. experts: n; 1 is LoRA.

    Returns:
        Names of the layers.

    Raises:
        BadInput: numbers below 1. Unsupported: another network, or one that has adapters already.
    """
    if rank < 1 or experts < 1:
        raise BadInput(f"rank {rank} with {experts} experts; both are at least 1")
    if not hasattr(network, "embed_time"):
        raise Unsupported(f"{type(network).__name__} does not tell its embedded time; TD-LoRA takes networks of ours")
    if any(isinstance(module, TDLoraLinear) for module in network.modules()):
        raise Unsupported("this network has TD-LoRA already; load it without, or go on with what it has")
    names = [
        f"blocks.{name}"
        for name, module in network.blocks.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".")[-1] in ("qkv", "out", "up", "down", "q", "kv")
    ]
    config = TDLoraConfig(
        r=rank,
        lora_alpha=alpha if alpha is not None else rank,  # type: ignore[arg-type]
        target_modules=names,
        experts=experts,
        time_width=network.config.width,
    )
    config._register_custom_module({nn.Linear: TDLoraLinear})
    inject_adapter_in_model(config, network, NAME)
    clock = Clock()
    for module in network.modules():
        if isinstance(module, TDLoraLinear):
            module.clock = clock
    network.register_forward_pre_hook(clock.see, with_kwargs=True)
    return names
