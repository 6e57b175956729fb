"""Streams: chunks equal one shot, any cutting will do, memory does not grow with the clip."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longtake.errors import BadInput, BadSize
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.tokenizers.streams import DecodeStream, EncodeStream

FORMS = {
    "4x8x8": {},
    "1x8x8": {"temporal_downsample": (False, False)},
    "deep": {"patch_size": 1, "multipliers": (1, 2, 4, 4), "temporal_downsample": (False, True, True)},
    "shortcuts": {"shortcuts": True, "multipliers": (1, 2, 2)},
}


def tiny(form="4x8x8"):
    """Weights of unit scale: at PyTorch's default scale a wrong history would hardly show."""
    vae = CausalVAE(latent_channels=4, base_width=8, **FORMS[form]).eval()
    for name, value in vae.named_parameters():
        if value.ndim > 3 and not name.endswith("gamma"):
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
    vae.set_statistics([0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 1.0, 2.0])
    return vae


def clip(frames, seed=0):
    return torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def joined(pieces):
    return torch.cat(list(pieces), dim=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 2, 3, None])
@torch.no_grad()
def test_streams_equal_one_shot(form, chunk):
    vae, pixels = tiny(form), clip(17)
    latents = vae.encode(pixels)
    torch.testing.assert_close(joined(vae.encode_stream(pixels, chunk=chunk)), latents, atol=1e-5, rtol=1e-5)
    decoded = vae.decode(latents, clamp=False)
    streamed = joined(vae.decode_stream(latents, chunk=chunk, clamp=False))
    torch.testing.assert_close(streamed, decoded, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joined(vae.decode_stream(latents, chunk=chunk)), decoded.clamp(-1, 1), atol=1e-5, rtol=0)


def test_small_pictures_go_several_latents_at_a_time():
    vae = tiny()
    assert [vae.stream_chunk(*size) for size in ((64, 64), (128, 128), (480, 832), (8, 8))] == [4, 1, 1, 256]
    assert [piece.shape[2] for piece in vae.decode_stream(torch.randn(1, 4, 6, 8, 8))] == [17, 4]
    assert [piece.shape[2] for piece in vae.encode_stream(torch.zeros(1, 3, 21, 64, 64))] == [5, 1]


@torch.no_grad()
def test_the_state_matters():
    """Decoding each latent with a fresh state gives something else, so the equality above is the state's work."""
    vae = tiny()
    latents = vae.encode(clip(9))
    forgetful = torch.cat([DecodeStream(vae).push(piece) for piece in latents.split(1, dim=2)], dim=2)
    assert forgetful.shape[2] == 3  # each one thinks that it is the first
    assert (forgetful[:, :, 1] - vae.decode(latents)[:, :, 1]).abs().max() > 1e-2


@pytest.mark.parametrize("cuts", [[1, 4, 4, 4, 4], [17], [2, 3, 7, 1, 4], [1] * 17, [5, 12], [0, 17, 0]])
def test_any_cutting_of_the_pixels_gives_the_same_latents(cuts):
    vae, pixels = tiny(), clip(17)
    pieces = list(vae.encode_stream(iter(pixels.split(cuts, dim=2))))
    torch.testing.assert_close(joined(pieces), vae.encode(pixels).detach(), atol=1e-5, rtol=1e-5)
    assert not any(piece.requires_grad for piece in pieces)


@pytest.mark.parametrize("cuts", [[5], [1, 1, 3], [2, 0, 3]])
def test_any_cutting_of_the_latents_gives_the_same_pixels(cuts):
    vae = tiny()
    latents = torch.randn(1, 4, 5, 2, 2)
    cuts = [piece for piece in latents.split(cuts, dim=2) if piece.shape[2]]
    torch.testing.assert_close(joined(vae.decode_stream(cuts)), vae.decode(latents).detach(), atol=1e-5, rtol=1e-5)


def test_latents_come_out_as_soon_as_their_group_is_full():
    stream, pixels = EncodeStream(tiny()), clip(9)
    sizes = [None if out is None else out.shape[2] for out in map(stream.push, pixels.split(1, dim=2))]
    assert sizes == [1, None, None, None, 1, None, None, None, 1]
    stream.flush()


def test_missing_frames_raise_at_the_end():
    vae = tiny()
    stream = vae.encode_stream(clip(16).split([1, 8, 7], dim=2))
    assert [next(stream).shape[2] for _ in range(3)] == [1, 2, 1]
    with pytest.raises(BadSize, match=r"frames 16 .* nearest: 13 or 17"):
        next(stream)
    with pytest.raises(BadInput, match="without a frame"):
        list(vae.encode_stream([]))
    with pytest.raises(BadSize, match=r"height 20 .* nearest: 16 or 24"):
        list(vae.encode_stream([torch.zeros(1, 3, 1, 20, 16)]))
    with pytest.raises(BadInput, match="same"):
        list(vae.encode_stream([torch.zeros(1, 3, 1, 16, 16), torch.zeros(1, 3, 4, 16, 24)]))


@torch.no_grad()
def test_two_clips_stream_through_one_tokenizer():
    vae, a, b = tiny(), clip(9, seed=1), clip(9, seed=2)
    streams = vae.encode_stream(a), vae.encode_stream(b)
    pairs = list(zip(*streams, strict=True))  # in turns
    decoders = DecodeStream(vae), DecodeStream(vae)
    for i, whole in enumerate((a, b)):
        latents = joined(pair[i] for pair in pairs)
        torch.testing.assert_close(latents, vae.encode(whole), atol=1e-5, rtol=1e-5)
    decoded = [[decoder.push(z) for decoder, z in zip(decoders, pair, strict=True)] for pair in pairs]
    for i, whole in enumerate((a, b)):
        torch.testing.assert_close(joined(d[i] for d in decoded), vae.decode(vae.encode(whole)), atol=1e-5, rtol=1e-5)


class LiveBytes(TorchDispatchMode):
    """Peak of the bytes of all tensors alive that were made inside."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: pair for key, pair in self.alive.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def peak_of(function):
    with torch.no_grad(), LiveBytes() as live:
        function()
    return live.peak


def fresh(count, channels, frames, size):
    """Chunks that exist only while they are used, as from a file: the first of 1 frame, the rest of `frames`."""
    for i in range(count):
        yield torch.zeros(1, channels, frames if i else 1, size, size)


def drain(stream):
    for _ in stream:
        pass


@pytest.mark.parametrize("form", ["4x8x8", "shortcuts"])
def test_memory_of_a_stream_is_flat_in_the_length_of_the_clip(form):
    vae = tiny(form)
    groups = {17: 1 + 16 // vae.stride[0], 65: 1 + 64 // vae.stride[0]}
    encode = {
        n: peak_of(lambda g=g: drain(vae.encode_stream(fresh(g, 3, vae.stride[0], 32)))) for n, g in groups.items()
    }
    decode = {n: peak_of(lambda g=g: drain(vae.decode_stream(fresh(g, 4, 1, 4)))) for n, g in groups.items()}
    assert encode[65] <= encode[17] * 1.02
    assert decode[65] <= decode[17] * 1.02


def test_memory_of_one_shot_grows_so_the_measure_above_would_show_it():
    vae = tiny()
    peaks = [peak_of(lambda n=n: vae.encode(torch.zeros(1, 3, n, 32, 32))) for n in (17, 65)]
    assert peaks[1] > 3 * peaks[0]
