"""Against the installed diffusers class: the same weights give the same latents and pixels, both ways."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from longtake.errors import BadInput
from longtake.tokenizers.causal_vae import CausalVAE

FORMS = {
    "starter": {
        "config": {"dim_mult": [1, 2, 4], "num_res_blocks": 1, "temperal_downsample": [True, True]},
        "patch": 2,
        "stride": (4, 8, 8),
    },
    "wan 2.1": {
        "config": {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]},
        "patch": None,
        "stride": (4, 8, 8),
    },
    "images alone": {
        "config": {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 1, "temperal_downsample": [False, False, False]},
        "patch": None,
        "stride": (1, 8, 8),
    },
    "wan 2.2": {
        "config": {
            "dim_mult": [1, 2, 4, 4],
            "num_res_blocks": 2,
            "temperal_downsample": [False, True, True],
            "is_residual": True,
            "decoder_base_dim": 16,
        },
        "patch": 2,
        "stride": (4, 16, 16),
    },
    "time first": {
        "config": {"dim_mult": [2, 2], "num_res_blocks": 1, "temperal_downsample": [True], "is_residual": True},
        "patch": None,
        "stride": (2, 2, 2),
    },
}


def theirs(form):
    patch = FORMS[form]["patch"]
    channels = 3 * (patch or 1) ** 2
    extra = {"patch_size": patch, "in_channels": channels, "out_channels": channels}
    time, space, _ = FORMS[form]["stride"]
    model = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
        scale_factor_temporal=time,
        scale_factor_spatial=space,
        **extra,
        **FORMS[form]["config"],
    ).eval()
    for value in model.parameters():  # biases and gains too, at a scale where each of them shows
        torch.nn.init.normal_(value, std=0.2)
    return model


def close(ours, other):
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-4 * float(other.abs().max().clamp(min=1)))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_same_weights_give_the_same_outputs(form):
    other = theirs(form)
    ours = CausalVAE.from_diffusers(other).eval()
    assert ours.stride == FORMS[form]["stride"]
    # diffusers cuts every clip into 1, 4, 4, ... frames; 9 are three chunks, so its caches are used
    pixels = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    posterior = other.encode(pixels).latent_dist
    mean, logvar = ours.posterior(pixels)
    close(mean, posterior.mean)
    close(logvar, posterior.logvar)
    assert (posterior.logvar.abs() < 20).all()  # not merely both clamped
    latents = torch.randn_like(mean)
    decoded = other.decode(latents).sample
    close(ours.decode(ours.normalise(latents)), decoded)
    assert (decoded.abs() < 1).float().mean() > 0.2
    # diffusers' pipelines normalise with the same statistics
    scale = torch.tensor(other.config.latents_std).view(1, -1, 1, 1, 1)
    shift = torch.tensor(other.config.latents_mean).view(1, -1, 1, 1, 1)
    close(ours.encode(pixels), (posterior.mean - shift) / scale)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_there_and_back_changes_nothing(form, tmp_path):
    other = theirs(form)
    ours = CausalVAE.from_diffusers(other.state_dict(), other.config)
    back = ours.to_diffusers()
    assert isinstance(back, AutoencoderKLWan)
    for key, value in other.config.items():
        if not key.startswith("_"):
            assert back.config[key] == value, key
    assert all(torch.equal(back.state_dict()[key], value) for key, value in other.state_dict().items())
    assert CausalVAE.from_diffusers(back).content_hash() == ours.content_hash()
    back.save_pretrained(tmp_path)
    again = CausalVAE.from_diffusers(AutoencoderKLWan.from_pretrained(tmp_path))
    assert again.content_hash() == ours.content_hash()
    latents = torch.randn(1, 4, 2, 2, 2)
    assert torch.equal(again.eval().decode(latents), ours.eval().decode(latents))


@torch.no_grad()
def test_a_stream_equals_diffusers_too():
    other = theirs("wan 2.1")
    ours = CausalVAE.from_diffusers(other).eval()
    latents = torch.randn(1, 4, 4, 3, 2)
    streamed = torch.cat(list(ours.decode_stream(ours.normalise(latents), chunk=2)), dim=2)
    close(streamed, other.decode(latents).sample)


def test_what_is_not_built_is_refused():
    config = dict(theirs("time first").config)
    for change, message in (
        ({"attn_scales": [0.5]}, "attn_scales"),
        ({"out_channels": 4}, "out_channels 4"),
        ({"patch_size": 2}, "patch_size 2"),
    ):
        with pytest.raises(BadInput, match=message):
            CausalVAE.from_diffusers({}, config | change)
    with pytest.raises(BadInput, match="without a config"):
        CausalVAE.from_diffusers({})


def test_the_weights_keep_their_type():
    other = torch.nn.Module.to(theirs("time first"), torch.bfloat16)
    ours = CausalVAE.from_diffusers(other)
    assert ours.dtype == torch.bfloat16
    assert ours.to_diffusers().dtype == torch.bfloat16
