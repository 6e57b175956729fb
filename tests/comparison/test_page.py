"""The page: whole without a script, closed to the network, and alive in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

VOID = {"meta", "link", "br", "wbr", "input", "img"}
OPTIONAL = {"tr", "td", "th", "li", "dt", "dd", "option", "thead", "tbody"}
"""Elements whose end may be left out."""


class Read(HTMLParser):
    """Elements with their attributes, text of the table's rows, and elements that were not closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.rows, self.misnested = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append("")
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in OPTIONAL and (not self.open or self.open.pop() != tag):
            self.misnested.append(tag)

    def handle_data(self, data):
        if self.rows and "table" in self.open:
            self.rows[-1] += data


@pytest.fixture(scope="session")
def page(compared):
    _, folder = compared
    return (folder / "index.html").read_text()


@pytest.fixture(scope="session")
def read(page):
    return Read(page)


def test_nothing_on_the_page_leads_elsewhere(page, read):
    for tag, attributes in read.found:
        for name, value in attributes.items():
            if name in ("src", "href", "poster", "action", "data", "srcset"):
                assert value.startswith("data:"), (tag, name, value[:80])
    bare = re.sub(r"data:[^'\"]*", "", page)
    assert not re.findall(r"https?:|//|@import|url\(", bare)
    policy = next(a["content"] for tag, a in read.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_prompt_shows_one_clip_of_every_row(compared, read):
    report, _ = compared
    videos = [attributes for tag, attributes in read.found if tag == "video"]
    assert len(videos) == len(report.prompts) * len(report.rows) == 8
    assert all(one["src"].startswith("data:video/mp4;base64,") and "controls" in one for one in videos)
    assert [one["aria-label"] for one in videos] == [row.name for row in report.rows] * 2
    assert len({one["src"] for one in videos[:2]}) == 2


def test_the_table_holds_every_row_with_dense_first_and_marked(compared, read, page):
    report, _ = compared
    assert not read.misnested and not read.open
    rows = read.rows[2 : 2 + len(report.rows)]
    assert rows[0].startswith("densebaseline") and "1.00×" in rows[0]
    for row, text in zip(report.rows, rows, strict=True):
        assert text.startswith(row.name)
        assert f"{row.mac_speedup:.2f}×" in text
    assert "identical" in rows[2] and f"{report.rows[1].psnr:.2f}" in rows[1]
    assert page.count("class=dense") == 1


def test_receipts_settings_and_what_made_it_are_folded_below(compared, page):
    report, _ = compared
    assert page.count("<details>") == len(report.rows) - 1 + 3
    assert "interval=2" in page and "of dense&#x27;s multiply-accumulates" in page
    assert report.weights in page and report.versions["torch"] in page
    assert "a blue &lt;cube&gt; spins" in page and "<cube>" not in page
    assert "read-back and FVD[scenes-3d] are left out" in page


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
@pytest.mark.timeout(120)
def test_a_browser_runs_it(compared, tmp_path):
    """The script takes the clips over and makes the headings buttons; the browser has nothing to complain about."""
    _, folder = compared
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=2000",
    ]
    command = ["chromium", *options, "--enable-logging=stderr", "--dump-dom", (folder / "index.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert 'class="scripted"' in done.stdout
    assert "frame 1 of 5" in done.stdout or re.search(r"frame \d of 5", done.stdout)
    assert not re.search(r"<video[^>]* controls", done.stdout)
    assert not re.search(r"CONSOLE.*(error|refused)", done.stderr, re.IGNORECASE)
