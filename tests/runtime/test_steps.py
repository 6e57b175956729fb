"""Which run, step and branch a call belongs to, told from its timestep and its context."""

import pytest
import torch
from diffusers.hooks.hooks import CacheContext
from tiny_networks import build

from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.runtime.stack import Stack
from longtake.runtime.steps import UNNAMED, StepCounter


@pytest.fixture
def counted():
    """A counter, and the runs that it has ended."""
    ended, numbers = [], iter(range(100))
    return StepCounter(lambda: next(numbers), ended.append, lambda: None), ended


def steps(counter, times, context=None):
    return [(info.run, info.s) for info in (counter.next(t, context, "transformer") for t in times)]


def test_another_timestep_is_the_next_step_and_a_larger_one_another_run(counted):
    counter, ended = counted
    assert steps(counter, [999, 999, 700, 700, 20, 999, 700]) == [
        (0, 0),
        (0, 0),
        (0, 1),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
    ]
    assert ended == [0]


def test_time_may_rise_from_noise_at_0(counted):
    counter, ended = counted
    made = [counter.next(t, None, "transformer", rising=True) for t in (0, 0, 300, 980, 0, 300)]
    assert [(info.run, info.s) for info in made] == [(0, 0), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [info.noise for info in made[:4]] == pytest.approx([1, 1, 0.7, 0.02])
    assert ended == [0]


def test_steps_that_are_set_anew_are_another_run():
    """Of a run that broke at 700 and one that begins at 500 with the same scheduler."""
    ended, numbers, timesteps = [], iter(range(100)), [object()]
    counter = StepCounter(lambda: next(numbers), ended.append, lambda: None, lambda: timesteps[0])
    assert steps(counter, [999, 700]) == [(0, 0), (0, 1)]
    timesteps[0] = object()
    assert steps(counter, [500, 500, 20]) == [(1, 0), (1, 0), (1, 1)]
    assert ended == [0]


def test_a_network_that_broke_ends_the_run():
    """Without a scheduler the error itself is seen; the next call, at a lower timestep and unnamed, begins a run."""
    tiny = build("latte")
    noise, text = tiny.draw()
    with Stack([TaylorSeer(3, last_full=False, granularity="output")]).attach(tiny.network) as stack:
        for t in (900.0, 800.0):
            tiny(noise, text["cond"], t, "cond")
        handle = tiny.network.proj_out.register_forward_pre_hook(lambda module, args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            for t in (700.0, 600.0, 500.0):
                tiny(noise, text["cond"], t, "cond")
        handle.remove()
        made = tiny(noise, text["cond"], 400.0, "cond")
        assert stack.receipts[0].notes["full_steps"] == [0]
        tiny(noise, text["cond"], 300.0, "cond")
    assert len(stack.ledgers) == 2
    assert torch.equal(made, tiny(noise, text["cond"], 400.0, "cond"))


def test_a_run_that_is_over_is_followed_by_another_at_any_timestep(counted):
    counter, ended = counted
    steps(counter, [999, 700])
    counter.over()
    counter.over()
    assert ended == [0]
    assert steps(counter, [500]) == [(1, 0)]


def test_what_nobody_says_is_unknown(counted):
    info = counted[0].next(250.0, None, "transformer_2")
    assert (info.branch, info.S, info.sigma, info.model, info.t, info.noise) == (
        UNNAMED,
        None,
        None,
        "transformer_2",
        250.0,
        0.25,
    )


def test_a_pipelines_word_counts_more_than_ours(counted):
    context = CacheContext("cond", step_index=7, num_inference_steps=30, sigma=0.4)
    info = counted[0].next(250.0, context, "transformer")
    assert (info.branch, info.s, info.S, info.sigma) == ("cond", 7, 30, 0.4)
    named = CacheContext("uncond")
    assert counted[0].next(250.0, named, "transformer").s == 0


def test_two_networks_of_one_pipeline_share_the_count(counted):
    counter, _ = counted
    first = counter.next(900.0, None, "transformer")
    second = counter.next(500.0, None, "transformer_2")
    assert (first.run, first.s, second.run, second.s) == (0, 0, 0, 1)


def test_timesteps_of_each_token_are_told_by_the_largest():
    """Image-to-video gives the tokens of the given frame the time 0 at every step; the rest says which step it is."""
    tiny = build("ltx")
    (noise, text), spread = tiny.draw(), torch.ones(1, 32)
    spread[:, :16] = 0
    with Stack([TaylorSeer(2, last_full=False)]).attach(tiny.network) as stack:
        for t in (1000.0, 800.0, 600.0, 400.0):
            kwargs = tiny.given(noise, text["cond"])
            with tiny.network.cache_context("cond"):
                tiny.network(timestep=t * spread, **kwargs)
    assert stack.receipts[0].notes["full_steps"] == [0, 2]


def test_a_schedulers_steps_are_the_runs():
    """Of a pipeline that names no number of steps, its scheduler knows it."""
    from types import SimpleNamespace

    from diffusers import FlowMatchEulerDiscreteScheduler

    tiny = build("wan")
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipe = SimpleNamespace(transformer=tiny.network, scheduler=scheduler)
    scheduler.set_timesteps(4)
    noise, text = tiny.draw()
    with Stack([TaylorSeer(9)]).attach(pipe) as stack:
        for t in scheduler.timesteps:
            tiny(noise, text["cond"], float(t), "cond")
    assert stack.receipts[0].notes["full_steps"] == [0, 3]
