import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from toy import Toy, Vectors, toy_recipe, train_toy

from longtake.errors import BadData, BadOutput, BadRecipe, TrainingDiverged
from longtake.training.checkpoints import find_checkpoint, read_state
from longtake.training.curves import read_curve
from longtake.training.launch import run, train


def losses(out):
    return [row["loss"] for row in read_curve(out / "loss.csv")]


def test_training_learns_and_leaves_what_a_run_leaves(tmp_path):
    changes = {
        "steps": 60,
        "export": True,
        "optimizer": {"lr": 1e-2},
        "validation": {"every": 20},
        "samples": {"every": 30},
        "checkpoint": {"every": 25},
    }
    result, _ = train_toy(tmp_path / "run", changes)
    out = tmp_path / "run"
    assert (result.step, result.stopped) == (60, "finished")
    assert result.after["loss"] < 0.7 * result.before["loss"]
    curve = read_curve(out / "loss.csv")
    assert [row["step"] for row in curve] == list(range(1, 61))
    assert curve[5].keys() == {"step", "loss", "root", "gradient_norm", "lr"}
    assert curve[5]["root"] == pytest.approx(math.sqrt(curve[5]["loss"]), rel=1e-5)
    assert [row["step"] for row in read_curve(out / "validation.csv")] == [0, 20, 40, 60]
    names = {path.name for path in (out / "samples").iterdir()}
    assert names == {f"step-{step:08d}{end}" for step in (30, 60) for end in ("-00.mp4", ".png", ".txt")}
    assert {"recipe.yaml", "curves.png", "board", "export"} <= {path.name for path in out.iterdir()}
    assert read_state(find_checkpoint(out / "checkpoints"))["step"] == 60


def test_the_export_holds_the_average_not_the_last_weights(tmp_path):
    _, task = train_toy(tmp_path, {"export": True, "ema": {"decay": 0.9}})
    exported = load_file(tmp_path / "export" / "net.safetensors")
    last = task.net.state_dict()
    assert exported.keys() == last.keys()
    assert all(not torch.equal(exported[name], last[name]) for name in last)


def test_a_run_under_way_is_exported_on_request_and_goes_on_as_if_it_had_not(tmp_path):
    train_toy(tmp_path / "whole")
    with pytest.raises(BadOutput, match="no checkpoint"):
        train_toy(tmp_path / "parts", export_only=True)
    train_toy(tmp_path / "parts", {"minutes": 0.0})
    result, task = train_toy(tmp_path / "parts", export_only=True)
    assert (result.step, result.stopped, task.calls) == (1, "export", 0)
    exported = load_file(tmp_path / "parts" / "export" / "net.safetensors")
    saved = load_file(next((tmp_path / "parts" / "checkpoints" / "step-00000001").glob("shard-*")))
    assert all(torch.equal(value, saved[f"ema.net.{name}"]) for name, value in exported.items())
    train_toy(tmp_path / "parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_validation_uses_the_average_and_does_not_touch_the_training(tmp_path):
    train_toy(tmp_path / "a", {"validation": {"every": 2}, "samples": {"every": 3}}, dropout=0.2)
    train_toy(tmp_path / "b", dropout=0.2)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_micro_batches_change_the_memory_not_the_loss(tmp_path):
    train_toy(tmp_path / "a")
    train_toy(tmp_path / "b", {"data": {"batch_size": 8, "workers": 0, "accumulate": 4}})
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), abs=1e-6)


def test_workers_do_not_change_the_loss(tmp_path):
    train_toy(tmp_path / "a")
    train_toy(tmp_path / "b", {"data": {"batch_size": 8, "workers": 1}})
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step 7: the loss is nan.*step-00000004"):
        train_toy(tmp_path, {"log_every": 5}, poison_at=7)
    good = find_checkpoint(tmp_path / "checkpoints")
    assert good is not None and good.name == "step-00000004"
    for value in load_file(next(good.glob("shard-*.safetensors"))).values():
        assert value.isfinite().all()
    assert len(losses(tmp_path)) == 6  # the last look was at step 5; the good steps behind it are recorded too


def test_divergence_in_the_last_step_before_a_checkpoint_is_not_saved(tmp_path):
    with pytest.raises(TrainingDiverged, match="step 8"):
        train_toy(tmp_path, {"log_every": 100}, poison_at=8)
    assert find_checkpoint(tmp_path / "checkpoints").name == "step-00000004"


def test_a_stopped_run_resumes_to_the_same_curve(tmp_path):
    changes = {"optimizer": {"name": "muon", "lr": 3e-3}, "validation": {"every": 3}}
    train_toy(tmp_path / "whole", changes, dropout=0.2)
    train_toy(tmp_path / "parts", {**changes, "steps": 12, "minutes": 0.0}, dropout=0.2)  # one step, then late
    assert len(losses(tmp_path / "parts")) == 1
    result, task = train_toy(tmp_path / "parts", changes, dropout=0.2, resume=True)
    assert result.stopped == "finished"
    assert task.begun == list(range(1, 12)), "a task is told how many steps are behind it"
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    held = [read_curve(tmp_path / name / "validation.csv") for name in ("whole", "parts")]
    assert held[0] == held[1]
    assert result.before["loss"] == held[0][0]["loss"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_with_a_checkpoint(tmp_path, number):
    class Interrupted(Toy):
        def loss(self, batch, seeds):
            if self.calls == 5:
                os.kill(os.getpid(), number)
            return super().loss(batch, seeds)

    before = signal.getsignal(number)
    result = run(toy_recipe(tmp_path), task=Interrupted)
    assert (result.step, result.stopped) == (6, "signal")
    assert read_state(find_checkpoint(tmp_path / "checkpoints"))["step"] == 6
    assert signal.getsignal(number) == before


def test_a_time_limit_ends_with_a_checkpoint(tmp_path):
    result, _ = train_toy(tmp_path, {"minutes": 0.0})
    assert (result.step, result.stopped, result.export) == (1, "time limit", None)
    assert read_state(find_checkpoint(tmp_path / "checkpoints"))["step"] == 1


def test_a_finished_run_resumed_does_nothing_more(tmp_path):
    train_toy(tmp_path, {"export": True})
    again, task = train_toy(tmp_path, {"export": True}, resume=True)
    assert (again.step, again.stopped, task) == (12, "finished", None)
    assert again.export is not None and again.export.is_dir()


def test_a_folder_with_a_training_is_not_overwritten(tmp_path):
    train_toy(tmp_path)
    with pytest.raises(BadOutput, match=r"step 12.*--resume"):
        train_toy(tmp_path)


def test_another_seed_or_data_cannot_resume(tmp_path):
    train_toy(tmp_path)
    with pytest.raises(BadRecipe, match="seed 0"):
        train_toy(tmp_path, {"seed": 3, "steps": 14}, resume=True)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(BadRecipe, match="multiple of 3"):
        train_toy(tmp_path, {"data": {"batch_size": 8, "accumulate": 3}})


def test_an_out_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match="file"):
        train_toy(tmp_path / "file" / "run")


def test_an_empty_data_folder_is_bad_data_and_leaves_no_checkpoint(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "recipe.yaml").write_text("task: tokenizer\ntokenizer: {config: {base_width: 8}}\ndata: {kind: videos}")
    with pytest.raises(BadData):
        train(tmp_path / "recipe.yaml", [f"data.root={tmp_path}/clips", f"out={tmp_path}/run"])
    assert find_checkpoint(tmp_path / "run" / "checkpoints") is None


def test_an_error_in_a_worker_process_is_the_line_that_it_was_raised_with(tmp_path):
    class Damaged(Vectors):
        def __getitem__(self, key):
            raise BadData("clips: 16 videos in a row cannot be decoded: the first is empty")

    class Reading(Toy):
        def data(self):
            return [Damaged()], super().data()[1]

    with pytest.raises(BadData) as caught:
        run(toy_recipe(tmp_path, {"data": {"batch_size": 8, "workers": 1}}), task=Reading)
    assert str(caught.value) == "clips: 16 videos in a row cannot be decoded: the first is empty"


def test_the_best_checkpoint_is_the_one_with_the_lowest_held_out_loss(tmp_path):
    class Worsening(Toy):
        def validate(self, batch, seeds):
            self.looks = getattr(self, "looks", 0) + 1
            return {"loss": torch.full((len(seeds),), [9.0, 3.0, 1.0, 2.0, 4.0][self.looks - 1])}

    changes = {"validation": {"every": 3}, "checkpoint": {"every": 3, "keep": 1}}
    run(toy_recipe(tmp_path, changes), task=Worsening)
    root = tmp_path / "checkpoints"
    assert find_checkpoint(root, "best").name == "step-00000006"
    assert {path.name for path in root.glob("step-*")} == {"step-00000006", "step-00000012"}


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    train_toy(tmp_path, dropout=0.2)
    assert torch.equal(torch.rand(2), expected)


def test_gradients_are_clipped_from_the_step_that_the_recipe_names(tmp_path, monkeypatch):
    bounds = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda p, bound, **named: bounds.append(bound) or clip(p, bound, **named)
    )
    train_toy(tmp_path, {"steps": 4, "optimizer": {"clip_norm": 0.5, "clip_after": 2}})
    assert bounds == [float("inf")] * 2 + [0.5] * 2
