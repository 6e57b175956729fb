import torch

from longtake.layers.token_masks import causal_mask, packed


def test_a_token_sees_the_past_and_itself():
    mask = causal_mask(3, past=2)
    assert mask.tolist() == [[j <= i + 2 for j in range(5)] for i in range(3)]


def test_packed_sequences_see_themselves_alone_and_count_from_zero():
    mask, positions = packed([2, 3])
    owner = [0, 0, 1, 1, 1]
    assert mask.tolist() == [[owner[i] == owner[j] and j <= i for j in range(5)] for i in range(5)]
    assert positions.tolist() == [0, 1, 0, 1, 2]
    assert torch.equal(packed([4])[0], causal_mask(4))
