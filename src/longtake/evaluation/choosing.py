"""Which metrics there are, what each needs, and what can be measured with what is given."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longtake.errors import BadInput, UnknownName, nearest
from longtake.evaluation.cuts import Cuts
from longtake.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Metric:
    """What a metric is and what it cannot do without: "real", "network", "frames", "classes", "pairs", "truth",
    "prompts", "clip", "seams", "time" (two frames or more)."""

    words: str
    needs: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "fvd": Metric("Frechet distance of clips, with kernel distance, precision, recall, nearness", ("real", "network")),
    "kvd": Metric("kernel distance of clips", ("real", "network")),
    "fid": Metric("Frechet distance of frames", ("real", "frames")),
    "is": Metric("Inception score", ("classes",)),
    "psnr": Metric("peak signal to noise ratio, dB, mean over frames", ("real", "pairs")),
    "ssim": Metric("structural similarity", ("real", "pairs")),
    "gmsd": Metric("gradient magnitude similarity deviation", ("real", "pairs")),
    "flicker": Metric("1 - mean change from frame to frame", ("time",)),
    "warping": Metric("change from frame to frame that flow does not explain", ("time",)),
    "motion": Metric("length of flow in pixels per frame", ("time",)),
    "dynamic": Metric("share of clips that move, by VBench's rule on our flow", ("time",)),
    "smoothness": Metric("how well a frame is the mean of its neighbours", ("time",)),
    "cuts": Metric("cuts in a clip", ("time",)),
    "subject": Metric("consistency of frame features", ("frames", "time")),
    "background": Metric("consistency of what lies at the border of the frames", ("time",)),
    "drift": Metric("distance of frame features from those of the first frames", ("frames", "time")),
    "seam": Metric("change at the joints of a long clip against elsewhere", ("seams", "time")),
    "readback": Metric("attributes of scenes that a detector finds as asked", ("truth",)),
    "clip": Metric("cosine of CLIP's picture and text features", ("clip", "prompts")),
}
WANTED = {
    "network": "I3D, which was trained by others: give its file, --network FILE, or --network scenes-3d",
    "frames": "Inception, which was trained by others: give its file, --frame-network FILE, or --frame-network scenes-2d",
    "real": "real clips: give --real",
    "classes": "a network that is a classifier: --network scenes-3d, i3d or c3d=FILE",
    "pairs": "real clips of the same names",
    "truth": "prompts that are whole captions of scenes, or attributes beside the clips",
    "prompts": "prompts: a table, files beside the clips, or --prompts",
    "clip": "a CLIP: give its folder, --clip",
    "seams": "the first frames of the pieces: give --seam",
    "time": "clips of two frames or more",
}


def check_sizes(fake: Cuts, real: Cuts, protocol: Protocol) -> None:
    """Refuse sides of different sizes: a network that resizes would not notice. Raises BadInput."""
    if fake.size != real.size:
        (h, w), (rows, columns) = fake.size, real.size
        raise BadInput(
            f"generated clips are {w}x{h} and real ones {columns}x{rows}, and protocol {protocol.name} takes them as "
            f"they are: bring both to one size, for example --set size={w}x{h}."
        )


def find_partners(fake: Cuts, real: Cuts | None) -> tuple[tuple[int, ...], str]:
    """The number of each generated clip's real partner, by name without suffix; or none, and why."""
    if real is None:
        return (), WANTED["pairs"]
    if (fake.side.frames, fake.size) != (real.side.frames, real.size):
        return (), "real clips of as many frames and of the same size"
    there = {name: number for number, name in enumerate(_names(real))}
    names = _names(fake)
    if len(there) != len(real.clips) or not all(name in there for name in names):
        missing = next((name for name in names if name not in there), names[0])
        return (), f"{WANTED['pairs']}, and '{missing[0]}' of {fake.source.name} has no partner in {real.source.name}"
    return tuple(there[name] for name in names), ""


def _names(cuts: Cuts) -> list[tuple[str, int, bool]]:
    """Name without suffix, which window of its video it is, and whether it is mirrored, of each clip."""
    windows: dict[int, list[int]] = {}
    for one in cuts.clips:
        windows.setdefault(one.video, []).append(one.frames[0])
    ranks = {video: {first: rank for rank, first in enumerate(sorted(set(found)))} for video, found in windows.items()}
    return [
        (
            str(Path(cuts.source.videos[one.video].name).with_suffix("")),
            ranks[one.video][one.frames[0]],
            one.mirrored,
        )
        for one in cuts.clips
    ]


def choose(
    metrics: Sequence[str] | None,
    fake: Cuts,
    real: Cuts | None,
    why_no_pairs: str,
    without: Collection[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """The metrics to measure; and, where all were asked for, what those that are left out would need.

    Args:
        metrics: names; None asks for all. fake, real, why_no_pairs: both sides, and what `find_partners` said.
        without: needs that are known not to be met, of "clip", "seams", "network", "classes", "frames".

    Raises:
        UnknownName: no such metric. BadInput: one that was asked for by name lacks what it needs.
    """
    videos = [fake.source.videos[one.video] for one in fake.clips]
    missing = {
        "real": real is None,
        "pairs": bool(why_no_pairs),
        "truth": not any(video.attributes for video in videos),
        "prompts": not all(video.prompt for video in videos),
        "time": fake.side.frames < 2,
        **dict.fromkeys(without, True),
    }
    words = {**WANTED, "pairs": why_no_pairs}
    asked = list(METRICS) if metrics is None else list(dict.fromkeys(name.strip().lower() for name in metrics))
    left_out: dict[str, str] = {}
    for name in asked:
        if name not in METRICS:
            raise UnknownName(f"no metric is called '{name}'.{nearest(name, METRICS)}")
        lacking = [need for need in METRICS[name].needs if missing.get(need)]
        if lacking and metrics is not None:
            raise BadInput(f"metric {name} needs {words[lacking[0]]}.")
        if lacking:
            left_out[name] = words[lacking[0]]
    chosen = [name for name in asked if name not in left_out]
    if not chosen:
        raise BadInput(f"no metric was asked for; there are {', '.join(METRICS)}.")
    return chosen, left_out


def left_out_lines(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each reason, with all metrics that are left out for it: {"psnr": why, "ssim": why} -> one."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(name)
    return tuple(
        f"{', '.join(several)} {'is left out: it needs' if len(several) == 1 else 'are left out: they need'} {why}"
        for why, several in names.items()
    )
