"""Observers: what each metric sees of a clip while it streams by. Each gives (B, R, D): features, or numbers of a clip."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longtake.evaluation.cuts import Cuts
from longtake.evaluation.metrics import reference, temporal
from longtake.evaluation.networks.contract import FeatureNetwork
from longtake.evaluation.observing import Observer, Seen
from longtake.evaluation.protocol import digest
from longtake.evaluation.readback import ATTRIBUTES, ReadBackDetector, score_readings
from longtake.video import from_uint8
from longtake.video.flow import clip_flow

if TYPE_CHECKING:
    from longtake.evaluation.networks.clip import ClipScorer

VERSION = "1"
"""Of the numbers below; part of every key in the cache, so that a change here is never served from it."""
MOST_SEAM = 1000.0
"""What an infinite seam ratio counts for in a mean."""


@dataclass
class Kit:
    """The networks of a measurement, loaded when a metric wants them.

    Attributes:
        clip_folder: of a CLIP. seams: first frames of the pieces of long clips. device: where networks compute.
        network, frame_network: that see clips, and single frames. detector: that reads scenes back. clip: that scores
            text.
    """

    clip_folder: str | Path | None = None
    seams: tuple[int, ...] = ()
    device: str = "cpu"
    network: FeatureNetwork | None = None
    frame_network: FeatureNetwork | None = None
    detector: ReadBackDetector | None = field(default=None, repr=False)
    clip: "ClipScorer | None" = field(default=None, repr=False)

    def load(self, chosen: Sequence[str]) -> None:
        """Load the detector and CLIP if a metric that was chosen wants them. Raises BadInput for a folder that is none."""
        if "readback" in chosen:
            from longtake.evaluation.readback.fitting import shipped_detector

            self.detector = shipped_detector().to(self.device)
        if "clip" in chosen and self.clip_folder is not None:
            from longtake.evaluation.networks.clip import ClipScorer

            self.clip = ClipScorer(self.clip_folder, self.device)

    def described(self) -> dict[str, dict[str, Any]]:
        """What a result tells of the detector and CLIP."""
        told: dict[str, dict[str, Any]] = {}
        if self.detector is not None:
            facts = {"own_accuracy": dict(self.detector.config.own_accuracy or {})}
            told["readback"] = {"hash": _hash(self.detector), "facts": facts}
        if self.clip is not None:
            told["clip"] = {"hash": self.clip.hash, "facts": {"folder": Path(str(self.clip_folder)).name}}
        return told


def features_of_clips(network: FeatureNetwork) -> Observer:
    """(B, 1, D) of a network of clips."""
    return Observer(network.name, network.hash, lambda seen: network(seen.pixels)[:, None])


def features_of_frames(network: FeatureNetwork) -> Observer:
    """(B, T, D) of a network of single frames."""

    def look(seen: Seen) -> Tensor:
        frames = seen.pixels.transpose(1, 2)
        return network(frames.flatten(0, 1)[:, :, None]).unflatten(0, frames.shape[:2])

    return Observer(network.name, network.hash, look)


def classes_of_clips(network: FeatureNetwork) -> Observer:
    """(B, 1, K) class probabilities."""
    return Observer("classes", network.hash, lambda seen: network.classify(seen.pixels)[:, None])


def pair_measure(name: str) -> Observer:
    """(B, 1, 1) of psnr, ssim or gmsd against the real partner, the mean over frames."""
    measures = {
        "psnr": reference.psnr_frame_mean,
        "ssim": lambda x, y: reference.ssim_frames(x, y).mean(1),
        "gmsd": lambda x, y: reference.gmsd_frames(x, y).mean(1),
    }
    return Observer(name, f"{name}/{VERSION}", lambda seen: _one(measures[name](seen.pixels, seen.partners)), True)


def flicker() -> Observer:
    """(B, 1, 1)."""
    return Observer("flicker", f"flicker/{VERSION}", lambda seen: _one(temporal.flicker(seen.pixels)))


def flow_measures(stride: int) -> Observer:
    """(B, 1, 3): warping error, length of motion, and dynamic degree, which share the flow.

    Args:
        stride: of the frames in their videos, so that the frame rate of a clip is known.
    """

    def look(seen: Seen) -> Tensor:
        flow, back = clip_flow(seen.pixels), clip_flow(seen.pixels, backward=True)
        error, length = temporal.warping_error(seen.pixels, flow, back), temporal.motion_magnitude(flow)
        return torch.stack([error, length, _moves(seen, flow, stride)], 1)[:, None].double()

    return Observer("flow", f"flow/{stride}/{VERSION}", look)


def _moves(seen: Seen, flow: Tensor, stride: int) -> Tensor:
    """Whether each clip moves, at about 8 frames per second; flow anew where that skips frames."""
    moves = torch.zeros(len(flow), dtype=torch.double)
    for i, video in enumerate(seen.videos):
        fps = video.fps / stride
        thinned = temporal.at_eight_fps(seen.pixels[i : i + 1], fps)
        same = thinned.shape[2] == seen.pixels.shape[2] or thinned.shape[2] < 2
        found = flow[i : i + 1] if same else clip_flow(thinned)
        moves[i] = float(temporal.dynamic_degree(found, fps=fps))
    return moves


def changes() -> Observer:
    """(B, 1, 2): smoothness against blended neighbours (0 for clips of two frames), and how many cuts there are."""

    def look(seen: Seen) -> Tensor:
        long = seen.pixels.shape[2] > 2
        smooth = temporal.motion_smoothness(seen.pixels, interpolate="blend") if long else torch.zeros(len(seen.pixels))
        return torch.stack([smooth.double(), temporal.find_cuts(seen.pixels).sum(1).double()], 1)[:, None]

    return Observer("changes", f"changes/{VERSION}", look)


def background_features(cells: int = 8) -> Observer:
    """(B, T, D): mean colours of the cells along the border of each frame, less mid grey; no network."""

    def look(seen: Seen) -> Tensor:
        frames = seen.pixels.transpose(1, 2)
        grid = torch.nn.functional.adaptive_avg_pool2d(frames.flatten(0, 1).double() / 127.5 - 1, cells)
        border = torch.ones(cells, cells, dtype=torch.bool)
        border[1:-1, 1:-1] = False
        return grid[:, :, border].flatten(1).unflatten(0, frames.shape[:2])

    return Observer("background", f"background/{cells}/{VERSION}", look)


def seam(seams: Sequence[int]) -> Observer:
    """(B, 1, 1) of the seams, the first frames of the pieces; at most MOST_SEAM, where nothing else changes."""

    def look(seen: Seen) -> Tensor:
        return _one(temporal.seam_ratio(seen.pixels, list(seams)).clamp_max(MOST_SEAM))

    return Observer("seam", digest(["seam", list(seams), VERSION]), look)


def readback(detector: ReadBackDetector, cuts: Cuts) -> Observer:
    """(B, 1, 10): right readings of each of ATTRIBUTES, then how many were asked; none of a clip without attributes."""

    def look(seen: Seen) -> Tensor:
        counts = torch.zeros(len(seen.videos), 1, 2 * len(ATTRIBUTES), dtype=torch.float64)
        asked = [i for i, video in enumerate(seen.videos) if video.attributes]
        if not asked:
            return counts
        wanted = [seen.videos[i].attributes or {} for i in asked]
        pixels = from_uint8(seen.pixels[asked].movedim(1, -1)).to(detector.device)
        for i, reading, want in zip(
            asked, detector.read(pixels, [len(w["objects"]) for w in wanted]), wanted, strict=True
        ):
            score = score_readings([reading], [want])
            counts[i, 0] = torch.tensor([side[name] for side in (score.right, score.total) for name in ATTRIBUTES])
        return counts

    wanted = [cuts.source.videos[one.video].attributes for one in cuts.clips]
    return Observer("readback", digest(["readback", _hash(detector), wanted, VERSION]), look)


def clip_score(scorer: "ClipScorer", cuts: Cuts) -> Observer:
    """(B, 1, 1): cosine with the prompt."""
    prompts = [cuts.source.videos[one.video].prompt for one in cuts.clips]

    def look(seen: Seen) -> Tensor:
        return _one(scorer.score(seen.pixels, [video.prompt for video in seen.videos]))

    return Observer("clip", digest(["clip", scorer.hash, prompts, VERSION]), look)


def _one(numbers: Tensor) -> Tensor:
    """One number of each clip, (B,), as rows."""
    return numbers[:, None, None].double()


def _hash(detector: ReadBackDetector) -> str:
    from longtake.pipelines.records import weights_hash

    return weights_hash({"readback": detector})
