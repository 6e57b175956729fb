import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from longtake.data.order import draw_prompt
from longtake.data.scenes import SceneDataset, SceneOptions, ground_truth, prerender, render_scenes, sample_scene, store
from longtake.data.scenes.store import CLASSES, SceneIndex, read_index, write_index
from longtake.errors import BadData, BadOutput

SMALL = {"frames": 3, "height": 12, "width": 20}


def fill(out, count=5, **changes):
    return prerender(out, count, first_seed=40, shard=2, progress=False, **{**SMALL, **changes})


def test_a_clip_of_a_shard_is_the_scene_of_its_seed(tmp_path):
    fill(tmp_path)
    shards = sorted(path.name for path in tmp_path.glob("*.npy"))
    assert shards == ["pixels-000000.npy", "pixels-000002.npy", "pixels-000004.npy"]
    stored = np.concatenate([np.load(tmp_path / name) for name in shards])
    assert stored.shape == (5, 3, 12, 20, 3) and stored.dtype == np.uint8
    wanted = render_scenes([sample_scene(43)], 3, 12, 20)[0]  # (3, T, H, W)
    assert (torch.from_numpy(stored[3]).permute(3, 0, 1, 2) / 127.5 - 1 - wanted).abs().max() < 0.51 / 127.5


def test_clips_rendered_together_are_those_rendered_one_by_one(monkeypatch):
    monkeypatch.setattr(store, "TOGETHER", 2)
    index = SceneIndex(first_seed=40, count=5, **SMALL)
    for clip, made in zip((4, 0, 3), store._rendered_together(index, [4, 0, 3], "cpu"), strict=True):
        assert torch.equal(made, index.render(clip))


@pytest.mark.gpu
def test_a_gpu_renders_the_same_shards(tmp_path):
    for device in ("cpu", "cuda"):
        fill(tmp_path / device, device=device)
    for name in ("pixels-000000.npy", "pixels-000002.npy", "pixels-000004.npy"):
        a, b = (np.load(tmp_path / device / name).astype(int) for device in ("cpu", "cuda"))
        assert np.abs(a - b).max() <= 1


def test_an_item_is_the_same_stored_or_rendered_on_access(tmp_path):
    fill(tmp_path)
    (tmp_path / "pixels-000002.npy").unlink()  # as if the run had stopped there
    stored = SceneDataset(tmp_path, seed=3)
    fresh = SceneDataset(first_seed=40, count=5, seed=3, **SMALL)
    assert len(stored) == len(fresh) == 5 and stored.rendered == 3
    for a, b in zip(stored, fresh, strict=True):
        assert torch.equal(a.pop("pixels"), b.pop("pixels"))
        assert a == b
    item = stored[4]
    assert item["pixels"].shape == (3, 3, 12, 20) and item["pixels"].dtype == torch.float32
    assert item["attributes"] == sample_scene(44).attributes and item["fps"] == 8.0
    assert item["prompts"] == list(sample_scene(44).captions) and item["prompt"] in item["prompts"]


def test_stored_pixels_are_read_and_not_rendered_again(tmp_path):
    fill(tmp_path)
    np.save(tmp_path / "pixels-000004.npy", np.full((1, 3, 12, 20, 3), 255, np.uint8))
    assert torch.equal(SceneDataset(tmp_path)[4]["pixels"], torch.ones(3, 3, 12, 20))


def test_a_run_goes_on_where_it_stopped_and_can_be_extended(tmp_path):
    fill(tmp_path, count=3)
    kept = tmp_path / "pixels-000000.npy"
    before = kept.stat().st_mtime_ns
    fill(tmp_path, count=5)  # the third clip was a shard of its own and is one of two now
    assert kept.stat().st_mtime_ns == before
    assert np.load(tmp_path / "pixels-000002.npy").shape[0] == 2
    assert len(SceneDataset(tmp_path)) == SceneDataset(tmp_path).rendered == 5
    assert fill(tmp_path, count=2).count == len(SceneDataset(tmp_path)) == 5  # it never shrinks
    assert not list(tmp_path.glob("*.partial"))


def test_worker_processes_render_the_same_bytes(tmp_path):
    for name, workers in (("one", 0), ("two", 2)):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, workers=workers)
    for path in (tmp_path / "one").glob("*.npy"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_loader_with_workers_reads_the_folder(tmp_path):
    fill(tmp_path)
    data = SceneDataset(tmp_path)
    data[0]  # an open map in the parent must not travel to the workers
    pixels = [item["pixels"] for item in DataLoader(data, batch_size=None, num_workers=2)]
    assert torch.equal(torch.stack(pixels), torch.stack([item["pixels"] for item in data]))


def test_a_folder_written_by_hand_opens_once_it_has_an_index(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 3, 12, 20, 3), np.uint8)
    np.save(tmp_path / "pixels-000000.npy", pixels)
    with pytest.raises(BadData, match=r"index\.json"):
        SceneDataset(tmp_path)
    write_index(tmp_path, SceneIndex(SceneOptions(split="held-out"), count=2, shard=2, **SMALL))
    data = SceneDataset(tmp_path)
    assert data[1]["prompt"] in sample_scene(1, SceneOptions(split="held-out")).captions
    assert torch.equal(
        ((data[1]["pixels"] + 1) * 127.5).round().byte(), torch.from_numpy(pixels[1]).permute(3, 0, 1, 2)
    )


def test_the_prompt_depends_on_seed_epoch_and_index_alone():
    data, again = SceneDataset(count=40, seed=5, frames=1, height=4, width=4), SceneDataset(count=40, seed=5)
    captions = sample_scene(7).captions
    drawn = [draw_prompt(captions, 5, epoch, 7) for epoch in range(400)]
    assert data[(3, 7)]["prompt"] == drawn[3] and data[7]["prompt"] == drawn[0]
    assert [draw_prompt(again.scene(7).captions, 5, epoch, 7) for epoch in range(400)] == drawn
    share = Counter(drawn)
    assert set(share) == set(captions) and 150 < share[captions[0]] < 250  # half of the time the plain one
    assert SceneDataset(count=40, seed=5, frames=1, height=4, width=4, plain=True)[(9, 7)]["prompt"] == captions[0]


def test_a_folder_of_other_scenes_is_refused(tmp_path):
    fill(tmp_path)
    with pytest.raises(BadData, match="first_seed"):
        prerender(tmp_path, 5, first_seed=0, shard=2, progress=False, **SMALL)
    with pytest.raises(BadData, match="height"):
        SceneDataset(tmp_path, height=64)
    with pytest.raises(BadData, match="options"):
        SceneDataset(tmp_path, options=SceneOptions(split="held-out"))
    with pytest.raises(BadData, match="not of 6"):
        SceneDataset(tmp_path, count=6)
    assert len(SceneDataset(tmp_path, count=3, height=12)) == 3
    np.save(tmp_path / "pixels-000000.npy", np.zeros((2, 3, 8, 8, 3), np.uint8))
    with pytest.raises(BadData, match="pixels-000000"):
        SceneDataset(tmp_path)[0]


def test_a_damaged_index_and_a_missing_parent_are_one_line(tmp_path):
    fill(tmp_path)
    data = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**data, "options": {"shapes": ["ball", "blob"]}}))
    with pytest.raises(BadData, match="blob"):
        read_index(tmp_path)
    with pytest.raises(BadOutput, match="nowhere"):
        fill(tmp_path / "nowhere" / "here")


def test_semantics_say_which_object_is_where():
    size = {"count": 3, "frames": 5, "height": 64, "width": 64}
    plain = SceneDataset(options=SceneOptions(pair_share=1.0), **size)
    known = SceneDataset(options=SceneOptions(pair_share=1.0), **size, semantics=True)
    for index in range(3):
        item = known[index]
        assert torch.equal(item["pixels"], plain[index]["pixels"])
        assert item["instances"].shape == (5, 16, 16)
        truth = ground_truth([known.scene(index)], 5, 16, 16).instances[0]
        assert torch.equal(item["instances"], truth)
        assert truth.max() == 2
        for row, thing in zip(item["classes"].tolist(), item["attributes"]["objects"], strict=True):
            named = [names[number] for names, number in zip(CLASSES, row, strict=True)]
            assert named == [thing["colour"], thing["shape"], thing["motion"]]
    assert "instances" not in plain[0]
