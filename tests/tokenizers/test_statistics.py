"""Statistics of latents: one pass over clips of different sizes gives the numbers of all values at once."""

import pytest
import torch

from longtake.errors import BadInput, BadSize
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.tokenizers.statistics import ChannelStatistics, measure_statistics


def test_streaming_equals_all_at_once_even_far_from_zero():
    parts = [torch.randn(b, 3, n, dtype=torch.float64) * 0.01 + 1e4 for b, n in ((2, 5), (1, 1), (4, 7))]
    statistics = ChannelStatistics()
    for part in parts:
        statistics.add(part)
    everything = torch.cat([part.movedim(1, 0).flatten(1) for part in parts], dim=1)
    torch.testing.assert_close(statistics.mean, everything.mean(1))
    torch.testing.assert_close(statistics.std, everything.std(1, correction=0), rtol=1e-6, atol=0)


@torch.no_grad()
def test_measured_statistics_normalise_the_latents_and_are_saved(tmp_path):
    vae = CausalVAE(latent_channels=4, base_width=8).train()
    clips = [torch.rand(1, 3, f, s, s) * 2 - 1 for f, s in ((1, 16), (5, 24), (9, 16))]
    mean, std = measure_statistics(vae, clips)
    assert vae.training  # as it was
    latents = torch.cat([vae.eval().encode(clip).movedim(1, 0).flatten(1) for clip in clips], dim=1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(1, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    vae.save_pretrained(tmp_path)
    config = CausalVAE.from_pretrained(tmp_path).config
    assert config.latents_mean == mean.tolist() and config.latents_std == std.tolist()
    again, _ = measure_statistics(vae, clips, store=False)  # they are of the raw latents, so they do not move
    torch.testing.assert_close(again, mean)


def test_nothing_to_measure_and_a_clip_that_does_not_fit():
    vae = CausalVAE(latent_channels=4, base_width=8)
    before = vae.content_hash()
    with pytest.raises(BadInput, match="no clips"):
        measure_statistics(vae, [])
    with pytest.raises(BadSize, match="nearest"):
        measure_statistics(vae, [torch.zeros(1, 3, 2, 16, 16)])
    assert vae.content_hash() == before


@torch.no_grad()
def test_a_constant_channel_can_still_be_normalised():
    vae = CausalVAE(latent_channels=4, base_width=8)
    vae.quant_conv.weight[0].zero_()
    _, std = measure_statistics(vae, [torch.rand(1, 3, 5, 16, 16)])
    assert std[0] == 1e-6 and (std[1:] > 1e-6).all()
    assert vae.encode(torch.rand(1, 3, 5, 16, 16)).isfinite().all()
