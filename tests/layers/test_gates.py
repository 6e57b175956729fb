"""Gates: exact values, the right odds, the soft gate's gradient."""

import pytest
import torch

from longtake.layers.gates import budget_at, decided_gates, drawn_gates, settled_gates


def test_drawn_gates_are_exactly_zero_or_one_and_as_likely_as_the_sigmoid() -> None:
    logits = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0]).repeat(20_000, 1)
    gates = drawn_gates(logits, 5.0, torch.Generator().manual_seed(0))
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(gates.mean(0), logits[0].sigmoid(), atol=0.01, rtol=0)


def test_their_gradient_is_the_soft_gates() -> None:
    logits = torch.randn(64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    drawn_gates(logits, 2.0, torch.Generator().manual_seed(2)).sum().backward()
    u = torch.rand(64, generator=torch.Generator().manual_seed(2))
    twin = logits.detach().clone().requires_grad_()
    torch.sigmoid((twin + torch.logit(u)) / 2.0).sum().backward()
    assert logits.grad is not None and twin.grad is not None
    torch.testing.assert_close(logits.grad, twin.grad)
    assert logits.grad.abs().min() > 0


def test_an_open_gate_stays_open_and_decided_ones_have_a_threshold_at_zero() -> None:
    generator = torch.Generator().manual_seed(3)
    assert drawn_gates(torch.full((10_000,), 35.0), 5.0, generator).min() == 1
    assert decided_gates(torch.tensor([-1e-6, 0.0, 1e-6])).tolist() == [0.0, 0.0, 1.0]


def test_settled_gates_are_decided_ones_that_learn() -> None:
    logits = torch.randn(64, generator=torch.Generator().manual_seed(6)).requires_grad_()
    gates = settled_gates(logits, 2.0)
    assert torch.equal(gates, decided_gates(logits))
    gates.sum().backward()
    soft = torch.sigmoid(logits.detach() / 2.0)
    torch.testing.assert_close(logits.grad, soft * (1 - soft) / 2.0)


def test_generators_of_rows_draw_for_each_row_what_it_would_draw_alone() -> None:
    logits = torch.zeros(2, 500)
    both = drawn_gates(logits, 1.0, [torch.Generator().manual_seed(seed) for seed in (4, 5)])
    alone = drawn_gates(logits[1:], 1.0, [torch.Generator().manual_seed(5)])
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])


def test_a_budget_is_one_then_falls_in_a_line() -> None:
    assert [budget_at(step, 0.5, 100, 1000) for step in (0, 100, 600, 1100, 9000)] == [1.0, 1.0, 0.75, 0.5, 0.5]
    assert [budget_at(step, 0.5, 2, 0) for step in (1, 2)] == [1.0, 0.5]
    done = [0.0, 0.099, 0.1, 0.3, 0.5, 1.0]
    assert [budget_at(share, 0.6, 0.1, 0.4) for share in done] == pytest.approx([1.0, 1.0, 1.0, 0.8, 0.6, 0.6])
