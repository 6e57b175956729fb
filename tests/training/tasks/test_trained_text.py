"""Training the text encoder along: its embedding has two names in the state, and is stored and restored once."""

import torch

from longtake.training.checkpoints import find_checkpoint
from longtake.training.curves import read_curve
from longtake.training.launch import run
from longtake.training.recipe import resolve


def test_a_text_encoder_trained_along_is_checkpointed_and_resumed(parts, tmp_path):
    def recipe(steps, out):
        base = {
            "task": "generator",
            "out": str(tmp_path / out),
            "steps": steps,
            "data": {"count": 4, "held_out": 2, "frames": 5, "height": 16, "width": 16, "batch_size": 2, "workers": 0},
            "tokenizer": {"init_from": str(parts)},
            "text": {"init_from": str(parts), "train": True},
            "backbone": {
                "config": {"latent_channels": 4, "text_width": 16, "width": 16, "heads": 1, "dual_blocks": 1,
                           "single_blocks": 0}
            },
            "schedule": {"name": "constant", "warmup": 0},
            "checkpoint": {"every": 2},
            "validation": {"every": 0},
            "samples": {"every": 0},
            "export": False,
        }  # fmt: skip
        return resolve(base, {})[0]

    run(recipe(4, "whole"))
    run(recipe(2, "halves"))
    assert find_checkpoint(tmp_path / "halves" / "checkpoints") is not None
    run(recipe(4, "halves"), resume=True)
    whole, halves = (read_curve(tmp_path / name / "loss.csv") for name in ("whole", "halves"))
    assert [row["loss"] for row in whole] == [row["loss"] for row in halves]
    assert len(torch.tensor([row["loss"] for row in halves]).unique()) == 4
