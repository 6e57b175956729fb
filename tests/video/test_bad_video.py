"""A file that is not a whole video is refused in one line that names it and says what is wrong."""

import gc
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from longtake.errors import BadInput, BadVideo
from longtake.video import VideoReader, read_clip


def refusal(path):
    with pytest.raises(BadVideo) as caught:
        read_clip(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_a_missing_file(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.mp4")


def test_an_empty_file(tmp_path):
    (tmp_path / "e.mp4").touch()
    assert "empty" in refusal(tmp_path / "e.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.avi", "a.gif", "a.nfo", "a"])
def test_text(tmp_path, name):
    (tmp_path / name).write_text("this is not a video\n" * 200)
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["n.mp4", "n.mkv", "n.mpg", "n"])
def test_noise(tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(50_000))
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.mp4"])
def test_a_still_image(tmp_path, name):
    Image.new("RGB", (64, 48)).save(tmp_path / name, format="JPEG" if name == "p.jpg" else "PNG")
    assert "read_image" in refusal(tmp_path / name)


def test_a_playlist_opens_no_other_file(make_video, tmp_path):
    target = make_video("a.ts")
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{target.name}\n#EXT-X-ENDLIST\n"
    )
    refusal(tmp_path / "list.m3u8")
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {target.name}\n")
    refusal(tmp_path / "list.ffconcat")


def test_sound_only(tmp_path):
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    assert "audio only" in refusal(tmp_path / "s.wav")


def test_sound_with_a_cover_picture(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 4), np.int16), format="s16p", layout="mono")
        samples.sample_rate, samples.pts = 16000, 0
        container.mux(
            cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)).reformat(format="yuvj420p"))
        )
        container.mux(cover.encode(None))
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    assert "audio only" in refusal(path)


@pytest.mark.parametrize("name", ["z.mkv", "z.mp4", "z.avi"])
def test_a_container_without_frames(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("ffv1" if name != "z.mp4" else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    refusal(tmp_path / name)


TRUNCATED = [
    ("t.mp4", "libx264", {"container_options": {"movflags": "faststart"}}),
    ("t.mov", "libx264", {"container_options": {"movflags": "faststart"}}),
    ("t.mkv", "libx264", {}),
    ("t.webm", "libvpx-vp9", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    ("t.avi", "mpeg4", {"b_frames": 2}),
    ("t.avi", "mjpeg", {"pixel_format": "yuvj420p"}),
    ("t.gif", "gif", {"pixel_format": "rgb8"}),
]


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(("name", "codec", "how"), TRUNCATED, ids=[f"{t[1]}-{t[0]}" for t in TRUNCATED])
def test_a_truncated_file(make_video, name, codec, how, share):
    path = make_video(name, codec, 60, **how)
    assert VideoReader(path).frame_count == 60
    assert "truncated" in refusal(cut(path, share))


@pytest.mark.parametrize("name", ["t.mp4", "t.mkv", "t.avi", "t.webm", "t.gif"])
@pytest.mark.parametrize("length", [1, 20, 100])
def test_a_file_of_which_only_the_first_bytes_are_there(make_video, name, length):
    codec = {"t.webm": "libvpx-vp9", "t.gif": "gif"}.get(name, "mpeg4")
    path = make_video(name, codec, 5, pixel_format="rgb8" if codec == "gif" else "yuv420p")
    path.write_bytes(path.read_bytes()[:length])
    refusal(path)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_an_mp4_whose_table_of_contents_is_cut_off(make_video, share):
    assert "truncated" in refusal(cut(make_video("t.mp4", "libx264", 60), share))


def test_damage_in_the_middle_spares_what_can_be_decoded(make_video, number_of):
    path = make_video("d.mkv", "ffv1", 30, pixel_format="bgr0", options={"g": "1", "slicecrc": "1"})
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][20]
        position, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[position + 20 : position + size] = bytes(size - 20)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        assert number_of(reader.frames([3])[0].numpy()) == 3


def test_undecodable_packets_are_an_error_that_names_the_frame(make_video):
    path = make_video("d.mp4", "libx264", 40, options={"g": "5", "bf": "0"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[20:30]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_a_picture_that_changes_size_midway(make_video, tmp_path):
    pieces = [make_video(f"{w}.h264", "libx264", [np.zeros((48, w, 3), np.uint8)] * 3).read_bytes() for w in (64, 96)]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(pieces))
    message = refusal(path)
    assert "64x48" in message
    assert "96x48" in message


def test_a_folder_where_a_file_was_meant(tmp_path):
    assert "no images" in refusal(tmp_path)


def test_names_that_look_like_something_else(make_video):
    assert read_clip(make_video("http:evil %d [x] é.mp4", "libx264", 3)).frames == 3


def test_an_avi_whose_header_overstates_its_size_is_read_when_all_frames_are_there(make_video):
    path = make_video("o.avi", "mpeg4", 20)
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", len(data) + 5000)
    path.write_bytes(data)
    assert VideoReader(path).frame_count == 20


def test_refused_files_are_not_left_open(tmp_path):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    (tmp_path / "n.mp4").write_bytes(bytes(4000))
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        refusal(tmp_path / "n.mp4")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# ----------------------------------------------------------------------------------------------------- folders of frames


def save_frames(folder, names, draw, size=None):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        image = Image.fromarray(draw(i))
        image.resize(size or image.size).save(folder / name)
    return folder


def test_a_folder_of_frames_is_ordered_by_the_last_number(tmp_path, draw, number_of):
    names = ["s1_v2_9.png", "s1_v2_10.png", "s1_v2_100.png"]
    folder = save_frames(tmp_path / "f", names, draw)
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden_1.png").write_text("x")
    with VideoReader(folder, folder_fps=10) as reader:
        assert [number_of(frame) for frame in reader.frames([0, 1, 2]).numpy()] == [0, 1, 2]
        assert reader.fps == 10
        assert reader.timestamps == pytest.approx((0, 0.1, 0.2))
    assert read_clip(folder, start=1).frames == 2


def test_a_zip_of_frames(tmp_path, draw, number_of):
    import zipfile

    folder = save_frames(tmp_path / "f", ["a_01.png", "a_02.png"], draw)
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"clip/{file.name}")
    frames = VideoReader(tmp_path / "f.zip").frames([1, 0]).numpy()
    assert [number_of(frame) for frame in frames] == [1, 0]


def test_frames_with_the_same_number_are_refused(tmp_path, draw):
    assert "both frame 1" in refusal(save_frames(tmp_path / "f", ["a_1.png", "b_01.png"], draw))


def test_frames_of_different_sizes_are_refused(tmp_path, draw):
    folder = save_frames(tmp_path / "f", ["1.png", "2.png"], draw)
    Image.new("RGB", (20, 10)).save(folder / "3.png")
    assert "20x10" in refusal(folder)


def test_a_broken_frame_is_named(tmp_path, draw):
    folder = save_frames(tmp_path / "f", ["1.png", "2.png"], draw)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    assert "2.png" in refusal(folder)


def test_what_is_called_zip_but_is_not(tmp_path):
    (tmp_path / "a.zip").write_text("no")
    refusal(tmp_path / "a.zip")


def test_an_impossible_folder_rate_is_refused(tmp_path, draw):
    folder = save_frames(tmp_path / "f", ["1.png"], draw)
    with pytest.raises(BadInput):
        VideoReader(folder, folder_fps=0)
