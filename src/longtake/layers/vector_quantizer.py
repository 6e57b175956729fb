"""Vector quantisation: the nearest code for each vector, and codes that follow the vectors by moving averages.

    id = argmin_k |z - e_k|^2           z_q = z + sg(e_id - z)           commitment = mean (z - sg(e_id))^2
    N <- d N + (1 - d) n,   S <- d S + (1 - d) s,   w = (N + eps) / (sum N + K eps) * sum N,   e = S / w

n counts the vectors of each code and s is their sum (VQ-VAE, arXiv 1711.00937, appendix A.1; the settings are those of
TATS, arXiv 2204.03638). Looking up never changes a code: `learn` is called, once for each training step, by whoever
trains, so that a discriminator's step, or a validation, leaves the codebook alone.

Where the paper is silent: a code that is restarted gets a count and a sum of its own. The published code overwrites the
code alone, and its old sum brings the dead code back with the next update.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from longtake.errors import BadInput

SCORES = 2**24  # distances held at a time: 64 MiB
EPS = 1e-7


class Quantized(NamedTuple):
    """What a lookup gives.

    Attributes:
        vectors: (B, D, *grid), the codes, with the gradient passed through to the input.
        ids: int64 (B, *grid), numbers of the codes.
        commitment: scalar, mean squared distance of the input to its codes, with the gradient to the input.
        perplexity: scalar, exp of the entropy of the ids: how many codes are in use, as if equally.
    """

    vectors: Tensor
    ids: Tensor
    commitment: Tensor
    perplexity: Tensor


class VectorQuantizer(nn.Module):
    """A codebook. Its codes, counts and sums are buffers, so checkpoints hold them and optimisers do not.

    Args:
        codes: K, how many.
        width: D, features of a code.
        decay: d of the moving averages.
        restart_below: codes whose count falls below are put on random vectors of the batch; 0 never. In vectors per
            call of `learn`, over all processes.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    begun: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.99, restart_below: float = 0.0) -> None:
        super().__init__()
        if codes < 1 or width < 1 or not 0 <= decay < 1 or restart_below < 0:
            raise BadInput(
                f"a codebook of {codes} codes of width {width}, decay {decay}, restart_below {restart_below}; expected at "
                "least 1 code and feature, a decay in [0, 1) and a count of at least 0"
            )
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("codes", torch.randn(codes, width))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", self.codes.clone())
        self.register_buffer(
            "begun", torch.zeros((), dtype=torch.bool)
        )  # stored: a resumed training does not begin anew

    def forward(self, z: Tensor) -> Quantized:
        """Vectors (B, D, *grid) -> their codes; see `Quantized`. Distances are computed in float32."""
        ids = self.nearest(z)
        near = self._codes_of(ids).to(z.dtype)
        commitment = (z.float() - near.float()).square().mean()
        shares = torch.bincount(ids.flatten(), minlength=len(self.codes)) / ids.numel()
        perplexity = (-torch.xlogy(shares, shares).sum()).exp()
        return Quantized(z + (near - z).detach(), ids, commitment, perplexity)

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Vectors (B, D, *grid) -> int64 (B, *grid), the number of the nearest code; the lowest of equals."""
        rows = _rows(z)
        with torch.autocast(z.device.type, enabled=False):
            half_square = self.codes.float().square().sum(1) / 2  # |z - e|^2 / 2 = |z|^2 / 2 + |e|^2 / 2 - z e
            parts = rows.split(max(1, SCORES // len(self.codes)))
            ids = [torch.addmm(half_square, part, self.codes.float().T, alpha=-1).argmin(1) for part in parts]
        return torch.cat(ids).unflatten(0, (z.shape[0], *z.shape[2:]))

    def lookup(self, ids: Tensor) -> Tensor:
        """Numbers of codes (B, *grid) -> the codes (B, D, *grid).

        Raises:
            BadInput: a number that no code has.
        """
        if ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < len(self.codes)):
            raise BadInput(
                f"ids from {int(ids.min())} to {int(ids.max())}; this codebook has 0 to {len(self.codes) - 1}"
            )
        return self._codes_of(ids)

    def _codes_of(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.codes).movedim(-1, 1)

    @torch.no_grad()
    def begin(self, z: Tensor, generator: torch.Generator) -> None:
        """Put the codes on vectors of a batch (B, D, *grid), drawn by `generator`; only the first call does anything.

        Fewer vectors than codes are repeated with a little noise, deviation 0.01 / sqrt(D).
        """
        if self.begun:
            return
        rows, count = _rows(z), len(self.codes)
        if len(rows) < count:
            rows = rows.repeat(-(-count // len(rows)), 1)
            noise = torch.randn(rows.shape, generator=generator)
            rows = rows + noise.to(rows.device) * 0.01 * rows.shape[1] ** -0.5
        chosen = torch.randperm(len(rows), generator=generator)[:count].to(rows.device)
        self.codes.copy_(_of_first_process(rows[chosen]))
        self.sums.copy_(self.codes)
        self.counts.fill_(1.0)
        self.begun.fill_(True)

    @torch.no_grad()
    def learn(self, z: Tensor, ids: Tensor, generator: torch.Generator) -> None:
        """Move the codes towards the vectors (B, D, *grid) that chose them; `ids` (B, *grid) as `forward` gave them.

        Processes of one training add up their counts and sums. `generator` draws the vectors of restarted codes.
        """
        rows, ids = _rows(z), ids.flatten()
        sums = torch.zeros_like(self.sums).index_add_(0, ids, rows.to(self.sums.dtype))
        counts = torch.bincount(ids, minlength=len(self.codes)).to(sums.dtype)
        if dist.is_initialized():
            dist.all_reduce(sums)
            dist.all_reduce(counts)
        self.sums.lerp_(sums, 1 - self.decay)
        self.counts.lerp_(counts, 1 - self.decay)
        if self.restart_below:
            drawn = torch.randint(len(rows), (len(self.codes),), generator=generator).to(rows.device)
            fresh = _of_first_process(rows[drawn].to(sums.dtype))
            dead = self.counts < self.restart_below
            grace = (
                2 * self.restart_below
            )  # a new code has some 70 updates to be chosen (decay 0.99) before it falls again
            self.counts.masked_fill_(dead, grace)
            self.sums.copy_(torch.where(dead[:, None], fresh * grace, self.sums))
        total = self.counts.sum()
        weights = (self.counts + EPS) / (total + len(self.codes) * EPS) * total
        self.codes.copy_(self.sums / weights[:, None])

    def extra_repr(self) -> str:
        codes, width = self.codes.shape
        return f"{codes} codes of width {width}, decay={self.decay}, restart_below={self.restart_below}"


def _rows(z: Tensor) -> Tensor:
    """(B, D, *grid) -> float32 (N, D), one row for each vector."""
    return z.detach().movedim(1, -1).flatten(0, -2).float()


def _of_first_process(values: Tensor) -> Tensor:
    """The first process's values, in all processes of a training."""
    if dist.is_initialized():
        values = values.contiguous()
        dist.broadcast(values, 0)
    return values
