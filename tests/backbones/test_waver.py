"""HybridStreamDiT: the equalities that its specification promises, and what a method relies on."""

import pytest
import torch
from torch import nn

from longtake.backbones.waver import HybridStreamDiT
from longtake.backbones.waver_blocks import BlockCondition, DualStreamBlock, SingleStreamBlock
from longtake.diffusion.conditions import nothing_given
from longtake.diffusion.flow import FlowMatching
from longtake.errors import BadInput, BadSize
from longtake.layers.rotary import rotary_table
from longtake.runtime import AttendPoint, Site, StepInfo, TokenGrid

SMALL = {
    "latent_channels": 3,
    "mask_channels": 2,
    "text_width": 5,
    "width": 24,
    "heads": 2,
    "dual_blocks": 1,
    "single_blocks": 2,
    "absolute_size": (2, 3, 3),
}


def model(**options):
    """A small network in which nothing is zero, as after training."""
    network = HybridStreamDiT(**{**SMALL, **options})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(network.black_latents)
    return network


def inputs(batch=2, grid=(2, 3, 3), length=4):
    return torch.randn(batch, 3, *grid), torch.rand(batch) * 1000, torch.randn(batch, length, 5)


@pytest.mark.parametrize("modulation", ["block", "shared"])
def test_the_output_is_zero_at_the_start_and_blocks_change_nothing(modulation):
    network = HybridStreamDiT(**SMALL, modulation=modulation)
    x, t, text = inputs()
    passed = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, args, output: passed.append((args[:2], output)))
    out = network(x, t, text)
    assert out.shape == x.shape and not out.any()
    for before, after in passed:
        assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
    assert before[0].any()


@pytest.mark.parametrize(("dual", "single"), [(2, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("modulation", ["block", "shared"])
def test_every_parameter_is_trained(dual, single, modulation):
    network = model(dual_blocks=dual, single_blocks=single, modulation=modulation, pooled_text=True)
    x, t, text = inputs()
    network(x, t, text).square().mean().backward()
    useless = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    # a dual-stream block that ends the model drops what its text tokens read
    assert useless == ({"blocks.1.attention.text.q_gain"} if single == 0 else set())
    assert all(p.grad is not None for p in network.parameters())  # which DDP insists on


@pytest.mark.parametrize("modulation", ["block", "shared"])
def test_single_stream_equals_dual_stream_with_tied_weights(modulation):
    site = Site("attn.joint", 0, 1, "joint", "blocks.0.attention", 2, 12)
    single = SingleStreamBlock(24, 48, site, modulation)
    for parameter in single.parameters():
        nn.init.normal_(parameter, std=0.3)
    dual = DualStreamBlock(24, 48, site, modulation)
    for side in ("video", "text"):
        getattr(dual, f"{side}_modulation").load_state_dict(single.modulation.state_dict())
        getattr(dual.attention, side).load_state_dict(single.attention.joint.state_dict())
        getattr(dual, f"{side}_ffn").load_state_dict(single.ffn.state_dict())
    grid, h, text = TokenGrid(2, 2, 3), torch.randn(2, 12, 24), torch.randn(2, 5, 24)
    mask = torch.ones(2, 1, 1, 17, dtype=torch.bool)
    mask[0, ..., 14:] = False
    time, shared = torch.randn(2, 24), torch.randn(2, 6, 24)
    cond = BlockCondition(time, None, shared, rotary_table(grid, 12, extra=5), mask, None)
    for one, other in zip(single(h, text, cond, grid), dual(h, text, cond, grid), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_no_given_frame_is_text_to_video_bit_for_bit():
    network = model()
    x, t, text = inputs()
    packed = nothing_given(x.shape, network.black_latents, stride=2).pack()
    assert torch.equal(packed, network.empty_condition(x))
    assert torch.equal(network(x, t, text, condition=packed), network(x, t, text))
    packed[:, -1] = 1
    assert not torch.allclose(network(x, t, text, condition=packed), network(x, t, text))


def test_black_latents_are_the_tokenizers_and_are_saved(tmp_path):
    class Tokenizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

        def encode(self, pixels):
            assert (pixels == -1).all() and pixels.shape == (1, 3, 1, 64, 64)
            latents = pixels[:, :, :, ::8, ::8] * self.weight.view(1, 3, 1, 1, 1)
            latents[..., 0, :] = 100.0  # padding spoils the edges
            return latents

    network = HybridStreamDiT(**SMALL)
    network.set_black_latents(Tokenizer())
    assert network.black_latents.flatten().tolist() == [-1.0, -2.0, -3.0]
    network.save_pretrained(tmp_path)
    assert torch.equal(HybridStreamDiT.from_pretrained(tmp_path).black_latents, network.black_latents)


@pytest.mark.parametrize("modulation", ["block", "shared"])
def test_saved_and_loaded_networks_are_equal(tmp_path, modulation):
    network = model(modulation=modulation, pooled_text=True, patch=(1, 2, 1))
    x, t, text = inputs(grid=(2, 4, 3))
    network.save_pretrained(tmp_path)
    again = HybridStreamDiT.from_pretrained(tmp_path)
    assert torch.equal(network(x, t, text), again(x, t, text))


@pytest.mark.parametrize("pooled", [False, True])
def test_padding_of_the_text_changes_nothing(pooled):
    network = model(pooled_text=pooled)
    x, t, text = inputs(length=4)
    padded = torch.cat([text, torch.randn(2, 3, 5) * 100], dim=1)
    mask = torch.tensor([[True] * 4 + [False] * 3] * 2)
    plain = network(x, t, text)
    torch.testing.assert_close(network(x, t, padded, mask), plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(x, t, text, torch.ones(2, 4, dtype=torch.bool)), plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(network(x, t, padded), plain, atol=1e-3)


def test_text_matters_and_so_does_its_place_in_no_position():
    """Text tokens are not turned, so their order is not seen; the video's is."""
    network = model()
    x, t, text = inputs()
    plain = network(x, t, text)
    assert not torch.allclose(network(x, t, text + 1), plain, atol=1e-3)
    torch.testing.assert_close(network(x, t, text.flip(1)), plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(network(x.flip(2), t, text).flip(2), plain, atol=1e-3)


def test_without_positions_tokens_are_a_set():
    network = model(rotary=False, absolute=False)
    x, t, text = inputs()
    torch.testing.assert_close(network(x.flip(2), t, text).flip(2), network(x, t, text), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("only", ["rotary", "absolute"])
def test_each_kind_of_position_alone_tells_places_apart(only):
    network = model(**{"rotary": False, "absolute": False, only: True})
    x, t, text = inputs()
    for axis in (2, 3, 4):
        assert not torch.allclose(network(x.flip(axis), t, text).flip(axis), network(x, t, text), atol=1e-3)


@pytest.mark.parametrize(("grid", "patch"), [((1, 3, 3), (1, 1, 1)), ((5, 7, 4), (1, 1, 1)), ((4, 6, 2), (2, 3, 1))])
def test_any_grid(grid, patch):
    network = model(patch=patch)
    x, t, text = inputs(grid=grid)
    out = network(x, t, text)
    assert out.shape == x.shape and out.isfinite().all()


def test_samples_of_a_batch_do_not_meet():
    network = model()
    x, t, text = inputs(batch=3)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 3 + [False]])
    condition = torch.randn(3, 5, 2, 3, 3)
    whole = network(x, t, text, mask, condition)
    order = [2, 0, 1]
    turned = network(x[order], t[order], text[order], mask[order], condition[order])
    torch.testing.assert_close(turned, whole[order], atol=1e-5, rtol=1e-5)
    alone = network(x[1:2], t[1:2], text[1:2], mask[1:2], condition[1:2])
    torch.testing.assert_close(alone, whole[1:2], atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_nothing():
    x, _, text = inputs()
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    network, results = model(), []
    for checkpointing in (False, True):
        if checkpointing:
            network.enable_gradient_checkpointing()
        network.zero_grad()
        generator = torch.Generator().manual_seed(1)
        loss = FlowMatching()(lambda a, b: network(a, b, text, mask), x, generator=generator).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in network.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


def test_checkpointing_recomputes_each_block_once():
    network, calls = model(), []
    network.enable_gradient_checkpointing()
    for block in network.blocks:
        block.register_forward_pre_hook(lambda module, args: calls.append(module))
    x, t, text = inputs()
    network(x, t, text).sum().backward()
    assert calls == [*network.blocks, *reversed(network.blocks)]


def test_shared_modulation_is_smaller():
    sizes = {m: sum(p.numel() for p in HybridStreamDiT(modulation=m).parameters()) for m in ("block", "shared")}
    assert sizes["shared"] < 0.75 * sizes["block"]
    assert sizes["shared"] * 2 < 20 * 2**20  # bytes of the default network in fp16


def test_bf16_weights_and_autocast_stay_close_to_float32():
    network = model().eval()
    x, t, text = inputs()
    exact = network(x, t, text)
    with torch.autocast("cpu", torch.bfloat16):
        cast = network(x, t, text)
    assert cast.dtype == torch.float32
    narrow = network.to(torch.bfloat16)(x.bfloat16(), t, text.bfloat16())
    assert narrow.dtype == torch.bfloat16
    for other in (cast, narrow.float()):
        assert (other - exact).norm() < 0.05 * exact.norm()


def test_methods_find_blocks_sites_and_outputs_before_gating():
    network = model(dual_blocks=2, single_blocks=1)
    points = [module for module in network.modules() if isinstance(module, AttendPoint)]
    assert [point.site.layer for point in points] == [0, 1, 2]
    assert all(point.site.n_layers == 3 and point.site.head_dim == 12 for point in points)
    for layer, block in enumerate(network.blocks):
        assert network.get_submodule(points[layer].site.name) is block.attention
    calls = []
    for point in points:
        point.register_forward_pre_hook(lambda module, args: calls.append(args))
    info = StepInfo(run=0, s=0, S=1, t=500.0, noise=0.5, sigma=0.5, branch="cond")
    x, t, text = inputs()
    out = network(x, t, text, info=info)
    for call, given in calls:
        assert given is info
        assert call.grid == TokenGrid(2, 3, 3) and (call.text_len, call.text_at) == (4, "last")
        assert call.q.shape == call.k.shape == call.v.shape == (2, 2, 22, 12)
    # attention and feed-forward outputs, scaled before gating, change the result
    for module in (network.blocks[2].attention, network.blocks[0].video_ffn):
        handle = module.register_forward_hook(lambda module, args, output: output * 0)
        assert not torch.allclose(network(x, t, text), out, atol=1e-4)
        handle.remove()
    assert torch.equal(network(x, t, text), out)


def test_a_short_training_lowers_the_loss():
    network = HybridStreamDiT(**SMALL)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    data = torch.ones(8, 3, 2, 3, 3) * torch.tensor([1.0, -1.0] * 4).view(-1, 1, 1, 1, 1)
    text = torch.ones(8, 2, 5) * torch.tensor([1.0, -1.0] * 4).view(-1, 1, 1)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(60):
        loss = FlowMatching()(lambda a, b: network(a, b, text), data, generator=generator).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize(
    "options",
    [{"width": 25}, {"heads": 8, "width": 24}, {"modulation": "film"}, {"dual_blocks": 0, "single_blocks": 0}],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(BadInput):
        HybridStreamDiT(**{**SMALL, **options})


def test_latents_that_a_patch_does_not_divide_are_refused():
    with pytest.raises(BadSize, match="multiples"):
        model(patch=(1, 2, 2))(*inputs(grid=(2, 3, 4)))


def test_states_behind_a_block_are_what_the_block_hands_on():
    network, (x, t, text) = model(), inputs()
    seen = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    plain = network(x, t, text)
    for number in (1, 2, 3):
        velocity, states = network(x, t, text, states_after=number)
        assert torch.equal(states, seen[number - 1]) and torch.equal(velocity, plain)
