"""What a scene is: named attributes and the numbers behind them, all of it plain data that JSON can hold.

World axes are x to the right, y away from the viewer and z up; the floor is the plane z = 0 and one unit is about one
object. Identity (shape and proportions), garment (colour and texture) and motion are separate records with separate
seeds, so a motion can be rendered on another body and a body can be given another motion.
"""

from dataclasses import asdict, dataclass, fields, replace

FPS = 8.0
"""Frames per second of every scene unless asked otherwise."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (0.98, 0.90, 0.12),
    "green": (0.12, 0.68, 0.18),
    "cyan": (0.15, 0.85, 0.90),
    "blue": (0.12, 0.25, 0.92),
    "purple": (0.60, 0.18, 0.78),
    "pink": (1.00, 0.58, 0.75),
    "white": (0.97, 0.97, 0.97),
    "black": (0.08, 0.08, 0.09),
}
"""Object colours as linear display values in [0, 1]."""

BACKDROPS: dict[str, tuple[float, float, float]] = {
    "grey": (0.50, 0.50, 0.52),
    "beige": (0.76, 0.69, 0.56),
    "teal": (0.20, 0.42, 0.42),
    "maroon": (0.40, 0.20, 0.22),
    "navy": (0.16, 0.19, 0.36),
    "olive": (0.42, 0.44, 0.24),
}
"""Muted colours for plain and gradient backgrounds, none of them an object colour."""

SOLIDS = ("ball", "cube", "cylinder", "cone", "capsule")
"""Shapes made of one primitive."""
SHAPES = (*SOLIDS, "figure")
"""All shapes; a figure is an articulated body of a head, a torso and four limbs of two segments each."""
TEXTURES = ("plain", "banded", "striped", "checkered", "spotted")
BACKGROUNDS = ("plain", "gradient", "checker", "sky")
CAMERAS = (
    "static",
    "pan-left",
    "pan-right",
    "tilt-up",
    "tilt-down",
    "dolly-in",
    "dolly-out",
    "orbit-left",
    "orbit-right",
)
SOLID_MOTIONS = (
    "still",
    "slide-left",
    "slide-right",
    "roll-left",
    "roll-right",
    "bounce",
    "fall",
    "orbit",
    "spin",
    "grow",
    "shrink",
)
FIGURE_MOTIONS = ("still", "walk-left", "walk-right", "wave", "jump", "spin")
MOTIONS = (*SOLID_MOTIONS, "pushed", "walk-left", "walk-right", "wave", "jump")
"""All motion classes; `pushed` is what the second object of a collision does."""
ROLLING_SHAPES = ("ball", "cylinder", "capsule")
RELATIONS = ("alone", "beside", "behind", "collide")
"""How the objects of a scene relate: one alone, two side by side, the first passing behind or running into the second."""


@dataclass(frozen=True)
class Identity:
    """The body: `shape` is one of SHAPES; `size` its half extent in world units; `proportions` scale it along x, y, z."""

    shape: str
    size: float
    proportions: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Garment:
    """The look: names of a colour and a texture, their second tone in [0, 1], and how often the texture repeats."""

    colour: str
    texture: str = "plain"
    tone: float = 0.5
    repeats: int = 2
    second_colour: str | None = None
    """Colour of a figure's legs; None takes the darker tone of the first colour."""


@dataclass(frozen=True)
class Motion:
    """The movement: a class of MOTIONS and the numbers that realise it (units of world length, seconds, radians)."""

    kind: str
    place: tuple[float, float] = (0.0, 0.0)
    """Where on the floor the path is centred, (x, y)."""
    yaw: float = 0.0
    """Heading of the body about the vertical at the start."""
    amount: float = 1.0
    """Length of a slide, height of a bounce, radius of an orbit, turns of a spin, or last scale over first."""
    pace: float = 1.0
    """1 completes the movement over the reference clip of two seconds."""
    slant: float = 0.0
    """Angle between a slide or roll and the x axis, towards the viewer when negative."""
    phase: float = 0.0


@dataclass(frozen=True)
class SceneObject:
    """One object: who it is, what it wears and what it does."""

    identity: Identity
    garment: Garment
    motion: Motion


@dataclass(frozen=True)
class Background:
    """Floor and sky: a kind of BACKGROUNDS, the named colour of plain and gradient ones, and a seed of its pattern."""

    kind: str
    colour: str = "grey"
    seed: int = 0


@dataclass(frozen=True)
class Camera:
    """A camera path: one of CAMERAS; `height` and `distance` in world units, `field` the vertical field of view (rad)."""

    kind: str = "static"
    distance: float = 6.6
    height: float = 2.2
    azimuth: float = 0.0
    target: tuple[float, float, float] = (0.0, 0.0, 1.0)
    field: float = 0.66
    amount: float = 1.0


@dataclass(frozen=True)
class Scene:
    """A whole procedural world; everything that is rendered or captioned follows from it."""

    objects: tuple[SceneObject, ...]
    relation: str
    background: Background
    camera: Camera
    light: tuple[float, float, float] = (-0.5, -0.55, 0.8)
    """Direction towards the light, any length."""
    seed: int = 0

    @property
    def attributes(self) -> dict:
        """What a caption or a detector may name, as a dict of strings."""
        return {
            "objects": [
                {
                    "shape": thing.identity.shape,
                    "colour": thing.garment.colour,
                    "texture": thing.garment.texture,
                    "motion": thing.motion.kind,
                }
                for thing in self.objects
            ],
            "relation": self.relation,
            "background": self.background.kind,
            "background_colour": self.background.colour if self.background.kind in ("plain", "gradient") else None,
            "camera": self.camera.kind,
        }

    @property
    def caption(self) -> str:
        """The plain caption, complete: every attribute that the scene shows is named."""
        return self.captions[0]

    @property
    def captions(self) -> tuple[str, ...]:
        """The plain caption first, then paraphrases; some leave out the background."""
        from longtake.data.scenes.captions import write_captions

        return write_captions(self.attributes)

    def to_json(self) -> dict:
        """Return the scene as plain JSON data; `Scene.from_json` makes the same scene again."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict) -> "Scene":
        """Rebuild a scene from `to_json` data."""
        things = tuple(
            SceneObject(
                Identity(**_tuples(thing["identity"])),
                Garment(**_tuples(thing["garment"])),
                Motion(**_tuples(thing["motion"])),
            )
            for thing in data["objects"]
        )
        rest = {f.name: data[f.name] for f in fields(Scene) if f.name not in ("objects", "background", "camera")}
        return Scene(
            objects=things,
            background=Background(**_tuples(data["background"])),
            camera=Camera(**_tuples(data["camera"])),
            **_tuples(rest),
        )

    def with_motion_of(self, other: "Scene") -> "Scene":
        """Return this scene's bodies and garments doing what `other`'s objects do, under `other`'s camera."""
        pairs = zip(self.objects, other.objects, strict=True)
        moved = tuple(replace(mine, motion=theirs.motion) for mine, theirs in pairs)
        return replace(self, objects=moved, relation=other.relation, camera=other.camera)


def _tuples(data: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
