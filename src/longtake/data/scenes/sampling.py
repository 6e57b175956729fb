"""Draw scenes from a seed: four independent streams choose identity, garment, motion and world.

The same seed and options give the same scene on every machine: all draws come from `random.Random` seeded with a string.
A fixed tenth of all attribute combinations (by hash) is held out, so prompts exist that no training scene has used.
"""

import hashlib
import math
import random
from dataclasses import dataclass, replace

from longtake.data.scenes import world
from longtake.data.scenes.captions import canonical
from longtake.data.scenes.world import Background, Camera, Garment, Identity, Motion, Scene, SceneObject
from longtake.errors import BadInput, nearest

BESIDE_MOTIONS = ("still", "bounce", "fall", "spin", "grow", "shrink", "wave", "jump")
"""What an object can do without leaving its half of the picture."""
ANCHORED_MOTIONS = ("still", "bounce", "spin")
"""What an object may do under a moving camera, where other movements could be mistaken for the camera's."""


@dataclass(frozen=True)
class SceneOptions:
    """Which worlds are drawn. The defaults are the vocabulary of the starter; every field takes names of `world`."""

    shapes: tuple[str, ...] = ("ball", "cube", "cylinder", "cone")
    colours: tuple[str, ...] = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
    textures: tuple[str, ...] = ("house",)
    """Textures to draw from; `house` means banded on round solids, plain on cubes and figures."""
    motions: tuple[str, ...] = world.SOLID_MOTIONS
    backgrounds: tuple[str, ...] = world.BACKGROUNDS
    cameras: tuple[str, ...] = world.CAMERAS
    relations: tuple[str, ...] = world.RELATIONS
    pair_share: float = 0.5
    """Share of scenes with two objects, when `relations` allow both."""
    moving_camera_share: float = 0.12
    split: str = "train"
    """`train`, `held-out` (combinations that `train` never shows) or `all`."""

    def __post_init__(self) -> None:
        known = {
            "shapes": world.SHAPES,
            "colours": tuple(world.COLOURS),
            "textures": ("house", *world.TEXTURES),
            "motions": world.MOTIONS,
            "backgrounds": world.BACKGROUNDS,
            "cameras": world.CAMERAS,
            "relations": world.RELATIONS,
        }
        for field, names in known.items():
            chosen = getattr(self, field)
            if not chosen:
                raise BadInput(f"scene option {field} is empty; name at least one of {', '.join(names)}.")
            for name in chosen:
                if name not in names:
                    raise BadInput(f"scene option {field} has no '{name}'.{nearest(name, names)}")
        if self.split not in ("train", "held-out", "all"):
            raise BadInput(f"scene split '{self.split}' is none of train, held-out, all.")

    @staticmethod
    def everything(split: str = "train") -> "SceneOptions":
        """All that the renderer knows: every shape (figures too), colour, texture and motion."""
        return SceneOptions(
            shapes=world.SHAPES,
            colours=tuple(world.COLOURS),
            textures=("house", *world.TEXTURES),
            motions=world.MOTIONS,
            moving_camera_share=0.25,
            split=split,
        )


STARTER = SceneOptions()
"""The vocabulary of the starter: all defaults."""


def sample_scene(
    seed: int,
    options: SceneOptions = STARTER,
    *,
    identity_seed: int | None = None,
    garment_seed: int | None = None,
    motion_seed: int | None = None,
) -> Scene:
    """Draw one scene.

    `seed` fixes everything; each of the other seeds replaces it for one aspect only, so two scenes that share
    `motion_seed` (and `seed`) show the same movement on bodies of other identity or garment. With such a separate
    seed the held-out split is not enforced, since the caller chose the combination.
    """
    separate = any(other is not None for other in (identity_seed, garment_seed, motion_seed))
    for attempt in range(1000):
        streams = {
            name: random.Random(f"{name}/{seed if own is None else own}/{attempt}")
            for name, own in (
                ("world", None),
                ("identity", identity_seed),
                ("garment", garment_seed),
                ("motion", motion_seed),
            )
        }
        scene = _draw(seed, options, streams)
        if separate or options.split == "all" or is_held_out(scene) == (options.split == "held-out"):
            return scene
    raise BadInput(f"no {options.split} scene exists under these scene options; allow more shapes, colours or motions.")


def is_held_out(scene: Scene) -> bool:
    """Tell whether the scene's attribute combination belongs to the tenth that training never shows."""
    return hashlib.sha256(canonical(scene.attributes).encode()).digest()[0] < 26


def _draw(seed: int, options: SceneOptions, streams: dict[str, random.Random]) -> Scene:
    rng = streams["world"]
    relation = _relation(options, rng)
    count = 1 if relation == "alone" else 2
    background = Background(rng.choice(options.backgrounds), rng.choice(tuple(world.BACKDROPS)), rng.randrange(1 << 30))
    moving = [kind for kind in options.cameras if kind != "static"]
    static = "static" in options.cameras
    # A camera can only be seen to move against a floor with a pattern.
    drift = bool(moving) and (
        not static or (background.kind == "checker" and rng.random() < 4 * options.moving_camera_share)
    )
    camera = Camera(
        kind=rng.choice(moving) if drift and relation != "collide" else "static",
        distance=6.6 + rng.uniform(-0.3, 0.3),
        height=2.2 + rng.uniform(-0.25, 0.35),
        azimuth=rng.uniform(-0.06, 0.06),
        target=(0.0, 0.0, 1.0),
        amount=rng.uniform(0.85, 1.15),
    )
    light = (rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.4), rng.uniform(0.8, 1.1))

    identities = [_identity(options, streams["identity"], count) for _ in range(count)]
    garments: list[Garment] = []
    for identity in identities:
        garments.append(_garment(options, streams["garment"], identity.shape, [g.colour for g in garments]))
    motions = _motions(options, streams["motion"], relation, identities, anchored=camera.kind != "static")
    things = tuple(SceneObject(*parts) for parts in zip(identities, garments, motions, strict=True))
    return Scene(things, relation, background, camera, light, seed)


def _relation(options: SceneOptions, rng: random.Random) -> str:
    pairs = [name for name in options.relations if name != "alone"]
    lone = "alone" in options.relations
    if not lone or (pairs and rng.random() < options.pair_share):
        return rng.choice(pairs)
    return "alone"


def _identity(options: SceneOptions, rng: random.Random, count: int) -> Identity:
    shape = rng.choice(options.shapes)
    size = rng.uniform(0.66, 0.84) if count == 1 else rng.uniform(0.56, 0.68)
    base = {
        "ball": (1.0, 1.0, 1.0),
        "cube": (0.85, 0.85, 0.85),
        "cylinder": (0.78, 0.78, 1.0),
        "cone": (0.98, 0.98, 1.12),
        "capsule": (0.52, 0.52, 0.62),
        "figure": (1.0, 1.0, 1.0),
    }[shape]
    if shape == "figure":  # limb thickness, shoulder width, leg length
        base = (rng.uniform(0.8, 1.25), rng.uniform(0.85, 1.2), rng.uniform(0.88, 1.12))
    else:
        width, tall = rng.uniform(0.95, 1.05), rng.uniform(0.95, 1.05)
        if shape != "ball":
            base = (base[0] * width, base[1] * width, base[2] * tall)
    return Identity(shape, size, base)


def _garment(options: SceneOptions, rng: random.Random, shape: str, taken: list[str]) -> Garment:
    free = [name for name in options.colours if name not in taken] or list(options.colours)
    texture = rng.choice(options.textures)
    if texture == "house":
        texture = "plain" if shape in ("cube", "figure") else "banded"
    return Garment(
        colour=rng.choice(free),
        texture=texture,
        tone=rng.uniform(0.5, 0.62),
        repeats=2,
        second_colour=rng.choice(options.colours) if shape == "figure" else None,
    )


def _motions(
    options: SceneOptions, rng: random.Random, relation: str, identities: list[Identity], anchored: bool
) -> list[Motion]:
    if relation == "alone":
        return [_motion(_choose(options, rng, identities[0], anchored=anchored), rng, identities[0])]
    if relation == "beside":
        left = rng.random() < 0.5
        places = [(-1.2, 0.0), (1.2, 0.0)] if left else [(1.2, 0.0), (-1.2, 0.0)]
        kinds = [_choose(options, rng, identity, anchored=anchored, allowed=BESIDE_MOTIONS) for identity in identities]
        return [
            replace(_motion(kind, rng, identity), place=(place[0], rng.uniform(-0.2, 0.2)))
            for kind, identity, place in zip(kinds, identities, places, strict=True)
        ]
    side = rng.choice(("left", "right"))
    stem = "walk" if identities[0].shape == "figure" else "slide"
    if identities[0].shape in world.ROLLING_SHAPES and rng.random() < 0.6:
        stem = "roll"
    first = _motion(f"{stem}-{side}", rng, identities[0])
    if relation == "behind":
        slant = math.copysign(0.3, first.slant) if identities[0].shape in ("cylinder", "capsule") else 0.0
        first = replace(first, place=(0.0, 1.5), slant=slant, amount=rng.uniform(3.9, 4.4))
        second = replace(_motion("still", rng, identities[1]), place=(rng.uniform(-0.25, 0.25), -0.3))
    else:
        first = replace(first, place=(0.0, 0.0), slant=0.0, amount=rng.uniform(3.4, 3.9))
        second = replace(_motion("pushed", rng, identities[1]), place=(rng.uniform(-0.1, 0.1), 0.0))
    return [first, second]


def _choose(
    options: SceneOptions,
    rng: random.Random,
    identity: Identity,
    *,
    anchored: bool,
    allowed: tuple[str, ...] = world.MOTIONS,
) -> str:
    able = able_motions(identity.shape)
    if anchored:
        able = tuple(kind for kind in able if kind in ANCHORED_MOTIONS)
    kinds = [kind for kind in options.motions if kind in able and kind in allowed]
    if identity.shape == "figure" and not kinds:
        kinds = [kind for kind in able if kind in allowed]
    return rng.choice(kinds) if kinds else "still"


def able_motions(shape: str) -> tuple[str, ...]:
    """The motions that a shape can do by itself."""
    able = world.FIGURE_MOTIONS if shape == "figure" else world.SOLID_MOTIONS
    return able if shape in world.ROLLING_SHAPES else tuple(kind for kind in able if not kind.startswith("roll"))


def _motion(kind: str, rng: random.Random, identity: Identity) -> Motion:
    stem = kind.partition("-")[0]
    amount = {
        "slide": rng.uniform(2.6, 3.3),
        "roll": rng.uniform(2.8, 3.5),
        "walk": rng.uniform(2.2, 2.8),
        "bounce": rng.uniform(1.0, 1.5),
        "jump": rng.uniform(0.6, 0.9),
        "fall": rng.uniform(2.4, 2.9),
        "orbit": rng.uniform(0.95, 1.2),
        "spin": rng.uniform(0.9, 1.3) * rng.choice((-1, 1)),
        "grow": rng.uniform(2.2, 2.6),
        "shrink": 1 / rng.uniform(2.2, 2.6),
    }.get(stem, 1.0)
    slant = rng.uniform(-0.25, 0.25) if stem in ("slide", "roll") else 0.0
    if stem == "roll" and identity.shape in ("cylinder", "capsule"):
        slant = rng.choice((-1, 1)) * rng.uniform(0.3, 0.55)  # seen end on, a lying cylinder would look like a ball
    place = (rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.5))
    if stem in ("slide", "roll", "walk", "orbit"):
        place = (rng.uniform(-0.15, 0.15), rng.uniform(-0.2, 0.4))
    return Motion(
        kind=kind,
        place=place,
        yaw=rng.uniform(0, 2 * math.pi) if identity.shape != "figure" else rng.uniform(-0.3, 0.3),
        amount=amount,
        pace=rng.uniform(0.9, 1.1),
        slant=slant,
        phase=rng.uniform(0, 1),
    )
