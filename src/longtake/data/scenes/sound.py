"""What a scene sounds like: clicks where bodies hit something, a hum where they roll, a faint noise where they slide.

All of it follows from the motion as it is rendered (`motion.animate`), looked at every millisecond:

    contact    the velocity of a body's centre jumps: it bounces, lands, runs into another or is run into. At that very
               instant a struck body rings (four partials, lower for larger bodies, faded to 1/e in 12 ms) with a burst
               of noise (3 ms), as loud as the jump is large
    rolling    a hum of 180 Hz + 120 Hz for each unit of length per second, as loud as it is fast
    sliding    noise, as loud as it is fast; figures that walk slide too
    else       nothing: at rest, in the air, and for what only turns, waves, grows or shrinks

The camera changes nothing. Bodies add up. Noise is drawn from the scene's seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.data.order import mix_seed
from longtake.data.scenes.motion import Pose, animate, lies_down, rest_height
from longtake.data.scenes.world import FPS, Scene, SceneObject
from longtake.errors import BadInput
from longtake.video import Sound
from longtake.video.sound import RATE

LOOKS = 1000
"""Looks at the motion per second."""
JUMP = 0.5
"""Units of length per second by which a velocity must jump within two looks; gravity alone changes it by 0.03."""
MOVING = 0.02
"""Units of length per second below which a body is at rest."""
BREAK = 0.02
"""Seconds of rest that do not end a movement, such as the top of a bounce."""
TOUCHING = 1e-3
"""Height above rest, in units of length, up to which a body is on the floor."""
LOUDEST = 12.0
"""Jump of the velocity that is as loud as it gets."""
PARTIALS = ((1.0, 1.0), (1.63, 0.7), (2.71, 0.5), (4.18, 0.35))
"""Frequency and amplitude of each partial, as shares of the first one's."""
RING, FADE, CRACK = 700.0, 0.012, 0.003
"""Frequency (Hz) of the first partial for a body of size 1, and seconds to 1/e of ring and noise."""


@dataclass(frozen=True)
class Contact:
    """A body hits something.

    `frame` is the time in frames, with fractions (frame f is rendered at f); `thing` the object's number in the scene,
    from 0; `jump` the change of its velocity in units of length per second.
    """

    frame: float
    thing: int
    jump: float


@dataclass(frozen=True)
class SoundEvents:
    """What there is to hear in a clip: `contacts` in order of time, and `moves`, the first and last moment, in frames, of
    each stretch in which anything moves from one place to another."""

    contacts: tuple[Contact, ...]
    moves: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Track:
    """One body at the looks (L,), the first of them two before time 0: its `speed` (L,) along the floor, 0 in the air;
    whether it is `moving` (L,); and its `contacts` as (seconds, jump)."""

    speed: Tensor
    moving: Tensor
    contacts: tuple[tuple[float, float], ...]


def sound_events(scene: Scene, frames: int = 17, *, fps: float = FPS) -> SoundEvents:
    """The events of a clip of `frames` frames at `fps`.

    Raises:
        BadInput: no frames, or an fps that is not above zero.
    """
    seconds = _seconds(frames, fps)
    tracks = _tracks(scene, seconds)
    contacts = [Contact(time * fps, thing, jump) for thing, track in enumerate(tracks) for time, jump in track.contacts]
    moving = torch.stack([track.moving for track in tracks]).any(0)[_FRONT:]
    return SoundEvents(tuple(sorted(contacts, key=lambda one: one.frame)), _stretches(moving, seconds, fps))


def scene_sound(scene: Scene, frames: int = 17, *, fps: float = FPS) -> Sound:
    """The sound of a clip of `frames` frames at `fps`, at 16 kHz and as long as the clip.

    Raises:
        BadInput: no frames, or an fps that is not above zero.
    """
    seconds = _seconds(frames, fps)
    generator = torch.Generator().manual_seed(mix_seed(scene.seed, 7))
    times = torch.arange(max(1, round(seconds * RATE)), dtype=torch.float64) / RATE
    total = torch.zeros(len(times))
    for thing, track in zip(scene.objects, _tracks(scene, seconds), strict=True):
        noise = torch.randn(len(times), generator=generator)
        speed = _between_looks(track.speed, times)
        if _rolls(thing):
            total += _hum(speed)
        else:
            total += 0.01 * speed.clamp_max(4.0) * noise
        for time, jump in track.contacts:
            total += _strike(times - time, thing.identity.size, min(jump / LOUDEST, 1.0), noise)
    return Sound(total.clamp_(-1.0, 1.0))


# ------------------------------------------------------------------------------------------------------- what is looked at

_FRONT = 2  # looks before time 0, so that a contact at once is seen


def _seconds(frames: int, fps: float) -> float:
    if frames < 1 or not 0 < fps < math.inf:
        raise BadInput(f"the sound of {frames} frames at {fps} frames per second; both must be above zero")
    return frames / fps


def _tracks(scene: Scene, seconds: float) -> list[_Track]:
    looks = torch.arange(-_FRONT, math.ceil(seconds * LOOKS) + 3, dtype=torch.float64) / LOOKS
    poses = animate(scene, looks.float())
    return [_track(thing, pose, seconds) for thing, pose in zip(scene.objects, poses, strict=True)]


def _track(thing: SceneObject, pose: Pose, seconds: float) -> _Track:
    place = pose.position.double()
    place[:, 2] -= rest_height(thing.identity, lying=lies_down(thing)) * pose.scale.double()
    velocity = place.diff(dim=0) * LOOKS  # (L - 1, 3), between looks, z of the height above where it rests
    fast = torch.cat([velocity, velocity[-1:]])
    on_floor = place[:, 2].abs() < TOUCHING
    contacts = _contacts(place, velocity, seconds)
    return _Track(fast[:, :2].norm(dim=1) * on_floor, fast.norm(dim=1) > MOVING, contacts)


def _contacts(place: Tensor, velocity: Tensor, seconds: float) -> tuple[tuple[float, float], ...]:
    """(seconds, jump) of each contact in [0, seconds).

    A jump inside one step between looks shows as a step of mean velocity: the paths before and after it, drawn on from
    the steps in front and behind, meet at the instant.
    """
    jumps = (velocity[2:] - velocity[:-2]).norm(dim=1)  # around step i + 1, which goes from look i + 1 to i + 2
    found, last = [], -math.inf
    for i in (jumps > JUMP).nonzero().flatten().tolist():
        before, after = velocity[i], velocity[i + 2]
        step = after - before
        # place[i+1] + before t = place[i+2] + after (t - 1/LOOKS), along the direction of the jump
        gap = place[i + 1] - place[i + 2] + after / LOOKS
        inside = float((gap @ step) / (step @ step))  # seconds behind look i + 1
        if not -1e-9 <= inside * LOOKS < 1:  # the jump is in a neighbouring step
            continue
        time = (i + 1 - _FRONT) / LOOKS + inside
        if 0 <= time < seconds and time - last > 2 / LOOKS:
            found.append((time, float(step.norm())))
            last = time
    return tuple(found)


def _stretches(moving: Tensor, seconds: float, fps: float) -> tuple[tuple[float, float], ...]:
    """First and last moments, in frames, of the stretches in which (L,) is true."""
    stretches: list[tuple[float, float]] = []
    edges = F.pad(moving.int(), (1, 1)).diff().nonzero().flatten().tolist()
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        begin, end = first / LOOKS, min(last / LOOKS, seconds)
        if begin >= seconds:
            continue
        if stretches and begin - stretches[-1][1] / fps < BREAK:
            begin = stretches.pop()[0] / fps
        stretches.append((begin * fps, end * fps))
    return tuple(stretches)


def _rolls(thing: SceneObject) -> bool:
    kind = thing.motion.kind
    return kind.startswith("roll") or (kind == "pushed" and thing.identity.shape == "ball")


# ---------------------------------------------------------------------------------------------------- what it sounds like


def _between_looks(values: Tensor, times: Tensor) -> Tensor:
    """Values at looks (L,) -> float32 at times (N,), on straight lines."""
    where = times * LOOKS + _FRONT
    before = where.floor().long().clamp_max(len(values) - 2)
    return torch.lerp(values[before], values[before + 1], where - before).float()


def _hum(speed: Tensor) -> Tensor:
    """A tone with two overtones of the pitch and loudness that belong to a speed (N,)."""
    phase = (2 * math.pi / RATE * (180.0 + 120.0 * speed.double())).cumsum(0)
    tone = phase.sin() + 0.6 * (2 * phase).sin() + 0.3 * (3 * phase).sin()
    return (0.12 * speed.clamp_max(4.0)) * tone.float() / 1.9


def _strike(since: Tensor, size: float, strength: float, noise: Tensor) -> Tensor:
    """A struck body, at seconds since it was (N,): silence before."""
    sounding = (since >= 0) & (since < 12 * FADE)
    after = since[sounding]
    ring = _partials(after, RING / size, PARTIALS) * (-after / FADE).exp()
    crack = noise[sounding] * (-after / CRACK).exp()
    out = torch.zeros(len(since))
    out[sounding] = strength * (0.6 * ring + 0.2 * crack).float()
    return out


def _partials(times: Tensor, first: float, partials: Sequence[tuple[float, float]]) -> Tensor:
    """Cosines that begin together, (N,), at most 1."""
    total = sum(amplitude for _, amplitude in partials)
    waves = [amplitude / total * (2 * math.pi * first * ratio * times).cos() for ratio, amplitude in partials]
    return torch.stack(waves).sum(0)
