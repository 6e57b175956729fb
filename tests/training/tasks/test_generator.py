import pytest
import torch

from longtake.data.scenes import SceneOptions, prerender
from longtake.errors import BadData, BadRecipe
from longtake.pipelines import VideoPipeline
from longtake.training.curves import read_curve
from longtake.training.launch import run
from longtake.training.parallel import World
from longtake.training.recipe import resolve
from longtake.training.tasks.generator import GeneratorTask
from longtake.video import read_clip

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture
def recipe(parts):
    def build(out=".", **changes):
        base = {
            "task": "generator",
            "out": str(out),
            "steps": 12,
            "data": {"count": 8, "held_out": 4, "frames": 9, "height": 16, "width": 16, "batch_size": 4, "workers": 0},
            "tokenizer": {"init_from": str(parts)},
            "text": {"init_from": str(parts)},
            "backbone": {
                "config": {
                    "latent_channels": 4, "text_width": 16, "width": 32, "heads": 2, "dual_blocks": 1, "single_blocks": 1,
                }
            },
            "optimizer": {"lr": 1e-2},
            "schedule": {"warmup": 2},
            "ema": {"decay": 0.5},
            "validation": {"every": 12},
            "samples": {"every": 12, "count": 1, "steps": 2},
        }  # fmt: skip
        return resolve(base, changes)[0]

    return build


def batch(task, count=4):
    train = task.data()[0][0]
    items = [train[i] for i in range(count)]
    return {"pixels": torch.stack([i["pixels"] for i in items]), "prompt": [i["prompt"] for i in items]}


@pytest.mark.parametrize("cache", [True, False])
def test_it_learns_samples_and_exports_a_pipeline(recipe, tmp_path, cache):
    result = run(recipe(tmp_path, data={"cache": str(tmp_path / "cache") if cache else None}))
    assert result.after["loss"] < 0.97 * result.before["loss"]
    sample = read_clip(tmp_path / "samples" / "step-00000012-00.mp4")
    assert tuple(sample.pixels.shape) == (1, 3, 9, 16, 16)
    pipe = VideoPipeline.from_pretrained(str(tmp_path / "export"))
    made = pipe("a red ball rolls", frames=9, height=16, width=16, steps=2)
    assert tuple(made.clip.pixels.shape) == (1, 3, 9, 16, 16)
    assert made.clip.fps == 8
    assert pipe.transformer.black_latents.abs().sum() > 0


def test_cached_latents_give_the_loss_of_encoding_as_one_goes(recipe, tmp_path):
    plain = {"validation": {"every": 0}, "samples": {"every": 0}, "export": False, "steps": 4, "precision": "fp32"}
    run(recipe(tmp_path / "a", **plain, data={"cache": str(tmp_path / "cache")}))
    run(recipe(tmp_path / "b", **plain))
    a, b = ([row["loss"] for row in read_curve(tmp_path / name / "loss.csv")] for name in "ab")
    assert a == pytest.approx(b, abs=2e-3)  # the cache is float16


def test_a_samples_loss_does_not_depend_on_its_batch(recipe):
    task = GeneratorTask(recipe(objective={"image_rate": 0.5, "prompt_dropout": 0.5}), WORLD)
    with torch.no_grad():
        task.backbone.head.weight.normal_(std=0.1)
    clips, seeds = batch(task), [21, 22, 23, 24]
    whole, _ = task.loss(clips, seeds)
    halves = []
    for i in (0, 2):
        half = {"pixels": clips["pixels"][i : i + 2], "prompt": clips["prompt"][i : i + 2]}
        halves.append(task.loss(half, seeds[i : i + 2])[0].item())
    assert whole.item() == pytest.approx(sum(halves) / 2, abs=1e-5)


def test_prompts_and_frames_are_left_out_as_often_as_the_recipe_says(recipe, monkeypatch):
    task = GeneratorTask(recipe(), WORLD)
    seen = {"prompts": [], "kinds": [], "sigmas": []}

    def error(latents, noise, sigma, asked):
        seen["prompts"] += asked.prompts
        seen["sigmas"] += sigma.tolist()
        return torch.zeros(len(asked.prompts)), {}, None

    monkeypatch.setattr(task, "error", error)
    monkeypatch.setattr(task, "condition", lambda batch, latents, kinds, seeds: seen["kinds"].extend(kinds))
    latents = torch.zeros(50, 4, 3, 2, 2)
    for start in range(0, 3000, 50):
        task.loss({"latents": latents, "prompt": ["p"] * 50}, list(range(start, start + 50)))
    assert seen["prompts"].count("") / 3000 == pytest.approx(0.1, abs=0.02)
    assert 1 - seen["kinds"].count(None) / 3000 == pytest.approx(0.2, abs=0.025)
    given = 3000 - seen["kinds"].count(None)
    assert seen["kinds"].count("first") / given == pytest.approx(0.6, abs=0.07)
    assert seen["kinds"].count("continuation") / given == pytest.approx(0.2, abs=0.06)
    # mode(1.29) with shift 3 has more than half of its mass above 0.7
    assert sum(sigma > 0.7 for sigma in seen["sigmas"]) / 3000 > 0.5


def test_given_frames_are_packed_as_the_pipeline_packs_them(recipe):
    task = GeneratorTask(recipe(), WORLD)
    clips = batch(task, 3)
    latents = task.latents(clips, [0] * 3)
    made = task.condition(clips, latents, ["first", "first_last", None], [0, 0, 0])
    pipe = task.pipeline(task.modules)
    pixels = clips["pixels"]
    from longtake.pipelines.given import Given
    from longtake.pipelines.records import Source

    def given(frame):
        return Given(frame, Source(None, ""))

    first = given(pixels[:1, :, :1])
    torch.testing.assert_close(made[:1], pipe._frame_condition({"image": first}, (3, 4, 4), 9), atol=1e-4, rtol=1e-4)
    both = {"image": given(pixels[1:2, :, :1]), "last_image": given(pixels[1:2, :, -1:])}
    torch.testing.assert_close(made[1:2], pipe._frame_condition(both, (3, 4, 4), 9), atol=1e-4, rtol=1e-4)
    assert torch.equal(made[2:], task.backbone.empty_condition(latents[2:]))
    assert task.condition(clips, latents[:, :, :1], ["first"] * 3, [0] * 3) is None  # an image is not given to itself
    opening = task.condition(clips, latents, ["continuation"] * 3, [0, 1, 2])
    assert opening[:, 4:, :2].min() == 1
    assert opening[:, 4:, 2:].max() == 0  # at least one latent frame is left to make
    assert torch.equal(opening[:, :4, :2], latents[:, :, :2])


def test_alignment_is_learned_and_left_behind(recipe, tmp_path):
    quiet = {"validation": {"every": 0}, "samples": {"every": 0}, "steps": 60}
    made = recipe(tmp_path, **quiet, objective={"alignment": 0.5, "alignment_block": 1}, data={"cache": str(tmp_path)})
    run(made)
    rows = read_curve(tmp_path / "loss.csv")
    assert rows[0]["loss"] == pytest.approx(rows[0]["flow"] + 0.5 * rows[0]["alignment"], rel=1e-4)
    assert rows[-1]["alignment"] < 0.8 * rows[0]["alignment"]
    pipe = VideoPipeline.from_pretrained(str(tmp_path / "export"))
    assert not any("alignment" in name for name in pipe.transformer.state_dict())


def test_alignment_needs_scenes_and_a_block_that_exists(recipe, tmp_path):
    with pytest.raises(BadRecipe, match="only scenes"):
        GeneratorTask(recipe(objective={"alignment": 1.0, "alignment_block": 1}, data={"kind": "videos"}), WORLD)
    with pytest.raises(BadRecipe, match="3 of 2 blocks; use 1 to 2"):
        GeneratorTask(recipe(objective={"alignment": 1.0, "alignment_block": 3}), WORLD)


def test_the_text_encoder_is_trained_and_exported_when_asked(recipe, parts, tmp_path):
    changes = {"validation": {"every": 0}, "samples": {"every": 0}, "steps": 3}
    for train in (False, True):
        out = tmp_path / str(train)
        task = recipe(out, **changes)
        task.text.train = train
        run(task)
        encoder = VideoPipeline.from_pretrained(str(out / "export")).text_encoder
        before = type(encoder).from_pretrained(parts / "text_encoder").state_dict()
        changed = [not torch.equal(value, before[name]) for name, value in encoder.state_dict().items()]
        assert any(changed) == train


def test_a_generator_without_a_text_encoder_is_refused(recipe, tmp_path):
    wrong = recipe(tmp_path)
    wrong.text.init_from = None
    with pytest.raises(BadRecipe, match=r"text\.init_from"):
        run(wrong)


def test_a_cache_of_other_scenes_is_refused(recipe, tmp_path):
    quiet = {"validation": {"every": 0}, "samples": {"every": 0}, "export": False, "steps": 1}
    folders = {"cache": str(tmp_path / "cache"), "root": str(tmp_path / "scenes")}
    for name, share in (("a", 0.0), ("b", 1.0)):
        options = {"pair_share": share}
        prerender(folders["root"] + name, 8, SceneOptions(**options), frames=9, height=16, width=16, progress=False)
        made = recipe(tmp_path / name, **quiet, data={**folders, "root": folders["root"] + name, "options": options})
        if name == "a":
            run(made)
            continue
        with pytest.raises(BadData, match="another data"):
            run(made)
