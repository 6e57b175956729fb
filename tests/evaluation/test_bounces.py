"""Bounces are read off renders where the scene says that there are contacts, and nowhere else."""

import pytest
import torch

from longtake.data.scenes import SceneOptions, render_scenes, sample_scene, sound_events
from longtake.evaluation.bounces import bounces, heard_and_seen, heights


def scenes(kind, count):
    options = SceneOptions(
        shapes=("ball",), colours=("red", "yellow", "green", "blue"), motions=(kind,),
        backgrounds=("plain",), relations=("alone",), cameras=("static",), split="all",
    )  # fmt: skip
    return [sample_scene(seed, options) for seed in range(count)]


def test_bounces_of_renders_are_those_of_the_scene():
    chosen = scenes("bounce", 12)
    height = heights(render_scenes(chosen, 16, 32, 32, fps=16.0))
    for scene, own in zip(chosen, height, strict=True):
        contacts = [one.frame for one in sound_events(scene, 16, fps=16.0).contacts if 1.5 <= one.frame <= 13.5]
        found = bounces(own)
        assert heard_and_seen([contacts], [found], within=1.0) == (len(contacts), len(contacts))
        assert all(min(abs(frame - one) for one in [*contacts, 0, 15]) <= 2.5 for frame in found)


@pytest.mark.parametrize("kind", ["still", "roll-left", "slide-right", "spin"])
def test_what_does_not_bounce_is_not_seen_to(kind):
    height = heights(render_scenes(scenes(kind, 6), 16, 32, 32, fps=16.0))
    assert [bounces(own) for own in height] == [[]] * 6


def test_heights_are_shares_of_the_picture():
    clip = torch.zeros(1, 3, 2, 8, 8)
    clip[0, 0, 0, 1, 3] = 1.5  # one red pixel in the second row from the top; nothing in the second frame
    assert heights(clip)[0, 0].item() == pytest.approx(1 - 1.5 / 8)
    assert heights(clip)[0, 1].isnan() and bounces(heights(clip)[0]) == []


def test_a_bounce_is_a_fall_and_a_rise():
    assert bounces(torch.tensor([0.6, 0.4, 0.3, 0.5, 0.6])) == [2]
    assert bounces(torch.tensor([0.6, 0.4, 0.3, 0.31, 0.32])) == []  # hardly rises
    assert bounces(torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7])) == []
    assert bounces(torch.tensor([0.6, 0.3, 0.3, 0.6, 0.5, 0.3, 0.5])) == [2, 5]


def test_counting():
    assert heard_and_seen([[3.0, 9.0], [], [5.0]], [[4, 12], [7], []]) == (1, 3)
    assert heard_and_seen([[3.0, 9.0]], [[4, 12]], within=3.0) == (2, 2)
