import pytest
import torch
import torch.nn.functional as F

from longtake.errors import BadInput
from longtake.tokenizers.discriminator import PatchDiscriminator, feature_matching, hinge_discriminator
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.tokenizers.vqgan_loss import PARTS, VqganLoss

CLIP = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
CHOSEN = torch.tensor([5, 2])


@pytest.fixture
def players():
    tokenizer = VQGAN3d(base_width=4, downsample=(4, 4, 4), codes=16, code_width=8)
    tokenizer.quantizer.begin(tokenizer.vectors(CLIP), torch.Generator().manual_seed(0))
    return tokenizer, PatchDiscriminator(2, width=4, norm="batch"), PatchDiscriminator(3, width=4, norm="batch")


def test_the_sum_is_that_of_the_published_terms(players):
    tokenizer, d2, d3 = players
    coded = tokenizer(CLIP)
    weights = {"l1": 3.0, "commitment": 0.5, "gan": 0.7, "matching": 2.0, "start": 0}
    total, parts = VqganLoss(**weights)(coded, CLIP, CHOSEN, d2, d3, joined=True)
    y, x = coded.pixels, CLIP
    f, f_real = (clip[torch.arange(2), :, CHOSEN] for clip in (y, x))
    players_own = 3.0 * F.l1_loss(y / 2, x / 2) + 0.5 * coded.quantized.commitment
    players_own += 0.7 * (-d2(f)[-1].mean() - d3(y)[-1].mean())
    players_own += 2.0 * (feature_matching(d2(f), d2(f_real)) + feature_matching(d3(y), d3(x)))
    judged = hinge_discriminator(d2(f_real)[-1], d2(f)[-1]) + hinge_discriminator(d3(x)[-1], d3(y)[-1])
    torch.testing.assert_close(total, players_own + judged)
    torch.testing.assert_close(parts["discriminator"], judged)


def test_each_player_moves_by_its_own_loss(players):
    tokenizer, d2, d3 = players
    loss = VqganLoss(start=0)
    total, _ = loss(tokenizer(CLIP), CLIP, CHOSEN, d2, d3, joined=True)
    total.backward()
    found = [w.grad.clone() for w in d3.parameters()]
    d3.zero_grad()
    y = tokenizer(CLIP).pixels.detach()
    hinge_discriminator(d3(CLIP)[-1], d3(y)[-1]).backward()
    for ours, weight in zip(found, d3.parameters(), strict=True):
        torch.testing.assert_close(ours, weight.grad, atol=1e-6, rtol=1e-4)
    own = {name: w.grad.clone() for name, w in tokenizer.named_parameters()}
    tokenizer.zero_grad()
    coded = tokenizer(CLIP)
    f, f_real = (clip[torch.arange(2), :, CHOSEN] for clip in (coded.pixels, CLIP))
    alone = 4 * F.l1_loss(coded.pixels / 2, CLIP / 2) + 0.25 * coded.quantized.commitment
    alone = alone - d2(f)[-1].mean() - d3(coded.pixels)[-1].mean()
    alone = alone + 4 * (feature_matching(d2(f), d2(f_real)) + feature_matching(d3(coded.pixels), d3(CLIP)))
    alone.backward()
    for name, weight in tokenizer.named_parameters():
        torch.testing.assert_close(own[name], weight.grad, atol=1e-4, rtol=1e-3)  # biases before a batch norm: rounding


def test_before_the_discriminators_join_they_are_not_asked(players):
    tokenizer, *_ = players

    def refuse(_):
        raise AssertionError("asked")

    total, parts = VqganLoss()(tokenizer(CLIP), CLIP, CHOSEN, refuse, refuse, joined=False)
    torch.testing.assert_close(total, 4 * parts["l1"] + 0.25 * parts["commitment"])
    assert tuple(parts) == PARTS and parts["gan"] == parts["matching"] == parts["discriminator"] == 0


def test_the_perceptual_term_is_of_the_chosen_frames(players):
    tokenizer, d2, d3 = players
    coded = tokenizer(CLIP)
    seen = []

    class Features(torch.nn.Module):
        def forward(self, images):
            seen.append(images)
            return [images]

    _, parts = VqganLoss(perceptual=1.0, features=Features())(coded, CLIP, CHOSEN, d2, d3, joined=False)
    torch.testing.assert_close(seen[1], torch.stack([CLIP[0, :, 5], CLIP[1, :, 2]]))
    assert parts["perceptual"] > 0 and VqganLoss(perceptual=1.0).features is not None


def test_a_weight_out_of_range_is_refused():
    with pytest.raises(BadInput, match="matching"):
        VqganLoss(matching=-1.0)
