"""The closed forms against brute force: rays marched through signed distance functions written here."""

import pytest
import torch

from longtake.data.scenes.parts import BOX, CAPSULE, CONE, CYLINDER, SPHERE
from longtake.data.scenes.primitives import intersect, normal

RATIO = 1.4


def box(p):
    away = p.abs() - 1
    return away.clamp_min(0).norm(dim=0) + away.amax(0).clamp_max(0)


def cylinder(p):
    away = torch.stack([p[:2].norm(dim=0) - 1, p[2].abs() - 1])
    return away.clamp_min(0).norm(dim=0) + away.amax(0).clamp_max(0)


def cone(p):  # a lower bound outside, exact on the surface: base plane and lateral surface
    lateral = (p[:2].norm(dim=0) - (1 - p[2]) / 2) / (1 + 0.25) ** 0.5
    return torch.maximum(lateral, -1 - p[2])


def capsule(p):
    return torch.stack([p[0], p[1], p[2] - p[2].clamp(-RATIO, RATIO)]).norm(dim=0) - 1


DISTANCES = {
    SPHERE: lambda p: p.norm(dim=0) - 1,
    BOX: box,
    CYLINDER: cylinder,
    CONE: cone,
    CAPSULE: capsule,
}
KINDS = pytest.mark.parametrize("kind", DISTANCES, ids=("sphere", "box", "cylinder", "cone", "capsule"))


def march(kind, origin, direction, sign):
    """Walk along rays by the distance to the surface; the parameter reached and the closest approach."""
    speed = direction.norm(dim=0)
    t, closest = torch.zeros(origin.shape[1], dtype=torch.double), torch.full((origin.shape[1],), torch.inf).double()
    for _ in range(250):
        gap = sign * DISTANCES[kind](origin + t * direction)
        closest = torch.minimum(closest, gap)
        t = t + gap.clamp_min(0) / speed
    return t, closest


@KINDS
def test_the_nearest_hit_is_where_marching_arrives(kind):
    g = torch.Generator().manual_seed(kind)
    count = 1500
    origin = torch.randn(3, count, generator=g).double()
    origin = origin / origin.norm(dim=0) * 3.2
    aim = 1.6 * torch.randn(3, count, generator=g).double()
    direction = (aim - origin) * (0.2 + torch.rand(count, generator=g).double())
    t, closest = march(kind, origin, direction, 1.0)
    found = intersect(torch.full((count,), kind), torch.full((count,), RATIO), origin.float(), direction.float())
    touching, clear = closest < 1e-6, closest > 1e-3
    assert touching.sum() > 200 and clear.sum() > 200
    assert found[clear & (t * direction.norm(dim=0) > 12)].isinf().all()
    assert torch.allclose(found[touching].double(), t[touching], atol=2e-3)


@KINDS
def test_a_ray_from_inside_meets_the_far_wall(kind):
    g = torch.Generator().manual_seed(kind)
    origin, direction = 0.2 * torch.randn(3, 500, generator=g).double(), torch.randn(3, 500, generator=g).double()
    inside = DISTANCES[kind](origin) < -0.02
    origin, direction = origin[:, inside], direction[:, inside]
    t, _ = march(kind, origin, direction, -1.0)
    count = origin.shape[1]
    found = intersect(torch.full((count,), kind), torch.full((count,), RATIO), origin.float(), direction.float())
    assert count > 300 and torch.allclose(found.double(), t, atol=2e-3)


@KINDS
def test_nothing_is_met_behind_the_origin(kind):
    direction = torch.tensor([[0.1], [0.2], [1.0]])
    kinds, ratio = torch.tensor([kind]), torch.tensor([RATIO])
    assert intersect(kinds, ratio, 5 * direction, direction).isinf().all()
    assert intersect(kinds, ratio, -5 * direction, direction).isfinite().all()


@KINDS
def test_normals_are_the_gradient_of_the_distance(kind):
    g = torch.Generator().manual_seed(kind)
    origin = torch.randn(3, 2000, generator=g)
    origin = origin / origin.norm(dim=0) * 4
    direction = 0.5 * torch.randn(3, 2000, generator=g) - origin
    kinds, ratio = torch.full((2000,), kind), torch.full((2000,), RATIO)
    t = intersect(kinds, ratio, origin, direction)
    point = (origin + t * direction)[:, t.isfinite()].double()
    step = 1e-4
    gradient = torch.stack(
        [
            (DISTANCES[kind](point + d[:, None]) - DISTANCES[kind](point - d[:, None])) / (2 * step)
            for d in step * torch.eye(3).double()
        ]
    )
    smooth = (gradient.norm(dim=0) - 1).abs() < 1e-2  # not on an edge
    for shift in 0.01 * torch.eye(3).double():
        smooth &= DISTANCES[kind](point + shift[:, None]).abs() < 0.0101
    found = normal(kinds[: point.shape[1]], ratio[: point.shape[1]], point.float()).double()
    assert torch.allclose(found.norm(dim=0), torch.ones(1).double(), atol=1e-5)
    close = (found - gradient).abs().amax(0) < 2e-2
    assert smooth.sum() > 800 and close[smooth].double().mean() > 0.98  # a point may sit a hair from an edge


def test_each_ray_is_asked_of_its_own_primitive():
    kinds = torch.tensor(list(DISTANCES)).repeat(40)
    g = torch.Generator().manual_seed(0)
    origin = torch.randn(3, 200, generator=g)
    origin = origin / origin.norm(dim=0) * 4
    direction = 0.7 * torch.randn(3, 200, generator=g) - origin
    ratio = torch.full((200,), RATIO)
    mixed = intersect(kinds, ratio, origin, direction)
    for kind in DISTANCES:
        one = kinds == kind
        assert torch.equal(mixed[one], intersect(kinds[one], ratio[one], origin[:, one], direction[:, one]))
