"""What every method does on every family of networks, whatever it is for."""

from itertools import product

import pytest
import torch
from tiny_networks import FAMILIES, STEPS, build, sample

from longtake.errors import InertMethod, Unsupported
from longtake.methods import METHODS, method_class, parse_method, parse_stack
from longtake.runtime import StepInfo
from longtake.runtime.receipts import Counts
from longtake.runtime.stack import Stack
from longtake.runtime.views import view_of

ACTING = [
    "taylorseer:interval=2",
    "taylorseer:interval=2,order=2,granularity=block,basis=newton",
    "taylorseer:interval=2,granularity=output",
    "delta-dit:skipped=1,boundary=2",
    "first-block:threshold=100,most=1",
    "local-window:frames=0,rows=0,columns=0",
    "minmax8:bits=3",
    "attention-maps:layers=,steps=",
    "taylorseer:interval=2+local-window:rows=0+minmax8:bits=3",
]
"""Settings with which a method acts on the second of three steps, and computes the first and the third."""
IDENTITY = {
    "taylorseer": ["taylorseer:interval=1", *(f"taylorseer:interval=1,granularity={g}" for g in ("range", "output"))],
    "delta-dit": ["delta-dit:interval=1,skipped=1,boundary=2"],
    "first-block": ["first-block:threshold=0"],
    "local-window": ["local-window:frames=-1,rows=-1,columns=-1"],
    "minmax8": ["minmax8:keep=."],
    "attention-maps": ["attention-maps"],
}
"""Settings with which the output stays what it is."""
GUIDING = {"cfg-interval", "apg", "w2sd"}  # they act in our sampling loop: tests/methods/guidance and sampling

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
FAMILY = pytest.mark.parametrize("family", FAMILIES)
ACTS = pytest.mark.parametrize("spec", ACTING)


def traces(network):
    """Everything that an attached method could leave on a network."""
    return {
        "keys": list(network.state_dict()),
        "modules": [(name, id(module)) for name, module in network.named_modules()],
        "attributes": {name: sorted(vars(module)) for name, module in network.named_modules()},
        "hooks": [name for name, m in network.named_modules() if m._forward_hooks or m._forward_pre_hooks],
    }


def run(tiny, spec, *given, **options):
    with Stack(parse_stack(spec)).attach(tiny.network) as stack:
        return sample(tiny, *given, stack, **options), stack.receipts


@pytest.mark.filterwarnings("ignore:.* did nothing")
@pytest.mark.parametrize("spec", [spec for specs in IDENTITY.values() for spec in specs])
@FAMILY
def test_identity_settings_are_the_dense_run_bit_for_bit(family, spec):
    tiny = build(family)
    given = tiny.draw()
    dense = sample(tiny, *given)
    with Stack(parse_stack(spec), allow_inert=True).attach(tiny.network) as stack:
        assert torch.equal(sample(tiny, *given, stack), dense)


def test_every_method_is_in_this_suite():
    acting = {part.partition(":")[0] for spec in ACTING for part in spec.split("+")}
    assert acting | GUIDING == set(METHODS) == set(IDENTITY) | GUIDING


@pytest.mark.parametrize("name", METHODS)
def test_every_declared_value_of_a_knob_makes_a_valid_method(name):
    kind = method_class(name)
    assert len({knob.name for knob in kind.knobs}) == len(kind.knobs)
    for combination in product(*(knob.values for knob in kind.knobs)):
        values = dict(zip([knob.name for knob in kind.knobs], combination, strict=True))
        method = kind(**values)
        assert parse_method(str(method)) == method
        for key, value in values.items():
            assert type(value) is type(getattr(kind(), key)) and method.config()[key] == value
    assert all(len(set(knob.values)) == len(knob.values) > 1 for knob in kind.knobs)


@ACTS
@FAMILY
def test_runs_do_not_remember_one_another_and_nothing_stays_behind(family, spec):
    """Run A, B, one that breaks, A again with its branches in the other order, one that breaks at once, one of another
    size, and A once more: each comes out as if it were the only one."""
    tiny = build(family)
    a, b, wide = tiny.draw(1), tiny.draw(2), tiny.draw(3, size=(8, 4))
    before, dense = traces(tiny.network), sample(tiny, *a)
    untouched = traces(tiny.network)  # diffusers' own loop leaves an empty registry on the network
    alone, alone_wide = (run(tiny, spec, *given)[0] for given in (a, wide))
    with Stack(parse_stack(spec)).attach(tiny.network) as stack:
        assert torch.equal(sample(tiny, *a, stack), alone)
        assert not torch.equal(sample(tiny, *b, stack), alone)
        with pytest.raises(RuntimeError, match="on purpose"):
            sample(tiny, *b, stack, break_at=2)
        assert torch.equal(sample(tiny, *a, stack, order=("uncond", "cond")), alone)
        with pytest.raises(RuntimeError, match="on purpose"):
            sample(tiny, *b, stack, break_at=0)
        assert torch.equal(sample(tiny, *wide, stack), alone_wide)
        assert torch.equal(sample(tiny, *a, stack), alone)
    assert torch.equal(alone, dense) == ("maps" in spec)
    assert torch.equal(sample(tiny, *a, steps=1), sample(build(family), *a, steps=1))
    after = traces(tiny.network)
    assert after["modules"] == before["modules"]
    assert after in (before, untouched)


@ACTS
@FAMILY
def test_a_batch_is_its_clips_one_by_one(family, spec):
    """Not of the first-block cache, which decides for a batch as one; here its threshold lets everything pass."""
    tiny = build(family)
    noise, text = tiny.draw(batch=2)
    both = run(tiny, spec, noise, text, steps=3)[0]
    for i in (0, 1):
        words = {branch: words[i : i + 1] for branch, words in text.items()}
        alone = run(tiny, spec, noise[i : i + 1], words, steps=3)[0]
        torch.testing.assert_close(both[:, i : i + 1], alone, atol=2e-5, rtol=1e-4)


@ACTS
@pytest.mark.parametrize(
    "family", ["our-waver", "our-latte", "hunyuan-video", "latte"]
)  # every layout, with and without text
def test_bfloat16_stays_bfloat16_and_close_to_float32(family, spec):
    tiny = build(family)
    noise, text = tiny.draw()
    wide = run(tiny, spec, noise, text, steps=3)[0]
    tiny.network.bfloat16()
    made = run(tiny, spec, noise.bfloat16(), {k: words.bfloat16() for k, words in text.items()}, steps=3)[0]
    assert made.dtype == torch.bfloat16
    assert ((made.float() - wide).norm() / wide.norm()) < 0.25


@FAMILY
def test_counts_are_those_of_the_schedule(family):
    tiny = build(family)
    blocks = len(view_of(tiny.network).blocks)
    _, (receipt,) = run(tiny, "taylorseer:mask=1001,granularity=block", *tiny.draw())
    counts = Counts(2 * blocks, 2 * blocks)
    assert receipt.branches == {"cond": counts, "uncond": counts}
    assert receipt.sites == blocks
    assert receipt.notes["full_steps"] == [0, 3]


@FAMILY
def test_costs_of_a_run_are_those_of_its_steps(family):
    """A step that is not full costs nothing of the blocks; the rest is the same at all levels that skip the same."""
    tiny = build(family)
    given = tiny.draw()
    runs = {
        level: run(tiny, f"taylorseer:mask=1010,granularity={level}", *given)[1][0]
        for level in ("module", "block", "output")
    }
    dense = {receipt.macs_dense for receipt in runs.values()}
    assert len(dense) == 1
    assert dense.pop() == 2 * runs["output"].macs_done
    assert runs["output"].macs_done < runs["block"].macs_done <= runs["module"].macs_done < runs["module"].macs_dense


@pytest.mark.filterwarnings("ignore:delta-dit did nothing")
@FAMILY
def test_a_speedup_needs_the_number_of_steps(family):
    tiny = build(family)
    given = tiny.draw()
    with Stack(parse_stack("delta-dit:speedup=1.2"), allow_inert=True).attach(tiny.network) as stack:
        if tiny.ours:
            given = tiny.draw()
            assert sample(tiny, *given, stack).isfinite().all()
        else:
            with pytest.raises(Unsupported, match="number of steps is not known") as caught:
                sample(tiny, *given, stack)
            assert "\n" not in str(caught.value)


@FAMILY
def test_guidance_has_nothing_to_do_outside_of_our_sampling_loop(family):
    tiny = build(family)
    for name in GUIDING:
        with pytest.raises(InertMethod, match=name), Stack(parse_stack(name)).attach(tiny.network) as stack:
            sample(tiny, *tiny.draw(), stack)


@pytest.mark.parametrize("family", ["our-waver", "our-latte"])
@ACTS
def test_interleaved_prompts_do_not_meet(family, spec):
    """Two runs that take turns, call by call, come out as they do alone."""
    tiny = build(family)
    given = [tiny.draw(1), tiny.draw(2)]
    alone = [run(tiny, spec, *one)[0][-1] for one in given]
    with Stack(parse_stack(spec)).attach(tiny.network) as stack:
        runs, latents = [stack.begin(), stack.begin()], [noise for noise, _ in given]
        for s in range(STEPS):
            noisy, made = 1 - s / STEPS, {}
            for branch in ("cond", "uncond"):
                for i in (0, 1):
                    info = StepInfo(runs[i], s, STEPS, 1000 * noisy, noisy, noisy, branch)
                    made[i, branch] = tiny(latents[i], given[i][1][branch], 1000 * noisy, branch, info)
            for i in (0, 1):
                guided = made[i, "uncond"] + 2 * (made[i, "cond"] - made[i, "uncond"])
                latents[i] = latents[i] - guided / STEPS
    assert torch.equal(latents[0], alone[0])
    assert torch.equal(latents[1], alone[1])
