import pytest
import torch
from torch import nn
from toy import Net

from longtake.errors import BadRecipe
from longtake.training.optimizers import build_optimizers, hidden_matrices, optimizer_tensors, set_rate
from longtake.training.recipe import OptimizerRecipe


def build(name="muon", **fields):
    torch.manual_seed(0)
    modules = {"net": Net(0.0)}
    weights = {f"net.{n}": p for n, p in modules["net"].named_parameters()}
    return modules, weights, build_optimizers(modules, weights, OptimizerRecipe(name=name, **fields))


def train(modules, optimizers, steps=1):
    x = torch.ones(4, 8)
    for _ in range(steps):
        (modules["net"](x) - 2 * x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_muon_takes_the_matrices_inside_blocks_and_nothing_else():
    modules, weights, optimizers = build()
    assert hidden_matrices(modules) == {"net.blocks.0.0.weight", "net.blocks.1.0.weight"}
    adam, muon = optimizers
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    assert taken == {id(weights["net.blocks.0.0.weight"]), id(weights["net.blocks.1.0.weight"])}
    left = {id(p) for group in adam.param_groups for p in group["params"]}
    assert taken | left == {id(p) for p in weights.values()}
    assert not taken & left


def test_muon_moves_a_matrix_by_an_orthogonal_step_of_adams_size():
    modules, weights, optimizers = build(lr=1e-3, muon_lr=1e-2, weight_decay=0.0)
    weight = weights["net.blocks.0.0.weight"]
    before = weight.detach().clone()
    train(modules, optimizers)
    values = torch.linalg.svdvals((weight.detach() - before) / (1e-2 * 0.2 * 16**0.5))
    # Newton-Schulz brings the larger singular values near 1; the gradient of 4 equal rows has rank 1
    assert values[0] == pytest.approx(1.0, abs=0.35)


def test_decay_is_for_matrices_only():
    _, _, (adam,) = build("adamw", weight_decay=0.1)
    for group in adam.param_groups:
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim >= 2 else 0.0)


def test_what_decides_may_have_a_rate_of_its_own():
    class Decides(nn.Linear):
        steers = True

    def grouped(**fields):
        modules = {"net": Net(0.0)}
        modules["net"].blocks.append(Decides(16, 16))
        weights = {f"net.{n}": p for n, p in modules["net"].named_parameters()}
        adam, *muon = build_optimizers(modules, weights, OptimizerRecipe(name="muon", lr=1e-3, **fields))
        assert sum(len(group["params"]) for one in (adam, *muon) for group in one.param_groups) == len(weights)
        own = (weights["net.blocks.2.weight"], weights["net.blocks.2.bias"])
        groups = [group for weight in own for group in adam.param_groups if any(p is weight for p in group["params"])]
        return [(group["base_lr"], group["weight_decay"]) for group in groups]

    assert grouped() == [(1e-3, 0.0)]  # its matrix is one of Muon's
    assert grouped(router_lr=1e-2) == [(1e-2, 0.01), (1e-2, 0.0)]
    with pytest.raises(BadRecipe, match="router_lr: nothing"):
        build(router_lr=1e-2)


def test_set_rate_scales_each_groups_own_rate():
    _, _, (adam, muon) = build(lr=1e-3, muon_lr=4e-3)
    set_rate([adam, muon], 0.5)
    set_rate([adam, muon], 0.25)  # a share of the recipe's rate, not of the last one
    assert adam.param_groups[0]["lr"] == pytest.approx(2.5e-4)
    assert muon.param_groups[0]["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_copying_the_state_into_fresh_optimisers_continues_bit_for_bit(name):
    modules, weights, optimizers = build(name)
    train(modules, optimizers, 3)
    other_modules, other_weights, others = build(name)
    state, empty = optimizer_tensors(optimizers, weights), optimizer_tensors(others, other_weights)
    assert state.keys() == empty.keys()
    for key, value in state.items():
        empty[key].copy_(value)
    other_modules["net"].load_state_dict(modules["net"].state_dict())
    train(modules, optimizers, 2)
    train(other_modules, others, 2)
    for key, p in weights.items():
        assert torch.equal(p, other_weights[key]), key


def test_tied_and_plain_layers_outside_lists_stay_with_adam():
    modules = {"m": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))}
    assert hidden_matrices(modules) == set()


def test_thin_matrices_stay_with_adam():
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 3), nn.Linear(3, 32), nn.Conv2d(2, 16, 3))])
    assert hidden_matrices({"m": nn.ModuleDict({"blocks": blocks})}) == {"m.blocks.0.0.weight", "m.blocks.0.3.weight"}


def test_muon_takes_transposed_convolutions_inside_blocks():
    blocks = nn.ModuleList(
        [nn.Sequential(nn.Conv3d(16, 16, 3), nn.ConvTranspose3d(16, 16, 4), nn.ConvTranspose3d(2, 16, 4))]
    )
    assert hidden_matrices({"m": nn.ModuleDict({"blocks": blocks})}) == {"m.blocks.0.0.weight", "m.blocks.0.1.weight"}
