"""Precision, recall and memorisation on sets whose answer is known."""

import pytest
import torch

from longtake.errors import BadInput
from longtake.evaluation.metrics.neighbours import memorisation, nearest, precision_recall


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(points, clips, k):
    apart = (clips[:, None] - clips[None]).norm(dim=2)
    radius = apart.sort(1).values[:, k]  # 0 is the clip itself
    return float(((points[:, None] - clips[None]).norm(dim=2) <= radius).any(1).double().mean())


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_is_its_definition_in_any_blocks(block):
    real, fake = draw(40, 3, seed=1), 1.4 * draw(30, 3, seed=2)
    shares = []
    for k in (1, 2, 3, 4):
        found = precision_recall(real, fake, k=k, block=block)
        assert found.precision == pytest.approx(by_definition(fake, real, k))
        assert found.recall == pytest.approx(by_definition(real, fake, k))
        shares.append(found.precision)
    assert len(set(shares)) > 2 and precision_recall(real, fake, block=block).precision == shares[2]


def test_missing_kinds_cost_recall_and_strange_clips_cost_precision():
    kinds = torch.cat([draw(40, 2, seed=3), draw(40, 2, seed=4) + 100])
    one_kind = draw(40, 2, seed=5)
    dropped = precision_recall(kinds, one_kind)
    assert dropped.precision > 0.8 and dropped.recall < 0.55
    strange = precision_recall(one_kind, torch.cat([draw(40, 2, seed=6), draw(40, 2, seed=7) - 100]))
    assert strange.precision < 0.55 and strange.recall > 0.8
    same = precision_recall(kinds + 1e6, kinds + 1e6)  # far from 0, where digits are few
    assert (same.precision, same.recall) == (1, 1)


def test_k_widens_the_balls():
    real, fake = draw(60, 4, seed=8), 1.5 * draw(60, 4, seed=9)
    precisions = [precision_recall(real, fake, k=k).precision for k in (1, 3, 10)]
    assert precisions == sorted(precisions) and precisions[0] < precisions[-1]


def test_nearest_finds_the_nearest_and_copies_exactly():
    references, queries = draw(50, 6, seed=10) + 1e4, draw(20, 6, seed=11) + 1e4
    queries[3] = references[17]
    apart = (queries[:, None] - references).norm(dim=2)
    for block in (4, 1000):
        distances, index = nearest(queries, references, block=block)
        assert torch.equal(index, apart.argmin(1))
        torch.testing.assert_close(distances, apart.min(1).values)
        assert distances[3] == 0 and index[3] == 17


def test_fresh_clips_copies_and_noise_are_told_apart():
    training, held_out, fresh = draw(300, 4, seed=12), draw(300, 4, seed=13), draw(300, 4, seed=14)
    honest = memorisation(fresh, training, held_out)
    assert abs(honest.closer - 0.5) < 0.08 and 0.8 < honest.ratio < 1.25 and honest.copies < 0.05
    copied = memorisation(training[:100] + 1e-4 * draw(100, 4, seed=15), training, held_out)
    assert copied.closer > 0.99 and copied.ratio < 0.01 and copied.copies == 1
    assert torch.equal(copied.indices, torch.arange(100))
    half = memorisation(torch.cat([fresh[:100], training[:100]]), training, held_out)
    assert 0.45 < half.copies < 0.55
    off = memorisation(fresh + 20, training, held_out)
    assert off.closer < 0.01 and off.copies == 0


def test_ties_count_half():
    training = torch.zeros(4, 2)
    ring = torch.ones(6, 2)
    assert memorisation(ring, training, ring).closer == 0.5


def test_impossible_questions_are_refused():
    with pytest.raises(BadInput, match="at least 4"):
        precision_recall(draw(3, 2), draw(9, 2), k=3)
    with pytest.raises(BadInput, match="k is 0"):
        precision_recall(draw(9, 2), draw(9, 2), k=0)
    with pytest.raises(BadInput, match="share"):
        memorisation(draw(9, 2), draw(9, 2), draw(9, 2), share=1.0)
