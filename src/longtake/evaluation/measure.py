"""The engine: which observers a metric needs, one pass over each side, and the numbers that come of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from longtake.errors import BadInput
from longtake.evaluation.choosing import METRICS, WANTED, check_sizes, choose, find_partners, left_out_lines
from longtake.evaluation.cuts import Cuts, cut
from longtake.evaluation.generated import GeneratedSource
from longtake.evaluation.looking import (
    Kit,
    background_features,
    changes,
    classes_of_clips,
    clip_score,
    features_of_clips,
    features_of_frames,
    flicker,
    flow_measures,
    pair_measure,
    readback,
    seam,
)
from longtake.evaluation.metrics.consistency import WINDOW, drift, frame_consistency
from longtake.evaluation.metrics.temporal import DYNAMIC_DEGREE, MOTION_SMOOTHNESS
from longtake.evaluation.networks import FeatureNetwork, label, load_network
from longtake.evaluation.observing import Observations, Observer, observe, process_place
from longtake.evaluation.protocol import Protocol
from longtake.evaluation.readback import ATTRIBUTES
from longtake.evaluation.results import CONFIDENCE, Curve, Measured, Result, Value
from longtake.evaluation.scores import (
    Chance,
    curve_of,
    frechet_value,
    inception_value,
    kernel_value,
    mean_value,
    neighbour_values,
    share_value,
)
from longtake.evaluation.sources import ClipSource
from longtake.pipelines.records import machine, versions

LIMITS = {
    "scenes-3d": "scenes-3d is not I3D: its numbers compare with no paper's, and off its own scenes it detects change "
    "and does not judge realism",
    "random-3d": "random-3d has random weights and nearly ignores time: a control, not a measure",
    "scenes-2d": "scenes-2d is not Inception: its numbers compare with no paper's",
    "random-2d": "random-2d has random weights: a control, not a measure",
}
COLUMNS = {
    "flicker": ("flicker", 0, "flicker", "higher"),
    "warping": ("flow", 0, "warping", "lower"),
    "motion": ("flow", 1, "motion", ""),
    "dynamic": ("flow", 2, DYNAMIC_DEGREE, ""),
    "smoothness": ("changes", 0, MOTION_SMOOTHNESS["blend"], "higher"),
    "cuts": ("changes", 1, "cuts", "lower"),
    "seam": ("seam", 0, "seam", "lower"),
}
"""Metrics that are one number of each clip: who saw it, which of its numbers, what it is called, which way is better."""


@dataclass(frozen=True)
class Measurement:
    """A result with the clips that it is of. `places`: for each generated clip the number of its real partner."""

    result: Result
    fake: Cuts
    real: Cuts | None
    places: tuple[int, ...] = ()


@dataclass
class _Sides:
    """Both sides while they are measured."""

    fake: Cuts
    real: Cuts | None
    places: tuple[int, ...]
    seen: Observations = field(default_factory=lambda: Observations((), {}, ()))
    seen_real: Observations | None = None


def measure(
    fake: ClipSource,
    real: ClipSource | None = None,
    metrics: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    *,
    network: str | FeatureNetwork | None = None,
    frame_network: str | FeatureNetwork | None = None,
    clip: str | Path | None = None,
    seams: Sequence[int] = (),
    cache: Path | None = None,
    batch: int = 8,
    workers: int = 0,
    device: str = "cpu",
    resamples: int = 200,
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    on_clips: Callable[[str, int, int], None] | None = None,
) -> Measurement:
    """Measure generated clips, against real ones where a metric compares.

    Args:
        fake, real: the clips. metrics: names of `choosing.METRICS`; None: all that can be measured with what is given.
        protocol: all switches; `Protocol()` by default.
        network, frame_network: names as `load_network` takes them, or loaded; None: the protocol's.
        clip, seams, cache, batch, workers, device, resamples: as `evaluating.evaluate`.
        settings, command: written into the record. on_clips: called with (side, done, total).

    Returns:
        The result, the same on every process of a process group and for every batch size and order of files.

    Raises:
        UnknownName: no such metric. BadInput: a metric without what it needs. BadData, and all errors of networks,
        sources and cuts.
    """
    begun = time.perf_counter()
    protocol = protocol or Protocol()
    fake_cuts = cut(fake, protocol.fake, protocol.seed, what="fake", protocol=protocol.name)
    real_cuts = None
    if real is not None:
        real_cuts = cut(real, protocol.real, protocol.seed, what="real", protocol=protocol.name)
        check_sizes(fake_cuts, real_cuts, protocol)
    places, why_no_pairs = find_partners(fake_cuts, real_cuts)
    kit = Kit(clip_folder=clip, seams=tuple(seams), device=device)
    network, frame_network = network or protocol.network, frame_network or protocol.frame_network
    missing = {"clip": clip is None, "seams": not kit.seams, "network": network == "i3d", "classes": network == "i3d"}
    missing |= {"frames": frame_network == "inception"}  # these two are nobody's but the user's to give
    chosen, left_out = choose(metrics, fake_cuts, real_cuts, why_no_pairs, {need for need in missing if missing[need]})
    protocol = _load(kit, chosen, protocol, network, frame_network, metrics is None, left_out)
    sides = _Sides(fake_cuts, real_cuts, places)
    _look(sides, chosen, kit, cache, batch, workers, on_clips)
    chance = Chance(protocol.seed, resamples, CONFIDENCE)
    values, curves, per_clip = _numbers(sides, chosen, kit, protocol, chance)
    used = [one for one in (kit.network, kit.frame_network) if one is not None]
    looked = [sides.seen] + ([sides.seen_real] if sides.seen_real is not None else [])
    result = Result(
        protocol,
        _measured(sides.fake, sides.seen, dict(settings or {})),
        None if sides.real is None or sides.seen_real is None else _measured(sides.real, sides.seen_real, {}),
        tuple(values),
        tuple(curves),
        per_clip,
        {one.name: {"hash": one.hash, "width": one.width, "facts": one.facts} for one in used} | kit.described(),
        tuple(LIMITS[one.name] for one in used if one.name in LIMITS) + left_out_lines(left_out),
        resamples,
        CONFIDENCE,
        {
            "decode": round(sum(one.decode_seconds for one in looked), 3),
            "look": round(sum(one.look_seconds for one in looked), 3),
            "all": round(time.perf_counter() - begun, 3),
        },
        sum(one.decoded for one in looked),
        versions(),
        machine(),
        process_place()[1],
        command,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Measurement(result, sides.fake, sides.real, places)


def _load(
    kit: Kit,
    chosen: list[str],
    protocol: Protocol,
    network: str | FeatureNetwork,
    frame_network: str | FeatureNetwork,
    all_asked: bool,
    left_out: dict[str, str],
) -> Protocol:
    """Load the networks that the metrics need into the kit, and write them into the protocol."""
    dtype = getattr(torch, protocol.dtype)
    needs = {need for name in chosen for need in METRICS[name].needs}
    if needs & {"network", "classes"}:
        given = network or protocol.network
        kit.network = (
            given if isinstance(given, FeatureNetwork) else load_network(given, device=kit.device, dtype=dtype)
        )
        protocol = replace(protocol, network=kit.network.name, network_hash=kit.network.hash)
    if "classes" in needs and kit.network is not None and kit.network.probabilities is None:
        if not all_asked:
            raise BadInput(f"metric is needs {WANTED['classes']}; {kit.network.name} is none.")
        chosen.remove("is")
        left_out["is"] = WANTED["classes"]
    if "frames" in needs:
        loaded = frame_network if isinstance(frame_network, FeatureNetwork) else None
        kit.frame_network = loaded or load_network(str(frame_network), frames=True, device=kit.device, dtype=dtype)
        protocol = replace(protocol, frame_network=kit.frame_network.name, frame_network_hash=kit.frame_network.hash)
    kit.load(chosen)
    return protocol


def _look(
    sides: _Sides,
    chosen: list[str],
    kit: Kit,
    cache: Path | None,
    batch: int,
    workers: int,
    on_clips: Callable[[str, int, int], None] | None,
) -> None:
    """Pass over both sides once."""

    def told(side: str) -> Callable[[int, int], None] | None:
        return None if on_clips is None else lambda done, all: on_clips(side, done, all)

    paired = (sides.real, sides.places) if sides.real is not None and sides.places else None
    if sides.real is not None:
        observers = _observers(chosen, kit, sides.real, real=True)
        if observers:
            sides.seen_real = observe(
                sides.real, observers, cache=cache, batch=batch, workers=workers, on_clips=told("real")
            )
    sides.seen = observe(
        sides.fake,
        _observers(chosen, kit, sides.fake, real=False),
        cache=cache,
        partners=paired,
        batch=batch,
        workers=0 if isinstance(sides.fake.source, GeneratedSource) else workers,  # the model stays in this process
        on_clips=told("generated"),
    )


def _observers(chosen: list[str], kit: Kit, cuts: Cuts, *, real: bool) -> list[Observer]:
    """Who looks at one side for the metrics that were chosen; everyone once."""
    found: dict[str, Observer] = {}
    asked = set(chosen)
    if asked & {"fvd", "kvd"} and kit.network is not None:
        found["clips"] = features_of_clips(kit.network)
    if asked & {"fid", "subject", "drift"} and kit.frame_network is not None:
        found["frames"] = features_of_frames(kit.frame_network)
    if "is" in asked and kit.network is not None:
        found["classes"] = classes_of_clips(kit.network)
    if not real:
        found |= {name: pair_measure(name) for name in ("psnr", "ssim", "gmsd") if name in asked}
    if "flicker" in asked:
        found["flicker"] = flicker()
    if asked & {"warping", "motion", "dynamic"}:
        found["flow"] = flow_measures(cuts.side.stride)
    if asked & {"smoothness", "cuts"}:
        found["changes"] = changes()
    if "background" in asked:
        found["background"] = background_features()
    if "seam" in asked:
        found["seam"] = seam(kit.seams)
    if "readback" in asked and kit.detector is not None and not real:
        found["readback"] = readback(kit.detector, cuts)
    if "clip" in asked and kit.clip is not None and not real:
        found["clip"] = clip_score(kit.clip, cuts)
    return [replace(observer, name=name) for name, observer in found.items()]


def _numbers(
    sides: _Sides, chosen: list[str], kit: Kit, protocol: Protocol, chance: Chance
) -> tuple[list[Value], list[Curve], dict[str, list[float]]]:
    """All numbers, in the order of METRICS."""
    rows = sides.seen.rows
    other = {} if sides.seen_real is None else sides.seen_real.rows
    ddof = 0 if protocol.covariance_divisor == "N" else 1
    values: list[Value] = []
    curves: list[Curve] = []
    per_clip: dict[str, list[float]] = {}

    def of_clips(name: str, title: str, numbers: torch.Tensor, real: torch.Tensor | None, better: str, note: str = ""):
        values.append(mean_value(title, name, numbers, real, better, chance, note))
        per_clip[name] = [round(float(number), 6) for number in numbers]

    for name in (one for one in METRICS if one in chosen):
        network = kit.network.name if kit.network is not None else ""
        frames = kit.frame_network.name if kit.frame_network is not None else ""
        if name == "fvd":
            value, found = frechet_value(label("FVD", network), name, rows["clips"], other["clips"], ddof, chance)
            values += [value, kernel_value(label("KVD", network), rows["clips"], other["clips"], chance)]
            values += neighbour_values(network, rows["clips"], other["clips"])
            curves += found
        elif name == "kvd" and "fvd" not in chosen:
            values.append(kernel_value(label("KVD", network), rows["clips"], other["clips"], chance))
        elif name == "fid":
            value, found = frechet_value(label("FID", frames), name, rows["frames"], other["frames"], ddof, chance)
            values.append(value)
        elif name == "is":
            values.append(inception_value(network, rows["classes"], other.get("classes"), chance))
        elif name in ("psnr", "ssim", "gmsd"):
            of_clips(name, name.upper(), rows[name][:, 0, 0], None, "lower" if name == "gmsd" else "higher")
        elif name in COLUMNS:
            key, column, title, better = COLUMNS[name]
            real = other[key][:, 0, column] if key in other else None
            of_clips(name, title, rows[key][:, 0, column], real, better)
        elif name in ("subject", "background"):
            key, what = ("frames", frames) if name == "subject" else ("background", "border")
            real = frame_consistency(other[key]) if key in other else None
            of_clips(name, f"{name}_consistency@{what}", frame_consistency(rows[key]), real, "higher")
        elif name == "drift":
            curve, real = drift(rows["frames"]), drift(other["frames"]) if "frames" in other else None
            of_clips(name, f"drift@{frames}", curve[:, -1], None if real is None else real[:, -1], "lower")
            curves.append(curve_of(f"drift@{frames}", f"window of {WINDOW} frames", curve, real, chance))
        elif name == "readback" and kit.detector is not None:
            own = kit.detector.config.own_accuracy or {}
            right, total = rows["readback"][:, 0].chunk(2, 1)
            for column, attribute in enumerate(ATTRIBUTES):
                if total[:, column].sum() > 0:
                    title = f"readback {attribute}"
                    values.append(
                        share_value(title, title, right[:, column], total[:, column], own.get(attribute), chance)
                    )
        elif name == "clip":
            of_clips(name, "CLIP score", rows["clip"][:, 0, 0], None, "higher")
    return values, curves, per_clip


def _measured(cuts: Cuts, seen: Observations, settings: dict[str, Any]) -> Measured:
    videos = cuts.source.videos
    return Measured(
        cuts.source.name,
        cuts.index_hash,
        len(videos),
        tuple(videos[one.video].name for one in seen.clips),
        cuts.side.frames,
        *cuts.size,
        (*cuts.problems, *seen.problems),
        cuts.short,
        cuts.more,
        settings,
    )
