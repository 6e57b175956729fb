import json

import numpy as np
import pytest
import torch

from longtake.data.scenes import (
    Scene,
    SceneOptions,
    export,
    ground_truth,
    render_folder,
    render_scenes,
    sample_scene,
    scene_sound,
    sound_events,
)
from longtake.errors import BadData, BadInput, BadOutput, BadSound
from longtake.video import read_clip, read_sound

SMALL = {"frames": 5, "height": 32, "width": 48, "progress": False}
FIGURES = SceneOptions(shapes=("figure", "ball"), relations=("beside",), motions=("wave", "bounce"), split="all")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_clips_come_with_all_that_is_known_about_them(tmp_path):
    table = render_folder(tmp_path, 3, FIGURES, first_seed=7, dense=True, **SMALL)
    assert table == tmp_path / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [row["video"] for row in rows] == ["000000.mp4", "000001.mp4", "000002.mp4"]
    for index, row in enumerate(rows):
        scene = sample_scene(7 + index, FIGURES)
        clip = read_clip(tmp_path / row["video"])
        assert clip.fps == 8 and clip.pixels.shape == (1, 3, 5, 32, 48)
        assert (clip.pixels - render_scenes([scene], 5, 32, 48)).abs().mean() < 0.03
        known = json.loads((tmp_path / f"{index:06d}.json").read_text())
        assert row["prompt"] == known["prompt"] == scene.caption and known["captions"] == list(scene.captions)
        assert Scene.from_json(known["scene"]) == scene and known["attributes"] == scene.attributes

        truth = ground_truth([scene], 5, 32, 48, queries=(0, 2, 4))
        assert np.allclose(known["camera"]["extrinsics"], truth.extrinsics[0], atol=1e-4)
        assert np.allclose(known["tracks"]["pixels"], truth.tracks[0].pixels, atol=1e-4)
        assert known["tracks"]["visible"] == truth.tracks[0].visible.int().tolist()
        for number, thing in enumerate(known["objects"]):
            assert len(thing["boxes"]) == 5 and thing["boxes"][2] == truth.boxes(0)[2, number].tolist()
            if thing["shape"] == "figure":
                assert np.shape(thing["joints"]["pixels"]) == (5, len(thing["joints"]["names"]), 2)
            else:
                assert thing["joints"] is None
        dense = np.load(tmp_path / f"{index:06d}.npz")
        for name in ("instances", "parts", "depth", "covisible", "flow", "normals"):
            wanted = getattr(truth, name)[0].numpy()
            assert dense[name].shape == wanted.shape and np.allclose(dense[name], wanted, atol=1e-3), name


def test_an_interrupted_folder_is_completed_to_the_same_bytes(tmp_path, monkeypatch):
    render_folder(tmp_path / "whole", 4, **SMALL)
    calls = []

    def fails_at_third(scenes, *args, **more):
        calls.append(scenes[0].seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render_scenes(scenes, *args, **more)

    monkeypatch.setattr(export, "render_scenes", fails_at_third)
    with pytest.raises(KeyboardInterrupt):
        render_folder(tmp_path / "broken", 4, **SMALL)
    render_folder(tmp_path / "broken", 4, **SMALL)
    assert calls == [0, 1, 2, 2, 3]  # the first two were not rendered again
    assert files(tmp_path / "whole") == files(tmp_path / "broken")


def test_a_clip_without_all_its_files_is_made_again(tmp_path):
    render_folder(tmp_path, 2, **SMALL)
    (tmp_path / "000001.mp4").unlink()
    render_folder(tmp_path, 2, dense=True, **SMALL)
    assert set(files(tmp_path)) == {f"00000{i}.{s}" for i in (0, 1) for s in ("mp4", "json", "npz")} | {
        "metadata.jsonl"
    }


def test_a_video_folder_reads_it(tmp_path):
    folder = pytest.importorskip("longtake.data.folder")
    render_folder(tmp_path, 3, dense=True, **SMALL)
    options = folder.FolderOptions(frames=5, height=32, width=48)
    data = folder.VideoFolder(tmp_path, options, progress=False)
    assert len(data) == 3 and not data.problems
    assert [data[i]["prompt"] for i in range(3)] == [sample_scene(i).caption for i in range(3)]
    assert (data[1]["pixels"] - render_scenes([sample_scene(1)], 5, 32, 48)[0]).abs().mean() < 0.05


def test_other_clips_in_the_folder_are_refused(tmp_path):
    render_folder(tmp_path, 1, **SMALL)
    before = files(tmp_path)
    with pytest.raises(BadData, match="another scene"):
        render_folder(tmp_path, 1, first_seed=1, **SMALL)
    with pytest.raises(BadData, match="another width"):
        render_folder(tmp_path, 1, **{**SMALL, "width": 64})
    (tmp_path / "000000.json").write_text("{}")
    with pytest.raises(BadData, match=r"000000\.json"):
        render_folder(tmp_path, 1, **SMALL)
    assert files(tmp_path) == before | {"000000.json": b"{}"}


def test_bad_requests_are_one_line(tmp_path):
    with pytest.raises(BadOutput, match="nowhere"):
        render_folder(tmp_path / "nowhere" / "here", 1, **SMALL)
    with pytest.raises(BadInput, match="0 clips"):
        render_folder(tmp_path, 0, **SMALL)


def test_everything_is_drawn_when_asked_for():
    scenes = [sample_scene(seed, SceneOptions.everything()) for seed in range(80)]
    things = [thing for scene in scenes for thing in scene.attributes["objects"]]
    assert {"figure", "capsule"} < {thing["shape"] for thing in things}
    assert {"striped", "checkered", "spotted"} < {thing["texture"] for thing in things}
    assert torch.isfinite(render_scenes(scenes[:3], 1, 8, 8)).all()


def test_a_clip_is_made_again_with_its_sound(tmp_path):
    bounces = SceneOptions(shapes=("ball",), motions=("bounce",), relations=("alone",), split="all")
    small = {**SMALL, "frames": 12}
    render_folder(tmp_path, 1, bounces, **small)
    with pytest.raises(BadSound, match="no sound track"):
        read_sound(tmp_path / "000000.mp4")
    render_folder(tmp_path, 1, bounces, sound=True, **small)
    scene = sample_scene(0, bounces)
    heard, wanted = read_sound(tmp_path / "000000.mp4"), scene_sound(scene, 12)
    assert heard.seconds == pytest.approx(1.5, abs=0.02)
    told = json.loads((tmp_path / "000000.json").read_text())["sound"]
    frames = [one["frame"] for one in told["contacts"]]
    assert frames == [one.frame for one in sound_events(scene, 12).contacts] and frames
    count = min(len(heard.samples), len(wanted.samples))
    likeness = torch.corrcoef(torch.stack([heard.samples[:count], wanted.samples[:count]]))[0, 1]
    assert likeness > 0.9  # AAC, in step
