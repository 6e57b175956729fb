"""CLIP scores with a tiny random CLIP of the true classes."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from longtake.errors import BadInput
from longtake.evaluation.networks.clip import ClipScorer
from longtake.training.text_encoder import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    words = train_tokenizer(["a red ball rolls", "a blue cube"] * 20, vocab_size=600, max_length=16)
    text = {"vocab_size": len(words), "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": 1, "projection_dim": 8}
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8, "projection_dim": 8}
    place = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(place)
    words.save_pretrained(place)
    return place


def test_the_score_is_the_mean_cosine_over_frames(folder) -> None:
    scorer = ClipScorer(folder)
    clips = torch.randint(0, 256, (2, 3, 3, 20, 30), dtype=torch.uint8)
    prompts = ["a red ball rolls", "a blue cube"]
    found = scorer.score(clips, prompts)
    texts = scorer.texts(prompts)
    assert torch.allclose(texts.norm(dim=1), torch.ones(2)) and scorer.width == 8
    for i in range(2):
        frames = scorer.pictures(clips[i].transpose(0, 1))
        assert float(found[i]) == pytest.approx(float((frames @ texts[i]).mean()), abs=1e-6)
    alone = scorer.texts(prompts[1:])  # padding to the longer prompt changes nothing
    assert torch.allclose(alone[0], texts[1], atol=1e-5)


def test_pictures_are_cropped_in_the_centre(folder) -> None:
    scorer = ClipScorer(folder)
    wide = torch.randint(0, 256, (1, 3, 16, 40), dtype=torch.uint8)
    other = wide.clone()
    other[..., :12] = 0
    assert torch.allclose(scorer.pictures(wide), scorer.pictures(other))


def test_a_folder_that_is_no_clip(folder, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        ClipScorer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(BadInput, match="does not load"):
        ClipScorer(tmp_path)
