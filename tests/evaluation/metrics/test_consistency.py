"""Consistency and drift of features whose angles are known."""

import math

import pytest
import torch

from longtake.errors import BadInput
from longtake.evaluation.metrics.consistency import (
    drift,
    drift_curve,
    drift_slope,
    frame_consistency,
    statistic_curve,
    window_consistency,
    window_starts,
)
from longtake.evaluation.metrics.frechet import Moments, frechet_distance


def turning(*degrees):
    """Unit features at these angles, of any length: (T, 2)."""
    angle = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    lengths = torch.arange(1, len(degrees) + 1).double()
    return torch.stack([angle.cos(), angle.sin()], 1) * lengths[:, None]


def cos(degrees):
    return max(0.0, math.cos(math.radians(degrees)))


def test_is_vbenchs_formula():
    # frame 1: before 30, first 30; frame 2: before 30, first 60; frame 3: before 60, first 120, which counts 0.
    expected = ((cos(30) + cos(30)) / 2 + (cos(30) + cos(60)) / 2 + (cos(60) + 0) / 2) / 3
    assert float(frame_consistency(turning(0, 30, 60, 120))) == pytest.approx(expected)
    # Opposite to the frame before, and alike the first: only the second half counts.
    assert float(frame_consistency(turning(0, 180, 0))) == pytest.approx((0 + 0.5) / 2)
    both = frame_consistency(torch.stack([turning(0, 30, 60, 120), turning(5, 5, 5, 5)]))
    assert both.tolist() == pytest.approx([expected, 1.0])


def test_windows_compare_with_the_clips_start_or_their_own():
    f = turning(0, 0, 60, 60, 60, 60)
    to_clip = window_consistency(f, 3)
    to_self = window_consistency(f, 3, anchor="window")
    first = ((1 + 1) / 2 + (0.5 + 0.5) / 2) / 2
    assert to_clip.tolist() == pytest.approx([first, (1 + 0.5) / 2])
    assert to_self.tolist() == pytest.approx([first, 1.0])
    assert window_consistency(f.expand(4, 6, 2), 3, stride=1).shape == (4, 4)
    assert float(window_consistency(f, 6)) == pytest.approx(float(frame_consistency(f)))


def test_drift_grows_with_the_angle_from_the_first_window():
    f = turning(0, 0, 20, 20, 40, 40, 90, 90)
    expected = [0, 1 - cos(20), 1 - cos(40), 1.0]
    torch.testing.assert_close(drift(f, 2), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
    assert drift(turning(0, 180)).tolist() == [0, 2]  # as many frames as there are
    assert drift(torch.randn(5, 16, 7)).shape == (5, 4)


def test_curves_are_means_over_windows_and_slopes_are_theirs():
    values = torch.stack([torch.arange(9.0), torch.full((9,), 3.0)])
    curve = drift_curve(values, 2)
    assert curve.tolist() == [[0.5, 2.5, 4.5, 6.5], [3, 3, 3, 3]]  # frame 8 is in no whole window
    assert drift_slope(curve).tolist() == pytest.approx([2.0, 0.0])
    noisy = torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert float(drift_slope(noisy)) == pytest.approx(0.2)  # by hand: sum (w - 1.5) c / sum (w - 1.5)^2


def test_a_statistic_of_sets_along_time():
    features = torch.randn(30, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features[:, 4:] += 2.0
    real = Moments.of(features[:, :4].flatten(0, 1))
    curve = statistic_curve(features, lambda f: frechet_distance(Moments.of(f.flatten(0, 1)), real), 4)
    assert curve[0] < 1e-9 and curve[1] == pytest.approx(12, rel=0.2)
    pixels = torch.zeros(2, 3, 6, 4, 4)
    pixels[:, :, 3:] = 1.0
    assert statistic_curve(pixels, lambda p: p.mean((1, 2, 3, 4)), 3, dim=2).tolist() == [[0, 0], [1, 1]]


def test_windows_cover_whole_pieces_only():
    assert window_starts(10, 4) == [0, 4]
    assert window_starts(10, 4, 3) == [0, 3, 6]
    for frames, window, stride in ((3, 4, None), (3, 0, None), (3, 2, 0)):
        with pytest.raises(BadInput, match="windows"):
            window_starts(frames, window, stride)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frame_consistency(torch.zeros(1, 4)), "2 frames"),
        (lambda: frame_consistency(torch.full((3, 4), math.nan)), "not finite"),
        (lambda: window_consistency(torch.ones(4, 2), 1), "2 or more"),
        (lambda: window_consistency(torch.ones(4, 2), 2, anchor="frame"), "anchor"),
        (lambda: drift_slope(torch.ones(1)), "at least 2"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(BadInput, match=words):
        call()
