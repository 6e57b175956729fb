"""longtake: video diffusion transformers, from raw clips to long video.

import longtake
output = longtake.load("starter")("a red ball rolls behind a blue cube", seed=0)

Importing this module imports nothing heavy; each name below loads what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtake.autoregressive.tats.pipeline import TatsPipeline
    from longtake.backbones.gpt import GPT
    from longtake.backbones.latte import Latte
    from longtake.backbones.waver import HybridStreamDiT
    from longtake.calibration import calibrate
    from longtake.catalogue import System, systems
    from longtake.comparison import compare
    from longtake.methods import apply
    from longtake.methods.dynamic.dydit import DyHybrid, DyLatte
    from longtake.methods.dynamic.flexdit import FlexHybrid, FlexLatte
    from longtake.methods.profiles import load_profile
    from longtake.pipelines.generating import generate
    from longtake.pipelines.loading import load
    from longtake.pipelines.video_pipeline import VideoPipeline
    from longtake.tokenizers.causal_vae import CausalVAE
    from longtake.tokenizers.frame_vae import FrameVAE
    from longtake.tokenizers.vqgan3d import VQGAN3d

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "CausalVAE",
    "DyHybrid",
    "DyLatte",
    "FlexHybrid",
    "FlexLatte",
    "FrameVAE",
    "HybridStreamDiT",
    "Latte",
    "System",
    "TatsPipeline",
    "VQGAN3d",
    "VideoPipeline",
    "__version__",
    "apply",
    "calibrate",
    "compare",
    "generate",
    "load",
    "load_profile",
    "systems",
]

_HOMES = {
    "CausalVAE": "longtake.tokenizers.causal_vae",
    "DyHybrid": "longtake.methods.dynamic.dydit",
    "DyLatte": "longtake.methods.dynamic.dydit",
    "FlexHybrid": "longtake.methods.dynamic.flexdit",
    "FlexLatte": "longtake.methods.dynamic.flexdit",
    "FrameVAE": "longtake.tokenizers.frame_vae",
    "GPT": "longtake.backbones.gpt",
    "HybridStreamDiT": "longtake.backbones.waver",
    "Latte": "longtake.backbones.latte",
    "TatsPipeline": "longtake.autoregressive.tats.pipeline",
    "VQGAN3d": "longtake.tokenizers.vqgan3d",
    "VideoPipeline": "longtake.pipelines.video_pipeline",
    "System": "longtake.catalogue",
    "apply": "longtake.methods",
    "calibrate": "longtake.calibration",
    "compare": "longtake.comparison",
    "generate": "longtake.pipelines.generating",
    "load": "longtake.pipelines.loading",
    "load_profile": "longtake.methods.profiles",
    "systems": "longtake.catalogue",
    # diffusers resolves a component's class in the library that model_index.json names, here longtake, and looks for
    # the base class that says how to load it in the same place.
    "ModelMixin": "diffusers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'longtake' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
