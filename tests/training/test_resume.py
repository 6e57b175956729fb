"""Killed without warning, at any moment: the resumed run's curve is that of an unbroken one, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longtake.training.curves import read_curve

TOY = Path(__file__).with_name("toy.py")
WORDS = [
    "steps=60",
    "dropout=0.1",
    "checkpoint.every=7",
    "validation.every=10",
    "optimizer.name=muon",
    "data.workers=1",
]


def start(out, *words):
    command = [sys.executable, str(TOY), str(out), *WORDS, *words]
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.timeout(900)  # three processes, one behind the other
def test_a_run_killed_twice_has_the_curve_of_an_unbroken_one(tmp_path):
    unbroken = start(tmp_path / "unbroken")
    for words in ([], ["resume=true"]):
        process = start(tmp_path / "killed", "delay=0.02", *words)
        curve, rows = tmp_path / "killed" / "loss.csv", 0
        before = len(read_curve(curve)) if curve.exists() else 0
        while rows < before + 9:  # 9 more steps, so a checkpoint or two
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
            rows = len(read_curve(curve)) if curve.exists() else 0
            before = min(before, rows)  # the resumed run cuts the rows behind its checkpoint
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert rows < 55
    assert start(tmp_path / "killed", "resume=true").wait() == 0
    assert unbroken.wait() == 0
    for name in ("loss.csv", "validation.csv"):
        expected = read_curve(tmp_path / "unbroken" / name)
        assert read_curve(tmp_path / "killed" / name) == expected
        assert expected[-1]["step"] == 60


@pytest.mark.timeout(600)
def test_ctrl_c_in_a_terminal_ends_with_a_checkpoint(tmp_path):
    """It reaches the worker processes as well, which must not die of it before the training does."""
    process = start(tmp_path / "run", "delay=0.02", "data.workers=2", "validation.every=0")
    curve = tmp_path / "run" / "loss.csv"
    while not curve.exists() or len(read_curve(curve)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 0
    last = read_curve(curve)[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / f"step-{last:08d}" / "state.json").is_file()
    assert last < 60
