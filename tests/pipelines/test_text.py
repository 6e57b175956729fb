"""Prompts become states: limits, padding, truncation, and the same loading code for T5 and UMT5."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from longtake.errors import BadInput, UnknownModel
from longtake.pipelines.text import MAX_CHARACTERS, check_prompt, encode_prompts, load_text_encoder
from longtake.training.text_encoder import train_tokenizer

TINY = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["a red ball rolls behind a blue cube"] * 50, vocab_size=600, max_length=16)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    torch.manual_seed(0)
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), **TINY)).eval()


def test_padding_changes_no_state_and_is_zero(tokenizer, encoder):
    alone, alone_mask = encode_prompts(["a red ball"], tokenizer, encoder)
    both, both_mask = encode_prompts(["a red ball", "a red ball rolls behind a blue cube"], tokenizer, encoder)
    length = alone.shape[1]
    assert alone_mask.all() and both_mask[0].sum() == length and both_mask[1].all()
    torch.testing.assert_close(both[0, :length], alone[0], atol=1e-5, rtol=0)
    assert both[0, length:].abs().max() == 0


def test_empty_prompt_is_one_real_token(tokenizer, encoder):
    states, mask = encode_prompts([""], tokenizer, encoder)
    assert states.shape[:2] == (1, 1) and mask.all() and states.abs().sum() > 0


def test_fixed_length_pads_and_cuts_to_it(tokenizer, encoder):
    states, mask = encode_prompts(["a red ball", "a red ball " * 20], tokenizer, encoder, length=12)
    assert states.shape == (2, 12, 16)
    assert mask.sum(1).tolist() == [4, 12]


def test_long_prompts_are_cut_at_the_limit_and_say_so(tokenizer, encoder):
    prompt = "a red ball " * 20
    fit = check_prompt(prompt, tokenizer)
    assert fit.truncated and fit.limit == 16 and fit.tokens == 61
    assert encode_prompts([prompt], tokenizer, encoder)[0].shape[1] == 16
    assert not check_prompt("a red ball", tokenizer).truncated


def test_prompt_of_ten_thousand_characters_is_refused_with_what_fits(tokenizer):
    with pytest.raises(BadInput, match=rf"10000 characters.*{MAX_CHARACTERS}.*16 tokens") as caught:
        check_prompt("x" * 10_000, tokenizer)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("family", ["t5", "umt5"])
def test_the_folder_says_which_encoder_it_holds(tokenizer, tmp_path: Path, family):
    torch.manual_seed(0)
    model, config = {"t5": (T5EncoderModel, T5Config), "umt5": (UMT5EncoderModel, UMT5Config)}[family]
    saved = model(config(vocab_size=len(tokenizer), **TINY)).eval()
    saved.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again, loaded = load_text_encoder(tmp_path / "encoder", tmp_path / "tokenizer")
    assert type(loaded) is model and not any(p.requires_grad for p in loaded.parameters())
    expected, _ = encode_prompts(["a blue cube"], tokenizer, saved)
    torch.testing.assert_close(encode_prompts(["A Blue  CUBE "], again, loaded)[0][:, -1], expected[:, -1])


def test_a_folder_without_an_encoder_is_named(tokenizer, tmp_path: Path):
    with pytest.raises(UnknownModel, match="nowhere"):
        load_text_encoder(tmp_path / "nowhere", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnknownModel, match=r"'bert'.*t5, umt5"):
        load_text_encoder(tmp_path, tmp_path)
