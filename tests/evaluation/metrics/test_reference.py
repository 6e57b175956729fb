"""Metrics against a reference: scikit-image's numbers, direct definitions, and how they fall with damage."""

import math

import numpy as np
import pytest
import torch

from longtake.errors import BadInput
from longtake.evaluation.metrics.reference import (
    SCALES,
    gmsd_frames,
    ms_ssim_frames,
    psnr_frame_mean,
    psnr_frames,
    psnr_global,
    ssim_frames,
)


def clips(*shape, seed=0, noise=0.1):
    """A random clip in [-1, 1] and the same with noise that grows from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    growing = torch.linspace(noise, 3 * noise, shape[2]).view(-1, 1, 1)
    y = (x + growing * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    return x, y


def unit(frame):
    return (frame.movedim(0, -1).numpy() + 1) / 2  # (H, W, C) in [0, 1]


@pytest.mark.parametrize("shape", [(2, 3, 3, 17, 24), (1, 1, 2, 11, 13)])
def test_psnr_and_ssim_are_scikit_images(shape):
    metrics = pytest.importorskip("skimage.metrics")
    x, y = clips(*shape)
    psnr, ssim = psnr_frames(x, y), ssim_frames(x, y)
    assert psnr.shape == ssim.shape == (shape[0], shape[2])
    for b in range(shape[0]):
        for t in range(shape[2]):
            a, c = unit(x[b, :, t]), unit(y[b, :, t])
            expected = metrics.peak_signal_noise_ratio(a, c, data_range=1)
            assert float(psnr[b, t]) == pytest.approx(expected, abs=1e-6)
            expected = metrics.structural_similarity(
                a,
                c,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1,
                channel_axis=-1,
            )
            assert float(ssim[b, t]) == pytest.approx(expected, abs=1e-6)


def test_bytes_and_floats_of_the_same_levels_measure_the_same():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randint(0, 256, (1, 3, 2, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2))
    for measure in (psnr_frames, ssim_frames, gmsd_frames, psnr_global):
        floats = measure(x.double() / 127.5 - 1, y.double() / 127.5 - 1)
        torch.testing.assert_close(measure(x, y), floats, atol=1e-9, rtol=1e-9)


def test_one_level_everywhere_is_48_db():
    x = torch.full((1, 3, 4, 8, 8), 100, dtype=torch.uint8)
    assert psnr_frames(x, x + 1)[0, 0] == pytest.approx(20 * math.log10(255))


def test_the_two_psnrs_differ_as_defined_and_identical_frames_have_a_ceiling():
    x, y = clips(2, 3, 4, 8, 8)
    squares = (10 ** (-psnr_frames(x, y) / 10)).mean(1)
    torch.testing.assert_close(psnr_global(x, y), -10 * squares.log10())
    torch.testing.assert_close(psnr_frame_mean(x, y), psnr_frames(x, y).mean(1))
    assert (psnr_frame_mean(x, y) > psnr_global(x, y) + 0.1).all()
    y[:, :, 0] = x[:, :, 0]
    assert psnr_frames(x, y)[:, 0].isinf().all() and psnr_global(x, y).isfinite().all()
    mean = psnr_frame_mean(x, y, ceiling=60)
    torch.testing.assert_close(mean, (60 + psnr_frames(x, y)[:, 1:].sum(1)) / 4)


def filtered_terms(a, b):
    """SSIM's two terms by SciPy's Gaussian filter, for one channel in [0, 1]."""
    ndimage = pytest.importorskip("scipy.ndimage")

    def mean(z):
        return ndimage.gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5]

    ma, mb = mean(a), mean(b)
    structure = (2 * (mean(a * b) - ma * mb) + 0.03**2) / (mean(a * a) - ma**2 + mean(b * b) - mb**2 + 0.03**2)
    luminance = (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
    return (luminance * structure).mean(), structure.mean()


@pytest.mark.parametrize(("scales", "whole", "side"), [(3, sum(SCALES[:3]), 48), (5, 1.0, 176)])
def test_ms_ssim_is_the_weighted_product_over_halved_pictures(scales, whole, side):
    x, y = clips(1, 2, 1, side, side + 16, noise=0.3)
    expected = []
    for channel in range(2):
        a, b = ((z[0, channel, 0].numpy() + 1) / 2 for z in (x, y))
        product = 1.0
        for scale in range(scales):
            both, structure = filtered_terms(a, b)
            product *= (both if scale == scales - 1 else structure) ** (SCALES[scale] / whole)
            if scale < scales - 1:
                a, b = (z.reshape(z.shape[0] // 2, 2, z.shape[1] // 2, 2).mean((1, 3)) for z in (a, b))
        expected.append(product)
    assert float(ms_ssim_frames(x, y, scales=scales)) == pytest.approx(np.mean(expected), abs=1e-8)


def test_ms_ssim_of_one_scale_is_ssim_and_the_published_one_needs_large_pictures():
    x, y = clips(1, 3, 2, 40, 40)
    torch.testing.assert_close(ms_ssim_frames(x, y, scales=1), ssim_frames(x, y))
    with pytest.raises(BadInput, match=r"176 pixels.*allows 2 scales"):
        ms_ssim_frames(x, y)
    large = torch.rand(1, 1, 1, 176, 180, generator=torch.Generator().manual_seed(2))
    assert float(ms_ssim_frames(large, large)) == pytest.approx(1)
    assert 0 <= float(ms_ssim_frames(large, -large)) < 0.5  # negative structure counts as none


def test_gmsd_is_its_definition():
    signal = pytest.importorskip("scipy.signal")
    x, y = clips(1, 3, 2, 15, 18, noise=0.3)

    def gradient(frame):
        grey = 255 * unit(frame) @ np.array([0.299, 0.587, 0.114])
        mean = signal.convolve2d(grey, np.full((2, 2), 0.25), mode="full")[1:, 1:][::2, ::2]  # zeros beyond the edge
        slope = np.array([[1, 0, -1]] * 3) / 3
        return np.hypot(*(signal.convolve2d(mean, k, mode="same") for k in (slope, slope.T)))

    for t in range(2):
        a, b = gradient(x[0, :, t]), gradient(y[0, :, t])
        expected = np.std((2 * a * b + 170) / (a**2 + b**2 + 170), ddof=1)
        assert expected > 0.05
        assert float(gmsd_frames(x, y)[0, t]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("measure", "best", "sign"), [(psnr_frames, math.inf, 1), (ssim_frames, 1.0, 1), (gmsd_frames, 0.0, -1)]
)
def test_identical_is_best_and_growing_noise_is_worse(measure, best, sign):
    rows = torch.linspace(-1, 1, 32)
    x = (rows[:, None] * rows.flip(0)).expand(1, 3, 4, 32, 32).double()
    noise = torch.randn(x.shape[-2:], generator=torch.Generator().manual_seed(3)).double()
    y = x + noise * torch.tensor([0.02, 0.05, 0.1, 0.2]).view(4, 1, 1)
    assert measure(x, x).tolist() == [[best] * 4]
    values = (sign * measure(x, y))[0].tolist()
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: psnr_frames(torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 2, 8, 9)), "one size"),
        (lambda: psnr_frames(torch.zeros(3, 2, 8, 8), torch.zeros(3, 2, 8, 8)), "batch, channels"),
        (lambda: ssim_frames(torch.zeros(1, 3, 1, 10, 30), torch.zeros(1, 3, 1, 10, 30)), "11x11"),
        (lambda: gmsd_frames(torch.zeros(1, 2, 1, 10, 30), torch.zeros(1, 2, 1, 10, 30)), "channels"),
        (lambda: psnr_global(torch.full((1, 1, 1, 8, 8), math.nan), torch.zeros(1, 1, 1, 8, 8)), "not finite"),
        (lambda: psnr_global(torch.zeros(1, 1, 1, 8, 8).int(), torch.zeros(1, 1, 1, 8, 8).int()), "uint8"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, words):
    with pytest.raises(BadInput, match=words):
        call()
