"""Guidance on an interval, in our sampling loop."""

import pytest
import torch
from tiny_networks import build

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import sample, velocity_denoiser
from longtake.errors import BadInput
from longtake.methods.guidance.interval import GuidanceInterval
from longtake.pipelines.schedulers import scheduler_named
from longtake.runtime.stack import Stack

STEPS, GUIDER = 8, CFG(3.0)


def run(tiny, stack=None, batched=False, guider=GUIDER):
    noise, text = tiny.draw()
    cond, null = (Conditions(text[branch]) for branch in ("cond", "uncond"))
    options = {"steps": STEPS, "null": null, "guider": guider, "batched": batched, "stack": stack}
    return sample(velocity_denoiser(tiny.network), scheduler_named("euler"), noise, cond, **options)


@pytest.mark.parametrize("batched", [False, True])
def test_outside_of_the_interval_the_prompt_is_followed_without_guidance(batched):
    """A guider of scale 1 on those steps gives the same, and the other prediction is never asked for."""
    tiny = build("our-waver")
    with Stack([GuidanceInterval(0.3, 0.8)]).attach(tiny.network) as stack:
        made = run(tiny, stack, batched)
        receipt = stack.finish(0)[0]

    class Sometimes(CFG):
        def __call__(self, cond, null, x, sigma, memory):
            return super().__call__(cond, null, x, sigma, memory) if 0.3 <= sigma <= 0.8 else cond

    expected = run(tiny, None, batched, Sometimes(3.0))
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(made, run(tiny, None, batched), atol=1e-3)
    counts = receipt.branches["guidance"]
    assert counts.computed + counts.skipped == STEPS
    scheduler = scheduler_named("euler")
    scheduler.set_timesteps(STEPS)
    assert counts.skipped == sum(not 0.3 <= t / 1000 <= 0.8 for t in scheduler.timesteps.tolist())
    assert 0 < counts.skipped < STEPS


def test_costs_are_those_of_the_predictions_that_were_made():
    """Dense is a run that makes both everywhere; every step without guidance saves one of two."""
    tiny = build("our-waver")
    with Stack([GuidanceInterval(0.3, 0.8)]).attach(tiny.network) as stack:
        run(tiny, stack)
        receipt = stack.finish(0)[0]
    skipped = receipt.branches["guidance"].skipped
    assert receipt.macs_done * 2 * STEPS == receipt.macs_dense * (2 * STEPS - skipped)


def test_everywhere_is_dense_and_says_that_it_did_nothing():
    tiny = build("our-waver")
    with Stack([GuidanceInterval(0, 1)], allow_inert=True).attach(tiny.network) as stack:
        assert torch.equal(run(tiny, stack), run(tiny))
        assert not stack.finish(0)[0].acted


def test_bad_intervals():
    for low, high in ((0.5, 0.4), (-0.1, 0.5), (0.2, 1.1), (float("nan"), 1)):
        with pytest.raises(BadInput, match="cfg-interval"):
            GuidanceInterval(low, high)
