"""The published recipes on small fake copies of their data sets, with a small network of the same kind."""

from pathlib import Path

import pytest
import torch
from latte_recorded import small_autoencoder
from PIL import Image

from longtake.errors import UnknownModel
from longtake.pipelines import load
from longtake.training import train
from longtake.training.recipe import load_recipe
from longtake.video import Clip, write_clip

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    "steps=2", "precision=fp32", "data.height=16", "data.width=16", "data.batch_size=2", "data.workers=0",
    "data.held_out=1", "backbone.config.width=16", "backbone.config.depth=2", "backbone.config.heads=2",
    "validation.every=2", "validation.batch_size=1", "samples.every=2", "samples.count=1", "samples.steps=2",
]  # fmt: skip


def clip(frames: int = 50) -> torch.Tensor:
    return torch.rand(1, 3, frames, 16, 16) * 2 - 1


def videos(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(Clip(clip(), 25.0), path, codec="ffv1" if path.suffix == ".avi" else "libx264")


def frame_folders(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True)
        for number, frame in enumerate(((clip()[0] + 1) * 127.5).byte().permute(1, 2, 3, 0).numpy()):
            Image.fromarray(frame).save(folder / f"{number:06d}.jpg")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    small_autoencoder().save_pretrained(folder)
    return folder


FAKES = {
    "ucf101": lambda root: videos(*(root / f"Class{i:03d}" / f"v_Class{i:03d}_g01_c01.avi" for i in range(101))),
    "ffs": lambda root: videos(*(root / f"{i:03d}.mp4" for i in range(4))),
    "sky": lambda root: frame_folders(*(root / f"sky{i}" for i in range(4))),
    "taichi": lambda root: frame_folders(*(root / f"taichi{i}" for i in range(4))),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("ucf101", 0), ("ffs", 0), ("ffs", 2), ("sky", 2), ("taichi", 0)])
def test_a_published_recipe_trains_on_its_layout(name, images, autoencoder, tmp_path):
    FAKES[name](tmp_path / "data")
    more = [f"data.root={tmp_path / 'data'}", f"tokenizer.init_from={autoencoder}", f"objective.images={images}"]
    (result,) = train(RECIPES / f"latte-{name}-paper.yaml", [*SMALL, *more, f"out={tmp_path / 'out'}"])
    assert result.step == 2 and torch.isfinite(torch.tensor(list(result.after.values()))).all()
    pipe = load(tmp_path / "out" / "export")
    assert len(pipe.config.classes) == (101 if name == "ucf101" else 0)
    assert pipe.config.predicts == "noise" and pipe.transformer.config.learned_variance


@pytest.mark.parametrize("name", FAKES)
def test_settings_are_the_published_ones(name):
    (recipe,) = load_recipe(RECIPES / f"latte-{name}-paper.yaml")
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.clip_norm) == (1e-4, 0.0, 0.1)
    steps = {"ucf101": 100_000, "sky": 20_000, "ffs": 20_000, "taichi": 500_000}
    assert recipe.optimizer.clip_after == steps[name]
    assert (recipe.data.batch_size, recipe.ema.decay, recipe.precision, recipe.seed) == (40, 0.9999, "fp32", 3407)
    assert recipe.backbone.config["size"] == "XL/2" and recipe.tokenizer.draw


def test_without_the_autoencoder_the_recipe_says_what_is_missing(tmp_path):
    FAKES["ffs"](tmp_path / "data")
    with pytest.raises(UnknownModel, match="neither a starter"):
        train(
            RECIPES / "latte-ffs-paper.yaml",
            [*SMALL, f"data.root={tmp_path / 'data'}", "tokenizer.init_from=nowhere", f"out={tmp_path / 'out'}"],
        )
