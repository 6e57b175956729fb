"""What a clip is made from: the prompt's states and the frames that are given.

Packing of given frames as in Waver (arXiv 2508.15761) and Wan (arXiv 2503.20314): the network's condition channels hold
the latents of given frames, the latent of a black image everywhere else, and a mask with as many channels as one latent
frame stands for pixel frames. A causal tokenizer encodes frame 0 alone and then groups of `stride` frames, so a mask
over pixel frames folds in the same way: its first frame repeated `stride` times, then groups of `stride`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.errors import BadInput, BadSize


@dataclass(frozen=True)
class FrameMask:
    """Which pixel frames of a clip are given. The one place where the two conventions of a mask meet.

    Args:
        given: (B, F) bool, True = given, as in Waver and Wan. For masks in which 1 = to be generated (VACE) use
            `FrameMask.of_generated`.
    """

    given: Tensor

    def __post_init__(self) -> None:
        if self.given.ndim != 2 or self.given.dtype != torch.bool:
            raise BadInput(
                f"a frame mask of {tuple(self.given.shape)} {self.given.dtype}; it must be (batch, frames) bool"
            )

    @classmethod
    def of_generated(cls, generated: Tensor) -> "FrameMask":
        """Read a mask (B, F) whose True means that the frame is to be generated."""
        return cls(~generated)

    @property
    def generated(self) -> Tensor:
        """(B, F) bool, True = to be generated."""
        return ~self.given

    def fold(self, stride: int = 4) -> Tensor:
        """Fold F = 1 + stride*n pixel frames onto 1 + n latent frames: float (B, stride, 1 + n), 1 = given.

        Raises BadSize when F is not of that form.
        """
        frames = self.given.shape[1]
        if frames < 1 or (frames - 1) % stride:
            near = 1 + stride * max(round((frames - 1) / stride), 0)
            raise BadSize(f"{frames} frames do not fit a stride of {stride} in time; the nearest number is {near}")
        padded = torch.cat([self.given[:, :1].expand(-1, stride - 1), self.given], dim=1)
        return padded.unflatten(1, (-1, stride)).transpose(1, 2).float()


@dataclass(frozen=True)
class FrameCondition:
    """Given frames of a clip as a network takes them. Build it with one of the functions of this module.

    Args:
        latents: (B, C, T, H, W), black where nothing is given.
        mask: (B, stride, T, H, W) float, 1 = given.
    """

    latents: Tensor
    mask: Tensor

    def pack(self) -> Tensor:
        """(B, C + stride, T, H, W), latents first."""
        return torch.cat([self.latents, self.mask], dim=1)

    @staticmethod
    def stack(conditions: Sequence["FrameCondition"]) -> "FrameCondition":
        """Join conditions along the batch, so that one batch can mix tasks."""
        return FrameCondition(torch.cat([c.latents for c in conditions]), torch.cat([c.mask for c in conditions]))


def given_frames(latents: Tensor, mask: FrameMask, black: Tensor, stride: int = 4) -> FrameCondition:
    """General packer. Latent frames without any given pixel frame become black.

    Args:
        latents: (B, C, T, H, W). What is not given is ignored.
        mask: over 1 + stride*(T-1) pixel frames.
        black: (C, 1, 1, 1), the latent of a black image (`HybridStreamDiT.black_latents`).

    Raises:
        BadSize: mask and latents differ in length.
    """
    folded = mask.fold(stride).to(latents)
    if folded.shape[2] != latents.shape[2] or folded.shape[0] != latents.shape[0]:
        raise BadSize(
            f"a mask over {mask.given.shape[1]} frames for latents of {tuple(latents.shape)}; they must agree"
        )
    folded = folded[..., None, None].expand(*folded.shape, *latents.shape[3:])
    return FrameCondition(torch.where(folded.amax(1, keepdim=True) > 0, latents, black.to(latents)), folded)


def nothing_given(shape: Sequence[int], black: Tensor, stride: int = 4) -> FrameCondition:
    """Text to video: `shape` = (B, C, T, H, W) of the latents, all black, mask 0."""
    b, c, t, h, w = shape
    return FrameCondition(black.expand(b, c, t, h, w), black.new_zeros(b, stride, t, h, w))


def first_frame(image: Tensor, frames: int, black: Tensor, stride: int = 4) -> FrameCondition:
    """Image to video.

    Args:
        image: (B, C, 1, H, W), latent of the first frame.
        frames: latent frames of the clip.
    """
    return continuation(_single(image), frames, black, stride)


def first_and_last(first: Tensor, last: Tensor, frames: int, black: Tensor, stride: int = 4) -> FrameCondition:
    """Both ends of a clip.

    Args:
        first, last: (B, C, 1, H, W), each the latent of one image encoded alone. The last one is put at the last latent
            frame, of whose `stride` mask channels only the last is 1.
        frames: latent frames of the clip, at least 2.
    """
    if frames < 2:
        raise BadSize(f"{frames} latent frame cannot hold a first and a last image; use at least {1 + stride} frames")
    given = torch.zeros(first.shape[0], 1 + stride * (frames - 1), dtype=torch.bool, device=first.device)
    given[:, [0, -1]] = True
    middle = _single(first).expand(-1, -1, frames - 1, -1, -1)
    return given_frames(torch.cat([middle, _single(last)], dim=2), FrameMask(given), black, stride)


def continuation(leading: Tensor, frames: int, black: Tensor, stride: int = 4) -> FrameCondition:
    """Continue a clip.

    Args:
        leading: (B, C, K, H, W), its first K latent frames, 1 <= K <= frames.
        frames: latent frames of the clip.
    """
    known = leading.shape[2]
    if not 1 <= known <= frames:
        raise BadSize(f"{known} leading latent frames for a clip of {frames}; give between 1 and {frames}")
    given = torch.zeros(leading.shape[0], 1 + stride * (frames - 1), dtype=torch.bool, device=leading.device)
    given[:, : 1 + stride * (known - 1)] = True
    padding = (0, 0, 0, 0, 0, frames - known)
    return given_frames(F.pad(leading, padding), FrameMask(given), black, stride)


def _single(image: Tensor) -> Tensor:
    if image.ndim != 5 or image.shape[2] != 1:
        raise BadSize(f"an image latent of {tuple(image.shape)}; it must be (batch, channels, 1, height, width)")
    return image


@dataclass(frozen=True)
class Conditions:
    """What one forward of a denoiser is conditioned on.

    Args:
        text: (B, L, D), states of the text encoder; None for a network without text.
        text_mask: (B, L) bool, True = a token of the prompt; None = no padding.
        frames: (B, C + stride, T, H, W), a packed `FrameCondition`; None = no frame given.
        labels: (B,) whole numbers, the class of each clip; None for a network without classes.
        pooled: (B, P), one state for the whole text, of a second text encoder; None for a network without it.
    """

    text: Tensor | None = None
    text_mask: Tensor | None = None
    frames: Tensor | None = None
    labels: Tensor | None = None
    pooled: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Conditions":
        """Move to a device, and floats to a dtype."""
        mask, labels = (None if one is None else one.to(device) for one in (self.text_mask, self.labels))
        floats = (None if one is None else one.to(device, dtype) for one in (self.text, self.frames, self.pooled))
        text, frames, pooled = floats
        return Conditions(text, mask, frames, labels, pooled)

    def join(self, other: "Conditions") -> "Conditions":
        """Put another batch behind this one; the shorter text is padded and masked.

        Raises BadInput when only one of the two has text, given frames, labels or a pooled text.
        """
        for name in ("text", "frames", "labels", "pooled"):
            if (getattr(self, name) is None) != (getattr(other, name) is None):
                raise BadInput(f"{name} given on one side of guidance only; give the same kind, or none, to both sides")
        frames, labels, pooled = (
            None if one is None or two is None else torch.cat([one, two])
            for one, two in ((self.frames, other.frames), (self.labels, other.labels), (self.pooled, other.pooled))
        )
        if self.text is None or other.text is None:
            return Conditions(None, None, frames, labels, pooled)
        length = max(self.text.shape[1], other.text.shape[1])
        both = ((self.text, self.text_mask), (other.text, other.text_mask))
        padded = [F.pad(text, (0, 0, 0, length - text.shape[1])) for text, _ in both]
        mask = None
        if any(read is not None or text.shape[1] < length for text, read in both):
            every = [text.new_ones(text.shape[:2], dtype=torch.bool) if read is None else read for text, read in both]
            mask = torch.cat([F.pad(read, (0, length - read.shape[1])) for read in every])
        return Conditions(torch.cat(padded), mask, frames, labels, pooled)

    def expand(self, count: int) -> "Conditions":
        """Those of one clip, for `count` clips."""

        def all_of(one: Tensor | None) -> Tensor | None:
            return None if one is None else one.expand(count, *one.shape[1:])

        return Conditions(
            *(all_of(getattr(self, name)) for name in ("text", "text_mask", "frames", "labels", "pooled"))
        )
