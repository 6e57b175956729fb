"""How many tokens a block works on: along depth (`Layout`) and along denoising time (`Density`).

arXiv 2412.06028. t in [0, 1] is the noise level, 1 is pure noise; a pruning rate r keeps 1 - r of the tokens:

    r(t) = r_min                                       t < 1/4      (clean end: most tokens)
    r(t) = r_min (4 - 4t)/3 + r_max (4t - 1)/3         t >= 1/4     (pure noise: fewest)

The staircase, which batched training and sampling use, is constant on equal shares of [0, 1): with four of them r_min,
two values between, r_max. Rates become grids by h' = max(1, round(H sqrt(1 - r))), the same for columns (our rule; the
paper names only rates). Frames are pooled by whole groups, by factors that are listed apart from the rates (ours).
"""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from longtake.errors import BadInput, BadSize
from longtake.runtime import TokenGrid

STEPS = 1000
"""A network is given 1000 t."""


@dataclass(frozen=True)
class Layout:
    """What the blocks of a network become, from the first to the last; their number stays.

    Args:
        bottom: blocks at the bottom, which see all tokens.
        modules: for each sparse-dense module its numbers of blocks (generate, sparse, recover, dense); one recovers.
        top: blocks at the top, unchanged.
        pooled_bottom: the bottom's attention is a mean over what it attends to. False leaves the bottom as it is;
            attention that video and text share is always left.

    Raises:
        BadInput: counts that make no module, or no module at all.
    """

    bottom: int = 2
    modules: tuple[tuple[int, int, int, int], ...] = ((1, 3, 1, 1),) * 4
    top: int = 2
    pooled_bottom: bool = True

    def __post_init__(self) -> None:
        modules = tuple(tuple(int(n) for n in one) for one in self.modules)
        object.__setattr__(self, "modules", modules)
        wrong = [one for one in modules if len(one) != 4 or min(one) < 0 or one[0] < 1 or one[2] != 1]
        if wrong or not modules or min(self.bottom, self.top) < 0:
            raise BadInput(
                f"layout {self}: a module is [generate, sparse, recover, dense] with generate at least 1 and recover 1, "
                "and there is at least one; 2+4x[1,3,1,1]+2 is the paper's for 28 blocks"
            )

    @classmethod
    def read(cls, text: str) -> "Layout":
        """From its written form, such as "2+4x[1,3,1,1]+2"; "dense2+..." leaves the bottom's attention as it is.

        Raises:
            BadInput: another form.
        """
        found = re.fullmatch(r"(dense)?(\d+)\+((?:(?:\d+x)?\[[\d,]+\]\+)+)(\d+)", text.replace(" ", ""))
        if found is None:
            raise BadInput(
                f"layout '{text}' is none; write bottom + times x [generate,sparse,recover,dense] + top: 2+4x[1,3,1,1]+2"
            )
        modules: list[tuple[int, ...]] = []
        for times, counts in re.findall(r"(?:(\d+)x)?\[([\d,]+)\]", found[3]):
            modules += [tuple(int(n) for n in counts.split(","))] * int(times or 1)
        return cls(int(found[2]), tuple(modules), int(found[4]), not found[1])  # type: ignore[arg-type]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.bottom + sum(map(sum, self.modules)) + self.top

    def roles(self) -> list[str]:
        """Of each block in order: "bottom", "generate", "sparse", "recover", "dense" or "top"."""
        kinds = ("generate", "sparse", "recover", "dense")
        inside = [kind for one in self.modules for kind, n in zip(kinds, one, strict=True) for _ in range(n)]
        return ["bottom"] * self.bottom + inside + ["top"] * self.top

    def __str__(self) -> str:
        parts, modules = [], list(self.modules)
        while modules:
            same = next((i for i, one in enumerate(modules) if one != modules[0]), len(modules))
            parts.append(f"{f'{same}x' if same > 1 else ''}[{','.join(map(str, modules[0]))}]")
            modules = modules[same:]
        return "+".join([f"{'' if self.pooled_bottom else 'dense'}{self.bottom}", *parts, str(self.top)])


@dataclass(frozen=True)
class Density:
    """The grid of sparse tokens at a noise level: listed, or by pruning rates.

    Args:
        grids: (frames, rows, columns) of each stage, from the clean end to the noisy one; 0 frames = as many as there
            are. The stages are equal shares of [0, 1].
        rates: (r_min, r_max) in place of grids, each in [0, 1).
        kind: with rates, "staircase" or "linear" (sampling one by one; training needs stages).
        stages: of the staircase with rates.
        pooled_frames: with rates, how many frames become one in each stage; one number for all, or one for each.

    Raises:
        BadInput: neither or both of grids and rates, rates out of range or order, an unknown kind.
    """

    grids: tuple[tuple[int, int, int], ...] = ()
    rates: tuple[float, float] | None = None
    kind: str = "staircase"
    stages: int = 4
    pooled_frames: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "grids", tuple(tuple(int(n) for n in grid) for grid in self.grids))
        object.__setattr__(self, "pooled_frames", tuple(int(n) for n in self.pooled_frames))
        if bool(self.grids) == (self.rates is not None):
            raise BadInput("a density is given by grids or by rates: give one of the two")
        if self.kind not in ("staircase", "linear") or (self.grids and self.kind == "linear"):
            raise BadInput(f"density of kind '{self.kind}'; use 'staircase', or 'linear' with rates")
        if any(len(grid) != 3 or grid[0] < 0 or min(grid[1:]) < 1 for grid in self.grids):
            raise BadInput(f"grids {self.grids}; give (frames, rows, columns) of each stage, rows and columns from 1")
        if self.rates is None:
            object.__setattr__(self, "stages", len(self.grids))
            return
        low, high = (float(rate) for rate in self.rates)
        object.__setattr__(self, "rates", (low, high))
        if not 0 <= low <= high < 1:
            raise BadInput(f"rates ({low}, {high}); the clean end's first, 0 <= r_min <= r_max < 1")
        if self.stages < 1 or len(self.pooled_frames) not in (1, self.stages) or min(self.pooled_frames) < 1:
            raise BadInput(
                f"{len(self.pooled_frames)} numbers of pooled frames for {self.stages} stages; give 1, or one each"
            )

    def stage(self, t: float) -> int:
        """The stage of a noise level in [0, 1]."""
        return min(int(t * self.stages), self.stages - 1)

    def rate(self, t: float) -> float:
        """Pruning rate at a noise level, of the line or of the staircase.

        Raises:
            BadInput: a density of grids has none.
        """
        if self.rates is None:
            raise BadInput("this density lists grids and has no rates")
        low, high = self.rates
        if self.kind == "linear":
            return low if t < 0.25 else low * (4 - 4 * t) / 3 + high * (4 * t - 1) / 3
        return low + (high - low) * self.stage(t) / max(self.stages - 1, 1)

    def grid(self, t: float, dense: TokenGrid) -> TokenGrid:
        """Grid of sparse tokens at a noise level, for a grid of all tokens.

        Raises:
            BadSize: more rows, columns or frames than there are, or frames that do not divide.
        """
        stage = self.stage(t)
        if self.grids:
            frames, rows, columns = self.grids[stage]
            found = TokenGrid(frames or dense.frames, rows, columns)
        else:
            kept = math.sqrt(1 - self.rate(t))
            pooled = self.pooled_frames[stage if len(self.pooled_frames) > 1 else 0]
            rows, columns = (max(1, round(n * kept)) for n in (dense.height, dense.width))
            found = TokenGrid(max(1, dense.frames // pooled) if dense.frames % pooled == 0 else 0, rows, columns)
            if not found.frames:
                raise BadSize(
                    f"{dense.frames} frames of tokens cannot be pooled by {pooled}; use a number that divides them"
                )
        if any(few > many for few, many in zip(found, dense, strict=True)) or dense.frames % found.frames:
            raise BadSize(
                f"sparse tokens on a grid of {tuple(found)} for {tuple(dense)}; use at most as many rows and columns, and "
                "frames that divide"
            )
        return found

    def of_batch(self, timestep: Tensor, dense: TokenGrid) -> TokenGrid:
        """Grid of sparse tokens of a batch: timestep (B,) or a scalar, 0 to 1000.

        Raises:
            BadInput: noise levels whose grids differ.
        """
        levels = torch.unique(timestep.detach().float().cpu()).tolist()
        grids = [self.grid(min(max(level / STEPS, 0.0), 1.0), dense) for level in levels]
        if len(set(grids)) > 1:
            raise BadInput(
                f"noise levels {levels[0] / STEPS:.3f} and {levels[-1] / STEPS:.3f} in one batch have sparse grids "
                f"{tuple(grids[0])} and {tuple(grids[-1])}; draw a batch's levels from one stage"
            )
        return grids[0]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a network's configuration."""
        return asdict(self)
