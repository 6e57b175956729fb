"""Metrics against a reference, frame by frame: PSNR, SSIM, MS-SSIM and GMSD. All on RGB (or grey) levels in [0, 1].

Each `*_frames` function returns (B, T); the value of a clip is the mean over its frames, and of a set the mean over its
clips. PSNR has a second definition with one mean square per clip. Clips are (B, C, T, H, W), uint8 or float in [-1, 1],
both of one shape; everything is float64, since SSIM's variances lose their digits in float32.

Written here rather than taken from torchmetrics: these few functions would be all that the library used of it (its
Fréchet classes hold no mergeable moments and want torch-fidelity to be exported), and its SSIM pads where
scikit-image's crops.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from longtake.errors import BadInput
from longtake.evaluation.metrics.levels import check_alike, unit_levels

CEILING = 100.0
"""dB that an identical frame counts for in a mean; one level of difference in one 64 x 64 RGB frame's byte is 89 dB."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's five scales, finest first (Wang et al. 2003)."""
K1, K2 = 0.01, 0.03
LUMA = (0.299, 0.587, 0.114)
"""Grey from RGB, ITU-R BT.601."""


def psnr_frames(x: Tensor, y: Tensor) -> Tensor:
    """Return 10 log10(1 / MSE) of each frame in dB, (B, T); infinite where frames are identical."""
    check_alike(x, y)
    return -10 * (unit_levels(x) - unit_levels(y)).square().mean((1, 3, 4)).log10()


def psnr_frame_mean(x: Tensor, y: Tensor, *, ceiling: float = CEILING) -> Tensor:
    """Return the mean over frames of each frame's PSNR in dB, (B,), each frame counting for `ceiling` at most.

    Without a ceiling one identical frame, such as the given one of an image-to-video clip, would make it infinite.
    """
    return psnr_frames(x, y).clamp_max(ceiling).mean(1)


def psnr_global(x: Tensor, y: Tensor) -> Tensor:
    """Return the PSNR of each clip's one mean square over all its frames in dB, (B,); infinite for identical clips.

    Never above the frames' mean by more than rounding (Jensen), where no frame is above the ceiling.
    """
    check_alike(x, y)
    return -10 * (unit_levels(x) - unit_levels(y)).square().mean((1, 2, 3, 4)).log10()


def ssim_frames(x: Tensor, y: Tensor) -> Tensor:
    """Return the structural similarity of each frame in [-1, 1], (B, T); 1 for identical frames.

    Wang et al. 2004: 11 x 11 Gaussian windows of sigma 1.5 that lie wholly in the picture, K1 = 0.01, K2 = 0.03, mean
    over windows and channels. Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`.

    Raises:
        BadInput: clips of other shapes, or sides under 11 pixels.
    """
    check_alike(x, y)
    similarity, _ = _ssim_terms(_planes(x), _planes(y))
    return _per_frame(similarity, x)


def ms_ssim_frames(x: Tensor, y: Tensor, *, scales: int = 5) -> Tensor:
    """Return the multi-scale structural similarity of each frame in [0, 1], (B, T).

    Wang et al. 2003: contrast and structure at each scale, luminance at the coarsest, halved in between by 2 x 2 means;
    each channel's product is taken before their mean, and negative terms count as 0.

    Args:
        scales: 5 is the published metric and needs sides of 176 pixels here (sides of 11 pixels at the coarsest scale).
            Fewer, for small clips, use the first weights, rescaled to sum 1: another metric, to be named with its scales.

    Raises:
        BadInput: clips of other shapes, or too small for so many scales; the message names the most they allow.
    """
    check_alike(x, y)
    if not 1 <= scales <= len(SCALES):
        raise BadInput(f"MS-SSIM over {scales} scales; use 1 to {len(SCALES)}.")
    side = min(x.shape[-2:])
    allowed = sum(side >> scale >= 11 for scale in range(len(SCALES)))
    if scales > allowed:
        raise BadInput(
            f"MS-SSIM over {scales} scales needs sides of {11 << (scales - 1)} pixels; {x.shape[-2]}x{x.shape[-1]} "
            f"allows {allowed} scales."
        )
    whole = 1.0 if scales == len(SCALES) else sum(SCALES[:scales])  # the published five sum to 1.0001
    weights = [weight / whole for weight in SCALES[:scales]]
    a, b = _planes(x), _planes(y)
    product = torch.ones(1, dtype=torch.float64, device=a.device)
    for scale, weight in enumerate(weights):
        similarity, structure = _ssim_terms(a, b)
        product = product * (similarity if scale == scales - 1 else structure).clamp_min(0) ** weight
        if scale < scales - 1:
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return _per_frame(product, x)


def gmsd_frames(x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient magnitude similarity deviation of each frame, (B, T): 0 for identical frames, higher is worse.

    A structural perceptual distance without weights (Xue et al. 2014, arXiv 1308.3052), as in the authors' code: grey
    levels 0 to 255 averaged over 2 x 2 and halved, Prewitt gradients m with zeros outside the picture, similarity
    (2 m1 m2 + 170) / (m1^2 + m2^2 + 170), its standard deviation (N - 1) over the picture. Seldom above 0.35.

    Raises:
        BadInput: clips of other shapes, channels that are neither RGB nor grey, or sides under 4 pixels.
    """
    check_alike(x, y)
    if x.shape[1] not in (1, 3) or min(x.shape[-2:]) < 4:
        raise BadInput(f"GMSD of clips {tuple(x.shape)}; it takes 1 or 3 channels and sides of 4 pixels or more.")
    a, b = _gradients(x), _gradients(y)
    similarity = (2 * a * b + 170) / (a.square() + b.square() + 170)
    return similarity.std((1, 2)).view(x.shape[0], x.shape[2])


def _planes(pixels: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B C T, 1, H, W) in [0, 1]."""
    return unit_levels(pixels).flatten(0, 2)[:, None]


def _per_frame(planes: Tensor, like: Tensor) -> Tensor:
    """(B C T,) -> the mean over channels, (B, T)."""
    return planes.view(like.shape[:3]).mean(1)


def _ssim_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part, each the mean over windows of planes (P, 1, H, W): (P,), (P,)."""
    if min(a.shape[-2:]) < 11:
        raise BadInput(f"SSIM's windows are 11x11 pixels; {a.shape[-2]}x{a.shape[-1]} is too small.")
    mean_a, mean_b = _window(a), _window(b)
    variance_a, variance_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    return (luminance * structure).mean((1, 2, 3)), structure.mean((1, 2, 3))


def _window(planes: Tensor) -> Tensor:
    """Gaussian means over 11 x 11 windows that lie wholly inside, sigma 1.5."""
    offset = torch.arange(-5, 6, dtype=planes.dtype, device=planes.device)
    weight = (-offset.square() / (2 * 1.5**2)).exp()
    weight = weight / weight.sum()
    return conv2d(conv2d(planes, weight.view(1, 1, 11, 1)), weight.view(1, 1, 1, 11))


def _gradients(pixels: Tensor) -> Tensor:
    """Prewitt gradient magnitudes of halved grey frames: (B T, h, w)."""
    levels = 255 * unit_levels(pixels)
    grey = levels[:, 0]
    if pixels.shape[1] == 3:
        grey = (levels * levels.new_tensor(LUMA).view(3, 1, 1, 1)).sum(1)
    grey = grey.flatten(0, 1)[:, None]
    odd = (0, grey.shape[-1] % 2, 0, grey.shape[-2] % 2)
    halved = avg_pool2d(torch.nn.functional.pad(grey, odd), 2)
    slope = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=halved.dtype, device=halved.device) / 3
    both = conv2d(halved, torch.stack([slope, slope.T])[:, None], padding=1)
    return both.square().sum(1).sqrt()
