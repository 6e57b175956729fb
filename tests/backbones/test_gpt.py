import pytest
import torch

from longtake.backbones.gpt import GPT, KVCache
from longtake.errors import BadInput, BadSize
from longtake.layers.positions import box_places
from longtake.layers.token_masks import packed
from longtake.runtime.macs import counting, linear_macs
from longtake.runtime.views import view_of


def small(**changes):
    """A GPT with all weights alive: tables of positions begin at 0."""
    gpt = GPT(**{"vocabulary": 11, "length": 16, "width": 16, "depth": 3, "heads": 2, **changes})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.normal_(std=0.3, generator=generator)
    return gpt.eval()


def ids(batch=2, tokens=9, seed=0):
    return torch.randint(11, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_row_depends_on_the_tokens_up_to_it_and_on_all_of_these():
    gpt, tokens = small(), ids(1)
    plain = gpt(tokens)
    for j in range(9):
        changed = tokens.clone()
        changed[0, j] = (tokens[0, j] + 1) % 11
        moved = (gpt(changed) - plain).abs().amax(-1)[0] > 0
        assert moved.tolist() == [i >= j for i in range(9)]


def test_with_a_cache_each_token_is_computed_once_and_the_logits_are_the_same():
    gpt, tokens = small(), ids()
    whole = gpt(tokens)
    cache = KVCache(gpt, 2, 9)
    parts = [gpt(tokens[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 8), (8, 9))]
    close(torch.cat(parts, 1), whole)
    with pytest.raises(BadSize, match="10 tokens in a cache made for 9"):
        gpt(tokens[:, :1], cache=cache)


def test_tokens_given_out_of_order_are_the_same_tokens():
    """Positions and a mask say where a token is, so one behind a gap can be computed before those inside."""
    gpt, tokens = small(), ids()
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    mask[:, 8] = True  # the last token is seen by all
    mask[8, 3:8] = False  # and does not see the middle
    mask[:3, 3:8] = False
    whole = gpt(tokens, mask=mask)
    order = torch.tensor([0, 1, 2, 8, 3, 4, 5, 6, 7])
    cache = KVCache(gpt, 2, 9)
    ends = gpt(tokens[:, order[:4]], positions=order[:4], mask=mask[order[:4]][:, order[:4]], cache=cache)
    close(ends, whole[:, order[:4]])
    for place in range(4, 9):
        row = gpt(tokens[:, order[place], None], positions=order[place, None], cache=cache)
        close(row, whole[:, order[place], None])


def test_packed_sequences_come_out_as_alone():
    gpt = small()
    one, two = ids(1, 4), ids(1, 5, seed=2)
    mask, positions = packed([4, 5])
    both = gpt(torch.cat([one, two], 1), mask=mask, positions=positions)
    close(both, torch.cat([gpt(one), gpt(two)], 1))


def test_vectors_are_taken_in_place_of_tokens():
    gpt, tokens = small(), ids()
    close(gpt(gpt.embed(tokens)), gpt(tokens))
    bare = small(vocabulary=0, outputs=5)
    assert bare(torch.randn(2, 3, 16)).shape == (2, 3, 5)
    with pytest.raises(BadInput, match="no vocabulary"):
        bare(tokens)


def test_a_token_is_given_the_place_of_its_box():
    gpt, grid = small(grid=(2, 3, 3)), (2, 3, 3)
    places = box_places(grid, (1, 0, 1), (1, 2, 2))
    assert places.tolist() == [9 + 1, 9 + 2, 9 + 4, 9 + 5]
    tokens = ids(1, 4)
    expected = gpt.embed(tokens) + gpt.places[1, 0:2, 1:3].reshape(1, 4, -1)
    close(gpt(tokens, places=places), gpt(expected))
    nowhere = torch.tensor([-1, 10, -1, -1])
    one = torch.zeros(4, 1)
    one[1] = 1
    close(gpt(tokens, places=nowhere), gpt(gpt.embed(tokens) + one * gpt.places[1, 0, 1]))
    with pytest.raises(BadInput, match="no table"):
        small()(tokens, places=places)


def test_sequences_of_a_batch_may_have_positions_of_their_own():
    gpt, tokens = small(), ids(2, 4)
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    rows = [gpt(tokens[i : i + 1], positions=positions[i]) for i in range(2)]
    close(gpt(tokens, positions=positions), torch.cat(rows))


def test_gradients_reach_every_weight_and_checkpointing_gives_the_same():
    gpt, tokens = small(grid=(1, 3, 3)), ids()
    places = torch.arange(9)
    gpt(tokens, places=places).square().mean().backward()
    plain = {name: weight.grad.clone() for name, weight in gpt.named_parameters()}
    assert all(grad.abs().sum() > 0 for grad in plain.values())
    gpt.zero_grad()
    gpt.enable_gradient_checkpointing()
    gpt(tokens, places=places).square().mean().backward()
    for name, weight in gpt.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name])


def test_it_is_saved_and_loaded(tmp_path):
    gpt = small(grid=(1, 3, 3))
    gpt.save_pretrained(tmp_path)
    loaded = GPT.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    assert torch.equal(loaded(ids()), gpt(ids()))


def test_the_published_setting_has_the_parameters_of_the_closed_form():
    with torch.device("meta"):
        gpt = GPT(vocabulary=16384 + 101, length=1024)
    w, layers = 1024, 24
    block = 12 * w * w + 13 * w  # q, k, v, out and the MLP with biases, two norms
    expected = layers * block + 2 * (16384 + 101) * w + 1024 * w + 2 * w
    assert sum(p.numel() for p in gpt.parameters()) == expected == 337_121_280


def test_its_cost_is_counted():
    gpt, tokens = small(), ids(2, 9)
    with counting(view_of(gpt)) as counter:
        gpt(tokens)
    products = 3 * linear_macs(18, 16, 12 * 16) + linear_macs(18, 16, 11)
    attention = 3 * 2 * 2 * 9 * 9 * 16
    assert counter.costs.total == products + attention


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(BadSize, match="17 tokens, and this GPT has 16 positions"):
        small()(ids(1, 17))
    with pytest.raises(BadInput, match="heads 3 do not divide width 16"):
        small(heads=3)
