"""Clips of classes, and whether they show their class."""

import torch

from longtake.data.scenes import SceneOptions, render_scenes, sample_scene
from longtake.data.scenes.classes import class_names, class_number
from longtake.evaluation.readback.of_classes import clips_of_classes, read_classes
from longtake.pipelines.video_pipeline import VideoOutput
from longtake.video import Clip

OPTIONS = SceneOptions(relations=("alone",))


def test_renders_are_read_as_their_classes_and_not_as_others():
    scenes = [sample_scene(900_000 + i, OPTIONS) for i in range(24)]
    clips, labels = render_scenes(scenes, frames=16), [class_number(scene, OPTIONS) for scene in scenes]
    right = read_classes(clips, labels, OPTIONS)
    assert min(right.values()) > 0.8 and right["class"] <= min(right["shape"], right["motion"])
    assert read_classes(clips, [(label + 13) % 40 for label in labels], OPTIONS)["class"] == 0


def test_clips_stand_where_their_labels_do_and_keep_their_seeds():
    asked = []

    def pipe(name, *, frames, steps, guidance, seed, count):
        asked.append((name, seed, count))
        pixels = (torch.arange(count) + seed).float().view(-1, 1, 1, 1, 1).expand(-1, 3, frames, 4, 4)
        return VideoOutput(Clip(pixels, 8.0), None, None)

    clips = clips_of_classes(pipe, [2, 0, 2], OPTIONS, frames=5, steps=1, guidance=1.0, seed=7)
    assert asked == [(class_names(OPTIONS)[0], 7, 1), (class_names(OPTIONS)[2], 2007, 2)]
    assert tuple(clips.shape) == (3, 3, 5, 4, 4) and clips[:, 0, 0, 0, 0].tolist() == [2007, 7, 2008]
