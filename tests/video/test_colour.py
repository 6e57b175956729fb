"""Known colours, encoded under every matrix and range, come back as the RGB they were."""

import av
import numpy as np
import pytest
import torch

from longtake.video import VideoReader, write_strip

# ITU-R BT.601, BT.709, BT.2020: luma weights of red and blue, and the code of the matrix in a stream (H.273)
MATRICES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1), "bt2020": (0.2627, 0.0593, 9)}
LIMITED, FULL = 1, 2
UNSAID = {"colorspace": 2, "color_range": 0}

PRIMARIES = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]
COLOURS = np.array([*PRIMARIES, [255, 220, 40], [30, 90, 160], [128, 128, 128]])
BLOCK = 16


def planes(colours, matrix, full, bits):
    """Y, Cb, Cr code values of each colour, straight from the equations of the recommendations."""
    red, blue, _ = MATRICES[matrix]
    r, g, b = colours.T / 255
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    unit, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        codes = (y * top, cb * top + 128 * unit, cr * top + 128 * unit)
    else:
        codes = ((16 + 219 * y) * unit, (128 + 224 * cb) * unit, (128 + 224 * cr) * unit)
    return [np.round(code).clip(0, top) for code in codes]


def bars(matrix, full, pixel_format, height=32):
    """A frame with one bar of 16 columns per colour."""
    bits = 10 if "10" in pixel_format else 8
    kind = np.uint8 if bits == 8 else np.uint16
    frame = av.VideoFrame(BLOCK * len(COLOURS), height, pixel_format)
    for plane, codes in zip(frame.planes, planes(COLOURS, matrix, full, bits), strict=True):
        row = codes.repeat(plane.width // len(COLOURS)).astype(kind)
        buffer = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        buffer[:, : plane.width] = row
        plane.update(buffer.tobytes())
    return frame


def colours_of(path):
    with VideoReader(path) as reader:
        frame = reader.frames([1])[0].numpy().astype(int)
    return frame[frame.shape[0] // 2, BLOCK // 2 :: BLOCK]


X264 = {"crf": "4", "preset": "fast"}
CARRIERS = [
    ("c.mkv", "ffv1", "yuv420p", {}),
    ("c.mkv", "ffv1", "yuv444p10le", {}),
    ("c.mp4", "libx264", "yuv420p", X264),
    ("c.mkv", "libx264", "yuv444p", X264),
    ("c.mp4", "libx265", "yuv420p10le", {"crf": "4", "x265-params": "log-level=error:pools=1"}),
    ("c.webm", "libvpx-vp9", "yuv420p", {"b": "0", "crf": "4", "deadline": "realtime", "cpu-used": "8"}),
    ("c.mp4", "libsvtav1", "yuv420p", {"crf": "4", "preset": "12"}),
]


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"), CARRIERS, ids=[f"{c[1]}-{c[2]}" for c in CARRIERS]
)
def test_tagged_streams(make_video, name, codec, pixel_format, options, matrix, full):
    tags = {"colorspace": MATRICES[matrix][2], "color_range": FULL if full else LIMITED}
    frames = [bars(matrix, full, pixel_format) for _ in range(3)]
    for frame in frames:
        frame.colorspace, frame.color_range = tags["colorspace"], tags["color_range"]
    path = make_video(name, codec, frames, pixel_format=pixel_format, options=options, tags=tags)
    assert np.abs(colours_of(path) - COLOURS).max() <= 3


@pytest.mark.parametrize(("height", "matrix"), [(480, "bt601"), (720, "bt709")])
def test_a_stream_that_does_not_say_is_limited_and_goes_by_its_height(make_video, height, matrix):
    frames = [bars(matrix, False, "yuv420p", height) for _ in range(2)]
    path = make_video("c.mkv", "ffv1", frames, tags=UNSAID)
    assert np.abs(colours_of(path) - COLOURS).max() <= 3


def test_jpeg_pixel_formats_are_full_range(make_video):
    frames = [bars("bt601", True, "yuvj420p") for _ in range(2)]
    path = make_video("c.avi", "mjpeg", frames, pixel_format="yuvj420p", options={"qmin": "1", "qmax": "1"})
    assert np.abs(colours_of(path) - COLOURS).max() <= 3


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "bgr0"), ("utvideo", "gbrp")])
def test_rgb_streams_are_left_as_they_are(make_video, codec, pixel_format):
    picture = COLOURS.astype(np.uint8).repeat(BLOCK, 0)[None].repeat(32, 0)
    path = make_video("c.avi", codec, [picture] * 2, pixel_format=pixel_format)
    assert np.array_equal(colours_of(path), COLOURS)


def test_grey_streams_are_full_range(make_video):
    picture = np.arange(0, 256, 2, dtype=np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    path = make_video("c.mkv", "ffv1", [picture] * 2, pixel_format="gray")
    frame = VideoReader(path).frames([0])[0].numpy().astype(int)
    assert np.abs(frame - picture).max() <= 1


def test_transparent_pixels_are_black(make_video):
    rgba = np.full((32, 32, 4), 200, np.uint8)
    rgba[:, :16, 3] = 0
    rgba[:, 16:, 3] = 255
    frames = [av.VideoFrame.from_ndarray(rgba, format="bgra") for _ in range(2)]
    path = make_video("t.mkv", "ffv1", frames, pixel_format="bgra")
    frame = VideoReader(path).frames([0])[0].numpy()
    assert (frame[:, :16] == 0).all()
    assert (frame[:, 16:] == 200).all()


def test_a_gif_keeps_its_colours(tmp_path):
    pixels = torch.full((1, 3, 3, 16, 16), -1.0)
    pixels[0, 0] = 1
    write_strip(pixels, tmp_path / "red.gif")
    frame = VideoReader(tmp_path / "red.gif").frames([0])[0].numpy()
    assert (frame == [255, 0, 0]).all()


# ------------------------------------------------------------------------------------------------------ display matrix


def corners(picture):
    """The colour names of the four corners, row by row."""
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    picked = picture[[3, 3, -4, -4], [3, -4, 3, -4]]
    return " ".join(names[tuple((colour > 128).astype(int).tolist())] for colour in picked)


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip", "expected"),
    [
        (0, False, False, "red green blue white"),
        (90, False, False, None),
        (180, False, False, "white blue green red"),
        (270, False, False, None),
        (0, True, False, "green red white blue"),
        (0, False, True, "blue white red green"),
    ],
)
def test_a_rotated_file_comes_out_upright(make_video, degrees, hflip, vflip, expected):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32], picture[:16, 32:], picture[16:, :32], picture[16:, 32:] = (
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255),
    )  # fmt: skip
    options = {"crf": "8", "preset": "fast"}
    path = make_video("r.mp4", "libx264", [picture] * 3, options=options, rotate=(degrees, hflip, vflip))
    with VideoReader(path) as reader:
        frame = reader.frames([0])[0].numpy()
        turned = degrees in (90, 270)
        assert frame.shape == ((64, 32, 3) if turned else (32, 64, 3)) == (reader.height, reader.width, 3)
        with av.open(str(path)) as container:
            anticlockwise = next(container.decode(video=0)).rotation
        if not (hflip or vflip):
            assert reader.rotation == -anticlockwise % 360
            # FFmpeg states the turn anticlockwise, as numpy does.
            expected = corners(np.rot90(picture, anticlockwise // 90))
        assert corners(frame) == expected
