"""DyDiT: exactness (arXiv 2410.03456, 2504.06803), both kinds of networks, costs, slices, TD-LoRA, refusals."""

import pytest
import torch
from tests.runtime.tiny_networks import awake
from torch import nn

from longtake.backbones.latte import Latte
from longtake.backbones.waver import HybridStreamDiT
from longtake.errors import BadInput, Unsupported
from longtake.methods.dynamic.dydit import (
    DyHybrid,
    DyLatte,
    add_td_lora,
    budget_term,
    dit_macs,
    share_of,
    to_dydit,
)
from longtake.methods.dynamic.dydit.reordering import largest_first, unit_norms
from longtake.methods.dynamic.dydit.routing import TokenRouter, WidthRouter
from longtake.methods.dynamic.dydit.td_lora import TDLoraLinear
from longtake.runtime.macs import counting
from longtake.runtime.views import view_of


def latte(variant="1", **more):
    given = {"latent_channels": 4, "width": 32, "depth": 4, "heads": 4, "classes": 3, **more}
    return awake(Latte(variant=variant, learned_variance=False, **given))


def waver(**more):
    given = {"dual_blocks": 2, "single_blocks": 2, "patch": (1, 2, 2), **more}
    return awake(HybridStreamDiT(latent_channels=4, text_width=16, width=32, heads=4, **given))


CASES = {
    "latte": latte,
    "latte, rotary": lambda: latte(temporal_pos="rope"),
    "latte 3": lambda: latte("3"),
    "latte 4": lambda: latte("4"),
    "latte joint": lambda: latte("joint"),
    "waver": waver,
    "waver, last": lambda: waver(single_blocks=0),
}


def call(network, t=500.0, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    x, words = (torch.randn(3, *shape, generator=generator)[:batch] for shape in ((4, 4, 8, 8), (5, 16)))
    times = torch.tensor(t).expand(batch) if isinstance(t, float) else torch.tensor(t)
    if isinstance(network, HybridStreamDiT):
        mask = torch.ones(3, 5, dtype=torch.bool)
        mask[0, 3:] = False
        return network(x, times, words, mask[:batch])
    return network(x, times, labels=torch.arange(batch) % 3)


def unsettled(network, seed=0):
    """The network with routers that decide this way and that."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        layer = {WidthRouter: "linear", TokenRouter: "leave"}.get(type(module))
        if layer is not None:
            layer = getattr(module, layer)
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
            layer.bias.data = torch.randn(layer.bias.shape, generator=generator)
        if isinstance(module, TokenRouter):  # even odds, whatever the size of the stream
            module.enter.weight.data = torch.randn(module.enter.weight.shape, generator=generator)
            module.leave.weight.data.fill_(1.0)
            module.leave.bias.data = -module.enter.weight.norm(dim=1).mul(0.4).sum()[None]
    return network


def masked(network, *args, **more):
    """The same call with masks, as while learning."""
    with torch.enable_grad():
        return call(network, *args, **more).detach()


@pytest.mark.parametrize("reorder", [True, False])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_at_first_everything_is_on_and_nothing_is_changed(case, reorder):
    network = CASES[case]()
    made = to_dydit(network, reorder=reorder)
    for t in (0.0, 37.0, 500.0, 999.0):
        torch.testing.assert_close(call(made, t), call(network, t), atol=1e-5, rtol=1e-5)
    receipt = made.receipt()
    assert receipt.notes["share"] == 1.0 and not receipt.acted
    torch.testing.assert_close(masked(made), call(network), atol=1e-5, rtol=1e-5)
    made.train()
    with made.drawing(None) as whole, torch.enable_grad():
        torch.testing.assert_close(call(made).detach(), call(network), atol=1e-5, rtol=1e-5)
    assert float(share_of(whole.spent)) == 1.0


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_cut_and_gathered_is_masked(case):
    made = unsettled(to_dydit(CASES[case]()))
    for t in (3.0, 400.0, 900.0):
        torch.testing.assert_close(call(made, t), masked(made, t), atol=1e-5, rtol=1e-5)
        assert (call(made, t, batch=1) - call(made, t)[:1]).abs().max() < 1e-5, "samples of a batch are apart"
    rows = made.receipt().notes["steps"]
    assert len({tuple(row["width"].values()) for row in rows}) == 3, "width changes with the noise level"
    assert all(0.2 < row["share"] < 0.9 for row in rows)
    assert any(0 < share < 1 for row in rows for share in row["tokens"].values())


@pytest.mark.parametrize("case", ["latte", "waver"])
@torch.no_grad()
def test_samples_of_different_widths_are_run_apart(case):
    made = unsettled(to_dydit(CASES[case]()))
    times = [20.0, 700.0, 20.0]
    torch.testing.assert_close(call(made, times, batch=3), masked(made, times, batch=3), atol=1e-5, rtol=1e-5)
    calls = made.receipt().notes["steps"]
    assert sorted((row["noise"], row["calls"]) for row in calls) == [(0.02, 1), (0.7, 1)]


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_share_is_what_the_counter_counts(case):
    network = CASES[case]()
    made = unsettled(to_dydit(network))
    view, other = view_of(network), view_of(made)
    call(made, batch=1)  # widths are decided once for a noise level
    assert made.receipt().acted
    with counting(view) as dense:
        call(network, batch=1)
    with counting(other) as done:
        call(made, batch=1)
    with made.drawing(None) as whole, torch.enable_grad():
        call(made, batch=1)
    gated = sum(one.macs for one in whole.spent.values())
    routers = sum(
        done.costs.of(name) for name, module in made.named_modules() if isinstance(module, WidthRouter | TokenRouter)
    )
    spent = made.receipt().notes["steps"][0]["share"] * gated
    assert abs(done.costs.total - routers - (dense.costs.total - gated) - spent) < 1e-4 * gated


def test_the_papers_costs():
    for width, attention, feed in ((384, 0.201, 0.302), (768, 0.705, 1.208), (1152, 1.510, 2.718)):
        found = [macs / 1e9 for macs in dit_macs(256, width)]
        assert found == pytest.approx([attention, feed], abs=6e-4)


def test_gates_are_drawn_by_each_samples_seed_and_learn():
    made = unsettled(to_dydit(latte())).train()

    def drawn(seeds):
        with made.drawing(seeds) as routing:
            output = call(made)
        return output, routing.spent

    first, spent = drawn([1, 2])
    again, _ = drawn([1, 2])
    other, _ = drawn([1, 3])
    assert torch.equal(first, again)
    assert torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    loss = first.square().mean() + budget_term(share_of(spent), 0.5)
    loss.backward()
    for module in made.modules():
        if isinstance(module, WidthRouter):
            assert module.linear.weight.grad.abs().sum() > 0
        if isinstance(module, TokenRouter):
            assert module.enter.weight.grad.abs().sum() > 0
    with pytest.raises(Unsupported, match="drawing"):
        call(made)


def test_settled_gates_are_those_in_use_and_learn():
    made = unsettled(to_dydit(latte()))
    with torch.no_grad():
        used = call(made)
    made.train()
    with made.drawing([1, 2], settled=True) as routing:
        output = call(made)
    torch.testing.assert_close(output, used, atol=1e-5, rtol=1e-4)
    (output.square().mean() + budget_term(share_of(routing.spent), 0.5)).backward()
    assert all(m.linear.weight.grad.abs().sum() > 0 for m in made.modules() if isinstance(m, WidthRouter))


def test_the_temperature_changes_what_routers_learn_and_nothing_else():
    made = unsettled(to_dydit(latte())).train()
    outputs, grads = [], []
    for temperature in (5.0, 1.0):
        made.zero_grad()
        with made.drawing([1, 2], temperature=temperature) as routing:
            outputs.append(call(made))
        share_of(routing.spent).backward()
        grads.append(torch.cat([m.linear.bias.grad for m in made.modules() if isinstance(m, WidthRouter)]))
    assert torch.equal(*outputs)
    assert (grads[0] - grads[1]).abs().max() > 0.1 * grads[0].abs().max()


def test_gradient_checkpointing_draws_the_same_gates_again():
    made = unsettled(to_dydit(latte())).train()
    grads = []
    for recompute in (False, True):
        if recompute:
            made.enable_gradient_checkpointing()
        made.zero_grad()
        with made.drawing([1, 2]) as routing:
            output = call(made)
        (output.square().mean() + budget_term(share_of(routing.spent), 0.5)).backward()
        grads.append([p.grad.clone() for p in made.parameters() if p.grad is not None])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again, atol=1e-6, rtol=1e-4)


def test_the_budgets_term():
    share = torch.tensor([0.4, 0.8]).mean()
    assert float(budget_term(share, 0.5)) == pytest.approx(0.02)


@torch.no_grad()
def test_reordering_is_exact_and_sorts():
    for network in (latte(), latte("4"), waver()):
        before = call(network)
        largest_first(network)
        torch.testing.assert_close(call(network), before, atol=1e-5, rtol=1e-5)
    network = latte()
    largest_first(network)
    attention, feed = network.blocks[0].attentions["space"], network.blocks[0].ffn
    for first, second, units, repeats in (
        (attention.qkv, attention.out, 4, 3),
        (feed.up, feed.down, feed.up.out_features, 1),  # so groups of them are sorted too
    ):
        norms = unit_norms(first, second, units, repeats)
        assert (norms.diff() <= 0).all() and norms[0] > norms[-1]


@torch.no_grad()
def test_slices_follow_their_weights():
    made = unsettled(to_dydit(latte()))
    before = call(made)
    for name, weight in made.named_parameters():
        if "qkv" in name or "up" in name:
            weight.mul_(1.5)
    after = call(made)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, masked(made), atol=1e-5, rtol=1e-5)
    unsettled(made, seed=5)
    torch.testing.assert_close(call(made), masked(made), atol=1e-5, rtol=1e-5)
    made.blocks[0].feed.ffn.up.register_forward_hook(lambda module, args, output: output * 2)
    hooked = call(made)
    assert (hooked - after).abs().max() > 1e-3
    torch.testing.assert_close(hooked, masked(made), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_no_token_at_all_adds_nothing():
    made = to_dydit(latte())
    for module in made.modules():
        if isinstance(module, TokenRouter):
            module.leave.bias.fill_(-100.0)
    torch.testing.assert_close(call(made), masked(made), atol=1e-5, rtol=1e-5)
    assert set(made.receipt().notes["steps"][-1]["tokens"].values()) == {0.0}


@torch.no_grad()
def test_steps_are_known_ahead():
    made = unsettled(to_dydit(latte()))
    table = made.compile_steps([10.0, 500.0, 900.0])
    call(made, 500.0)
    widths = made.receipt().notes["steps"][0]["width"]
    assert table[1]["heads"] == [share for name, share in widths.items() if "ffn" not in name]
    assert table[1]["groups"] == [share for name, share in widths.items() if "ffn" in name]
    assert table[0] != table[2]


@pytest.mark.parametrize("td_lora", [None, {"rank": 2, "experts": 3}])
@pytest.mark.parametrize(("make", "kind"), [(latte, DyLatte), (waver, DyHybrid)])
@torch.no_grad()
def test_saved_and_loaded(tmp_path, make, kind, td_lora):
    made = unsettled(to_dydit(make(), td_lora=td_lora, tokens=td_lora is None))
    for name, weight in made.named_parameters():
        if "lora_experts" in name:
            weight.normal_(generator=torch.Generator().manual_seed(1))
    made.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert loaded.config.classes == 3 if make is latte else True
    torch.testing.assert_close(call(loaded), call(made), atol=0, rtol=0)


# ------------------------------------------------------------------------------------------------------- TD-LoRA


def adapted(network, experts=3, seed=0):
    add_td_lora(network, rank=2, experts=experts)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if "lora_experts" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    return network


@pytest.mark.parametrize("make", [latte, waver])
@torch.no_grad()
def test_td_lora_starts_as_the_base_and_changes_with_time(make):
    network = make()
    before = [call(network, t) for t in (20.0, 800.0)]
    names = add_td_lora(network, rank=2, experts=3)
    assert names and all(isinstance(network.get_submodule(name), TDLoraLinear) for name in names)
    for t, dense in zip((20.0, 800.0), before, strict=True):
        torch.testing.assert_close(call(network, t), dense, atol=1e-5, rtol=1e-5)
    layer = network.get_submodule(names[0])
    layer.lora_experts["default"].data.normal_(generator=torch.Generator().manual_seed(0))
    low, high = (layer.weights_at(network.embed_time(torch.tensor([t])))[0] for t in (20.0, 800.0))
    assert (low - high).abs().max() > 1e-4
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name for name in trained)


@torch.no_grad()
def test_one_expert_is_lora():
    network = latte()
    plain = latte()
    plain.load_state_dict(network.state_dict())
    adapted(network, experts=1)
    for name, module in network.named_modules():
        if isinstance(module, TDLoraLinear):
            low, second = module.lora_A["default"].weight, module.lora_experts["default"][0]
            plain.get_submodule(name).weight += second @ low  # alpha / r = 1
    torch.testing.assert_close(call(network), call(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [latte, waver])
@torch.no_grad()
def test_merged_and_cut_td_lora_is_the_masked_one(make):
    made = unsettled(to_dydit(make(), td_lora={"rank": 2, "experts": 3}))
    for name, weight in made.named_parameters():
        if "lora_experts" in name:
            weight.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    for t in (20.0, 700.0, [20.0, 700.0, 20.0]):
        batch = 2 if isinstance(t, float) else 3
        torch.testing.assert_close(call(made, t, batch=batch), masked(made, t, batch=batch), atol=2e-5, rtol=1e-5)
    trained = [name for name, weight in made.named_parameters() if weight.requires_grad]
    assert all("lora_" in name or "router" in name for name in trained)
    assert any("token_router" in name for name in trained)


# ------------------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be():
    with pytest.raises(Unsupported, match="Linear cannot become a DyDiT"):
        to_dydit(nn.Linear(2, 2))
    with pytest.raises(Unsupported, match="all_tokens"):
        to_dydit(latte(inject="all_tokens"))
    with pytest.raises(BadInput, match="starts"):
        to_dydit(latte(), starts=(0, 5))
    with pytest.raises(BadInput, match="1 head"):
        to_dydit(latte(heads=1))
    with pytest.raises(BadInput, match="images"):
        made = to_dydit(latte())
        made(torch.randn(1, 4, 5, 8, 8), torch.tensor([1.0]), images=1)
    with pytest.raises(BadInput, match="rank 0"):
        add_td_lora(latte(), rank=0)
    with pytest.raises(Unsupported, match="already"):
        add_td_lora(adapted(latte()))
