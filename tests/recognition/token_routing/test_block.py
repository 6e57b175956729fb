"""The block: what skipped tokens still do, and what it costs."""

import torch

from longtake.recognition.token_routing.block import RoutedTransformer

SIZE = (6, 7)


def block(reduction=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RoutedTransformer(8, 2, reduction, 4)


def tokens(seed=1):
    return torch.randn(2, 42, 8, generator=torch.Generator().manual_seed(seed))


def some_gates():
    return (torch.rand(2, 42, generator=torch.Generator().manual_seed(2)) > 0.5).float()


@torch.no_grad()
def test_gathered_equals_masked_and_closed_tokens_stay():
    gates, x = some_gates(), tokens()
    masked, gathered = block()(x, SIZE, gates), block().gathered(x, SIZE, gates)
    torch.testing.assert_close(masked, gathered, atol=1e-5, rtol=0)
    for made in (masked, gathered):
        assert torch.equal(made[gates == 0], x[gates == 0])
        assert ((made - x)[gates == 1].abs().amax(1) > 1e-3).all()


@torch.no_grad()
def test_a_sample_without_open_tokens_is_left_alone():
    gates, x, edge = some_gates(), tokens(), block()
    gates[0] = 0
    made = edge.gathered(x, SIZE, gates)
    torch.testing.assert_close(made, edge(x, SIZE, gates), atol=1e-5, rtol=0)
    assert torch.equal(made[0], x[0])
    assert edge.gathered(x, SIZE, torch.zeros(2, 42)) is x


@torch.no_grad()
def test_skipped_tokens_stay_visible_as_keys_but_not_to_the_convolution():
    gates, x = torch.zeros(2, 42), tokens()
    gates[:, 0] = 1.0  # one corner is open
    moved = x.clone()
    moved[:, 1:] += torch.randn(2, 41, 8, generator=torch.Generator().manual_seed(3))
    edge = block()
    assert (edge.gathered(x, SIZE, gates) - edge.gathered(moved, SIZE, gates))[:, 0].abs().max() > 1e-4
    edge.attention.out.weight.zero_()  # without attention its neighbours are nothing to it
    torch.testing.assert_close(edge.gathered(x, SIZE, gates)[:, 0], edge.gathered(moved, SIZE, gates)[:, 0])


def test_the_cost_of_a_token_is_that_of_a_transformer_block():
    """10 C^2 and the products with M keys, for an MLP of ratio 4; reduction, 2 C^2 for k and v, and convolution once."""
    cost = block().cost(SIZE)
    assert cost.token == 10 * 8**2 + 2 * 4 * 8  # M = ceil(6/4) ceil(7/4) = 4
    assert cost.once == 4 * 16 * 8**2 + 2 * 4 * 8**2 + 9 * 32 * 42
    gates = some_gates()
    gates[1] = 0
    assert cost.of(gates).tolist() == [cost.token * int(gates[0].sum()) + cost.once, 0]
