"""The library's loop on diffusers' pipelines: the same clips, and methods that know the step and the branch."""

from dataclasses import replace
from functools import cache

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_pipelines import FAMILIES, NEGATIVE, PROMPT, cogvideox, cogvideox_scheduler, latte, ltx, noise_levels, wan

import longtake
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import sample
from longtake.errors import BadInput, BadSize, Unsupported
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.pipelines.foreign import ForeignPipeline
from longtake.runtime.hooks import conductor_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:diffusers",  # of NumPy 2, inside schedulers
    "ignore:In CPU autocast:UserWarning",  # inside Mochi's network
)

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
every_family = pytest.mark.parametrize("name", FAMILIES)


@cache
def pipeline(name):
    """The tiny pipeline of a family; shared, so that a test which changes it builds its own."""
    return quiet(FAMILIES[name].build())


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ours(pipe, tiny, **asked):
    size = {"frames": tiny.frames, "height": tiny.size, "width": tiny.size}
    defaults = {"negative_prompt": NEGATIVE, "steps": 3, "guidance": 3.0, "seed": 5}
    return ForeignPipeline(pipe)(asked.pop("prompt", PROMPT), **{**size, **defaults, **asked})


def assert_same(found, expected):
    """To 2e-6 of the largest value: rounding, which networks that predict noise see enlarged at the first steps."""
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


# ------------------------------------------------------------------------------------------------------ the same clips


@every_family
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_latents_are_those_of_the_pipeline(name, guidance):
    tiny, pipe = FAMILIES[name], pipeline(name)
    expected = tiny.theirs(pipe, guidance=guidance)
    assert_same(tiny.as_theirs(ours(pipe, tiny, guidance=guidance).latents), expected)


@every_family
def test_prompts_and_guidance_matter(name):
    tiny, pipe = FAMILIES[name], pipeline(name)
    base = ours(pipe, tiny).latents
    for other in ({"prompt": "a cube"}, {"negative_prompt": "a ball"}, {"guidance": 4.0}, {"seed": 6}, {"steps": 4}):
        assert (ours(pipe, tiny, **other).latents - base).abs().max() > 1e-3 * base.abs().max(), other


@every_family
def test_pixels_are_those_of_the_pipeline(name):
    tiny, pipe = FAMILIES[name], pipeline(name)
    expected = tiny.theirs(pipe, output_type="pt")
    clip = ours(pipe, tiny).clip
    assert clip.pixels.shape == (1, 3, tiny.frames, tiny.size, tiny.size)
    assert expected.std() > 0.05
    torch.testing.assert_close((clip.pixels.transpose(1, 2) + 1) / 2, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("wan", FlowMatchEulerDiscreteScheduler(shift=3.0)),
        ("wan", diffusers.DPMSolverMultistepScheduler(**FLOW)),
        ("cogvideox", cogvideox_scheduler("DPM")),  # draws noise in its steps
        ("latte", diffusers.EulerDiscreteScheduler(**noise_levels())),
        ("latte", diffusers.DPMSolverMultistepScheduler(**noise_levels())),
        ("latte", diffusers.DDPMScheduler(**noise_levels(), clip_sample=False)),
        ("allegro", diffusers.DDIMScheduler(**noise_levels(), clip_sample=False)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_schedulers_of_the_pipeline(name, scheduler):
    tiny = FAMILIES[name]
    pipe = quiet(tiny.build(scheduler))
    expected = tiny.theirs(pipe)
    assert_same(tiny.as_theirs(ours(pipe, tiny).latents), expected)


def test_wan_hands_over_to_its_second_network():
    tiny, pipe = FAMILIES["wan"], quiet(wan(boundary_ratio=0.8))
    expected = tiny.theirs(pipe, steps=5)
    assert_same(ours(pipe, tiny, steps=5).latents, expected)
    second = pipe.transformer_2
    pipe.transformer_2 = pipe.transformer
    assert (ours(pipe, tiny, steps=5).latents - expected).abs().max() > 1e-2
    pipe.transformer_2 = second


@pytest.mark.parametrize("second", [1.0, 4.5])
def test_each_network_of_wan_has_a_strength_of_its_own(second):
    tiny, pipe = FAMILIES["wan"], quiet(wan(boundary_ratio=0.8))
    expected = tiny.theirs(pipe, steps=5, guidance_scale_2=second)
    output = ours(pipe, tiny, steps=5, guidance_2=second)
    assert_same(output.latents, expected)
    assert (output.latents - ours(pipe, tiny, steps=5).latents).abs().max() > 1e-3
    assert output.record.settings.guidance_2 == second
    same = ours(pipe, tiny, steps=5, guidance_2=3.0)
    assert torch.equal(same.latents, ours(pipe, tiny, steps=5).latents)


def test_a_strength_for_a_second_network_needs_one():
    for name in ("wan", "latte"):
        with pytest.raises(BadInput, match="has one network; use guidance"):
            ours(pipeline(name), FAMILIES[name], guidance_2=2.0)
    with pytest.raises(BadInput, match="guidance_2 is -1"):
        ours(wan(boundary_ratio=0.8), FAMILIES["wan"], guidance_2=-1.0)


def test_a_record_names_the_weights_of_the_denoisers():
    tiny, pipe = FAMILIES["wan"], quiet(wan(boundary_ratio=0.8))
    foreign = ForeignPipeline(pipe)
    plain = foreign.weights()
    assert len(plain) == 64 and plain == ForeignPipeline(pipe).weights() != ForeignPipeline(wan(seed=5)).weights()
    with longtake.apply(pipe, "minmax8"):  # whose layers are others, of the same weights
        assert ours(pipe, tiny).record.weights == plain == foreign.weights()
        assert "codes" in "".join(pipe.transformer.state_dict())
    assert ours(pipe, tiny).record.weights == plain
    with torch.no_grad():
        pipe.transformer_2.blocks[0].ffn.net[2].weight[0, 0] += 1
    changed = foreign.weights()
    assert changed != plain
    pipe.transformer_2 = None
    assert foreign.weights() not in (plain, changed)


def test_wan_is_told_the_time_of_every_token():
    tiny, pipe = FAMILIES["wan"], quiet(wan())
    pipe.register_to_config(expand_timesteps=True)
    assert_same(ours(pipe, tiny).latents, tiny.theirs(pipe))


@pytest.mark.parametrize(("frames", "latent_frames"), [(9, 4), (16, 4), (17, 6), (1, 2)])
def test_cogvideox_1_5_fills_its_clips_up(frames, latent_frames):
    pipe = quiet(cogvideox(patch_size_t=2))
    tiny = replace(FAMILIES["cogvideox"], frames=frames)
    output = ours(pipe, tiny)
    assert output.latents.shape[2] == latent_frames
    assert output.clip.pixels.shape[2] == frames
    assert output.clip.fps == 16.0
    assert_same(tiny.as_theirs(output.latents), tiny.theirs(pipe))
    expected = tiny.theirs(pipe, output_type="pt")
    torch.testing.assert_close((output.clip.pixels.transpose(1, 2) + 1) / 2, expected, rtol=0, atol=1e-4)


def test_ltx_decodes_at_time_0():
    tiny, pipe = FAMILIES["ltx"], quiet(ltx(timestep_conditioning=True))
    expected = tiny.theirs(pipe, output_type="pt")
    torch.testing.assert_close((ours(pipe, tiny).clip.pixels.transpose(1, 2) + 1) / 2, expected, rtol=0, atol=1e-4)


def test_hunyuan_video_is_told_the_strength_of_guidance():
    tiny, pipe = FAMILIES["hunyuan-video"], pipeline("hunyuan-video")
    expected = tiny.theirs(pipe, guidance=1.0)
    stronger = pipe(
        PROMPT,
        height=tiny.size,
        width=tiny.size,
        num_frames=tiny.frames,
        num_inference_steps=3,
        guidance_scale=9.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).frames
    assert (stronger - expected).abs().max() > 1e-3
    output = ours(pipe, tiny, guidance=1.0, embedded_guidance=9.0)
    assert_same(output.latents, stronger)
    assert "embedded guidance 9" in output.record.warnings


@pytest.mark.parametrize("name", ["wan", "cogvideox", "mochi"])
def test_each_clip_of_a_batch_is_that_of_its_own_seed(name):
    tiny, pipe = FAMILIES[name], pipeline(name)
    both = ours(pipe, tiny, count=2).latents
    alone = torch.cat([ours(pipe, tiny, seed=seed).latents for seed in (5, 6)])
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-4)


@every_family
def test_the_pipeline_stays_as_it_was(name):
    tiny, pipe = FAMILIES[name], quiet(FAMILIES[name].build())
    before, weights = tiny.theirs(pipe), [p.clone() for p in pipe.transformer.parameters()]
    ours(pipe, tiny)
    assert torch.equal(tiny.theirs(pipe), before)
    assert all(map(torch.equal, weights, pipe.transformer.parameters()))
    assert not any("forward" in vars(module) for module in pipe.transformer.modules())


# ------------------------------------------------------------------------------------------------------------- methods


@every_family
def test_methods_see_branches_and_steps(name):
    tiny, pipe = FAMILIES[name], pipeline(name)
    with longtake.apply(pipe, TaylorSeer(interval=2)) as stack:
        output = ours(pipe, tiny, steps=4)
        (receipt,) = stack.receipts
    assert tuple(receipt.branches) == tiny.branches
    for counts in receipt.branches.values():  # steps 0, 2 and 3, the last one, are computed
        assert (counts.computed, counts.skipped) == (3 * receipt.sites, receipt.sites)
    assert receipt.notes["full_steps"] == [0, 2, 3]
    assert receipt.macs_done < receipt.macs_dense
    assert output.record.receipts[0]["branches"].keys() == receipt.branches.keys()
    assert output.record.settings.methods == ("taylorseer:interval=2",)


@every_family
def test_methods_do_the_same_as_in_the_pipeline_itself(name):
    """Also in Mochi's, whose timesteps rise and which names no step."""
    tiny, pipe = FAMILIES[name], pipeline(name)
    with longtake.apply(pipe, TaylorSeer(interval=2)) as stack:
        expected = tiny.theirs(pipe, steps=4)
        (receipt,) = stack.receipts
        assert receipt.notes["full_steps"] == [0, 2, 3]
        assert sum(counts.skipped for counts in receipt.branches.values()) == len(tiny.branches) * receipt.sites
        found = tiny.as_theirs(ours(pipe, tiny, steps=4).latents)
    assert_same(found, expected)
    assert (found - tiny.as_theirs(ours(pipe, tiny, steps=4).latents)).abs().max() > 1e-4


def test_methods_see_both_networks_of_wan():
    tiny, pipe = FAMILIES["wan"], quiet(wan(boundary_ratio=0.8))
    with longtake.apply(pipe, TaylorSeer(interval=2)) as stack:
        found = ours(pipe, tiny, steps=5).latents
        (receipt,) = stack.receipts
        assert_same(found, tiny.theirs(pipe, steps=5))
    assert receipt.sites == 2 * 2 * 3  # networks, blocks, parts
    assert set(receipt.branches) == {"cond", "uncond"}


@every_family
def test_guidance_can_be_left_out_of_steps(name):
    tiny, pipe = FAMILIES[name], pipeline(name)
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[0]), with_kwargs=True
    )
    with longtake.apply(ForeignPipeline(pipe), "cfg-interval:low=0.73,high=1.0") as stack:
        ours(pipe, tiny, steps=4)
        counts = stack.receipts[0].branches["guidance"]
    handle.remove()
    assert counts.computed and counts.skipped and counts.computed + counts.skipped == 4
    both = [1, 1] if tiny.branches == ("cond", "uncond") else [2]
    assert sorted(seen) == sorted(both * counts.computed + [1] * counts.skipped)


def test_a_method_that_guides_does_so_without_guidance_of_the_pipeline():
    tiny, pipe = FAMILIES["cogvideox"], pipeline("cogvideox")
    plain = ours(pipe, tiny, guidance=1.0).latents
    with longtake.apply(pipe, "apg:scale=3.0") as stack:
        guided = ours(pipe, tiny, guidance=1.0).latents
        assert stack.receipts[0].branches["guidance"].changed == 3
    assert (guided - plain).abs().max() > 1e-2


def test_an_interrupted_run_leaves_nothing_announced():
    tiny, pipe = FAMILIES["ltx"], quiet(ltx())

    def stop(done, steps):
        if done == 2:
            raise KeyboardInterrupt

    with longtake.apply(pipe, TaylorSeer(interval=2)):
        with pytest.raises(KeyboardInterrupt):
            ours(pipe, tiny, steps=4, on_step=stop)
        assert conductor_of(pipe.transformer).announced is None
        interrupted = ours(pipe, tiny, steps=4).latents
    with longtake.apply(pipe, TaylorSeer(interval=2)):
        assert torch.equal(ours(pipe, tiny, steps=4).latents, interrupted)


def test_a_run_of_the_pipeline_that_broke_is_over():
    """Between two calls, in its second step of six; the next begins behind that, and neither names its steps."""
    tiny, pipe = FAMILIES["latte"], quiet(latte())

    def stop(pipe, step, t, kwargs):
        if step == 1:
            raise KeyboardInterrupt
        return kwargs

    class Late(type(pipe.scheduler)):
        """The last two of six steps, as in a run that begins with a clip."""

        def set_timesteps(self, steps, device=None):
            super().set_timesteps(6, device)
            self.timesteps = self.timesteps[-2:]

    with longtake.apply(pipe, TaylorSeer(interval=9, last_full=False)) as stack:
        with pytest.raises(KeyboardInterrupt):
            tiny.theirs(pipe, steps=6, callback_on_step_end=stop)
        pipe.scheduler.__class__ = Late
        tiny.theirs(pipe, steps=2)
        assert [ledger.receipts[0].notes["full_steps"] for ledger in stack.ledgers.values()] == [[0], [0]]


@pytest.mark.parametrize("name", ["wan", "cogvideox", "mochi"])
def test_the_parts_are_a_sampling_loop_for_others(name):
    """Prepare, denoiser and decode, by which a sampler is written once for our models and those of diffusers."""
    tiny, foreign = FAMILIES[name], ForeignPipeline(pipeline(name))
    settings = foreign.settings(
        PROMPT, negative_prompt=NEGATIVE, frames=tiny.frames, height=tiny.size, width=tiny.size, steps=3, guidance=3.0
    )
    start = foreign.prepare(settings)
    common = {"steps": None, "null": start.null, "guider": CFG(3.0), "generators": start.generators}
    together, apart = (
        sample(
            foreign.denoiser(), foreign.prepare(settings).scheduler, start.noise, start.cond, batched=batched, **common
        )
        for batched in (True, False)
    )
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-4)
    expected = ours(foreign.pipe, tiny, seed=0)
    torch.testing.assert_close(together, expected.latents, rtol=0, atol=1e-4)
    pixels = foreign.decode(expected.latents, tiny.frames, tiny.size, tiny.size)
    torch.testing.assert_close(pixels, expected.clip.pixels)


# ------------------------------------------------------------------------------------------------------- what is asked


def test_a_run_tells_its_steps_and_its_record():
    tiny, pipe, told = FAMILIES["latte"], pipeline("latte"), []
    output = ours(pipe, tiny, on_step=lambda done, steps: told.append((done, steps)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert output.record.settings.prompt == PROMPT
    assert output.record.scheduler["class"] == "DDIMScheduler"
    assert output.clip.fps == output.record.fps == 8.0


@pytest.mark.parametrize(
    ("name", "frames", "height", "width", "guidance"),
    [
        ("wan", 81, 480, 832, 5.0),
        ("hunyuan-video", 129, 720, 1280, 1.0),
        ("cogvideox", 9, 32, 32, 6.0),
        ("latte", 3, 32, 32, 7.5),
        ("ltx", 161, 512, 704, 3.0),
        ("mochi", 19, 480, 848, 4.5),
        ("allegro", 8, 32, 32, 7.5),
    ],
)
def test_what_is_not_asked_for_is_as_usual(name, frames, height, width, guidance):
    settings = ForeignPipeline(pipeline(name)).settings(PROMPT)
    assert (settings.frames, settings.height, settings.width) == (frames, height, width)
    assert settings.guidance == guidance


@pytest.mark.parametrize(
    ("name", "asked", "error", "message"),
    [
        ("wan", {"frames": 10}, BadSize, "nearest number is 9"),
        ("wan", {"height": 40}, BadSize, "32 or 48"),
        ("latte", {"frames": 4}, BadSize, "clips of 3 frames"),
        ("cogvideox", {"frames": 12}, BadSize, "9 or 16"),
        ("allegro", {"frames": 0}, BadSize, "frames 0"),
        ("ltx", {"steps": 0}, BadInput, "steps is 0"),
        ("ltx", {"guidance": -1.0}, BadInput, "guidance is -1"),
        ("ltx", {"width": 32.0}, BadSize, "width is 32.0"),
        ("mochi", {"embedded_guidance": 6.0}, BadInput, "MochiPipeline has none"),
        ("hunyuan-video", {"embedded_guidance": -6.0}, BadInput, "from 0 to 100"),
        ("mochi", {"prompt": 3}, BadInput, "expected one string"),
    ],
)
def test_a_value_out_of_range_is_refused(name, asked, error, message):
    with pytest.raises(error, match=message):
        ours(pipeline(name), FAMILIES[name], **asked)


def test_other_pipelines_are_refused_in_one_line():
    pipe = latte()
    other = diffusers.PixArtAlphaPipeline(pipe.tokenizer, pipe.text_encoder, pipe.vae, pipe.transformer, pipe.scheduler)
    with pytest.raises(
        Unsupported, match=r"PixArtAlphaPipeline cannot be sampled.*WanPipeline.*AllegroPipeline"
    ) as told:
        ForeignPipeline(other)
    assert "\n" not in str(told.value)


def test_schedulers_that_would_step_wrongly_are_refused():
    tiny = FAMILIES["mochi"]
    with pytest.raises(Unsupported, match="invert_sigmas=True"):
        ours(tiny.build(FlowMatchEulerDiscreteScheduler()), tiny)
    tiny = FAMILIES["ltx"]
    with pytest.raises(Unsupported, match="FlowMatchHeunDiscreteScheduler does not take"):
        ours(tiny.build(diffusers.FlowMatchHeunDiscreteScheduler()), tiny)
