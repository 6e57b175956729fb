"""The command line as a user meets it: outputs, exit codes, one line per mistake, nothing half-written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from longtake import cli
from longtake.catalogue import systems
from longtake.video import Clip, read_clip, read_sound, write_clip

SMALL = ["--frames", "5", "--size", "24x16", "--steps", "2"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["longtake", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_one_line(result, *words, code=2):
    """A refusal: the exit code, nothing on standard output, one line on standard error that holds the words."""
    found, out, err = result
    assert (found, out) == (code, ""), (found, out, err)
    assert err.startswith("longtake: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert word in err, err


# ------------------------------------------------------------------------------------------------------------ generate


def test_generate_writes_a_clip_and_its_record(run, here, tiny_folder):
    code, out, err = run("generate", "a red ball", "--model", tiny_folder, "--out", "a.mp4", "--seed", 5, *SMALL)
    assert (code, err) == (0, "") and out.startswith("a.mp4 ") and out.count("\n") == 1
    clip = read_clip("a.mp4")
    assert (clip.frames, clip.height, clip.width, clip.fps) == (5, 16, 24, 8.0)
    settings = json.loads((here / "a.json").read_text())["settings"]
    assert (settings["prompt"], settings["seed"], settings["steps"]) == ("a red ball", 5, 2)
    assert sorted(os.listdir()) == ["a.json", "a.mp4"]


def test_every_option_reaches_the_record(run, here, tiny_folder):
    Image.new("RGB", (24, 16), "red").save("first.png")
    Image.new("RGB", (50, 50), "blue").save("last.png")
    options = ["--guidance", "2.5", "--negative", "blue", "--image", "first.png", "--last-image", "last.png"]
    options += ["--scheduler", "unipc", "--dtype", "bfloat16", "--out", "a.mp4"]
    code, _, err = run("generate", "a red ball", "--model", tiny_folder, *SMALL, *options)
    assert code == 0 and err == "longtake: a.mp4: last_image of 50x50 was resized and cropped to 24x16\n"
    record = json.loads((here / "a.json").read_text())
    settings = record["settings"]
    assert settings["guidance"] == 2.5 and settings["negative_prompt"] == "blue"
    assert settings["image"]["path"] == str(here / "first.png")
    assert settings["last_image"]["path"] == str(here / "last.png")
    assert record["scheduler"]["class"] == "UniPCMultistepScheduler" and record["dtype"] == "bfloat16"


def test_json_is_all_there_is_on_standard_output(run, tiny_folder):
    code, out, err = run("generate", "a red ball", "--model", tiny_folder, *SMALL, "--count", 2, "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["path"] for row in rows] == ["clip-0.mp4", "clip-1.mp4"]
    assert [row["record"]["settings"]["seed"] for row in rows] == [0, 1]


def test_from_record_makes_the_same_bytes(run, here, tiny_folder):
    write_clip(Clip(torch.rand(1, 3, 8, 16, 24) * 2 - 1, 8.0), "before.mp4")
    words = ["a red ball", "--model", tiny_folder, "--continue-from", "before.mp4", "--frames", "9", "--size", "24x16"]
    assert run("generate", *words, "--steps", "1")[0] == 0
    code, out, err = run("generate", "--from-record", "clip.json", "--out", "again.mp4")
    assert (code, err) == (0, "") and out.startswith("again.mp4 ")
    assert (here / "again.mp4").read_bytes() == (here / "clip.mp4").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "startre"], "no model is called 'startre'"),
        (["--image", "missing.png"], "missing.png"),
        (["--image", "text.png"], "text.png"),
        (["--continue-from", "text.png", "--frames", "9"], "text.png"),
        (["--frames", "6"], "5 or 9"),
        (["--size", "20x16"], "16 or 24"),
        (["--size", "big"], "WIDTHxHEIGHT"),
        (["--size", "-8x8"], "WIDTHxHEIGHT"),
        (["--out", "missing/clip.mp4"], "missing"),
        (["--out", "clip.txt"], "suffix"),
        (["--steps", "0"], "steps is 0"),
        (["--steps", "many"], "--steps"),
        (["--guidance", "nan"], "guidance is nan"),
        (["--seed", "-1"], "seed is -1"),
        (["--count", "0"], "count is 0"),
        (["--scheduler", "eular"], "'euler'"),
        (["--dtype", "float23"], "'float32'"),
        (["--device", "abacus"], "abacus"),
        (["--stepz", "3"], "--stepz"),
        (["--from-record", "x.json"], "give one of the two"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(run, here, tiny_folder, words, message):
    (here / "text.png").write_text("no picture")
    assert_one_line(run("generate", "a red ball", "--model", tiny_folder, *SMALL, *words), message)
    assert os.listdir() == ["text.png"]


def test_a_prompt_of_ten_thousand_characters(run, tiny_folder):
    assert_one_line(run("generate", "x" * 10_000, "--model", tiny_folder), "10000 characters", "24 tokens")
    assert os.listdir() == []


def test_no_prompt_and_no_record(run):
    assert_one_line(run("generate"), "--from-record")


def test_a_record_with_an_unknown_key(run, here):
    (here / "a.json").write_text('{"setings": {}}')
    assert_one_line(run("generate", "--from-record", "a.json"), "setings", "'settings'")


def test_a_disk_that_fills_up(run, tiny_folder, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("longtake.video.writing.os.fsync", full)
    result = run("generate", "a red ball", "--model", tiny_folder, *SMALL)
    assert_one_line(result, "clip.mp4", "No space left")
    assert os.listdir() == []


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a tiny disk, as root")
def test_a_disk_that_is_full(run, here, tiny_folder):
    """A real one, of 64 KiB: refused before anything is sampled."""
    disk = here / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (disk / "filler").write_bytes(b"0" * 60_000)
        assert_one_line(run("generate", "a red ball", "--model", tiny_folder, "--out", disk / "clip.mp4"), "disk")
        assert os.listdir(disk) == ["filler"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_our_own_defect_is_one_line_with_exit_code_1(run, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("longtake.catalogue.systems", broken)
    assert_one_line(run("systems"), "internal error", "ZeroDivisionError: two lines", code=1)


def test_an_interrupt_is_not_a_traceback(run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("longtake.catalogue.systems", interrupt)
    assert_one_line(run("systems"), "interrupted", code=130)


# ---------------------------------------------------------------------------------------------------------- other verbs


def test_reconstruct_prints_the_psnr(run, here, tiny_folder):
    write_clip(Clip(torch.rand(1, 3, 6, 20, 24) * 2 - 1, 8.0), "in.mp4")
    code, out, err = run("reconstruct", "in.mp4", "--model", tiny_folder, "--out", "out.mp4")
    assert (code, err) == (0, "") and "PSNR" in out and "the first 5 of 6 frames" in out and "to 24x16" in out
    assert read_clip("out.mp4").pixels.shape == (1, 3, 5, 16, 24)
    code, out, _ = run("reconstruct", "in.mp4", "--model", tiny_folder, "--json")
    assert code == 0 and json.loads(out)["frames"] == 5


def test_reconstruct_refuses_what_is_no_video(run, here, tiny_folder):
    (here / "in.mp4").write_bytes(b"")
    assert_one_line(run("reconstruct", "in.mp4", "--model", tiny_folder), "in.mp4")
    assert_one_line(run("reconstruct", "gone.mp4", "--model", tiny_folder), "gone.mp4")


def test_systems_lists_them_all(run):
    """The 52 published systems, and behind them the small methods: what each is, where, and its page."""
    code, out, _ = run("systems")
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(systems(beside=True)) > 52
    row = next(line for line in lines if " latte " in line)
    assert "backbones" in row and "docs/systems/latte.md" in row and "spatial and temporal attention" in row
    code, out, _ = run("systems", "waver")
    assert code == 0 and "longtake.backbones.waver" in out and "2508.15761" in out
    rows = json.loads(run("systems", "--json")[1])
    assert len(rows) == len(lines) and {row["status"] for row in rows} <= {"planned", "partial", "complete"}
    assert run("systems", "cfg-interval")[0] == 0
    assert_one_line(run("systems", "wavr"), "'waver'")


def test_systems_says_what_goes_with_what(run):
    code, out, err = run("systems", "--matrix")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 200
    rows = [line.split() for line in out.splitlines() if line.split()[1:2] == ["delta-dit"]]
    assert len(rows) == 1 and {"+", "b"} <= set(rows[0])
    assert "refused: both must have the attention level alone" in out
    told = json.loads(run("systems", "--matrix", "--json")[1])
    pair = next(one for one in told["pairs"] if one["methods"] == ["taylorseer", "delta-dit"])
    assert pair["together"] is False and "whole blocks" in pair["why"]
    code, out, _ = run("systems", "apg", "--matrix")
    assert code == 0 and "cfg-interval" in out and "minmax8" in out
    assert_one_line(run("systems", "latte", "--matrix"), "no method is called 'latte'")


def test_data_render_and_check(run, here):
    code, out, err = run("data", "render", "--out", "scenes", "--count", 2, "--frames", 5, "--size", "32x32")
    assert (code, err) == (0, "") and "2 clips" in out
    assert {"000000.mp4", "000000.json", "000001.mp4"} <= set(os.listdir("scenes"))
    assert read_clip("scenes/000001.mp4").frames == 5
    code, out, err = run("data", "check", "scenes", "--frames", 5, "--size", "32x32")
    assert (code, err) == (0, "") and "2 to train on, 0 not" in out
    assert json.loads(run("data", "check", "scenes", "--frames", 5, "--json")[1])["videos"] == 2


def test_scenes_are_rendered_with_their_sound_and_clips_made_to_it(run, here):
    from longtake.autoregressive.tats.layout import layout
    from longtake.autoregressive.tats.pipeline import TatsPipeline
    from longtake.backbones.gpt import GPT
    from longtake.tokenizers.vqgan3d import VQGAN3d

    words = ["--count", 1, "--frames", 16, "--fps", 16, "--size", "16x16"]
    assert run("data", "render", "--out", "scenes", *words, "--sound")[0] == 0
    assert "sound" in json.loads((here / "scenes" / "000000.json").read_text())
    small = {"base_width": 4, "codes": 8, "code_width": 8}
    own = layout("audio", codes=8, rows=2, columns=2, audio=(8, 8))
    TatsPipeline(
        VQGAN3d(**small, downsample=(4, 8, 8)),
        GPT(own.vocabulary, own.window_length(4), width=16, depth=1, heads=2),
        audio_tokenizer=VQGAN3d(**small, downsample=(4, 32, 16), channels=1),
        condition="audio", audio_tokens=2, fps=16.0, clip_size=[16, 16, 16],
    ).save_pretrained(here / "hears")  # fmt: skip
    words = ["generate", "--model", "hears", "--audio", "scenes/000000.mp4"]
    code, out, err = run(*words, "--out", "a.mp4")
    assert (code, err) == (0, "") and out.startswith("a.mp4  16 frames")
    assert read_sound("a.mp4").seconds == pytest.approx(1.0, abs=0.02)
    assert_one_line(
        run(*words, "--frames", 32), "lasts 1.00 s", "32 frames", "2.00 s: ask for at most 16 frames, or give"
    )
    assert_one_line(run("generate", "", "--model", "hears"), "audio is missing", "--audio")
    assert_one_line(run("generate", "a ball", *words[1:]), "leave it empty")
    assert_one_line(run(*words[:3], "--audio", "hears/model_index.json"), "model_index.json cannot be read as sound")
    assert_one_line(run("generate", "a red ball", "--audio", "scenes/000000.mp4"), "hears no sound: leave it out")
    assert_one_line(run("generate", "--from-record", "a.json", "--audio", "a.mp4"), "give one of the two")


def test_an_empty_data_folder(run, here):
    (here / "empty").mkdir()
    assert_one_line(run("data", "check", "empty"), "empty")
    recipe = Path(__file__).parents[1] / "recipes" / "finetune-clips.yaml"
    assert_one_line(run("train", recipe, "data.root=empty", "out=runs/mine"), "empty holds no videos")
    assert [path.name for path in here.iterdir()] == ["empty"]
    assert_one_line(run("data", "check", "gone"), "gone")


def test_train_hands_over_and_reports(run, monkeypatch, tmp_path):
    from longtake import training

    seen = []

    def train(recipe, overrides, *, resume):
        seen.append((recipe, list(overrides), resume))
        return [
            training.Result(
                tmp_path / "out", 7, "finished", 12.0, tmp_path / "out" / "export", {"loss": 2}, {"loss": 1}
            )
        ]

    monkeypatch.setattr(training, "train", train)
    code, out, err = run("train", "a.yaml", "steps=7", "data.root=x", "--resume")
    assert (code, err) == (0, "") and seen == [("a.yaml", ["steps=7", "data.root=x"], True)]
    assert "finished at step 7" in out and "loss 2 -> 1" in out and "export" in out


def test_train_refuses_an_unknown_recipe_and_key(run, here):
    assert_one_line(run("train", "gone.yaml"), "gone.yaml")
    (here / "a.yaml").write_text("taks: tokenizer\n")
    assert_one_line(run("train", "a.yaml"), "taks")
    assert os.listdir() == ["a.yaml"]


# ------------------------------------------------------------------------------------------------------------ evaluate


@pytest.fixture
def two_folders(here):
    """Eight clips of 5 frames in `real`, the same with noise in `fake`, and a file that is none."""
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        soft = torch.rand(1, 3, 5, 2, 2, generator=generator)
        pixels = torch.nn.functional.interpolate(soft, size=(5, 16, 16), mode="trilinear") * 2 - 1
        for folder, spread in (("real", 0.0), ("fake", 0.2)):
            (here / folder).mkdir(exist_ok=True)
            noisy = (pixels + spread * torch.randn(pixels.shape, generator=generator)).clamp(-1, 1)
            write_clip(Clip(noisy, 8.0), f"{folder}/{number}.mkv", codec="ffv1")
    (here / "fake" / "bad.mp4").write_text("no video")
    return ["evaluate", "--real", "real", "--fake", "fake", "--network", "random-3d", "--set", "frames=5"]


def test_evaluate_prints_a_table_and_writes_a_record_and_a_page(run, here, two_folders):
    code, out, err = run(*two_folders, "--metrics", "fvd,psnr", "--resamples", 5, "--out", "found")
    assert (code, err) == (0, "")
    assert "FVD[random-3d]" in out and "FVD " not in out and "PSNR" in out and "not read: bad.mp4" in out
    told = json.loads((here / "found" / "result.json").read_text())
    assert told["protocol"]["name"] == "ours+" and told["protocol"]["fake"]["frames"] == 5
    assert told["command"].startswith("longtake evaluate --real real") and len(told["fake"]["clips"]) == 8
    page = (here / "found" / "result.html").read_text()
    assert page.count("data:image/webp") == 16 and told["protocol_id"] in page
    code, out, err = run(*two_folders, "--metrics", "psnr", "--out", "found", "--json")
    assert (code, err) == (0, "") and json.loads(out)["decoded"] == 0  # from the cache of the first run


def test_evaluate_compares_two_results(run, here, two_folders):
    for name, more in (("a", []), ("b", []), ("c", ["--set", "real.stride=2", "--set", "real.frames=3"])):
        assert run(*two_folders, "--metrics", "flicker", "--resamples", 5, "--out", name, *more)[0] == 0
    code, out, err = run("evaluate", "--compare", "a/result.json", "b/result.json")
    assert (code, err) == (0, "") and "flicker" in out and "no difference" in out
    words = ("evaluate", "--compare", "a/result.json", "c/result.json")
    assert_one_line(run(*words), "real.stride is 1 and 2", "--force")
    code, out, err = run(*words, "--force")
    assert code == 0 and "flicker" in out and err.count("not measured in one way") == 3


def test_evaluate_a_model_on_prompts(run, here, tiny_folder):
    (here / "prompts.txt").write_text("a red ball\na blue cube\n")
    words = ["evaluate", "--model", tiny_folder, "--prompts", "prompts.txt", "--metrics", "flicker,motion", *SMALL]
    words = [word if word != "24x16" else "16x16" for word in words]
    assert_one_line(run(*words), "clips of 5 frames", "takes 17")
    code, out, err = run(*words, "--set", "frames=5", "--resamples", 0)
    assert (code, err) == (0, "") and "flicker" in out and "2 clips of 5 frames 16x16" in out
    assert len(list((here / "evaluation" / "clips").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--real", "empty"], "empty"),
        (["--fake", "gone"], "gone"),
        (["--metrics", "fdv"], "'fvd'"),
        (["--metrics", "readback"], "captions of scenes"),
        (["--protocol", "latte"], "'latte-ucf101'"),
        (["--protocol", "latte-ucf101"], "48 frames"),
        (["--protocol", "latte-ucf101", "--set", "frames=2"], "--set real.shortest=5"),
        (["--set", "frames=99"], "--set frames=5"),
        (["--set", "stride"], "NAME=VALUE"),
        (["--set", "real.size=8"], "--set size=16x16"),
        (["--network", "i3d"], "--network FILE"),
        (["--network", "text.pt"], "not TorchScript"),
        (["--network", "gone.pt"], "gone.pt"),
        (["--clip", "empty", "--metrics", "clip"], "prompts"),
        (["--seam", "2", "--metrics", "fid", "--frame-network", "scenes2d"], "'scenes-2d'"),
        (["--model", "starter"], "--fake or --model"),
        (["--prompts", "p.txt"], "--model"),
        (["--batch", "0"], "batch is 0"),
        (["--compare", "a.json", "b.json"], "a.json"),
    ],
)
def test_what_evaluate_refuses_is_one_line(run, here, two_folders, words, message):
    (here / "empty").mkdir()
    (here / "text.pt").write_text("no network")
    base = two_folders + ["--set", "frames=5"]
    assert_one_line(run(*base, "--metrics", "fvd", *words), message)
    assert not (here / "evaluation" / "result.json").exists()


def test_mixed_resolutions_say_what_to_set(run, here, two_folders):
    write_clip(Clip(torch.rand(1, 3, 5, 8, 8) * 2 - 1, 8.0), "fake/odd.mkv", codec="ffv1")
    assert_one_line(run(*two_folders, "--metrics", "fvd"), "16x16", "8x8 (odd.mkv)", "--set fake.size=8")
    code, out, _ = run(*two_folders, "--metrics", "fvd", "--set", "size=8", "--resamples", 0)
    assert code == 0 and "9 clips of 5 frames 8x8" in out


@pytest.mark.parametrize(
    "verb", [[], ["generate"], ["train"], ["data"], ["data", "render"], ["reconstruct"], ["evaluate"], ["systems"]]
)
def test_help_is_there_for_every_verb(run, verb):
    code, out, err = run(*verb, "--help")
    assert (code, err) == (0, "") and "Usage" in out


def test_the_command_is_installed_and_quiet_about_itself():
    """A process of its own, as a shell starts it."""
    command = [sys.executable, "-m", "longtake.cli", "systems", "nonsense"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("longtake: no system is called 'nonsense'") and result.stderr.count("\n") == 1


# -------------------------------------------------------------------------------------------------------------- import


def test_import_makes_a_folder_that_generate_takes(run, here):
    from latte_recorded import SIZES, awake, small_autoencoder

    from longtake.backbones.latte import Latte
    from longtake.backbones.latte_layouts import to_official

    small_autoencoder(2).save_pretrained(here / "vae")
    model = awake(Latte(**{**SIZES, "width": 384, "heads": 6, "depth": 2}, classes=2))
    torch.save({"ema": to_official(model, 4, 8)}, here / "latte.pt")
    (here / "names.txt").write_text("surfing\nyo yo\n")
    words = ["latte.pt", "--out", "mine", "--autoencoder", "vae", "--frames", 4, "--size", "16x16"]
    code, out, err = run("import", "latte", *words, "--classes", "names.txt")
    assert (code, err) == (0, "") and out.startswith("mine  imported")
    code, out, err = run("generate", "yo yo", "--model", "mine", "--steps", 2, "--out", "a.mp4")
    assert (code, err) == (0, ""), err
    clip = read_clip("a.mp4")
    assert (clip.frames, clip.height, clip.width) == (4, 16, 16)
    assert_one_line(run("generate", "yo-yo", "--model", "mine"), "none called 'yo-yo'", "yo yo")
    assert_one_line(run("import", "latte", *words), "mine is there already")
    assert_one_line(run("import", "lattes", "latte.pt", "--out", "b"), "nothing of 'lattes'", "latte")
    assert_one_line(run("import", "latte", *words[:3], "--interpolator", "b.pt"), "--interpolator is for tats")
    assert_one_line(
        run("import", "tats", "latte.pt", "--out", "b", "--autoencoder", "vae"), "--autoencoder is for latte"
    )
    assert_one_line(run("import", "tats", "latte.pt", "--out", "b"), "a VQGAN of songweige/TATS")
