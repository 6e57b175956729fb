"""Blocks, parts and layouts of every family."""

import pytest
import torch
from tiny_networks import FAMILIES, build
from torch import nn

from longtake.errors import Unsupported
from longtake.runtime import BlockForm, Blocks, Family, ModelView, TokenGrid
from longtake.runtime.views import Signature, canonical, uncanonical, view_of

GRID = TokenGrid(2, 2, 2)
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def execution(tiny, modules):
    """Names of modules in the order in which a call of the network begins them."""
    order, handles = [], []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(lambda m, args, name=name: order.append(name)))
    noise, text = tiny.draw()
    tiny(noise, text["cond"], 500.0, "cond")
    for handle in handles:
        handle.remove()
    return order


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_parts_are_listed_in_the_order_in_which_they_run(family):
    tiny = build(family)
    view = view_of(tiny.network)
    blocks = {at.site.name: at.module for at in view.blocks}
    assert list(blocks) == execution(tiny, blocks)
    assert [at.site.layer for at in view.blocks] == list(range(len(blocks)))
    parts = {at.site.name: at.module for at in view.parts}
    assert all(tiny.network.get_submodule(name) is module for name, module in {**blocks, **parts}.items())
    assert list(parts) == execution(tiny, parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_hold_all_the_attention_and_feed_forward_work_of_a_block(family):
    """Every linear layer of a block is inside a part, feeds one, or makes modulation."""
    tiny = build(family)
    view = view_of(tiny.network)
    covered = [module for at in view.parts for module in (at.module, *at.feeders)]
    inside = {id(one) for module in covered for one in module.modules()}
    left = [name for name, layer in view.linears.items() if id(layer) not in inside]
    assert all("norm" in name or "modulation" in name or "projection" in name for name in left)
    assert len(left) < len(view.linears)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_grid_of_a_call_is_the_box_of_its_tokens(family):
    tiny = build(family)
    noise, text = tiny.draw(size=(8, 4))
    args = tiny.given(noise, text["cond"])
    patch = 1 if family in ("our-waver", "ltx") else 2
    assert view_of(tiny.network).grid(args) == (2, 8 // patch, 4 // patch)


@pytest.mark.parametrize("layout", ["flat", "frames", "spatial", "temporal"])
def test_every_layout_goes_to_the_canonical_one_and_back(layout):
    tokens = torch.randn(3, 2, 4, 5)  # B, F, N, D
    there = {
        "flat": tokens.reshape(3, 8, 5),
        "frames": tokens,
        "spatial": tokens.reshape(6, 4, 5),
        "temporal": torch.stack([tokens[b, :, n] for b in range(3) for n in range(4)]),
    }[layout]
    assert torch.equal(canonical(there, layout, GRID), tokens)
    assert torch.equal(uncanonical(tokens, layout), there)


def test_linears_are_those_of_the_blocks_under_their_own_names():
    tiny = build("wan")
    linears = view_of(tiny.network).linears
    assert len(linears) == 4 * (4 + 4 + 2)
    assert all(tiny.network.get_submodule(name) is layer for name, layer in linears.items())
    assert not any(name.startswith("condition_embedder") for name in linears)


def test_a_layer_that_was_replaced_is_seen_as_it_is_now():
    tiny = build("hunyuan-video")
    view = view_of(tiny.network)
    before = view.parts[-1].module
    block = tiny.network.single_transformer_blocks[-1]
    block.proj_out = nn.Linear(1, 1)
    assert view.parts[-1].module is block.proj_out is not before


def test_an_unknown_network_is_refused_with_the_remedy():
    with pytest.raises(Unsupported, match="ModelView") as caught:
        view_of(nn.Linear(2, 2))
    assert "Linear" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_ranges_may_begin_can_depend_on_the_network():
    blocks, grid = (Blocks("0", BlockForm(())),), lambda network, given: GRID
    network = nn.Sequential(nn.Sequential())
    assert ModelView(network, Family("a", blocks, grid, first_safe=3)).first_safe == 3
    assert ModelView(network, Family("a", blocks, grid, first_safe=lambda network: len(network) + 1)).first_safe == 2


def test_arguments_are_found_and_changed_by_name_wherever_they_stand():
    class Two(nn.Module):
        def forward(self, first, second, third=None):
            return first, second, third

    names = Signature.of(Two)
    assert names.by_name((1, 2), {"third": 3}) == {"first": 1, "second": 2, "third": 3}
    args, kwargs = names.put((1,), {"second": 2}, {"first": 7, "second": 8})
    assert Two()(*args, **kwargs) == (7, 8, None)
