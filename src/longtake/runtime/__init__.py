"""The seam between networks and methods: the nouns they share, views of networks, methods, stacks and receipts."""

from longtake.runtime.nouns import AttnCall, Site, StepInfo, TokenGrid
from longtake.runtime.seam import AttendPoint, attend
from longtake.runtime.views import BlockForm, Blocks, Family, ModelView, Part, latent_grid

__all__ = [
    "AttendPoint",
    "AttnCall",
    "BlockForm",
    "Blocks",
    "Family",
    "ModelView",
    "Part",
    "Site",
    "StepInfo",
    "TokenGrid",
    "attend",
    "latent_grid",
]
