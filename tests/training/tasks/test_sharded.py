"""The real networks over two processes: DDP and FSDP2 compute what one process does."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

import longtake
from longtake.pipelines import VideoPipeline
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.training.curves import read_curve
from longtake.training.launch import train

# It leaves without taking the interpreter down: a thread of gloo that lets go of its last tensor meanwhile aborts the
# process ("terminate called without an active exception", pytorch issue 190489; it happened here once).
PROGRAM = """
import os, sys, torch
torch.set_num_threads(1)
from longtake.training import train
torch.distributed.init_process_group("gloo")
for kind in ("ddp", "fsdp"):
    for recipe in sys.argv[2:]:
        name = recipe.split("/")[-1].removesuffix(".yaml")
        if name == "vqgan" and kind == "fsdp":  # refused
            continue
        train(recipe, [f"out={sys.argv[1]}/{name}-{kind}", f"parallel.kind={kind}"])
torch.distributed.destroy_process_group()
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def runs(parts, tmp_path_factory):
    root = tmp_path_factory.mktemp("sharded")
    torch.manual_seed(0)  # the weights below are the same whichever tests ran before
    shared = {
        "steps": 3,
        "precision": "fp32",
        "data": {"count": 6, "held_out": 2, "frames": 5, "height": 16, "width": 16, "batch_size": 4, "workers": 0},
        "schedule": {"warmup": 0},
        "optimizer": {"name": "muon", "lr": 1e-3},
        "validation": {"every": 3},
        "samples": {"every": 3, "count": 1, "steps": 1},
        "checkpoint": {"every": 0},
    }
    small = {"base_width": 8, "latent_channels": 4, "multipliers": [1, 2], "temporal_downsample": [True]}
    net = {"latent_channels": 4, "text_width": 16, "width": 32, "heads": 2, "dual_blocks": 1, "single_blocks": 1}
    recipes = {
        "tokenizer": {**shared, "task": "tokenizer", "tokenizer": {"config": small, "measure_clips": 2}},
        "generator": {
            **shared,
            "task": "generator",
            "objective": {"image_rate": 0.5},
            "gradient_checkpointing": True,
            "tokenizer": {"init_from": str(parts)},
            "text": {"init_from": str(parts), "train": True},
            "backbone": {"config": net},
        },
    }
    ids = {"base_width": 4, "downsample": [4, 4, 4], "codes": 16, "code_width": 8}
    VQGAN3d(**ids).save_pretrained(root / "ids")
    shared["data"] = {**shared["data"], "frames": 8}
    recipes["gpt"] = {
        **shared,
        "task": "gpt",
        "tokenizer": {"init_from": str(root / "ids")},
        "gpt": {"condition": "text", "config": {"width": 32, "depth": 2, "heads": 2}},
    }
    recipes["vqgan"] = {
        **shared,
        "task": "tokenizer",
        "tokenizer": {
            "kind": "vqgan",
            "config": {**ids, "restart_below": 0.0},
            "loss": {"start": 1},
            "discriminator": {"width": 4},
        },
        "optimizer": {"lr": 1e-3},
        "ema": {"decay": 0.0},
    }
    paths = []
    for name, recipe in recipes.items():
        paths.append(root / f"{name}.yaml")
        paths[-1].write_text(OmegaConf.to_yaml(OmegaConf.create(recipe)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(root), *map(str, paths)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    for name, path in zip(recipes, paths, strict=True):
        train(path, [f"out={root}/{name}-one"])
    assert [process.wait() for process in processes] == [0, 0]
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first of them waits for three processes
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["tokenizer", "generator", "gpt"])
def test_two_processes_compute_what_one_does(runs, name, kind):
    for file in ("loss.csv", "validation.csv"):
        one, two = (read_curve(runs / f"{name}-{which}" / file) for which in ("one", kind))
        assert len(one) == len(two) > 0
        for a, b in zip(one, two, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5, abs=1e-5)  # those of gpt are near 5
    # Weights with a gradient of all but zero (the bias of keys) differ, for AdamW's first steps are of one size however
    # small it is; what the networks compute does not.
    outputs = []
    for folder in (runs / f"{name}-{which}" / "export" for which in ("one", kind)):
        generator = torch.Generator().manual_seed(0)
        if name == "gpt":
            tokens = torch.randint(16, (1, 40), generator=generator)
            outputs.append(longtake.load(folder).transformer(tokens))
        elif name == "tokenizer":
            clip = torch.rand(1, 3, 5, 16, 16, generator=generator) * 2 - 1
            outputs.append(CausalVAE.from_pretrained(folder).encode(clip))
        else:
            noise, words = torch.randn(1, 4, 2, 4, 4, generator=generator), torch.randn(1, 3, 16, generator=generator)
            network = VideoPipeline.from_pretrained(str(folder)).transformer
            outputs.append(network(noise, torch.tensor([500.0]), words).detach())
    torch.testing.assert_close(outputs[1], outputs[0], atol=2e-3, rtol=1e-2)
    assert (runs / f"{name}-{kind}" / "samples" / "step-00000003.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_share_one_codebook(runs):
    """Batch norm has statistics of its own in each process, so the numbers are others than those of one process."""
    rows = read_curve(runs / "vqgan-ddp" / "loss.csv")
    assert [row["discriminator"] > 0 for row in rows] == [False, True, True]
    made = VQGAN3d.from_pretrained(runs / "vqgan-ddp" / "export", low_cpu_mem_usage=False)
    assert made.quantizer.begun and made.quantizer.codes.isfinite().all()
    # 3 steps of 4 clips of 2x4x4 vectors, of both processes together, on top of 16 codes that began with a count of 1
    expected = 16 * 0.99**3 + 128 * (1 - 0.99**3)
    assert made.quantizer.counts.sum().item() == pytest.approx(expected, rel=1e-4)
