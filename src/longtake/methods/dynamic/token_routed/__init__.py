"""The routing unit of dynamic token routing in a video diffusion transformer: each token takes a block or passes it by.

Paper: "DiT: Efficient Vision Transformers with Dynamic Token Routing", arXiv 2308.03409. Its "DiT" is no diffusion
transformer but a dynamic vision transformer, whose backbone is `longtake.recognition.token_routing`.

    z = W2 GELU(W1 (LN(h) (1 + scale(t)) + shift(t))),  g = binary: drawn in training, z > 0 afterwards
    h' = g B(h) + (1 - g) h

B is a whole block; skipped tokens stay keys and values for the others, and text is never skipped. That the gate also sees
the embedded timestep t is ours, as is all of its form. A block may hold one round of attention, or several in parallel:

    LatteBlock of kind space, time, joint or parallel (`TokenRoutedBlock`)
    DualStreamBlock, SingleStreamBlock (`TokenRoutedStreamBlock`)

`to_token_routed` wraps blocks of a trained network, which then needs training again: gates start open, and close only
under a loss that asks for it (`routing` hands out their draws). What a block gives is dense, so caches go around it;
methods on attention leave it alone. FlexDiT and DyDiT choose tokens themselves and exclude it.
"""

from longtake.methods.dynamic.token_routed.block import TokenRoutedBlock, TokenRoutedStreamBlock, routing
from longtake.methods.dynamic.token_routed.network import RoutedHybrid, RoutedLatte, to_token_routed

__all__ = ["RoutedHybrid", "RoutedLatte", "TokenRoutedBlock", "TokenRoutedStreamBlock", "routing", "to_token_routed"]
