"""Small untrained networks in folders, for trainings that start from them."""

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from longtake.tokenizers.causal_vae import CausalVAE
from longtake.training.text_encoder import train_tokenizer


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A folder with ``tokenizer``, ``text_encoder`` and ``text_tokenizer``."""
    root = tmp_path_factory.mktemp("parts")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = CausalVAE(
            base_width=8,
            latent_channels=4,
            multipliers=(1, 2, 2),
            patch_size=1,
            latents_mean=[0.1] * 4,
            latents_std=[0.5] * 4,
        )
        vae.save_pretrained(root / "tokenizer")
        words = train_tokenizer(["a red ball rolls", "a blue cube bounces"], vocab_size=300, max_length=24)
        encoder = T5EncoderModel(
            T5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        )
        encoder.save_pretrained(root / "text_encoder")
        words.save_pretrained(root / "text_tokenizer")
    return root
