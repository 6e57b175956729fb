from dataclasses import replace

import pytest
import torch
from torch.nn.functional import grid_sample

from longtake.data.scenes import SceneOptions, ground_truth, render_scenes, sample_scene
from longtake.data.scenes.figures import FIGURE_PARTS
from longtake.data.scenes.motion import animate
from longtake.data.scenes.truth import part_names
from longtake.data.scenes.world import FIGURE_MOTIONS, SHAPES, SOLIDS, Background
from longtake.errors import BadInput, BadSize

SIZE = 64


def draw(
    shape="ball", motion="still", camera="static", relation="alone", texture="checkered", background="checker", seed=0
):
    options = SceneOptions(
        shapes=(shape,) if isinstance(shape, str) else shape,
        motions=(motion,),
        cameras=(camera,),
        relations=(relation,),
        textures=(texture,),
        backgrounds=(background,),
        split="all",
    )
    return sample_scene(seed, options)


def know(scene, frames=5, size=SIZE, **more):
    return ground_truth([scene], frames, size, size, **more)


def unproject(truth, b=0):
    """World points (T, H, W, 3) of the depth map, through intrinsics and extrinsics alone."""
    _, _, height, width = truth.depth.shape
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ahead = torch.stack([u, v, torch.ones_like(u)], -1) @ truth.intrinsics[b].inverse().T
    local = truth.depth[b, ..., None] * ahead
    out = torch.linalg.inv(truth.extrinsics[b].double())
    return torch.einsum("tij,thwj->thwi", out[:, :3, :3], local.double()) + out[:, None, None, :3, 3]


def pull(picture, flow):
    """Sample picture (T-1, C, H, W) of the next frames where flow (T-1, 2, H, W) says that each pixel went."""
    height, width = picture.shape[-2:]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = (u + flow[:, 0]) / width * 2 - 1, (v + flow[:, 1]) / height * 2 - 1
    return grid_sample(picture, torch.stack([x, y], -1), align_corners=False, padding_mode="border")


def inner(mask):
    """Pixels of mask (T, H, W) whose neighbours all belong to it too."""
    return -torch.nn.functional.max_pool2d(-mask[:, None].float(), 3, 1, 1)[:, 0] > 0.5


# Light stays with the world, so these movements change no pixel's shade but only its place.
@pytest.mark.parametrize(
    ("shape", "motion", "camera"),
    [
        ("cube", "slide-left", "static"),
        ("cylinder", "bounce", "static"),
        ("cone", "grow", "static"),
        ("ball", "still", "orbit-left"),
        ("capsule", "still", "dolly-in"),
        ("cube", "still", "tilt-up"),
    ],
)
def test_flow_leads_to_the_same_paint_in_the_next_frame(shape, motion, camera):
    scene = draw(shape, motion, camera, texture="striped" if shape == "cone" else "checkered")
    truth = know(scene, frames=3, size=128, fps=1.5)  # large steps
    picture = render_scenes([scene], 3, 128, 128, fps=1.5)[0].transpose(0, 1)
    flow = truth.flow[0].transpose(0, 1)
    where = truth.covisible[0] & inner(truth.instances[0] == 1)[:-1]
    assert where.float().mean() > 0.01
    there, here = (pull(picture[1:], flow) - picture[:-1]).abs().mean(1), picture.diff(dim=0).abs().mean(1)
    moved = flow.norm(dim=1)[where].mean()
    assert moved > 1
    assert there[where].mean() < 0.35 * here[where].mean()
    if camera != "static":  # the floor moves with the camera
        floor = truth.covisible[0] & inner((truth.instances[0] == 0) & truth.depth[0].isfinite())[:-1]
        near = floor & (truth.depth[0, :-1] < 9)
        assert there[near].mean() < 0.5 * here[near].mean()


def test_the_sky_moves_as_at_infinity():
    scene = draw(camera="pan-right", background="sky")
    truth = know(scene, frames=3)
    sky = truth.depth[0].isinf()
    assert sky.float().mean() > 0.05 and (truth.flow[0, 0][sky[:-1]] < 0).all()
    still = know(replace(scene, camera=replace(scene.camera, kind="dolly-in")), frames=3)  # forward, hardly turning
    gone = still.flow[0][:, still.depth[0, :-1].isinf()]
    assert gone[0].abs().max() < 0.1 < still.flow[0, 0].abs().max()  # no parallax at infinity
    static = know(draw(background="sky"), frames=3)
    assert static.flow.abs().max() < 1e-3


@pytest.mark.parametrize("camera", ["static", "orbit-right"])
def test_depth_lies_on_the_analytic_ball_and_on_the_floor(camera):
    scene = draw("ball", "bounce", camera, seed=2)
    truth = know(scene)
    points = unproject(truth)
    (pose,) = animate(scene, torch.arange(5) / 8)
    ball, floor = truth.instances[0] == 1, (truth.instances[0] == 0) & truth.depth[0].isfinite()
    away = points - pose.position[:, None, None]
    assert (away.norm(dim=-1)[ball] - scene.objects[0].identity.size).abs().max() < 1e-4
    assert points[..., 2][floor & (truth.depth[0] < 30)].abs().max() < 1e-3
    outward = away / away.norm(dim=-1, keepdim=True)
    assert (truth.normals[0].permute(1, 2, 3, 0) - outward)[ball].abs().max() < 1e-3
    assert torch.equal(truth.normals[0][:, floor], torch.tensor([[0.0], [0], [1]]).expand(3, int(floor.sum())))


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_unit_and_across_the_surface_that_depth_draws(shape):
    scene = draw(shape, "spin" if shape != "figure" else "wave", seed=1)
    truth = know(scene, frames=3, size=160)
    solid = truth.depth[0].isfinite()
    normals = truth.normals[0].permute(1, 2, 3, 0)
    assert (normals.norm(dim=-1)[solid] - 1).abs().max() < 1e-5 and (normals[~solid] == 0).all()
    points = unproject(truth)
    across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    facet = torch.linalg.cross(down, across)
    facet = facet / facet.norm(dim=-1, keepdim=True)
    smooth = inner(truth.parts[0] == truth.parts[0].amax()) | inner((truth.parts[0] == 1) & (truth.instances[0] == 1))
    agree = (facet * normals[:, 1:-1, 1:-1]).sum(-1)[smooth[:, 1:-1, 1:-1]]
    assert len(agree) > 100 and (agree > 0.9).double().mean() > (0.8 if shape in ("cube", "cylinder") else 0.9)
    assert agree.median() > 0.99


@pytest.mark.parametrize("shape", ["ball", "cone", "figure"])
def test_the_mask_is_where_the_picture_differs_from_one_without_the_object(shape):
    scene = draw(shape, "spin", texture="plain", background="plain")
    bare = replace(
        scene, objects=(replace(scene.objects[0], motion=replace(scene.objects[0].motion, place=(99.0, 0.0))),)
    )
    truth = know(scene, frames=2)
    with_it, without = (render_scenes([s], 2, SIZE, SIZE, supersample=1)[0] for s in (scene, bare))
    differs = (with_it - without).abs().amax(0) > 1e-3
    ratio = (with_it + 1) / (without + 1)
    shadow = (ratio - 0.62).abs().amax(0) < 1e-3  # a floor in shadow keeps 62 % in every channel
    mask = truth.instances[0] == 1
    assert mask.sum() > 60
    assert ((differs & ~shadow) ^ mask).sum() <= 0.02 * mask.sum()


def test_masks_number_the_objects_and_the_parts_of_each():
    scene = next(s for s in (draw(("figure", "ball"), "spin", relation="beside", seed=i) for i in range(50))
                 if [t.identity.shape for t in s.objects] == ["ball", "figure"])  # fmt: skip
    truth = know(scene, frames=2, size=96)
    assert set(truth.instances.unique().tolist()) == {0, 1, 2}
    assert truth.parts[truth.instances == 1].unique().tolist() == [1]
    figure = truth.parts[truth.instances == 2]
    assert figure.min() == 1 and figure.max() == len(FIGURE_PARTS) == len(part_names("figure"))
    head = (truth.instances[0, 0] == 2) & (truth.parts[0, 0] == FIGURE_PARTS.index("head") + 1)
    legs = (truth.instances[0, 0] == 2) & (truth.parts[0, 0] == FIGURE_PARTS.index("shoe-left") + 1)
    assert head.nonzero()[:, 0].max() < legs.nonzero()[:, 0].min()
    assert (truth.parts[truth.instances == 0] == 0).all()


def test_boxes_hold_the_masks_tightly():
    truth = know(draw(("cube", "ball"), relation="behind", seed=3), frames=9)
    boxes = truth.boxes(0)
    assert boxes.shape == (9, 2, 4)
    for t in range(9):
        for n in (1, 2):
            rows, columns = (truth.instances[0, t] == n).nonzero().unbind(1)
            wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [-1] * 4
            assert boxes[t, n - 1].tolist() == [float(value) for value in wanted]


@pytest.mark.parametrize(("shape", "motion"), [("cube", "spin"), ("ball", "roll-left"), ("figure", "walk-right")])
def test_tracks_start_on_pixels_and_go_where_the_flow_goes(shape, motion):
    scene = draw(shape, motion)
    truth = know(scene, frames=6, points=50, queries=(0, 3))
    tracks = truth.tracks[0]
    assert tracks.pixels.shape == (6, 50, 2) and set(tracks.query.tolist()) == {0, 3}
    ids = torch.arange(50)
    start = tracks.pixels[tracks.query, ids]
    assert tracks.visible[tracks.query, ids].all()
    assert torch.allclose(start, start.floor() + 0.5, atol=2e-3)
    column, row = start.floor().long().unbind(1)
    assert (truth.instances[0, tracks.query, row, column] == tracks.instance).all()
    assert (truth.parts[0, tracks.query, row, column] == tracks.part).all()
    assert torch.allclose(truth.depth[0, tracks.query, row, column], tracks.depth[tracks.query, ids], atol=1e-3)
    step = tracks.pixels[tracks.query + 1, ids] - start
    assert torch.allclose(truth.flow[0, :, tracks.query, row, column].T, step, atol=2e-3)
    assert (
        truth.covisible[0, tracks.query, row, column] == tracks.visible[tracks.query + 1, ids]
    ).double().mean() > 0.95
    projected = truth.extrinsics[0, :, :3, :3] @ tracks.world.transpose(1, 2) + truth.extrinsics[0, :, :3, 3:]
    projected = (truth.intrinsics[0] @ projected).transpose(1, 2)
    assert torch.allclose(projected[..., :2] / projected[..., 2:], tracks.pixels, atol=1e-2)


def test_a_track_is_lost_behind_the_other_object_and_comes_back():
    scene = next(s for s in (draw(("cube", "ball"), relation="behind", seed=i) for i in range(50))
                 if s.objects[0].motion.kind.startswith("slide"))  # fmt: skip
    truth = know(scene, frames=17, points=80)
    tracks = truth.tracks[0]
    mover = tracks.visible[:, tracks.instance == 1]
    assert mover[0].all() and mover.float().mean(1).min() < 0.5 and mover[-1].float().mean() > 0.7
    inside = (tracks.pixels > 1).all(-1) & (tracks.pixels < SIZE - 1).all(-1)
    column, row = tracks.pixels.clamp(0, SIZE - 1).floor().long().unbind(-1)
    shown = truth.instances[0, torch.arange(17)[:, None], row, column]
    assert (shown == tracks.instance)[tracks.visible & inside].double().mean() > 0.95
    hidden = ~tracks.visible & inside & (tracks.instance == 1)
    assert (shown == 2)[hidden].double().mean() > 0.9


def test_the_back_of_a_turning_body_is_not_visible():
    tracks = know(draw("cylinder", "spin", seed=5), frames=17, points=100).tracks[0]
    share = tracks.visible.float().mean(1)
    assert share[0] == 1 and share.min() < 0.4


@pytest.mark.parametrize("motion", FIGURE_MOTIONS)
def test_joints_lie_inside_the_figure(motion):
    scene = draw("figure", motion, background="plain", seed=1)
    truth = ground_truth([scene], 9, 96, 96)
    (joints,) = truth.joints[0]
    column, row = joints.pixels.floor().long().unbind(-1)
    inside = (column >= 0) & (column < 96) & (row >= 0) & (row < 96)
    assert inside.double().mean() > 0.9
    time = torch.arange(9)[:, None].expand_as(row)[inside]
    assert (truth.instances[0, time, row[inside], column[inside]] == 1).double().mean() > 0.98
    assert know(draw("cube")).joints == ((None,),)


def test_truth_of_a_scene_does_not_depend_on_the_others():
    scenes = [draw("figure", "walk-left"), draw("cube", camera="orbit-left"), draw(("ball", "cone"), relation="behind")]
    together, alone = ground_truth(scenes, 3, 40, 56), [ground_truth([scene], 3, 40, 56) for scene in scenes]
    for b, one in enumerate(alone):
        assert torch.equal(together.instances[b], one.instances[0])
        for name in ("depth", "normals", "flow"):
            assert torch.allclose(getattr(together, name)[b], getattr(one, name)[0], atol=1e-4), name
        assert torch.allclose(together.tracks[b].pixels, one.tracks[0].pixels, atol=1e-4)
        assert together.attributes[b] == scenes[b].attributes


def test_odd_sizes_one_frame_and_scenes_without_points():
    truth = ground_truth([draw(SOLIDS)], 1, 31, 57, points=0)
    assert truth.depth.shape == (1, 1, 31, 57) and truth.flow.shape == (1, 2, 0, 31, 57)
    assert truth.covisible.shape == (1, 0, 31, 57) and truth.tracks[0].pixels.shape == (1, 0, 2)
    with pytest.raises(BadInput, match="frame 5 of 5"):
        know(draw(), queries=(5,))
    with pytest.raises(BadSize):
        ground_truth([draw()], 0)


def test_a_plain_background_is_a_floor_too():
    scene = replace(draw(), background=Background("plain"))
    truth = know(scene)
    assert truth.depth[0, :, -1].isfinite().all() and truth.depth[0, :, 0].isinf().all()
