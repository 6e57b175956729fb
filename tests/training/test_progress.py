from longtake.training.progress import Progress, clock


def test_clock():
    assert clock(12345.6) == "3:25:45"
    assert clock(59) == "0:00:59"


def test_lines_say_throughput_and_time_left_without_the_pauses(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("longtake.training.progress.time.monotonic", lambda: now[0])
    with Progress("run", done=10, steps=110, clips=4) as progress:
        now[0] += 5
        with progress.paused():
            now[0] += 1
            with progress.paused():
                now[0] += 30
            now[0] += 1
        now[0] += 5
        progress.show(30, {"loss": 0.5})  # 20 steps in 10 s
    line = capsys.readouterr().out
    assert line == "run: step 30/110 loss 0.5 8 clips/s left 0:00:40\n"


def test_lines_are_rare(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("longtake.training.progress.time.monotonic", lambda: now[0])
    with Progress("run", done=0, steps=1000, clips=1, line_seconds=20) as progress:
        for step in range(1, 101):
            now[0] += 1
            progress.show(step, {"loss": 1.0})
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_other_processes_are_quiet(capsys):
    with Progress("run", done=0, steps=2, clips=1, quiet=True) as progress:
        progress.show(1, {"loss": 1.0})
        progress.say("words")
    assert capsys.readouterr().out == ""
