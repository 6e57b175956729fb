"""The detector: shapes, learning, its place in a folder, and the shipped one on renders that it has never seen."""

from pathlib import Path

import pytest
import torch

import longtake
from longtake.data.scenes import SceneOptions, render_scenes, sample_scene
from longtake.evaluation.readback import ReadBackDetector, score_readings
from longtake.evaluation.readback.detector import FRAMES, SIDE, resample
from longtake.evaluation.readback.fitting import (
    ABSENT,
    detector_loss,
    fit_detector,
    load_detector,
    measure_own_accuracy,
    new_detector,
    roughen,
    targets,
)

OPTIONS = SceneOptions(
    shapes=("ball", "cube"),
    colours=("red", "green", "blue"),
    motions=("still", "slide-left", "slide-right", "roll-left", "roll-right"),
    backgrounds=("plain", "checker"),
    cameras=("static",),
    split="all",
)
SHIPPED = Path(longtake.__file__).parent / "starters" / "readback"


@pytest.fixture
def small() -> ReadBackDetector:
    torch.manual_seed(0)
    detector = new_detector(OPTIONS)
    return ReadBackDetector.from_config({**detector.config, "width": 32})


def test_any_size_is_brought_to_the_one_it_reads(small: ReadBackDetector) -> None:
    assert resample(torch.rand(2, 3, 9, 40, 72)).shape == (2, 3, FRAMES, SIDE, SIDE)
    same = torch.rand(1, 3, FRAMES, SIDE, SIDE)
    assert resample(same) is same
    scores = small.eval()(torch.rand(2, 3, 9, 40, 72))
    assert scores["motion"].shape == (2, 3, 6)  # five motions and "pushed"


def test_targets_point_at_the_colour_of_each_object(small: ReadBackDetector) -> None:
    scene = sample_scene(3, SceneOptions(**{**vars(OPTIONS), "pair_share": 1.0}))
    truth = scene.attributes
    wanted = targets(small, [truth])
    assert int(wanted["presence"].sum()) == 2
    for thing in truth["objects"]:
        column = small.config.colours.index(thing["colour"])
        assert small.config.shapes[int(wanted["shape"][0, column])] == thing["shape"]
    absent = (wanted["presence"][0] == 0).nonzero()[0]
    assert int(wanted["motion"][0, absent]) == ABSENT


def test_absent_colours_do_not_enter_the_loss_of_shape(small: ReadBackDetector) -> None:
    wanted = targets(small, [sample_scene(3, OPTIONS).attributes])
    scores = {name: torch.zeros(value.shape + (n,)) for name, value, n in _columns(small, wanted)}
    scores["presence"] = torch.zeros_like(wanted["presence"])
    before = detector_loss(scores, wanted)
    absent = (wanted["presence"][0] == 0).nonzero()[0]
    scores["shape"][0, absent, 0] = 50.0
    assert torch.equal(detector_loss(scores, wanted), before)


def _columns(detector: ReadBackDetector, wanted: dict) -> list:
    sizes = {"shape": "shapes", "motion": "motions", "background": "backgrounds", "backdrop": "backdrops"}
    sizes["camera"] = "cameras"
    return [(name, wanted[name], len(getattr(detector.config, key))) for name, key in sizes.items()]


def test_roughening_is_drawn_from_its_generator() -> None:
    clip = torch.rand(4, 3, 5, 16, 16)
    once, again = (roughen(clip, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, clip)


def test_it_learns_to_name_what_it_is_shown(small: ReadBackDetector) -> None:
    scenes = [sample_scene(i, SceneOptions(**{**vars(OPTIONS), "pair_share": 0.0})) for i in range(24)]
    clips, truths = render_scenes(scenes, supersample=1), [scene.attributes for scene in scenes]

    def accuracy() -> dict[str, float]:
        return score_readings(small.eval().read(clips, [1] * len(clips)), truths).accuracy

    before = accuracy()
    fit_detector(
        small, lambda chosen: (clips[chosen], [truths[i] for i in chosen]), len(clips), steps=100, batch=12, rate=5e-3
    )
    after = accuracy()
    assert after["colour"] >= 0.9 > before["colour"]
    assert after["background"] >= 0.9


def test_own_accuracy_travels_with_the_weights(small: ReadBackDetector, tmp_path: Path) -> None:
    scene = sample_scene(0, OPTIONS)
    measured = measure_own_accuracy(small.eval(), [(render_scenes([scene]), [scene.attributes])])
    small.save_pretrained(tmp_path)
    loaded = load_detector(tmp_path)
    assert loaded.config.own_accuracy == pytest.approx(measured, abs=1e-4)
    clip = torch.rand(1, 3, FRAMES, SIDE, SIDE)
    assert torch.equal(loaded(clip)["shape"], small(clip)["shape"])


def test_the_shipped_detector_reads_held_out_renders() -> None:
    detector = load_detector(SHIPPED)
    scenes = [sample_scene(900_000 + i, SceneOptions(split="held-out")) for i in range(32)]
    readings = detector.read(render_scenes(scenes), [len(scene.objects) for scene in scenes])
    accuracy = score_readings(readings, [scene.attributes for scene in scenes]).accuracy
    for name in ("colour", "shape", "motion", "background"):
        assert accuracy[name] >= 0.9, f"{name}: {accuracy[name]}, its own record says {detector.config.own_accuracy}"
