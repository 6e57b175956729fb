"""What the seam must know of a network: its blocks in order, what each is made of, and where its tokens lie.

A network of ours carries its `Family` as the class attribute `family`; those of diffusers are in
`longtake.runtime.families`. For any other network, ten lines make one:

    ModelView(network, Family(
        name="mine",
        stacks=(Blocks("layers", BlockForm(parts=(Part("attention", "attn.self"), Part("mlp", "ffn")), hidden="x")),),
        grid=lambda network, given: TokenGrid(*given["x"].shape[2:]),
    ))
"""

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from longtake.errors import Unsupported
from longtake.runtime.nouns import Site, TokenGrid

Given = Mapping[str, Any]
"""A call's arguments by the names of its parameters."""


@dataclass(frozen=True)
class Part:
    """A module of a block whose output goes into the stream of tokens, before any gate.

    Args:
        path: dotted, from the block.
        kind: "attn.self", "attn.cross", "attn.joint" or "ffn".
        stream: "video", "text", "joint", "spatial" or "temporal": which tokens it works on, or along which axis.
        feeders: paths of modules that work for this part alone; where its output is known without it, they are not run.
    """

    path: str
    kind: str
    stream: str = "video"
    feeders: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockForm:
    """What a block is given, what it gives back, and what it is made of.

    Args:
        parts: in the order in which they run.
        attentions: the modules in which attention happens, where those are not the parts of an attention's kind.
        hidden: name of the parameter that takes the video tokens.
        text: name of the parameter that takes text tokens which the block changes and gives back, or None.
        layout: of the video tokens, "flat" (B, F*N, D), "frames" (B, F, N, D), "spatial" (B*F, N, D) or "temporal"
            (B*N, F, D).
        stream: as `Part.stream`, of the block as a whole.
    """

    parts: tuple[Part, ...]
    attentions: tuple[Part, ...] | None = None
    hidden: str = "hidden_states"
    text: str | None = None
    layout: str = "flat"
    stream: str = "video"


@dataclass(frozen=True)
class Blocks:
    """A list of blocks in a network.

    Args:
        path: of the ModuleList.
        form: of each block, or a function from a block to its form.
    """

    path: str
    form: BlockForm | Callable[[nn.Module], BlockForm]


@dataclass(frozen=True)
class Family:
    """A kind of network.

    Args:
        name: how messages call it.
        stacks: its lists of blocks, one behind the other, or in turns when `interleaved`.
        grid: (network, arguments of its forward by name) -> the token box of the call.
        text_at: where text tokens are in a joint attention: "none", "first" or "last".
        timestep: name of the parameter that takes the time, and `latents` of the one that takes the noisy latents.
        rising: that time rises along a run, from noise at 0, in the pipeline's own loop.
        first_safe: the first block, in order of execution, at which a range of blocks that is skipped may begin, or a
            function from the network to it. Above 0 where the network itself changes the stream between blocks.
        stage: (network, arguments by name, token box) -> what decides the cost of a call besides the shapes of its
            arguments, so that it is counted once for all calls alike. None where no call tells what another costs: then
            costs are not known.
    """

    name: str
    stacks: tuple[Blocks, ...]
    grid: Callable[[nn.Module, Given], TokenGrid]
    text_at: str = "none"
    interleaved: bool = False
    timestep: str = "timestep"
    latents: str = "hidden_states"
    rising: bool = False
    first_safe: int | Callable[[nn.Module], int] = 0
    stage: Callable[[nn.Module, Given, TokenGrid], Hashable | None] = lambda network, given, grid: ()


@dataclass(frozen=True)
class BlockAt:
    """A block of one network."""

    site: Site
    module: nn.Module
    form: BlockForm


@dataclass(frozen=True)
class PartAt:
    """A part of one block of one network, and the modules that feed it alone."""

    site: Site
    module: nn.Module
    feeders: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class ModelView:
    """A network as methods see it.

    Args:
        network: the network.
        family: what kind it is.
        model: what the pipeline calls it, "transformer" or "transformer_2".
    """

    network: nn.Module
    family: Family
    model: str = "transformer"
    _calls: dict[type, "Signature"] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def blocks(self) -> list[BlockAt]:
        """All blocks in the order in which they run."""
        stacks = [
            [(f"{stack.path}.{i}", block, stack.form) for i, block in enumerate(self.network.get_submodule(stack.path))]
            for stack in self.family.stacks
        ]
        order = (
            [one for turn in zip(*stacks, strict=True) for one in turn] if self.family.interleaved else sum(stacks, [])
        )
        found = []
        for layer, (name, block, form) in enumerate(order):
            form = form if isinstance(form, BlockForm) else form(block)
            found.append(BlockAt(Site("block", layer, len(order), form.stream, name), block, form))
        return found

    @property
    def parts(self) -> list[PartAt]:
        """Attentions and feed-forward networks of all blocks, in the order in which they run."""
        return [
            PartAt(
                _site(part, block),
                block.module.get_submodule(part.path),
                tuple(block.module.get_submodule(path) for path in part.feeders),
            )
            for block in self.blocks
            for part in block.form.parts
            if _holds(block.module, part.path)
        ]

    @property
    def attentions(self) -> list[PartAt]:
        """The modules in which attention happens."""
        found = []
        for block in self.blocks:
            parts = [part for part in block.form.parts if part.kind.startswith("attn")]
            for part in parts if block.form.attentions is None else block.form.attentions:
                if _holds(block.module, part.path):
                    found.append(PartAt(_site(part, block), block.module.get_submodule(part.path)))
        return found

    @property
    def linears(self) -> dict[str, nn.Module]:
        """Linear layers inside blocks by their dotted names, in the order in which they were made.

        Those of modules that decide what is computed (they say so, `steers = True`) are none of a method's business.
        """
        found = {}
        for block in self.blocks:
            modules = dict(block.module.named_modules())
            steering = tuple(f"{name}." for name, module in modules.items() if getattr(module, "steers", False))
            for name, module in modules.items():
                if isinstance(module, nn.Linear) and not name.startswith(steering):
                    found[f"{block.site.name}.{name}"] = module
        return found

    @property
    def first_safe(self) -> int:
        """The first block at which a range that is skipped may begin."""
        safe = self.family.first_safe
        return safe if isinstance(safe, int) else safe(self.network)

    def given(self, module: nn.Module, args: tuple[Any, ...], kwargs: Given) -> dict[str, Any]:
        """Arguments of a module's call by name; those left out are missing."""
        kind = type(module)
        if kind not in self._calls:
            self._calls[kind] = Signature.of(kind)
        return self._calls[kind].by_name(args, kwargs)

    def grid(self, given: Given) -> TokenGrid:
        """The token box of a call of the whole network."""
        return self.family.grid(self.network, given)

    def stage(self, given: Given, grid: TokenGrid) -> Hashable | None:
        """What decides the cost of such a call besides the shapes of its arguments; see `Family`."""
        return self.family.stage(self.network, given, grid)


@dataclass(frozen=True)
class Signature:
    """Names of a forward's parameters in order."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, kind: type) -> "Signature":
        """That of a class of modules."""
        return cls(tuple(inspect.signature(kind.forward).parameters)[1:])

    def by_name(self, args: tuple[Any, ...], kwargs: Given) -> dict[str, Any]:
        """Positional arguments under their names, with the keywords."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}

    def put(self, args: tuple[Any, ...], kwargs: Given, new: Given) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with some arguments changed."""
        fresh = list(args)
        rest = dict(kwargs)
        for name, value in new.items():
            place = self.names.index(name)
            if place < len(fresh):
                fresh[place] = value
            else:
                rest[name] = value
        return tuple(fresh), rest


def latent_grid(latents: Tensor, patch: tuple[int, int, int]) -> TokenGrid:
    """The token box of latents (B, C, T, H, W) cut into patches."""
    return TokenGrid(*(n // p for n, p in zip(latents.shape[2:], patch, strict=True)))


def canonical(h: Tensor, layout: str, grid: TokenGrid) -> Tensor:
    """Video tokens of any layout as (B, F, N, D); `uncanonical` takes them back."""
    places = grid.height * grid.width
    if layout == "frames":
        return h
    if layout == "flat":
        return h.unflatten(1, (grid.frames, places))
    if layout == "spatial":
        return h.unflatten(0, (-1, grid.frames))
    return h.unflatten(0, (-1, places)).transpose(1, 2)


def uncanonical(h: Tensor, layout: str) -> Tensor:
    """(B, F, N, D) to a layout."""
    if layout == "frames":
        return h
    if layout == "flat":
        return h.flatten(1, 2)
    if layout == "spatial":
        return h.flatten(0, 1)
    return h.transpose(1, 2).flatten(0, 1)


def view_of(network: nn.Module, model: str = "transformer") -> ModelView:
    """The view of a network of ours or of diffusers.

    Raises:
        Unsupported: a network of another kind; the message says how to give it a view.
    """
    from longtake.runtime.families import FAMILIES

    family = getattr(type(network), "family", None)
    if not isinstance(family, Family):
        family = FAMILIES.get(type(network).__name__)
    if family is None:
        raise Unsupported(
            f"{type(network).__name__} is no network that methods know; give its ModelView (longtake.runtime.views), or use "
            f"one of {', '.join(FAMILIES)}"
        )
    return ModelView(network, family, model)


def _holds(module: nn.Module, path: str) -> bool:
    for name in path.split("."):
        if name not in module._modules or module._modules[name] is None:
            return False
        module = module._modules[name]  # type: ignore[assignment]
    return True


def _site(part: Part, block: BlockAt) -> Site:
    module, at = block.module.get_submodule(part.path), block.site
    own = getattr(module, "site", None)  # an AttendPoint knows its heads
    heads = own.heads if isinstance(own, Site) else int(getattr(module, "heads", 0) or 0)
    head_dim = own.head_dim if isinstance(own, Site) else 0
    if heads and not head_dim:
        inner = getattr(module, "inner_dim", None) or getattr(getattr(module, "to_q", None), "out_features", 0)
        head_dim = int(inner) // heads
    return Site(part.kind, at.layer, at.n_layers, part.stream, f"{at.name}.{part.path}", heads, head_dim)
