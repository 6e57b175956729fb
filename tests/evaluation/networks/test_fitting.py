"""Fitting: targets, learning, what is stored with the weights, and the shipped networks once they are there."""

from pathlib import Path

import pytest
import torch

import longtake
from longtake.data.scenes import SceneOptions, prerender, render_scenes, sample_scene
from longtake.evaluation.networks.finding import SHIPPED_LIMIT, load_network
from longtake.evaluation.networks.fitting import Fitting, fit, heads_of, main, measure_own_accuracy, targets
from longtake.evaluation.networks.scene_classifier import SceneClassifier
from longtake.video import to_uint8

OPTIONS = SceneOptions(
    shapes=("ball", "cube"),
    colours=("red", "green", "blue"),
    motions=("still", "slide-left", "slide-right"),
    backgrounds=("plain", "checker"),
    cameras=("static",),
    split="all",
)
SHIPPED = Path(longtake.__file__).parent / "starters"


def rendered(count: int) -> tuple[torch.Tensor, list[dict]]:
    scenes = [sample_scene(i, OPTIONS) for i in range(count)]
    pixels = render_scenes(scenes, supersample=1)
    return to_uint8(pixels).movedim(-1, 1), [scene.attributes for scene in scenes]


def test_targets_are_distributions_over_what_is_shown() -> None:
    pair = {
        "objects": [
            {"shape": "ball", "colour": "red", "motion": "still"},
            {"shape": "ball", "colour": "blue", "motion": "pushed"},
        ],
        "background": "checker",
        "camera": "static",
    }
    heads = heads_of(OPTIONS, frames=False)
    found = targets(heads, [pair])
    assert found["shape"].tolist() == [[1.0, 0.0]] and found["colour"].tolist() == [[0.5, 0.0, 0.5]]
    assert found["number"].tolist() == [[0.0, 1.0]] and found["background"].tolist() == [[0.0, 1.0]]
    assert found["motion"][0, heads["motion"].index("pushed")] == 0.5
    assert "motion" not in heads_of(OPTIONS, frames=True) and "camera" not in heads_of(OPTIONS, frames=True)


def test_accuracy_counts_a_clip_when_all_that_it_shows_is_told() -> None:
    class Told(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SceneClassifier({"colour": ["red", "green", "blue"]}, widths=(2, 2, 2)).config
            self.stored = None

        def forward(self, pixels):
            return {"colour": torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 1.0, 2.0]])}

        def register_to_config(self, own_accuracy):
            self.stored = own_accuracy

    told = Told()
    things = [[{"colour": "red"}, {"colour": "blue"}], [{"colour": "red"}, {"colour": "green"}], [{"colour": "blue"}]]
    attributes = [{"objects": thing} for thing in things]
    measure_own_accuracy(told, [(torch.zeros(3, 3, 16, 64, 64, dtype=torch.uint8), attributes)])
    assert told.stored == {"colour": round(2 / 3, 4)}


@pytest.mark.slow
def test_both_networks_learn_what_they_are_shown() -> None:
    pixels, attributes = rendered(12)
    fitting = Fitting(OPTIONS, widths=(8, 12, 16))
    load = lambda numbers: (pixels[numbers], [attributes[i] for i in numbers])  # noqa: E731
    fit(fitting, load, 12, steps=60, batch=6, rate=1e-2, autocast=False)
    assert sum(fitting.losses[-5:]) < 0.7 * sum(fitting.losses[:5])
    for name, network in fitting.networks.items():
        assert not network.training
        raw = network.raw_features(torch.zeros(1, 3, network.config.window, 64, 64))
        assert raw.shape == (1, 28), name
    with torch.no_grad():  # normalising the features did not change what the heads say
        network = fitting.networks["scenes-2d"]
        frame = pixels[:, :, :1]
        logits = network(frame.float() / 127.5 - 1)
        measure_own_accuracy(network, [(frame, attributes)])
    assert network.config.own_accuracy["background"] >= 0.9 and logits["background"].shape == (12, 2)
    found = network.features(frame)
    assert found.mean(0).abs().max() < 1.5 and 0.3 < found.std(0).mean() < 2


def test_the_command_writes_both_networks_with_their_record(tmp_path: Path) -> None:
    prerender(tmp_path / "scenes", 4, OPTIONS, height=64, width=64, progress=False)
    held = SceneOptions(**{**vars(OPTIONS), "split": "held-out"})
    prerender(tmp_path / "held", 2, held, height=64, width=64, progress=False)
    words = ["--scenes", tmp_path / "scenes", "--held-out", tmp_path / "held", "--held-out-count", 2, "--steps", 1]
    assert main([str(word) for word in [*words, "--batch", 2, "--threads", 1, "--out", tmp_path / "nets"]]) == 0
    for name, frames in (("scenes-3d", False), ("scenes-2d", True)):
        network = load_network(name, frames=frames, folder=tmp_path / "nets")
        assert network.facts["training"]["steps"] == 1 and set(network.facts["own_accuracy"]) >= {"shape", "number"}
        clip = torch.randint(0, 256, (2, 3, 1 if frames else 17, 64, 64), dtype=torch.uint8)
        assert network(clip).shape == (2, network.width)
        size = sum(path.stat().st_size for path in (tmp_path / "nets" / name).iterdir())
        assert size <= SHIPPED_LIMIT


@pytest.mark.parametrize(("name", "frames"), [("scenes-3d", False), ("scenes-2d", True)])
def test_the_shipped_networks_know_what_they_were_trained_on(name: str, frames: bool) -> None:
    network = load_network(name, frames=frames)
    own = network.facts["own_accuracy"]
    assert own["background"] >= 0.9 and own["colour"] >= 0.8 and network.facts["training"]["steps"] > 100
    assert sum(path.stat().st_size for path in (SHIPPED / name).iterdir()) <= SHIPPED_LIMIT
