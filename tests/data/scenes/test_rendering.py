import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from longtake.data.scenes import SceneOptions, ground_truth, render_scenes, sample_scene
from longtake.data.scenes.world import MOTIONS, SHAPES, TEXTURES, Scene
from longtake.errors import BadInput, BadSize

EVERYTHING = SceneOptions(shapes=SHAPES, motions=MOTIONS, textures=TEXTURES, split="all", moving_camera_share=0.25)


def mixed(count):
    return [sample_scene(seed, EVERYTHING) for seed in range(count)]


def test_a_scene_alone_is_the_same_as_in_a_batch():
    scenes = mixed(10)
    assert len({scene.camera.kind for scene in scenes}) > 1 and len({len(scene.objects) for scene in scenes}) > 1
    batch = render_scenes(scenes, 3, 24, 32)
    assert batch.shape == (10, 3, 3, 24, 32) and batch.dtype == torch.float32
    assert batch.min() >= -1 and batch.max() <= 1
    for scene, clip in zip(scenes, batch, strict=True):
        assert torch.allclose(render_scenes([scene], 3, 24, 32)[0], clip, atol=1e-6)


def test_groups_of_one_pass_do_not_touch_one_another(monkeypatch):
    scenes = mixed(4)
    together = render_scenes(scenes, 2, 16, 16)
    monkeypatch.setitem(render_scenes.__globals__["RAYS_AT_ONCE"], "cpu", 1)
    assert torch.allclose(render_scenes(scenes, 2, 16, 16), together, atol=1e-6)


def test_another_process_renders_the_same_bits():
    code = (
        "import hashlib; from longtake.data.scenes import render_scenes, sample_scene;"
        "clips = render_scenes([sample_scene(i) for i in range(4)], 3, 32, 32);"
        "print(hashlib.sha256(clips.numpy().tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    clips = render_scenes([sample_scene(i) for i in range(4)], 3, 32, 32)
    assert there == hashlib.sha256(clips.numpy().tobytes()).hexdigest()


def test_a_scene_survives_json():
    for scene in mixed(6):
        again = Scene.from_json(json.loads(json.dumps(scene.to_json())))
        assert again == scene and torch.equal(render_scenes([again], 1, 16, 16), render_scenes([scene], 1, 16, 16))


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 64, 64), (2, 33, 47), (3, 96, 160), (2, 80, 48), (1, 1, 1)]
)
def test_any_size_and_frame_count_shows_the_same_world(frames, height, width):
    scene = sample_scene(1)
    clip = render_scenes([scene], frames, height, width)
    assert clip.shape == (1, 3, frames, height, width) and clip.isfinite().all()
    truth = ground_truth([scene], frames, height, width)
    assert truth.instances.shape == (1, frames, height, width)
    if height > 1:  # the objects of the reference picture are in this one too
        assert set(truth.instances.unique().tolist()) == set(range(len(scene.objects) + 1))


def test_a_prefix_of_a_clip_is_the_shorter_clip():
    scenes = mixed(3)
    assert torch.allclose(render_scenes(scenes, 5, 24, 24)[:, :, :2], render_scenes(scenes, 2, 24, 24), atol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_pixel_is_the_mean_of_its_rays(seed):
    scene = sample_scene(seed, SceneOptions(colours=("purple",)))  # a colour that is not clipped in full light
    large = render_scenes([scene], 2, 48, 64, supersample=1)[0]
    means = torch.nn.functional.avg_pool2d(large, 2)
    assert torch.allclose(render_scenes([scene], 2, 24, 32, supersample=2)[0], means, atol=1e-5)


def test_an_object_on_the_floor_throws_a_shadow_away_from_the_light():
    options = SceneOptions(
        shapes=("ball",),
        motions=("still",),
        relations=("alone",),
        backgrounds=("plain",),
        cameras=("static",),
        split="all",
    )
    scene = sample_scene(3, options)
    sides = []
    for light in ((-1.0, 0.0, 1.0), (1.0, 0.0, 1.0)):
        lit = replace(scene, light=light)
        picture, truth = render_scenes([lit], 1, 64, 64)[0, :, 0], ground_truth([lit], 1, 64, 64)
        floor = truth.instances[0, 0] == 0
        plain = picture[:, 0, 0, None, None]
        shadow = ((picture + 1) / (plain + 1) - 0.62).abs().amax(0) < 1e-3
        assert 30 < (shadow & floor).sum() < 600
        ball = truth.boxes(0)[0, 0]
        sides.append((shadow & floor).nonzero()[:, 1].double().mean() - (ball[0] + ball[2]) / 2)
    assert sides[0] > 3 and sides[1] < -3


def test_bad_requests_are_one_line():
    with pytest.raises(BadSize, match="height 0"):
        render_scenes(mixed(1), 1, 0, 8)
    with pytest.raises(BadInput, match="no scenes"):
        render_scenes([], 1, 8, 8)
    with pytest.raises(BadInput, match="frames per second"):
        render_scenes(mixed(1), 1, 8, 8, fps=0)


def test_the_device_is_an_argument():
    scene = sample_scene(0)
    assert torch.equal(render_scenes([scene], 1, 16, 16, device="cpu"), render_scenes([scene], 1, 16, 16))


@pytest.mark.gpu
def test_a_gpu_renders_the_same_pictures():
    scenes = mixed(6)
    there = render_scenes(scenes, 3, 48, 48, device="cuda")
    assert there.is_cuda
    assert (there.cpu() - render_scenes(scenes, 3, 48, 48)).abs().mean() < 1e-3
    truth, wanted = ground_truth(scenes, 3, 48, 48, device="cuda"), ground_truth(scenes, 3, 48, 48)
    assert (truth.instances.cpu() == wanted.instances).double().mean() > 0.999
