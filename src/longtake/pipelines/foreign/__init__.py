"""Text-to-video pipelines of diffusers, sampled by the library's own loop: one small dialect for each family."""

from longtake.pipelines.foreign.pipeline import ForeignPipeline, Start

__all__ = ["ForeignPipeline", "Start"]
