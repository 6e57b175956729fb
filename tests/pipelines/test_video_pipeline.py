"""The pipeline against oracles: one step by hand, many steps of unlike schedulers, and what reaches the transformer."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from longtake.errors import BadImage, BadInput, BadSize, BadVideo, UnknownModel
from longtake.pipelines import VideoPipeline, encode_prompts, load
from longtake.pipelines.schedulers import scheduler_named
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.video import Clip, write_clip

SMALL = {"frames": 9, "height": 32, "width": 32, "steps": 2}


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return load(tiny_folder)


@pytest.fixture
def calls(pipe):
    """What the transformer was called with: (latents, timestep, text, text_mask, condition) of each call."""
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append([*args, *kwargs.values()]), with_kwargs=True
    )
    yield seen
    handle.remove()


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_call_gives_a_clip_its_latents_and_a_record(pipe):
    output = pipe("a red ball", **SMALL, seed=3)
    assert output.clip.pixels.shape == (1, 3, 9, 32, 32) and output.clip.fps == 8.0
    assert output.clip.pixels.abs().max() <= 1 and output.clip.pixels.std() > 0.01
    assert output.latents.shape == (1, 4, 3, 4, 4)
    torch.testing.assert_close(output.clip.pixels, pipe.tokenizer.decode(output.latents), atol=1e-5, rtol=0)
    record = output.record
    assert record.settings.seed == 3 and record.settings.frames == 9 and record.weights == pipe.weights()
    assert record.versions["torch"] == torch.__version__.split("+")[0] or record.versions["torch"] == torch.__version__
    assert record.seconds.text > 0 and record.seconds.denoise > 0 and record.seconds.decode > 0
    assert record.peak_memory_bytes > 2**26


def test_one_step_is_noise_minus_the_guided_velocity(pipe):
    output = pipe("a red ball", negative_prompt="blue", **SMALL | {"steps": 1}, seed=11, guidance=3.0)
    states, mask = encode_prompts(["blue", "a red ball"], pipe.text_tokenizer, pipe.text_encoder)
    x = noise(11, 1, 4, 3, 4, 4)
    with torch.no_grad():
        null, cond = pipe.transformer(x.repeat(2, 1, 1, 1, 1), torch.full((2,), 1000.0), states, mask).split(1)
    torch.testing.assert_close(output.latents, x - (null + 3.0 * (cond - null)), atol=1e-5, rtol=1e-5)


def test_guidance_one_asks_for_one_prediction_only(pipe, calls):
    pipe("a red ball", **SMALL, guidance=1.0)
    pipe("a red ball", **SMALL, guidance=2.0)
    assert [len(call[0]) for call in calls] == [1, 1, 2, 2]


def test_negative_prompt_and_prompt_both_matter(pipe):
    base = pipe("a red ball", **SMALL).latents
    assert not torch.allclose(base, pipe("a red ball", negative_prompt="blue", **SMALL).latents, atol=1e-3)
    assert not torch.allclose(base, pipe("a blue cube", **SMALL).latents, atol=1e-3)


def test_a_batch_equals_the_single_clips_of_its_seeds(pipe):
    both = pipe("a red ball", **SMALL, seed=5, count=2).latents
    singles = [pipe("a red ball", **SMALL, seed=seed).latents for seed in (5, 6)]
    torch.testing.assert_close(both, torch.cat(singles), atol=1e-4, rtol=0)
    assert not torch.allclose(both[0], both[1], atol=0.1)


def test_the_same_seed_gives_the_same_bits(pipe):
    assert torch.equal(pipe("a red ball", **SMALL, seed=5).latents, pipe("a red ball", **SMALL, seed=5).latents)


TINY = {"frames": 5, "height": 16, "width": 16, "guidance": 2.0}


@pytest.fixture(scope="module")
def fine(pipe):
    return pipe("a red ball", **TINY, steps=100).latents


@pytest.mark.parametrize("name", ["euler", "heun", "unipc", "dpm++", "deis"])
@pytest.mark.filterwarnings("ignore:__array")
def test_every_scheduler_follows_the_same_flow(pipe, fine, name):
    """With enough steps all of them solve one equation; a sign or a noise level taken wrongly would end elsewhere."""
    own = pipe.scheduler
    pipe.scheduler = scheduler_named(name, shift=2.0)
    try:
        found = pipe("a red ball", **TINY, steps=20)
    finally:
        pipe.scheduler = own
    start = noise(0, 1, 4, 2, 2, 2)
    assert (found.latents - fine).norm() < 0.15 * (fine - start).norm()
    assert found.record.scheduler["class"] == type(scheduler_named(name)).__name__


def test_a_scheduler_that_adds_noise_draws_it_per_clip(pipe):
    own = pipe.scheduler
    pipe.scheduler = scheduler_named("sa")
    try:
        both = pipe("a red ball", **TINY, steps=4, seed=2, count=2).latents
        second = pipe("a red ball", **TINY, steps=4, seed=3).latents
    finally:
        pipe.scheduler = own
    torch.testing.assert_close(both[1:], second, atol=1e-4, rtol=0)


def test_nothing_given_asks_for_text_to_video(pipe, calls):
    pipe("a red ball", **SMALL)
    assert not [value for value in calls[0][4:] if isinstance(value, torch.Tensor)]


def test_a_given_picture_reaches_the_first_frame_of_both_branches(pipe, calls):
    picture = noise(1, 3, 32, 32).tanh()
    output = pipe("a red ball", **SMALL, image=picture)
    condition, black = calls[0][4], pipe.transformer.black_latents
    assert condition.shape == (2, 4 + 4, 3, 4, 4)
    expected = pipe.tokenizer.encode(picture[None, :, None])
    for row in condition:
        torch.testing.assert_close(row[:4, :1], expected[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(row[:4, 1:], black.expand(-1, 2, 4, 4), atol=1e-5, rtol=1e-5)
        assert row[4:, 0].min() == 1 and row[4:, 1:].max() == 0
    assert output.record.settings.image.path is None and output.record.warnings == ()


def test_the_last_picture_marks_one_pixel_frame_of_the_last_latent(pipe, calls):
    first, last = noise(1, 3, 32, 32).tanh(), noise(2, 3, 32, 32).tanh()
    pipe("a red ball", **SMALL, image=first, last_image=last)
    condition = calls[0][4][0]
    torch.testing.assert_close(condition[:4, -1:], pipe.tokenizer.encode(last[None, :, None])[0], atol=1e-5, rtol=1e-5)
    assert condition[4:, -1, 0, 0].tolist() == [0, 0, 0, 1]
    assert condition[4:, 1].max() == 0 and condition[4:, 0].min() == 1


def test_continuing_gives_the_last_five_frames(pipe, calls):
    clip = Clip(noise(4, 1, 3, 12, 32, 32).tanh(), 8.0)
    pipe("a red ball", **SMALL, continue_from=clip)
    condition = calls[0][4][0]
    expected = pipe.tokenizer.encode(clip.pixels[:, :, -5:])[0]
    torch.testing.assert_close(condition[:4, :2], expected, atol=1e-5, rtol=1e-5)
    assert condition[4:, :2].min() == 1 and condition[4:, 2].max() == 0


def test_continuing_a_faster_clip_takes_frames_at_the_pipelines_rate(pipe, calls):
    clip = Clip(noise(4, 1, 3, 40, 32, 32).tanh(), 24.0)
    pipe("a red ball", **SMALL, continue_from=clip)
    expected = pipe.tokenizer.encode(clip.pixels[:, :, [27, 30, 33, 36, 39]])[0]
    torch.testing.assert_close(calls[0][4][0][:4, :2], expected, atol=1e-5, rtol=1e-5)


def test_a_picture_of_another_size_is_fitted_and_noted(pipe, tmp_path):
    Image.new("RGB", (100, 50), (255, 0, 0)).save(tmp_path / "red.png")
    output = pipe("a red ball", **SMALL, image=tmp_path / "red.png")
    assert output.record.warnings == ("image of 100x50 was resized and cropped to 32x32",)
    assert output.record.settings.image.path == str(tmp_path / "red.png")
    assert len(output.record.settings.image.sha256) == 64


def test_a_long_prompt_is_cut_and_the_record_says_so(pipe):
    output = pipe("a red ball " * 12, **SMALL)
    assert len(output.record.warnings) == 1 and "37 tokens" in output.record.warnings[0]
    same = pipe("a red ball " * 12 + "behind a blue cube", **SMALL)
    assert torch.equal(output.latents, same.latents)


def test_steps_are_reported(pipe):
    seen = []
    pipe("a red ball", **SMALL | {"steps": 3}, on_step=lambda done, steps: seen.append((done, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"frames": 16}, BadSize, "16.*13 or 17"),
        ({"frames": 0}, BadSize, "0"),
        ({"width": 60}, BadSize, "60.*56 or 64"),
        ({"height": 33}, BadSize, "33.*32 or 40"),
        ({"height": 32.0}, BadSize, "whole number"),
        ({"steps": 0}, BadInput, "steps is 0.*1 to 1000"),
        ({"steps": 2.5}, BadInput, "steps is 2.5"),
        ({"guidance": -1.0}, BadInput, "guidance is -1.0.*0 to 100"),
        ({"guidance": float("nan")}, BadInput, "guidance is nan"),
        ({"seed": -1}, BadInput, "seed is -1"),
        ({"count": 0}, BadInput, "count is 0"),
        ({"prompt": "x" * 10_000}, BadInput, "10000 characters"),
        ({"negative_prompt": "x" * 10_000}, BadInput, "negative_prompt has 10000"),
        ({"prompt": 7}, BadInput, "prompt is a int"),
        ({"image": "missing.png"}, BadImage, "missing.png"),
        ({"image": torch.zeros(32, 32)}, BadInput, r"image is \(32, 32\)"),
        ({"image": torch.full((3, 32, 32), 2.0)}, BadInput, "outside"),
        ({"last_image": torch.zeros(3, 32, 32), "frames": 1}, BadInput, "last_image.*more than one frame"),
        ({"continue_from": "missing.mp4"}, BadVideo, "missing.mp4"),
        ({"continue_from": torch.zeros(3, 3, 32, 32)}, BadInput, "continue_from is too short.*5 frames"),
        ({"continue_from": torch.zeros(3, 9, 32, 32), "frames": 5}, BadInput, "at least 9"),
        (
            {"continue_from": torch.zeros(3, 9, 32, 32), "image": torch.zeros(3, 32, 32)},
            BadInput,
            "image and continue_from",
        ),
    ],
)
def test_bad_arguments_are_refused_before_any_network_runs(pipe, calls, arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        pipe(**{"prompt": "a red ball", **SMALL, **arguments})
    assert not calls
    assert "\n" not in str(caught.value)


def test_continuing_a_file_reads_its_end(pipe, calls, tmp_path):
    ramp = torch.linspace(-0.9, 0.9, 20).view(1, 1, 20, 1, 1).expand(1, 3, 20, 32, 32)
    write_clip(Clip(ramp.contiguous(), 8.0), tmp_path / "ramp.mp4", crf=1)
    pipe("a red ball", **SMALL, continue_from=tmp_path / "ramp.mp4")
    expected = pipe.tokenizer.encode(ramp[:, :, -5:].contiguous())[0]
    torch.testing.assert_close(calls[0][4][0][:4, :2], expected, atol=0.05, rtol=0)


# ------------------------------------------------------------------------------------------------------------- folders


def test_a_saved_pipeline_makes_the_same_clip(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert torch.equal(again("a red ball", **SMALL).latents, pipe("a red ball", **SMALL).latents)
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index["tokenizer"] == ["longtake", "CausalVAE"] and index["transformer"] == ["longtake", "HybridStreamDiT"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_pipeline_saved_in_half_precision_loads_in_any(tiny_folder, tmp_path, dtype):
    load(tiny_folder, dtype=dtype).save_pretrained(tmp_path / "half")
    for kind in (None, "bfloat16"):
        loaded = load(tmp_path / "half", dtype=kind)
        assert loaded.transformer.dtype == (torch.float32 if kind is None else torch.bfloat16)
    assert loaded("a red ball", **SMALL).clip.pixels.isfinite().all()


def test_another_tokenizer_is_refused(pipe, tiny_folder, tmp_path):
    torch.manual_seed(99)
    other = CausalVAE(latent_channels=4, base_width=4)
    with pytest.raises(UnknownModel, match="the transformer was trained with"):
        VideoPipeline.from_pretrained(str(tiny_folder), tokenizer=other)
    swapped = load(tiny_folder)
    swapped.tokenizer = other
    with pytest.raises(UnknownModel, match="the transformer was trained with"):
        swapped("a red ball", **SMALL)
    with pytest.raises(UnknownModel, match="the transformer was trained with"):
        swapped.save_pretrained(tmp_path / "swapped")


def test_a_tokenizer_with_other_statistics_is_another_tokenizer(tiny_folder):
    pipe = load(tiny_folder)
    own = pipe.tokenizer
    changed = CausalVAE.from_config(own.config)
    changed.load_state_dict(own.state_dict())
    changed.set_statistics([0.0] * 4, [1.0] * 4)
    pipe.tokenizer = changed
    with pytest.raises(UnknownModel):
        pipe("a red ball", **SMALL)


def test_networks_that_do_not_belong_together_are_refused(pipe):
    parts = {name: getattr(pipe, name) for name in ("transformer", "text_encoder", "text_tokenizer", "scheduler")}
    with pytest.raises(BadSize, match="8 latent channels come in and the transformer takes 4"):
        VideoPipeline(tokenizer=CausalVAE(latent_channels=8, base_width=4), **parts)


def test_weights_hash_follows_the_weights(tiny_folder):
    pipe = load(tiny_folder)
    before = pipe.weights()
    assert before == load(tiny_folder).weights()
    with torch.no_grad():
        pipe.transformer.head.bias[0] += 1
    assert pipe.weights() != before


@pytest.mark.slow
def test_diffusers_alone_loads_the_folder(tiny_folder, tmp_path):
    """Without importing longtake: diffusers finds the pipeline through the folder's own three lines."""
    code = (
        "from diffusers import DiffusionPipeline\n"
        f"pipe = DiffusionPipeline.from_pretrained({str(tiny_folder)!r}, custom_pipeline='pipeline',"
        " trust_remote_code=True)\n"
        "print(type(pipe).__module__, tuple(pipe('a red ball', frames=5, height=16, width=16, steps=1)"
        ".clip.pixels.shape))\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.split("\n")[0] == "longtake.pipelines.video_pipeline (1, 3, 5, 16, 16)", result.stderr


def test_methods_of_guidance_without_guidance(tiny_folder):
    """One that guides in its own way does so at strength 1 too; an interval has nothing to leave out, and says so."""
    import longtake
    from longtake.errors import InertMethod

    pipe = longtake.load(tiny_folder)
    asked = {"frames": 5, "height": 32, "width": 32, "steps": 3}
    plain = pipe("a red ball", **asked, guidance=1.0).latents
    made = []
    for guidance in (1.0, 4.0):
        with longtake.apply(pipe, "apg:scale=3"):
            made.append(pipe("a red ball", **asked, guidance=guidance))
    assert torch.equal(made[0].latents, made[1].latents) and not torch.equal(made[0].latents, plain)
    assert made[0].record.receipts[0]["branches"]["guidance"]["changed"] == 3
    with pytest.raises(InertMethod, match=r"cfg-interval did nothing: the run had no guidance.*other than 1"):
        with longtake.apply(pipe, "cfg-interval"):
            pipe("a red ball", **asked, guidance=1.0)
