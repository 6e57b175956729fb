"""Prompts to measure a model on, and what each asks for, so that a detector can check it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtake.data.scenes import world, write_captions
from longtake.data.scenes.captions import CAMERA_PHRASES, NOUNS, VERBS
from longtake.errors import BadData

FULL = 4
"""Captions of `write_captions` that leave nothing out come first."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the scene attributes that it asks for where they are known (`Scene.attributes`)."""

    text: str
    attributes: dict[str, Any] | None = None


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts, in order, repeats kept.

    Args:
        path: .txt with one prompt per line (empty lines left out); .jsonl or .json with strings or objects
            ``{"prompt": ..., "attributes": {...}}``. Attributes that are not given are read from the prompt, if it is a
            whole caption of a scene.

    Raises:
        BadData: no such file, no prompts in it, or another form.
    """
    path = Path(path)
    try:
        text = path.read_text()
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
        elif path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadData(f"prompts '{path}' cannot be read: {why}; give a .txt, .jsonl or .json file.") from None
    except json.JSONDecodeError as error:
        raise BadData(f"prompts '{path}' are not JSON: {error}.") from None
    prompts = [_prompt(row, path) for row in rows] if isinstance(rows, list) else []
    if not prompts:
        raise BadData(f"prompts '{path}' hold none: give one per line, or a list of {{'prompt': ...}}.")
    return prompts


def _prompt(row: Any, path: Path) -> Prompt:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        raise BadData(f"prompts '{path}': {json.dumps(row)[:80]} is not a prompt; expected {{'prompt': 'words'}}.")
    attributes = row.get("attributes")
    return Prompt(row["prompt"], attributes if is_whole(attributes) else asked(row["prompt"]))


def is_whole(attributes: Any) -> bool:
    """Whether these are attributes of a scene: objects with colour, shape and motion, a background and a camera."""
    if not isinstance(attributes, dict) or not {"objects", "background", "camera"} <= attributes.keys():
        return False
    things = attributes["objects"]
    return (
        isinstance(things, list)
        and bool(things)
        and all(isinstance(thing, dict) and {"colour", "shape", "motion"} <= thing.keys() for thing in things)
    )


def asked(caption: str) -> dict[str, Any] | None:
    """Return the attributes that a caption of a scene names: `write_captions` turned around.

    None for any other text, and for a caption that leaves something open: a direction, or the background.
    """
    text = " ".join(caption.lower().split())
    names = {noun: shape for shape, nouns in NOUNS.items() for noun in nouns}
    things = list(
        re.finditer(
            rf"\ban? ({'|'.join(world.COLOURS)}) (?:({'|'.join(world.TEXTURES)}) )?({'|'.join(names)})\b",
            text,
        )
    )
    if not 1 <= len(things) <= 2:
        return None
    background, colour = _background(text)
    ends = [thing.start() for thing in things[1:]] + [len(text)]
    said = [text[thing.end() : end] for thing, end in zip(things, ends, strict=True)]
    relation = "alone" if len(things) == 1 else "beside"
    if len(things) == 2 and re.search(r" (behind|into) $", said[0]):
        relation = "behind" if said[0].endswith("behind ") else "collide"
    motions = [_motion(words) for words in said]
    if relation in ("behind", "collide"):
        motions[1] = "still" if relation == "behind" else "pushed"
    attributes = {
        "objects": [
            {"shape": names[thing[3]], "colour": thing[1], "texture": thing[2] or "plain", "motion": motion}
            for thing, motion in zip(things, motions, strict=True)
        ],
        "relation": relation,
        "background": background,
        "background_colour": colour,
        "camera": next((kind for kind, words in CAMERA_PHRASES.items() if any(one in text for one in words)), "static"),
    }
    if background is None or None in motions:
        return None
    return attributes if text in write_captions(attributes)[:FULL] else None


def _motion(words: str) -> str | None:
    """The motion whose phrase is the longest among those that the words begin with."""
    words = re.sub(r"^( that)? ", "", words)
    words = re.sub(r" (left|right) (behind|into) $", r" \1", words)
    found = [(len(phrase), motion) for motion, phrases in VERBS.items() for phrase in phrases if _begins(words, phrase)]
    return max(found)[1] if found else _glide(words)


def _begins(words: str, phrase: str) -> bool:
    return re.match(rf"{re.escape(phrase)}\b", words) is not None


def _glide(words: str) -> str | None:
    """ "slides left behind" of "slides to the left": the preposition swallows two words."""
    found = re.match(r"(slides|glides|rolls|walks) (left|right)\b", words)
    if found is None:
        return None
    stem = {"slides": "slide", "glides": "slide", "rolls": "roll", "walks": "walk"}[found[1]]
    return f"{stem}-{found[2]}"


def _background(text: str) -> tuple[str | None, str | None]:
    """Kind and colour of the background, None where the text names none."""
    if "on a checkered floor" in text or "on a checkerboard floor" in text:
        return "checker", None
    if "under a cloudy sky" in text or "under a blue sky" in text:
        return "sky", None
    found = re.search(rf"({'|'.join(world.BACKDROPS)}) (gradient|background)", text)
    if found is None:
        return None, None
    return ("gradient" if found[2] == "gradient" else "plain"), found[1]
