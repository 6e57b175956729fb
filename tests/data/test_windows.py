"""Golden indices: written out here, or computed by a few lines that follow the specification and nothing of ours."""

import numpy as np
import pytest

from longtake.data.windows import WindowRule, count_windows, needed_frames, window_fps, window_frames
from longtake.errors import BadInput, UnknownName


def seconds(count: int, fps: float = 25.0) -> list[float]:
    return [number / fps for number in range(count)]


def test_latte_on_videos_golden() -> None:
    rule = WindowRule(16, 3, "latte")
    full = [0, 3, 6, 9, 12, 15, 18, 21, 25, 28, 31, 34, 37, 40, 43, 47]
    assert window_frames(rule, seconds(48), 0) == full
    assert window_frames(rule, seconds(100), 7) == [7 + number for number in full]
    assert window_frames(rule, seconds(29), 0) == [0, 1, 3, 5, 7, 9, 11, 13, 14, 16, 18, 20, 22, 24, 26, 28]
    # The last possible start is n - W - 1: neither the start n - W nor the last frame is ever used.
    assert count_windows(rule, seconds(100)) == 52
    assert window_frames(rule, seconds(100), 51)[-1] == 98
    assert [count_windows(rule, seconds(count)) for count in (15, 16, 47, 48, 49, 50)] == [0, 1, 1, 1, 1, 2]


def test_latte_on_frame_folders_golden() -> None:
    sky, taichi = WindowRule(16, 3, "latte-step", longer=True), WindowRule(16, 3, "latte-step")
    assert window_frames(sky, seconds(60), 5) == list(range(5, 51, 3))
    assert [count_windows(sky, seconds(count)) for count in (48, 49, 50, 60)] == [0, 1, 2, 12]
    assert [count_windows(taichi, seconds(count)) for count in (45, 46, 48, 50, 60)] == [0, 1, 1, 2, 12]


def test_tats_golden() -> None:
    videos, folders = WindowRule(16, 1, "tats"), WindowRule(16, 4, "tats-step")
    assert [count_windows(videos, seconds(count)) for count in (15, 16, 17, 29)] == [0, 1, 2, 14]
    assert window_frames(videos, seconds(29), 13) == list(range(13, 29))
    assert [count_windows(folders, seconds(count)) for count in (64, 65, 80)] == [0, 1, 16]
    assert window_frames(folders, seconds(80), 15) == list(range(15, 79, 4))


def test_ours_uses_every_start_and_the_last_frame() -> None:
    rule = WindowRule(5, 3)
    assert [count_windows(rule, seconds(count)) for count in (12, 13, 14)] == [0, 1, 2]
    assert window_frames(rule, seconds(14), 1) == [1, 4, 7, 10, 13]


def test_resampling_halves_doubles_and_keeps() -> None:
    assert window_frames(WindowRule(5, fps=25.0), seconds(20), 3) == [3, 4, 5, 6, 7]
    assert window_frames(WindowRule(5, fps=12.5), seconds(20), 3) == [3, 5, 7, 9, 11]
    assert window_frames(WindowRule(5, fps=50.0), seconds(20), 3) == [3, 3, 4, 4, 5]
    assert window_frames(WindowRule(3, 2, fps=12.5), seconds(20), 0) == [0, 4, 8]
    # 24 -> 8 fps takes each third frame whatever rounding the container does to its time stamps.
    rounded = [round(number / 24, 3) for number in range(60)]
    rule = WindowRule(17, fps=8.0)
    for start in range(count_windows(rule, rounded)):
        assert window_frames(rule, rounded, start) == list(range(start, start + 49, 3))
    assert count_windows(rule, rounded) == 60 - 48


def test_resampling_follows_time_under_a_variable_rate() -> None:
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 1.0, 1.6, 1.7, 1.8, 1.9, 2.0]  # slow in the middle
    rule = WindowRule(5, fps=2.0)
    (frames,) = [window_frames(rule, times, k) for k in range(count_windows(rule, times))][:1]
    assert frames == [0, 4, 5, 6, 10]  # nearest to 0, 0.5, 1, 1.5, 2
    assert count_windows(rule, times) == 2  # from 0.1 the last moment, 2.1, is half a mean frame behind the end
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = np.cumsum(rng.uniform(0.01, 0.2, 30)).tolist()
        rule = WindowRule(4, fps=float(rng.uniform(3, 20)))
        for number in range(count_windows(rule, times)):
            wanted = times[number] + np.arange(4) / rule.fps
            nearest = np.abs(np.asarray(times)[None] - wanted[:, None]).min(1)
            got = np.abs(np.asarray(times)[window_frames(rule, times, number)] - wanted)
            assert np.allclose(got, nearest, atol=2e-6)


@pytest.mark.parametrize(
    "rule",
    [
        WindowRule(16, 3, "latte"),
        WindowRule(16, 3, "latte-step"),
        WindowRule(16, 3, "latte-step", longer=True),
        WindowRule(16, 1, "tats"),
        WindowRule(16, 4, "tats"),
        WindowRule(16, 4, "tats-step"),
        WindowRule(17, 2),
        WindowRule(9, fps=10.0),
        WindowRule(1),
    ],
)
def test_every_window_lies_inside_its_video(rule: WindowRule) -> None:
    for count in range(1, 90):
        times = seconds(count)
        windows = count_windows(rule, times)
        for number in {0, windows - 1} if windows else ():
            frames = window_frames(rule, times, number)
            assert len(frames) == rule.frames
            assert frames[0] == number
            assert frames == sorted(frames)
            assert frames[-1] < count


def test_what_is_needed_is_what_counts() -> None:
    assert needed_frames(WindowRule(16, 3, "latte")) == "16 frames"
    assert needed_frames(WindowRule(16, 3, "latte-step")) == "46 frames"
    assert needed_frames(WindowRule(16, 3, "latte-step", longer=True)) == "49 frames"
    assert needed_frames(WindowRule(16, 4, "tats-step")) == "65 frames"
    assert needed_frames(WindowRule(17)) == "17 frames"
    assert needed_frames(WindowRule(17, fps=8.0)) == "2 s"


def test_playing_speed() -> None:
    assert window_fps(WindowRule(3, 5), seconds(20), 25.0, [0, 5, 10]) == 5.0
    assert window_fps(WindowRule(3, 2, fps=8.0), seconds(20), 25.0, [0, 6, 12]) == 4.0
    assert window_fps(WindowRule(1), seconds(20), 25.0, [4]) == 25.0
    latte = WindowRule(16, 3, "latte")
    assert window_fps(latte, seconds(48), 25.0, window_frames(latte, seconds(48), 0)) == pytest.approx(25 * 15 / 47)


def test_bad_rules() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'latte'"):
        WindowRule(16, 3, "late")
    with pytest.raises(BadInput, match="stride is 0"):
        WindowRule(16, 0)
    with pytest.raises(BadInput, match="only with 'ours'"):
        WindowRule(16, 3, "latte", fps=8.0)
    with pytest.raises(BadInput, match="fps is 0"):
        WindowRule(16, fps=0)
