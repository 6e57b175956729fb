"""The vertical edge: renormalisation, what receives nothing, and a slow plain loop."""

import pytest
import torch

from longtake.recognition.token_routing.embedding import VerticalEdge, below, reach


@pytest.fixture
def edge():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VerticalEdge(5, 7)


def slow(edge, x, size, gates):
    """One window after another."""
    weights = edge.convolution.weight
    made = torch.zeros(*below(size), 7)
    for top in range(below(size)[0]):
        for left in range(below(size)[1]):
            inside = [
                (y, z, 2 * top + y - 1, 2 * left + z - 1)
                for y in range(3)
                for z in range(3)
                if 0 <= 2 * top + y - 1 < size[0] and 0 <= 2 * left + z - 1 < size[1]
            ]
            shares = [gates[row * size[1] + column] for _, _, row, column in inside]
            total = sum(
                gates[row * size[1] + column] * (weights[:, :, y, z] @ x[row * size[1] + column])
                for y, z, row, column in inside
            )
            made[top, left] = total / max(sum(shares) / len(shares), 0.25)
    return made.flatten(0, 1)


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_both_executions_equal_a_plain_loop(edge, size):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, size[0] * size[1], 5, generator=generator)
    gates = (torch.rand(2, x.shape[1], generator=generator) > 0.6).float()
    for run in (edge, edge.gathered):
        made, arrived = run(x, size, gates)
        for index in range(2):
            expected = slow(edge, x[index], size, gates[index])
            torch.testing.assert_close(made[index], expected, atol=1e-6, rtol=1e-5)
            assert torch.equal(arrived[index], expected.abs().amax(1) > 0)


@torch.no_grad()
def test_a_sparse_map_is_not_smaller_than_a_full_one(edge):
    """What the division is for: of equal tokens a window makes the same, whether all are open or one of four."""
    size = (9, 9)
    x = torch.ones(1, 81, 5)
    edge.convolution.weight.copy_(torch.ones_like(edge.convolution.weight))
    gates = torch.zeros(9, 9)
    gates[::2, ::2] = 1.0  # windows hold one or two by two of them: 1 of 9 inside, 1 of 4 in the corners
    full, _ = edge(x, size, torch.ones(1, 81))
    sparse, _ = edge(x, size, gates.view(1, 81))
    assert full[0, 12, 0] == 45
    assert sparse[0, 0, 0] == pytest.approx(5 / 0.25)
    assert sparse[0, 12, 0] == pytest.approx(5 / 0.25)  # 1/9 is below the least share


def test_reach_counts_the_windows_of_each_token():
    assert reach((4, 4)).view(4, 4).tolist() == [[1, 2, 1, 1], [2, 4, 2, 2], [1, 2, 1, 1], [1, 2, 1, 1]]
