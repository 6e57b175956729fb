import json

import pytest
import torch

from longtake.errors import BadOutput, BadRecipe
from longtake.training.checkpoints import find_checkpoint, read_checkpoint, write_checkpoint
from longtake.training.parallel import World

WORLD = World(0, 1, torch.device("cpu"))


def write(root, step, value=None, *, keep=2, best=False):
    tensors = {"a": torch.full((3, 2), float(step) if value is None else value), "b.step": torch.tensor(float(step))}
    return write_checkpoint(root, step, tensors, {"note": f"at {step}"}, WORLD, keep=keep, best=best)


def read(folder):
    tensors = {"a": torch.zeros(3, 2), "b.step": torch.tensor(0.0)}
    return tensors, read_checkpoint(folder, tensors, WORLD)


def test_tensors_state_and_random_numbers_come_back(tmp_path):
    torch.manual_seed(3)
    folder = write(tmp_path, 5, 1 / 3)
    expected = torch.rand(4)
    torch.manual_seed(99)
    tensors, state = read(folder)
    assert torch.equal(tensors["a"], torch.full((3, 2), 1 / 3))
    assert tensors["b.step"] == 5
    assert state == {"step": 5, "note": "at 5"}
    assert torch.equal(torch.rand(4), expected)


def test_the_last_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        write(tmp_path, step, best=step == 2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004", "step-00000005"]
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000005"
    assert find_checkpoint(tmp_path, "best") == tmp_path / "step-00000002"


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path):
    assert find_checkpoint(tmp_path) is None
    write(tmp_path, 1)
    partial = tmp_path / "step-00000002.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000001"
    (tmp_path / "latest").write_text("step-00000009\n")  # renamed away or deleted by hand
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000001"
    write(tmp_path, 3)
    assert not partial.exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    folder = write(tmp_path, 1)
    for wrong in ({"a": torch.zeros(2, 2)}, {"a": torch.zeros(3, 2), "other": torch.zeros(1)}):
        with pytest.raises(BadRecipe, match="does not fit this recipe"):
            read_checkpoint(folder, wrong, WORLD)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longtake.training.checkpoints.save_file", full)
    with pytest.raises(BadOutput, match="No space left"):
        write(tmp_path, 2)
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000001"
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupt_while_writing_stays_an_interrupt(tmp_path, monkeypatch):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.distributed.checkpoint.hf_storage.HuggingFaceStorageWriter.write_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 1)
    assert find_checkpoint(tmp_path) is None
    assert not list(tmp_path.glob("*.partial"))


def test_the_files_hold_no_pickle(tmp_path):
    folder = write(tmp_path, 1)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert json.loads((folder / "state.json").read_text())["step"] == 1
