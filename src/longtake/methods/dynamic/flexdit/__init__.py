"""FlexDiT: a DiT whose token density changes along depth and along denoising time.

Paper: "FlexDiT: Dynamic Token Density Control for Diffusion Transformer", arXiv 2412.06028 (version 2: "SparseDiT"). A
trained network keeps its blocks, but they see different numbers of tokens. X are the dense tokens, S pooled ones,
m(z) = LN(z) (1 + scale) + shift of the block's own condition:

    bottom      a = V(mean m(X));  X += g1 proj(a);  X += g2 MLP(m(X))
    module      S = pool(X), Y = X
      generate  S += g1 Attn(q = Wq m(S), k,v = Wkv m(Y));  S += g2 MLP(m(S))
      sparse    ordinary blocks on S
      recover   Z = spread(S) W1 + Y W2;  Z += g1 Attn(q = Wq m(Z), k,v = Wkv m(S));  X = Z + g2 MLP(m(Z))
      dense     ordinary blocks on X
    top         ordinary blocks, and the head

The pooled grid is small where the sample is noise and grows as it becomes clean (`Density`). W1 = 0 and W2 = 1 at first, and
the rest are the trained weights, so the network is near the dense one but is not it: it needs fine-tuning, some per cent
of the first training. The published code is for images, without the part along time; what follows is ours:

- In factorised networks a block attends over space or over time and its mean and its two grids do so too; a sparse frame
  stands for a group of whole frames when time is pooled as well.
- Where text and video share attention, text is never pooled and the bottom stays as it is.
- Positions are not added again at the borders; rotary ones are the mean of a cell's.
- All samples of a batch must have one sparse grid: training draws a batch's noise levels from one stage, the stage by its
  share in the recipe's distribution, which leaves the loss unbiased.
"""

from longtake.methods.dynamic.flexdit.costs import dit_macs, mac_report
from longtake.methods.dynamic.flexdit.density import Density, Layout
from longtake.methods.dynamic.flexdit.network import FlexHybrid, FlexLatte, to_flexdit

__all__ = ["Density", "FlexHybrid", "FlexLatte", "Layout", "dit_macs", "mac_report", "to_flexdit"]
