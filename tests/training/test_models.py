"""What is done to networks before they are trained."""

import shutil

import pytest
import torch
import torch._dynamo.utils
from torch import nn

from longtake.backbones.waver import HybridStreamDiT
from longtake.errors import BadRecipe
from longtake.training.models import checkpoint_gradients, compile_blocks


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_blocks_compute_the_same_in_fewer_graphs_than_blocks_and_lengths():
    torch.manual_seed(0)
    config = {"latent_channels": 4, "text_width": 16, "width": 32, "heads": 2, "dual_blocks": 0, "single_blocks": 3}
    network = HybridStreamDiT(**config).requires_grad_(False)
    for weight in network.parameters():
        weight.add_(torch.randn_like(weight) * 0.1)
    inputs = [(torch.randn(2, 4, 3, 4, 4), torch.tensor([300.0, 700.0]), torch.randn(2, n, 16)) for n in (5, 7)]
    wanted = [network(*each) for each in inputs]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_blocks({"backbone": network})
    for each, right in zip(inputs, wanted, strict=True):
        assert torch.allclose(network(*each), right, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.parametrize("change", [checkpoint_gradients, compile_blocks])
def test_a_network_that_cannot_is_named(change):
    with pytest.raises(BadRecipe, match=r"linear .*set it to false"):
        change({"linear": nn.Linear(2, 2)})
