"""Linear layers against torch's own: values, gradients of both orders, and where they stand aside."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longtake.layers import linear as module
from longtake.layers.linear import Linear, linear, linear_gelu, linear_outputs


def operands(*leading, bias=True, dtype=torch.float32):
    x = torch.randn(*leading, 12, dtype=dtype, requires_grad=True)
    weight = torch.randn(7, 12, dtype=dtype, requires_grad=True)
    return (x, weight, torch.randn(7, dtype=dtype, requires_grad=True)) if bias else (x, weight)


@pytest.fixture
def products(monkeypatch):
    """How often oneDNN was called."""
    calls, product = [], module._product

    def counted(*args):
        calls.append(args)
        return product(*args)

    monkeypatch.setattr(module, "_product", counted)
    return calls


onednn = pytest.mark.skipif(not module._ONEDNN, reason="torch was built without oneDNN")


@onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(5,), (2, 3), (2, 3, 4)])
def test_equals_torch_in_value_and_gradients(leading, bias, products):
    given = operands(*leading, bias=bias)
    made, wanted = linear(*given), F.linear(*given)
    torch.testing.assert_close(made, wanted)
    grad = torch.randn_like(made)
    for own, other in zip(
        torch.autograd.grad(made, given, grad), torch.autograd.grad(wanted, given, grad), strict=True
    ):
        torch.testing.assert_close(own, other)
    assert len(products) == 3  # forward, and two of the backward


@onednn
def test_second_derivatives():
    given = operands(5)
    found = []
    for function in (linear, F.linear):
        first = torch.autograd.grad(function(*given).pow(3).sum(), given, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), given))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-2)


@onednn
def test_gradients_that_nobody_wants_are_not_computed(products):
    x, weight, bias = operands(5)
    linear(x.detach(), weight, bias).sum().backward()
    assert x.grad is None and len(products) == 2


@onednn
def test_rows_that_lie_across_memory():
    x = torch.randn(2, 4, 3, 12).transpose(1, 2)
    weight = torch.randn(7, 12)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


@pytest.mark.parametrize(
    "case", ["bfloat16", "float64", "autocast", "empty", "one row", "jvp", "vmap", "subclass", "compiled"]
)
def test_stands_aside(case, products):
    given = operands(5, dtype={"bfloat16": torch.bfloat16, "float64": torch.float64}.get(case, torch.float32))
    x, weight, bias = given
    if case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(*given).dtype == torch.bfloat16
    elif case == "empty":
        assert linear(x[:0], weight, bias).shape == (0, 7)
    elif case == "one row":
        torch.testing.assert_close(linear(x[0], weight, bias), F.linear(x[0], weight, bias))
    elif case == "jvp":
        tangent = torch.randn_like(x)
        _, made = torch.func.jvp(lambda x: linear(x, weight, bias), (x.detach(),), (tangent,))
        torch.testing.assert_close(made, F.linear(tangent, weight))
    elif case == "vmap":
        made = torch.func.vmap(lambda w: linear(x, w, bias))(weight[None])
        torch.testing.assert_close(made[0], F.linear(x, weight, bias))
    elif case == "subclass":

        class Marked(torch.Tensor):
            pass

        assert type(linear(x.detach().as_subclass(Marked), weight.detach())) is Marked
    elif case == "compiled":
        with torch.no_grad():
            torch.compile(linear, backend="eager", fullgraph=True)(*given)
    else:
        torch.testing.assert_close(linear(*given), F.linear(*given))
    assert not products


@onednn
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("mode", ["float32", "bfloat16", "autocast", "autocast of bfloat16"])
@torch.no_grad()
def test_gelu_in_the_same_pass(mode, approximate, products):
    layer, x = Linear(12, 7), torch.randn(2, 5, 12)
    wanted = F.gelu(layer(x), approximate=approximate)
    products.clear()
    if mode == "bfloat16":
        layer, x = layer.bfloat16(), x.bfloat16()
    if mode == "autocast of bfloat16":
        x = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in mode):
        made = linear_gelu(layer, x, approximate)
    assert len(products) == 1 and made.dtype == (torch.float32 if mode == "float32" else torch.bfloat16)
    tolerance = 1e-6 if mode == "float32" else 0.03
    torch.testing.assert_close(made.float(), wanted, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_gelu_of_another_dtype_is_refused_as_torch_does():
    with pytest.raises(RuntimeError, match="dtype"):
        linear_gelu(Linear(12, 7), torch.randn(5, 12).bfloat16())


class Doubled(Linear):
    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize("how", ["hook", "pre-hook", "wrapped", "replaced", "gradients"])
def test_a_layer_in_other_hands_is_called_as_it_is(how):
    layer, x = Linear(12, 7), torch.randn(5, 12)
    nn.init.zeros_(layer.bias)
    wanted = F.gelu(F.linear(x if how == "gradients" else 2 * x, layer.weight))
    if how == "hook":
        layer.register_forward_hook(lambda module, args, made: 2 * made)
    elif how == "pre-hook":
        layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    elif how == "wrapped":
        own = layer.forward
        layer.forward = lambda x: 2 * own(x)
    elif how == "replaced":
        other = Doubled(12, 7)
        other.load_state_dict(layer.state_dict())
        layer = other
    with torch.set_grad_enabled(how == "gradients"):
        made = linear_gelu(layer, x)
    torch.testing.assert_close(made, wanted)
    assert made.requires_grad == (how == "gradients")


def test_some_outputs_are_those_of_the_whole_layer_and_hooks_are_asked():
    layer, x = Linear(12, 9), torch.randn(4, 12)
    torch.testing.assert_close(linear_outputs(layer, x, 2, 5), layer(x)[:, 2:5])
    layer.register_forward_hook(lambda module, args, made: made + 1)
    torch.testing.assert_close(linear_outputs(layer, x, 2, 5), layer(x)[:, 2:5])
    bare = nn.Linear(12, 9, bias=False)
    torch.testing.assert_close(linear_outputs(bare, x, 0, 9), bare(x))
