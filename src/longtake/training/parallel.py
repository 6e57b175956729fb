"""One process or many: process groups, DDP, FSDP2 and HSDP, all from torch.distributed, launched by torchrun."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate

from longtake.errors import BadRecipe
from longtake.training.recipe import ParallelRecipe


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None = None  # None: one process
    kind: str = "single"  # single, ddp, fsdp, hsdp

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


@contextmanager
def joined_world(recipe: ParallelRecipe, device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started (it sets RANK, WORLD_SIZE and LOCAL_RANK), or be the only one.

    Raises:
        BadRecipe: no such device, or ``parallel.shards`` does not divide the number of processes.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if torch.device(kind).type == "cuda" and not torch.cuda.is_available():
        raise BadRecipe(f"device: '{device}' was asked for and torch finds no CUDA device; use device=cpu.")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, torch.device(kind))
        return
    if torch.device(kind).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    own_group = not dist.is_initialized()
    if own_group:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.device(kind).type == "cuda" else "gloo")
    try:
        shards = recipe.shards or size
        if recipe.kind == "hsdp":
            if size % shards:
                raise BadRecipe(f"parallel.shards: {shards} does not divide the {size} processes.")
            mesh = init_device_mesh(torch.device(kind).type, (size // shards, shards), mesh_dim_names=("copy", "shard"))
        else:
            mesh = init_device_mesh(torch.device(kind).type, (size,), mesh_dim_names=("data",))
        place = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
        yield World(dist.get_rank(), size, place, mesh, recipe.kind)
    finally:
        if own_group:
            dist.destroy_process_group()


def shard(modules: Iterable[nn.Module], world: World) -> None:
    """Apply FSDP2 (or HSDP on a two-dimensional mesh) in place: one shard group per block, one for what is left.

    A block is an entry of an ``nn.ModuleList`` directly below the module. Parameters become DTensors. Weights are given
    up after every forward pass, so that they are gathered anew when the average has taken their place.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    assert world.mesh is not None
    for module in modules:
        for child in module.children():
            if isinstance(child, nn.ModuleList):
                for block in child:
                    fully_shard(block, mesh=world.mesh, reshard_after_forward=True)
        fully_shard(module, mesh=world.mesh, reshard_after_forward=True)
        for method in ("posterior", "encode", "decode"):
            if hasattr(module, method):
                register_fsdp_forward_method(module, method)


def forget_gathered(module: nn.Module) -> None:
    """Make FSDP gather the weights again, which have changed under it."""
    for inner in module.modules():
        reshard = getattr(inner, "reshard", None)
        if callable(reshard):
            reshard()


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds (all of it when it is not sharded); shares memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor gathered from all shards; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shards_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Cut a tensor that every process holds in full into shards as those of another; as it is when that one is whole."""
    if not isinstance(like, DTensor):
        return tensor
    copies = DTensor.from_local(tensor, like.device_mesh, [Replicate()] * like.device_mesh.ndim, run_check=False)
    return copies.redistribute(placements=like.placements)


def mean_over_world(values: Tensor, world: World) -> Tensor:
    """Mean of a tensor over the processes."""
    if world.size > 1:
        dist.all_reduce(values)
        values = values / world.size
    return values


def any_in_world(flag: bool, world: World) -> bool:
    """Whether the flag is set on any process."""
    if world.size == 1:
        return flag
    vote = torch.tensor(float(flag), device=world.device)
    dist.all_reduce(vote, op=dist.ReduceOp.MAX)
    return bool(vote.item())


def barrier(world: World) -> None:
    """Wait for all processes."""
    if world.size > 1:
        dist.barrier()
