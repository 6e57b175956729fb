"""An image autoencoder as a tokenizer of clips: every frame is encoded by itself, as Latte does (arXiv 2401.03048).

The network is diffusers' `AutoencoderKL`, Stable Diffusion's for the published Lattes: stride 1x8x8, four channels,
latents multiplied by 0.18215. Its weights come from the user; nothing of it is trained here.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from longtake.errors import BadInput, BadSize, UnknownModel

ROW = 64  # frames of 64x64 pixels that are encoded or decoded at a time; fewer of larger ones


def load_image_autoencoder(folder: str | Path) -> "FrameVAE":
    """The tokenizer of a folder that diffusers' `AutoencoderKL` was saved in.

    Raises:
        UnknownModel: the folder holds none that loads.
    """
    try:
        vae = AutoencoderKL.from_pretrained(str(folder), low_cpu_mem_usage=False).float()
    except (OSError, ValueError, RuntimeError) as error:
        raise UnknownModel(f"{folder} holds no AutoencoderKL that loads ({str(error).splitlines()[0]}).") from error
    return FrameVAE.from_diffusers(vae)


class FrameVAE(ModelMixin, ConfigMixin):
    """The tokenizer.

    Args:
        arguments: of `AutoencoderKL`.
        latent_channels: channels of its latents, for those who ask this tokenizer.
    """

    @register_to_config
    def __init__(self, arguments: Mapping[str, Any] | None = None, latent_channels: int = 4) -> None:
        super().__init__()
        self.network = AutoencoderKL(**{"latent_channels": latent_channels, **(arguments or {})})
        if self.network.config.latent_channels != latent_channels:
            raise BadInput(
                f"latent_channels {latent_channels}, and the autoencoder has {self.network.config.latent_channels}"
            )

    @classmethod
    def from_diffusers(cls, vae: AutoencoderKL) -> "FrameVAE":
        """A copy of an `AutoencoderKL` as a tokenizer."""
        config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
        made = cls(arguments=config, latent_channels=vae.config.latent_channels)
        made.network.load_state_dict(vae.state_dict())
        return made.eval()

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent along (time, height, width)."""
        space = 2 ** (len(self.network.config.block_out_channels) - 1)
        return 1, space, space

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The (T', H', W') of a clip's latents. Raises BadSize, naming the nearest sizes, for a clip that does not fit."""
        space = self.stride[1]
        if frames < 1:
            raise BadSize(f"frames {frames} does not fit this tokenizer; nearest: 1")
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % space:
                near = sorted({max(space, size // space * space), (max(size, 0) // space + 1) * space})
                sizes = " or ".join(map(str, near))
                raise BadSize(f"{name} {size} does not fit this tokenizer, a multiple of {space}; nearest: {sizes}")
        return frames, height // space, width // space

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Clip (B, 3, T, H, W) in [-1, 1] -> (mean, logvar), each (B, C, T, H', W') float32, not scaled."""
        self.latent_shape(*pixels.shape[2:])
        rows = []
        for frames in self._rows(pixels.transpose(1, 2).flatten(0, 1), pixels.shape[-2] * pixels.shape[-1]):
            posterior = self.network.encode(frames.to(self.dtype)).latent_dist
            rows.append(torch.stack([posterior.mean, posterior.logvar]))
        both = torch.cat(rows, dim=1).float().unflatten(1, (len(pixels), -1)).transpose(2, 3)
        return both[0], both[1]

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents to scaled ones."""
        return (latents - (self.network.config.shift_factor or 0.0)) * self.network.config.scaling_factor

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents / self.network.config.scaling_factor + (self.network.config.shift_factor or 0.0)

    def encode(self, pixels: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) in [-1, 1] -> scaled latents (B, C, T, H', W'), float32: the posterior's mean."""
        return self.normalise(self.posterior(pixels)[0])

    @torch.no_grad()
    def decode(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """Scaled latents (B, C, T, H', W') -> clip (B, 3, T, H, W), float32; clamped to [-1, 1] unless told not."""
        raw = self.denormalise(latents.float())
        area = raw.shape[-2] * raw.shape[-1] * self.stride[1] ** 2
        rows = [
            self.network.decode(part.to(self.dtype)).sample
            for part in self._rows(raw.transpose(1, 2).flatten(0, 1), area)
        ]
        pixels = torch.cat(rows).float().unflatten(0, (len(latents), -1)).transpose(1, 2)
        return pixels.clamp(-1, 1) if clamp else pixels

    def decode_stream(self, latents: Tensor | Iterable[Tensor], *, clamp: bool = True) -> Iterator[Tensor]:
        """Decode pieces of latents as they come; a whole clip is decoded a frame at a time."""
        for piece in latents.split(1, dim=2) if isinstance(latents, Tensor) else latents:
            yield self.decode(piece, clamp=clamp)

    def content_hash(self) -> str:
        """SHA-256 over names and bytes of the parameters and the scaling: who trained on whom."""
        digest = hashlib.sha256(f"{self.network.config.scaling_factor} {self.network.config.shift_factor}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _rows(self, frames: Tensor, area: int) -> Iterator[Tensor]:
        """Frames (N, C, h, w) in parts that hold as much as ROW small ones."""
        yield from frames.split(max(1, ROW * 64 * 64 // area))
