"""Bodies: what an object is made of, part by part, posed for every frame; and the joints of articulated figures."""

import torch
from torch import Tensor

from longtake.data.scenes.figures import build_figure
from longtake.data.scenes.motion import Pose, animate
from longtake.data.scenes.parts import KIND_OF, Body, Part, paint
from longtake.data.scenes.world import Scene, SceneObject


def build_bodies(scene: Scene, times: Tensor) -> list[Body]:
    """Pose every object of the scene at `times` (T,) seconds."""
    return [
        build_figure(thing, pose, times) if thing.identity.shape == "figure" else _solid(thing, pose)
        for thing, pose in zip(scene.objects, animate(scene, times), strict=True)
    ]


def _solid(thing: SceneObject, pose: Pose) -> Body:
    identity, garment = thing.identity, thing.garment
    x, y, z = (identity.size * p for p in identity.proportions)
    ratio = z / x if identity.shape == "capsule" else 0.0
    extent = torch.tensor([x, y, x if identity.shape == "capsule" else z])
    part = Part(
        KIND_OF[identity.shape],
        pose.position,
        pose.rotation,
        pose.scale[:, None] * extent,
        ratio,
        *paint(garment),
    )
    return Body((part,))
