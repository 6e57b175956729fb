"""The backbone: a grid of nodes, four scales by L + 1 columns, through which every token picks its way.

    F[0, 0]    the image's patches of stride 4
    F[i, j+1]  g_row B[i, j](F[i, j]) + (1 - g_row) F[i, j]                      to the next column: a block, or the identity
    F[i+1, j]  LN(F[i+1, j] + P[i, j](F[i, j], g_down)) where anything arrives   to the next coarser scale

Nodes of a column are computed from fine to coarse, those of the first column begin at zero. A token may take both edges.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.layers.gates import decided_gates, drawn_gates
from longtake.recognition.token_routing.block import RoutedTransformer, Size
from longtake.recognition.token_routing.embedding import ImageEmbedding, VerticalEdge, below
from longtake.recognition.token_routing.node import Node
from longtake.recognition.token_routing.routes import NodeRoutes, RoutedFeatures

Noise = torch.Generator | Sequence[torch.Generator] | None

SCALES = 4
SMALLEST = 32
"""Pixels that an image has at least on each side: one token at the coarsest scale."""
GATES = ("hard", "soft", "none")
EXECUTIONS = ("masked", "gathered")


class TokenRoutingBackbone(ModelMixin, ConfigMixin):
    """Images to a pyramid of features, and to classes.

    Args:
        widths: features of a token at each scale. heads: of attention there. ratios: inner features of the MLP per width.
        reductions: rows and columns of a map that attention sees as one, at each scale.
        columns: L, blocks of each scale.
        classes: their names; none = no head.
        gate: "hard", binary: drawn with the odds sigmoid(z) in training (straight-through), z > 0 in evaluation.
            "soft": max(0, tanh(z)) in both, tokens at 0 are skipped. "none": the same grid without gates, all edges taken.
        temperature: tau of the drawn gates.
        early_stop: a scale of which less than this share of a sample's tokens takes the block is left alone from that
            column on, in evaluation; 0 = never.
        channels: of an image.

    Raises:
        BadInput: sizes that do not go together, or a setting out of its range.
    """

    @register_to_config
    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        heads: Sequence[int] = (1, 2, 4, 8),
        ratios: Sequence[int] = (4, 4, 4, 4),
        reductions: Sequence[int] = (8, 4, 2, 1),
        columns: int = 6,
        classes: Sequence[str] = (),
        gate: str = "hard",
        temperature: float = 1.0,
        early_stop: float = 0.02,
        channels: int = 3,
    ) -> None:
        super().__init__()
        _check(self.config)

        def node(column: int, scale: int) -> Node:
            width, last = widths[scale], scale + 1 == SCALES
            return Node(
                nn.LayerNorm(width, eps=1e-6) if scale else None,
                RoutedTransformer(width, heads[scale], reductions[scale], ratios[scale]) if column < columns else None,
                None if last else VerticalEdge(width, widths[scale + 1]),
                width,
                gate != "none",
            )

        self.embed = ImageEmbedding(channels, widths[0])
        self.nodes = nn.ModuleList(node(column, scale) for column in range(columns + 1) for scale in range(SCALES))
        self.head = nn.Linear(widths[-1], len(classes)) if classes else None
        self.apply(_initialise)
        for each in self.nodes:
            if isinstance(each, Node) and each.gate is not None:
                each.gate.open()

    def node(self, column: int, scale: int) -> Node:
        """The node at a column, 0 to L, and a scale, 0 to 3."""
        found = self.nodes[column * SCALES + scale]
        assert isinstance(found, Node)
        return found

    def forward(self, images: Tensor, *, execution: str | None = None, generator: Noise = None) -> RoutedFeatures:
        """Route the tokens of images.

        Args:
            images: (B, channels, H, W) in [-1, 1], at least 32x32; any size.
            execution: "masked" computes every edge for all tokens, "gathered" for those that take it; the same function.
                None: masked in training, gathered in evaluation.
            generator: of the drawn gates, one or one for each image; None = torch's own.

        Raises:
            BadInput: another shape, an unknown execution.
        """
        _check_call(images, self.config.channels, execution)
        gathered = self.config.gate != "none" and (execution or EXECUTIONS[not self.training]) == "gathered"
        tokens, finest = self.embed(images)
        sizes = _sizes(finest)
        level = [tokens, *(tokens.new_zeros(len(tokens), h * w, c) for (h, w), c in self._coarse(sizes))]
        stopped = torch.zeros(SCALES, len(tokens), dtype=torch.bool, device=tokens.device)
        routes = []
        for column in range(self.config.columns + 1):
            for scale, size in enumerate(sizes):
                node, x = self.node(column, scale), level[scale]
                row, down = (self._gates(z, generator) for z in node.logits(x))
                if row is not None and not self.training:
                    stopped[scale] |= (row > 0).float().mean(1) < self.config.early_stop
                    row = row * ~stopped[scale][:, None]
                if node.down is not None:
                    sent, arrived = node.downwards(x, size, down, gathered)
                    level[scale + 1] = self.node(column, scale + 1).arrive(level[scale + 1], sent, arrived)
                level[scale] = node.onwards(x, size, row, gathered)
                routes.append(NodeRoutes(scale, column, size, row, down))
        pyramid = tuple(x.transpose(1, 2).unflatten(2, size) for x, size in zip(level, sizes, strict=True))
        logits = None if self.head is None else self.head(pyramid[-1].mean((2, 3)))
        full = self.full_macs(finest)
        return RoutedFeatures(pyramid, logits, tuple(routes), self._macs(routes, len(images), full), full, gathered)

    def full_macs(self, finest: Size) -> int:
        """Multiply-accumulates of an image whose finest map has this size, all gates open and the gates themselves counted.

        What a convolution multiplies outside of a map is not counted in the vertical edges.
        """
        places = [(column, scale) for column in range(self.config.columns + 1) for scale in range(SCALES)]
        sizes = _sizes(finest)
        return self._ends(finest) + sum(self.node(column, scale).full_macs(sizes[scale]) for column, scale in places)

    def _gates(self, logits: Tensor | None, generator: Noise) -> Tensor | None:
        """Logits (B, N) to gates in [0, 1]."""
        if logits is None:
            return None
        if self.config.gate == "soft":
            return torch.tanh(logits).clamp_min(0)
        return drawn_gates(logits, self.config.temperature, generator) if self.training else decided_gates(logits)

    def _coarse(self, sizes: Sequence[Size]) -> list[tuple[Size, int]]:
        """Size and width of all maps but the finest."""
        return list(zip(sizes[1:], self.config.widths[1:], strict=True))

    def _macs(self, routes: Sequence[NodeRoutes], batch: int, full: int) -> Tensor:
        """Multiply-accumulates (B,) of gathered execution, or of all where there are no gates."""
        total = torch.zeros(batch, device=self.device)
        if self.config.gate == "none":
            return total + full
        for one in routes:
            total = total + self.node(one.column, one.scale).macs(one.size, one.row, one.down)
        return total + self._ends(routes[0].size)

    def _ends(self, finest: Size) -> int:
        """Multiply-accumulates of the first layer and the last."""
        return self.embed.macs(finest) + (0 if self.head is None else self.head.weight.numel())


def _sizes(finest: Size) -> list[Size]:
    """Sizes of the four maps."""
    sizes = [finest]
    while len(sizes) < SCALES:
        sizes.append(below(sizes[-1]))
    return sizes


def _check(config: Any) -> None:
    """Raise BadInput for settings that do not go together."""
    for name in ("widths", "heads", "ratios", "reductions"):
        values = config[name]
        if len(values) != SCALES or min(values) < 1:
            raise BadInput(f"{name} {tuple(values)}: give {SCALES} numbers above zero, one for each scale")
    for width, heads in zip(config.widths, config.heads, strict=True):
        if width % heads:
            raise BadInput(f"{heads} heads do not divide a width of {width}; choose widths that are multiples")
    if config.columns < 1:
        raise BadInput(f"{config.columns} columns; give at least 1")
    if config.gate not in GATES:
        raise BadInput(f"gate '{config.gate}' is none of {', '.join(GATES)}")
    if config.temperature <= 0:
        raise BadInput(f"temperature {config.temperature}; give a number above 0")
    if not 0 <= config.early_stop < 1:
        raise BadInput(f"early_stop {config.early_stop}; give a share of a map's tokens, 0 to below 1")


def _check_call(images: Tensor, channels: int, execution: str | None) -> None:
    if images.ndim != 4 or images.shape[1] != channels or min(images.shape[2:]) < SMALLEST:
        raise BadInput(
            f"images of shape {tuple(images.shape)}; give (batch, {channels}, height, width) of at least "
            f"{SMALLEST}x{SMALLEST}: smaller ones have no token at the coarsest scale"
        )
    if execution not in (None, *EXECUTIONS):
        raise BadInput(f"execution '{execution}' is none of {', '.join(EXECUTIONS)}")


def _initialise(module: nn.Module) -> None:
    """Normal weights, in linear layers of deviation in^-1/2 (0.02, which is usual, leaves widths of 16 to 64 without a
    signal), in convolutions He's by outputs; biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
