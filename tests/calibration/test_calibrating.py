"""The calibration: what it finds against a comparison of everything, what it keeps, and how it refuses."""

import json
import sys
from dataclasses import replace

import pytest
from tiny_pipelines import FAMILIES, PROMPT

import longtake
from longtake import cli
from longtake.calibration import calibrate
from longtake.errors import BadInput, BadOutput, MissedTarget, Unsupported
from longtake.methods.profiles import load_profile
from longtake.pipelines.foreign import ForeignPipeline
from longtake.pipelines.records import Seconds
from longtake.pipelines.video_pipeline import VideoPipeline

SMALL = {"frames": 5, "height": 16, "width": 24, "steps": 8, "guidance": 2.0}
PROMPTS = ["a red ball", "a blue cube", "a red cube", "a blue ball"]
FEW = {"knobs": ["interval=2/3/6/8", "order=0/1"], "prompts": PROMPTS, **SMALL}
HELD = "taylorseer:interval=2,order=0"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore:In CPU autocast:UserWarning")


@pytest.fixture
def runs(monkeypatch):
    """Seeds and methods of all runs in `log`. Dense takes a second, a method what it computes of it plus `slower[seed]`;
    `traps[number]` is raised in place of a run."""
    log, traps, slower = [], {}, {}
    original = VideoPipeline.__call__

    def counted(self, prompt, **options):
        from longtake.runtime.stack import stack_of

        stack, seed = stack_of(self.transformer), options["seed"]
        log.append((seed, "dense" if stack is None else "+".join(map(str, stack.methods))))
        if (trap := traps.pop(len(log), None)) is not None:
            raise trap
        output = original(self, prompt, **options)
        receipts = output.record.receipts
        share = receipts[0]["macs_done"] / receipts[0]["macs_dense"] + slower.get(seed, 0.0) if receipts else 1.0
        return replace(output, record=replace(output.record, seconds=Seconds(denoise=share)))

    monkeypatch.setattr(VideoPipeline, "__call__", counted)
    return type("Runs", (), {"log": log, "traps": traps, "slower": slower})


@pytest.fixture(scope="module")
def everything(tiny_folder, tmp_path_factory):
    """Method -> row of a comparison of all settings of FEW, on the calibration prompts."""
    stacks = [f"taylorseer:interval={i},order={m}" for i in (2, 3, 6, 8) for m in (0, 1)]
    out = tmp_path_factory.mktemp("all") / "r"
    report = longtake.compare(tiny_folder, stacks, prompts=PROMPTS[:2], out=out, **SMALL)
    return dict(zip(stacks, report.rows[1:], strict=True))


# ----------------------------------------------------------------------------------------------------------- what is found


def test_with_a_target_of_likeness_the_least_work_that_meets_it(tiny_folder, tmp_path, everything):
    ranked = sorted(row.psnr for row in everything.values())
    for bound in (ranked[0] - 1, (ranked[3] + ranked[4]) / 2):
        told = []
        out = tmp_path / f"{bound:.0f}.json"
        made = calibrate(tiny_folder, "taylorseer", f"psnr>={bound}", out=out, on_tried=told.append, **FEW)
        row = everything[made.method]
        assert made.calibration.psnr == pytest.approx(row.psnr) and row.psnr >= bound
        assert made.calibration.ssim == pytest.approx(row.ssim) and made.calibration.latent == pytest.approx(
            row.latent_error
        )
        assert made.calibration.macs == pytest.approx(1 / row.mac_speedup)
        fits = [one for one in made.tried if one.numbers.psnr >= bound]
        assert made.calibration.macs == min(one.numbers.macs for one in fits)
        assert tuple(told) == made.tried and len(told) <= 6 and load_profile(out) == made
        if bound < ranked[0]:
            assert made.calibration.macs == min(1 / one.mac_speedup for one in everything.values())


def test_with_a_target_of_work_the_closest_that_meets_it(tiny_folder, tmp_path, everything):
    made = calibrate(tiny_folder, "taylorseer", "macs<=0.55", out=tmp_path / "p.json", **FEW)
    careful = min((row for row in everything.values() if 1 / row.mac_speedup <= 0.55), key=lambda row: row.mac_speedup)
    alike = [row for row in everything.values() if row.mac_speedup == careful.mac_speedup]
    assert made.calibration.psnr == pytest.approx(max(row.psnr for row in alike))
    assert made.chosen == {key: made.config[key] for key in ("interval", "order")}


def test_held_out_numbers_are_of_other_prompts_and_seeds(tiny_folder, tmp_path):
    made = calibrate(tiny_folder, HELD, "psnr>=20", prompts=PROMPTS, seeds=2, seed=5, out=tmp_path / "p.json", **SMALL)
    assert (made.prompts, made.held_out_prompts) == (tuple(PROMPTS[:2]), tuple(PROMPTS[2:]))
    row = longtake.compare(tiny_folder, [HELD], prompts=PROMPTS[2:], seeds=2, seed=9, out=tmp_path / "r", **SMALL).rows[
        1
    ]
    assert made.held_out.psnr == pytest.approx(row.psnr) and made.held_out.clips == 4 and made.met
    assert made.held_out.speedup is not None and made.held_out.low <= made.held_out.speedup <= made.held_out.high


def test_speed_is_the_median_of_pairs_that_take_turns(tiny_folder, tmp_path, runs):
    runs.slower.update({0: 0.1, 3: 5.0})
    out = tmp_path / "p.json"
    made = calibrate(tiny_folder, HELD, "speedup>=1.2", prompts=PROMPTS, out=out, **{**SMALL, "steps": 4})
    t = "taylorseer:interval=2,order=0"
    assert runs.log == [
        (0, "dense"),  # to warm up
        *((0, "dense"), (0, t), (1, t), (1, "dense")),
        *((2, "dense"), (2, t), (3, t), (3, "dense")),
    ]
    share = made.calibration.macs
    assert made.calibration.speedup == pytest.approx((1 / share + 1 / (share + 0.1)) / 2)
    assert made.held_out.speedup == pytest.approx((1 / share + 1 / (share + 5)) / 2)
    assert not made.met and made.outcomes[0].missed == pytest.approx(1.2 - made.held_out.speedup)
    assert load_profile(out) == made


def test_several_targets_are_met_together_or_it_says_which_is_not(tiny_folder, tmp_path, runs):
    made = calibrate(tiny_folder, "taylorseer", "psnr>=20,speedup>=1.5", out=tmp_path / "p.json", **FEW)
    assert made.met and made.calibration.speedup == pytest.approx(1 / made.calibration.macs)
    with pytest.raises(MissedTarget) as caught:
        calibrate(tiny_folder, "taylorseer", "psnr>=20,speedup>=50", out=tmp_path / "q.json", **FEW)
    told = (
        f"no setting of taylorseer meets psnr>=20 and speedup>=50: {made.method}, the cheapest that meets psnr>=20, has"
    )
    assert told in str(caught.value) and not (tmp_path / "q.json").exists()


def test_a_target_that_nothing_reaches_says_how_far_it_got(tiny_folder, tmp_path, everything):
    with pytest.raises(MissedTarget) as caught:
        calibrate(tiny_folder, "taylorseer", "psnr>=99.9", out=tmp_path / "p.json", **FEW)
    assert "no setting of taylorseer reaches psnr>=99.9 on 2 calibration clips: taylorseer:" in str(caught.value)
    assert " comes closest, with psnr " in str(caught.value) and not (tmp_path / "p.json").exists()
    with pytest.raises(MissedTarget, match=r"interval=8,order=1 comes closest, with macs 0\.\d+ of dense"):
        calibrate(tiny_folder, "taylorseer", "macs<=0.01", out=tmp_path / "p.json", **FEW)


def test_settings_that_do_nothing_do_not_count(tiny_folder, tmp_path):
    options = {**FEW, "steps": 2}
    with pytest.raises(MissedTarget, match="in which the method does nothing"):
        calibrate(tiny_folder, "taylorseer", "psnr>=20", out=tmp_path / "p.json", **options)


def test_settings_that_cannot_be_run_are_told_and_passed_by(tiny_folder, tmp_path):
    made = calibrate(
        tiny_folder, "delta-dit", "psnr>=1", knobs={"speedup": (1.3, 9.0), "interval": (2,)}, prompts=PROMPTS,
        out=tmp_path / "p.json", **SMALL,
    )  # fmt: skip
    assert made.chosen == {"speedup": 1.3, "interval": 2}
    assert "no number of blocks makes 8 steps 9 times as fast" in next(one.error for one in made.tried if one.error)
    with pytest.raises(MissedTarget, match=r"no setting of delta-dit could be run: .*9 times as fast"):
        calibrate(tiny_folder, "delta-dit:speedup=9.0", "psnr>=1", prompts=PROMPTS, out=tmp_path / "q.json", **SMALL)


def test_of_a_method_that_saves_no_work_the_boldest_is_taken(tiny_folder, tmp_path):
    asked = {"prompts": PROMPTS, "out": tmp_path / "p.json", **SMALL, "steps": 3}
    made = calibrate(tiny_folder, "minmax8", "psnr>=1", knobs=["bits=8/5/2"], **asked)
    assert made.chosen == {"bits": 2} and made.calibration.macs == 1


# ---------------------------------------------------------------------------------------------------- resuming, progress


def test_dense_clips_are_made_once_and_nothing_is_made_twice(tiny_folder, tmp_path, runs):
    progress = []
    asked = {**FEW, "out": tmp_path / "p.json", "on_step": lambda done, all: progress.append((done, all))}
    made = calibrate(tiny_folder, "taylorseer", "psnr>=60", **asked)
    quality = [run for run in runs.log if run[0] < 2]
    assert len(set(quality)) == len(quality) and quality.count((0, "dense")) == 1
    assert progress == sorted(progress, key=lambda one: one[0]) and progress[-1][0] == progress[-1][1] == 8 * len(
        runs.log
    )
    before = len(runs.log)
    again = calibrate(tiny_folder, "taylorseer", "psnr>=60", **asked)
    assert len(runs.log) == before and replace(again, date=made.date) == made


def test_an_interrupted_calibration_goes_on(tiny_folder, tmp_path, runs):
    asked = {**FEW, "out": tmp_path / "p.json"}
    runs.traps[6] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        calibrate(tiny_folder, "taylorseer", "psnr>=60", **asked)
    assert not (tmp_path / "p.json").exists()
    broken = runs.log.pop()
    calibrate(tiny_folder, "taylorseer", "psnr>=60", **asked)
    assert runs.log.count(broken) == 1 and len({run for run in runs.log if run[0] < 2}) == sum(
        r[0] < 2 for r in runs.log
    )


# ----------------------------------------------------------------------------------------------------- what it is used on


def test_a_profile_is_a_row_of_a_comparison(tiny_folder, tmp_path):
    out = tmp_path / "p.json"
    made = calibrate(tiny_folder, HELD, "psnr>=20", prompts=PROMPTS, out=out, **SMALL)
    report = longtake.compare(tiny_folder, [str(out)], prompts=PROMPTS[:2], out=tmp_path / "r", **SMALL)
    assert report.rows[1].name == HELD and report.rows[1].psnr == pytest.approx(made.calibration.psnr)
    with pytest.raises(Unsupported, match=r"stack '.*': profile '.*p.json' was calibrated with steps 8, and this is 6"):
        longtake.compare(tiny_folder, [made], prompts=PROMPTS[:2], out=tmp_path / "s", **{**SMALL, "steps": 6})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_pipelines_of_diffusers_are_calibrated(family, tmp_path):
    tiny = FAMILIES[family]
    theirs = tiny.build()
    theirs.set_progress_bar_config(disable=True)
    pipe, size = ForeignPipeline(theirs), {"frames": tiny.frames, "height": tiny.size, "width": tiny.size}
    prompts, out = [PROMPT, "a blue cube"], tmp_path / "p.json"
    run = {"steps": 4, "guidance": 3.0, **size}
    made = calibrate(pipe, "taylorseer:order=0", "macs<=0.9", knobs=["interval=2/3"], prompts=prompts, out=out, **run)
    assert made.met and made.chosen == {"interval": 2} and made.model == "ForeignPipeline" and len(made.weights) == 64
    with longtake.apply(pipe, load_profile(out)) as stack:
        pipe(PROMPT, **run)
    assert stack.receipts[0].acted
    with pytest.raises(Unsupported, match="steps 4, and this is 3"), longtake.apply(pipe, load_profile(out)):
        pipe(PROMPT, **{**run, "steps": 3})
    with pytest.raises(Unsupported, match=f"cannot be used on a {type(theirs).__name__}"):
        longtake.apply(theirs, load_profile(out))


# --------------------------------------------------------------------------------------------------------------- refusals


def test_what_can_be_known_before_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("longtake.calibration.calibrating.load", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "file").touch()
    for out, cache in (("p.txt", None), ("gone/p.json", None), ("p.json", "file"), ("p.json", "gone/cache")):
        with pytest.raises(BadOutput):
            calibrate("starter", out=tmp_path / out, cache=None if cache is None else tmp_path / cache)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_settings_of_the_runs_are_checked_first(tiny_folder, tmp_path):
    with pytest.raises(BadInput, match="steps is 0"):
        calibrate(tiny_folder, prompts=PROMPTS, out=tmp_path / "p.json", **{**SMALL, "steps": 0})
    with pytest.raises(BadInput, match="at least 11 pixels"):
        small = {**SMALL, "height": 8}
        calibrate(tiny_folder, target="ssim>=0.5", prompts=PROMPTS, out=tmp_path / "p.json", **small)
    with pytest.raises(Unsupported, match="delta-dit: 9 of"):
        calibrate(tiny_folder, "delta-dit:skipped=9", prompts=PROMPTS, out=tmp_path / "p.json", **SMALL)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["longtake", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


WORDS = ["--prompts", "prompts.txt", "--frames", 5, "--size", "24x16", "--guidance", 2]


def test_the_verb_writes_a_profile_that_generate_takes(run, tiny_folder, tmp_path):
    words = ["calibrate", "--model", tiny_folder, "--method", "taylorseer:order=0", "--knob", "interval=2/3", *WORDS]
    code, out, err = run(*words, "--target", "psnr>=20", "--steps", 4, "--scheduler", "euler", "--out", "fast.json")
    assert (code, err) == (0, ""), err
    lines = out.splitlines()
    assert lines[-2].startswith("psnr>=20 met: ") and lines[-1] == "fast.json"
    profile = load_profile("fast.json")
    assert profile.method == "taylorseer:order=0,interval=3" and profile.command.startswith(
        "longtake calibrate --model"
    )
    assert sum(line.startswith("taylorseer:order=0,interval=") for line in lines[:-5]) == len(profile.tried)

    generate = ["generate", "a red ball", "--model", tiny_folder, "--with", "fast.json", *WORDS[2:]]
    code, out, err = run(*generate, "--steps", 4)
    assert (code, err) == (0, "") and "taylorseer: " in out
    assert json.loads((tmp_path / "clip.json").read_text())["settings"]["methods"] == ["taylorseer:interval=3,order=0"]
    assert run("generate", "--from-record", "clip.json", "--out", "again.mp4")[0] == 0
    code, out, err = run(*generate, "--steps", 5, "--out", "b.mp4")
    told = "profile 'fast.json' was calibrated with steps 4, and this is 5: use steps=4, or calibrate for this"
    assert (code, out, err) == (2, "", f"longtake: {told}\n") and not (tmp_path / "b.mp4").exists()


def test_a_miss_on_held_out_prompts_is_told_and_ends_with_2(run, runs, tiny_folder):
    runs.slower.update({2: 5.0, 3: 5.0})
    words = ["calibrate", "--model", tiny_folder, "--method", HELD, *WORDS, "--target", "speedup>=1.2", "--steps", 4]
    code, out, err = run(*words)
    assert code == 2 and "speedup>=1.2 missed by 1.0" in out and err.count("\n") == 1
    assert err.startswith(
        "longtake: profile 'profile.json' was written, and on 2 held-out clips speedup>=1.2 missed by 1.0"
    )
    assert not load_profile("profile.json").met
    code, out, err = run(*words, "--json")
    assert code == 2 and json.loads(out)["outcomes"][0]["missed"] > 1 and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no target: write psnr>=30"),
        (["--target", "psrn>=30"], "Did you mean 'psnr'"),
        (["--target", "fast"], "is not NAME>=VALUE"),
        (["--target", "psnr>=3", "--method", "taylorser"], "'taylorseer'"),
        (["--target", "psnr>=3", "--knob", "intervall=2"], "'interval'"),
        (["--target", "psnr>=3", "--method", "apg"], "declares no knobs"),
        (["--target", "psnr>=3", "--prompts", "1x"], "1x"),
        (["--target", "psnr>=3", "--out", "p.txt"], "a profile is a .json file"),
        (["--target", "psnr>=3", "--model", "nonesuch"], "no model is called 'nonesuch'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, tmp_path, words, said):
    code, out, err = run("calibrate", *words)
    assert (code, out) == (2, "") and err.startswith("longtake: ") and err.count("\n") == 1 and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_a_folder_of_diffusers_is_calibrated_with_its_own_steps_and_guidance(tmp_path):
    tiny = FAMILIES["wan"]
    tiny.build().save_pretrained(tmp_path / "wan")
    size = {"frames": tiny.frames, "height": tiny.size, "width": tiny.size}
    usual = longtake.load(tmp_path / "wan").dialect.usual
    asked = {"knobs": ["interval=2/3"], "prompts": [PROMPT, "a blue cube"], **size}
    made = calibrate(tmp_path / "wan", "taylorseer:order=0", "macs<=0.9", out=tmp_path / "p.json", **asked)
    assert made.met and (made.steps, made.guidance) == (usual.steps, usual.guidance)
    profile = load_profile(tmp_path / "p.json")
    pipe = longtake.load(tmp_path / "wan")
    with longtake.apply(pipe, profile) as stack:
        pipe(PROMPT, **size)
    assert stack.receipts[0].acted
    with pytest.raises(Unsupported, match="was calibrated with"):
        longtake.compare(tmp_path / "wan", [profile], prompts=[PROMPT], out=tmp_path / "r", steps=3, **size)
