import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from torch import Tensor

from longtake.data.check import check, format_report
from longtake.data.presets import FolderOptions
from longtake.errors import BadData

OPTIONS = FolderOptions(frames=5, height=16, width=16)


def test_report_of_a_mixed_folder(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    write_video(tmp_path / "a.avi", 20, 16, 24, fps=10)
    write_video(tmp_path / "b.avi", 50, 16, 24, fps=25)
    write_video(tmp_path / "c.avi", 12, 12, 12, fps=10)
    write_video(tmp_path / "short.avi", 4, 16, 24)
    (tmp_path / "a.txt").write_text("a ball")
    (tmp_path / "broken.mp4").write_bytes(b"")
    (tmp_path / "LICENSE").write_text("")
    report = check(tmp_path, OPTIONS, progress=False)
    assert (report.layout, report.videos, report.windows) == ("L3", 3, 16 + 46 + 8)
    assert report.sizes == {"24x16": 2, "12x12": 1}
    assert report.rates == {"10": 2, "25": 1}
    assert report.durations == pytest.approx((1.2, 2.0, 2.0))
    assert report.hours == pytest.approx(5.2 / 3600)
    assert report.clip_seconds == pytest.approx((0.2, 0.5))
    assert (report.prompted, report.prompts) == (1, ("a ball",))
    assert [name for name, _ in report.problems] == ["broken.mp4", "short.avi"]
    assert report.ignored == {"": 1}
    assert any("frame rates differ" in note for note in report.notes)
    assert any("1 videos are smaller than 16x16" in note for note in report.notes)
    assert any("2 videos have no prompt" in note for note in report.notes)
    json.dumps(asdict(report))
    text = format_report(report)
    for part in ("L3 (folder of videos)", "3 to train on, 2 not", "24x16 (2)", '"a ball"', "short.avi: too short: 4"):
        assert part in text


def test_problems_are_cut_short(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    write_video(tmp_path / "a.avi", 6, 16, 16)
    for number in range(30):
        (tmp_path / f"bad{number:02d}.mp4").write_bytes(b"")
    text = format_report(check(tmp_path, OPTIONS, progress=False), limit=4)
    assert text.count("bad") // 2 == 4  # each is named, and named again in its reason
    assert text.endswith("and 26 more")


def test_nothing_usable_is_a_report_and_nothing_there_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="it is empty"):
        check(tmp_path, OPTIONS, progress=False)
    (tmp_path / "a.mp4").write_bytes(b"")
    report = check(tmp_path, OPTIONS, progress=False)
    assert report.videos == 0
    assert "0 to train on, 1 not" in format_report(report)


def test_a_deep_check_finds_what_the_index_pass_does_not(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / name, 6, 16, 16)
    (tmp_path / "a" / "000003.png").write_bytes(b"damaged")
    assert check(tmp_path, OPTIONS, progress=False).videos == 2
    report = check(tmp_path, OPTIONS, deep=True, progress=False)
    assert report.videos == 1
    assert report.problems[0][0] == "a"
    assert "000003.png" in report.problems[0][1]


def test_classes_and_resampling_in_the_report(tmp_path: Path, write_video: Callable[..., Tensor]) -> None:
    for name in ("YoYo/1.avi", "Archery/2.avi"):
        write_video(tmp_path / name, 30, 16, 16, fps=10)
    options = FolderOptions(frames=5, height=16, width=16, fps=5.0)
    report = check(tmp_path, options, progress=False)
    assert (report.layout, report.classes, report.preset) == ("L1", 2, "ours+")
    assert report.clip_seconds == pytest.approx((1.0, 1.0))
    assert "2 of 2, 2 classes" in format_report(report)
    assert report.notes == ()
    faster = FolderOptions(frames=5, height=16, width=16, fps=20.0)
    assert check(tmp_path, faster, progress=False).notes[0].startswith("2 videos are slower than 20 fps")
