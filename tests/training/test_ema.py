import pytest
import torch
from torch import nn

from longtake.training.ema import Ema


def parameters(*values):
    return {f"p{i}": nn.Parameter(torch.tensor(value)) for i, value in enumerate(values)}


def test_decay_warms_up():
    """min(target, (1 + n) / (10 + n)), written out."""
    weights = parameters([1.0, 2.0], [[3.0]])
    ema = Ema(weights, decay=0.3)
    expected = [1.0, 2.0]
    for step, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]):
        with torch.no_grad():
            weights["p0"].add_(1.0)
        ema.update(step)
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights["p0"].tolist(), strict=True)]
        assert ema.tensors["p0"].tolist() == pytest.approx(expected, rel=1e-6)
    assert ema.tensors["p1"].tolist() == [[3.0]]


def test_swapping_in_shows_the_average_and_gives_the_weights_back_bit_for_bit():
    weights = parameters([0.1, 0.2])
    ema = Ema(weights, decay=0.9)
    with torch.no_grad():
        weights["p0"].mul_(1 / 3)
    before = weights["p0"].clone()
    average = ema.tensors["p0"].clone()
    with ema.swapped_in():
        assert torch.equal(weights["p0"], average)
    assert torch.equal(weights["p0"], before)
    assert torch.equal(ema.tensors["p0"], average)


def test_decay_zero_keeps_no_average():
    weights = parameters([1.0])
    ema = Ema(weights, decay=0.0)
    ema.update(0)
    assert ema.tensors == {}
    with ema.swapped_in():
        assert weights["p0"].item() == 1.0
