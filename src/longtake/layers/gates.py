"""Binary gates that a network learns: straight-through Gumbel-sigmoid in training, a threshold afterwards.

A gate of logit z is drawn as 1 with the probability sigmoid(z), whatever the temperature; its gradient is that of
sigmoid((z + noise) / temperature) (Jang et al., arXiv 1611.01144, for two classes; as in DyDiT, arXiv 2410.03456).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def drawn_gates(
    logits: Tensor, temperature: float, generator: torch.Generator | Sequence[torch.Generator] | None = None
) -> Tensor:
    """Draw gates and pass gradients through them.

    Args:
        logits: any shape, z.
        temperature: tau, above 0; flat gradients when large.
        generator: of the noise, on the logits' device; one for each row of the first dimension, on any device; or None =
            torch's own.

    Returns:
        Exactly 0 or 1, float32, of the same shape; its gradient is the soft gate's.
    """
    z = logits.float()
    # The difference of two Gumbel draws is one logistic draw.
    u = _uniform(z, generator).clamp(1e-7, 1 - 1e-7)
    return settled_gates(z + u.log() - (-u).log1p(), temperature)


def settled_gates(logits: Tensor, temperature: float) -> Tensor:
    """As `decided_gates`, with the gradient of sigmoid(logits / temperature); float32."""
    z = logits.float()
    soft = torch.sigmoid(z / temperature)
    return decided_gates(z) + (soft - soft.detach())  # in this order: the bracket is exactly 0


def decided_gates(logits: Tensor) -> Tensor:
    """Gates without noise: 1 where the logit is above 0, else 0; float32, without a gradient."""
    return (logits > 0).float()


def budget_at(at: float, target: float, hold: float, fall: float) -> float:
    """The share of all work that a network of gates is held to: 1 until `hold`, then falling in a line over `fall`.

    Args:
        at, hold, fall: steps, or shares of a training; all in the same unit. target: the share at the end.
    """
    if at < hold:
        return 1.0
    fallen = min((at - hold) / fall, 1.0) if fall > 0 else 1.0
    return 1.0 + (target - 1.0) * fallen


def _uniform(z: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Numbers in [0, 1) of z's shape."""
    if generator is None or isinstance(generator, torch.Generator):
        return torch.rand(z.shape, generator=generator, device=z.device)
    rows = [torch.rand(z.shape[1:], generator=one, device=one.device) for one in generator]
    return torch.stack(rows).to(z.device)
