"""The networks with routed blocks, and the conversion."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from longtake.backbones.converted import Converted, base_config
from longtake.backbones.latte import FAMILY as LATTE
from longtake.backbones.latte import Latte, block_form
from longtake.backbones.latte_blocks import LatteBlock, LatteCondition
from longtake.backbones.waver import FAMILY as WAVER
from longtake.backbones.waver import HybridStreamDiT
from longtake.backbones.waver_blocks import BlockCondition
from longtake.errors import BadInput, Unsupported
from longtake.methods.dynamic.token_routed.block import TokenRoutedBlock, TokenRoutedStreamBlock
from longtake.runtime import BlockForm, Blocks, TokenGrid
from longtake.runtime.receipts import Counts, Receipt

STEPS = 1000
"""A network is given 1000 t."""
MOST = 100_000
"""Calls remembered until somebody asks."""
WHOLE_LATTE = BlockForm((), (), hidden="h", layout="frames")
WHOLE_HYBRID = BlockForm((), (), hidden="h", text="text", stream="joint")


class _Routed(Converted):
    """What both kinds have in common."""

    blocks: nn.ModuleList

    def wrap(self, kind: type[TokenRoutedBlock], routed: Sequence[int]) -> None:
        """Wrap the blocks of these numbers. Raises BadInput for a number that no block has."""
        wrong = sorted(set(routed) - set(range(len(self.blocks))))
        if wrong or not routed:
            raise BadInput(
                f"routed blocks {list(routed)}; give some numbers of the network's, 0 to {len(self.blocks) - 1}"
            )
        for number in routed:
            self.blocks[number] = kind(self.blocks[number], self.config.width)
        self.routed, self.seen = sorted(routed), list[tuple[float, list[Tensor]]]()

    def noting(self, timestep: Tensor) -> list[Tensor] | None:
        """A list for the shares of tokens that take the blocks of a call; None where gradients are wanted."""
        if torch.is_grad_enabled() or len(self.seen) >= MOST:
            return None
        self.seen.append((float(timestep.reshape(-1)[0]) / STEPS, []))
        return self.seen[-1][1]

    def receipt(self) -> Receipt | None:
        """Of the calls until now, which are forgotten; None when there were none.

        Its notes have a row for each noise level: how many calls, and the share of tokens that took each routed block.
        """
        seen, self.seen = self.seen, []
        if not seen:
            return None
        steps = []
        for noise in dict.fromkeys(noise for noise, _ in seen):
            shares = torch.stack([torch.stack(own) for level, own in seen if level == noise])
            means = [round(share, 4) for share in shares.double().mean(0).tolist()]
            steps.append({"noise": round(noise, 4), "calls": len(shares), "tokens": means})
        counts = Counts()
        for _, own in seen:
            for share in torch.stack(own).tolist():
                counts.computed += share == 1
                counts.skipped += share == 0
                counts.changed += 0 < share < 1
        return Receipt(
            "token-routed", {"routed": self.routed}, len(self.routed), branches={"all": counts}, notes={"steps": steps}
        )


class RoutedLatte(_Routed, Latte):
    """A Latte some of whose blocks are routed. Methods see a routed block as one.

    Args:
        base: configuration of the Latte. routed: numbers of the blocks, in the order of execution.

    Raises:
        BadInput: a number that no block has. Unsupported: blocks of kind serial.
    """

    family = replace(
        LATTE,
        name="Latte with routed blocks",
        stacks=(Blocks("blocks", lambda block: block_form(block) if isinstance(block, LatteBlock) else WHOLE_LATTE),),
        stage=lambda *call: None,
    )
    _no_split_modules = ["LatteBlock", "TokenRoutedBlock"]

    @register_to_config
    def __init__(self, base: dict[str, Any], routed: Sequence[int]) -> None:
        Latte.__init__(self, **base)
        self.keep({"base": base, "routed": list(routed)})
        self.wrap(TokenRoutedBlock, routed)

    def prepare(self, cond: LatteCondition, timestep: Tensor) -> LatteCondition:
        """Add where routed blocks note what they did."""
        return replace(cond, routing=self.noting(timestep))


class RoutedHybrid(_Routed, HybridStreamDiT):
    """A HybridStreamDiT some of whose blocks are routed. Arguments as `RoutedLatte`."""

    family = replace(
        WAVER,
        name="Waver with routed blocks",
        stacks=(Blocks("blocks", lambda block: _hybrid_form(block)),),
        stage=lambda *call: None,
    )
    _no_split_modules = ["DualStreamBlock", "SingleStreamBlock", "TokenRoutedStreamBlock"]

    @register_to_config
    def __init__(self, base: dict[str, Any], routed: Sequence[int]) -> None:
        HybridStreamDiT.__init__(self, **base)
        self.keep({"base": base, "routed": list(routed)})
        self.wrap(TokenRoutedStreamBlock, routed)

    def prepare(self, cond: BlockCondition, timestep: Tensor, grid: TokenGrid) -> BlockCondition:
        """Add where routed blocks note what they did."""
        return replace(cond, routing=self.noting(timestep))


def to_token_routed(network: nn.Module, routed: Sequence[int] | None = None) -> RoutedLatte | RoutedHybrid:
    """Wrap blocks of a trained network, which stays as it is; the new one gives the same until its gates are trained.

    Args:
        network: a Latte or a HybridStreamDiT.
        routed: numbers of the blocks, in the order of execution; None = all but the first and the last.

    Returns:
        The new network with the trained weights, in the same dtype, on the same device and in the same mode.

    Raises:
        BadInput: a number that no block has. Unsupported: another network, or blocks of kind serial.
    """
    kinds = {Latte: RoutedLatte, HybridStreamDiT: RoutedHybrid}
    if type(network) not in kinds:
        raise Unsupported(f"{type(network).__name__} cannot have routed blocks; give a Latte or a HybridStreamDiT")
    blocks: nn.ModuleList = network.blocks  # type: ignore[assignment]
    numbers = list(range(1, len(blocks) - 1) if routed is None else routed)
    made = kinds[type(network)](base=base_config(network), routed=numbers)  # type: ignore[index]
    theirs = dict(network.state_dict())  # copied when they are loaded
    for number in numbers:
        start = f"blocks.{number}."
        own = [name for name in theirs if name.startswith(start)]
        theirs |= {f"{start}block.{name.removeprefix(start)}": theirs.pop(name) for name in own}
    missing, unexpected = made.load_state_dict(theirs, strict=False)
    assert not unexpected and all(".gate." in name for name in missing)
    return made.to(next(network.parameters())).train(network.training)


def _hybrid_form(block: nn.Module) -> BlockForm:
    if isinstance(block, TokenRoutedStreamBlock):
        return WHOLE_HYBRID
    form = WAVER.stacks[0].form
    return form if isinstance(form, BlockForm) else form(block)
