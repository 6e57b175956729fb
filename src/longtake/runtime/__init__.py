"""The nouns that every network and method shares: token grids, steps, sites and attention calls."""

from longtake.runtime.nouns import AttnCall, Site, StepInfo, TokenGrid
from longtake.runtime.seam import AttendPoint, attend

__all__ = ["AttendPoint", "AttnCall", "Site", "StepInfo", "TokenGrid", "attend"]
