from pathlib import Path

import pytest
import torch
from torch import Tensor

from longtake.data.text_cache import CachedText, cache_text
from longtake.errors import BadData


class Letters:
    """One token per letter, its state the letter's code; pads with garbage."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        self.seen += prompts
        length = max(map(len, prompts)) + 2
        states, mask = torch.full((len(prompts), length, 4), 99.0), torch.zeros(len(prompts), length)
        for row, prompt in enumerate(prompts):
            states[row, : len(prompt)] = torch.tensor([ord(letter) for letter in prompt]).float()[:, None]
            mask[row, : len(prompt)] = 1
        return states, mask


def test_states_come_back_padded_with_zeros_and_masked(tmp_path: Path) -> None:
    encode = Letters()
    prompts = ["abc", "a", "longer one", "abc", "a"]
    assert cache_text(prompts, encode, tmp_path / "t", encoder_hash="h", batch=2, shard_size=2, progress=False) == 3
    assert sorted(encode.seen) == sorted(set(prompts))
    states, mask = CachedText(tmp_path / "t", encoder_hash="h").states(["longer one", "a"])
    assert states.shape == (2, 10, 4)
    assert mask.sum(1).tolist() == [10, 1]
    assert states[0, :, 0].tolist() == [float(ord(letter)) for letter in "longer one"]
    assert states[1, :, 2].tolist() == [97.0] + [0.0] * 9


def test_a_second_run_encodes_only_what_is_new(tmp_path: Path) -> None:
    first, second = Letters(), Letters()
    cache_text(["a", "b", "c"], first, tmp_path / "t", encoder_hash="h", shard_size=2, progress=False)
    assert cache_text(["c", "d", "a"], second, tmp_path / "t", encoder_hash="h", progress=False) == 4
    assert second.seen == ["d"]
    states, _ = CachedText(tmp_path / "t").states(["a", "b", "c", "d"])
    assert states[:, 0, 0].tolist() == [97.0, 98.0, 99.0, 100.0]


def test_another_encoder_and_unknown_prompts_are_refused(tmp_path: Path) -> None:
    cache_text(["a"], Letters(), tmp_path / "t", encoder_hash="h", progress=False)
    with pytest.raises(BadData, match="of encoder h, not of other"):
        CachedText(tmp_path / "t", encoder_hash="other")
    with pytest.raises(BadData, match="of encoder h, not of other"):
        cache_text(["b"], Letters(), tmp_path / "t", encoder_hash="other", progress=False)
    with pytest.raises(BadData, match="'never seen'"):
        CachedText(tmp_path / "t").states(["a", "never seen"])
    with pytest.raises(BadData, match="No text cache"):
        CachedText(tmp_path)
