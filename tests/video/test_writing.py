"""What is written reads back close (or equal), says what it is, and is there whole or not at all."""

import contextlib
import errno
import os
import resource
import subprocess
import sys

import av
import numpy as np
import pytest
import torch

from longtake.errors import BadInput, BadOutput, UnknownName
from longtake.video import Clip, read_clip, to_uint8, write_bytes, write_clip


def smooth(frames=6, height=48, width=64):
    """A moving colour gradient over the whole range, (1, 3, T, H, W)."""
    t, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (frames, height, width)), indexing="ij")
    return torch.stack([x, y, (x + y + t) / 3])[None] * 2 - 1


def levels(a, b):
    return (to_uint8(a).int() - to_uint8(b).int()).abs()


LOSSY = [
    ("a.mp4", "libx264"),
    ("a.mkv", "libx264"),
    ("a.avi", "libx264"),
    ("a.mov", "libx265"),
    ("a.webm", "libvpx-vp9"),
    ("a.mp4", "libsvtav1"),
]


@pytest.mark.parametrize(("name", "codec"), LOSSY)
def test_reading_gives_back_what_was_written(tmp_path, name, codec):
    pixels = smooth()
    write_clip(Clip(pixels, 24), tmp_path / name, codec=codec, crf=8)
    clip = read_clip(tmp_path / name)
    assert clip.pixels.shape == pixels.shape
    assert clip.fps == 24
    error = levels(clip.pixels, pixels).float()
    assert error.mean() < 1.5
    assert error.max() <= 10
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "size"), [("a.mkv", (48, 64)), ("a.avi", (48, 64)), ("a.mkv", (7, 9)), ("a.mkv", (1, 1))]
)
def test_ffv1_is_lossless_at_any_size(tmp_path, name, size):
    pixels = torch.rand(1, 3, 4, *size) * 2 - 1
    write_clip(Clip(pixels, 8), tmp_path / name, codec="ffv1")
    assert torch.equal(to_uint8(read_clip(tmp_path / name).pixels), to_uint8(pixels))


def test_an_odd_size_grows_by_a_copy_of_its_edge(tmp_path):
    pixels = smooth(height=47, width=63)
    write_clip(Clip(pixels, 8), tmp_path / "odd.mp4", crf=4)
    back = read_clip(tmp_path / "odd.mp4").pixels
    assert back.shape[-2:] == (48, 64)
    assert levels(back[..., :47, :63], pixels).float().mean() < 1.5
    assert levels(back[..., 47, :63], pixels[..., 46, :]).max() <= 12
    assert levels(back[..., :47, 63], pixels[..., 62]).max() <= 12


def test_the_file_says_bt709_and_limited(tmp_path):
    write_clip(Clip(smooth(), 8), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    assert frame.format.name == "yuv420p"
    white = Clip(torch.ones(1, 3, 2, 16, 16), 8)
    write_clip(white, tmp_path / "w.mp4")
    with av.open(str(tmp_path / "w.mp4")) as container:
        luma = next(container.decode(video=0)).to_ndarray()[:16]
    assert np.abs(luma.astype(int) - 235).max() <= 1


@pytest.mark.parametrize("fps", [1, 8, 23.976, 24000 / 1001, 29.97, 59.94])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_frame_rate_is_kept(tmp_path, name, fps):
    write_clip(Clip(smooth(12), fps), tmp_path / name)
    clip = read_clip(tmp_path / name)
    assert clip.fps == pytest.approx(fps, rel=1e-4)
    assert np.allclose(clip.times, np.arange(12) / fps, atol=1.1e-3)


def test_tensors_grey_clips_and_another_rate(tmp_path):
    write_clip(smooth()[0], tmp_path / "a.mp4", fps=5)
    assert read_clip(tmp_path / "a.mp4").fps == 5
    write_clip(Clip(smooth(), 8), tmp_path / "a.mp4", fps=12)
    assert read_clip(tmp_path / "a.mp4").fps == 12
    write_clip(Clip(smooth()[:, :1], 8), tmp_path / "g.mkv", codec="ffv1")
    assert torch.equal(
        to_uint8(read_clip(tmp_path / "g.mkv").pixels), to_uint8(smooth()[:, :1].expand(1, 3, -1, -1, -1))
    )


def test_half_precision_and_gradients_are_no_trouble(tmp_path):
    write_clip(Clip(smooth().bfloat16().requires_grad_(), 8), tmp_path / "a.mp4")
    assert read_clip(tmp_path / "a.mp4").frames == 6


WRITE = """
import sys, torch
from longtake.video import Clip, write_clip
t, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (17, 64, 64)), indexing="ij")
noise = torch.randn(1, 3, 17, 64, 64, generator=torch.Generator().manual_seed(0))
pixels = (torch.stack([x, y, (x + y + t) / 3])[None] * 2 - 1 + 0.03 * noise).clamp(-1, 1)
write_clip(Clip(pixels, 8), sys.argv[1])
"""


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mkv"), ("ffv1", "mkv"), ("libvpx-vp9", "webm"), ("ffv1", "avi")]
)
def test_the_same_clip_makes_the_same_file_in_every_container(tmp_path, codec, suffix):
    """Matroska's own marks are random numbers."""
    pixels = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name in ("one", "other"):
        write_clip(Clip(pixels, 8), tmp_path / f"{name}.{suffix}", codec=codec)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_same_clip_makes_the_same_file_whatever_was_in_memory(tmp_path):
    """glibc fills fresh memory with the given byte: an encoder that reads what it never wrote gives itself away."""
    for byte in ("1", "77", "170"):
        environment = os.environ | {"MALLOC_PERTURB_": byte}
        subprocess.run([sys.executable, "-c", WRITE, tmp_path / f"{byte}.mp4"], env=environment, check=True)
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 1


@pytest.mark.parametrize(
    ("clip", "kwargs", "error", "word"),
    [
        (smooth(), {}, BadInput, "fps"),
        (Clip(smooth().expand(2, -1, -1, -1, -1), 8), {}, BadInput, "one RGB"),
        (Clip(torch.zeros(1, 4, 2, 8, 8), 8), {}, BadInput, "RGB"),
        (Clip(smooth(), 8), {"fps": 0.0}, BadInput, "fps"),
        (Clip(smooth(), 8), {"crf": 99}, BadInput, "crf"),
        (Clip(smooth(), 8), {"codec": "libx26"}, UnknownName, "libx26[45]"),
    ],
)
def test_what_cannot_be_one_video_is_refused(tmp_path, clip, kwargs, error, word):
    with pytest.raises(error, match=word):
        write_clip(clip, tmp_path / "a.mp4", **kwargs)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["none/a.mp4", "a.xyz", "a", "a.webm"])
def test_an_impossible_output_is_named_and_leaves_nothing(tmp_path, name):
    with pytest.raises(BadOutput) as caught:
        write_clip(Clip(smooth(), 8), tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(BadOutput, match="folder"):
        write_clip(Clip(smooth(), 8), tmp_path / "a.mp4")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere
        folder = "/proc"
    with pytest.raises(BadOutput):
        write_clip(Clip(smooth(), 8), f"{folder}/a.mp4")


@contextlib.contextmanager
def almost_full_disk():
    """Writes beyond 1,000 bytes of a file fail, as on a full disk: also of the file that pytest may report to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(b"old")
    with almost_full_disk(), pytest.raises(BadOutput, match=r"a\.mkv cannot be written"):
        write_clip(Clip(torch.rand(1, 3, 4, 48, 64) * 2 - 1, 8), path, codec="ffv1")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.mkv"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_at_the_last_moment_leaves_nothing(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(BadOutput, match="No space left"):
        write_bytes(tmp_path / "a.bin", b"new")
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.bin", b"new")
    assert os.listdir(tmp_path) == []
