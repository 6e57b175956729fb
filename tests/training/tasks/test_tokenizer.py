import math

import pytest
import torch

from longtake.errors import BadRecipe, BadSize
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.training.curves import read_curve
from longtake.training.launch import run
from longtake.training.parallel import World
from longtake.training.recipe import resolve
from longtake.training.tasks.tokenizer import TokenizerTask

WORLD = World(0, 1, torch.device("cpu"))
SMALL = {"base_width": 8, "latent_channels": 4, "multipliers": [1, 2], "temporal_downsample": [True]}


def recipe(out=".", **changes):
    base = {
        "task": "tokenizer",
        "out": str(out),
        "steps": 12,
        "data": {"count": 12, "held_out": 2, "frames": 5, "height": 16, "width": 16, "batch_size": 4, "workers": 0},
        "tokenizer": {"config": SMALL, "measure_clips": 6},
        "optimizer": {"lr": 5e-3},
        "schedule": {"warmup": 2},
        "ema": {"decay": 0.5},
        "validation": {"every": 12},
        "samples": {"every": 12, "count": 2},
    }
    return resolve(base, changes)[0]


def batch(count=4):
    return {"pixels": torch.rand(count, 3, 5, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1}


def test_it_learns_measures_its_latents_and_exports(tmp_path):
    result = run(recipe(tmp_path))
    assert result.after["loss"] < 0.9 * result.before["loss"]
    assert result.after["psnr"] > result.before["psnr"]
    assert read_curve(tmp_path / "loss.csv")[0].keys() >= {"loss", "l1", "kl"}
    vae = CausalVAE.from_pretrained(tmp_path / "export")
    assert vae.config.latents_std != [1.0] * 4
    train = TokenizerTask(recipe(tmp_path), WORLD).data()[0][0]
    latents = torch.cat([vae.encode(train[2 * i]["pixels"][None]) for i in range(6)])  # the 6 that were measured
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3, 4), unbiased=False), torch.ones(4), atol=1e-3, rtol=0)
    assert (tmp_path / "samples" / "step-00000012.png").is_file()


def test_psnr_is_that_of_pixels_in_two_units_of_range():
    task = TokenizerTask(recipe(), WORLD)
    clip = batch(2)
    values = task.validate(clip, [1, 2])
    decoded = task.vae.decode(task.vae.encode(clip["pixels"]), clamp=False)
    for row in range(2):
        error = (decoded[row] - clip["pixels"][row]).square().mean().item()
        assert values["psnr"][row].item() == pytest.approx(10 * math.log10(4 / error), abs=1e-3)


def test_a_samples_loss_does_not_depend_on_its_batch():
    task = TokenizerTask(recipe(), WORLD)
    clips, seeds = batch(4)["pixels"], [11, 12, 13, 14]
    whole, _ = task.loss({"pixels": clips}, seeds)
    halves = [task.loss({"pixels": clips[i : i + 2]}, seeds[i : i + 2])[0] for i in (0, 2)]
    assert whole.item() == pytest.approx(sum(h.item() for h in halves) / 2, abs=1e-6)
    assert task.loss({"pixels": clips}, [1, 2, 3, 4])[0].item() != whole.item()


def test_training_the_decoder_alone_leaves_the_latent_space(tmp_path):
    run(recipe(tmp_path / "first", steps=2))
    start = CausalVAE.from_pretrained(tmp_path / "first" / "export")
    tokenizer = {"init_from": str(tmp_path / "first" / "export"), "config": {}, "train": "decoder"}
    chained = recipe(tmp_path / "second", steps=4)
    chained.tokenizer.init_from, chained.tokenizer.config, chained.tokenizer.train = tokenizer.values()
    run(chained)
    end = CausalVAE.from_pretrained(tmp_path / "second" / "export")
    clip = batch(1)["pixels"]
    assert torch.equal(start.encode(clip), end.encode(clip))
    assert not torch.allclose(start.decode(start.encode(clip)), end.decode(start.encode(clip)), atol=1e-4)


def test_each_player_of_the_adversarial_loss_moves_by_its_own_loss():
    task = TokenizerTask(recipe(tokenizer={"loss": {"gan": 0.1}, "discriminator": {"width": 8, "levels": 2}}), WORLD)
    assert task.discriminator is not None
    clips, seeds = batch(2), [5, 6]
    total, parts = task.loss(clips, seeds)
    total.backward()
    ours = {name: p.grad.clone() for name, p in task.discriminator.named_parameters()}
    task.discriminator.zero_grad()
    mean, logvar = task.vae.posterior(clips["pixels"])
    from longtake.tokenizers.discriminator import hinge_discriminator
    from longtake.training.tasks import seeded_noise

    latents = mean + torch.exp(0.5 * logvar) * seeded_noise(tuple(mean.shape[1:]), seeds, mean.device)
    fake = task.vae.decode(task.vae.normalise(latents), clamp=False).detach()
    real, fake = task.discriminator(clips["pixels"])[-1], task.discriminator(fake)[-1]
    hinge_discriminator(real, fake).backward()
    for name, p in task.discriminator.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-6, rtol=1e-4)
    assert parts.keys() >= {"gan", "discriminator"}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tokenizer": {"loss": {"klx": 1}}}, BadRecipe, "tokenizer.loss.klx"),
        ({"tokenizer": {"config": {"widht": 1}}}, BadRecipe, "tokenizer.config.widht"),
        ({"data": {"frames": 6}}, BadSize, "frames 6"),
        ({"data": {"kind": "latents"}}, BadRecipe, "pixels"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, changes, error, words):
    with pytest.raises(error, match=words.replace(".", r"\.")):
        run(recipe(tmp_path, **changes))
    assert not list(tmp_path.rglob("*.safetensors"))
