import pytest
import torch
from latte_recorded import small_autoencoder

from longtake.errors import BadSize
from longtake.tokenizers import frame_vae
from longtake.tokenizers.frame_vae import FrameVAE
from longtake.training.models import build_tokenizer
from longtake.training.network_recipes import TokenizerRecipe


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return small_autoencoder()


def test_every_frame_is_what_diffusers_makes_of_it(theirs, monkeypatch):
    vae = FrameVAE.from_diffusers(theirs)
    pixels = torch.rand(2, 3, 5, 16, 24) * 2 - 1
    assert vae.stride == (1, 8, 8) and vae.latent_shape(5, 16, 24) == (5, 2, 3)
    latents = vae.encode(pixels)
    assert latents.shape == (2, 4, 5, 2, 3)
    with torch.no_grad():
        for b, f in ((0, 0), (1, 3)):
            wanted = theirs.encode(pixels[b : b + 1, :, f]).latent_dist.mode() * 0.18215
            torch.testing.assert_close(latents[b : b + 1, :, f], wanted, atol=1e-5, rtol=1e-5)
            wanted = theirs.decode(wanted / 0.18215).sample
            torch.testing.assert_close(vae.decode(latents, clamp=False)[b : b + 1, :, f], wanted, atol=1e-5, rtol=1e-5)
    whole = vae.decode(latents)
    torch.testing.assert_close(torch.cat(list(vae.decode_stream(latents)), 2), whole, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(frame_vae, "ROW", 0)
    torch.testing.assert_close(vae.encode(pixels), latents, atol=1e-5, rtol=1e-5)


def test_the_posterior_is_that_of_diffusers(theirs):
    vae, pixels = FrameVAE.from_diffusers(theirs), torch.rand(2, 3, 3, 16, 16) * 2 - 1
    mean, logvar = vae.posterior(pixels)
    with torch.no_grad():
        wanted = theirs.encode(pixels[1:, :, 2]).latent_dist
    torch.testing.assert_close(mean[1:, :, 2], wanted.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logvar[1:, :, 2], wanted.logvar, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vae.denormalise(vae.encode(pixels)), mean, atol=1e-5, rtol=1e-5)


def test_it_saves_loads_and_tells_its_weights_apart(theirs, tmp_path):
    vae = FrameVAE.from_diffusers(theirs)
    vae.save_pretrained(tmp_path)
    again = FrameVAE.from_pretrained(tmp_path).eval()
    assert again.content_hash() == vae.content_hash()
    pixels = torch.rand(1, 3, 2, 16, 16)
    torch.testing.assert_close(again.encode(pixels), vae.encode(pixels))
    with torch.no_grad():
        next(again.parameters()).add_(1)
    assert again.content_hash() != vae.content_hash()


def test_sizes_that_do_not_fit_name_the_nearest(theirs):
    vae = FrameVAE.from_diffusers(theirs)
    with pytest.raises(BadSize, match=r"height 20 .*nearest: 16 or 24"):
        vae.latent_shape(1, 20, 16)
    with pytest.raises(BadSize, match=r"frames 0 .*nearest: 1"):
        vae.latent_shape(0, 16, 16)
    with pytest.raises(BadSize, match=r"width 3 .*nearest: 8"):
        vae.encode(torch.zeros(1, 3, 1, 16, 3))


def test_the_folder_of_an_image_autoencoder_is_a_tokenizer_for_training(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "vae")
    FrameVAE.from_diffusers(theirs).save_pretrained(tmp_path / "own")
    for folder in (tmp_path, tmp_path / "vae", tmp_path / "own"):
        vae = build_tokenizer(TokenizerRecipe(init_from=str(folder)))
        assert vae.content_hash() == FrameVAE.from_diffusers(theirs).content_hash()
