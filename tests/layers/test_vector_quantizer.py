import pytest
import torch

from longtake.errors import BadInput
from longtake.layers import vector_quantizer
from longtake.layers.vector_quantizer import VectorQuantizer


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


def book(codes=5, width=3, **changes):
    made = VectorQuantizer(codes, width, **changes)
    made.begin(noise(40, width, 1, seed=9), seeded())
    return made


def test_the_nearest_code_is_that_of_all_distances_written_out():
    quantizer, z = book(), noise(2, 3, 4, 2, 2)
    rows = z.movedim(1, -1).reshape(-1, 3).double()
    plain = torch.stack([(row - quantizer.codes.double()).square().sum(1).argmin() for row in rows])
    assert torch.equal(quantizer(z).ids.flatten(), plain)


def test_vectors_are_taken_in_parts_that_fit(monkeypatch):
    quantizer, z = book(), noise(3, 3, 7)
    whole = quantizer(z).ids
    monkeypatch.setattr(vector_quantizer, "SCORES", 2 * 5)
    assert torch.equal(quantizer(z).ids, whole)


def test_a_code_is_its_own_nearest():
    quantizer = book(codes=64, width=8)
    assert torch.equal(quantizer(quantizer.codes[None].mT).ids, torch.arange(64)[None])


def test_the_gradient_passes_straight_through_and_commitment_pulls_towards_the_code():
    quantizer, z = book(), noise(2, 3, 4).requires_grad_()
    found = quantizer(z)
    assert torch.allclose(found.vectors, quantizer.lookup(found.ids), atol=1e-6)
    (found.vectors * torch.arange(4.0)).sum().backward()
    assert torch.equal(z.grad, torch.arange(4.0).expand(2, 3, 4))
    z.grad = None
    quantizer(z).commitment.backward()
    torch.testing.assert_close(z.grad, 2 * (z - quantizer.lookup(found.ids)).detach() / z.numel())


def test_perplexity_counts_codes_in_equal_use():
    quantizer = book(codes=8)
    assert quantizer(quantizer.codes[:4].T[None]).perplexity.item() == pytest.approx(4, rel=1e-5)
    assert quantizer(quantizer.codes[:1].T[None]).perplexity.item() == pytest.approx(1, rel=1e-5)


def test_the_codes_move_as_the_moving_averages_say():
    quantizer, z = book(decay=0.9), noise(1, 3, 6)
    ids = quantizer(z).ids
    N, S, rows = quantizer.counts.clone(), quantizer.sums.clone(), z[0].T
    quantizer.learn(z, ids, seeded())
    for k in range(5):
        mine = rows[ids[0] == k]
        n, s = 0.9 * N[k] + 0.1 * len(mine), 0.9 * S[k] + 0.1 * mine.sum(0)
        torch.testing.assert_close(quantizer.counts[k], n)
        torch.testing.assert_close(quantizer.codes[k], s / n, rtol=1e-4, atol=1e-5)


def test_the_codes_find_the_means_of_clusters():
    centres = torch.tensor([[4.0, 0], [-4, 0], [0, 4], [0, -4]])
    quantizer = VectorQuantizer(4, 2, decay=0.9, restart_below=0.5)
    for step in range(100):
        z = (centres.repeat(8, 1) + 0.1 * noise(32, 2, seed=step)).T[None]
        quantizer.begin(z, seeded(step))
        quantizer.learn(z, quantizer(z).ids, seeded(step))
    distance = torch.cdist(centres, quantizer.codes).min(1).values
    assert distance.max() < 0.1


def test_looking_up_changes_nothing():
    quantizer = book()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.train()(noise(2, 3, 4))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_it_begins_once_on_vectors_of_the_batch_and_remembers_that_when_loaded():
    quantizer, z = VectorQuantizer(4, 3), noise(2, 3, 5)
    quantizer.begin(z, seeded(1))
    rows = z.movedim(1, -1).reshape(-1, 3)
    assert torch.cdist(quantizer.codes, rows).min(1).values.max() == 0
    assert len(quantizer.codes.unique(dim=0)) == 4
    loaded = VectorQuantizer(4, 3)
    loaded.load_state_dict(quantizer.state_dict())
    loaded.begin(noise(2, 3, 5, seed=7), seeded())
    assert torch.equal(loaded.codes, quantizer.codes)


def test_fewer_vectors_than_codes_are_repeated_with_a_little_noise():
    quantizer, z = VectorQuantizer(9, 3), noise(1, 3, 2)
    quantizer.begin(z, seeded())
    assert 0 < torch.cdist(quantizer.codes, z[0].T).min(1).values.max() < 0.05
    assert len(quantizer.codes.unique(dim=0)) == 9


def test_dead_codes_are_put_on_vectors_of_the_batch_and_stay_there():
    """The published code leaves the old sum, which brings the dead code back with the next update."""
    quantizer = book(codes=4, width=2, restart_below=0.5)
    quantizer.codes[3], quantizer.sums[3], quantizer.counts[3] = 100.0, 1.0, 0.01
    z = noise(1, 2, 50)
    quantizer.learn(z, quantizer(z).ids, seeded(3))
    assert torch.cdist(quantizer.codes[3:], z[0].T).min() < 1e-4
    placed = quantizer.codes[3].clone()
    ids = quantizer(z).ids
    quantizer.learn(z, torch.where(ids == 3, 0, ids), seeded(4))  # nothing chooses it
    torch.testing.assert_close(quantizer.codes[3], placed, rtol=1e-4, atol=1e-4)
    assert quantizer.counts[3] > 0.5


def test_without_a_threshold_no_code_is_restarted():
    quantizer = book(codes=4, width=2)
    quantizer.codes[3], quantizer.sums[3], quantizer.counts[3] = 100.0, 1.0, 0.01
    quantizer.learn(noise(1, 2, 50), torch.zeros(1, 50, dtype=torch.long), seeded(3))
    torch.testing.assert_close(quantizer.codes[3], torch.full((2,), 100.0), rtol=1e-3, atol=0)


def test_half_precision_does_not_change_the_choice():
    quantizer, z = book(codes=200, width=16), noise(2, 16, 50).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(z)
    assert torch.equal(found.ids, quantizer(z.float()).ids)
    assert found.vectors.dtype == torch.bfloat16


def test_a_number_that_no_code_has_is_named():
    with pytest.raises(BadInput, match="0 to 5; this codebook has 0 to 4"):
        book().lookup(torch.tensor([[0, 5]]))
    with pytest.raises(BadInput, match=r"decay 1\.0"):
        VectorQuantizer(4, 2, decay=1.0)
