"""Reports: the table and the page hold the numbers with all that belongs to them."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.report import Shown, comparison_table, curve_svg, result_lines, result_table, write_page
from longtake.evaluation.results import Curve, Measured, Result, Value, compare


@pytest.fixture
def result() -> Result:
    real = Measured(
        "reals", "2" * 64, 9, ("a",) * 7, 17, 64, 64, (("bad.mp4", "is empty"),), (("c", "has 3 frames"),), 1
    )
    return Result(
        find_protocol("latte-ucf101"),
        Measured("<fakes>", "1" * 64, 2, ("a", "b"), 16, 64, 64),
        real,
        (
            Value("FVD[scenes-3d]", "fvd", 5.25, 4.5, 6.5, "lower", 0.9, "floor", 2, note="few clips"),
            Value("motion", "motion", 1.5, clips=2),
        ),
        (Curve("drift", "window", (0, 1, 2), (0.1, 0.3, 0.2), (0.0, 0.2, 0.1), (0.2, 0.4, 0.3), (0.1, 0.1, 0.1)),),
        networks={"scenes-3d": {"hash": "3" * 64, "width": 128, "facts": {"own_accuracy": {"shape": 0.987}}}},
        limits=("it is not I3D's FVD",),
        seconds={"decode": 1.0, "look": 3.0, "all": 5.0},
    )


def printed(table) -> str:
    out = StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


def test_the_table_prints_the_network_the_interval_and_the_floor(result: Result) -> None:
    lines = printed(result_table(result)).splitlines()
    assert re.search(r"FVD\[scenes-3d\] +5\.25 +4\.5 \.\. 6\.5 +floor 0\.9 +2", lines[1])
    assert re.search(r"motion +1\.5 +- +- +2", lines[2])


def test_what_belongs_to_the_numbers_stands_below(result: Result) -> None:
    text = "\n".join(result_lines(result))
    assert f"protocol {result.protocol.id}" in text and result.protocol.id.startswith("latte-ucf101-")
    assert "7 clips of 17 frames 64x64 from 9 videos of reals (1 not readable, 1 too short, 1 beyond)" in text
    assert "not read: bad.mp4: is empty" in text and "too short: c has 3 frames" in text
    assert "network scenes-3d, hash 333333333333; its own accuracy: shape 0.987" in text
    assert "few clips" in text and "it is not I3D's FVD" in text and "25% of the work was decoding" in text
    made = replace(result, fake=replace(result.fake, settings={"model": "starter", "guidance": 4.5}))
    assert "25% of the work was making and decoding" in result_lines(made)[-1]


def test_many_bad_files_are_counted_on_the_terminal(result: Result) -> None:
    many = replace(result.fake, unreadable=tuple((f"{i}.mp4", "is empty") for i in range(40)))
    lines = result_lines(replace(result, fake=many))
    assert sum("not read:" in line and "is empty" in line for line in lines) == 6
    assert any("35 more" in line for line in lines)


class Page(HTMLParser):
    """Tags that point anywhere, and whether the page is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_everything_in_one_file(result: Result, tmp_path: Path) -> None:
    clip = torch.randint(0, 256, (3, 4, 16, 16), dtype=torch.uint8)
    write_page(result, tmp_path / "a.html", [Shown("a <ball>", clip, clip.flip(1)), Shown("b", clip)])
    page = Page()
    text = (tmp_path / "a.html").read_text()
    page.feed(text)
    assert len(page.links) == 3 and all(link.startswith("data:image/webp;base64,") for link in page.links)
    words = " ".join(page.text)
    for word in (
        "FVD[scenes-3d]",
        "5.25",
        "4.5 .. 6.5",
        "floor 0.9",
        result.protocol.id,
        "real.mp4"[5:],
        "bad.mp4",
        "drift",
    ):
        assert word in words, word
    assert "<fakes>" in words and "<fakes>" not in text and "a <ball>" in words  # escaped
    assert text.count("class=differs") == 4  # shortest, stride, start, mp4
    assert len(text) < 100_000 and list(tmp_path.iterdir()) == [tmp_path / "a.html"]
    assert "Sampling" not in words  # nobody made these


def test_the_page_says_how_a_model_made_the_clips(result: Result, tmp_path: Path) -> None:
    made = replace(result, fake=replace(result.fake, settings={"model": "starter", "guidance": 4.5}))
    write_page(made, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "<h2>Sampling</h2>" in text and "<td>guidance<td>4.5" in text


def test_a_curve_goes_through_its_points() -> None:
    svg = curve_svg(Curve("drift", "window", (0, 10), (1.0, 3.0)), width=340, height=190)
    (line,) = re.findall(r"class=line points='([^']+)'", svg)
    (first, last) = [tuple(map(float, point.split(","))) for point in line.split()]
    assert first == (52.0, 160.0) and last == (330.0, 26.0)  # lowest at the left bottom, highest at the right top
    flat = curve_svg(Curve("flat", "window", (0,), (2.0,), real=(2.0,)))
    assert "nan" not in flat and "class=real" in flat


def test_two_results_side_by_side(result: Result) -> None:
    better = replace(result, values=(replace(result.values[0], value=3.0, low=2.5, high=3.5), result.values[1]))
    text = printed(comparison_table(compare(result, better), ("a.json", "b.json")))
    assert re.search(r"FVD\[scenes-3d\] +5\.25 .*4\.5 \.\. 6\.5.* +3 .*2\.5 \.\. 3\.5.* +better", text)
