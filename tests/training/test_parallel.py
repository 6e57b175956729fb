"""Two processes over gloo compute what one computes with the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import train_toy

from longtake.errors import BadRecipe
from longtake.training.checkpoints import find_checkpoint, read_state
from longtake.training.curves import read_curve
from longtake.training.parallel import joined_world
from longtake.training.recipe import ParallelRecipe

TOY = Path(__file__).with_name("toy.py")
CHANGES = {
    "steps": 10,
    "export": True,
    "optimizer": {"name": "muon", "lr": 3e-3},
    "data": {"batch_size": 8, "workers": 0, "accumulate": 2},
    "validation": {"every": 5},
    "ema": {"decay": 0.9},
}
WORDS = [
    "steps=10", "export=true", "optimizer.name=muon", "data.accumulate=2", "validation.every=5", "ema.decay=0.9",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same training: ``one`` process, two with ``ddp`` and two with ``fsdp``."""
    root = tmp_path_factory.mktemp("parallel")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(TOY), str(root), *WORDS],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    train_toy(root / "one", CHANGES)
    assert [process.wait(150) for process in processes] == [0, 0]
    return root


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_have_the_loss_of_one(runs, kind):
    one, two = (read_curve(runs / name / "loss.csv") for name in ("one", kind))
    assert len(one) == len(two) == 10
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-3)
    held = [[row["loss"] for row in read_curve(runs / name / "validation.csv")] for name in ("one", kind)]
    assert held[1] == pytest.approx(held[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_export_the_whole_average(runs, kind):
    one, two = (load_file(runs / name / "export" / "net.safetensors") for name in ("one", kind))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_process_goes_on_with_the_checkpoint_of_two(runs, kind, tmp_path):
    longer = {**CHANGES, "steps": 13, "schedule": {"name": "constant", "warmup": 3}}
    one, _ = train_toy(runs / "one", {**longer, "out": str(runs / "one")}, resume=True)
    two, _ = train_toy(runs / kind, longer, resume=True)
    assert one.step == two.step == 13
    a, b = (read_curve(runs / name / "loss.csv")[-3:] for name in ("one", kind))
    assert [row["loss"] for row in b] == pytest.approx([row["loss"] for row in a], abs=1e-5)
    assert read_state(find_checkpoint(runs / kind / "checkpoints"))["world_size"] == 1


def test_an_absent_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(BadRecipe, match="device=cpu"), joined_world(ParallelRecipe(), "cuda"):
        pass
