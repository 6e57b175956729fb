"""What is remembered, and when it is forgotten."""

from dataclasses import replace

import torch

from longtake.runtime import StepInfo
from longtake.runtime.store import RUNS, Store

INFO = StepInfo(run=0, s=0, S=5, t=1000.0, noise=1.0, sigma=1.0, branch="cond")


def entered(*infos, form="form"):
    """A store in which each of the calls has left its own step at one site."""
    store = Store()
    for info in infos:
        store.enter(info, form)
        store.at(0, info, "site")["seen"] = info.s
    return store


def test_nothing_is_shared_between_methods_sites_branches_models_chunks_and_runs():
    store = entered(INFO)
    assert store.at(0, INFO, "site") == {"seen": 0}
    assert store.at(0, replace(INFO, s=1), "site") == {"seen": 0}
    others = [replace(INFO, **change) for change in ({"run": 1}, {"branch": "uncond"}, {"model": "b"}, {"chunk": 1})]
    assert all(store.at(0, other, "site") == {} for other in others)
    assert store.at(1, INFO, "site") == {}
    assert store.at(0, INFO, "other") == {}


def test_a_branch_goes_on_while_its_step_advances_and_its_form_stays():
    store = entered(INFO)
    store.enter(replace(INFO, s=1), "form")
    assert store.at(0, INFO, "site") == {"seen": 0}


def test_a_branch_that_was_left_out_of_a_step_forgets():
    """Guidance on an interval makes both predictions in one call inside, and one outside: the latter's memory grows old."""
    other = replace(INFO, branch="cond_uncond")
    store = entered(INFO, replace(other, s=1))
    store.enter(replace(INFO, s=2), "form")
    assert store.at(0, INFO, "site") == {}
    assert store.at(0, other, "site") == {"seen": 1}


def test_a_step_that_does_not_advance_forgets_this_branch_alone():
    other = replace(INFO, branch="uncond", s=3)
    for step in (3, 1):
        store = entered(replace(INFO, s=3), other)
        store.enter(replace(INFO, s=step), "form")
        assert store.at(0, INFO, "site") == {}
        assert store.at(0, other, "site") == {"seen": 3}


def test_another_form_forgets_this_branch_alone():
    other = replace(INFO, branch="uncond")
    store = entered(INFO, other)
    store.enter(replace(INFO, s=1), "another form")
    assert store.at(0, INFO, "site") == {}
    assert store.at(0, other, "site") == {"seen": 0}


def test_a_steps_own_memory_is_shared_by_branches_and_ends_with_the_step():
    store = Store()
    store.step(0, INFO)["plan"] = "full"
    assert store.step(0, replace(INFO, branch="uncond")) == {"plan": "full"}
    assert store.step(1, INFO) == {}
    assert store.step(0, replace(INFO, run=1)) == {}
    assert store.step(0, replace(INFO, model="transformer_2")) == {}
    assert store.step(0, INFO) == {"plan": "full"}
    assert store.step(0, replace(INFO, s=1)) == {}


def test_the_end_of_a_run_and_a_clear_forget():
    for forget in (lambda store: store.end(0), Store.clear):
        store = entered(INFO)
        store.step(0, INFO)["plan"] = 1
        forget(store)
        assert store.at(0, INFO, "site") == {}
        assert store.step(0, INFO) == {}
    store = entered(INFO, replace(INFO, run=1))
    store.end(1)
    assert store.at(0, INFO, "site") == {"seen": 0}


def test_the_run_that_was_touched_longest_ago_makes_room():
    infos = [replace(INFO, run=run) for run in range(RUNS)]
    store = entered(*infos)
    store.at(0, infos[0], "site")
    store.enter(replace(INFO, run=RUNS), "form")
    assert store.at(0, infos[0], "site") == {"seen": 0}
    assert store.at(0, infos[1], "site") == {}


def test_bytes_are_those_of_all_tensors_of_one_method():
    store = Store()
    store.at(0, INFO, "a")["list"] = [torch.randn(3, 5), (torch.randn(2).half(), "text")]
    store.at(0, replace(INFO, run=1, branch="uncond"), "b")["inside"] = {"x": torch.zeros(7, dtype=torch.uint8)}
    store.at(1, INFO, "a")["tensor"] = torch.randn(100)
    assert store.bytes(0) == 60 + 4 + 7
    assert store.bytes(1) == 400
    store.end(0)
    assert store.bytes(0) == 7
