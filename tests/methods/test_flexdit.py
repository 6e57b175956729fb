"""FlexDiT: exactness (arXiv 2412.06028), both kinds of networks, costs, saving, sampling, refusals."""

import pytest
import torch
from tests.runtime.tiny_networks import awake
from torch import nn

from longtake.backbones.latte import Latte
from longtake.backbones.latte_blocks import AxisAttention
from longtake.backbones.waver import HybridStreamDiT
from longtake.errors import BadInput, BadSize, Unsupported
from longtake.methods.dynamic.flexdit import Density, FlexHybrid, FlexLatte, Layout, dit_macs, mac_report, to_flexdit
from longtake.methods.dynamic.flexdit.latte import PooledAttention
from longtake.methods.dynamic.flexdit.pieces import centres, pool, spread
from longtake.runtime import TokenGrid

WHOLE = Density(grids=((0, 4, 4),))
"""Sparse tokens are all tokens of an 8x8 latent in patches of 2."""


def latte(variant="1", **more):
    given = {"latent_channels": 4, "width": 24, "depth": 8, "heads": 2, "classes": 3, **more}
    return awake(Latte(variant=variant, learned_variance=False, **given))


def waver(**more):
    given = {"dual_blocks": 2, "single_blocks": 6, "patch": (1, 2, 2), **more}
    return awake(HybridStreamDiT(latent_channels=4, text_width=16, width=32, heads=2, **given))


def call(network, t=500.0, size=(4, 8, 8), seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    x, words = (torch.randn(2, *shape, generator=generator)[:batch] for shape in ((4, *size), (5, 16)))
    if isinstance(network, HybridStreamDiT):
        mask = torch.ones(batch, 5, dtype=torch.bool)
        mask[0, 3:] = False
        return network(x, torch.full((batch,), t), words, mask)
    labels = torch.arange(batch) % 3 if network.class_embed is not None else None
    return network(x, torch.full((batch,), t), labels=labels)


def as_dense(network):
    """Recovered tokens are the spread ones alone."""
    for name, module in network.named_modules():
        if name.endswith(("from_sparse", "from_dense")):
            nn.init.zeros_(module.weight), nn.init.zeros_(module.bias)
            if name.endswith("from_sparse"):
                nn.init.eye_(module.weight)
    return network


CASES = {
    "latte": (latte, "dense1+2x[1,1,1,0]+1"),
    "latte, rotary": (lambda: latte(temporal_pos="rope"), "dense0+2x[1,1,1,1]+0"),
    "latte 3": (lambda: latte("3"), "dense2+[1,2,1,1]+1"),
    "latte 4": (lambda: latte("4"), "dense2+[1,2,1,1]+1"),
    "latte joint": (lambda: latte("joint"), "dense2+[1,3,1,0]+1"),
    "waver": (waver, "0+2x[1,1,1,1]+0"),
    "waver, last": (lambda: waver(single_blocks=0, dual_blocks=4), "1+[1,1,1,0]+0"),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_all_tokens_sparse_is_the_dense_network(case):
    make, layout = CASES[case]
    network = make()
    flex = as_dense(to_flexdit(network, layout, WHOLE))
    torch.testing.assert_close(call(flex), call(network), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(0, 3, 3), (2, 4, 4), (2, 2, 1), (1, 1, 1)])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_fewer_tokens_run_and_matter(case, grid):
    make, layout = CASES[case]
    network = make()
    flex = as_dense(to_flexdit(network, layout, Density(grids=(grid,))))
    made, dense = call(flex), call(network)
    assert made.shape == dense.shape and made.isfinite().all()
    assert (made - dense).norm() > 1e-3 * dense.norm()
    assert (call(flex, batch=1) - made[:1]).abs().max() < 1e-5, "samples of a batch are apart"


@torch.no_grad()
def test_recovered_tokens_start_as_the_dense_ones():
    network = latte()
    flex = to_flexdit(network, "dense1+2x[1,1,1,0]+1", WHOLE)
    for name, module in flex.named_modules():
        if name.endswith("from_sparse"):
            assert not module.weight.any() and not module.bias.any()
        if name.endswith("from_dense"):
            assert torch.equal(module.weight, torch.eye(24)) and not module.bias.any()
    assert flex.training == network.training


@pytest.mark.parametrize("axis", ["space", "time", "joint"])
@torch.no_grad()
def test_the_bottom_is_attention_with_flat_maps(axis):
    network = latte("joint" if axis == "joint" else "1")
    block = network.blocks[1 if axis == "time" else 0]
    attention: AxisAttention = block.attentions[axis]
    attention.qkv.weight[:48].zero_(), attention.qkv.bias[:48].zero_()
    seen = []
    attention.register_forward_hook(lambda module, args, made: seen.append((args, made)))
    call(network)
    (u, cond), flat = seen[0]
    made = PooledAttention(attention)(u, cond)
    torch.testing.assert_close(made.expand_as(flat), flat, atol=1e-6, rtol=1e-5)
    value = nn.functional.linear(u, attention.qkv.weight[48:], attention.qkv.bias[48:])
    axes = {"space": (2,), "time": (1,), "joint": (1, 2)}[axis]
    torch.testing.assert_close(made, attention.out(value).mean(axes, keepdim=True), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_no_weights_are_lost_but_flat_queries_and_keys():
    network = latte()
    flex = to_flexdit(network, "2+[1,2,1,1]+1", WHOLE)
    gone = 2 * (2 * 24 * 24 + 2 * 24)  # two blocks: q and k
    new = 2 * (24 * 24 + 24)
    count = lambda one: sum(p.numel() for p in one.parameters())  # noqa: E731
    assert count(flex) == count(network) - gone + new
    first, theirs = flex.blocks[2].generate[0].block.attentions["space"], network.blocks[2].attentions["space"]
    assert torch.equal(torch.cat([first.q.weight, first.kv.weight]), theirs.qkv.weight)
    assert torch.equal(
        flex.blocks[0].attentions["space"].value.weight, network.blocks[0].attentions["space"].qkv.weight[48:]
    )


@torch.no_grad()
def test_keys_are_those_of_the_other_grid():
    """A sparse token sees single dense tokens of its own frames; a recovered one sees sparse ones."""
    flex = to_flexdit(latte(), "dense2+[1,2,1,1]+1", Density(grids=((2, 2, 2),)))
    module, seen = flex.blocks[2], {}
    for name in ("generate.0", "recover"):
        attention = module.get_submodule(name).block.attentions
        for axis in attention:
            attention[axis].attend.register_forward_hook(
                lambda m, args, made, name=f"{name} {axis}": seen.update({name: (args[0].q.shape, args[0].k.shape)})
            )
    call(flex)
    assert seen == {
        "generate.0 space": (
            (4, 2, 4, 12),
            (4, 2, 32, 12),
        ),  # clips x groups, heads, 4 sparse of a frame, 2 frames of 16
        "recover time": ((32, 2, 4, 12), (32, 2, 2, 12)),  # each place over 4 dense and 2 sparse frames
    }


def test_formulas_are_what_is_counted():
    network = latte("joint", classes=0, width=24, depth=8)
    layout = Layout.read("2+[1,2,1,1]+1")
    flex = to_flexdit(network, layout, Density(grids=((1, 3, 3), (1, 2, 2))))
    head = 16 * 16 * 24  # the formulas' head codes a variance: 32NC, this one has 16NC
    assert mac_report(network, (4, 1, 8, 8), [0.5]) == [dit_macs(16, 24, 8) - head]
    counted = mac_report(flex, (4, 1, 8, 8), [0.1, 0.9])
    assert counted == [dit_macs(16, 24, 8, layout, sparse) - head for sparse in (9, 4)]


def test_published_numbers():
    xl, b = {"width": 1152, "depth": 28}, {"width": 768, "depth": 12}
    paper = Layout()
    giga = lambda macs: round(macs / 1e9, 2)  # noqa: E731
    assert giga(dit_macs(256, **b)) == 23.01  # as printed
    assert giga(dit_macs(256, **xl)) == 118.62 and giga(dit_macs(1024, **xl)) == 524.54  # 118.64, 525
    assert giga(dit_macs(256, **xl, layout=paper, sparse=64, mean_first=False)) == 68.15
    assert round(dit_macs(1024, **xl, layout=paper, sparse=64, mean_first=False) / 1e9, 1) == 233.5
    grids = [10, 9, 7, 6]
    mean = sum(dit_macs(256, **xl, layout=paper, sparse=n * n, mean_first=False) for n in grids) / 4
    assert abs(mean / 1e9 - 68.8) < 0.05  # printed: 68.05
    small = Layout.read("1+2x[1,2,1,1]+1")
    mean = sum(dit_macs(256, **b, layout=small, sparse=n * n, mean_first=False) for n in grids) / 4
    assert abs(mean / 1e9 - 14.49) < 0.05  # printed: 14.34


def test_density_along_time():
    line = Density(rates=(0.61, 0.86), kind="linear")
    steps = Density(rates=(0.61, 0.86))
    assert line.rate(0) == line.rate(0.2) == line.rate(0.25) == 0.61 and line.rate(1.0) == pytest.approx(0.86)
    assert line.rate(0.625) == pytest.approx((0.61 + 0.86) / 2)
    third = (0.86 - 0.61) / 3
    assert [steps.rate(t) for t in (0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [0.61, 0.61 + third, 0.61 + 2 * third, 0.86, 0.86]
    )
    assert [steps.stage(t) for t in (0.2499, 0.25, 0.4999, 0.5, 0.75, 1.0)] == [0, 1, 1, 2, 3, 3]
    dense = TokenGrid(16, 16, 16)
    assert steps.grid(0, dense) == (16, 10, 10) and steps.grid(1, dense) == (16, 6, 6)
    pooled = Density(rates=(0.0, 0.75), stages=2, pooled_frames=(1, 4))
    assert pooled.grid(0.1, dense) == (16, 16, 16) and pooled.grid(0.9, dense) == (4, 8, 8)


def test_layouts_are_read_and_written():
    for text in ("2+4x[1,3,1,1]+2", "dense1+[1,2,1,1]+2x[1,1,1,0]+1"):
        assert str(Layout.read(text)) == text
    assert Layout.read("2 + 4x[1,3,1,1] + 2") == Layout() and Layout().depth == 28
    assert Layout.read("1+[1,2,1,1]+1").roles() == [
        "bottom", "generate", "sparse", "sparse", "recover", "dense", "top"
    ]  # fmt: skip


def test_pooling_is_torchs_and_spreading_its_nearest():
    h = torch.randn(2, 4, 5 * 7, 3)
    plane = h.view(8, 5, 7, 3).permute(0, 3, 1, 2)
    dense, sparse = TokenGrid(4, 5, 7), TokenGrid(2, 3, 4)
    wanted = nn.functional.adaptive_avg_pool2d(plane, (3, 4)).view(2, 2, 2, 3, 12).mean(2).transpose(2, 3)
    s = pool(h, dense, sparse)
    torch.testing.assert_close(s, wanted)
    back = nn.functional.interpolate(s.view(4, 3, 4, 3).permute(0, 3, 1, 2), size=(5, 7), mode="nearest")
    torch.testing.assert_close(spread(s, dense, sparse)[:, ::2], back.permute(0, 2, 3, 1).reshape(2, 2, 35, 3))
    places = torch.arange(7.0)[None, None, :, None].expand(1, 1, 7, 1)
    cells = pool(places, TokenGrid(1, 1, 7), TokenGrid(1, 1, 4)).flatten()
    torch.testing.assert_close(centres(7, 4).float(), cells)


@pytest.mark.parametrize("make", [latte, waver])
@torch.no_grad()
def test_saved_and_loaded(make, tmp_path, caplog):
    network = make()
    flex = to_flexdit(network, "2+[1,2,1,1]+1", Density(rates=(0.3, 0.8), stages=2, pooled_frames=(1, 2)))
    flex.save_pretrained(tmp_path)
    again = type(flex).from_pretrained(tmp_path)
    assert not caplog.records
    assert again.config.width == network.config.width and again.config.layout == "2+[1,2,1,1]+1"
    for t in (100.0, 900.0):
        torch.testing.assert_close(call(again.eval(), t), call(flex.eval(), t))


@pytest.mark.parametrize("make", [latte, waver])
def test_gradients_reach_every_weight(make):
    flex = to_flexdit(make(), "2+[1,2,1,1]+1", Density(grids=((2, 2, 2),))).train().requires_grad_()
    for module in flex.modules():
        if hasattr(module, "from_sparse"):
            nn.init.normal_(module.from_sparse.weight, std=0.02)
    call(flex).square().mean().backward()
    assert [name for name, p in flex.named_parameters() if p.grad is None] == []


def test_refusals():
    flex = to_flexdit(latte(), "2+[1,2,1,1]+1", Density(grids=((0, 4, 4), (0, 2, 2))))
    x = torch.randn(2, 4, 4, 8, 8)
    with pytest.raises(BadInput, match=r"0\.100 and 0\.900 in one batch"):
        flex(x, torch.tensor([100.0, 900.0]))
    flex(x, torch.tensor([600.0, 900.0]))
    with pytest.raises(BadInput, match="images=0"):
        flex(x, torch.tensor([100.0]), images=1)
    with pytest.raises(BadSize, match=r"\(4, 4, 4\) for \(4, 2, 2\)"):
        flex(x[..., :4, :4], torch.tensor(100.0))
    with pytest.raises(BadInput, match="is of 6 blocks and the network has 8"):
        to_flexdit(latte(), "1+[1,2,1,0]+1", WHOLE)
    with pytest.raises(BadInput, match="before block 1"):
        to_flexdit(latte(), "0+[1,4,1,1]+1", WHOLE)
    with pytest.raises(Unsupported, match="all_tokens"):
        to_flexdit(latte(inject="all_tokens"), "2+[1,2,1,1]+1", WHOLE)
    with pytest.raises(Unsupported, match="Linear cannot"):
        to_flexdit(nn.Linear(2, 2), "2+[1,2,1,1]+1", WHOLE)
    for text in ("2", "2+[1,3,1]+1", "2+[0,3,1,1]+1", "2+[1,3,2,1]+1", "x+[1,3,1,1]+1"):
        with pytest.raises(BadInput, match="layout"):
            Layout.read(text)
    for wrong in (
        {}, {"grids": ((0, 2, 2),), "rates": (0.1, 0.2)}, {"rates": (0.5, 0.2)}, {"rates": (0.1, 1.0)},
        {"grids": ((0, 0, 2),)}, {"grids": ((0, 2, 2),), "kind": "linear"}, {"rates": (0.1, 0.2), "kind": "bent"},
        {"rates": (0.1, 0.2), "pooled_frames": (1, 2)},
    ):  # fmt: skip
        with pytest.raises(BadInput):
            Density(**wrong)
    with pytest.raises(BadSize, match="pooled by 3"):
        Density(rates=(0.1, 0.2), pooled_frames=(3,)).grid(0.5, TokenGrid(4, 4, 4))


def test_kinds():
    assert isinstance(to_flexdit(latte(), "2+[1,2,1,1]+1", WHOLE), FlexLatte)
    assert isinstance(to_flexdit(waver(), "2+[1,2,1,1]+1", WHOLE), FlexHybrid)
