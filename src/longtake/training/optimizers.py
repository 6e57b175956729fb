"""Optimisers: AdamW, or Muon for the matrices inside the blocks and AdamW for everything else.

Muon orthogonalises the momentum of a whole matrix, which is meant for hidden layers. Input and output projections,
embeddings, norms, biases and thin matrices (routers, adapters of low rank) keep AdamW. Muon's update is scaled to the
size that AdamW's has, so one learning rate serves both.

Modules that decide what is computed (they say so, `steers = True`) may have a rate of their own: their logits begin far
from a decision, and at the rate of the rest a short training ends before they get there.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from longtake.errors import BadRecipe
from longtake.training.muon import Muon
from longtake.training.recipe import OptimizerRecipe

THIN = 16  # rows or columns
HIDDEN = nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d
_STATE = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), Muon: ("momentum_buffer",)}


def hidden_matrices(modules: dict[str, nn.Module]) -> set[str]:
    """Names of the parameters that Muon takes.

    They are the weights of linear layers and convolutions inside the entries of an ``nn.ModuleList``, thin ones left out.
    """
    names = set()
    for name, module in modules.items():
        blocks = tuple(
            f"{list_name}.{index}." if list_name else f"{index}."
            for list_name, inner in module.named_modules()
            if isinstance(inner, nn.ModuleList)
            for index in range(len(inner))
        )
        for inner_name, inner in module.named_modules():
            if not (isinstance(inner, HIDDEN) and f"{inner_name}.".startswith(blocks)):
                continue
            if min(inner.weight.flatten(1).shape) >= THIN:
                names.add(f"{name}.{inner_name}.weight")
    return names


def steering_weights(modules: dict[str, nn.Module]) -> set[str]:
    """Names of the parameters of modules that decide what is computed."""
    return {
        f"{inner_name}.{weight}"
        for name, module in modules.items()
        for inner_name, inner in module.named_modules(prefix=name)
        if getattr(inner, "steers", False)
        for weight, _ in inner.named_parameters()
    }


def build_optimizers(
    modules: dict[str, nn.Module], parameters: dict[str, nn.Parameter], recipe: OptimizerRecipe
) -> list[Optimizer]:
    """Return the optimisers of the named parameters; each group keeps its own rate as ``base_lr``.

    Raises:
        BadRecipe: a rate for routers, and no router is trained.
    """
    steering = steering_weights(modules) & parameters.keys() if recipe.router_lr is not None else set()
    if recipe.router_lr is not None and not steering:
        raise BadRecipe("optimizer.router_lr: nothing that is trained here decides what is computed; leave it out.")
    matrices = hidden_matrices(modules) - steering if recipe.name == "muon" else set()
    muon = [p for name, p in parameters.items() if name in matrices]
    groups: list[dict[str, Any]] = []
    for rate, names in ((recipe.lr, parameters.keys() - matrices - steering), (recipe.router_lr, steering)):
        own = [p for name, p in parameters.items() if name in names]
        for large, decay in ((True, recipe.weight_decay), (False, 0.0)):
            groups.append({"params": [p for p in own if (p.ndim >= 2) == large], "weight_decay": decay, "lr": rate})
    optimizers: list[Optimizer] = []
    if any(group["params"] for group in groups):
        groups = [group for group in groups if group["params"]]
        optimizers.append(
            torch.optim.AdamW(groups, lr=recipe.lr, betas=tuple(recipe.betas), eps=recipe.eps, fused=True)
        )
    if muon:
        optimizers.append(
            Muon(
                muon,
                lr=recipe.lr if recipe.muon_lr is None else recipe.muon_lr,
                weight_decay=recipe.weight_decay,
                momentum=recipe.momentum,
                steps=recipe.muon_steps,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def set_rate(optimizers: list[Optimizer], share: float) -> None:
    """Set every group's learning rate to a share of its own."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * share


def optimizer_tensors(optimizers: list[Optimizer], parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return all state as ``{parameter}.{key}`` -> tensor (the very tensors, so that loading into them restores it).

    State that does not exist yet, before the first step, is created as zeros.
    """
    names = {p: name for name, p in parameters.items()}
    tensors = {}
    for optimizer in optimizers:
        keys = _STATE[type(optimizer)]
        for group in optimizer.param_groups:
            for p in group["params"]:
                state = optimizer.state[p]
                for key in keys:
                    if key not in state:
                        state[key] = torch.zeros_like(p, memory_format=torch.preserve_format)
                if isinstance(optimizer, torch.optim.AdamW) and "step" not in state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                for key, value in state.items():
                    tensors[f"{names[p]}.{key}"] = value
    return tensors
