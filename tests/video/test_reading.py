"""Frames by number and by time: exact in every codec and container, seeking or not."""

import gc
import multiprocessing
import os
import pickle
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from longtake.errors import BadInput
from longtake.video import VideoReader, decoding, read_clip, write_clip

X264 = {"g": "12", "crf": "12", "preset": "ultrafast", "bf": "3"}
OPEN_GOP = X264 | {"preset": "fast", "x264-params": "open-gop=1"}
REFRESH = X264 | {"x264-params": "intra-refresh=1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=error:keyint=12:open-gop=1:bframes=3:pools=1"}
VP = {"b": "2M", "deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "12"}
AV1 = {"preset": "12", "g": "12", "crf": "10"}

# name, codec, options of ``encode``, and whether a seek that fails is expected
FILES = [
    ("h264.mp4", "libx264", {"options": X264}, False),
    ("h264.mkv", "libx264", {"options": OPEN_GOP}, False),
    ("h264.ts", "libx264", {"options": OPEN_GOP}, False),
    ("h264.avi", "libx264", {"options": X264}, False),
    ("h264.flv", "libx264", {"options": X264}, False),
    (
        "fragments.mp4",
        "libx264",
        {"options": X264, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
        False,
    ),
    ("raw.264", "libx264", {"options": X264}, False),
    ("refresh.mp4", "libx264", {"options": REFRESH}, True),
    ("hevc.mp4", "libx265", {"options": X265}, False),
    ("hevc10.mkv", "libx265", {"options": X265, "pixel_format": "yuv420p10le"}, False),
    ("vp9.webm", "libvpx-vp9", {"options": VP}, False),
    ("vp8.webm", "libvpx", {"options": VP}, False),
    ("av1.mp4", "libsvtav1", {"options": AV1}, False),
    ("av1.webm", "libsvtav1", {"options": AV1}, False),
    ("b.avi", "mpeg4", {"b_frames": 2}, False),
    ("b.mp4", "mpeg4", {"b_frames": 2}, False),
    ("b.mpg", "mpeg2video", {"b_frames": 2}, False),
    ("b.ts", "mpeg2video", {"b_frames": 2}, False),
    ("j.avi", "mjpeg", {"pixel_format": "yuvj420p"}, False),
    ("f.mkv", "ffv1", {"pixel_format": "bgr0"}, False),
    ("g.gif", "gif", {"pixel_format": "rgb8"}, False),
]


@pytest.mark.parametrize(("name", "codec", "how", "may_miss"), FILES, ids=[f[0] for f in FILES])
def test_frames_by_number_are_exact(make_video, number_of, monkeypatch, name, codec, how, may_miss):
    path = make_video(name, codec, 50, **how)
    with VideoReader(path) as reader:
        assert reader.frame_count == len(reader) == 50
        assert (reader.height, reader.width, reader.fps) == (48, 64, 25)
        sequential = reader.frames(range(50)).numpy()
        assert [number_of(frame) for frame in sequential] == list(range(50))
        assert np.allclose(reader.timestamps, np.arange(50) / 25, atol=1e-3)

    monkeypatch.setattr(decoding, "SHORT", 0)
    with VideoReader(path) as reader:
        for number in random.Random(0).sample(range(50), 12):
            assert np.array_equal(reader.frames([number])[0].numpy(), sequential[number]), number
        assert reader.fallbacks == 0 or may_miss


def test_any_order_and_repeats(make_video, number_of):
    with VideoReader(make_video("a.mp4")) as reader:
        frames = reader.frames([7, 3, 3, 39, 0, 7])
        assert frames.shape == (6, 48, 64, 3)
        assert frames.dtype == torch.uint8
        assert [number_of(frame.numpy()) for frame in frames] == [7, 3, 3, 39, 0, 7]
        assert reader.frames([]).shape == (0, 48, 64, 3)


def test_a_number_outside_the_video_names_the_frames_it_has(make_video):
    with VideoReader(make_video("a.mp4", "libx264", 5)) as reader:
        for number in (5, -1):
            with pytest.raises(BadInput, match=f"no frame {number}.*0 to 4"):
                reader.frames([0, number])


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_variable_frame_rate_keeps_its_timestamps(make_video, number_of, monkeypatch, name):
    gaps = random.Random(0).choices([300, 600, 777, 1500, 9000], k=49)
    pts = [0, *np.cumsum(gaps).tolist()]
    path = make_video(name, "libx264", 50, pts=pts, time_base=Fraction(1, 15360), options=X264)
    monkeypatch.setattr(decoding, "SHORT", 0)
    with VideoReader(path) as reader:
        assert np.allclose(reader.timestamps, np.array(pts) / 15360, atol=6e-4)
        assert reader.fps == pytest.approx(49 / (pts[-1] / 15360), rel=1e-3)
        for number in (44, 3, 21):
            assert number_of(reader.frames([number])[0].numpy()) == number


def test_seeking_decodes_nothing_before_the_key_frame(make_video, number_of, monkeypatch):
    path = make_video("a.mp4", "libx264", 60, options=X264)
    reader = VideoReader(path)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[4:20]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)

    monkeypatch.setattr(decoding, "SHORT", 0)
    assert number_of(reader.frames([50])[0].numpy()) == 50
    assert reader.fallbacks == 0


def test_reading_onwards_decodes_each_frame_once(make_video, monkeypatch):
    decoded = []
    decode = decoding._decoded

    def counting(*args):
        for frame in decode(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decoding, "_decoded", counting)
    with VideoReader(make_video("a.mp4")) as reader:
        for start in range(0, 40, 10):
            reader.frames(range(start, start + 10))
    assert len(decoded) == 40


@pytest.mark.parametrize("seeking", [True, False])
def test_an_index_that_lies_is_found_out(make_video, number_of, monkeypatch, seeking):
    """A wrong timestamp or key frame costs a fall back to decoding from the start, never a wrong frame."""
    path = make_video("a.mp4", "libx264", 60, options=X264)
    true = VideoReader(path).index
    lie = replace(true, pts=tuple(p + (i > 30) for i, p in enumerate(true.pts)))
    if seeking:
        monkeypatch.setattr(decoding, "SHORT", 0)
        lie = replace(true, seeks=(*true.seeks[:-2], true.seeks[-1], true.seeks[-1]))
    with VideoReader(path, index=lie) as reader:
        assert number_of(reader.frames([40])[0].numpy()) == 40
        assert reader.fallbacks == 1
        assert number_of(reader.frames([57])[0].numpy()) == 57
        assert number_of(reader.frames([2])[0].numpy()) == 2
        assert reader.fallbacks == 1


def test_a_stream_whose_first_packet_matters_is_read_the_same_after_a_seek(make_video, monkeypatch):
    """x264 before build 151 coded 4:4:4 differently, and says its build in the first packet only.

    Here a new stream claims to be an old one: a decoder that knows the claim garbles it, one that does not does not.
    """
    row, column = np.mgrid[:48, :64]
    waves = [
        np.sin((column + 3 * t) / 7)[..., None] * 60 + np.cos((row - 2 * t) / 5)[..., None] * 40 for t in range(40)
    ]
    noise = np.random.default_rng(0).normal(128, 10, (40, 48, 64, 3))
    pictures = list((noise + waves * np.array([1, -1, 0.5])).clip(0, 255).astype(np.uint8))
    options = X264 | {"preset": "medium", "x264-params": "8x8dct=1:cabac=1"}
    path = make_video("a.mp4", "libx264", pictures, pixel_format="yuv444p", options=options)
    honest = VideoReader(path).frames(range(40))
    data = path.read_bytes()
    at = data.index(b"x264 - core ") + len(b"x264 - core ")
    path.write_bytes(data[:at] + b"142" + data[at + 3 :])
    sequential = VideoReader(path).frames(range(40))
    second = VideoReader(path).index.keys[1]
    garbled = [i for i in range(second, 40) if not torch.equal(sequential[i], honest[i])]
    if not garbled:
        pytest.skip("this build of FFmpeg and x264 garbles nothing of the sample")

    monkeypatch.setattr(decoding, "SHORT", 0)
    with VideoReader(path) as reader:
        assert torch.equal(reader.frames(garbled[:1])[0], sequential[garbled[0]])
        assert reader.fallbacks == 0


def _read_in_child(reader, queue):
    queue.put(reader.frames([9]).numpy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_open_reader_survives_a_fork(make_video, number_of):
    context = multiprocessing.get_context("fork")
    with VideoReader(make_video("a.mp4")) as reader:
        reader.frames([5])
        queue = context.Queue()
        child = context.Process(target=_read_in_child, args=(reader, queue))
        child.start()
        assert number_of(queue.get(timeout=60)[0]) == 9
        child.join(60)
        assert child.exitcode == 0
        assert number_of(reader.frames([6])[0].numpy()) == 6


def test_a_reader_can_be_pickled_while_open(make_video, number_of):
    with VideoReader(make_video("a.mp4")) as reader:
        reader.frames([5])
        copy = pickle.loads(pickle.dumps(reader))
    assert number_of(copy.frames([8])[0].numpy()) == 8


def test_no_file_is_held_open_by_an_idle_reader(make_video):
    path = make_video("a.mp4")
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("no /proc here")
    readers = [VideoReader(path) for _ in range(3)]
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert readers[0].frame_count == 40


def test_sound_is_left_alone(make_video, number_of):
    with VideoReader(make_video("a.mp4", audio=True)) as reader:
        assert [number_of(f) for f in reader.frames([0, 20, 39]).numpy()] == [0, 20, 39]


# ---------------------------------------------------------------------------------------------------------- read_clip


def test_read_clip_returns_the_window(make_video, number_of):
    clip = read_clip(make_video("a.mp4"), start=4, frames=5, stride=3)
    assert clip.pixels.shape == (1, 3, 5, 48, 64)
    assert clip.pixels.dtype == torch.float32
    frames = ((clip.pixels[0].movedim(0, -1) + 1) * 127.5).numpy()
    assert [number_of(frame) for frame in frames] == [4, 7, 10, 13, 16]
    assert clip.fps == pytest.approx(25 / 3)
    assert clip.times == pytest.approx([4 / 25, 7 / 25, 10 / 25, 13 / 25, 16 / 25])


@pytest.mark.parametrize("name", ["r.mp4", "r.mkv"])
def test_resampling_a_constant_rate(make_video, name):
    path = make_video(name, "libx264", 30, rate=30, options=X264)
    down = read_clip(path, fps=10)
    assert (down.fps, down.frames) == (10, 10)
    assert np.allclose(down.times, np.arange(10) / 10, atol=1e-3)
    same = read_clip(path, fps=30)
    assert np.allclose(same.times, np.arange(30) / 30, atol=1e-3)
    up = read_clip(path, fps=60)
    assert up.frames == 60
    assert np.abs(np.array(up.times) - np.arange(60) / 60).max() <= 1 / 60 + 1e-3
    strided = read_clip(path, start=6, fps=10, stride=2, frames=3)
    assert strided.fps == 5
    assert np.allclose(strided.times, [0.2, 0.4, 0.6], atol=1e-3)


def test_resampling_follows_timestamps_not_frame_numbers(make_video, number_of):
    """Ten frames in the first second, then one frame each second: at 2 fps, two frames of ten, then each twice."""
    pts = [*range(0, 1000, 100), 1000, 2000, 3000]
    path = make_video("v.mp4", "libx264", 13, pts=pts, time_base=Fraction(1, 1000), options=X264)
    clip = read_clip(path, fps=2, frames=7)
    frames = ((clip.pixels[0].movedim(0, -1) + 1) * 127.5).numpy()
    assert [number_of(frame) for frame in frames] == [0, 5, 10, 10, 11, 11, 12]


@pytest.mark.parametrize(
    "window",
    [
        {"start": 40},
        {"start": -1},
        {"stride": 0},
        {"frames": 0},
        {"frames": 41},
        {"fps": 0},
        {"start": 30, "frames": 11},
    ],
)
def test_a_window_that_the_video_does_not_have_is_refused(make_video, window):
    with pytest.raises(BadInput):
        read_clip(make_video("a.mp4"), **window)


def test_a_dropped_file_does_not_stop_a_forked_worker(tmp_path: Path) -> None:
    """A reference cycle keeps an open, threaded decoder alive until a collection; that one must not be the child's."""

    path = tmp_path / "clip.mp4"
    write_clip(torch.rand(1, 3, 8, 64, 64) * 2 - 1, path, fps=8)
    gc.collect()
    gc.disable()
    try:
        container = av.open(str(path))
        container.streams.video[0].thread_type = "AUTO"
        container.streams.video[0].thread_count = 4
        next(container.decode(video=0))
        cycle: list = [container]
        cycle.append(cycle)
        del cycle, container
        worker = multiprocessing.get_context("fork").Process(target=gc.collect)
        worker.start()
        worker.join(30)
        stuck = worker.is_alive()
        worker.kill()
        assert not stuck
    finally:
        gc.enable()
