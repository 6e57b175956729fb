"""Profiles: written and read back, used where they were made, refused elsewhere with one line."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import longtake
from longtake.errors import BadRecipe, Conflict, Unsupported
from longtake.methods import as_methods, as_stack, parse_method
from longtake.methods.profiles import Numbers, Outcome, Profile, Tried, load_profile
from longtake.pipelines.schedulers import describe_scheduler

RUN = {"steps": 4, "guidance": 2.0, "frames": 5, "height": 16, "width": 24}
METHOD = "taylorseer:interval=2,order=0"


@pytest.fixture
def pipe(tiny_folder):
    return longtake.load(tiny_folder)


@pytest.fixture
def profile(pipe, tmp_path):
    """A profile of the tiny pipeline in a file."""
    made = Profile(
        METHOD,
        parse_method(METHOD).config(),
        {"interval": 2, "order": 0},
        "tiny",
        pipe.weights(),
        "float32",
        describe_scheduler(pipe.scheduler),
        **RUN,
        targets=("psnr>=20", "macs<=0.9"),
        outcomes=(Outcome("psnr>=20", 31.5, 0.0), Outcome("macs<=0.9", 0.7, 0.0)),
        calibration=Numbers(2, 31.0, 0.9, 0.1, 0.7),
        held_out=Numbers(2, 31.5, None, 0.1, 0.7, 1.4, 1.3, 1.5),
        tried=(Tried(METHOD, Numbers(2, 31.0)), Tried("taylorseer", error="too bold")),
        prompts=("a red ball",),
        held_out_prompts=("a blue cube",),
    )
    (tmp_path / "fast.json").write_text(made.to_json())
    return replace(made, path=str(tmp_path / "fast.json"))


def test_what_is_written_is_read_back(profile):
    assert load_profile(profile.path) == profile
    assert profile.met and not replace(profile, outcomes=(Outcome("psnr>=20", 19.0, 1.0),)).met


def test_a_profile_runs_its_method(pipe, profile):
    with longtake.apply(pipe, METHOD):
        expected = pipe("a red ball", **RUN)
    for given in (profile, profile.path):
        with longtake.apply(pipe, given) as stack:
            output = pipe("a red ball", **RUN)
        assert stack.methods == as_methods([METHOD]) and output.record.settings.methods == (
            "taylorseer:interval=2,order=0",
        )
        assert (output.latents == expected.latents).all()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"steps": 5}, "was calibrated with steps 4, and this is 5: use steps=4, or calibrate for this"),
        ({"guidance": 3.0}, "guidance 2, and this is 3: use guidance=2"),
        ({"frames": 9}, "frames 5, and this is 9"),
        ({"height": 24}, "height 16, and this is 24"),
        ({"width": 16}, "width 24, and this is 16"),
    ],
)
def test_a_run_of_another_kind_is_refused_before_anything_is_computed(pipe, profile, asked, words, monkeypatch):
    monkeypatch.setattr(type(pipe), "_denoise", lambda *_: pytest.fail("it ran"))
    with pytest.raises(Unsupported) as caught, longtake.apply(pipe, profile):
        pipe("a red ball", **{**RUN, **asked})
    assert words in str(caught.value) and profile.path in str(caught.value) and "\n" not in str(caught.value)


def test_another_model_dtype_or_scheduler_is_refused(pipe, profile, tiny_folder):
    with pytest.raises(Unsupported, match=r"dtype float32, and this is bfloat16: load the model with dtype float32"):
        longtake.apply(longtake.load(tiny_folder, dtype="bfloat16"), profile)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    with pytest.raises(
        Unsupported, match=r"Scheduler of shift 2.0, and this is shift 3.0: set the scheduler up the same"
    ):
        longtake.apply(pipe, profile)
    pipe.scheduler = longtake.pipelines.schedulers.scheduler_named("unipc", shift=2.0)
    with pytest.raises(Unsupported, match="FlowMatchEulerDiscreteScheduler, and this is UniPCMultistepScheduler"):
        longtake.apply(pipe, profile)
    other = longtake.load(tiny_folder)
    with torch.no_grad():
        next(other.transformer.parameters()).add_(1)
    with pytest.raises(Unsupported) as caught:
        longtake.apply(other, profile)
    mine, theirs = (one.weights()[:12] for one in (pipe, other))
    told = f"with weights {mine}, and this is {theirs}: load the model that it is of, tiny, or calibrate for this"
    assert mine != theirs and told in str(caught.value)


def test_a_scheduler_that_is_replaced_while_a_profile_is_applied_is_noticed(pipe, profile):
    with pytest.raises(Unsupported, match="UniPCMultistepScheduler"), longtake.apply(pipe, profile):
        pipe.scheduler = longtake.pipelines.schedulers.scheduler_named("unipc", shift=2.0)
        pipe("a red ball", **RUN)


def test_a_network_alone_does_not_tell_its_steps(pipe, profile):
    with pytest.raises(Unsupported, match=r"through longtake\.pipelines\.ForeignPipeline"):
        longtake.apply(pipe.transformer, profile)


def test_a_profile_is_used_alone(profile, tmp_path):
    for given in ([profile, "cfg-interval"], [f"{profile.path}+cfg-interval"], ["cfg-interval", profile.path]):
        with pytest.raises(Conflict, match="calibrated alone and is used alone"):
            as_stack(given)


def test_another_version_is_a_warning(pipe, profile):
    old = replace(profile, versions={"longtake": "0.0.9"})
    with pytest.warns(UserWarning, match=r"made with longtake 0.0.9"):
        longtake.apply(pipe, old).detach()


def test_a_method_whose_settings_have_changed_is_refused(profile):
    with pytest.raises(BadRecipe, match="settings that it has no longer"):
        as_stack([replace(profile, config={**profile.config, "warmup": 3})])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.pop("steps"), "'steps' is missing"),
        (lambda told: told.update(stepz=3), "unknown key 'stepz'. Did you mean 'steps'"),
        (lambda told: told.update(steps="many"), "steps is 'many', expected int"),
        (lambda told: told.update(held_out=[]), "held_out holds a list, expected an object"),
        (lambda told: told["held_out"].update(psnr="x"), "held_out, psnr is 'x', expected float"),
        (lambda told: told.update(outcomes="x"), "outcomes is 'x', expected list"),
        (lambda told: told.update(format=9), "format 9; this version reads format 1"),
    ],
)
def test_what_is_no_profile_is_said_in_one_line(profile, change, words):
    told = json.loads(profile.to_json())
    change(told)
    with open(profile.path, "w") as file:
        json.dump(told, file)
    with pytest.raises(BadRecipe) as caught:
        as_stack([profile.path])
    assert words in str(caught.value) and profile.path in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadRecipe, match=r"gone.json' cannot be read"):
        as_stack([str(tmp_path / "gone.json")])
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(BadRecipe, match="is not JSON"):
        load_profile(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(BadRecipe, match="holds a list, expected an object"):
        load_profile(tmp_path / "a.json")
