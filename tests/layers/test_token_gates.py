"""Gates of tokens: open at first, then a function of the token and of the condition."""

import torch

from longtake.layers.token_gates import TokenGate
from longtake.layers.token_rows import flat_rows, pad_rows


def gate(cond_dim):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TokenGate(16, 2, cond_dim)


def test_it_starts_open_and_blind_to_the_condition():
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    own = gate(6)
    conditions = [torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3)]
    first, second = (own(x, condition) for condition in conditions)
    assert torch.equal(first, second)
    assert first.shape == (2, 5, 2) and first.min() > 1
    assert not torch.equal(first[:, 0], first[:, 1])


def test_the_condition_modulates_what_it_sees():
    x = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(1))
    own = gate(6)
    with torch.no_grad():
        own.condition.weight.normal_(generator=torch.Generator().manual_seed(4))
        condition = torch.ones(1, 1, 6)
        shift, scale = own.condition(torch.nn.functional.silu(condition)).chunk(2, -1)
        expected = own.logits(torch.nn.functional.gelu(own.up(own.norm(x) * (1 + scale) + shift)))
        torch.testing.assert_close(own(x, condition), expected)


def test_its_cost_is_that_of_its_two_layers():
    assert gate(None).macs(10) == 10 * (16 * 4 + 4 * 2)


def test_rows_are_padded_to_the_fullest_and_come_back():
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    x = torch.arange(1.0, 13.0).view(3, 4, 1)
    rows = pad_rows(x[mask], mask)
    assert rows[..., 0].tolist() == [[1, 3, 4], [8, 0, 0], [0, 0, 0]]
    assert torch.equal(flat_rows(rows, mask), x[mask])
