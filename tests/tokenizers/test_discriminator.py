import pytest
import torch

from longtake.errors import UnknownName
from longtake.tokenizers.discriminator import (
    PatchDiscriminator,
    feature_matching,
    fixed,
    hinge_discriminator,
    hinge_generator,
)

NOISE = torch.randn(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
RAMP = torch.linspace(-1, 1, 16).expand(2, 3, 5, 16, 16)


def test_every_layer_is_given_out_the_logits_last():
    made = PatchDiscriminator(width=8)(RAMP)
    assert [tuple(x.shape[1:]) for x in made] == [
        (8, 3, 9, 9), (16, 2, 5, 5), (32, 2, 3, 3), (64, 3, 4, 4), (1, 4, 5, 5)
    ]  # fmt: skip


def test_the_published_one_has_these_widths_and_norms():
    frames = PatchDiscriminator(dims=2, norm="batch")
    shapes = [tuple(x.shape[1:]) for x in frames(torch.randn(2, 3, 128, 128))]
    assert shapes == [(64, 65, 65), (128, 33, 33), (256, 17, 17), (512, 18, 18), (1, 19, 19)]
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in layer) for layer in frames.layers]
    assert norms == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_it_learns_to_tell_noise_from_ramps(dims, norm):
    critic = PatchDiscriminator(dims, width=8, norm=norm)
    ramp, noise = (x.transpose(1, 2).flatten(0, 1) if dims == 2 else x for x in (RAMP, NOISE))
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    for _ in range(15):
        optimizer.zero_grad()
        hinge_discriminator(critic(ramp)[-1], critic(noise)[-1]).backward()
        optimizer.step()
    assert critic(ramp)[-1].mean() > critic(noise)[-1].mean() + 1
    assert hinge_generator(critic(noise)[-1]) > hinge_generator(critic(ramp)[-1])


def test_hinge_losses_stop_at_the_margin():
    assert hinge_discriminator(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -9.0])) == 0
    assert hinge_discriminator(torch.tensor([0.0]), torch.tensor([0.0])) == 1


def test_feature_matching_is_the_sum_over_layers_without_the_logits():
    fake = [torch.full((2, 3), 1.0, requires_grad=True), torch.full((4,), 2.0), torch.full((1,), 100.0)]
    real = [torch.zeros(2, 3, requires_grad=True), torch.zeros(4), torch.zeros(1)]
    loss = feature_matching(fake, real)
    assert loss.item() == 3
    loss.backward()
    assert fake[0].grad is not None and real[0].grad is None


def test_a_fixed_one_judges_the_same_and_learns_nothing():
    critic, clip = PatchDiscriminator(width=8), NOISE.clone().requires_grad_()
    made = fixed(critic)(clip)[-1]
    torch.testing.assert_close(made, critic(NOISE)[-1])
    made.mean().backward()
    assert clip.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in critic.parameters())


def test_an_unknown_norm_is_named():
    with pytest.raises(UnknownName, match="bacth"):
        PatchDiscriminator(norm="bacth")


def test_under_bfloat16_weights_of_the_clip_judge_have_gradients_of_the_right_size():
    # 64 to 128 channels on 3x9x9 is where torch 2.13's own gradient was 1e28 and more in half of the calls.
    critic = PatchDiscriminator(dims=3, width=16, norm="batch")
    clip = torch.rand(8, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for _ in range(5):
        critic.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            hinge_discriminator(critic(clip)[-1].float(), critic(clip.flip(2))[-1].float()).backward()
        assert max(float(weight.grad.norm()) for weight in critic.parameters()) < 1e3
