"""A token routing backbone as a feature network."""

import pytest
import torch
from tests.recognition.token_routing.tiny import scattered

from longtake.errors import BadInput
from longtake.evaluation.measure import measure
from longtake.evaluation.networks import load_network
from longtake.evaluation.networks.routing import clip_features, frame_features
from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.sources import TensorSource


@pytest.fixture
def folder(tmp_path):
    scattered().save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


def clips(count, seed):
    """Squares that move on grey, uint8 (count, 3, 8, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.full((count, 3, 8, 32, 32), 120, dtype=torch.uint8)
    for clip in made:
        top, left = torch.randint(20, (2,), generator=generator).tolist()
        for frame in range(8):
            clip[:, frame, top : top + 9, left // 3 + 2 * frame : left // 3 + 2 * frame + 9] = 250
    return made


def test_features_of_a_clip_are_those_of_its_frames_and_their_change(folder):
    video, image = load_network(f"mine={folder}"), load_network(f"mine={folder}", frames=True)
    assert (video.width, image.width, video.frames, image.frames) == (88, 44, False, True)
    pixels = clips(2, 1)
    each = torch.stack([image(pixels[:, :, t : t + 1]) for t in range(8)], dim=1)
    torch.testing.assert_close(video(pixels)[:, :44], each.mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(video(pixels)[:, 44:], each.diff(dim=1).abs().mean(1), atol=1e-5, rtol=1e-5)
    assert not clip_features(each[:, :1])[:, 44:].any()
    with torch.no_grad():
        torch.testing.assert_close(frame_features(scattered(), pixels), each, atol=1e-5, rtol=1e-5)


def test_the_distance_tells_noise_and_shuffled_frames_from_the_same_set(folder):
    real, other = clips(64, 2), clips(64, 3)
    generator = torch.Generator().manual_seed(4)
    noisy = (other.float() + 25 * torch.randn(other.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    shuffled = torch.stack([clip[:, torch.randperm(8, generator=generator)] for clip in other])
    eight = find_protocol("ours", {"frames": 8})
    distances = [
        measure(TensorSource(made), TensorSource(real), ["fvd"], eight, network=f"mine={folder}", resamples=2)
        .result.values[0]
        .value
        for made in (other, noisy, shuffled)
    ]
    assert 2 * distances[0] < min(distances[1:])


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no TokenRoutingBackbone"):
        load_network(f"mine={tmp_path}")
