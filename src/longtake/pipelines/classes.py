"""Prompts of a model that knows classes instead of words."""

from collections.abc import Sequence

from longtake.errors import BadInput, UnknownName, nearest


def class_label(prompt: str, classes: Sequence[str], *, name: str = "prompt") -> int:
    """Number of the class that a prompt names; the empty prompt is the null class, `len(classes)`.

    Capitals do not matter.

    Raises:
        BadInput: not a string. UnknownName: no such class; names the nearest.
    """
    if not isinstance(prompt, str):
        raise BadInput(f"{name} is a {type(prompt).__name__}: expected the name of a class")
    words = prompt.strip().lower()
    known = {one.lower(): number for number, one in enumerate(classes)}
    if not words:
        return len(classes)
    if not classes:
        raise BadInput(f"{name} is '{prompt[:40]}', and this model is unconditional: leave the prompt empty")
    if words not in known:
        raise UnknownName(
            f"this model of {len(classes)} classes has none called '{prompt[:40]}'.{nearest(words, known)}"
        )
    return known[words]
