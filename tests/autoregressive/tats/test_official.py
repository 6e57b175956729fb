import argparse

import pytest
import torch
from latte_recorded import fill
from tats_recorded import official_weights, recorded

import longtake
from longtake.autoregressive.tats.hierarchy import fill_gaps, gap_mask
from longtake.autoregressive.tats.layout import Layout
from longtake.autoregressive.tats.official import gpt_from_official, import_tats, tokenizer_from_official
from longtake.autoregressive.tats.windows import window_places
from longtake.backbones.gpt_sampling import Choice, choose
from longtake.errors import BadInput, BadOutput

OWN = Layout(prefix=1, conditions=1, codes=24, rows=2, columns=2)  # without a condition, 4 tokens a latent frame


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_tokenizer_computes_the_published_numbers(norm):
    made = tokenizer_from_official(official_weights(f"vqgan.{norm}"))
    assert (made.config.norm, made.config.codes, made.stride) == (norm, 24, (4, 8, 8))
    clip = fill((1, 3, 16, 16, 16), "pixels", 2.0)
    vectors, pixels = recorded(f"vqgan.{norm}.vectors"), recorded(f"vqgan.{norm}.pixels")
    torch.testing.assert_close(made.vectors(clip), vectors, atol=1e-5 * float(vectors.abs().max()), rtol=0)
    ids = made.encode(clip)
    assert torch.equal(ids, recorded(f"vqgan.{norm}.ids")) and len(ids.unique()) > 2
    torch.testing.assert_close(made.decode(ids, clamp=False), pixels, atol=1e-5 * float(pixels.abs().max()), rtol=0)


def test_the_transformer_computes_the_published_logits():
    made = gpt_from_official(official_weights("gpt.class"), start=False, heads=2)
    torch.testing.assert_close(made(recorded("gpt.class.line")), recorded("gpt.class.logits"), atol=1e-5, rtol=1e-5)


def test_without_a_condition_the_start_token_gets_an_id_of_its_own():
    made = gpt_from_official(official_weights("gpt.none"), start=True, heads=2)
    line = recorded("gpt.none.line") + 1
    line[:, 0] = 0
    torch.testing.assert_close(made(line)[..., 1:], recorded("gpt.none.logits"), atol=1e-5, rtol=1e-5)


def test_places_of_a_crop_are_the_published_ones():
    made = gpt_from_official(official_weights("gpt.places"), start=False, heads=2)
    own = Layout(prefix=1, conditions=3, codes=24, rows=2, columns=2)
    assert tuple(made.config.grid) == (4, 3, 3)
    logits = made(recorded("gpt.places.line"), places=window_places(own, (4, 3, 3), (0, 1, 0), 4))
    torch.testing.assert_close(logits, recorded("gpt.places.logits"), atol=1e-5, rtol=1e-5)


def gaps():
    return gpt_from_official(official_weights("gpt.gaps"), start=True, heads=2)


def test_the_mask_of_training_is_the_published_one():
    """But for the last token of the far end, which the published line does not have."""
    line = recorded("gpt.gaps.line") + 1
    line[:, 0] = 0
    logits = gaps()(line, mask=gap_mask(OWN, 4)[:-1, :-1])
    torch.testing.assert_close(logits[..., 1:], recorded("gpt.gaps.logits"), atol=1e-5, rtol=1e-5)


def test_a_published_gpt_b_fills_a_gap_as_it_was_trained():
    gpt, choice = gaps(), Choice(top_k=9)
    ends = torch.randint(24, (2, 2, 2, 2), generator=torch.Generator().manual_seed(0))
    noise = torch.rand(2, 12, generator=torch.Generator().manual_seed(1))
    made = fill_gaps(gpt, OWN, torch.zeros(2, 1, dtype=torch.long), ends[:, 0], ends[:, 1], noise, choice=choice)
    line = torch.cat([ends[:, :1], torch.zeros(2, 3, 2, 2, dtype=torch.long), ends[:, 1:]], 1)
    line = torch.cat([torch.zeros(2, 1, dtype=torch.long), OWN.write(line)], 1)[:, :-1]
    for i in range(12):
        logits = gpt(line, mask=gap_mask(OWN, 4)[:-1, :-1])[:, 4 + i, 1:]
        line[:, 5 + i] = 1 + choose(logits, noise[:, i], choice)
    assert torch.equal(OWN.write(made), line[:, 5:17])


def checkpoint(path, network, *, tokenizer="vqgan.batch"):
    """As Lightning writes it: settings beside the weights, the tokenizer among them."""
    weights = official_weights(network, "transformer.") | official_weights(tokenizer, "first_stage_model.")
    torch.save({"state_dict": weights, "hyper_parameters": {"args": argparse.Namespace(n_head=2)}, "epoch": 3}, path)
    return path


SMALL = {"heads": 2, "size": (16, 16)}


def test_a_checkpoint_becomes_a_folder_that_makes_clips(tmp_path):
    file = checkpoint(tmp_path / "base.ckpt", "gpt.class")
    folder = import_tats(file, tmp_path / "base", classes=["left", "right", "up"], **SMALL)
    pipe = longtake.load(folder)
    assert pipe("up", frames=24).clip.pixels.shape == (1, 3, 24, 16, 16)
    assert pipe.config.drawing["context"] == 1 and pipe.config.clip_size == [16, 16, 16]
    with pytest.raises(BadOutput, match="is there already"):
        import_tats(file, folder, **SMALL)


def test_two_checkpoints_become_a_hierarchy(tmp_path):
    keys, between = (checkpoint(tmp_path / f"{name}.ckpt", f"gpt.{name}") for name in ("none", "gaps"))
    pipe = longtake.load(import_tats(keys, tmp_path / "sky", interpolator=between, **SMALL))
    assert pipe.config.spacing == 4 and pipe.config.clip_size == [52, 16, 16]
    assert pipe(frames=60).latents.shape == (1, 15, 2, 2)
    other = checkpoint(tmp_path / "other.ckpt", "gpt.gaps")
    content = torch.load(other, weights_only=False)
    content["state_dict"]["first_stage_model.codebook.embeddings"][0] += 1
    torch.save(content["state_dict"], other)
    with pytest.raises(BadInput, match="another tokenizer"):
        import_tats(keys, tmp_path / "two", interpolator=other, **SMALL)


def test_what_is_no_such_checkpoint_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"encoder\.conv_first"):
        tokenizer_from_official({"decoder.weight": torch.zeros(1)})
    with pytest.raises(BadInput, match="3 levels does not downsample by"):
        tokenizer_from_official(official_weights("vqgan.batch"), downsample=(4, 4, 4))
    strange = official_weights("vqgan.batch") | {"encoder.conv_blocks.0.res.extra": torch.zeros(1)}
    with pytest.raises(BadInput, match="names or shapes are not those of a VQGAN"):
        tokenizer_from_official(strange)
    with pytest.raises(BadInput, match="pos_emb"):
        gpt_from_official({}, start=False)
    file = checkpoint(tmp_path / "base.ckpt", "gpt.class")
    with pytest.raises(BadInput, match="2 names of classes were given"):
        import_tats(file, tmp_path / "base", classes=["a", "b"], **SMALL)
