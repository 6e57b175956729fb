"""The converted networks, and the conversion."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

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
from longtake.methods.dynamic.flexdit import hybrid, latte
from longtake.methods.dynamic.flexdit.costs import Calls
from longtake.methods.dynamic.flexdit.density import STEPS, Density, Layout
from longtake.runtime import BlockForm, Blocks, TokenGrid
from longtake.runtime.receipts import Receipt


class _Flexible(Converted):
    """What both kinds have in common."""

    layout: Layout
    density: Density
    calls: Calls

    def take(self, layout: str, density: dict[str, Any], depth: int) -> None:
        """Read layout and density; raises BadInput for a layout of another depth."""
        self.layout, self.density, self.calls = Layout.read(layout), Density(**density), Calls()
        if self.layout.depth != depth:
            raise BadInput(
                f"layout {layout} is of {self.layout.depth} blocks and the network has {depth}; the two must agree"
            )

    def sparse_grid(self, timestep: Tensor, grid: TokenGrid) -> TokenGrid:
        """Grid of sparse tokens at a timestep."""
        return self.calls.see(timestep, grid, self.density.of_batch(timestep, grid))

    def receipt(self) -> Receipt | None:
        """Tokens of every block at every noise level."""
        return self.calls.receipt(self.layout, self.density)

    def stage_of(self, timestep: Tensor) -> int:
        """The stage that a timestep (1,), 0 to 1000, is in; a batch must be of one."""
        return self.density.stage(float(timestep) / STEPS)


class FlexLatte(_Flexible, Latte):
    """A Latte of changing token density.

    Methods see each sparse-dense module as one block from dense tokens to dense tokens; what is inside has no fixed shape
    and is none of theirs, but for linear layers.

    Args:
        base: configuration of the Latte.
        layout: what its blocks become, as `Layout.read` takes it.
        density: arguments of `Density`.

    Raises:
        BadInput: a layout of another depth, or a Latte whose positions in time enter above its bottom.
        Unsupported: inject="all_tokens", whose condition is among the tokens.
    """

    family = replace(
        LATTE,
        name="FlexDiT of Latte",
        stacks=(Blocks("blocks", lambda block: block_form(block) if isinstance(block, LatteBlock) else WHOLE_LATTE),),
        stage=lambda network, given, grid: network.density.of_batch(given["timestep"], grid),
    )
    _no_split_modules = ["LatteBlock", "SparseDenseModule"]

    @register_to_config
    def __init__(self, base: dict[str, Any], layout: str, density: dict[str, Any]) -> None:
        Latte.__init__(self, **base)
        self.keep({"base": base, "layout": layout, "density": density})
        self.take(layout, density, self.config.depth)
        if self.config.inject == "all_tokens":
            raise Unsupported(
                "a Latte with inject='all_tokens' has its condition among the tokens, which FlexDiT would pool"
            )
        if self.config.temporal_pos == "sincos" and self.temporal_at > self.layout.bottom:
            raise BadInput(
                f"layout {layout} has {self.layout.bottom} blocks at the bottom, and this Latte's positions in time enter "
                f"before block {self.temporal_at}; use at least as many"
            )
        self.blocks = latte.convert_blocks(self.blocks, self.layout, self.config.width)

    def prepare(self, cond: LatteCondition, timestep: Tensor) -> LatteCondition:
        """Add the grid of sparse tokens."""
        return replace(cond, sparse=self.sparse_grid(timestep, cond.grid))

    def token_grid(self, latents: Tensor, images: int) -> TokenGrid:
        """As a Latte's; single images beside the clip are refused."""
        if images:
            raise BadInput(f"{images} single images beside a clip; FlexDiT takes clips alone: use images=0")
        return super().token_grid(latents, images)


class FlexHybrid(_Flexible, HybridStreamDiT):
    """A HybridStreamDiT of changing token density; see `FlexLatte`.

    Args:
        base: configuration of the HybridStreamDiT.
        layout: what its blocks become, as `Layout.read` takes it; the bottom stays as it is.
        density: arguments of `Density`.

    Raises:
        BadInput: a layout of another depth.
    """

    family = replace(
        WAVER,
        name="FlexDiT of Waver",
        stacks=(Blocks("blocks", lambda block: _hybrid_form(block)),),
        stage=lambda network, given, grid: network.density.of_batch(given["timestep"], grid),
    )
    _no_split_modules = ["DualStreamBlock", "SingleStreamBlock", "SparseDenseModule"]

    @register_to_config
    def __init__(self, base: dict[str, Any], layout: str, density: dict[str, Any]) -> None:
        HybridStreamDiT.__init__(self, **base)
        self.keep({"base": base, "layout": layout, "density": density})
        self.take(layout, density, len(self.blocks))
        self.blocks = hybrid.convert_blocks(self.blocks, self.layout, self.config.width, self.config.theta)

    def prepare(self, cond: BlockCondition, timestep: Tensor, grid: TokenGrid) -> BlockCondition:
        """Add the grid of sparse tokens."""
        return replace(cond, sparse=self.sparse_grid(timestep, grid))


WHOLE_LATTE = BlockForm((), (), hidden="h", layout="frames")
WHOLE_HYBRID = BlockForm((), (), hidden="h", text="text", stream="joint")


def to_flexdit(network: nn.Module, layout: Layout | str, density: Density) -> FlexLatte | FlexHybrid:
    """Convert a trained network; it stays as it is.

    Args:
        network: a Latte or a HybridStreamDiT.
        layout: what its blocks become.
        density: the grids of sparse tokens.

    Returns:
        The converted network with the trained weights, in the same dtype, on the same device and in the same mode.

    Raises:
        BadInput: a layout that does not fit. Unsupported: another network.
    """
    kinds = {Latte: FlexLatte, HybridStreamDiT: FlexHybrid}
    if type(network) not in kinds:
        raise Unsupported(f"{type(network).__name__} cannot become a FlexDiT; give a Latte or a HybridStreamDiT")
    made = kinds[type(network)](base=base_config(network), layout=str(layout), density=density.to_json())  # type: ignore[index]
    theirs = deepcopy(network)
    if isinstance(made, FlexLatte):
        theirs.blocks = latte.convert_blocks(theirs.blocks, made.layout, made.config.width)  # type: ignore[arg-type]
    else:
        theirs.blocks = hybrid.convert_blocks(theirs.blocks, made.layout, made.config.width, made.config.theta)  # type: ignore[arg-type]
    weight = next(network.parameters())
    made.to(weight).load_state_dict(theirs.state_dict())
    return made.train(network.training)


def _hybrid_form(block: nn.Module) -> BlockForm:
    if isinstance(block, hybrid.SparseDenseModule):
        return WHOLE_HYBRID
    form = WAVER.stacks[0].form
    return form if isinstance(form, BlockForm) else form(block)
