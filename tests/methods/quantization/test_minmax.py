"""8-bit weights: their error, their bytes, and which layers have them."""

import pytest
import torch
from tiny_networks import build, sample

from longtake.errors import BadInput
from longtake.layers.linear import Linear
from longtake.methods.quantization.minmax import ByteLinear, MinMaxWeights
from longtake.runtime.stack import Stack


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_weight_is_within_half_a_step_of_its_own_output(bits):
    layer = Linear(40, 7)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-3, 3, 7)[:, None]).add_(0.01)
    step = (layer.weight.amax(1) - layer.weight.amin(1)) / (2**bits - 1)
    made = ByteLinear(layer, 2**bits)
    error = (made.weights(torch.float32) - layer.weight).abs().amax(1)
    assert (error <= step / 2 * 1.001).all()
    assert (error > step / 8).all()
    assert made.codes.unique().numel() <= 2**bits
    x = torch.randn(3, 5, 40)
    torch.testing.assert_close(made(x), x @ made.weights(torch.float32).T + layer.bias, atol=1e-2, rtol=1e-5)


def test_an_output_whose_weights_are_equal_is_exact():
    layer = Linear(8, 3, bias=False)
    layer.weight.data.fill_(0.37)
    assert torch.equal(ByteLinear(layer, 256).weights(torch.float32), layer.weight)


def test_bytes_before_and_now():
    """Of a Wan block: 8 layers of 24 x 24 and two of the feed-forward network; 8 bytes of scale and offset an output."""
    tiny = build("wan")
    with Stack([MinMaxWeights(keep="")]).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    weights, outputs = 4 * 10 * 24 * 24, 4 * 10 * 24
    assert stack.receipts[0].notes["weight_bytes"] == {"before": 4 * weights, "now": weights + 8 * outputs}
    assert stack.receipts[0].branches["weights"].changed == stack.receipts[0].sites == 40


def test_layers_that_are_kept_stay():
    tiny = build("wan")
    before = dict(tiny.network.named_modules())
    with Stack([MinMaxWeights(keep="attn1|ffn")]).attach(tiny.network) as stack:
        now = dict(tiny.network.named_modules())
        replaced = {name for name in before if now[name] is not before[name]}
        sample(tiny, *tiny.draw(), stack)
    assert len(replaced) == 16
    assert all("attn2" in name for name in replaced)
    assert dict(tiny.network.named_modules()) == before


def test_fewer_bits_are_further_from_dense():
    tiny = build("our-waver")
    given = tiny.draw()
    dense, error = sample(tiny, *given), {}
    for bits in (8, 5, 3):
        with Stack([MinMaxWeights(bits)]).attach(tiny.network) as stack:
            error[bits] = (sample(tiny, *given, stack) - dense).abs().mean().item()
    assert 0 < error[8] < error[5] / 3 < error[3] / 9


def test_bad_bits():
    for bits in (1, 9):
        with pytest.raises(BadInput, match=f"bits is {bits}"):
            MinMaxWeights(bits)
