"""What goes with what: every pair of methods is tried, and the page says what came of it.

A method that is new here is tried with its defaults. If these do nothing in so short a run, give it settings in ACTING;
if it has settings that change nothing, test_shared_suite.IDENTITY is where they are. The page is written anew by

    WRITE_MATRIX=1 python -m pytest tests/methods/test_matrix.py
"""

import json
import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from test_shared_suite import IDENTITY
from tiny_networks import build

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import sample, velocity_denoiser
from longtake.errors import Conflict
from longtake.methods import METHODS, parse_method
from longtake.methods.matrix import legend, markdown, matrix
from longtake.pipelines.foreign import ForeignPipeline
from longtake.pipelines.schedulers import scheduler_named
from longtake.runtime.stack import Stack

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines" / "foreign"))
from tiny_pipelines import FAMILIES, PROMPT

PAGE = Path(__file__).parents[2] / "docs" / "systems" / "matrix.md"
STEPS = 8
ACTING = {
    "taylorseer": "interval=2",
    "taylorseer:granularity=range": "interval=2",
    "taylorseer:granularity=output": "interval=3",  # another than the caches' inside of it, which else had nothing to do
    "delta-dit": "skipped=1",
    "first-block": "threshold=100,most=1",
    "local-window": "frames=0,rows=0,columns=0",
    "minmax8": "bits=3",
    "cfg-interval": "low=0.3,high=0.9",
    "attention-maps": "layers=,steps=",
}
"""Settings with which a form acts in a run of STEPS; those that are not here act by their defaults."""
FOUND = matrix()
PAIRS = [pytest.param(pair, id=f"{pair.one} {pair.other}") for pair in FOUND.pairs]

pytestmark = pytest.mark.filterwarnings("ignore:.* did nothing", "ignore::DeprecationWarning:diffusers")


def acting(form):
    """A form with the settings with which it acts here, as it is written on the command line."""
    more = ACTING.get(form, "")
    return form + ("," if ":" in form and more else ":" if more else "") + more


@cache
def network():
    return build("our-waver")


@cache
def pipeline():
    pipe = FAMILIES["wan"].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def ours(*specs):
    """Latents of our loop with guidance in one batch, and the receipts by the methods' places in `specs`."""
    noise, text = network().draw()
    cond, null = (Conditions(text[branch]) for branch in ("cond", "uncond"))
    methods = [parse_method(spec) for spec in specs]
    with Stack(methods, allow_inert=True).attach(network().network) as stack:
        made = sample(
            velocity_denoiser(network().network),
            scheduler_named("euler"),
            noise,
            cond,
            steps=STEPS,
            null=null,
            guider=CFG(3.0),
            stack=stack,
        )
    return made, in_place(stack, methods)


@cache
def theirs(*specs):
    """The same of a pipeline of diffusers, with guidance in two calls."""
    methods, tiny = [parse_method(spec) for spec in specs], FAMILIES["wan"]
    with Stack(methods, allow_inert=True).attach(pipeline()) as stack:
        size = {"frames": tiny.frames, "height": tiny.size, "width": tiny.size}
        made = ForeignPipeline(pipeline())(PROMPT, **size, steps=STEPS, guidance=3.0).latents
    return made, in_place(stack, methods)


def in_place(stack, methods):
    return [stack.receipts[next(i for i, own in enumerate(stack.methods) if own is one)] for one in methods]


@pytest.mark.parametrize("run", [ours, theirs])
@pytest.mark.parametrize("form", FOUND.forms)
def test_a_method_acts_alone(form, run):
    made, (receipt,) = run(acting(form))
    assert made.isfinite().all()
    assert receipt.acted, f"{acting(form)} does nothing in {STEPS} steps: give settings with which it does in ACTING"
    assert torch.equal(made, run()[0]) == bool(receipt.observed)


@pytest.mark.parametrize("run", [ours, theirs])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_does_what_it_declares(pair, run):
    one, other = acting(pair.one), acting(pair.other)
    if pair.why is not None:
        with pytest.raises(Conflict) as told:
            run(one, other)
        names = {pair.one.partition(":")[0], pair.other.partition(":")[0]}
        assert all(name in str(told.value) for name in names) and pair.why in str(told.value)
        return
    made, receipts = run(one, other)
    assert made.isfinite().all()
    for spec, receipt in zip((one, other), receipts, strict=True):
        assert receipt.acted, f"{spec} did nothing beside the other: declare that they conflict"
    for spec, receipt in zip((other, one), receipts, strict=True):
        assert torch.equal(made, run(spec)[0]) == bool(receipt.observed), f"the other changed nothing beside {spec}"
    if run is theirs:  # in one order, for the time's sake
        return
    again, turned = run(other, one)
    assert torch.equal(again, made), "which is named first decides what comes out"
    assert [counts(r) for r in turned] == [counts(r) for r in reversed(receipts)]


@pytest.mark.parametrize("pair", [one for one in PAIRS if one.values[0].why is None])
def test_a_method_set_to_change_nothing_changes_nothing_for_the_other(pair):
    for own, changes_nothing in ((pair.one, pair.other), (pair.other, pair.one)):
        name, _, settings = changes_nothing.partition(":")
        spec = next((s for s in IDENTITY.get(name, []) if settings in s), None)
        if spec is None:  # it always changes something, as apg does
            continue
        made, receipts = ours(acting(own), spec)
        alone, (receipt,) = ours(acting(own))
        assert torch.equal(made, alone), f"{spec} changes what {own} does"
        assert counts(receipts[0]) == counts(receipt)


def counts(receipt):
    return receipt.sites, receipt.branches, receipt.kernels


def test_a_cache_does_not_go_on_from_before_guidance_began():
    """Inside the interval both predictions are made in one call, outside in another; a forecast for the steps behind the
    interval from those in front of it would be from long ago, so that the first step behind it is computed."""
    _, (cache, interval) = ours(
        "taylorseer:interval=8,last_full=false,granularity=output", "cfg-interval:low=0.3,high=0.9"
    )
    before, inside = 1, interval.branches["guidance"].computed
    assert (cache.branches["cond_uncond"].computed, cache.branches["cond_uncond"].skipped) == (1, inside - 1)
    assert cache.branches["cond"].computed == 2
    assert cache.branches["cond"].skipped == STEPS - before - inside - 1


def test_all_methods_and_all_pairs_are_there():
    assert {form.partition(":")[0] for form in FOUND.forms} == set(METHODS)
    assert len(FOUND.pairs) == len(FOUND.forms) * (len(FOUND.forms) + 1) // 2
    assert set(ACTING) <= set(FOUND.forms)


def test_plain_data_says_the_same():
    told = json.loads(json.dumps(FOUND.to_json()))
    assert told["methods"] == list(FOUND.forms)
    assert [(*pair["methods"], pair["why"]) for pair in told["pairs"]] == [(p.one, p.other, p.why) for p in FOUND.pairs]
    assert all(pair["together"] == (pair["why"] is None) for pair in told["pairs"])
    assert FOUND.mark("taylorseer", "delta-dit") == FOUND.mark("delta-dit", "taylorseer") != "+"
    assert len(legend(FOUND)) == 1 + len(FOUND.reasons)


def test_the_page_is_what_was_found():
    if os.environ.get("WRITE_MATRIX"):
        PAGE.write_text(markdown(FOUND))
    assert PAGE.read_text() == markdown(FOUND), "run WRITE_MATRIX=1 python -m pytest tests/methods/test_matrix.py"
