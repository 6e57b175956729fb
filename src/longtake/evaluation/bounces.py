"""When the thing in a clip bounces, read off its pixels: where it is in each frame, and where it turns from down to up.

For scenes of one coloured object before a muted background (`longtake.data.scenes.world.BACKDROPS`) and a camera that
stands still: the object is what is colourful. Its own error is measured on true renders, whose contacts are known
(`longtake.data.scenes.sound_events`), and belongs beside every number that is read by it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

COLOURFUL = 0.7
"""Difference of a pixel's largest and smallest channel, in [0, 2], above which it is the object's; backdrops reach 0.44."""
RISE = 1 / 32
"""How far, as a share of the picture's height, a thing comes down before a bounce and goes up behind it."""
NEAR = 3
"""Frames before and behind in which it does."""


def heights(clips: Tensor) -> Tensor:
    """Height of the colourful thing's centre in each frame: clips (B, 3, T, H, W) in [-1, 1] -> (B, T), from 0 at the
    bottom to 1 at the top, not a number where nothing is colourful."""
    colour = (clips.amax(1) - clips.amin(1) - COLOURFUL).clamp_min(0).double()  # (B, T, H, W)
    rows = colour.shape[2]
    level = 1 - (torch.arange(rows, dtype=torch.float64, device=clips.device) + 0.5) / rows
    return ((colour.sum(3) * level).sum(2) / colour.sum((2, 3))).float()


def bounces(height: Tensor) -> list[int]:
    """Frames in which a height (T,) is at its lowest between a fall and a rise of `RISE` or more within `NEAR` frames."""
    values, found = height.tolist(), []
    for frame in range(1, len(values) - 1):
        low = values[frame]
        before, behind = values[max(0, frame - NEAR) : frame], values[frame + 1 : frame + 1 + NEAR]
        lowest = all(low <= one for one in before[-2:]) and all(low < one for one in behind[:2])
        if lowest and max(before) - low >= RISE and max(behind) - low >= RISE:
            found.append(frame)
    return found


def heard_and_seen(
    contacts: Sequence[Sequence[float]], seen: Sequence[Sequence[int]], *, within: float = 2.0
) -> tuple[int, int]:
    """How many contacts (in frames) have a bounce of the same clip at most `within` frames away, and how many there are."""
    near = [
        any(abs(contact - frame) <= within for frame in frames)
        for times, frames in zip(contacts, seen, strict=True)
        for contact in times
    ]
    return sum(near), len(near)
