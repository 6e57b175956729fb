"""Every error that is the user's to fix, each one line that names the value and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class LongtakeError(Exception):
    """Base of all errors that the command line prints as one line with exit code 2."""


class BadVideo(LongtakeError):
    """A file that cannot be read as video; the message names the file and the reason."""


class BadSound(LongtakeError):
    """A file that cannot be read as sound; the message names the file and the reason."""


class BadImage(LongtakeError):
    """A file that cannot be read as an image; the message names the file and the reason."""


class BadSize(LongtakeError):
    """A frame count, height or width that a network cannot take; the message names the nearest one that it can."""


class BadInput(LongtakeError):
    """A value outside its range: a prompt, a seed, a step count."""


class BadOutput(LongtakeError):
    """An output path that cannot be written: missing folder, full disk, no permission."""


class BadRecipe(LongtakeError):
    """A recipe or record with an unknown key or a value of the wrong kind."""


class BadData(LongtakeError):
    """A data folder or table with nothing to train on, or with another layout than the one asked for."""


class UnknownModel(LongtakeError):
    """A model name that is neither a starter, nor a folder, nor a hub id that can be reached."""


class UnknownName(LongtakeError):
    """A name that is not in a registry; the message names the nearest one that is."""


class Unsupported(LongtakeError):
    """A method on a network, scheduler or pipeline that it cannot work on; the message says why and what to do."""


class Conflict(LongtakeError):
    """Two methods that cannot be used together; the message names both."""


class InertMethod(LongtakeError):
    """A method that was switched on and did nothing in a whole run; the message names it and where it looked."""


class MissedTarget(LongtakeError):
    """A target of a calibration that no setting reaches, or that was missed on held-out prompts; says by how much."""


class TrainingDiverged(LongtakeError):
    """A loss that is not finite; the message names the step and the last good checkpoint."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or a list of all of them when none is close."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."
