"""A video tokenizer whose codes do not say where in a clip they are: 3-D VQGAN with replicate padding.

Paper: "Long Video Generation with Time-Agnostic VQGAN and Time-Sensitive Transformer" (TATS, arXiv 2204.03638), section
3.2. Convolutions over time, not causal, without zero padding, so codes of different windows can be set side by side and
decoded as one video:

    encode   conv 3; per level: conv 4 that halves, residual block; norm, SiLU; conv 1; nearest code
    decode   conv 1; norm, SiLU; per level: transposed conv 4 that doubles, two residual blocks; conv 3

An axis that is halved fewer times than another is halved in the first levels of both encoder and decoder, as published.
Inside, pixels are in [-0.5, 0.5], as published; at the door they are in [-1, 1] as everywhere here.

A clip of ids of any length is decoded in pieces (`decode_stream`): each piece is decoded with just as many ids around it
as its pixels depend on, found by following the convolutions back, so that the joined pieces equal the one-pass output.
With `norm="group"`, whose statistics are over the whole clip, no such pieces exist, and codes depend on the window: batch
norm, as published, is the default. Its statistics are those of training; put the tokenizer into evaluation mode.

Where the paper is silent: fewer than 32 channels are normalised in as many groups.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.errors import BadInput, BadSize, UnknownName, nearest
from longtake.layers.padded_convolution import PaddedConv3d, PaddedTransposedConv3d
from longtake.layers.vector_quantizer import Quantized, VectorQuantizer

NORMS = ("batch", "group")


class Coded(NamedTuple):
    """One round trip of training: `pixels` (B, C, T, H, W), not clamped; `vectors` (B, D, t, h, w) before and `quantized`
    after the lookup."""

    pixels: Tensor
    vectors: Tensor
    quantized: Quantized


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), kernel 3."""

    def __init__(self, width: int, norm: str, padding: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(norm, width), _norm(norm, width)
        self.conv1 = PaddedConv3d(width, width, 3, mode=padding)
        self.conv2 = PaddedConv3d(width, width, 3, mode=padding)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class Encoder(nn.Module):
    """Pixels (B, C, T, H, W) -> features (B, base_width * 2^levels, t, h, w)."""

    def __init__(
        self, channels: int, base_width: int, strides: Sequence[tuple[int, int, int]], norm: str, padding: str
    ):
        super().__init__()
        self.conv_in = PaddedConv3d(channels, base_width, 3, mode=padding)
        self.levels, width = nn.ModuleList(), base_width
        for stride in strides:
            halve = PaddedConv3d(width, 2 * width, 4, stride, padding)
            width *= 2
            self.levels.append(nn.Sequential(halve, ResidualBlock(width, norm, padding)))
        self.norm_out = _norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        return F.silu(self.norm_out(x))


class Decoder(nn.Module):
    """Features (B, base_width * 2^levels, t, h, w) -> pixels (B, C, T, H, W)."""

    def __init__(
        self, channels: int, base_width: int, strides: Sequence[tuple[int, int, int]], norm: str, padding: str
    ):
        super().__init__()
        width = base_width * 2 ** len(strides)
        self.norm_in = _norm(norm, width)
        self.levels = nn.ModuleList()
        for level, stride in enumerate(strides):
            after = width if level == 0 else width // 2
            double = PaddedTransposedConv3d(width, after, 4, stride, padding)
            blocks = (ResidualBlock(after, norm, padding) for _ in range(2))
            self.levels.append(nn.Sequential(double, *blocks))
            width = after
        self.conv_out = PaddedConv3d(width, channels, 3, mode=padding)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm_in(x))
        for level in self.levels:
            x = level(x)
        return self.conv_out(x)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """First and last latent frame that frames `first` to `last` are made of; they may lie outside the clip."""
        convolutions = [m for m in self.modules() if isinstance(m, PaddedConv3d | PaddedTransposedConv3d)]
        for convolution in reversed(convolutions):  # as they run; a shortcut needs less than what it goes around
            first, last = convolution.needs(first, last)
        return first, last


class VQGAN3d(ModelMixin, ConfigMixin):
    """The tokenizer; see the module's docstring. The defaults are the published setting.

    Args:
        channels: of a pixel; 1 for spectrograms.
        base_width: channels behind the first convolution, doubled at each level.
        downsample: pixels per token along (time, height, width), powers of two.
        codes: K of the codebook.
        code_width: features of a code.
        padding: "replicate", "constant", "reflect" or "circular", of every convolution.
        norm: "batch" or "group".
        decay, restart_below: of `VectorQuantizer`; published with and without restarts.

    Raises:
        BadInput, UnknownName: a value out of its range.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 3,
        base_width: int = 32,
        downsample: Sequence[int] = (4, 8, 8),
        codes: int = 16384,
        code_width: int = 256,
        padding: str = "replicate",
        norm: str = "batch",
        decay: float = 0.99,
        restart_below: float = 0.0,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UnknownName(f"no norm of this tokenizer is called '{norm}'.{nearest(norm, NORMS)}")
        parts = channels, base_width, _strides(downsample), norm, padding
        width = base_width * 2 ** len(parts[2])
        self.encoder = Encoder(*parts)
        self.pre_quant = PaddedConv3d(width, code_width, 1)
        self.quantizer = VectorQuantizer(codes, code_width, decay, restart_below)
        self.post_quant = PaddedConv3d(code_width, width, 1)
        self.decoder = Decoder(*parts)

    # ---------------------------------------------------------------- sizes and identity

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per token along (time, height, width)."""
        time, height, width = self.config.downsample
        return time, height, width

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The (t, h, w) of a clip's ids. Raises BadSize, naming the nearest sizes, for a clip that does not fit."""
        for name, size, step in zip(("frames", "height", "width"), (frames, height, width), self.stride, strict=True):
            if size < 1 or size % step:
                near = sorted({max(step, size // step * step), (max(size, 0) // step + 1) * step})
                sizes = " or ".join(map(str, near))
                raise BadSize(f"{name} {size} does not fit this tokenizer, a multiple of {step}; nearest: {sizes}")
        time, rows, columns = self.stride
        return frames // time, height // rows, width // columns

    def content_hash(self) -> str:
        """SHA-256 over the padding, the norm, and names and bytes of all weights and buffers: who trained on whom."""
        digest = hashlib.sha256(f"{self.config.padding} {self.config.norm}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    # ---------------------------------------------------------------- one pass

    def vectors(self, pixels: Tensor) -> Tensor:
        """Clip (B, C, T, H, W) in [-1, 1] -> vectors (B, D, t, h, w) before the lookup; differentiable.

        Raises:
            BadInput, BadSize: a tensor of another form or size.
        """
        if pixels.ndim != 5 or pixels.shape[1] != self.config.channels:
            raise BadInput(
                f"a tensor of shape {tuple(pixels.shape)}; expected (batch, {self.config.channels}, frames, height, width)"
            )
        self.latent_shape(*pixels.shape[2:])
        return self.pre_quant(self.encoder(_channels_last(pixels.to(self.dtype) / 2)))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Clip (B, C, T, H, W) in [-1, 1] -> ids int64 (B, t, h, w)."""
        return self.quantizer.nearest(self.vectors(pixels))

    def codes(self, ids: Tensor) -> Tensor:
        """Ids (B, t, h, w) -> their codes (B, D, t, h, w). Raises BadInput for a number that no code has."""
        return self.quantizer.lookup(ids)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Codes (B, D, t, h, w) -> pixels (B, C, T, H, W), float32, not clamped; differentiable."""
        return self.decoder(self.post_quant(_channels_last(vectors.to(self.dtype)))).float() * 2

    @torch.no_grad()
    def decode(self, ids: Tensor, *, clamp: bool = True) -> Tensor:
        """Ids (B, t, h, w) -> clip (B, C, T, H, W), float32, in one pass; clamped to [-1, 1] unless told not."""
        pixels = self.decode_vectors(self.codes(ids))
        return pixels.clamp(-1.0, 1.0) if clamp else pixels

    def forward(self, pixels: Tensor) -> Coded:
        """The round trip of training: clip -> vectors -> nearest codes -> clip. The codebook is left as it is."""
        vectors = self.vectors(pixels)
        quantized = self.quantizer(vectors)
        return Coded(self.decode_vectors(quantized.vectors), vectors, quantized)

    # ---------------------------------------------------------------- any length

    @property
    def context(self) -> tuple[int, int]:
        """Latent frames in front of and behind a latent frame that its pixels depend on, besides itself."""
        first, last = self.decoder.needs(0, self.stride[0] - 1)
        return -first, last

    def decode_stream(self, ids: Tensor, *, chunk: int = 16, clamp: bool = True) -> Iterator[Tensor]:
        """Decode ids (B, t, h, w) of any length in pieces of `chunk` latent frames, with the memory of one piece.

        Yields pixels (B, C, chunk * stride, H, W), the last piece shorter; joined in time they equal `decode`.

        Raises:
            BadInput: group norm, whose statistics are of the whole clip.
        """
        if self.config.norm == "group":
            raise BadInput(
                "norm 'group' has statistics over the whole clip, so pieces would differ from it; use decode"
            )
        time, length = self.stride[0], ids.shape[1]
        for start in range(0, length, chunk):
            end = min(start + chunk, length)
            first, last = self.decoder.needs(start * time, end * time - 1)
            if self.config.padding == "circular":  # what is in front of the first frame is the last one
                around = torch.arange(first, last + 1, device=ids.device) % length
            else:
                first = max(first, 0)
                around = torch.arange(first, min(last + 1, length), device=ids.device)
            pixels = self.decode(ids[:, around], clamp=clamp)
            yield pixels[:, :, (start - first) * time : (end - first) * time]


def _strides(downsample: Sequence[int]) -> list[tuple[int, int, int]]:
    """Stride of each level: 2 on the axes that are still to be halved."""
    times = [int(math.log2(d)) if d > 0 else -1 for d in downsample]
    if len(times) != 3 or any(d != 2**n for d, n in zip(downsample, times, strict=True)) or not max(times):
        raise BadInput(f"downsample is {tuple(downsample)}; expected three powers of two, not all 1, such as (4, 8, 8)")
    time, rows, columns = times
    return [(1 + (time > level), 1 + (rows > level), 1 + (columns > level)) for level in range(max(times))]


def _norm(kind: str, width: int) -> nn.Module:
    return nn.BatchNorm3d(width) if kind == "batch" else nn.GroupNorm(math.gcd(32, width), width, eps=1e-6)


def _channels_last(x: Tensor) -> Tensor:
    """Channels last in memory, which the CPU's convolutions need no reordering for."""
    return x.contiguous(memory_format=torch.channels_last_3d)
