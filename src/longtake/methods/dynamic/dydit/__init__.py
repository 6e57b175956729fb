"""DyDiT and DyDiT++: a DiT that chooses its width at every noise level and spares easy tokens the feed-forward network.

Papers: "Dynamic Diffusion Transformer", arXiv 2410.03456, and "DyDiT++", arXiv 2504.06803. Routers are added to every
block of a trained network, which is then fine-tuned with one more term. e_t is the embedded time alone, H the number of
heads, m masks of 0 and 1:

    heads    m_h = [1, G(R_h(e_t))]      attention's heads times m_h, before the output projection
    groups   m_c = [1, G(R_c(e_t))]      H equal groups of the hidden features times m_c
    tokens   m_t = G(R_t(x))             x += m_t gate MLP(LN(x) (1 + scale) + shift)
    loss     L(masked) + L(everything on) + 2 (F_masked / F_whole - target)^2

G is a straight-through Gumbel-sigmoid in training (tau = 5) and z > 0 afterwards, F the multiply-accumulates. Since
width is known from the noise level, layers are cut to it before they are used, and only the tokens that are kept are
computed. TD-LoRA (`td_lora`) trains low-rank adapters in place of the weights. The published code is for images; ours:

- In factorised networks every attention, over space or time, has a router of its own, and tokens are chosen in each block.
- Where text and video share attention, heads are switched off for both; text always goes through.
- The largest heads and groups come first (`reorder`), because the first of them is always on.
- The published training steps the optimiser once before it looks at the gradient's norm and once behind it; ours clips.
"""

from longtake.methods.dynamic.dydit.costs import budget_term, dit_macs, share_of
from longtake.methods.dynamic.dydit.network import DyHybrid, DyLatte, to_dydit
from longtake.methods.dynamic.dydit.td_lora import add_td_lora

__all__ = ["DyHybrid", "DyLatte", "add_td_lora", "budget_term", "dit_macs", "share_of", "to_dydit"]
