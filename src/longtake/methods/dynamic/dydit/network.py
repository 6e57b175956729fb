"""The dynamic networks, and the conversion."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from longtake.backbones.converted import Converted, base_config
from longtake.backbones.latte import FAMILY as LATTE
from longtake.backbones.latte import Latte, block_form
from longtake.backbones.latte_blocks import LatteCondition
from longtake.backbones.waver import FAMILY as WAVER
from longtake.backbones.waver import HybridStreamDiT
from longtake.backbones.waver_blocks import BlockCondition
from longtake.errors import BadInput, Unsupported
from longtake.layers.gates import decided_gates
from longtake.methods.dynamic.dydit import hybrid, latte
from longtake.methods.dynamic.dydit.costs import Calls
from longtake.methods.dynamic.dydit.reordering import largest_first
from longtake.methods.dynamic.dydit.routing import (
    TEMPERATURE,
    TOKEN_BIAS,
    WIDTH_BIAS,
    Routing,
    TokenRouter,
    WidthRouter,
)
from longtake.methods.dynamic.dydit.td_lora import add_td_lora
from longtake.runtime import BlockForm, Blocks, Part, StepInfo, TokenGrid
from longtake.runtime.receipts import Receipt

Widths = dict[int, tuple[int, ...]]
"""Number of a router -> the heads or groups that are on."""


class _Dynamic(Converted):
    """What both kinds have in common."""

    def begin(self, td_lora: dict[str, Any] | None) -> None:
        """Put on adapters if there are any, beside which the routers are trained."""
        self.calls, self.adapted = Calls(), td_lora is not None
        self._drawn: Routing | None = None
        self._known: tuple[Any, dict[float, Widths]] = (None, {})
        self._routers = [module for module in self.modules() if isinstance(module, WidthRouter)]  # type: ignore[attr-defined]
        if td_lora is not None:
            add_td_lora(self, **td_lora)
            for module in self.modules():  # type: ignore[attr-defined]
                if isinstance(module, WidthRouter | TokenRouter):
                    module.requires_grad_(True)

    @contextmanager
    def drawing(
        self, seeds: Sequence[int] | None, *, settled: bool = False, temperature: float = TEMPERATURE
    ) -> Iterator[Routing]:
        """A call inside draws its gates and passes gradients through them.

        Args:
            seeds: of each sample's noise; None = everything is on.
            settled: gates are those of use, without noise.
            temperature: of the gradients, above 0; large ones reach gates whose logits are far from 0.

        Yields:
            What was decided, whose cost `costs.share_of` tells, with gradients.
        """
        whole = seeds is None
        self._drawn = Routing(torch.empty(0), seeds, whole=whole, settled=settled, temperature=temperature)
        try:
            yield self._drawn
        finally:
            self._drawn = None

    def routing(self, time: Tensor, timestep: Tensor) -> Routing:
        """What the blocks of a call decide by: time (B, D), timestep (B,) or a scalar.

        Raises:
            Unsupported: in training mode outside of `drawing`, where routers would learn nothing.
        """
        if self._drawn is not None:
            self._drawn.time, self._drawn.spent = time, {}
            return self._drawn
        if self.training:  # type: ignore[attr-defined]
            raise Unsupported(
                "a DyDiT in training mode draws its gates: call it inside `with network.drawing(seeds):`, or in eval mode"
            )
        if torch.is_grad_enabled():
            return Routing(time)
        moments = distinct(timestep)
        widths = self.widths(moments)
        made = Routing(
            time,
            moment=moments[0] if len(moments) == 1 else None,
            widths=widths[0] if all(one == widths[0] for one in widths) else None,
        )
        self.calls.see(moments, made)
        return made

    def in_groups(self, timestep: Tensor, call: Callable[[Tensor | None], Tensor]) -> Tensor:
        """Call once for all samples, or once for those of each width, where they differ and nothing is learned.

        Args:
            timestep: (B,) or a scalar.
            call: numbers of some samples, None = all -> what the network makes of them.
        """
        whole = self._drawn is not None or torch.is_grad_enabled() or self.training  # type: ignore[attr-defined]
        if whole or len(distinct(timestep)) == 1:
            return call(None)
        times = timestep.tolist()
        groups: dict[Any, list[int]] = {}
        for row, (t, widths) in enumerate(zip(times, self.widths(times), strict=True)):
            groups.setdefault((tuple(widths.values()), t if self.adapted else None), []).append(row)
        if len(groups) == 1:
            return call(None)
        order = torch.tensor([row for rows in groups.values() for row in rows], device=timestep.device)
        made = torch.cat([call(torch.tensor(rows, device=timestep.device)) for rows in groups.values()])
        return made[order.argsort()]

    @torch.no_grad()
    def widths(self, timesteps: Sequence[float]) -> list[Widths]:
        """What is on at each timestep, 0 to 1000; remembered until a weight of the routers or of the time changes."""
        deciding = [*self.time_embed.parameters(), *(p for router in self._routers for p in router.parameters())]  # type: ignore[attr-defined]
        stamp = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in deciding)
        if self._known[0] != stamp:
            self._known = stamp, {}
        known = self._known[1]
        new = [t for t in dict.fromkeys(map(float, timesteps)) if t not in known]
        if new:
            time = self.embed_time(torch.tensor(new, device=deciding[0].device))  # type: ignore[attr-defined]
            on = [decided_gates(router(time)).cpu() for router in self._routers]
            for row, t in enumerate(new):
                known[t] = {
                    router.number: (0, *(1 + gates[row].nonzero().squeeze(1)).tolist())
                    for router, gates in zip(self._routers, on, strict=True)
                }
        return [known[float(t)] for t in timesteps]

    def compile_steps(self, timesteps: Sequence[float]) -> list[dict[str, list[float]]]:
        """Decide the widths of a run's timesteps ahead, so that no step waits for it.

        Layers are cut when they are first called. Both are made anew when weights change.

        Returns:
            For each timestep the shares of heads and of groups that are on, of each attention and feed-forward network in
            order.
        """
        routers = {
            kind: [(module.router.number, module.router.units) for module in self.modules() if isinstance(module, own)]  # type: ignore[attr-defined]
            for kind, own in (("heads", latte.Heads), ("groups", latte.DynamicFeed))
        }
        return [
            {kind: [len(on[number]) / units for number, units in found] for kind, found in routers.items()}
            for on in self.widths(timesteps)
        ]

    def receipt(self) -> Receipt | None:
        """Width and tokens of every block at every noise level."""
        return self.calls.receipt({"td_lora": self.adapted})


class DyLatte(_Dynamic, Latte):
    """A Latte of dynamic width and tokens.

    Args:
        base: configuration of the Latte.
        tokens: tokens are chosen too; False = width alone.
        td_lora: arguments of `add_td_lora` beside the network, None without adapters.

    Raises:
        BadInput: heads that leave nothing to switch off, or do not divide the feed-forward network.
        Unsupported: inject="all_tokens", whose condition is among the tokens.
    """

    family = replace(
        LATTE,
        name="DyDiT of Latte",
        stacks=(Blocks("blocks", lambda block: _latte_form(block)),),
        stage=lambda *call: None,
    )
    _no_split_modules = _repeated_blocks = ["DynamicBlock"]

    @register_to_config
    def __init__(self, base: dict[str, Any], tokens: bool = True, td_lora: dict[str, Any] | None = None) -> None:
        Latte.__init__(self, **base)
        self.keep({"base": base, "tokens": tokens, "td_lora": td_lora})
        if self.config.inject == "all_tokens":
            raise Unsupported(
                "a Latte with inject='all_tokens' has its condition among the tokens, which DyDiT would leave out"
            )
        self.blocks = latte.convert_blocks(self.blocks, self.config.width, self.config.heads, tokens)
        self.begin(td_lora)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        condition: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        image_labels: Tensor | None = None,
        images: int = 0,
        info: StepInfo | None = None,
    ) -> Tensor:
        """As a Latte's; samples of different widths are run apart."""

        def some(rows: Tensor | None) -> Tensor:
            x, t, words, mask, of_class = pick(rows, latents, timestep, text, text_mask, labels)
            return Latte.forward(
                self, x, t, words, mask, condition, labels=of_class, image_labels=image_labels, images=images, info=info
            )

        return self.in_groups(timestep, some)

    def prepare(self, cond: LatteCondition, timestep: Tensor) -> LatteCondition:
        """Add what blocks decide by."""
        return replace(cond, routing=self.routing(cond.time, timestep))

    def token_grid(self, latents: Tensor, images: int) -> TokenGrid:
        """As a Latte's; single images beside the clip are refused."""
        if images:
            raise BadInput(f"{images} single images beside a clip; DyDiT takes clips alone: use images=0")
        return super().token_grid(latents, images)


class DyHybrid(_Dynamic, HybridStreamDiT):
    """A HybridStreamDiT of dynamic width and tokens. Arguments as `DyLatte`.

    Raises:
        BadInput: heads that leave nothing to switch off, or do not divide the feed-forward network.
    """

    family = replace(
        WAVER,
        name="DyDiT of Waver",
        stacks=(Blocks("blocks", lambda block: _hybrid_form(block)),),
        stage=lambda *call: None,
    )
    _no_split_modules = _repeated_blocks = ["DynamicDual", "DynamicSingle"]

    @register_to_config
    def __init__(self, base: dict[str, Any], tokens: bool = True, td_lora: dict[str, Any] | None = None) -> None:
        HybridStreamDiT.__init__(self, **base)
        self.keep({"base": base, "tokens": tokens, "td_lora": td_lora})
        self.blocks = hybrid.convert_blocks(self.blocks, self.config.width, self.config.heads, tokens)
        self.begin(td_lora)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor | None = None,
        condition: Tensor | None = None,
        *,
        info: StepInfo | None = None,
        states_after: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As a HybridStreamDiT's; samples of different widths are run apart."""

        def some(rows: Tensor | None) -> Any:
            x, t, words, mask, given = pick(rows, latents, timestep, text, text_mask, condition)
            return HybridStreamDiT.forward(self, x, t, words, mask, given, info=info, states_after=states_after)

        return some(None) if states_after is not None else self.in_groups(timestep, some)

    def prepare(self, cond: BlockCondition, timestep: Tensor, grid: TokenGrid) -> BlockCondition:
        """Add what blocks decide by."""
        return replace(cond, routing=self.routing(cond.time, timestep))


def to_dydit(
    network: nn.Module,
    *,
    tokens: bool = True,
    reorder: bool = True,
    starts: Sequence[float] = (WIDTH_BIAS, TOKEN_BIAS),
    td_lora: dict[str, Any] | None = None,
) -> DyLatte | DyHybrid:
    """Convert a trained network, which stays as it is; the new one gives the same until it is trained.

    Args:
        network: a Latte or a HybridStreamDiT.
        tokens: tokens are chosen too; False = width alone.
        reorder: heads and groups of the largest weights come first, because the first is always on; the same function.
        starts: logits at the start, near enough, of width and of tokens. The published ones are for long trainings; what is
            below 5 and 10 may leave something off at once.
        td_lora: rank, alpha and experts of `add_td_lora`: what is trained then are adapters and routers.

    Returns:
        The converted network in the same dtype, on the same device and in the same mode.

    Raises:
        BadInput: a network that has nothing to switch off. Unsupported: another network.
    """
    kinds = {Latte: (DyLatte, latte), HybridStreamDiT: (DyHybrid, hybrid)}
    if type(network) not in kinds:
        raise Unsupported(f"{type(network).__name__} cannot become a DyDiT; give a Latte or a HybridStreamDiT")
    kind, module = kinds[type(network)]  # type: ignore[index]
    theirs: Any = deepcopy(network)
    if reorder:
        largest_first(theirs)
    made = kind(base=base_config(network), tokens=tokens)
    theirs.blocks = module.convert_blocks(theirs.blocks, made.config.width, made.config.heads, tokens)
    missing, unexpected = made.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing and not unexpected
    set_starts(made, starts)
    made = made.to(next(network.parameters())).train(network.training)
    if td_lora is not None:
        made.keep({"base": base_config(network), "tokens": tokens, "td_lora": td_lora})
        made.begin(td_lora)
    return made


@torch.no_grad()
def set_starts(network: nn.Module, starts: Sequence[float]) -> None:
    """Set the biases of all routers, of width and of tokens.

    Raises:
        BadInput: other than two numbers above 0.
    """
    if len(starts) != 2 or min(starts) <= 0:
        raise BadInput(f"starts {list(starts)}; give two numbers above 0, of width and of tokens")
    for module in network.modules():
        if isinstance(module, WidthRouter):
            module.linear.bias.fill_(starts[0])
        elif isinstance(module, TokenRouter):
            module.leave.bias.fill_(starts[1])


def distinct(timestep: Tensor) -> list[float]:
    """The timesteps (B,) that there are, from low to high."""
    return timestep.detach().float().reshape(-1).unique().tolist()


def pick(rows: Tensor | None, *given: Tensor | None) -> list[Any]:
    """These rows of each, all when None; scalars and what is None stay."""
    return [one if rows is None or one is None or one.ndim == 0 else one[rows] for one in given]


def _latte_form(block: Any) -> BlockForm:
    """What methods must know of a dynamic block; what is added by its feed-forward network is dense again."""
    form = block_form(block.block)
    *attended, feed = form.parts
    return replace(
        form,
        parts=(*(replace(part, path=f"block.{part.path}") for part in attended), replace(feed, path="feed")),
        attentions=tuple(
            replace(part, path=f"block.{part.path.replace('.attend', '')}.attention.attend")
            if part.path.startswith("attentions")
            else replace(part, path=f"block.{part.path}")
            for part in form.attentions or ()
        ),
    )


def _hybrid_form(block: Any) -> BlockForm:
    dual = isinstance(block, hybrid.DynamicDual)
    feeds = (Part("feed", "ffn"), Part("text_feed", "ffn", "text")) if dual else (Part("feed", "ffn", "joint"),)
    attention = Part("attention", "attn.joint", "joint")
    return BlockForm(
        (attention, *feeds),
        (replace(attention, path="attention.attention.attend"),),
        hidden="h",
        text="text",
        stream="joint",
    )
