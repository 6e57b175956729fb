"""What is compared: the prompts and seeds that all rows share, and the stacks of methods, one row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longtake.data.scenes import Scene, SceneOptions, sample_scene
from longtake.errors import BadInput, LongtakeError
from longtake.evaluation.prompts import read_prompts
from longtake.methods import as_stack
from longtake.methods.profiles import Profile
from longtake.runtime.method import Method
from longtake.runtime.stack import Terms

Given = str | Method | Profile | Sequence[Method | str]
"""A stack as it is asked for."""
DENSE = "dense"
"""Name of the row without methods."""
FIRST_SCENE = 500_000
"""Prompts that are asked for by number are captions of the held-out scenes of these seeds, upwards."""
MOST = 10_000
"""Prompts, and seeds of each."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of a comparison.

    Attributes:
        texts: in order. source: where they come from, in words.
        scenes: whose captions they are, one for each, where they were asked for by number; else none.
    """

    texts: tuple[str, ...]
    source: str
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True)
class Contender:
    """A row to be: its methods from the outermost to the innermost, none for dense, its name, and the profiles whose
    terms its runs must meet."""

    name: str
    methods: tuple[Method, ...] = ()
    terms: tuple[Terms, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A clip that every row makes: its number, the number of its prompt, the prompt, the seed."""

    number: int
    place: int
    prompt: str
    seed: int


def find_prompts(given: int | str | Path | Sequence[str]) -> Prompts:
    """Return prompts.

    Args:
        given: a number, for captions of that many held-out scenes; a file as `evaluation.prompts.read_prompts` takes it;
            or the prompts themselves.

    Raises:
        BadInput: a number out of range, or no prompts. BadData: a file that is missing, empty or of another form.
    """
    if isinstance(given, str) and given.lstrip("+-").isdigit():
        given = int(given)
    if isinstance(given, int):
        count = _in_range("prompts", given)
        scenes = tuple(sample_scene(FIRST_SCENE + i, SceneOptions(split="held-out")) for i in range(count))
        return Prompts(tuple(scene.caption for scene in scenes), f"captions of {count} held-out scenes", scenes)
    if isinstance(given, str | Path):
        return Prompts(tuple(one.text for one in read_prompts(given)), Path(given).name)
    if not given:
        raise BadInput("no prompts were given: give at least one, a number of scenes, or a file")
    return Prompts(tuple(given), "given")


def find_contenders(stacks: Sequence[Given]) -> tuple[Contender, ...]:
    """Return dense and one contender for each stack, in order.

    Args:
        stacks: each as on the command line, "taylorseer:interval=4+cfg-interval" or the file of a profile, or a method, a
            profile, or a list of methods.

    Raises:
        BadInput: no stack, or one twice. UnknownName, BadInput, BadRecipe, Conflict: as `methods.as_stack`.
    """
    if not stacks:
        raise BadInput("there is no stack to compare with dense: give at least one, for example taylorseer:interval=4")
    found = [Contender(DENSE)]
    for stack in stacks:
        given = [stack] if isinstance(stack, str | Method | Profile) else stack
        text = "+".join(map(str, given))
        try:
            made = as_stack(given)
        except LongtakeError as error:
            raise type(error)(f"stack '{text}': {error}") from None
        methods = tuple(made.methods)
        name = "+".join(map(str, methods))
        if not methods or name in [one.name for one in found]:
            raise BadInput(f"stack '{text}' {'is given twice' if methods else 'holds no method'}: leave one out")
        found.append(Contender(name, methods, made.terms))
    return tuple(found)


def clips_wanted(prompts: Prompts, seeds: int, first: int) -> tuple[Wanted, ...]:
    """Return the clips of every row: clip k is of prompt k modulo their number, and is drawn from seed `first` + k.

    Seeds go around the prompts, so that asking for more seeds later adds clips and changes none.

    Raises:
        BadInput: a number of seeds out of range.
    """
    count = len(prompts.texts)
    return tuple(
        Wanted(k, k % count, prompts.texts[k % count], first + k) for k in range(count * _in_range("seeds", seeds))
    )


def _in_range(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise BadInput(f"{name} is {value!r}: expected a whole number from 1 to {MOST}")
    return value
