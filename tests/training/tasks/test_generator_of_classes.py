import pytest
import torch

from longtake.data.scenes import SceneOptions
from longtake.data.scenes.classes import class_names
from longtake.errors import BadRecipe
from longtake.pipelines import load
from longtake.training.curves import read_curve
from longtake.training.launch import run
from longtake.training.parallel import World
from longtake.training.recipe import resolve
from longtake.training.tasks.generator import GeneratorTask
from longtake.video import read_clip

WORLD = World(0, 1, torch.device("cpu"))
ALONE = {"relations": ["alone"], "shapes": ["ball", "cube"], "motions": ["still", "spin"]}


@pytest.fixture
def recipe(parts):
    def build(out=".", predicts="velocity", images=0, config=None, start=None, **changes):
        base = {
            "task": "generator",
            "out": str(out),
            "steps": 12,
            "precision": "fp32",
            "data": {
                "count": 8, "held_out": 4, "frames": 4, "height": 16, "width": 16, "batch_size": 4, "workers": 0,
                "options": ALONE,
            },
            "tokenizer": {"init_from": str(parts), "per_frame": True},
            "objective": {"predicts": predicts, "sigmas": "uniform", "shift": 1.0, "images": images},
            "backbone": {"kind": "latte", "init_from": str(start)} if start else {
                "kind": "latte",
                "config": {
                    "latent_channels": 4, "width": 32, "depth": 2, "heads": 2, "patch": 1, "classes": 4,
                    "learned_variance": predicts == "noise", **(config or {}),
                },
            },
            "optimizer": {"lr": 1e-2},
            "schedule": {"warmup": 2},
            "ema": {"decay": 0.5},
            "validation": {"every": 12},
            "samples": {"every": 12, "count": 2, "steps": 2},
        }  # fmt: skip
        return resolve(base, changes)[0]

    return build


@pytest.mark.parametrize(("predicts", "images"), [("velocity", 0), ("noise", 0), ("noise", 3)])
@pytest.mark.parametrize("cache", [True, False])
def test_it_learns_samples_and_exports_a_pipeline(recipe, tmp_path, predicts, images, cache):
    made = recipe(tmp_path, predicts, images, data={"cache": str(tmp_path / "cache") if cache else None})
    result = run(made)
    assert result.after["loss"] < 0.97 * result.before["loss"]
    if predicts == "noise":
        first = read_curve(tmp_path / "loss.csv")[0]
        assert first["loss"] == pytest.approx(first["noise"] + first["bound"], rel=1e-4)
    assert tuple(read_clip(tmp_path / "samples" / "step-00000012-01.mp4").pixels.shape) == (1, 3, 4, 16, 16)
    pipe = load(tmp_path / "export")
    assert pipe.config.classes == ["a ball stands still", "a ball spins", "a cube stands still", "a cube spins"]
    assert tuple(pipe("a cube spins", steps=2).clip.pixels.shape) == (1, 3, 4, 16, 16)


def test_labels_are_those_of_the_scenes_and_dropped_as_often_as_the_recipe_says(recipe, monkeypatch):
    task = GeneratorTask(recipe(images=2), WORLD)
    names = class_names(SceneOptions(**{key: tuple(value) for key, value in ALONE.items()}))
    item = task.data()[0][0][3]
    thing = item["attributes"]["objects"][0]
    assert names[item["label"]].startswith(f"a {thing['shape']} ")
    assert ("spins" in names[item["label"]]) == (thing["motion"] == "spin")
    seen, own = [], []

    def error(latents, noise, sigma, asked):
        assert latents.shape[2] == 6
        seen.extend(asked.labels.tolist())
        own.extend(asked.image_labels.flatten().tolist())
        return torch.zeros(50), {}, None

    monkeypatch.setattr(task, "error", error)
    batch = {
        "latents": torch.zeros(50, 4, 4, 2, 2), "prompt": ["p"] * 50, "label": [1] * 50,
        "images": torch.zeros(50, 4, 2, 2, 2), "image_labels": torch.tensor([[2, -1]] * 50),
    }  # fmt: skip
    for start in range(0, 3000, 50):
        task.loss(batch, list(range(start, start + 50)))
    assert set(seen) == {1, 4} and set(own[::2]) == {2, 4} and set(own[1::2]) == {4}
    assert seen.count(4) / 3000 == pytest.approx(0.1, abs=0.02)
    assert own[::2].count(4) / 3000 == pytest.approx(0.1, abs=0.02)
    both = sum(a == 4 and b == 4 for a, b in zip(seen, own[::2], strict=True)) / 3000
    assert both == pytest.approx(0.01, abs=0.01)  # drawn apart for a clip and its images


def test_a_samples_loss_does_not_depend_on_its_batch(recipe):
    task = GeneratorTask(recipe(predicts="noise", images=2), WORLD)
    with torch.no_grad():
        for parameter in task.backbone.parameters():
            parameter.normal_(std=0.1)
    items = [task.data()[0][0][i] for i in range(4)]
    whole = {
        "pixels": torch.stack([i["pixels"] for i in items]), "prompt": [i["prompt"] for i in items],
        "label": [i["label"] for i in items], "images": torch.stack([i["images"] for i in items]),
        "image_labels": torch.stack([i["image_labels"] for i in items]),
    }  # fmt: skip
    halves = [{name: values[i : i + 2] for name, values in whole.items()} for i in (0, 2)]
    parts = [task.loss(half, [21 + 2 * i, 22 + 2 * i])[0].item() for i, half in enumerate(halves)]
    assert task.loss(whole, [21, 22, 23, 24])[0].item() == pytest.approx(sum(parts) / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ({"config": {"classes": 3}}, "classes: 3, and the data has 4"),
        ({"config": {"learned_variance": True}}, "learned_variance: true goes with"),
        ({"images": 2, "tokenizer": {"per_frame": False}, "data": {"frames": 5}}, "single images need"),
        ({"objective": {"alignment": 0.1}}, "only for backbone.kind waver"),
        ({"data": {"options": {"relations": ["alone", "beside"]}}}, "relations"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(recipe, build, words):
    from longtake.errors import LongtakeError

    with pytest.raises(LongtakeError, match=words):
        GeneratorTask(recipe(**build), WORLD)


def test_an_unconditional_model_needs_neither_text_nor_classes(recipe, tmp_path):
    made = recipe(tmp_path, config={"classes": 0}, data={"options": {}}, steps=2)
    run(made)
    assert tuple(load(tmp_path / "export")("", steps=1, guidance=1.0).clip.pixels.shape) == (1, 3, 4, 16, 16)


def test_a_published_size_is_a_word_in_the_recipe(recipe):
    made = recipe(config={"classes": 0}, data={"options": {}})
    made.backbone.config = {"size": "S/2", "latent_channels": 4, "learned_variance": False}
    task = GeneratorTask(made, WORLD)
    assert task.backbone.config.width == 384 and len(task.backbone.blocks) == 12
    made.backbone.config["width"] = "wide"
    with pytest.raises((BadRecipe, TypeError)):
        GeneratorTask(made, WORLD)


def test_latents_are_drawn_from_the_posterior_when_the_recipe_says_so(recipe):
    made = recipe()
    pixels = torch.rand(2, 3, 4, 16, 16) * 2 - 1
    mean = GeneratorTask(made, WORLD).encoded(pixels, [1, 2])
    made.tokenizer.draw = True
    task = GeneratorTask(made, WORLD)
    drawn = task.encoded(pixels, [1, 2])
    assert torch.equal(drawn[1:], task.encoded(pixels[1:], [2])) and not torch.equal(
        drawn, task.encoded(pixels, [3, 4])
    )
    _, logvar = task.vae.posterior(pixels)
    spread = (0.5 * logvar).exp() / torch.tensor(task.vae.config.latents_std).view(1, -1, 1, 1, 1)
    assert float(((drawn - mean) / spread).std()) == pytest.approx(1.0, abs=0.15)


STAGED = {"layout": "dense1+[1,0,1,0]+1", "grids": [[0, 2, 2], [0, 2, 1], [2, 1, 1]]}


@pytest.mark.parametrize("predicts", ["velocity", "noise"])
def test_a_network_of_stages_is_converted_trained_a_stage_at_a_time_and_gone_on_with(recipe, tmp_path, predicts):
    made = recipe(tmp_path / "dense", predicts, config={"depth": 4}, samples={"every": 0})
    run(made)
    start = tmp_path / "dense" / "export"
    run(recipe(tmp_path / "flex", predicts, start=start, backbone={"flexdit": STAGED}, samples={"every": 0}))
    pipe = load(tmp_path / "flex" / "export")
    assert pipe.transformer.config.layout == STAGED["layout"] and pipe.transformer.config.classes == 4
    with torch.no_grad():
        pipe.transformer(torch.randn(1, 4, 4, 4, 4), torch.tensor(500.0))  # outside of the run
    output = pipe("a cube spins", steps=3)
    assert tuple(output.clip.pixels.shape) == (1, 3, 4, 16, 16)
    (receipt,) = output.record.receipts
    steps = receipt["notes"]["steps"]
    assert receipt["method"] == "flexdit" and receipt["acted"] and [step["calls"] for step in steps] == [1, 1, 1]
    assert steps[0]["sparse"] == [2, 1, 1] and steps[0]["tokens"] == [64, 2, 64, 64]  # 4 frames of 4x4 latents
    run(recipe(tmp_path / "more", predicts, start=tmp_path / "flex" / "export", samples={"every": 0}))

    task = GeneratorTask(recipe(tmp_path / "x", predicts, start=start, backbone={"flexdit": STAGED}), WORLD)
    stages = []
    for batch in range(300):
        before = []
        for seed in range(3):
            before.append(task.level(torch.Generator().manual_seed(7 * batch + seed), before))
        found = {task.backbone.stage_of(task.timestep(level)) for level in before}
        assert len(found) == 1
        stages.append(found.pop())
    assert all(70 < stages.count(stage) < 130 for stage in range(3)), "stages are as frequent as their levels"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grids": [[0, 2, 2]]}, "layout: missing"),
        ({"layout": "2+[1,3,1,1]+2", "grids": [[0, 2, 2]]}, "is of 10 blocks and the network has 2"),
        ({"layout": "dense1+[1,0,1,0]+1", "gird": 1}, "gird: unknown key.*grids"),
        ({"layout": "dense1+[1,0,1,0]+1"}, "by grids or by rates"),
    ],
)
def test_a_conversion_that_does_not_fit_is_named(recipe, given, message):
    with pytest.raises(BadRecipe, match=f"backbone.flexdit.*{message}"):
        GeneratorTask(recipe(backbone={"flexdit": given}), WORLD)


BUDGET = {"share": 0.5, "hold": 2, "fall": 6, "whole": 8}


@pytest.mark.parametrize("predicts", ["velocity", "noise"])
def test_a_dynamic_network_is_converted_held_to_its_budget_and_gone_on_with(recipe, tmp_path, predicts):
    made = recipe(tmp_path / "dense", predicts, samples={"every": 0})
    run(made)
    start = tmp_path / "dense" / "export"
    changes = {"backbone": {"dydit": {"starts": [2.0, 3.0]}}, "objective": {"strata": 4, "budget": BUDGET}}
    run(recipe(tmp_path / "dy", predicts, start=start, steps=40, samples={"every": 0}, **changes))
    rows = read_curve(tmp_path / "dy" / "loss.csv")
    last = rows[-1]
    assert last["loss"] == pytest.approx(last["dynamic"] + 2 * (last["share"] - 0.5) ** 2, rel=1e-4)
    first = rows[0]
    beside = first["loss"] - first["dynamic"] - 2 * (first["share"] - 1) ** 2
    assert beside == pytest.approx(first["dynamic"], rel=0.3), "everything on is trained beside, for a while"
    assert last["share"] < first["share"] - 0.1
    pipe = load(tmp_path / "dy" / "export")
    output = pipe("a cube spins", steps=3)
    assert tuple(output.clip.pixels.shape) == (1, 3, 4, 16, 16)
    (receipt,) = output.record.receipts
    assert receipt["method"] == "dydit" and receipt["acted"] and receipt["notes"]["share"] < 0.9
    assert [step["calls"] for step in receipt["notes"]["steps"]] == [1, 1, 1]
    run(recipe(tmp_path / "more", predicts, start=tmp_path / "dy" / "export", samples={"every": 0}, steps=2))


@pytest.mark.parametrize("settle", [None, 5])
def test_gates_are_noisy_until_they_settle(recipe, settle):
    budget = {"share": 0.5, "whole": 0, "temperature": 1.0, "settle": settle}
    task = GeneratorTask(recipe(backbone={"dydit": {"starts": [0.5, 0.5]}}, objective={"budget": budget}), WORLD)
    (part,), _ = task.data()
    batch = torch.utils.data.default_collate([part[0], part[1]])
    draw, moved = task.backbone.drawing, 0

    def drawing(seeds, *, settled, temperature):
        assert temperature == 1.0
        return draw([seed + moved for seed in seeds], settled=settled, temperature=temperature)

    def shares(step):
        """How many there are with the same noise levels and noise, and other seeds of the gates."""
        nonlocal moved
        task.begin(step)
        found = set()
        for by in (1, 2, 3):
            moved = by
            found.add(float(task.loss(batch, [7, 8])[1]["share"]))
        return len(found)

    task.backbone.drawing = drawing
    task.backbone.train()
    assert shares(4) > 1
    assert (shares(5) == 1) == (settle == 5)


def test_strata_take_their_turns(recipe):
    task = GeneratorTask(recipe(objective={"strata": 4}), WORLD)
    before = []
    for seed in range(8):
        before.append(task.level(torch.Generator().manual_seed(seed), before))
    assert [int(4 * level) for level in before] == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {"dydit": {"token": False}}}, "backbone.dydit.token: unknown key.*tokens"),
        ({"backbone": {"dydit": {"td_lora": {"rang": 2}}}}, "backbone.dydit.td_lora.rang: unknown key.*rank"),
        ({"backbone": {"dydit": {"starts": [1.0]}}}, "backbone.dydit: starts"),
        ({"backbone": {"dydit": {}, "flexdit": STAGED}}, "flexdit and dydit would both choose tokens"),
        ({"objective": {"budget": {"temperature": 0}}}, "temperature: 0.*above 0"),
        ({"objective": {"budget": {"share": 0.5}}}, "objective.budget.share: only for networks of backbone.dydit"),
        ({"backbone": {"flexdit": STAGED, "config": {"depth": 4}}, "objective": {"strata": 2}}, "strata"),
    ],
)
def test_a_budget_that_does_not_fit_is_named(recipe, changes, message):
    with pytest.raises(BadRecipe, match=message):
        GeneratorTask(recipe(**changes), WORLD)
