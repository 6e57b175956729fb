"""Scenes as data sets of classes: what one object does, for clips; what it is and its colour, for single frames."""

from longtake.data.scenes.captions import VERBS
from longtake.data.scenes.sampling import SceneOptions, able_motions
from longtake.data.scenes.world import Scene
from longtake.errors import BadInput


def class_names(options: SceneOptions) -> tuple[str, ...]:
    """Names of the classes of scenes of one object, such as "a ball rolls left": shapes times what each can do.

    Raises:
        BadInput: the options draw scenes of two objects.
    """
    return tuple(_name(shape, motion) for shape, motion in class_kinds(options))


def class_kinds(options: SceneOptions) -> tuple[tuple[str, str], ...]:
    """Shape and motion of each class, in the order of their numbers. Raises as `class_names`."""
    _of_one_object(options)
    return tuple((s, m) for s in options.shapes for m in able_motions(s) if m in options.motions)


def class_number(scene: Scene, options: SceneOptions) -> int:
    """Number of a scene's class among `class_names`."""
    (thing,) = scene.objects
    return class_kinds(options).index((thing.identity.shape, thing.motion.kind))


def frame_class_names(options: SceneOptions) -> tuple[str, ...]:
    """Names of the classes of single frames, such as "red ball": shapes times colours. Raises as `class_names`."""
    _of_one_object(options)
    return tuple(f"{colour} {shape}" for shape in options.shapes for colour in options.colours)


def _of_one_object(options: SceneOptions) -> None:
    if options.relations != ("alone",):
        raise BadInput(f"scenes with relations {', '.join(options.relations)} have no class; use relations: [alone]")


def _name(shape: str, motion: str) -> str:
    verbs = VERBS[motion]
    return f"a {shape} {verbs[-1] if verbs[-1].endswith(('left', 'right')) else verbs[0]}"
