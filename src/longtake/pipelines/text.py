"""Prompts to the states a denoiser reads: one code path for the starter's small T5 and for full-size T5 and UMT5.

A text encoder lives in two folders, as diffusers lays them out: the tokenizer (read by `AutoTokenizer`) and the weights
(read by `T5EncoderModel` or `UMT5EncoderModel`, whichever the folder's `config.json` names).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, T5EncoderModel, UMT5EncoderModel

from longtake.errors import BadInput, UnknownModel

MAX_CHARACTERS = 4000
"""Longest prompt that is taken at all; no encoder that is loaded here reads more than 512 tokens of it."""

MAX_TOKENS = 512
"""Length limit of T5 tokenizers that do not state one of their own."""

_ENCODERS = {"t5": T5EncoderModel, "umt5": UMT5EncoderModel}


@dataclass(frozen=True)
class PromptFit:
    """How much of a prompt an encoder reads: `tokens` it takes (end mark included) and `limit`, the most it reads."""

    tokens: int
    limit: int

    @property
    def truncated(self) -> bool:
        return self.tokens > self.limit


def load_text_encoder(
    encoder_folder: str | Path, tokenizer_folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load the tokenizer and the encoder half of a T5 or UMT5, frozen and in evaluation mode.

    Raises UnknownModel when the folder has no `config.json` or names another family than T5 or UMT5.
    """
    config = Path(encoder_folder) / "config.json"
    if not config.is_file():
        raise UnknownModel(f"no text encoder in '{encoder_folder}': expected a config.json beside its weights")
    family = json.loads(config.read_text()).get("model_type")
    if family not in _ENCODERS:
        raise UnknownModel(f"text encoder of type '{family}' in '{encoder_folder}': expected one of t5, umt5")
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    encoder = _ENCODERS[family].from_pretrained(str(encoder_folder), dtype=dtype)
    return tokenizer, encoder.eval().requires_grad_(False)


def token_limit(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens of a prompt are read, the end mark included."""
    return min(int(tokenizer.model_max_length), MAX_TOKENS)


def check_prompt(prompt: str, tokenizer: PreTrainedTokenizerBase, *, name: str = "prompt") -> PromptFit:
    """Return how the prompt fits the encoder. Raises BadInput for a non-string or for over MAX_CHARACTERS characters.

    A prompt between the two limits is legal; the caller reads `truncated` and says so.
    """
    if not isinstance(prompt, str):
        raise BadInput(f"{name} is a {type(prompt).__name__}: expected one string")
    limit = token_limit(tokenizer)
    if len(prompt) > MAX_CHARACTERS:
        raise BadInput(
            f"{name} has {len(prompt)} characters: at most {MAX_CHARACTERS} are taken, and this model reads the first "
            f"{limit} tokens (about {round(0.75 * limit)} words); shorten it"
        )
    return PromptFit(tokens=len(tokenizer(prompt)["input_ids"]), limit=limit)


@torch.no_grad()
def encode_prompts(
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    encoder: PreTrainedModel,
    max_length: int | None = None,
    *,
    length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Encode B prompts to states (B, L, D) and a mask (B, L), True at tokens that were read.

    Longer prompts are cut at `max_length` tokens (default: the tokenizer's own limit). L is the longest prompt of the
    batch, or `length` exactly when given. States of padding are zero, so that a padded batch and its members agree for
    any consumer, with or without the mask. The empty prompt is one token (the end mark): never an empty row.
    """
    batch = tokenizer(
        list(prompts),
        padding="max_length" if length else "longest",
        truncation=True,
        max_length=length or max_length or token_limit(tokenizer),
        return_tensors="pt",
    )
    ids, mask = batch["input_ids"].to(encoder.device), batch["attention_mask"].to(encoder.device)
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states * mask[..., None], mask.bool()
