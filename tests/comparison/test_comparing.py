"""The comparison: its numbers against oracles, turns, resuming, and what happens when something is wrong."""

import json
import sys
from statistics import fmean, median

import pytest
import torch

import longtake
from longtake import cli
from longtake.comparison import compare, comparing
from longtake.comparison.asking import find_prompts
from longtake.comparison.report import Report
from longtake.data.scenes import render_scenes
from longtake.errors import BadInput, BadOutput, InertMethod, Unsupported
from longtake.evaluation.measure import measure
from longtake.evaluation.metrics.reference import ssim_frames
from longtake.evaluation.protocol import Protocol, Side
from longtake.evaluation.sources import TensorSource
from longtake.pipelines.records import Settings, read_record
from longtake.pipelines.video_pipeline import VideoPipeline
from longtake.video import read_clip, to_uint8

SMALL = {"frames": 5, "height": 16, "width": 24, "steps": 6}
FAST = {**SMALL, "steps": 4, "guidance": 1.0, "prompts": ["a red ball", "a blue cube"]}


@pytest.fixture
def runs(monkeypatch):
    """Prompts' seeds and methods of all runs, in their order; `fail(number)` may raise in one."""
    log = []
    original = VideoPipeline.__call__

    def counted(self, prompt, **options):
        from longtake.runtime.stack import stack_of

        stack = stack_of(self.transformer)
        log.append((options["seed"], "dense" if stack is None else "+".join(map(str, stack.methods))))
        if (trap := traps.pop(len(log), None)) is not None:
            raise trap
        return original(self, prompt, **options)

    traps: dict[int, BaseException] = {}
    monkeypatch.setattr(VideoPipeline, "__call__", counted)
    counted_log = type("Runs", (), {"log": log, "traps": traps})
    return counted_log


# --------------------------------------------------------------------------------------------------------------- numbers


def test_every_row_makes_the_clips_of_the_same_seeds(compared):
    report, folder = compared
    for row in report.rows:
        assert [clip.seed for clip in row.clips] == [3, 4, 5, 6]
        records = [read_record((folder / clip.file).with_suffix(".json")) for clip in row.clips]
        assert [one.settings.seed for one in records] == [3, 4, 5, 6]
        assert [one.settings.prompt for one in records] == list(report.prompts) * 2
        assert all(one.settings.methods == row.methods for one in records)


def test_a_clip_is_the_one_that_the_pipeline_makes_with_these_methods(compared, tiny_folder):
    report, folder = compared
    pipe = longtake.load(tiny_folder)
    with longtake.apply(pipe, report.rows[3].name):
        output = pipe(report.prompts[1], seed=4, **SMALL)
    kept = read_clip(folder / report.rows[3].clips[1].file)
    assert torch.equal(to_uint8(kept.pixels), to_uint8(output.clip.pixels))


def test_distances_to_dense_are_those_of_the_kept_clips(compared):
    report, folder = compared
    dense, row = report.rows[0], report.rows[1]
    psnr, ssim, errors = [], [], []
    for mine, theirs in zip(row.clips, dense.clips, strict=True):
        x, y = (to_uint8(read_clip(folder / one.file).pixels)[0].double() / 255 for one in (mine, theirs))
        psnr.append(float((-10 * (x - y).square().mean((1, 2, 3)).log10()).clamp_max(100).mean()))
        z, dense_z = (latents_of(folder / one.file) for one in (mine, theirs))
        errors.append(float((z - dense_z).norm() / dense_z.norm()))
        clips = [read_clip(folder / one.file).pixels for one in (mine, theirs)]
        ssim.append(float(ssim_frames(*clips).mean()))
    assert [clip.psnr for clip in row.clips] == pytest.approx(psnr)
    assert row.psnr == pytest.approx(fmean(psnr)) and row.psnr < 100
    assert row.latent_error == pytest.approx(fmean(errors), rel=1e-5) and row.latent_error > 0
    assert row.ssim == pytest.approx(fmean(ssim))


def latents_of(path):
    from safetensors.torch import load_file

    return load_file(path.with_suffix(".safetensors"))["latents"]


def test_clips_that_are_the_same_count_for_the_ceiling_and_say_so(compared):
    report, _ = compared
    row = next(row for row in report.rows if row.name.startswith("attention-maps"))
    assert (row.psnr, row.ssim, row.latent_error, row.identical) == (100.0, pytest.approx(1.0), 0.0, 4)
    assert any("4 of 4 clips are dense's, byte for byte; each counts for 100 dB" in note for note in row.notes)
    assert report.dense.psnr is None and report.dense.identical == 0


def test_saved_work_is_that_of_the_receipts(compared, tiny_folder):
    report, _ = compared
    pipe, done, dense = longtake.load(tiny_folder), 0, 0
    for clip in report.rows[3].clips:
        with longtake.apply(pipe, report.rows[3].name) as stack:
            pipe(clip.prompt, seed=clip.seed, **SMALL)
        done, dense = done + stack.receipts[0].macs_done, dense + stack.receipts[0].macs_dense
    assert report.rows[3].mac_speedup == pytest.approx(dense / done) and dense > done
    assert report.rows[3].receipts[0]["macs_done"] == done
    assert report.dense.mac_speedup == 1.0 and report.rows[2].mac_speedup == 1.0


def test_times_are_medians_and_speed_ups_are_of_pairs(compared):
    report, _ = compared
    dense, row = report.rows[0], report.rows[1]
    totals = [sum(clip.seconds[part] for part in ("text", "denoise", "decode")) for clip in row.clips]
    assert row.seconds["total"].median == pytest.approx(median(totals))
    assert row.seconds["decode"].median == pytest.approx(median(clip.seconds["decode"] for clip in row.clips))
    pairs = [one.seconds["total"] / mine for one, mine in zip(dense.clips, totals, strict=True)]
    assert row.speedup.median == pytest.approx(median(pairs)) and row.speedup.low <= row.speedup.high
    assert (dense.speedup.low, dense.speedup.high) == (1.0, 1.0)
    assert row.peak_memory_bytes is None or row.peak_memory_bytes > 2**20


# ------------------------------------------------------------------------------------------------------- scenes as prompts


def test_captions_of_scenes_are_read_back_and_measured_against_renders(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "FEWEST", 2)
    made = compare(
        tiny_folder, ["taylorseer:interval=2"], prompts=2, out=tmp_path / "r", **{**SMALL, "steps": 3, "guidance": 1.0}
    )
    for row in made.rows:
        assert row.readback is not None and 0 <= row.readback["all"] <= 1 and row.fvd is not None and row.fvd > 0
    assert made.references["readback of renders"]["all"] > made.dense.readback["all"]
    assert made.references["detector's own accuracy"]["colour"] > 0.9

    clips = torch.cat([read_clip(tmp_path / "r" / clip.file).pixels for clip in made.rows[1].clips])
    renders = render_scenes(find_prompts(2).scenes, 5, 16, 24)
    side = Side(frames=5)
    told = measure(
        TensorSource(clips), TensorSource(renders), ["fvd"], Protocol("short", side, side), resamples=2
    ).result
    assert made.rows[1].fvd == pytest.approx(told["FVD[scenes-3d]"].value, rel=1e-4)


def test_too_few_clips_for_a_distance_are_said(tiny_folder, tmp_path):
    options = {**SMALL, "steps": 2, "guidance": 1.0}
    made = compare(tiny_folder, ["attention-maps"], prompts=1, out=tmp_path / "r", **options)
    assert made.dense.fvd is None and made.dense.readback is not None
    assert any("FVD[scenes-3d] is left out: 1 clip a row and 1 render" in note for note in made.notes)


def test_prompts_of_the_users_leave_both_out_and_say_why(compared):
    report, _ = compared
    assert all(row.readback is None and row.fvd is None for row in report.rows)
    assert any("read-back and FVD[scenes-3d] are left out" in note for note in report.notes)


# --------------------------------------------------------------------------------------------------------- turns, resuming


def test_rows_take_turns_after_one_warm_up_each(tiny_folder, tmp_path, runs):
    compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)
    t = "taylorseer:interval=2"
    assert runs.log == [(0, "dense"), (0, t), (0, "dense"), (0, t), (1, t), (1, "dense")]


def test_an_interrupted_comparison_goes_on(tiny_folder, tmp_path, runs):
    runs.traps[5] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)
    assert not (tmp_path / "r" / "report.json").exists()
    before = len(runs.log)
    made = compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)
    t = "taylorseer:interval=2"
    assert runs.log[before:] == [(1, "dense"), (1, t), (1, t), (1, "dense")]  # two warm-ups, and what was missing
    assert [clip.earlier for row in made.rows for clip in row.clips] == [True, False, True, False]
    assert any("2 of 4 clips were there from an earlier comparison" in note for note in made.notes)
    again = compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)
    assert len(runs.log) == before + 4
    assert [row.seconds for row in again.rows] == [row.seconds for row in made.rows]
    assert again.rows[1].psnr == made.rows[1].psnr


def test_a_clip_that_is_not_whole_is_made_again_and_so_is_one_of_other_settings(tiny_folder, tmp_path, runs):
    made = compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)
    (tmp_path / "r" / made.rows[1].clips[0].file).with_suffix(".json").unlink()
    (tmp_path / "r" / made.dense.clips[1].file).with_suffix(".json").write_text("{")
    before = len(runs.log)
    compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)
    assert len(runs.log) == before + 4
    compare(tiny_folder, ["taylorseer:interval=3"], out=tmp_path / "r", **FAST)
    assert {name for _, name in runs.log[before + 4 :]} == {"taylorseer:interval=3"}  # dense is there
    before = len(runs.log)
    compare(tiny_folder, ["taylorseer:interval=3"], out=tmp_path / "r", **{**FAST, "guidance": 2.0})
    assert len(runs.log) == before + 6


# ---------------------------------------------------------------------------------------------------- when things are wrong


def test_a_method_that_does_nothing_is_found_while_warming_up(tiny_folder, tmp_path, runs):
    few = {**FAST, "steps": 1}
    with pytest.raises(InertMethod, match="stack 'taylorseer:interval=4': taylorseer did nothing"):
        compare(tiny_folder, ["taylorseer:interval=4"], out=tmp_path / "r", **few)
    assert len(runs.log) == 2
    made = compare(tiny_folder, ["taylorseer:interval=4"], out=tmp_path / "r", allow_inert=True, **few)
    assert made.rows[1].error is None and "taylorseer did nothing in 2 of 2 clips" in made.rows[1].notes


def test_what_goes_wrong_in_a_row_ends_that_row_alone(tiny_folder, tmp_path, runs):
    runs.traps[5] = RuntimeError("no memory is left\nand more")
    stacks = ["taylorseer:interval=2", "attention-maps"]
    made = compare(tiny_folder, stacks, out=tmp_path / "r", **FAST)
    failed = made.rows[1]
    assert runs.log[4][1] == failed.name
    assert failed.error == "RuntimeError: no memory is left" and not failed.seconds and failed.psnr is None
    assert made.rows[2].error is None and len(made.rows[2].clips) == 2
    assert "no memory is left" in (tmp_path / "r" / "index.html").read_text()


def test_what_goes_wrong_in_dense_ends_all(tiny_folder, tmp_path, runs):
    runs.traps[3] = RuntimeError("no memory is left")
    with pytest.raises(RuntimeError, match="no memory"):
        compare(tiny_folder, ["taylorseer:interval=2"], out=tmp_path / "r", **FAST)


def test_a_network_that_a_method_cannot_work_on_is_refused_before_anything_runs(tiny_folder, tmp_path, runs):
    with pytest.raises(Unsupported, match="stack 'delta-dit:skipped=9"):
        compare(tiny_folder, ["delta-dit:skipped=9"], out=tmp_path / "r", **FAST)
    assert not runs.log and not (tmp_path / "r").exists()


def test_settings_and_folders_are_checked_first(tiny_folder, tmp_path, monkeypatch):
    stacks = ["taylorseer:interval=2"]
    with pytest.raises(BadInput, match="steps is 0"):
        compare(tiny_folder, stacks, prompts=["a"], out=tmp_path / "r", steps=0)
    assert not (tmp_path / "r").exists()
    monkeypatch.setattr(comparing, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "missing" / "r", tmp_path / "file"):
        with pytest.raises(BadOutput, match=r"missing|is a file"):
            compare(tiny_folder, stacks, prompts=["a"], out=out)


# --------------------------------------------------------------------------------------------- pipelines of another kind


class Foreign:
    """A pipeline that is called as ours, but checks by `settings` and does not name its weights, as those of diffusers."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.transformer, self.scheduler, self.device = pipe.transformer, pipe.scheduler, pipe.device

    def settings(self, prompt, *, frames, height, width, steps, guidance, seed):
        return Settings(prompt, "", frames or 5, height or 16, width or 24, steps or 2, guidance or 1.5, seed)

    def __call__(self, prompt, *, frames, height, width, steps, guidance, seed, on_step):
        size = {"frames": frames, "height": height, "width": width}
        return self.pipe(prompt, steps=steps, guidance=guidance, seed=seed, on_step=on_step, **size)


def test_a_pipeline_with_our_call_interface_is_compared(tiny_folder, tmp_path):
    pipe, progress = Foreign(longtake.load(tiny_folder)), []
    made = compare(
        pipe,
        ["taylorseer:interval=2"],
        prompts=["a red ball"],
        out=tmp_path / "r",
        steps=3,
        guidance=1.0,
        on_step=lambda done, all: progress.append((done, all)),
    )
    assert isinstance(made, Report) and (made.frames, made.height, made.width) == (5, 16, 24)
    assert made.rows[1].psnr is not None and len(made.weights) == 64
    assert progress[0] == (1, 12) and progress[-1] == (12, 12) and progress == sorted(progress)


def test_a_pipelines_own_steps_and_guidance_are_taken_where_none_are_given(tiny_folder, tmp_path):
    pipe = Foreign(longtake.load(tiny_folder))
    made = compare(pipe, ["taylorseer:interval=1"], prompts=["a red ball"], out=tmp_path / "r", allow_inert=True)
    assert (made.steps, made.guidance, len(made.rows)) == (2, 1.5, 2)
    record = json.loads(next((tmp_path / "r" / "clips").rglob("*.json")).read_text())
    assert (record["settings"]["steps"], record["settings"]["guidance"]) == (2, 1.5)


# ------------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["longtake", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


def test_the_verb_prints_a_table_and_writes_report_and_page(run, tiny_folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    words = [
        "compare",
        "--model",
        tiny_folder,
        "--prompts",
        "prompts.txt",
        "--size",
        "24x16",
        "--frames",
        5,
        "--steps",
        3,
    ]
    words += ["--stack", "taylorseer:interval=2", "--guidance", 1, "--seeds", 2]
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "dense" in out and "taylorseer:interval=2" in out and "report/index.html" in out
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["command"].startswith("longtake compare --model") and told["seeds"] == 2
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "") and json.loads(out)["rows"][1]["name"] == "taylorseer:interval=2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stack", "taylorser"], "Did you mean 'taylorseer'"),
        (["--stack", "taylorseer+delta-dit"], "cannot be used together"),
        ([], "there is no stack"),
        (["--stack", "taylorseer", "--prompts", "empty.txt"], "hold none"),
        (["--stack", "taylorseer", "--prompts", "0"], "prompts is 0"),
        (["--stack", "taylorseer", "--out", "missing/report"], "the folder missing does not exist"),
        (["--stack", "taylorseer", "--model", "nonesuch"], "no model is called 'nonesuch'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, tmp_path, words, said):
    (tmp_path / "empty.txt").touch()
    code, out, err = run("compare", *words)
    assert (code, out) == (2, "") and err.startswith("longtake: ") and err.count("\n") == 1 and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]
