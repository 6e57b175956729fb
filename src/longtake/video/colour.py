"""Decoded frames to upright RGB bytes: colour range, YCbCr matrix, alpha and the display matrix are all honoured."""

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

# Exact arithmetic and interpolated chroma: swscale without these flags is up to 4 levels off (mean 1.2; with them 0.4).
ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

# ITU-T H.273 MatrixCoefficients -> swscale. 10 (constant luminance) is not implemented there and takes its neighbour.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_UNSPECIFIED = 2
_HD_HEIGHT = 576

Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """One decoded frame -> uint8 (H, W, 3) full-range RGB, as stored (not yet turned upright).

    A stream that does not say which matrix it uses is taken as bt.709 above 576 rows and as bt.601 otherwise, which
    is what players do; one that does not say its range is limited, unless its pixel format is RGB, grey or ``yuvj``.
    Primaries and transfer are left alone: a wide-gamut or HDR clip keeps its own code values. Transparent pixels
    are composited on black.
    """
    name = frame.format.name
    alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    rgb = reformatter.reformat(
        frame,
        format="rgba" if alpha else "rgb24",
        src_colorspace=_matrix(frame),
        dst_colorspace=Colorspace.ITU709,
        src_color_range=_range(frame, name),
        dst_color_range=ColorRange.JPEG,
        interpolation=ACCURATE,
        threads=1,
    ).to_ndarray()
    if not alpha:
        return rgb
    opacity = rgb[..., 3:].astype(np.uint16)
    return ((rgb[..., :3] * opacity + 127) // 255).astype(np.uint8)


def _matrix(frame: VideoFrame) -> Colorspace | None:
    if frame.format.is_rgb:
        return None
    if frame.colorspace == _UNSPECIFIED:
        return Colorspace.ITU709 if frame.height > _HD_HEIGHT else Colorspace.ITU601
    return _MATRICES.get(int(frame.colorspace))


def _range(frame: VideoFrame, name: str) -> ColorRange:
    if int(frame.color_range) in (ColorRange.MPEG, ColorRange.JPEG):
        return ColorRange(int(frame.color_range))
    full = frame.format.is_rgb or name.startswith(("yuvj", "gray", "mono", "pal8"))
    return ColorRange.JPEG if full else ColorRange.MPEG


def display_matrix(frame: VideoFrame) -> Matrix:
    """The quarter turn and mirror that the file asks of a player, as signs (a, b, c, d): (x, y) -> (ax+cy, bx+dy)."""
    data = next((bytes(item) for item in frame.side_data if item.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(data, dtype=np.int32)[:5].tolist()
    if a * d - b * c == 0:
        return UPRIGHT
    if abs(a) >= abs(b):
        return (_sign(a), 0, 0, _sign(d))
    return (0, _sign(b), _sign(c), 0)


def turn(pixels: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Apply a display matrix to (H, W, C): a view, never a copy. Quarter turns swap height and width."""
    a, b, c, d = matrix
    if a == 0:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]


def clockwise_degrees(matrix: Matrix) -> int:
    """0, 90, 180 or 270: how far the stored picture is turned clockwise to stand upright (mirrors not counted)."""
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[matrix[:2]]


def _sign(value: int) -> int:
    return 1 if value > 0 else -1
