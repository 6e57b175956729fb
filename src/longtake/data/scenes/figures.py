"""Articulated figures: closed-form joint angles, forward kinematics, and the parts on the bones."""

import math

import torch
from torch import Tensor

from longtake.data.scenes.motion import Pose
from longtake.data.scenes.parts import SPHERE, Body, Part, bone, paint
from longtake.data.scenes.world import COLOURS, TEXTURES, SceneObject

JOINTS = (
    "pelvis",
    "neck",
    "head",
    "shoulder-left",
    "elbow-left",
    "hand-left",
    "shoulder-right",
    "elbow-right",
    "hand-right",
    "hip-left",
    "knee-left",
    "foot-left",
    "hip-right",
    "knee-right",
    "foot-right",
)
"""Names of a figure's joints, in the order of `Body.joints`; left and right are the figure's own."""
SIDES = ("left", "right")
FIGURE_PARTS = (
    "torso",
    *(f"{bone}-{side}" for bone in ("upper-arm", "forearm", "thigh", "shin", "shoe") for side in SIDES),
    "head",
    "hair",
)
"""Names of a figure's parts, in the order of `Body.parts`; other bodies have one part, named as their shape."""
SKIN, HAIR, SHOE = (0.87, 0.68, 0.54), (0.26, 0.16, 0.10), (0.16, 0.15, 0.15)
LEG, ANKLE = 0.62, 0.11
"""Length of half a leg, and radius at the ankle, in units of the figure's size."""


def build_figure(thing: SceneObject, pose: Pose, times: Tensor) -> Body:
    """A body of the parts FIGURE_PARTS on the joints JOINTS, for `pose` at `times` (T,) seconds."""
    thick, broad, _ = thing.identity.proportions
    unit = thing.identity.size * pose.scale  # (T,)
    # From the figure's axes (x to its right, y forward, z up) to the body's: at yaw 0 it faces the viewer.
    facing = pose.rotation @ torch.tensor([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    joints = _joints(thing, _angles(thing, pose, times, facing[:, :2, 1]))
    place = {
        name: ((point * unit[:, None])[:, None] @ facing.transpose(1, 2))[:, 0] + pose.position
        for name, point in joints.items()
    }

    top, texture, tone, repeats = paint(thing.garment)
    second = thing.garment.second_colour
    legs = COLOURS[second] if second else tuple(c * thing.garment.tone for c in top)
    plain = TEXTURES.index("plain")
    bones = {
        "torso": ("pelvis", "neck", 0.24 * broad, top, texture),
        "upper-arm": ("shoulder", "elbow", 0.1, top, texture),
        "forearm": ("elbow", "hand", 0.085, SKIN, plain),
        "thigh": ("hip", "knee", 0.13, legs, plain),
        "shin": ("knee", "foot", ANKLE, legs, plain),
        "shoe": ("heel", "toe", 0.7 * ANKLE, SHOE, plain),
    }
    parts: dict[str, Part] = {}
    for name, (start, end, radius, colour, pattern) in bones.items():
        for suffix in [""] if name == "torso" else [f"-{side}" for side in SIDES]:
            look = (colour, pattern, tone, repeats)
            parts[name + suffix] = bone(place[start + suffix], place[end + suffix], radius * thick * unit, look)
    for name, radius, colour in (("head", 0.24, SKIN), ("hair", 0.235, HAIR)):
        size = (radius * unit)[:, None].expand(-1, 3)
        parts[name] = Part(SPHERE, place[name], facing, size, 0.0, colour, plain, 1.0, 1)
    return Body(tuple(parts[name] for name in FIGURE_PARTS), torch.stack([place[name] for name in JOINTS], 1))


def _joints(thing: SceneObject, angles: dict[str, Tensor]) -> dict[str, Tensor]:
    """Places (T, 3) of the joints, heels, toes and hair in the figure's axes and units of its size."""
    thick, broad, tall = thing.identity.proportions
    leg, width, ankle = LEG * tall, 0.2 * broad, ANKLE * thick
    zero = torch.zeros_like(angles["hip-left"])

    def at(x: float | Tensor, y: float | Tensor, z: float | Tensor) -> Tensor:
        return torch.stack([zero + value for value in (x, y, z)], -1)

    def along(angle: Tensor, length: float) -> Tensor:
        return length * at(0, angle.sin(), -angle.cos())  # 0 hangs down, positive swings forward

    thighs = {side: along(angles[f"hip-{side}"], leg) for side in SIDES}
    legs = {side: thighs[side] + along(angles[f"hip-{side}"] + angles[f"knee-{side}"], leg) for side in SIDES}
    # The lower foot stands on the floor; a jumper's height is measured with straight legs.
    depths = torch.minimum(legs["left"][:, 2], legs["right"][:, 2])
    pelvis = at(0, 0, ankle + 2 * leg if thing.motion.kind == "jump" else ankle - depths)
    neck, head = pelvis + at(0, 0, 0.85), pelvis + at(0, 0, 1.22)
    joints = {"pelvis": pelvis, "neck": neck, "head": head, "hair": head + at(0, -0.06, 0.05)}
    for side, sign in zip(SIDES, (-1.0, 1.0), strict=True):
        shoulder, hip = neck + at(sign * width * 1.6, 0, -0.08), pelvis + at(sign * width * 0.7, 0, 0)
        elbow = shoulder + along(angles[f"shoulder-{side}"], 0.42)
        hand = elbow + along(angles[f"shoulder-{side}"] + angles[f"elbow-{side}"], 0.4)
        if side == "right" and thing.motion.kind == "wave":  # raised sideways, the forearm turning about the elbow
            elbow = shoulder + 0.42 * at(0.8, 0, 0.6)
            hand = elbow + 0.4 * at(angles["wave"].sin(), 0, angles["wave"].cos())
        foot = hip + legs[side]
        joints |= {f"shoulder-{side}": shoulder, f"elbow-{side}": elbow, f"hand-{side}": hand}
        joints |= {f"hip-{side}": hip, f"knee-{side}": hip + thighs[side], f"foot-{side}": foot}
        joints |= {f"heel-{side}": foot + at(0, 0, -0.3 * ankle), f"toe-{side}": foot + at(0, 0.22, -0.3 * ankle)}
    return joints


def _angles(thing: SceneObject, pose: Pose, times: Tensor, forward: Tensor) -> dict[str, Tensor]:
    """Joint angles (T,) in radians; `forward` (T, 2) is the heading on the floor."""
    motion, zero = thing.motion, torch.zeros_like(times)
    angles = {f"{joint}-{side}": zero for joint in ("hip", "knee", "shoulder") for side in SIDES}
    angles |= {"elbow-left": zero + 0.25, "elbow-right": zero + 0.25}
    if motion.kind.startswith("walk"):
        # A cycle of two steps covers four times a leg's reach. For half of it a foot stays where it is on the floor: it
        # moves back under the body evenly. For the other half it swings forward, lifted by the bent knee.
        reach = math.sin(0.5)
        leg = 2 * LEG * thing.identity.proportions[2] * thing.identity.size * pose.scale
        travelled = (pose.position[:, :2] * forward).sum(-1)
        for side, shift in (("left", 0.0), ("right", 0.5)):
            phase = (travelled / (4 * leg * reach) + motion.phase + shift) % 1.0
            stands, swing = phase < 0.5, 2 * phase - 1
            ahead = reach * torch.where(stands, 1 - 4 * phase, -torch.cos(math.pi * swing))
            bent = torch.sin(math.pi * (swing / 0.75).clamp(0.0, 1.0))  # straight again before it lands
            angles[f"hip-{side}"], angles[f"knee-{side}"] = torch.asin(ahead), -0.9 * bent
            angles[f"shoulder-{side}"] = -0.8 * angles[f"hip-{side}"]
    elif motion.kind == "wave":
        angles["wave"] = 0.55 * torch.sin(2 * math.pi * (1.5 * motion.pace * times + motion.phase))
    elif motion.kind == "jump":
        air = (pose.position[:, 2] / (motion.amount * pose.scale)).clamp(0.0, 1.0)
        for side in SIDES:
            angles[f"shoulder-{side}"] = 0.2 + 2.2 * air
            angles[f"hip-{side}"], angles[f"knee-{side}"] = 0.6 * air, -1.2 * air
    return angles
