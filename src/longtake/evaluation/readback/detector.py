"""The read-back detector: one small network that reads objects, background and camera from a clip of a scene.

Objects of one scene never share a colour, so the network has one query per colour. Each query finds its colour in every
time step by attention over space and hands on what it saw there and where (a soft track); two small heads then name
shape and motion from the whole track. Background and camera are read from features averaged over space.

Its own accuracy on held-out renders is measured after training and stored in the config (`own_accuracy`), so that no
number read by it is ever printed without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES, SIDE = 17, 64
"""Clips are resampled to this many frames and this height and width before they are read."""


@dataclass(frozen=True)
class ObjectReading:
    """One object as read: names of its colour, shape and motion, and the probability that it is there, in [0, 1]."""

    colour: str
    shape: str
    motion: str
    presence: float


@dataclass(frozen=True)
class Reading:
    """A clip as read: its objects, most certain first, its background (with the colour of plain ones) and camera."""

    objects: tuple[ObjectReading, ...]
    background: str
    background_colour: str | None
    camera: str


class ReadBackDetector(ModelMixin, ConfigMixin):
    """Reads the attributes of procedural scenes.

    Args:
        colours, shapes, motions, backgrounds, backdrops, cameras: names in the order of the outputs.
        width: channels of the trunk's last level.
        own_accuracy: share of right readings on held-out renders, per attribute; None until measured.
    """

    @register_to_config
    def __init__(
        self,
        colours: Sequence[str],
        shapes: Sequence[str],
        motions: Sequence[str],
        backgrounds: Sequence[str],
        backdrops: Sequence[str],
        cameras: Sequence[str],
        width: int = 96,
        own_accuracy: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        half = width // 2
        self.frames_stem = nn.Sequential(
            _norm_act(nn.Conv2d(3, width // 4, 3, 2, 1, bias=False)),
            _norm_act(nn.Conv2d(width // 4, half, 3, 2, 1, bias=False)),
        )
        self.trunk = nn.Sequential(
            _norm_act(nn.Conv3d(half, width, 3, 2, 1, bias=False)),
            _norm_act(nn.Conv3d(width, width, (1, 3, 3), 1, (0, 1, 1), bias=False)),
            _norm_act(nn.Conv3d(width, width, (3, 1, 1), 1, (1, 0, 0), bias=False)),
        )
        steps = (FRAMES + 1) // 2
        self.finders = nn.Linear(width, len(colours))
        track = steps * (width + 3)
        self.colour_embedding = nn.Parameter(torch.zeros(len(colours), 192))
        self.follow = nn.Linear(track, 192)
        self.objects = nn.Sequential(nn.ReLU(), nn.Linear(192, 192), nn.ReLU())
        self.presence, self.shape, self.motion = (nn.Linear(192, n) for n in (1, len(shapes), len(motions)))
        self.world = nn.Sequential(nn.Linear(steps * width, 128), nn.ReLU())
        self.background, self.backdrop, self.camera = (
            nn.Linear(128, len(names)) for names in (backgrounds, backdrops, cameras)
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Score every name of every attribute.

        Args:
            pixels: (B, 3, T, H, W) in [-1, 1], any T, H, W.

        Returns:
            Logits: "presence" (B, colours), "shape" (B, colours, shapes), "motion" (B, colours, motions),
            "background", "backdrop", "camera" (B, names).
        """
        pixels = resample(pixels)
        count, _, frames = pixels.shape[:3]
        features = self.frames_stem(pixels.transpose(1, 2).flatten(0, 1))
        features = features.unflatten(0, (count, frames)).transpose(1, 2)
        features = self.trunk(features)  # (B, C, T, H, W)
        tokens = features.flatten(3).permute(0, 2, 3, 1)  # (B, T, N, C)
        logits = self.finders(tokens).transpose(2, 3).float()  # (B, T, Q, N)
        attention = logits.softmax(-1)
        seen = attention.to(tokens.dtype) @ tokens  # (B, T, Q, C)
        place = attention @ _grid(*features.shape[3:]).to(attention)  # (B, T, Q, 2)
        track = torch.cat([seen, place.to(seen), logits.amax(-1, keepdim=True).to(seen)], -1)
        found = self.objects(self.follow(track.transpose(1, 2).flatten(2)) + self.colour_embedding)
        world = self.world(features.mean((3, 4)).transpose(1, 2).flatten(1))
        return {
            "presence": self.presence(found)[..., 0],
            "shape": self.shape(found),
            "motion": self.motion(found),
            "background": self.background(world),
            "backdrop": self.backdrop(world),
            "camera": self.camera(world),
        }

    @torch.no_grad()
    def read(self, pixels: Tensor, objects: Sequence[int] | None = None) -> list[Reading]:
        """Read clips (B, 3, T, H, W) in [-1, 1].

        Args:
            pixels: the clips.
            objects: how many objects to report per clip; None reports those with a presence above one half.
        """
        scores = self(pixels)
        presence = scores["presence"].float().sigmoid()
        names = self.config
        readings = []
        for b in range(len(pixels)):
            order = presence[b].argsort(descending=True).tolist()
            count = int((presence[b] > 0.5).sum()) if objects is None else objects[b]
            things = tuple(
                ObjectReading(
                    names.colours[q],
                    names.shapes[int(scores["shape"][b, q].argmax())],
                    names.motions[int(scores["motion"][b, q].argmax())],
                    float(presence[b, q]),
                )
                for q in order[:count]
            )
            background = names.backgrounds[int(scores["background"][b].argmax())]
            backdrop = names.backdrops[int(scores["backdrop"][b].argmax())]
            readings.append(
                Reading(
                    things,
                    background,
                    backdrop if background in ("plain", "gradient") else None,
                    names.cameras[int(scores["camera"][b].argmax())],
                )
            )
        return readings


def resample(pixels: Tensor) -> Tensor:
    """Bring clips (B, 3, T, H, W) to 17 frames (nearest in time) of 64 x 64 pixels (antialiased)."""
    frames, height, width = pixels.shape[2:]
    if frames != FRAMES:
        index = torch.linspace(0, frames - 1, FRAMES).round().long()
        pixels = pixels[:, :, index]
    if (height, width) != (SIDE, SIDE):
        flat = pixels.transpose(1, 2).flatten(0, 1)
        flat = F.interpolate(flat, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        pixels = flat.unflatten(0, (len(pixels), FRAMES)).transpose(1, 2)
    return pixels


def _norm_act(convolution: nn.Module) -> nn.Sequential:
    channels: int = convolution.out_channels  # type: ignore[assignment]
    norm = nn.BatchNorm2d(channels) if isinstance(convolution, nn.Conv2d) else nn.BatchNorm3d(channels)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))


def _grid(height: int, width: int) -> Tensor:
    """Centres (N, 2) of the cells as (x, y) in [-1, 1], row by row."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2) * 2 - 1
