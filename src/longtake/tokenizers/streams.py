"""Run a causal autoencoder over a clip of any length in chunks, with the memory of one chunk.

A stream is one clip's pass: it owns the `StreamState` of its network, so streams of several clips interleave freely
over one tokenizer. Joined in time, what a stream hands out equals the one-shot output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longtake.errors import BadInput, BadSize
from longtake.layers.causal_convolution import StreamState

if TYPE_CHECKING:
    from longtake.tokenizers.causal_vae import CausalVAE


class EncodeStream:
    """Pixels in, in pieces of any length; latents out as soon as a group of frames is complete.

    The first frame is a group of its own, then every `stride[0]` frames are one. Frames short of a group are held until
    the rest comes, and `flush` raises when it never does. Runs without gradients.
    """

    def __init__(self, vae: CausalVAE) -> None:
        self.vae = vae
        self.state = StreamState()
        self.frames = 0  # frames encoded so far
        self._held: Tensor | None = None

    @torch.no_grad()
    def push(self, pixels: Tensor) -> Tensor | None:
        """(B, 3, t, H, W) in [-1, 1], any t >= 0 -> normalised latents (B, C, t', H', W') or None if no group is full."""
        self.vae.latent_shape(1, *pixels.shape[3:])
        if self._held is not None:
            if self._held.shape[:2] + self._held.shape[3:] != pixels.shape[:2] + pixels.shape[3:]:
                raise BadInput(
                    f"a chunk of shape {tuple(pixels.shape)} in a stream of {tuple(self._held.shape)}; expected the same "
                    "batch, channels, height and width in every chunk of one clip"
                )
            pixels = torch.cat([self._held, pixels], dim=2)
        stride, frames = self.vae.stride[0], pixels.shape[2]
        ready = frames // stride * stride if self.frames else frames and 1 + (frames - 1) // stride * stride
        self._held = pixels[:, :, ready:].clone()  # also when empty: it remembers the shape
        if not ready:
            return None
        self.frames += ready
        mean, _ = self.vae.posterior_of_chunk(pixels[:, :, :ready], self.state)
        return self.vae.normalise(mean)

    def flush(self) -> None:
        """End the clip. `BadSize` when frames are held that fill no group, `BadInput` when there were none at all."""
        held = 0 if self._held is None else self._held.shape[2]
        if held:
            self.vae.latent_shape(self.frames + held, *self.vae.stride[1:])  # raises, naming the nearest counts
            raise BadSize(f"{held} frames were left over")
        if not self.frames:
            raise BadInput("the stream ended without a frame; expected at least one")


class DecodeStream:
    """Latents in, in pieces of any length; each piece's pixels out at once. Runs without gradients."""

    def __init__(self, vae: CausalVAE) -> None:
        self.vae = vae
        self.state = StreamState()

    @torch.no_grad()
    def push(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """Normalised latents (B, C, t', H', W'), t' >= 1 -> pixels (B, 3, t, H, W) in [-1, 1]: the clip's next frames."""
        pixels = self.vae.decode_chunk(latents, self.state)
        return pixels.clamp_(-1.0, 1.0) if clamp else pixels
