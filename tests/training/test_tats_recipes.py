"""The recipes of TATS, small: all stages of the tiny one, the published ones on fake copies of their data sets."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import longtake
from longtake.errors import BadRecipe, UnknownModel
from longtake.training import train
from longtake.training.recipe import load_recipe
from longtake.video import Clip, write_clip

RECIPES = Path(__file__).parents[2] / "recipes"
GPT = {"width": 16, "depth": 1, "heads": 2}
SMALL = [
    "steps=2", "precision=fp32", "data.height=16", "data.width=16", "data.batch_size=2", "data.accumulate=1",
    "data.workers=0", "data.held_out=1", "checkpoint.every=2", "validation.every=2", "validation.batch_size=1",
    "samples.every=2", "samples.count=1",
    "stages.tokenizer.tokenizer.config.base_width=4", "stages.tokenizer.tokenizer.config.codes=24",
    "stages.tokenizer.tokenizer.config.code_width=8", "stages.tokenizer.tokenizer.discriminator.width=4",
    "stages.tokenizer.tokenizer.loss.start=1",
]  # fmt: skip


def small(*stages, **more):
    widths = [f"stages.{stage}.gpt.config.{name}={value}" for stage in stages for name, value in GPT.items()]
    return [*SMALL, *widths, *(f"{key}={value}" for key, value in more.items())]


@pytest.mark.slow
def test_the_tiny_recipe_trains_every_stage_and_makes_long_clips(tmp_path):
    given = small(
        "base", "keys", "gaps", **{"data.count": 6, "data.cache": tmp_path / "cache", "out": tmp_path / "out"}
    )
    results = train(RECIPES / "tats-tiny.yaml", given)
    assert [result.step for result in results] == [2] * 4
    base, long = (longtake.load(tmp_path / "out" / stage / "export") for stage in ("base", "gaps"))
    name = base.config.classes[0]
    assert base(name).clip.pixels.shape == (1, 3, 16, 16, 16)
    assert long(name, frames=60).clip.pixels.shape == (1, 3, 60, 16, 16)
    assert long.config.clip_size == [52, 16, 16] and long.config.classes == base.config.classes
    assert len(list((tmp_path / "cache").glob("latents-*-label"))) == 3  # ids of 16, 64 and 20 frames


def clip(frames: int = 72) -> torch.Tensor:
    return torch.rand(1, 3, frames, 16, 16) * 2 - 1


def ucf101(root: Path) -> None:
    for number in range(101):
        path = root / "train" / f"Class{number:03d}" / f"v_Class{number:03d}_g01_c01.avi"
        path.parent.mkdir(parents=True)
        write_clip(Clip(clip(20), 25.0), path, codec="ffv1")


def sky(root: Path) -> None:
    for number in range(4):
        folder = root / f"sky{number}"
        folder.mkdir(parents=True)
        for at, frame in enumerate(((clip()[0] + 1) * 127.5).byte().permute(1, 2, 3, 0).numpy()):
            Image.fromarray(frame).save(folder / f"{at:06d}.jpg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fake", "stages"), [("ucf101", ucf101, ["base"]), ("sky", sky, ["keys", "gaps"])], ids=["ucf101", "sky"]
)
def test_a_published_recipe_trains_on_its_layout(name, fake, stages, tmp_path):
    fake(tmp_path / "data")
    given = small(*stages, **{"data.root": tmp_path / "data", "out": tmp_path / "out"})
    results = train(RECIPES / f"tats-{name}-paper.yaml", given)
    assert [result.step for result in results] == [2] * (1 + len(stages))
    pipe = longtake.load(tmp_path / "out" / stages[-1] / "export")
    prompt = pipe.config.classes[0] if name == "ucf101" else ""
    assert pipe(prompt, frames=24).clip.pixels.isfinite().all()


@pytest.mark.parametrize("name", ["ucf101", "sky"])
def test_settings_are_the_published_ones(name):
    tokenizer, *gpts = load_recipe(RECIPES / f"tats-{name}-paper.yaml")
    assert (tokenizer.data.frames, tokenizer.data.height, tokenizer.data.batch_size) == (16, 128, 96)
    assert (tokenizer.optimizer.lr, tuple(tokenizer.optimizer.betas)) == (9e-5, (0.5, 0.9))
    assert tokenizer.tokenizer.config["codes"] == 16384 and tokenizer.tokenizer.loss["start"] == 10_000
    for gpt in gpts:
        assert gpt.gpt.config == {"width": 1024, "depth": 24, "heads": 16} and gpt.steps == 2_000_000
        assert gpt.optimizer.lr == pytest.approx(4.5e-6 * gpt.data.batch_size)
        assert gpt.data.frames == {"base": 16, "keys": 64, "gaps": 20}[gpt.gpt.role]


@pytest.mark.parametrize(
    ("stage", "change", "words"),
    [
        ("gaps", "data.frames=24", "a gap with both its ends has 20"),
        ("gaps", "gpt.keys.init_from=null", r"gpt\.keys\.init_from: missing"),
        ("gaps", "gpt.keys.init_from=others", r"gpt\.keys\.init_from: others was trained with tokenizer 0123456789ab"),
        ("base", "gpt.condition=clas", "clas"),
    ],
)
def test_what_does_not_fit_is_refused(stage, change, words, tmp_path, monkeypatch):
    from longtake.tokenizers.vqgan3d import VQGAN3d
    from longtake.training.parallel import World
    from longtake.training.tasks import build_task

    monkeypatch.chdir(tmp_path)
    Path("others").mkdir()
    Path("others", "model_index.json").write_text(json.dumps({"tokenizer_hash": "0123456789abcdef"}))
    VQGAN3d(base_width=4, downsample=(4, 8, 8), codes=24, code_width=8).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises((BadRecipe, UnknownModel), match=words):
        stages = load_recipe(
            RECIPES / "tats-tiny.yaml", small(stage, **{"data.count": 4}) + [f"stages.{stage}.{change}"]
        )
        (recipe,) = [one for one in stages if one.name.endswith(stage)]
        recipe.tokenizer.init_from = str(tmp_path / "tokenizer")
        build_task(recipe, World(0, 1, torch.device("cpu")))
