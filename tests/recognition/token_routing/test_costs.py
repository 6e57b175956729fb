"""The budget: its way down, and a loss that stops at it."""

import pytest
import torch

from longtake.recognition.token_routing import budget_loss


def test_below_the_budget_nothing_pulls():
    share = torch.tensor([0.5, 0.6], requires_grad=True)
    assert budget_loss(share, 0.55) == 0
    loss = budget_loss(share, 0.45)
    loss.backward()
    assert loss.item() == pytest.approx(0.01)
    assert share.grad is not None and share.grad.tolist() == pytest.approx([0.1, 0.1])
