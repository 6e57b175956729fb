"""DiT of dynamic token routing: a vision backbone in which every token picks its own path through scales and depth.

Paper: "DiT: Efficient Vision Transformers with Dynamic Token Routing", arXiv 2308.03409. Its "DiT" is a dynamic vision
transformer for recognition and has nothing to do with diffusion. No code was released. Known from the abstract and the
published figures: a grid of scales (rows, 1/4 to 1/32 of the image) and stages (columns); learned gates that decide for
each token whether it is transformed or kept as it is, and whether it goes to the coarser scale; a budget; early stop; blocks
in the manner of PVTv2. All numbers and formulas are ours:

- gates: z = Linear, GELU, Linear of LN(token), open at first (bias 3), binary by straight-through Gumbel draws in
  training and by z > 0 afterwards; or max(0, tanh z);
- how a node is merged (`network`), the renormalised vertical edge (`embedding`), the block and what gathered execution
  means in its depth-wise convolution (`block`);
- loss = task + weight * max(0, E[MACs] / all MACs - budget)^2 (`costs`), the gates' own cost included;
- a scale of which less than 2 % of a sample's tokens is transformed is left alone from that column on, in evaluation;
- classes from the mean of the last column's coarsest map; dense tasks take the last column as a pyramid;
- sizes (`sizes`). No batch norm, no position tables, no weights shared between columns.
"""

from longtake.recognition.token_routing.costs import budget_loss
from longtake.recognition.token_routing.drawing import draw_depth, draw_grid
from longtake.recognition.token_routing.network import TokenRoutingBackbone
from longtake.recognition.token_routing.routes import NodeRoutes, RoutedFeatures
from longtake.recognition.token_routing.sizes import routing_config

__all__ = [
    "NodeRoutes",
    "RoutedFeatures",
    "TokenRoutingBackbone",
    "budget_loss",
    "draw_depth",
    "draw_grid",
    "routing_config",
]
