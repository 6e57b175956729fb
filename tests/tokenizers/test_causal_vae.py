"""The causal autoencoder in one shot: sizes, causality, statistics, saving, training."""

import re

import pytest
import torch

from longtake.errors import BadInput, BadSize
from longtake.tokenizers.causal_vae import CausalVAE, fold_patches, unfold_patches


def tiny(**changes):
    settings = {"latent_channels": 4, "base_width": 8} | changes
    return CausalVAE(**settings).eval()


FORMS = {
    "4x8x8": {},
    "1x8x8": {"temporal_downsample": (False, False)},
    "unpatched": {"patch_size": 1, "multipliers": (1, 2, 4, 4), "temporal_downsample": (False, True, True)},
    "shortcuts": {"shortcuts": True, "multipliers": (1, 2, 2)},
    "wide decoder": {"decoder_base_width": 16, "blocks_per_level": 2},
}


@pytest.mark.parametrize("form", FORMS)
def test_shapes_follow_the_stride(form):
    vae = tiny(**FORMS[form])
    time = vae.stride[0]
    assert vae.stride == ((1 if form == "1x8x8" else 4), 8, 8)
    for frames in (1, 1 + time, 1 + 2 * time):
        pixels = torch.rand(2, 3, frames, 16, 24) * 2 - 1
        with torch.no_grad():
            latents = vae.encode(pixels)
            decoded = vae.decode(latents)
        assert latents.shape == (2, 4, *vae.latent_shape(frames, 16, 24)) == (2, 4, 1 + (frames - 1) // time, 2, 3)
        assert decoded.shape == pixels.shape and decoded.dtype == torch.float32


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((16, 64, 64), "frames 16 .*nearest: 13 or 17"),
        ((2, 64, 64), "frames 2 .*nearest: 1 or 5"),
        ((0, 64, 64), "frames 0 .*nearest: 1$"),
        ((17, 60, 64), "height 60 .*nearest: 56 or 64"),
        ((17, 64, 3), "width 3 .*nearest: 8$"),
        ((17, -8, 64), "height -8 .*nearest: 8$"),
    ],
)
def test_a_size_that_does_not_fit_names_the_nearest(size, nearest):
    vae = tiny()
    with pytest.raises(BadSize, match=nearest) as raised:
        vae.latent_shape(*size)
    assert "\n" not in str(raised.value)
    for value in map(int, re.findall(r"\d+", str(raised.value).split("nearest:")[1])):
        name = str(raised.value).split()[0]
        vae.latent_shape(**({"frames": 17, "height": 64, "width": 64} | {name: value}))  # what it names does fit


def test_encode_refuses_what_does_not_fit():
    vae = tiny()
    with pytest.raises(BadSize, match="nearest: 5 or 9"):
        vae.encode(torch.zeros(1, 3, 6, 16, 16))
    for wrong in (torch.zeros(1, 4, 5, 16, 16), torch.zeros(3, 5, 16, 16), torch.zeros(0, 3, 5, 16, 16)):
        with pytest.raises(BadInput, match="expected"):
            vae.encode(wrong)
    with pytest.raises(BadInput, match="expected"):
        vae.decode(torch.zeros(1, 3, 2, 2, 2))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_frame_changes_no_latent_before_its_group(form):
    vae = tiny(**FORMS[form])
    time, pixels = vae.stride[0], torch.rand(1, 3, 9, 16, 16) * 2 - 1
    before = vae.encode(pixels)
    for frame in (0, 1, 4, 5, 8):
        changed = pixels.clone()
        changed[:, :, frame] = -changed[:, :, frame]
        after, group = vae.encode(changed), (frame + time - 1) // time
        assert torch.equal(before[:, :, :group], after[:, :, :group])
        assert not torch.equal(before[:, :, group], after[:, :, group])


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_latent_changes_no_frame_before_its_group(form):
    vae = tiny(**FORMS[form])
    time, latents = vae.stride[0], torch.randn(1, 4, 4, 2, 2)
    before = vae.decode(latents, clamp=False)
    changed = latents.clone()
    changed[:, :, 2] += 1
    after, start = vae.decode(changed, clamp=False), 1 + time
    assert torch.equal(before[:, :, :start], after[:, :, :start])
    assert not torch.equal(before[:, :, start : start + time], after[:, :, start : start + time])


@torch.no_grad()
def test_latents_are_normalised_with_the_statistics_and_decode_undoes_it():
    vae, pixels = tiny(), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    raw, _ = vae.posterior(pixels)
    plain = vae.decode(vae.encode(pixels), clamp=False)
    mean, std = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 0.5, 3.0])
    vae.set_statistics(mean, std)
    latents = vae.encode(pixels)
    torch.testing.assert_close(latents, (raw - mean.view(1, 4, 1, 1, 1)) / std.view(1, 4, 1, 1, 1))
    torch.testing.assert_close(vae.decode(latents, clamp=False), plain, atol=1e-5, rtol=1e-5)
    for bad in ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]):
        with pytest.raises(BadInput, match="statistics"):
            vae.set_statistics([0.0] * len(bad), bad)


@torch.no_grad()
def test_sampling_draws_from_the_posterior():
    vae, pixels = tiny(), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    draws = [vae.encode(pixels, sample=True, generator=torch.Generator().manual_seed(s)) for s in range(80)]
    again = vae.encode(pixels, sample=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws[0], again) and not torch.equal(draws[0], draws[1])
    mean, logvar = vae.posterior(pixels)
    draws = torch.stack(draws)
    assert ((draws.mean(0) - mean) / torch.exp(0.5 * logvar)).abs().max() < 6 / 80**0.5
    torch.testing.assert_close(draws.std(0).log().mean(), 0.5 * logvar.mean(), atol=0.02, rtol=0)


def test_save_and_load_keep_weights_statistics_and_hash(tmp_path):
    vae = tiny()
    fresh = vae.content_hash()
    vae.set_statistics([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0])
    assert vae.content_hash() != fresh
    vae.save_pretrained(tmp_path)
    loaded = CausalVAE.from_pretrained(tmp_path)
    assert loaded.config.latents_mean == [0.1, 0.2, 0.3, 0.4] and loaded.config.latents_std == [1.0, 2.0, 3.0, 4.0]
    assert loaded.content_hash() == vae.content_hash()
    latents = torch.randn(1, 4, 2, 2, 2)
    with torch.no_grad():
        assert torch.equal(loaded.decode(latents), vae.decode(latents))
        next(loaded.parameters()).view(-1)[0] += 1e-3
    assert loaded.content_hash() != vae.content_hash()


@torch.no_grad()
def test_half_precision_weights_take_and_give_float32():
    vae = tiny()
    half = tiny()
    half.load_state_dict(vae.state_dict())
    half = torch.nn.Module.to(half, torch.bfloat16)
    pixels = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    latents = half.encode(pixels)
    decoded = half.decode(latents)
    assert latents.dtype == decoded.dtype == torch.float32
    reference = vae.encode(pixels)
    assert (latents - reference).norm() / reference.norm() < 0.05


@pytest.mark.parametrize("form", ["4x8x8", "shortcuts"])
def test_it_learns_one_clip(form):
    """A few steps bring the error of a moving edge well below that of the best constant picture."""
    vae = tiny(**FORMS[form]).train()
    ramp = torch.arange(16.0)
    frames = [((ramp > 3 + 2 * t)[None] & (ramp < 12)[:, None]).float() * 1.6 - 0.8 for t in range(5)]
    pixels = torch.stack(frames).expand(1, 3, 5, 16, 16)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        (vae(pixels, generator=generator).pixels - pixels).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    with torch.no_grad():
        error = (vae.eval()(pixels, sample=False).pixels - pixels).square().mean()
    assert error < 0.2 * pixels.var()


@pytest.mark.parametrize("form", ["4x8x8", "shortcuts"])
def test_gradient_checkpointing_keeps_less_and_changes_nothing(form):
    vae, pixels = tiny(**FORMS[form]), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    kept, gradients = [], []
    for checkpointing in (False, True):
        if checkpointing:
            vae.enable_gradient_checkpointing()
        vae.zero_grad()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            out = vae(pixels, sample=False).pixels
        out.square().mean().backward()
        kept.append(sum(sizes))
        gradients.append([p.grad.clone() for p in vae.parameters()])
    assert kept[1] < 0.5 * kept[0]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_patches_fold_as_in_wan_2_2_and_unfold():
    pixels = torch.randn(1, 3, 2, 4, 6)
    folded = fold_patches(pixels, 2)
    assert folded.shape == (1, 12, 2, 2, 3)
    # channel = (pixel channel, column in the patch, row in the patch)
    assert torch.equal(folded[:, 4 + 2 * 1 + 0], pixels[:, 1, :, 0::2, 1::2])
    assert torch.equal(unfold_patches(folded, 2), pixels)


def test_levels_that_do_not_agree_are_refused():
    with pytest.raises(BadInput, match="temporal_downsample has 1 entries, expected 2"):
        CausalVAE(temporal_downsample=(True,))
    with pytest.raises(BadInput, match="does not divide"):
        CausalVAE(shortcuts=True, multipliers=(1, 2, 4))


def test_per_frame_every_frame_is_an_image_of_its_own():
    whole = tiny()
    apart = tiny(per_frame=True)
    apart.load_state_dict(whole.state_dict())
    pixels = torch.rand(2, 3, 4, 16, 16) * 2 - 1
    assert apart.stride == (1, *whole.stride[1:])
    assert apart.latent_shape(4, 16, 16) == (4, *whole.latent_shape(1, 16, 16)[1:])
    with torch.no_grad():
        latents = apart.encode(pixels)
        images = torch.cat([whole.encode(pixels[:, :, f : f + 1]) for f in range(4)], dim=2)
        torch.testing.assert_close(latents, images, atol=1e-5, rtol=1e-5)
        frames = torch.cat([whole.decode(latents[:, :, f : f + 1]) for f in range(4)], dim=2)
        torch.testing.assert_close(apart.decode(latents), frames, atol=1e-5, rtol=1e-5)
        streamed = torch.cat(list(apart.decode_stream(latents, chunk=2)), dim=2)
        torch.testing.assert_close(streamed, frames, atol=1e-5, rtol=1e-5)
        streamed = torch.cat(list(apart.encode_stream(pixels, chunk=1)), dim=2)
        torch.testing.assert_close(streamed, images, atol=1e-5, rtol=1e-5)
        assert apart(pixels, sample=False).pixels.shape == pixels.shape
    assert apart.content_hash() != whole.content_hash()
    with pytest.raises(BadInput, match="per_frame"):
        apart.to_diffusers()
