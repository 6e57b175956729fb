"""The budget: its way down, and a loss that stops at it."""

import pytest
import torch

from longtake.recognition.token_routing import budget_at, budget_loss


def test_the_budget_is_full_for_a_tenth_then_falls_to_the_target():
    done = [0.0, 0.099, 0.1, 0.3, 0.5, 1.0]
    assert [budget_at(d, 0.6) for d in done] == pytest.approx([1.0, 1.0, 1.0, 0.8, 0.6, 0.6])
    assert budget_at(0.0, 0.6, hold=0.0, reached=0.0) == pytest.approx(0.6)


def test_below_the_budget_nothing_pulls():
    share = torch.tensor([0.5, 0.6], requires_grad=True)
    assert budget_loss(share, 0.55) == 0
    loss = budget_loss(share, 0.45)
    loss.backward()
    assert loss.item() == pytest.approx(0.01)
    assert share.grad is not None and share.grad.tolist() == pytest.approx([0.1, 0.1])
