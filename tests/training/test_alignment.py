import math

import torch

from longtake.training.alignment import AlignmentHead, alignment_loss, coverage


def test_coverage_is_each_objects_share_of_a_token():
    instances = torch.zeros(1, 9, 8, 8, dtype=torch.uint8)
    instances[0, 0, :4, :4] = 1  # fills the first of 2 x 2 tokens in the first frame
    instances[0, 1:5, 0, 4:] = 2  # a quarter of the second token, in all frames of the second group
    instances[0, 5, 4:, 4:] = 2  # all of the last token, in one frame of four
    shares = coverage(instances, 2, (3, 2, 2))
    wanted = torch.zeros(1, 2, 3, 2, 2)
    wanted[0, 0, 0, 0, 0], wanted[0, 1, 1, 0, 1], wanted[0, 1, 2, 1, 1] = 1.0, 0.25, 0.25
    assert torch.equal(shares, wanted)
    assert coverage(instances[:, :1], 1, (1, 2, 2)).shape == (1, 1, 1, 2, 2)


def test_the_loss_is_the_mean_surprise_where_objects_are():
    shares = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.0, 0.5]]])  # (1, 2 objects, 3 tokens)
    truth = torch.tensor([[[0, 2], [1, 0]]])  # two attributes, of 2 and 3 classes
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    first, second = logits[0, :, :2].softmax(-1), logits[0, :, 2:].softmax(-1)
    one = [math.log(first[0, 0]), math.log(second[0, 2])]
    two = [0.5 * math.log(first[2, 0]), 0.5 * math.log(second[2, 2])]
    three = [0.5 * math.log(first[2, 1]), 0.5 * math.log(second[2, 0])]
    expected = -sum(one + two + three) / (2 * 2.0)
    assert abs(float(alignment_loss(logits, (2, 3), shares, truth)) - expected) < 1e-5
    assert float(alignment_loss(logits, (2, 3), torch.zeros_like(shares), truth)) == 0


def test_the_head_gives_logits_of_all_attributes():
    head = AlignmentHead(8, (2, 3))
    assert head(torch.randn(2, 5, 8)).shape == (2, 5, 5)
    assert AlignmentHead(**head.arguments).classes == (2, 3)
