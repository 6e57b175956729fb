"""Fréchet distance between two sets of features: FVD, FID and their relatives, whichever network made the features.

    FD = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))                                        (arXiv 1706.08500, eq. 6)

With roots S = R R^T from one symmetric eigendecomposition each, tr (S1 S2)^(1/2) is the sum of the singular values of
R1^T R2. No square root of a non-symmetric matrix is taken, singular covariances (N <= D) are no special case, and all
digits survive: eigenvalues of S1^(1/2) S2 S1^(1/2) would have to be rooted afterwards, which halves their digits.

The distance of two finite samples of one distribution is not 0 but falls as 1/N. `expected_floor` gives that bias for
Gaussian features, `frechet_distance_infinity` extrapolates it away, `rank_note` speaks up where N <= D.

Covariance: StyleGAN-V and Latte divide by N (ddof=0), TATS, torchmetrics and NumPy by N - 1 (ddof=1, default).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.evaluation.metrics.features import check_features, check_pair


@dataclass
class Moments:
    """Streaming mean and covariance in float64; batches and their order change the last digits only.

    Attributes:
        count: N, features seen. mean: (D,). scatter: (D, D), the sum over features of (x - mean)(x - mean)^T.

    The three fields are the whole state: build `Moments(count, mean, scatter)` to go on from a stored one.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def empty(width: int, device: torch.device | str = "cpu") -> "Moments":
        """Return moments of no features yet, of D = `width`."""
        zeros = torch.zeros(width, width, dtype=torch.float64, device=device)
        return Moments(0, zeros[0].clone(), zeros)

    @staticmethod
    def of(features: Tensor) -> "Moments":
        """Return the moments of features (N, D)."""
        features = check_features(features)
        mean = features.mean(0)
        centred = features - mean
        return Moments(len(features), mean, centred.T @ centred)

    @property
    def width(self) -> int:
        """Number of features D."""
        return len(self.mean)

    def add(self, features: Tensor) -> "Moments":
        """Take in a batch (n, D) of any real type; returns itself. BadInput names a row that is not finite."""
        return self.merge(Moments.of(features)) if len(features) else self

    def merge(self, other: "Moments") -> "Moments":
        """Take in another set's moments, by the pairwise update of Chan, Golub and LeVeque (1979); returns itself."""
        _check_width(self, other)
        total = self.count + other.count
        if not other.count:
            return self
        gap = other.mean.to(self.mean) - self.mean
        self.scatter += other.scatter.to(self.scatter) + torch.outer(gap, gap) * (self.count * other.count / total)
        self.mean += gap * (other.count / total)
        self.count = total
        return self

    def covariance(self, ddof: int = 1) -> Tensor:
        """Return scatter / (N - ddof), (D, D). BadInput when N <= ddof, or ddof is neither 0 nor 1."""
        if ddof not in (0, 1):
            raise BadInput(f"covariance divided by N - {ddof}; use ddof 0 (StyleGAN-V, Latte) or 1 (TATS).")
        if self.count < 2:
            raise BadInput(f"a covariance of {self.count} clips; at least 2 are needed.")
        return self.scatter / (self.count - ddof)


def covariance_root(covariance: Tensor) -> Tensor:
    """Return R (D, r) with R R^T = `covariance` (D, D), symmetric and positive semi-definite in float64; r is its rank.

    Eigenvalues below D * eps * the largest one are rounding, positive or negative, and count as 0.
    """
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1].clamp_min(0)
    return vectors[:, kept] * values[kept].sqrt()


def frechet_distance(a: Moments, b: Moments, *, ddof: int = 1) -> float:
    """Return the Fréchet distance of two sets, 0 or more, in squared units of the features.

    Raises:
        BadInput: other widths, or fewer than 2 clips in a set.
    """
    _check_width(a, b)
    root_a = covariance_root(a.covariance(ddof))
    root_b = covariance_root(b.covariance(ddof)).to(root_a)
    gap = (a.mean - b.mean.to(a.mean)).square().sum()
    overlap = torch.linalg.svdvals(root_a.T @ root_b).sum()
    return max(0.0, float(gap + root_a.square().sum() + root_b.square().sum() - 2 * overlap))


def expected_floor(moments: Moments, count_a: int, count_b: int | None = None) -> float:
    """Expected distance of two independent samples of one Gaussian, of `count_a` and `count_b` (same if None) clips.

    To leading order in 1/N, for covariance S with eigenvalues l:

        (1/Na + 1/Nb) * (tr S + 1/2 sum_ij li lj (1 + [i = j]) / (li + lj))

    from the expansion of the Bures distance around S and the variance of a sample covariance. Too large, by up to half,
    where N <= D; real features have heavier tails than a Gaussian, so a measured floor is better where there is one.
    """
    values = torch.linalg.eigvalsh(moments.covariance()).clamp_min(0)
    tiny = torch.finfo(values.dtype).tiny
    pairs = torch.outer(values, values) / (values[:, None] + values).clamp_min(tiny)
    bias = values.sum() + (pairs.sum() + pairs.diagonal().sum()) / 2
    return float(bias) * (1 / count_a + 1 / (count_b or count_a))


def rank_note(a: Moments, b: Moments, floor: float | None = None) -> str | None:
    """Say in one line that a covariance is singular because N <= D, and what that does; None where it is not so.

    Args:
        a: moments of the real clips. b: of the generated ones.
        floor: measured distance of two disjoint sets of real clips of these sizes; without it the note gives
            `expected_floor`.
    """
    if min(a.count, b.count) > a.width:
        return None
    rank = min(a.count, b.count) - 1
    if floor is None:
        bias = f"about {expected_floor(a, a.count, b.count):.4g} apart if features were Gaussian (leading order)"
    else:
        bias = f"{floor:.4g} apart (measured)"
    return (
        f"{a.count} and {b.count} clips for {a.width} features: a covariance has rank {rank} at most, so the distance "
        f"is biased upwards; two real sets of these sizes are {bias}. Use more than {a.width} clips, or the kernel "
        "distance, which has no such bias."
    )


@dataclass(frozen=True)
class FrechetFit:
    """A straight line through distances against 1/N.

    Attributes:
        value: the line at 1/N = 0; may fall below 0 by noise. slope: bias * N.
        sizes: the subset sizes N. distances: the mean distance at each.
    """

    value: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_distance_infinity(
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    sizes: int = 5,
    smallest: int | None = None,
    ddof: int = 1,
) -> FrechetFit:
    """Extrapolate the Fréchet distance of features (N, D) and (M, D) to infinitely many clips.

    As Chong and Forsyth (arXiv 1911.07023), with two differences: both sets are cut to N, since both cause the bias,
    and at each size the distance is the mean over all disjoint subsets of one shuffling, which costs no more clips and
    lowers the noise.

    Args:
        generator: on the CPU; shuffles the clips.
        sizes: how many subset sizes, evenly spaced from `smallest` to the smaller set's size.
        smallest: a quarter of the smaller set if None. The 1/N law holds above the features' width.

    Raises:
        BadInput: too few clips for so many different sizes, or fewer than two sizes.
    """
    x, y = check_pair(x, y, 2)
    most = min(len(x), len(y))
    smallest = max(2, most // 4) if smallest is None else smallest
    counts = sorted({int(n) for n in torch.linspace(smallest, most, max(sizes, 0), dtype=torch.float64).round()})
    if sizes < 2 or smallest < 2 or len(counts) != sizes:
        raise BadInput(f"{sizes} subset sizes between {smallest} and {most} clips; give at least 2, or more clips.")
    order_x = torch.randperm(len(x), generator=generator).to(x.device)
    order_y = torch.randperm(len(y), generator=generator).to(x.device)
    distances = []
    for n in counts:
        pairs = zip(order_x.split(n), order_y.split(n), strict=False)
        found = [
            frechet_distance(Moments.of(x[i]), Moments.of(y[j]), ddof=ddof) for i, j in pairs if len(i) == len(j) == n
        ]
        distances.append(sum(found) / len(found))
    inverse = 1 / torch.tensor(counts, dtype=torch.float64)
    design = torch.stack([torch.ones_like(inverse), inverse], 1)
    value, slope = torch.linalg.lstsq(design, torch.tensor(distances, dtype=torch.float64)[:, None]).solution[:, 0]
    return FrechetFit(float(value), float(slope), tuple(counts), tuple(distances))


def _check_width(a: Moments, b: Moments) -> None:
    if a.width != b.width:
        raise BadInput(f"features of width {a.width} and {b.width} cannot be compared; use one feature network.")
