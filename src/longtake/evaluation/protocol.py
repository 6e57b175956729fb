"""Protocols: every switch that moves a Frechet distance, as one record with an id that goes with each number.

Published values of one model differ by two to five times between users because these switches are not written down:
which videos, how many, which frames of them, how they were resized, compressed and rounded, which network saw them.

==================== ===============================================================================================
ours                 17 frames from the beginning of each of the first 2,048 videos, as they are, on both sides
latte-ucf101         Latte's tools: real clips at stride 3 from videos of at least 48 frames drawn at random, generated
                     ones at stride 1 through mp4; both cropped, resized by Lanczos to 256 and saved as JPEG 75
stylegan-v           fvd2048_16f: first 2,048 videos, one clip of 16 frames at a random offset; generated frames 0 .. 15
stylegan-v-128f      fvd2048_128f: the same with 128 frames in a row
stylegan-v-128f-subsample8f  fvd2048_128f_subsample8f: 16 frames at stride 8
tats                 2,048 windows drawn from all windows of all training videos, 128 x 128, bytes cut off, N - 1
==================== ===============================================================================================

Settings that the published code leaves to the data (Taichi-HD takes stride 6 with Latte and 4 with TATS) are changed
like any other switch; a changed preset has a ``+`` behind its name and another id.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from longtake.errors import BadInput, BadRecipe, UnknownName, nearest

STARTS = ("first", "middle", "random", "every")
SELECTIONS = ("first", "random", "all")
FILTERS = ("bicubic", "bilinear", "lanczos")
CROPS = ("centre", "square", "none")
ROUNDINGS = ("nearest", "truncate")
DIVISORS = ("N", "N-1")
DTYPES = ("float32", "float64", "bfloat16")
SPLITS = ("train", "test", "val", "all")


@dataclass(frozen=True)
class Side:
    """How the clips of one side, real or generated, are taken and prepared; the order is that in which it happens.

    Attributes:
        split: folders of the split to take where a data set is divided so.
        shortest: videos with fewer frames are left out; None: those that a window does not fit into.
        frames: of a clip. stride: source frames from one to the next.
        start: "first": windows follow one another from frame 0; "middle": spread evenly, one stands in the middle;
            "random": drawn for each video; "every": each possible window counts, so long videos weigh more.
        windows: of each video at most; "every" takes all.
        select: "first" in the order of names, "random" without replacement, or "all" of them. count: how many.
        mirror: also take each clip mirrored.
        mp4: send clips through H.264 at this crf first, unless the file was an .mp4; None: do not.
        height, width: of the pictures; None: as they are, all of one size.
        crop: "centre": resize so that it just covers, then crop; "square": crop to a square, then resize; "none":
            stretch. resize: the filter. antialias: whether it widens where it shrinks (Lanczos always does).
        rounding: from numbers to bytes, "nearest" or "truncate".
        jpeg: save each frame at this quality and read it again, unless the frames were JPEG files; None: do not.
    """

    split: str = "all"
    shortest: int | None = None
    frames: int = 17
    stride: int = 1
    start: str = "first"
    windows: int = 1
    select: str = "first"
    count: int = 2048
    mirror: bool = False
    mp4: int | None = None
    height: int | None = None
    width: int | None = None
    crop: str = "centre"
    resize: str = "bicubic"
    antialias: bool = True
    rounding: str = "nearest"
    jpeg: int | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("split", SPLITS),
            ("start", STARTS),
            ("select", SELECTIONS),
            ("crop", CROPS),
            ("resize", FILTERS),
            ("rounding", ROUNDINGS),
        ):
            _one_of(name, getattr(self, name), known)
        for name in ("frames", "stride", "windows", "count"):
            if getattr(self, name) < 1:
                raise BadInput(f"protocol: {name} is {getattr(self, name)}; expected at least 1.")
        if (self.height is None) != (self.width is None) or min(self.height or 1, self.width or 1) < 1:
            raise BadInput(f"protocol: height is {self.height} and width {self.width}; give both, above 0, or neither.")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise BadInput(f"protocol: jpeg is {self.jpeg}; expected a quality from 1 to 100.")
        if self.mp4 is not None and not 0 <= self.mp4 <= 51:
            raise BadInput(f"protocol: mp4 is {self.mp4}; expected a crf from 0 to 51.")

    @property
    def span(self) -> int:
        """Frames of a video that a window takes up, `shortest` included."""
        return max((self.frames - 1) * self.stride + 1, self.shortest or 0)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the pictures, or None for as they are."""
        return None if self.height is None or self.width is None else (self.height, self.width)


@dataclass(frozen=True)
class Protocol:
    """All switches of a measurement.

    Attributes:
        name: of the preset; no switch itself.
        real, fake: how the clips of each side are taken.
        network, network_hash: what clips are seen by: a name of `longtake.evaluation.networks` and the hash of its
            weights, which is filled in when it is loaded.
        frame_network, frame_network_hash: the same for single frames.
        covariance_divisor: "N" or "N-1".
        dtype: in which the networks compute; statistics are always in float64.
        seed: of all draws: windows, selections, bootstrap.
    """

    name: str = "ours"
    real: Side = field(default_factory=Side)
    fake: Side = field(default_factory=Side)
    network: str = "scenes-3d"
    network_hash: str = ""
    frame_network: str = "scenes-2d"
    frame_network_hash: str = ""
    covariance_divisor: str = "N-1"
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("covariance_divisor", self.covariance_divisor, DIVISORS)
        _one_of("dtype", self.dtype, DTYPES)

    @property
    def id(self) -> str:
        """The name and eight digits of a hash over all switches."""
        return f"{self.name}-{digest(switches(self))[:8]}"

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Protocol":
        """Rebuild a protocol from `asdict` of one. Raises BadRecipe for an unknown key or a value of a wrong kind."""
        return _lay_over(Protocol(), content, "protocol")


def digest(value: Any) -> str:
    """SHA-256 of plain data as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def switches(protocol: Protocol) -> dict[str, Any]:
    """All switches by name with dots, "real.stride": everything but the protocol's own name."""
    flat: dict[str, Any] = {}
    for key, value in asdict(protocol).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        elif key != "name":
            flat[key] = value
    return flat


def differences(a: Protocol, b: Protocol) -> list[str]:
    """Say in words where two protocols differ; empty when they do not."""
    first, second = switches(a), switches(b)
    return [f"{key} is {_say(first[key])} and {_say(second[key])}" for key in first if first[key] != second[key]]


def find_protocol(name: str | Path, changes: Mapping[str, Any] | None = None) -> Protocol:
    """Return a preset or read a YAML or JSON file, with changes laid over it.

    Args:
        name: a preset's name or a file. A file holds switches in the form of `Protocol`, and may say ``base:`` with the
            name of the preset that it changes (ours otherwise).
        changes: switches by name with dots. One of a side without its side ("stride") changes both; "size" is
            WIDTHxHEIGHT, one number for a square, or "none".

    Raises:
        UnknownName: no such preset and no such file. BadRecipe: an unknown switch or a value of a wrong kind.
        BadInput: a value out of its range.
    """
    if str(name) in PRESETS:
        protocol = PRESETS[str(name)]
    else:
        path = Path(name)
        if not path.is_file():
            raise UnknownName(
                f"no protocol is called '{name}', and there is no such file.{nearest(str(name), PRESETS)}"
            )
        protocol = _read(path)
    changed = _lay_over(protocol, _by_side(changes or {}), "protocol")
    return changed if not differences(changed, protocol) else replace(changed, name=f"{protocol.name}+")


def read_changes(pairs: Sequence[str]) -> dict[str, str]:
    """["real.stride=3"] -> {"real.stride": "3"}, for `find_protocol`. Raises BadInput for a pair without "="."""
    for pair in pairs:
        if "=" not in pair:
            raise BadInput(f"'{pair}' is not NAME=VALUE, for example real.stride=3.")
    return dict(pair.split("=", 1) for pair in pairs)


def _read(path: Path) -> Protocol:
    from omegaconf import OmegaConf

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)  # YAML, of which JSON is a part
    except Exception as error:
        raise BadRecipe(f"protocol '{path}' cannot be read: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict):
        raise BadRecipe(f"protocol '{path}' holds a {type(content).__name__}; expected switches as 'name: value'.")
    base = str(content.pop("base", "ours"))
    if base not in PRESETS:
        raise UnknownName(f"protocol '{path}': no preset is called '{base}'.{nearest(base, PRESETS)}")
    content = {"name": path.stem, **content}
    return _lay_over(PRESETS[base], _by_side({str(key): value for key, value in content.items()}), f"protocol '{path}'")


def _by_side(changes: Mapping[str, Any]) -> dict[str, Any]:
    """{"real.stride": 3, "frames": 16, "real": {...}} -> {"real": {"stride": 3, "frames": 16, ...}, "fake": {...}}."""
    own = {f.name for f in fields(Protocol)}
    out: dict[str, Any] = {"real": {}, "fake": {}}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if head in ("real", "fake"):
            inner = {rest: value} if rest else value
            if not isinstance(inner, Mapping):
                raise BadRecipe(f"protocol: {key} is {value!r}; expected switches as 'name: value'.")
            out[head] |= _sized(inner)
        elif key in own:
            out[key] = value
        else:
            for side in ("real", "fake"):
                out[side] |= _sized({key: value})
    return {key: value for key, value in out.items() if value != {}}


def _sized(switches: Mapping[str, Any]) -> dict[str, Any]:
    """Read "size" as height and width."""
    out = dict(switches)
    if "size" in out:
        text = str(out.pop("size")).lower()
        width, cross, height = text.partition("x")
        if text in ("none", "null"):
            return {**out, "height": None, "width": None}
        if not (width.isdecimal() and (height.isdecimal() if cross else True)):
            raise BadRecipe(f"protocol: size is '{text}'; expected WIDTHxHEIGHT, a number of pixels, or none.")
        out |= {"width": int(width), "height": int(height or width)}
    return out


def _lay_over(base: Any, content: Mapping[str, Any], where: str) -> Any:
    """Replace fields of a dataclass by what a mapping says, checking names and kinds."""
    hints = get_type_hints(type(base))
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in hints:
            raise BadRecipe(f"{where}: unknown switch '{key}'.{nearest(key, hints)}")
        if hints[key] is Side:
            if not isinstance(value, Mapping):
                raise BadRecipe(f"{where}: {key} is {value!r}; expected switches as 'name: value'.")
            values[key] = _lay_over(getattr(base, key), value, f"{where}, {key}")
        else:
            values[key] = _of_kind(value, hints[key], f"{where}: {key}")
    return replace(base, **values)


def _of_kind(value: Any, kind: Any, what: str) -> Any:
    kinds = get_args(kind) or (kind,)
    if isinstance(value, str) and str not in kinds:  # from a command line
        text = value.lower()
        if type(None) in kinds and text in ("none", "null"):
            return None
        if bool in kinds and text in ("true", "false"):
            return text == "true"
        if int in kinds and text.lstrip("-").isdecimal():
            return int(text)
    if type(value) not in kinds:
        names = " or ".join("none" if one is type(None) else one.__name__ for one in kinds)
        raise BadRecipe(f"{what} is {value!r}; expected {names}.")
    return value


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownName(f"protocol: {name} has no value '{value}'.{nearest(str(value), known)}")


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else str(value)


# ------------------------------------------------------------------------------------------------------------- presets

_LATTE = Side(
    frames=16, start="random", select="random", height=256, width=256, crop="square", resize="lanczos", jpeg=75
)
_STYLEGAN_V = Side(frames=16, start="random", height=256, width=256, resize="lanczos", jpeg=75)
_TATS = Side(frames=16, height=128, width=128, resize="bilinear", antialias=False, rounding="truncate")


def _stylegan_v(name: str, frames: int, stride: int) -> Protocol:
    """Generated clips are the network's own frames: no offset, no compression."""
    real = replace(_STYLEGAN_V, frames=frames, stride=stride, shortest=frames * stride)
    fake = replace(real, start="first", jpeg=None)
    return Protocol(name, real, fake, "i3d", frame_network="inception", covariance_divisor="N")


PRESETS = {
    protocol.name: protocol
    for protocol in (
        Protocol(),
        Protocol(
            "latte-ucf101",
            replace(_LATTE, stride=3, shortest=48),
            # Quality 9 of its mp4 writer is crf 5; 8 frames per second, which H.264 at constant quality does not mind.
            replace(_LATTE, start="first", mp4=5),
            "i3d",
            frame_network="inception",
            covariance_divisor="N",
        ),
        _stylegan_v("stylegan-v", 16, 1),
        _stylegan_v("stylegan-v-128f", 128, 1),
        _stylegan_v("stylegan-v-128f-subsample8f", 16, 8),
        Protocol(
            "tats",
            replace(_TATS, split="train", start="every", select="random"),
            _TATS,
            "i3d",
            frame_network="inception",
            covariance_divisor="N-1",
        ),
    )
}
"""The presets by name."""
