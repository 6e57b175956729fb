"""Projected guidance in place of the pipeline's own, in our sampling loop."""

import pytest
import torch
from tiny_networks import build

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import APG, CFG
from longtake.diffusion.sampling import sample, velocity_denoiser
from longtake.errors import BadInput
from longtake.methods.guidance.apg import ProjectedGuidance
from longtake.methods.guidance.interval import GuidanceInterval
from longtake.pipelines.schedulers import scheduler_named
from longtake.runtime.stack import Stack


def run(tiny, guider, stack=None, seed=0):
    noise, text = tiny.draw(seed)
    cond, null = (Conditions(text[branch]) for branch in ("cond", "uncond"))
    options = {"steps": 6, "null": null, "guider": guider, "batched": False, "stack": stack}
    return sample(velocity_denoiser(tiny.network), scheduler_named("euler"), noise, cond, **options)


@pytest.mark.parametrize("settings", [{}, {"momentum": -0.5}, {"on": "clean", "eta": 0.3}])
def test_it_is_the_guider_of_the_same_settings_whatever_the_pipelines_own(settings):
    tiny = build("our-waver")
    with Stack([ProjectedGuidance(5.0, **settings)]).attach(tiny.network) as stack:
        made = [run(tiny, guider, stack) for guider in (CFG(3.0), CFG(1.0))]
        receipt = stack.finish(1)[0]
    for one in made:  # the second run's momentum begins anew
        assert torch.equal(one, run(tiny, APG(5.0, **settings)))
    assert not torch.allclose(made[0], run(tiny, CFG(3.0)), atol=1e-3)
    assert receipt.branches["guidance"].changed == receipt.kernels["apg"] == 6


def test_all_of_the_parallel_part_and_no_limit_is_plain_guidance():
    tiny = build("our-waver")
    with Stack([ProjectedGuidance(3.0, eta=1.0, threshold=float("inf"))]).attach(tiny.network) as stack:
        torch.testing.assert_close(run(tiny, CFG(9.0), stack), run(tiny, CFG(3.0)), atol=1e-5, rtol=1e-5)


def test_it_goes_with_an_interval():
    tiny = build("our-waver")
    with Stack([ProjectedGuidance(5.0), GuidanceInterval(0.4, 0.9)]).attach(tiny.network) as stack:
        run(tiny, CFG(3.0), stack)
        counts = {receipt.method: receipt.branches["guidance"] for receipt in stack.finish(0)}
    assert counts["apg"].changed == counts["cfg-interval"].computed == 3
    assert counts["cfg-interval"].skipped == 3


def test_bad_settings():
    with pytest.raises(BadInput, match="guidance on 'noise'"):
        ProjectedGuidance(on="noise")
