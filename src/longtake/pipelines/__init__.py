"""Pipelines: text encoding, the video pipeline, loading, generating and records."""

from importlib import import_module

_HOMES = {
    "ForeignPipeline": "foreign.pipeline",
    "Record": "records",
    "VideoOutput": "video_pipeline",
    "VideoPipeline": "video_pipeline",
    "encode_prompts": "text",
    "generate": "generating",
    "load": "loading",
    "load_text_encoder": "text",
    "read_record": "records",
    "regenerate": "generating",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'longtake.pipelines' has no attribute '{name}'")
    return getattr(import_module(f"longtake.pipelines.{_HOMES[name]}"), name)
