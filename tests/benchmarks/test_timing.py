"""The shared timing routine: order of the rounds, ratios within rounds, and the record."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("timing", Path(__file__).parents[2] / "benchmarks" / "timing.py")
timing = sys.modules.setdefault("timing", importlib.util.module_from_spec(spec))
spec.loader.exec_module(timing)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a candidate moves it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_every_round_runs_every_candidate_once_and_turns_the_order_around():
    calls = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timing.compare(candidates, repeats=2, warmup=1)
    assert [sorted(calls[i : i + 3]) for i in (0, 3, 6)] == [list("abc")] * 3
    assert calls[3:6] == calls[6:9][::-1]


def test_ratio_is_taken_within_the_round(clock):
    """A machine that slows down tenfold between rounds changes no ratio, though it moves the medians."""
    slowness = {"base": iter([99.0, 1.0, 10.0, 1.0, 10.0, 1.0]), "other": iter([99.0, 1.0, 10.0, 1.0, 10.0, 1.0])}
    result = timing.compare(
        {"base": lambda: clock(next(slowness["base"])), "other": lambda: clock(1.5 * next(slowness["other"]))},
        repeats=5,
        warmup=1,
    )
    assert result["other"].ratio == pytest.approx(1.5)
    assert (result["other"].ratio_low, result["other"].ratio_high) == pytest.approx((1.5, 1.5))
    assert result["base"].ratio == 1.0
    assert result["base"].seconds == pytest.approx((1.0, 10.0, 1.0, 10.0, 1.0))  # the warm-up round is dropped
    assert "1.500" in str(result)
    assert "baseline" in str(result)


def test_processor_time_has_a_ratio_of_its_own(clock, monkeypatch):
    """Whoever waited for the cores took long, and did no more work."""
    used = [0.0]
    monkeypatch.setattr(timing.time, "process_time", lambda: used[0])

    def work(waited, worked):
        clock(waited + worked)
        used[0] += worked

    result = timing.compare({"base": lambda: work(0.0, 1.0), "other": lambda: work(6.0, 2.0)}, repeats=3)
    assert result["other"].ratio == pytest.approx(8.0)
    assert (result["other"].cpu_ratio, result["other"].cpu_ratio_high) == pytest.approx((2.0, 2.0))


def test_baseline_by_name(clock):
    result = timing.compare({"slow": lambda: clock(4.0), "fast": lambda: clock(1.0)}, repeats=1, baseline="fast")
    assert result["slow"].ratio == pytest.approx(4.0)
    with pytest.raises(ValueError, match="'faster' is not one of the candidates"):
        timing.compare({"slow": print, "fast": print}, baseline="faster")


def test_record_says_what_on_which_machine_with_which_versions(tmp_path, clock):
    result = timing.compare({"one": lambda: clock(2.0)}, repeats=3)
    path = timing.save("x", {"forward": result, "bytes": 7}, setting={"shape": [1, 2]}, folder=tmp_path / "new")
    record = json.loads(path.read_text())
    assert record["results"]["forward"]["timings"][0]["median"] == 2.0
    assert record["results"]["bytes"] == 7
    assert record["setting"] == {"shape": [1, 2]}
    assert {"processor", "cores", "threads", "load_1min"} <= record["machine"].keys()
    assert {"python", "torch", "longtake"} <= record["versions"].keys()
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' /proc")
def test_peak_memory_sees_what_is_freed_again():
    size = 64 * 2**20
    measured = timing.peak_memory(lambda: len(b"x" * size))
    assert 0.9 * size < measured < 1.5 * size
    assert timing.peak_memory(lambda: None) < 0.1 * size
