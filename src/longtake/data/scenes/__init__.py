"""Procedural worlds with ground truth: sample a scene from a seed, render it, know everything about it."""

from longtake.data.scenes.captions import canonical, write_captions
from longtake.data.scenes.export import render_folder
from longtake.data.scenes.rendering import render_scenes
from longtake.data.scenes.sampling import SceneOptions, is_held_out, sample_scene
from longtake.data.scenes.sound import scene_sound, sound_events
from longtake.data.scenes.store import SceneDataset, prerender
from longtake.data.scenes.truth import Truth, ground_truth
from longtake.data.scenes.world import Scene

__all__ = [
    "Scene",
    "SceneDataset",
    "SceneOptions",
    "Truth",
    "canonical",
    "ground_truth",
    "is_held_out",
    "prerender",
    "render_folder",
    "render_scenes",
    "sample_scene",
    "scene_sound",
    "sound_events",
    "write_captions",
]
