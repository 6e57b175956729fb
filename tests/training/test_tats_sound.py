"""TATS to sound, trained: the tiny recipe, and key frames and gaps that hear."""

from pathlib import Path

import pytest
import torch

import longtake
from longtake.data.scenes import SceneOptions, sample_scene, scene_sound
from longtake.errors import BadRecipe, UnknownModel
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.training import train
from longtake.training.launch import run
from longtake.training.parallel import World
from longtake.training.recipe import load_recipe, resolve
from longtake.training.sources import Ears, Heard, latent_data, pixel_data
from longtake.training.tasks import build_task

WORLD = World(0, 1, torch.device("cpu"))
RECIPES = Path(__file__).parents[2] / "recipes"
DATA = {
    "count": 4, "held_out": 1, "frames": 16, "height": 16, "width": 16, "fps": 16, "batch_size": 2, "workers": 0,
    "options": {"motions": ["bounce"], "relations": ["alone"], "cameras": ["static"]},
}  # fmt: skip
SMALL = {"base_width": 4, "downsample": [4, 8, 8], "codes": 24, "code_width": 8}
GPT = {"width": 16, "depth": 1, "heads": 2}


def bounce(frames, number=0):
    options = SceneOptions(motions=("bounce",), relations=("alone",), cameras=("static",))
    return scene_sound(sample_scene(number, options), frames, fps=16.0)


def recipe(role, frames, tmp_path, **gpt):
    given = {
        "task": "gpt", "steps": 2, "precision": "fp32", "out": str(tmp_path / role), "data": {**DATA, "frames": frames},
        "tokenizer": {"init_from": str(tmp_path / "tokenizer")},
        "gpt": {
            "role": role, "condition": "audio", "audio": {"init_from": str(tmp_path / "ears")}, "config": GPT, **gpt
        },
        "validation": {"every": 2}, "samples": {"every": 2, "count": 1}, "checkpoint": {"every": 0}, "ema": {"decay": 0.9},
    }  # fmt: skip
    return resolve(given, {})[0]


@pytest.fixture
def tokenizers(tmp_path):
    """Folders of a tokenizer of pictures and of one of sound, not trained."""
    VQGAN3d(**SMALL).save_pretrained(tmp_path / "tokenizer")
    VQGAN3d(**{**SMALL, "channels": 1, "downsample": [4, 32, 16]}).save_pretrained(tmp_path / "ears")
    return tmp_path


@pytest.mark.slow
def test_the_tiny_recipe_trains_and_makes_clips_to_sounds(tmp_path):
    given = [
        "steps=2", "data.count=4", "data.held_out=1", "data.height=16", "data.width=16", "data.batch_size=2",
        "data.workers=0", f"data.cache={tmp_path / 'cache'}", f"out={tmp_path / 'out'}", "checkpoint.every=0",
        "validation.every=2", "validation.batch_size=1", "samples.every=2", "samples.count=1",
        *(f"stages.base.gpt.config.{name}={value}" for name, value in GPT.items()),
        *(f"stages.{stage}.tokenizer.config.base_width=4" for stage in ("tokenizer", "ears")),
    ]  # fmt: skip
    results = train(RECIPES / "tats-sound-tiny.yaml", given)
    assert [result.step for result in results] == [2] * 3
    pipe = longtake.load(tmp_path / "out" / "base" / "export")
    assert (pipe.config.condition, pipe.config.audio_tokens, pipe.config.fps) == ("audio", 16, 16.0)
    made = pipe(audio=bounce(24), frames=24)
    assert made.clip.pixels.shape == (1, 3, 24, 16, 16) and made.clip.sound.seconds == 1.5
    assert list((tmp_path / "cache").glob("latents-*-16x16x16-16fps-sound-16-by-*"))


@pytest.mark.slow
def test_key_frames_and_gaps_are_trained_on_sound_and_exported_together(tokenizers):
    keys = run(recipe("keys", 64, tokenizers))
    gaps = run(recipe("gaps", 20, tokenizers, keys={"init_from": str(keys.export)}))
    pipe = longtake.load(gaps.export)
    assert pipe.config.clip_size == [52, 16, 16] and pipe.layout.prefix == 26 and pipe.gap_layout.prefix == 10
    assert pipe(audio=bounce(52)).clip.pixels.shape == (1, 3, 52, 16, 16)
    assert pipe(audio=bounce(64), frames=64).clip.pixels.shape == (1, 3, 64, 16, 16)


def test_the_sound_that_is_heard_is_that_of_the_frames_that_are_written(tokenizers):
    for role, frames, heard in (("base", 16, 16), ("keys", 64, 52)):
        task = build_task(recipe(role, frames, tokenizers), WORLD)
        item = task.data()[0][0][0]
        spectrogram = pixel_data(resolve({"data": {**DATA, "frames": frames, "view": "sound"}}, {})[0].data, 0, WORLD)
        wanted = task.ears.tokenizer.encode(spectrogram[0][0][0]["pixels"][None, :, :heard])
        assert torch.equal(item["sound"], wanted[0])
        assert torch.equal(task.condition({"sound": item["sound"][None]}), wanted.flatten(1))


def test_cached_sounds_are_those_heard_on_the_way(tokenizers):
    own, hears = (VQGAN3d.from_pretrained(tokenizers / name, low_cpu_mem_usage=False) for name in ("tokenizer", "ears"))
    fresh, kept = (
        latent_data(resolve({"data": {**DATA, **more}}, {})[0].data, 0, own.eval(), WORLD, (), Ears(hears.eval(), 16))[
            0
        ][0]
        for more in ({}, {"cache": str(tokenizers / "cache")})
    )
    assert isinstance(fresh, Heard) and len(fresh) == len(kept) == 4
    for index in range(4):
        assert torch.equal(fresh[index]["sound"], kept[index]["sound"])
        assert torch.equal(own.encode(fresh[index]["pixels"][None])[0], kept[index]["latents"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"audio": {}}, r"gpt\.audio\.init_from: missing"),
        ({"audio": {"init_from": "{}/tokenizer"}}, "is no VQGAN of sound"),
        ({"audio": {"init_from": "{}/other"}}, "makes ids of 2 frames and the tokenizer of 4"),
    ],
)
def test_what_does_not_hear_is_refused(change, words, tokenizers):
    VQGAN3d(**{**SMALL, "channels": 1, "downsample": [2, 8, 8]}).save_pretrained(tokenizers / "other")
    change = {key: {k: v.format(tokenizers) for k, v in value.items()} for key, value in change.items()}
    with pytest.raises(BadRecipe, match=words):
        build_task(recipe("base", 16, tokenizers, **change), WORLD)


def test_keys_of_another_audio_tokenizer_are_refused(tokenizers):
    folder = tokenizers / "keys"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"audio_tokenizer_hash": "0123456789abcdef"}')
    with pytest.raises(UnknownModel, match="trained with audio tokenizer 0123456789ab"):
        build_task(recipe("gaps", 20, tokenizers, keys={"init_from": str(folder)}), WORLD)


@pytest.mark.parametrize(
    ("stage", "change", "words"),
    [
        ("ears", "tokenizer.config.channels=3", "a spectrogram has 1"),
        ("ears", "tokenizer.loss.perceptual=1", "leave it at 0 for sound"),
        ("ears", "tokenizer.kind=causal", r"use tokenizer\.kind: vqgan"),
        ("tokenizer", "tokenizer.config.channels=1", "a picture has 3"),
    ],
)
def test_tokenizers_that_do_not_fit_their_view_are_refused(stage, change, words):
    change = [f"stages.{stage}.{change}"]
    if change[0].endswith("causal"):
        change += [f"stages.{stage}.tokenizer.config={{}}", f"stages.{stage}.tokenizer.loss={{}}"]
    stages = load_recipe(RECIPES / "tats-sound-tiny.yaml", change)
    (chosen,) = [one for one in stages if one.name.endswith(f"/{stage}")]
    with pytest.raises(BadRecipe, match=words):
        build_task(chosen, WORLD)


def test_sound_is_that_of_scenes():
    for more in ({"view": "sound"}, {}):
        data = resolve({"data": {"kind": "videos", "root": "clips", **more}}, {})[0].data
        with pytest.raises(BadRecipe, match="use kind scenes"):
            if more:
                pixel_data(data, 0, WORLD)
            else:
                latent_data(data, 0, VQGAN3d(**SMALL), WORLD, (), Ears(None, 16))
