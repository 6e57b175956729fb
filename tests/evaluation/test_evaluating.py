"""From folders to a record and a page: what is written, what the page shows, and several processes from a shell."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtake.errors import BadInput, BadOutput
from longtake.evaluation.evaluating import evaluate
from longtake.evaluation.generated import Sampling
from longtake.evaluation.results import read_result
from longtake.video import Clip, write_clip


def write_folder(folder: Path, count: int = 5, frames: int = 4, spread: float = 0.0) -> Path:
    generator = torch.Generator().manual_seed(0)
    folder.mkdir()
    for number in range(count):
        soft = torch.rand(1, 3, frames, 2, 2, generator=generator)
        pixels = torch.nn.functional.interpolate(soft, size=(frames, 16, 16), mode="trilinear") * 2 - 1
        noisy = (pixels + spread * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(number))).clamp(
            -1, 1
        )
        write_clip(Clip(noisy, 8.0), folder / f"{number}.mkv", codec="ffv1")
    return folder


def test_the_record_is_the_result_and_the_page_shows_pairs(tmp_path: Path) -> None:
    real, fake = write_folder(tmp_path / "real"), write_folder(tmp_path / "fake", spread=0.1)
    (fake / "3.mkv").write_bytes(b"")
    done = evaluate(
        real=real,
        fake=fake,
        metrics="psnr, flicker",
        changes=["frames=4"],
        out=tmp_path / "a" / "out",
        resamples=10,
        shown=2,
        command=["evaluate", "--metrics", "psnr, flicker"],
    )
    assert read_result(done.record) == done.result and done.first
    assert 15 < done.result["psnr"].value < 35 and len(done.result.fake.clips) == 4
    assert [name for name, _ in done.result.fake.unreadable] == ["3.mkv"]
    assert done.result.command == "longtake evaluate --metrics 'psnr, flicker'"
    page = done.page.read_text()
    assert page.count("alt=generated") == page.count("alt=real") == 2 and "3.mkv" in page
    assert sorted(path.name for path in done.record.parent.iterdir()) == ["cache", "result.html", "result.json"]


def test_a_model_takes_the_prompts_of_the_real_clips(tmp_path: Path, tiny_folder: Path) -> None:
    real = write_folder(tmp_path / "real", count=3, frames=5)
    for number, words in enumerate(("a red ball", "a blue cube")):
        (real / f"{number}.txt").write_text(words)
    options = {"model": tiny_folder, "real": real, "changes": ["frames=5"], "out": tmp_path / "out", "resamples": 0}
    sampling = Sampling(5, 16, 16, 1, seed=7)
    done = evaluate(metrics="motion", sampling=sampling, **options)
    assert len(done.result.fake.clips) == 2 and done.result.fake.settings["seed"] == 7
    assert len(done.result.fake.settings["weights"]) == 64 and "a blue cube" in done.page.read_text()
    with pytest.raises(BadInput, match="prompts"):
        evaluate(**{**options, "real": write_folder(tmp_path / "mute")}, sampling=replace(sampling, steps=2))


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--fake or --model"):
        evaluate(out=tmp_path)
    with pytest.raises(BadInput, match="prompts go with a model"):
        evaluate(fake=tmp_path, prompts="p.txt", out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match="cannot make the folder"):
        evaluate(fake=tmp_path, out=tmp_path / "file" / "out")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_that_torchrun_starts_share_the_work(tmp_path: Path) -> None:
    fake = write_folder(tmp_path / "fake", count=66)  # two shards
    words = ["evaluate", "--fake", str(fake), "--metrics", "flicker", "--set", "frames=4", "--resamples", "20"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "longtake.cli", *words, "--out", str(tmp_path / "two"), "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)  # printed once
    alone = evaluate(fake=fake, metrics="flicker", changes=["frames=4"], resamples=20, out=tmp_path / "one")
    assert told["processes"] == 2 and told["decoded"] < 66 == alone.result.decoded
    assert told["values"][0]["value"] == pytest.approx(alone.result["flicker"].value, rel=1e-12)
    assert told["values"][0]["low"] == pytest.approx(alone.result["flicker"].low, rel=1e-12)
