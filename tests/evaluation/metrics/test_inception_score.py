"""Inception score: its two ends, its splits, and what is not a probability."""

import math

import pytest
import torch

from longtake.errors import BadInput
from longtake.evaluation.metrics.inception_score import inception_score


def test_sure_and_balanced_is_the_number_of_classes():
    p = torch.eye(7).repeat(20, 1)
    score = inception_score(p, splits=4)
    assert score.mean == pytest.approx(7.0, rel=1e-12) and score.std == pytest.approx(0, abs=1e-12)


def test_clips_that_say_the_same_score_one():
    p = torch.tensor([[0.7, 0.2, 0.1]]).repeat(30, 1)
    assert inception_score(p).mean == pytest.approx(1.0, abs=1e-6)


def test_two_clips_have_the_closed_form():
    # p = (q, 1 - q) and its mirror image: mean (1/2, 1/2), so KL = log 2 - H(q).
    q = 0.9
    entropy = -q * math.log(q) - (1 - q) * math.log(1 - q)
    p = torch.tensor([[q, 1 - q], [1 - q, q]], dtype=torch.float64)
    assert inception_score(p, splits=1).mean == pytest.approx(math.exp(math.log(2) - entropy), rel=1e-12)


def test_splits_are_consecutive_and_scored_alone():
    sure = torch.eye(3).repeat(4, 1)
    dull = torch.full((12, 3), 1 / 3)
    score = inception_score(torch.cat([sure, dull]), splits=2)
    assert score.scores == pytest.approx((3.0, 1.0), abs=1e-6)
    assert score.mean == pytest.approx(2.0) and score.std == pytest.approx(1.0)  # not divided by splits - 1
    uneven = inception_score(torch.cat([sure, dull])[:23], splits=10)
    assert len(uneven.scores) == 10


def test_shuffling_follows_the_generator():
    p = torch.cat([torch.eye(3).repeat(4, 1), torch.full((12, 3), 1 / 3)])
    scores = [inception_score(p, splits=2, generator=torch.Generator().manual_seed(s)).mean for s in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(
    ("p", "splits", "words"),
    [
        (torch.randn(20, 3), 10, "softmax"),
        (torch.rand(20, 3), 10, "softmax"),
        (torch.full((5, 2), 0.5), 10, "10 splits of 5"),
        (torch.full((5, 2), math.nan), 1, "not finite"),
    ],
)
def test_what_is_no_probability_is_refused(p, splits, words):
    with pytest.raises(BadInput, match=words):
        inception_score(p, splits=splits)
