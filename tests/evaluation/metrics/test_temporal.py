"""Time within a clip: sequences whose flicker, motion, seams and cuts are known by construction."""

import math

import pytest
import torch

from longtake.errors import BadInput, UnknownName
from longtake.evaluation.metrics.temporal import (
    at_eight_fps,
    dynamic_degree,
    find_cuts,
    flicker,
    frame_differences,
    motion_magnitude,
    motion_smoothness,
    seam_ratio,
    warping_error,
)
from longtake.video import from_uint8


def levels(*values, size=8):
    """Even frames of the given levels: uint8 (1, 3, T, size, size)."""
    return torch.tensor(values, dtype=torch.uint8).view(1, 1, -1, 1, 1).expand(1, 3, -1, size, size).contiguous()


def sliding(frames, step, size=32, seed=0):
    """A smooth random texture that moves right by `step` whole pixels a frame: float (1, 3, T, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.rand(1, 3, size, size + abs(step) * frames, generator=generator)
    texture = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(texture, (2, 2, 2, 2), mode="reflect"), 5, 1)
    texture = (texture - texture.mean()) / texture.std() * 0.3
    starts = [(frames - t) * abs(step) if step > 0 else t * abs(step) for t in range(frames)]
    return torch.stack([texture[..., start : start + size] for start in starts], 2).clamp(-1, 1)


def constant_flow(x, y, frames=5, size=32):
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1, 1).expand(1, 2, frames - 1, size, size)


def test_flicker_of_a_known_sequence():
    clip = levels(10, 20, 0, 0)
    assert frame_differences(clip)[0].tolist() == pytest.approx([10, 20, 0])
    assert float(flicker(clip)) == pytest.approx(1 - 10 / 255)
    assert float(flicker(levels(7, 7, 7))) == 1
    assert float(flicker(levels(0, 255, 0))) == 0


def test_flicker_of_floats_is_that_of_the_file_they_become():
    clip = levels(10, 20, 0, 0)
    floats = from_uint8(clip.movedim(1, -1)) + 0.3 / 127.5  # less than half a level
    assert torch.equal(flicker(floats), flicker(clip))
    both = torch.cat([clip, levels(0, 0, 0, 255)])
    assert flicker(both).tolist() == pytest.approx([1 - 10 / 255, 1 - 85 / 255])


def test_true_flow_explains_motion_and_wrong_flow_does_not():
    clip = sliding(5, 2)
    right, none, wrong = (warping_error(clip, constant_flow(x, 0.0)) for x in (2.0, 0.0, -2.0))
    seen = torch.ones(1, 4, 32, 32, dtype=torch.bool)
    seen[..., -2:] = False  # leaves the picture on the right
    assert float(warping_error(clip, constant_flow(2.0, 0.0), seen=seen)) < 1e-12
    assert right < none < wrong
    # By hand at zero flow: the mean square of frame differences on [0, 1].
    assert float(none) == pytest.approx(float(((clip[:, :, 1:] - clip[:, :, :-1]) / 2).square().mean()), rel=1e-5)


def test_hidden_pixels_do_not_count():
    clip = sliding(5, 2)
    clip[:, :, 3, 10:20, 10:20] = 1.0  # something appears for a frame
    flow = constant_flow(2.0, 0.0)
    mask = torch.ones(1, 4, 32, 32, dtype=torch.bool)
    mask[..., -2:] = False
    seen = mask.clone()
    seen[:, 2, 10:20, 8:18] = False  # where it hides what was there
    seen[:, 3, 10:20, 10:20] = False  # and what it was
    assert float(warping_error(clip, flow, seen=seen)) < 1e-12 < float(warping_error(clip, flow, seen=mask))
    assert float(warping_error(clip, flow, seen=torch.zeros_like(mask))) == 0


def test_forward_and_backward_flow_mask_what_leaves():
    clip = sliding(5, 2)
    checked = warping_error(clip, constant_flow(2.0, 0.0), constant_flow(-2.0, 0.0))
    assert float(checked) < 1e-12
    # Flows that contradict one another hide everything.
    assert float(warping_error(clip, constant_flow(-2.0, 0.0), constant_flow(-2.0, 0.0))) == 0


def test_magnitude_is_pixels_per_frame_and_normalised_to_256():
    flow = constant_flow(3.0, 4.0)
    assert float(motion_magnitude(flow)) == pytest.approx(5)
    assert float(motion_magnitude(flow, normalised=True)) == pytest.approx(40)
    half = torch.cat([flow[:, :, :2], 0 * flow[:, :, 2:]], 2)
    assert float(motion_magnitude(half)) == pytest.approx(2.5)


def test_dynamic_degree_follows_its_rule():
    # Short side 32: the limit is 0.75 px. 16 frames: 4 pairs must pass it.
    still = torch.zeros(1, 2, 15, 32, 40)
    some = still.clone()
    some[:, 0, :4, :4, :16] = 0.8  # 64 of 1280 pixels are 5 %
    assert dynamic_degree(some).tolist() == [True] and dynamic_degree(still).tolist() == [False]
    assert dynamic_degree(some * 0.9).tolist() == [False]  # 0.72 px
    few = some.clone()
    few[:, :, 3] = 0
    assert dynamic_degree(few).tolist() == [False]  # 3 pairs
    small = some.clone()
    small[:, :, :, :1] = 0
    assert dynamic_degree(small).tolist() == [False]  # 48 pixels: mean 0.6 px
    assert dynamic_degree(some, fps=4.0).tolist() == [False]  # twice the limit
    assert dynamic_degree(torch.cat([some, still])).tolist() == [True, False]


def test_frames_are_taken_at_eight_a_second():
    clip = torch.arange(48.0).view(1, 1, 48, 1, 1)
    assert at_eight_fps(clip, 24).flatten().tolist() == list(range(0, 48, 3))
    assert at_eight_fps(clip, 8).shape[2] == at_eight_fps(clip, 5).shape[2] == 48


def test_blending_rebuilds_fades_and_flow_rebuilds_motion():
    assert (
        float(motion_smoothness(levels(0, 20, 40, 60, 80, 200), interpolate="blend")) == 1
    )  # the last has no neighbour
    assert float(motion_smoothness(levels(0, 30, 40), interpolate="blend")) == pytest.approx(1 - 10 / 255)
    moving = sliding(5, 2)
    blended, warped = (float(motion_smoothness(moving, interpolate=way)) for way in ("blend", "flow"))
    assert warped > 0.99 > blended
    jerky = moving[:, :, [0, 0, 2, 4, 4]]  # stops and jumps
    assert float(motion_smoothness(jerky, interpolate="flow")) < warped - 0.01


def test_seam_ratio_of_a_made_sequence():
    clip = levels(0, 2, 4, 10, 12, 14, 20, 22)  # steps of 2, and of 6 into frames 3 and 6
    assert float(seam_ratio(clip, [3, 6])) == pytest.approx(3)
    assert float(seam_ratio(clip, [3])) == pytest.approx(6 / (16 / 6))
    assert float(seam_ratio(clip, [1, 2])) == pytest.approx(2 / (18 / 5))
    assert float(seam_ratio(levels(5, 5, 5), [1])) == 1
    assert float(seam_ratio(levels(5, 5, 9), [2])) == math.inf


@pytest.mark.parametrize(("seams", "words"), [([], "seams"), ([0], "1 to 2"), ([3], "1 to 2"), ([1, 2], "nothing")])
def test_seams_that_mean_nothing_are_refused(seams, words):
    with pytest.raises(BadInput, match=words):
        seam_ratio(levels(0, 1, 2), seams)


def test_cuts_are_found_where_they_are_and_motion_is_none():
    a, b = sliding(6, 1, seed=1) - 0.3, sliding(5, 1, seed=2) + 0.3
    cuts = find_cuts(torch.cat([a, b], 2))
    assert cuts[0].nonzero().flatten().tolist() == [5]
    assert not find_cuts(sliding(11, 3)).any()
    assert not find_cuts(levels(*range(0, 220, 20))).any()  # a steady fade
    assert not find_cuts(levels(9, 9, 9, 12, 9, 9)).any()  # too small to be another picture
    two = torch.cat([levels(0, 1, 2, 90, 91, 92, 93, 10, 11), levels(*range(9))])
    assert find_cuts(two).sum(1).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: flicker(levels(3)), BadInput, "at least 2"),
        (lambda: warping_error(levels(1, 2), torch.zeros(1, 2, 2, 8, 8)), BadInput, r"\(1, 2, 1, 8, 8\)"),
        (lambda: motion_smoothness(levels(1, 2)), BadInput, "at least 3"),
        (lambda: motion_smoothness(levels(1, 2, 3), interpolate="blent"), UnknownName, "blend"),
        (lambda: at_eight_fps(levels(1, 2), 0), BadInput, "fps"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
