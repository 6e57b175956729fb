import pytest
import torch

from longtake.errors import BadRecipe
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.training.curves import read_curve
from longtake.training.launch import run
from longtake.training.parallel import World
from longtake.training.recipe import resolve
from longtake.training.tasks.vqgan import VqganTask

WORLD = World(0, 1, torch.device("cpu"))


def recipe(out=".", **changes):
    base = {
        "task": "tokenizer",
        "out": str(out),
        "steps": 8,
        "precision": "fp32",
        "data": {"count": 12, "held_out": 2, "frames": 8, "height": 16, "width": 16, "batch_size": 4, "workers": 0},
        "tokenizer": {
            "kind": "vqgan",
            "config": {
                "base_width": 4, "downsample": [4, 4, 4], "codes": 16, "code_width": 8, "restart_below": 0.5
            },
            "loss": {"start": 5},
            "discriminator": {"width": 4},
        },
        "optimizer": {"lr": 3e-3, "betas": [0.5, 0.9], "weight_decay": 0.0},
        "schedule": {"name": "constant", "warmup": 0},
        "ema": {"decay": 0.0},
        "validation": {"every": 8},
        "samples": {"every": 8, "count": 2},
    }  # fmt: skip
    for key, value in changes.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) else value
    return resolve(base, {})[0]


def batch(count=4):
    return {"pixels": torch.rand(count, 3, 8, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1}


@pytest.mark.slow
def test_it_learns_lets_the_discriminators_join_and_exports(tmp_path):
    loss = {"start": 30, "gan": 0.01, "matching": 0.01}
    result = run(recipe(tmp_path, steps=32, tokenizer={"loss": loss}, validation={"every": 32}))
    assert result.after["loss"] < 0.9 * result.before["loss"]
    rows = read_curve(tmp_path / "loss.csv")
    assert [row["discriminator"] > 0 for row in rows] == [False] * 30 + [True] * 2
    assert all(row["commitment"] > 0 and 1 <= row["perplexity"] <= 16 for row in rows)
    made = VQGAN3d.from_pretrained(tmp_path / "export", low_cpu_mem_usage=False)
    assert made.quantizer.begun and made.encode(batch()["pixels"]).shape == (4, 2, 4, 4)
    assert (tmp_path / "samples" / "step-00000032.png").is_file()


@pytest.mark.slow
def test_a_training_that_is_taken_up_again_is_the_unbroken_one(tmp_path):
    """Codebook, statistics and the step at which the discriminators join are in the checkpoint."""
    run(recipe(tmp_path / "whole"))
    run(recipe(tmp_path / "part", steps=4))
    resumed = recipe(tmp_path / "part")
    run(resumed, resume=True)
    one, two = (
        VQGAN3d.from_pretrained(tmp_path / name / "export", low_cpu_mem_usage=False).state_dict()
        for name in ("whole", "part")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_codebook_learns_once_in_each_pass_and_never_in_validation(monkeypatch):
    task, calls = VqganTask(recipe(), WORLD), []
    task.begin(7)
    book = task.tokenizer.quantizer
    learn = book.learn
    monkeypatch.setattr(book, "learn", lambda *given: (calls.append(given), learn(*given)))
    total, _ = task.loss(batch(), [1, 2, 3, 4])
    total.backward()
    assert len(calls) == 1
    codes = book.codes.clone()
    task.tokenizer.eval()
    task.validate(batch(), [1, 2, 3, 4])
    assert len(calls) == 1 and torch.equal(book.codes, codes)


def test_the_frame_that_is_judged_belongs_to_the_samples_seed(monkeypatch):
    task, chosen = VqganTask(recipe(), WORLD), []
    monkeypatch.setattr(
        task, "criterion", lambda *given, **_: chosen.append(given[2].tolist()) or (torch.zeros(()), {})
    )
    task.step = 0
    task.criterion.start = 5
    task.loss(batch(2), [11, 12])
    task.loss({"pixels": batch(2)["pixels"].flip(0)}, [12, 11])
    assert chosen[0] == chosen[1][::-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ema": {"decay": 0.9}}, "ema.decay"),
        ({"tokenizer": {"kind": "vqgan", "loss": {"klx": 1}}}, "tokenizer.loss.klx"),
        ({"tokenizer": {"kind": "vqgan", "config": {"widht": 1}}}, "tokenizer.config.widht"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, words):
    with pytest.raises(BadRecipe, match=words.replace(".", r"\.")):
        VqganTask(recipe(**changes), WORLD)


def test_shards_are_refused():
    with pytest.raises(BadRecipe, match=r"parallel\.kind: fsdp"):
        VqganTask(recipe(), World(0, 2, torch.device("cpu"), None, "fsdp"))
