import pytest
import torch
from torch import nn

from longtake.errors import BadInput, BadSize, UnknownName
from longtake.layers.padded_convolution import PADDINGS
from longtake.tokenizers.vqgan3d import VQGAN3d

SMALL = {"base_width": 4, "downsample": (4, 4, 4), "codes": 32, "code_width": 8}


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def tokenizer(seed=0, **changes):
    """One with statistics as after some training: batch norm does something in evaluation mode."""
    made = VQGAN3d(**{**SMALL, **changes})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.normal_(std=0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
        made.quantizer.begin(made.eval().vectors(noise(4, 3, 8, 16, 16)), generator)
    return made


# ------------------------------------------------------------------------------------------------------ time agnostic


def test_a_still_clip_looks_the_same_in_every_latent_frame_with_replicate_padding():
    still = noise(1, 3, 1, 16, 16).expand(-1, -1, 16, -1, -1)
    made = tokenizer()
    vectors = made.vectors(still)
    assert torch.equal(vectors, vectors[:, :, :1].expand_as(vectors))
    ids = made.encode(still)
    assert torch.equal(ids, ids[:, :1].expand_as(ids))


def test_with_zero_padding_it_does_not():
    still = noise(1, 3, 1, 16, 16).expand(-1, -1, 16, -1, -1)
    made = tokenizer(padding="constant")
    vectors = made.vectors(still)
    assert (vectors - vectors[:, :, :1]).abs().max() > 0.2 * vectors.std()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_padding_is_that_of_every_convolution(part):
    """One convolution with zeros is enough to tell the time."""
    for padding in PADDINGS:
        modes = {m.mode for m in getattr(VQGAN3d(**SMALL, padding=padding), part).modules() if hasattr(m, "mode")}
        assert modes == {padding}


def test_latents_far_from_both_ends_do_not_depend_on_where_the_window_begins():
    """The published strides: 4 in time, so the receptive field is 64 frames and 8 latents at each end see the border."""
    made = tokenizer(downsample=(4, 8, 8), base_width=2)
    clip = noise(1, 3, 88, 16, 16)
    whole, later = made.vectors(clip), made.vectors(clip[:, :, 4:])
    torch.testing.assert_close(later[:, :, 8:13], whole[:, :, 9:14], atol=1e-6, rtol=1e-6)
    assert (later[:, :, :4] - whole[:, :, 1:5]).abs().max() > 1e-4


def test_with_group_norm_they_do():
    made = tokenizer(downsample=(4, 8, 8), base_width=2, norm="group")
    clip = noise(1, 3, 88, 16, 16)
    clip[:, :, :4] *= 3
    whole, later = made.vectors(clip), made.vectors(clip[:, :, 4:])
    assert (later[:, :, 8:13] - whole[:, :, 9:14]).abs().max() > 1e-4


# ------------------------------------------------------------------------------------------------------ ids and codes


def test_a_decoded_clip_depends_on_its_ids_alone():
    made, clip = tokenizer(), noise(2, 3, 8, 16, 16)
    ids = made.encode(clip)
    assert ids.shape == (2, 2, 4, 4) == (2, *made.latent_shape(8, 16, 16))
    near = clip + 1e-4 * noise(2, 3, 8, 16, 16, seed=1)
    assert torch.equal(made.encode(near), ids) and torch.equal(made.decode(made.encode(near)), made.decode(ids))
    made.eval()
    torch.testing.assert_close(made(clip).pixels, made.decode(ids, clamp=False))
    assert made.decode(ids).abs().max() <= 1


def test_a_code_is_found_again():
    made = tokenizer()
    ids = torch.arange(32).view(1, 2, 4, 4)
    assert torch.equal(made.quantizer.nearest(made.codes(ids)), ids)


def test_gradients_reach_every_weight():
    made, clip = tokenizer().train(), noise(2, 3, 8, 16, 16)
    coded = made(clip)
    ((coded.pixels - clip).abs().mean() + coded.quantized.commitment).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in made.parameters())


# --------------------------------------------------------------------------------------------------------- any length


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_pieces_joined_are_the_one_pass(padding, chunk):
    made = tokenizer(padding=padding)
    ids = torch.randint(32, (2, 13, 3, 3), generator=torch.Generator().manual_seed(2))
    pieces = list(made.decode_stream(ids, chunk=chunk, clamp=False))
    assert [piece.shape[2] for piece in pieces] == [4 * min(chunk, 13 - start) for start in range(0, 13, chunk)]
    whole = made.decode(ids, clamp=False)
    assert whole.std() > 0.01
    torch.testing.assert_close(torch.cat(pieces, 2), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("downsample", "context"), [((4, 4, 4), (4, 4)), ((4, 8, 8), (6, 6)), ((2, 4, 4), (6, 6))])
def test_the_context_is_what_a_latent_frame_depends_on_and_no_more(downsample, context):
    made = tokenizer(downsample=downsample, base_width=2)
    assert made.context == context
    time, at = downsample[0], 9
    ids = torch.zeros(1, 19, 2, 2, dtype=torch.long)
    plain = made.decode(ids, clamp=False)[:, :, at * time : (at + 1) * time]
    reacts = []
    for frame in range(19):
        changed = made.codes(ids).clone()
        changed[:, :, frame] += 100
        moved = made.decode_vectors(changed)[:, :, at * time : (at + 1) * time]
        reacts.append(bool((moved - plain).abs().max() > 0))
    assert [i for i, moves in enumerate(reacts) if moves] == list(range(at - context[0], at + context[1] + 1))


def test_pieces_need_statistics_that_do_not_depend_on_the_clip():
    with pytest.raises(BadInput, match="norm 'group'"):
        next(tokenizer(norm="group").decode_stream(torch.zeros(1, 3, 2, 2, dtype=torch.long)))


# ---------------------------------------------------------------------------------------------------- identity, errors


def test_it_is_saved_and_loaded_with_its_codebook(tmp_path):
    made, clip = tokenizer(), noise(1, 3, 8, 16, 16)
    made.save_pretrained(tmp_path)
    loaded = VQGAN3d.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    assert torch.equal(loaded.encode(clip), made.encode(clip)) and loaded.quantizer.begun
    assert loaded.content_hash() == made.content_hash()


def test_the_hash_changes_with_weights_codes_and_padding():
    made = tokenizer()
    first = made.content_hash()
    other = tokenizer(padding="constant")
    other.load_state_dict(made.state_dict())
    assert other.content_hash() != first
    made.quantizer.codes[3] += 1e-3
    assert made.content_hash() != first


def test_the_published_setting_has_the_published_grid_and_codebook():
    with torch.device("meta"):
        made = VQGAN3d()
    assert made.latent_shape(16, 128, 128) == (4, 16, 16) and made.context == (6, 6)
    assert made.quantizer.codes.shape == (16384, 256)
    assert [level[0].stride for level in made.encoder.levels] == [(2, 2, 2), (2, 2, 2), (1, 2, 2)]
    assert [level[0].weight.shape[:2] for level in made.decoder.levels] == [(256, 256), (256, 128), (128, 64)]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"downsample": (3, 4, 4)}, BadInput, "three powers of two"),
        ({"downsample": (4, 4)}, BadInput, "three powers of two"),
        ({"norm": "layer"}, UnknownName, "layer"),
        ({"padding": "zeros"}, UnknownName, "zeros"),
    ],
)
def test_settings_out_of_range_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        VQGAN3d(**{**SMALL, **changes})


def test_a_clip_that_does_not_fit_is_refused_with_the_nearest_sizes():
    with pytest.raises(BadSize, match="frames 6 does not fit this tokenizer, a multiple of 4; nearest: 4 or 8"):
        tokenizer().encode(noise(1, 3, 6, 16, 16))
    with pytest.raises(BadInput, match="expected"):
        tokenizer().encode(noise(1, 4, 8, 16, 16))
