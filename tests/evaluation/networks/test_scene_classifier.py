"""The small classifier: windows, sizes, what its features depend on, and the random control."""

import copy

import pytest
import torch

from longtake.evaluation.networks.scene_classifier import (
    SIDE,
    WINDOW,
    SceneClassifier,
    random_classifier,
    set_normalisation,
    to_input,
    windows,
)

HEADS = {"shape": ["ball", "cube"], "motion": ["still", "spin", "roll"]}
SMALL = (4, 6, 8)


def clips(count: int = 2, frames: int = 16, side: int = SIDE) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, frames, side, side), dtype=torch.uint8)


@pytest.fixture
def network() -> SceneClassifier:
    return SceneClassifier(HEADS, widths=SMALL).eval()


@pytest.fixture(scope="module")
def drawn() -> SceneClassifier:
    return random_classifier(WINDOW)


@pytest.mark.parametrize(
    ("frames", "firsts"), [(16, [0]), (17, [0]), (31, [0]), (32, [0, 16]), (40, [0, 24]), (64, [0, 16, 32, 48])]
)
def test_windows_are_spread_over_a_clip(frames: int, firsts: list[int]) -> None:
    numbered = torch.arange(frames).view(1, 1, -1, 1, 1)
    cut = windows(numbered, 16)
    assert cut.shape[:4] == (1, len(firsts), 1, 16) and cut[0, :, 0, 0, 0, 0].tolist() == firsts


def test_a_short_clip_is_played_slower() -> None:
    assert windows(torch.arange(8).view(1, 1, -1, 1, 1), 16).flatten().tolist() == [i // 2 for i in range(16)]
    assert windows(torch.arange(3).view(1, 1, -1, 1, 1), 1).shape == (1, 3, 1, 1, 1, 1)


def test_features_of_a_long_clip_are_the_mean_over_its_windows(network: SceneClassifier) -> None:
    long = clips(frames=32)
    parts = [network.features(long[:, :, i : i + 16]) for i in (0, 16)]
    torch.testing.assert_close(network.features(long), (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-6)
    assert network.features(long).shape == (2, network.width) and network.width == 6 + 8


def test_any_size_is_brought_to_its_own() -> None:
    same = clips(1, 2)
    assert torch.equal(to_input(same), same.float().div(127.5).sub(1))
    big = same.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert to_input(big).shape == (1, 3, 2, SIDE, SIDE)
    assert (to_input(big) - to_input(same)).abs().mean() < (to_input(same) - to_input(same).mean()).abs().mean()


def test_order_matters_to_a_network_of_clips_and_not_to_one_of_frames(drawn: SceneClassifier) -> None:
    clip = clips()
    turned = clip.flip(2)
    assert (drawn.features(clip) - drawn.features(turned)).abs().max() > 1e-3
    still = SceneClassifier(HEADS, window=1, widths=SMALL).eval()
    torch.testing.assert_close(still.features(clip), still.features(turned), rtol=1e-5, atol=1e-5)


def test_normalised_features_have_mean_0_and_each_level_its_spread(drawn: SceneClassifier) -> None:
    many = clips(6)
    with torch.no_grad():
        network = copy.deepcopy(drawn)
        raw = network.raw_features(to_input(many))
        set_normalisation(network, raw)
        found = network.features(many)
    torch.testing.assert_close(found.mean(0), torch.zeros(128), rtol=0, atol=1e-2)
    fine, coarse = found.var(0)[:48], found.var(0)[48:]
    assert float(fine.mean()) == pytest.approx(0.25, rel=1e-2) and float(coarse.mean()) == pytest.approx(1, rel=1e-2)
    torch.testing.assert_close(coarse / coarse[0], raw.var(0)[48:] / raw.var(0)[48], rtol=1e-2, atol=1e-3)


def test_probabilities_are_of_the_motion(network: SceneClassifier) -> None:
    found = network.probabilities(clips())
    assert found.shape == (2, 3)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_it_is_saved_with_what_it_is(network: SceneClassifier, tmp_path) -> None:
    network.register_to_config(own_accuracy={"shape": 0.5})
    network.save_pretrained(tmp_path)
    loaded = SceneClassifier.from_pretrained(str(tmp_path), low_cpu_mem_usage=False).eval()
    clip = clips()
    assert torch.equal(loaded.features(clip), network.features(clip))
    assert loaded.config.own_accuracy == {"shape": 0.5} and loaded.config.heads["motion"] == HEADS["motion"]


def test_a_random_network_follows_from_its_seed() -> None:
    torch.manual_seed(1)
    one = random_classifier(WINDOW, seed=3)
    torch.manual_seed(2)
    same, other = random_classifier(WINDOW, seed=3), random_classifier(WINDOW, seed=4)
    clip = clips()
    assert torch.equal(one.features(clip), same.features(clip))
    assert not torch.allclose(one.features(clip), other.features(clip), atol=1e-2)
    features = one.features(clip)
    assert features.isfinite().all() and features.std() > 0.05
