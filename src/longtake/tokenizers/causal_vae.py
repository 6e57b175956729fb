"""A causal video autoencoder: clips of 1 + 4n frames to 1 + n latent frames, an image being the clip of one frame.

Paper: "Wan: Open and Advanced Large-Scale Video Generative Models" (arXiv 2503.20314), the VAE. Every convolution over
time looks back only, so frame k changes no latent before its group, and a clip of any length runs through in chunks
(`encode_stream`, `decode_stream`) with the memory of one chunk and the output of one shot.

One class covers several published forms: `temporal_downsample` sets which levels halve time (none: stride 1x8x8, per
frame but causal), `patch_size` 2 folds 2x2 pixels into channels before the first convolution as in Wan 2.2. Parameters
are named and shaped as in diffusers' `AutoencoderKLWan`; `from_diffusers` and `to_diffusers` change the config alone.

The paper is silent on, and we choose: statistics per latent channel are measured after training
(`tokenizers.statistics`) and live in the config, so they are saved and loaded with it; latents handed out are
normalised with them.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.errors import BadInput, BadSize
from longtake.layers.causal_convolution import CausalConv3d, StreamState
from longtake.tokenizers.causal_networks import Decoder, Encoder
from longtake.tokenizers.diffusers_layout import config_from_diffusers, config_to_diffusers
from longtake.tokenizers.streams import DecodeStream, EncodeStream


class Reconstruction(NamedTuple):
    """What a training step needs of one pass: `pixels` (B, 3, T, H, W), not clamped; `mean` and `logvar`
    (B, C, T', H', W') of the posterior, not normalised."""

    pixels: Tensor
    mean: Tensor
    logvar: Tensor


class CausalVAE(ModelMixin, ConfigMixin):
    """Causal 3-D KL autoencoder; see the module's docstring.

    Args:
        in_channels: channels of a pixel.
        latent_channels: channels of a latent.
        base_width: width of the first level; level i has `base_width * multipliers[i]`.
        multipliers: one entry per level; each level but the last halves height and width.
        blocks_per_level: residual blocks per encoder level; the decoder has one more.
        temporal_downsample: for each level but the last, whether it halves time too.
        patch_size: side of the pixel square folded into channels at the door; 1 for none.
        latents_mean, latents_std: statistics of each latent channel, or None for 0 and 1 until they are measured.
        dropout: rate inside the residual blocks.
        shortcuts: parameter-free averaging shortcuts around each level, as in Wan 2.2.
        decoder_base_width: `base_width` of the decoder, or None for the encoder's.
        per_frame: take every frame of a clip as an image of its own, so that the stride in time is 1 and any number of
            frames fits (as Latte encodes clips, arXiv 2401.03048); a model of clips needs no other weights for it.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 16,
        base_width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks_per_level: int = 1,
        temporal_downsample: Sequence[bool] = (True, True),
        patch_size: int = 2,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        dropout: float = 0.0,
        decoder_base_width: int | None = None,
        shortcuts: bool = False,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        if len(temporal_downsample) != len(multipliers) - 1:
            raise BadInput(
                f"temporal_downsample has {len(temporal_downsample)} entries, expected {len(multipliers) - 1}: one for "
                f"each of the {len(multipliers)} multipliers but the last"
            )
        channels = in_channels * patch_size**2
        levels = (multipliers, blocks_per_level, temporal_downsample, dropout, shortcuts)
        self.encoder = Encoder(channels, 2 * latent_channels, base_width, *levels)
        self.quant_conv = CausalConv3d(2 * latent_channels, 2 * latent_channels, (1, 1, 1))
        self.post_quant_conv = CausalConv3d(latent_channels, latent_channels, (1, 1, 1))
        self.decoder = Decoder(latent_channels, channels, decoder_base_width or base_width, *levels)
        self.set_statistics(
            [0.0] * latent_channels if latents_mean is None else latents_mean,
            [1.0] * latent_channels if latents_std is None else latents_std,
        )

    # ---------------------------------------------------------------- shapes and statistics

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per latent along (time, height, width)."""
        space = self.config.patch_size * 2 ** (len(self.config.multipliers) - 1)
        time = 1 if self.config.per_frame else 2 ** sum(map(bool, self.config.temporal_downsample))
        return time, space, space

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The (T', H', W') of a clip's latents; `BadSize` names the nearest sizes when one does not fit."""
        time, space, _ = self.stride
        if frames < 1 or (frames - 1) % time:
            raise _bad_size("frames", frames, time, 1)
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % space:
                raise _bad_size(name, size, space, 0)
        return 1 + (frames - 1) // time, height // space, width // space

    def set_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Store the mean and standard deviation (> 0) of each latent channel in the config."""
        mean, std = [float(m) for m in mean], [float(s) for s in std]
        if len(mean) != self.config.latent_channels or len(std) != self.config.latent_channels or min(std) <= 0:
            raise BadInput(
                f"statistics of {len(mean)} means and {len(std)} deviations (least {min(std, default=0)}), expected "
                f"{self.config.latent_channels} of each and positive deviations"
            )
        self.register_to_config(latents_mean=mean, latents_std=std)

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, T', H', W') to zero mean and unit deviation per channel, in float32."""
        mean, std = self._statistics(latents)
        return (_at_least_float32(latents) - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        mean, std = self._statistics(latents)
        return _at_least_float32(latents) * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        kind = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
        mean = torch.tensor(self.config.latents_mean, **kind).view(1, -1, 1, 1, 1)
        return mean, torch.tensor(self.config.latents_std, **kind).view(1, -1, 1, 1, 1)

    def content_hash(self) -> str:
        """SHA-256 over names and bytes of the parameters, sorted by name, and the statistics: who trained on whom."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for values in (self.config.latents_mean, self.config.latents_std):
            digest.update(struct.pack(f"<{len(values)}d", *values))
        if self.config.per_frame:
            digest.update(b"per_frame")
        return digest.hexdigest()

    # ---------------------------------------------------------------- one shot

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Clip (B, 3, T, H, W) in [-1, 1] -> (mean, logvar), each (B, C, T', H', W'), not normalised.

        logvar is clamped to [-30, 20]. `BadSize` where the clip does not fit; differentiable.
        """
        self._check(pixels, self.config.in_channels)
        self.latent_shape(*pixels.shape[2:])
        return self.posterior_of_chunk(pixels)

    def posterior_of_chunk(self, pixels: Tensor, state: StreamState | None = None) -> tuple[Tensor, Tensor]:
        """`posterior` of the next frames of a stream: 1 + 4n of them in its first chunk, 4n in the later ones."""
        self._check(pixels, self.config.in_channels)
        frames = pixels.shape[2]
        if self.config.per_frame:
            pixels, state = _frames_apart(pixels), None
        x = _channels_last(fold_patches(pixels.to(self.dtype), self.config.patch_size))
        coded = self.quant_conv(self.encoder(x, state))
        mean, logvar = (_frames_joined(coded, frames) if self.config.per_frame else coded).chunk(2, dim=1)
        return _at_least_float32(mean), _at_least_float32(logvar).clamp(-30.0, 20.0)

    def encode(self, pixels: Tensor, *, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Clip (B, 3, T, H, W) in [-1, 1] -> normalised latents (B, C, T', H', W'), float32.

        The posterior's mean, or with `sample` a draw from it with `generator`.
        """
        mean, logvar = self.posterior(pixels)
        return self.normalise(draw(mean, logvar, generator) if sample else mean)

    def decode(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """Normalised latents (B, C, T', H', W') -> clip (B, 3, T, H, W), float32; clamped to [-1, 1] unless told not."""
        pixels = self.decode_chunk(latents)
        return pixels.clamp(-1.0, 1.0) if clamp else pixels

    def decode_chunk(self, latents: Tensor, state: StreamState | None = None) -> Tensor:
        """`decode` of the next latents of a stream, any number of them; not clamped."""
        self._check(latents, self.config.latent_channels)
        return self._decode(self.denormalise(latents), state)

    def _decode(self, raw: Tensor, state: StreamState | None = None) -> Tensor:
        frames = raw.shape[2]
        if self.config.per_frame:
            raw, state = _frames_apart(raw), None
        y = self.decoder(self.post_quant_conv(_channels_last(raw.to(self.dtype))), state)
        y = _at_least_float32(unfold_patches(y, self.config.patch_size))
        return _frames_joined(y, frames) if self.config.per_frame else y

    def forward(
        self, pixels: Tensor, *, sample: bool = True, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """The round trip of training: clip -> posterior -> a draw from it (or its mean) -> clip, not clamped."""
        mean, logvar = self.posterior(pixels)
        return Reconstruction(self._decode(draw(mean, logvar, generator) if sample else mean), mean, logvar)

    def _check(self, x: Tensor, channels: int) -> None:
        if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
            raise BadInput(
                f"a tensor of shape {tuple(x.shape)}; expected (batch, {channels}, frames, height, width), none of them 0"
            )

    # ---------------------------------------------------------------- streams

    def stream_chunk(self, height: int, width: int) -> int:
        """Latent frames that a stream of pixels of this size takes at a time unless told otherwise.

        A chunk costs a fixed time for preparing the weights, so a small picture goes several latents at a time: as many
        as make 1024 positions of latents times frames (four at 64x64 pixels and stride 4x8x8, one from 128x128 on).
        """
        time, rows, columns = self.stride
        return max(1, 1024 // (time * max(height // rows, 1) * max(width // columns, 1)))

    def encode_stream(self, chunks: Tensor | Iterable[Tensor], *, chunk: int | None = None) -> Iterator[Tensor]:
        """Encode a clip piece by piece; the pieces of latents, joined in time, equal `encode` of the whole clip.

        Args:
            chunks: pieces (B, 3, t, H, W) of one clip in order, of any lengths; frames short of a group are held until
                the next piece. Or a whole clip, which is cut into pieces of `chunk` groups of `stride[0]` frames, the
                first piece having frame 0 besides.
            chunk: see above; more takes more memory. None for `stream_chunk`.

        Yields normalised latents (B, C, t', H', W'), without gradients. Raises `BadSize` at the end when the last group
        is not full, `BadInput` when there was no frame.
        """
        stream, time = EncodeStream(self), self.stride[0]
        if isinstance(chunks, Tensor):
            chunk = self.stream_chunk(*chunks.shape[-2:]) if chunk is None else chunk
            chunks = _cut(chunks, 1 + chunk * time, chunk * time)
        for pixels in chunks:
            latents = stream.push(pixels)
            if latents is not None:
                yield latents
        stream.flush()

    def decode_stream(
        self, latents: Tensor | Iterable[Tensor], *, chunk: int | None = None, clamp: bool = True
    ) -> Iterator[Tensor]:
        """Decode latents piece by piece; the pieces of pixels, joined in time, equal `decode` of all the latents.

        Args:
            latents: normalised latents (B, C, T', H', W'), cut into pieces of `chunk` latent frames, the first piece
                having latent 0 besides; or an iterable of pieces, each decoded as it comes.
            chunk: see above; more takes more memory. None for `stream_chunk`.
            clamp: clamp to [-1, 1].

        Yields pixels (B, 3, t, H, W), float32, without gradients: 1 frame for latent 0, `stride[0]` for each other.
        """
        stream = DecodeStream(self)
        if isinstance(latents, Tensor):
            _, rows, columns = self.stride
            size = rows * latents.shape[-2], columns * latents.shape[-1]
            chunk = self.stream_chunk(*size) if chunk is None else chunk
            latents = _cut(latents, 1 + chunk, chunk)
        for piece in latents:
            yield stream.push(piece, clamp=clamp)

    # ---------------------------------------------------------------- diffusers

    @classmethod
    def from_diffusers(
        cls, source: nn.Module | Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> "CausalVAE":
        """A copy of diffusers' `AutoencoderKLWan`, or of its state dict together with its config.

        The statistics come along. `BadInput` for the forms that are not built here (see `diffusers_layout`).
        """
        if isinstance(source, nn.Module):
            source, config = source.state_dict(), source.config  # pyright: ignore[reportAssignmentType]
        if config is None:
            raise BadInput("a state dict without a config; pass the config of the AutoencoderKLWan that it came from")
        vae = cls(**config_from_diffusers(config))
        vae.load_state_dict(source)
        first = next(iter(source.values()))
        nn.Module.to(vae, device=first.device, dtype=first.dtype)  # ModelMixin.to warns of what is not so here
        return vae

    def to_diffusers(self) -> nn.Module:
        """A copy of this tokenizer as diffusers' `AutoencoderKLWan`, with the same outputs; diffusers' latents are raw."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        if self.config.per_frame:
            raise BadInput(
                "per_frame has no form in diffusers, which takes whole clips; export it with per_frame=False"
            )
        other = AutoencoderKLWan(**config_to_diffusers(self.config, self.stride))
        other.load_state_dict(self.state_dict())
        return nn.Module.to(other, device=self.device, dtype=self.dtype).train(self.training)


def _cut(clip: Tensor, first: int, size: int) -> Iterator[Tensor]:
    """A clip in pieces of `first`, then `size` frames."""
    yield clip[:, :, :first]
    for start in range(first, clip.shape[2], size):
        yield clip[:, :, start : start + size]


def draw(mean: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """mean + exp(logvar / 2) * standard normal noise, of the same shape. The generator may live on the CPU."""
    device = mean.device if generator is None else generator.device
    noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
    return mean + torch.exp(0.5 * logvar) * noise.to(mean.device)


def fold_patches(pixels: Tensor, patch: int) -> Tensor:
    """(B, C, T, H, W) -> (B, C * patch^2, T, H / patch, W / patch); channels ordered (C, column, row) in the patch."""
    if patch == 1:
        return pixels
    B, C, T, H, W = pixels.shape
    x = pixels.reshape(B, C, T, H // patch, patch, W // patch, patch)
    return x.permute(0, 1, 6, 4, 2, 3, 5).reshape(B, C * patch**2, T, H // patch, W // patch)


def unfold_patches(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold_patches`."""
    if patch == 1:
        return x
    B, C, T, H, W = x.shape
    x = x.reshape(B, C // patch**2, patch, patch, T, H, W)
    return x.permute(0, 1, 4, 5, 3, 6, 2).reshape(B, C // patch**2, T, H * patch, W * patch)


def _frames_apart(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B T, C, 1, H, W)."""
    return x.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _frames_joined(x: Tensor, frames: int) -> Tensor:
    """The inverse of `_frames_apart`."""
    return x.squeeze(2).unflatten(0, (-1, frames)).transpose(1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """Channels last in memory, which every layer keeps: 2-D layers then see frames without a copy, and the CPU's
    convolutions need no reordering."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _bad_size(name: str, value: int, step: int, first: int) -> BadSize:
    below = first + (value - first) // step * step
    sizes = [s for s in (below, below + step) if s >= max(first, 1)] or [first + step]
    form = f"{first} + {step}n" if first else f"a multiple of {step}"
    return BadSize(f"{name} {value} does not fit this tokenizer, which takes {form}; nearest: {_either(sizes)}")


def _either(sizes: Sequence[int]) -> str:
    return " or ".join(map(str, sizes))
