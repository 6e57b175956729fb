"""Methods together: their order, their conflicts, attaching and taking away."""

import gc
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tiny_networks import build, sample

from longtake.errors import Conflict, InertMethod, Unsupported
from longtake.methods import parse_stack
from longtake.runtime.method import RANKS, Method
from longtake.runtime.stack import Stack, arrange, stack_of
from longtake.runtime.store import RUNS


@dataclass(frozen=True)
class Log(Method):
    """Writes down when it is asked, and changes nothing."""

    name: ClassVar[str] = "log"

    at: str = "observer"
    label: str = ""
    log: tuple = ()

    def rank(self):
        return self.at

    def block(self, here, h, text, nxt):
        self.log[0].append((self.label, here.site.layer))
        here.receipt.observed += 1
        return nxt(h, text)


class Fails(Log):
    name = "fails"

    def wants(self, site):
        if site.layer == 2:
            raise RuntimeError("half way")
        return True


def leftovers(network):
    return [
        name
        for name, module in network.named_modules()
        if hasattr(module, "_diffusers_hook") or "forward" in vars(module) or module._forward_pre_hooks
    ]


def test_methods_are_asked_from_the_outermost_in_whatever_order_they_are_named():
    for names in (("attention", "range", "tokens"), ("tokens", "attention", "range"), ("range", "tokens", "attention")):
        log, tiny = [], build("wan")
        with Stack([Log(name, name, (log,)) for name in names]).attach(tiny.network) as stack:
            noise, text = tiny.draw()
            tiny(noise, text["cond"], 500.0, "cond")
        assert [label for label, layer in log if layer == 0] == ["range", "tokens", "attention"]
        assert [RANKS.index(method.rank()) for method in stack.methods] == sorted(map(RANKS.index, names))


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("taylorseer:granularity=range+delta-dit", "taylorseer", "delta-dit"),
        ("first-block+delta-dit", "first-block", "delta-dit"),
        ("taylorseer+delta-dit", "taylorseer", "delta-dit"),
        ("taylorseer+taylorseer:order=2", "taylorseer", "taylorseer"),
        ("minmax8+minmax8:bits=4", "minmax8", "minmax8"),
        ("local-window+local-window:rows=1", "local-window", "local-window"),
    ],
)
def test_methods_that_claim_the_same_are_refused_by_both_names(text, first, second):
    with pytest.raises(Conflict) as caught:
        arrange(parse_stack(text))
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_can_say_itself_what_it_does_not_go_with():
    class Picky(Log):
        name = "picky"

        def conflict(self, other):
            return "it is picky" if other.name == "log" else None

    for order in ([Picky(), Log()], [Log(), Picky()]):
        with pytest.raises(Conflict, match="it is picky"):
            arrange(order)
    arrange([Picky(), Picky()])


def test_a_method_that_did_nothing_is_an_error_or_a_warning():
    tiny = build("wan")
    idle = parse_stack("taylorseer:interval=1+minmax8")
    with pytest.raises(InertMethod, match=r"^taylorseer did nothing"), Stack(idle).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    assert not leftovers(tiny.network)
    with pytest.warns(UserWarning, match="taylorseer did nothing"):
        with Stack(idle, allow_inert=True).attach(tiny.network) as stack:
            sample(tiny, *tiny.draw(), stack)


def test_a_run_that_was_cut_short_does_not_make_a_method_idle():
    tiny = build("wan")
    with Stack(parse_stack("taylorseer:interval=3")).attach(tiny.network) as stack:
        with pytest.raises(RuntimeError, match="on purpose"):
            sample(tiny, *tiny.draw(), stack, break_at=0)
        sample(tiny, *tiny.draw(), stack)


def test_only_the_last_runs_are_kept_and_those_before_still_count():
    """Of twenty runs one method acts in the first alone, and one in none: only the second is complained about."""
    tiny = build("our-waver")
    given = tiny.draw()
    with pytest.raises(InertMethod, match=r"^attention-maps did nothing"):
        with Stack(parse_stack("taylorseer:mask=10+attention-maps:steps=7")).attach(tiny.network) as stack:
            for steps in (2, *[1] * 19):
                sample(tiny, *given, stack, steps=steps)
            assert list(stack.ledgers) == list(range(20 - RUNS, 20))
            assert stack.receipts is stack.ledgers[19].receipts


def test_a_run_can_be_asked_at_once():
    tiny = build("our-waver")
    with Stack(parse_stack("taylorseer:interval=1"), allow_inert=False).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
        with pytest.raises(InertMethod):
            stack.finish(0, complain=True)


def test_an_error_inside_is_not_hidden_by_a_complaint():
    tiny = build("wan")
    with pytest.raises(ZeroDivisionError), Stack(parse_stack("taylorseer:interval=1")).attach(tiny.network):
        raise ZeroDivisionError
    assert not leftovers(tiny.network)


def test_one_stack_on_a_network_at_a_time():
    tiny = build("our-waver")
    first, second = Stack([Log(log=([],))]), Stack([Log(log=([],))])
    first.attach(tiny.network)
    assert stack_of(tiny.network) is first
    with pytest.raises(Unsupported, match="already"):
        second.attach(tiny.network)
    with pytest.raises(Unsupported, match="already"):
        first.attach(build("our-waver", 1).network)
    first.detach()
    assert stack_of(tiny.network) is None
    second.attach(tiny.network).detach()


def test_an_attach_that_fails_half_way_leaves_nothing():
    tiny = build("wan")
    keys, dense = list(tiny.network.state_dict()), sample(tiny, *tiny.draw())
    tiny.network.__dict__.pop("_diffusers_hook", None)
    modules = dict(tiny.network.named_modules())
    with pytest.raises(RuntimeError, match="half way"):
        Stack([*parse_stack("minmax8+local-window:rows=0"), Fails()]).attach(tiny.network)
    assert not leftovers(tiny.network)
    assert dict(tiny.network.named_modules()) == modules
    assert list(tiny.network.state_dict()) == keys
    assert torch.equal(sample(tiny, *tiny.draw()), dense)


def test_an_attach_that_fails_at_the_second_network_frees_the_first():
    from types import SimpleNamespace

    pipe = SimpleNamespace(transformer=build("wan").network, transformer_2=torch.nn.Linear(2, 2))
    with pytest.raises(Unsupported):
        Stack(parse_stack("minmax8")).attach(pipe)
    assert not leftovers(pipe.transformer)
    pipe.transformer_2 = build("hunyuan-video").network
    with pytest.raises(RuntimeError, match="half way"):
        Stack([Fails()]).attach(pipe)
    assert not leftovers(pipe.transformer)
    with pytest.raises(Unsupported, match="no transformer"):
        Stack([]).attach(SimpleNamespace(unet=1))


def test_hooks_of_others_stay():
    """Layerwise casting and offloading are hooks of diffusers too."""
    from diffusers.hooks import HookRegistry, ModelHook

    class Foreign(ModelHook):
        def post_forward(self, module, output):
            return output * 2

    tiny = build("wan")
    block = tiny.network.blocks[1].attn1
    HookRegistry.check_if_exists_or_initialize(block).register_hook(Foreign(), "foreign")
    dense = sample(tiny, *tiny.draw())
    with Stack(parse_stack("taylorseer:interval=2+local-window:rows=0")).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    assert torch.equal(sample(tiny, *tiny.draw()), dense)
    assert list(block._diffusers_hook.hooks) == ["foreign"]


def test_a_replaced_layer_can_be_hooked_as_the_part_it_is():
    """The projection of HunyuanVideo's single blocks is a linear layer and a part, skipped on half of the steps."""
    tiny = build("hunyuan-video")
    with Stack(parse_stack("taylorseer:mask=1010+minmax8:keep=")).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    cache = next(receipt for receipt in stack.receipts if receipt.method == "taylorseer")
    parts = 2 * 3 + 2
    assert cache.sites == parts
    assert (cache.branches["cond"].computed, cache.branches["cond"].skipped) == (2 * parts, 2 * parts)


def test_receipts_are_of_the_last_run_and_plain_data():
    tiny = build("our-waver")
    stack = Stack(parse_stack("taylorseer:interval=2+attention-maps+minmax8")).attach(tiny.network)
    assert stack.receipts == []
    for seed in (0, 1):
        sample(tiny, *tiny.draw(seed), stack)
    receipts = stack.receipts
    assert receipts is stack.ledgers[1].receipts
    plain = json.loads(json.dumps([receipt.to_json() for receipt in receipts]))
    assert [one["method"] for one in plain] == ["taylorseer", "minmax8", "attention-maps"]
    assert all(one["acted"] for one in plain)
    assert plain[0]["config"]["interval"] == 2
    assert "maps" not in plain[2]["notes"]
    stack.detach()


def test_state_is_at_most_what_was_measured():
    """Two factors of the output in each of two branches."""
    tiny = build("our-waver")
    with Stack(parse_stack("taylorseer:interval=2,granularity=output,last_full=false")).attach(tiny.network) as stack:
        noise, text = tiny.draw()
        sample(tiny, noise, text, stack)
        assert not stack.store._runs
    assert stack.receipts[0].state_bytes == 2 * 2 * noise.numel() * 4


def test_an_expert_that_takes_over_begins_with_a_full_step():
    """Two networks of one pipeline, the second for low noise: it has nothing to reuse when it begins."""
    from types import SimpleNamespace

    first, second = build("wan", 0), build("wan", 1)
    pipe = SimpleNamespace(transformer=first.network, transformer_2=second.network)
    noise, text = first.draw()
    with Stack(parse_stack("taylorseer:mask=1000000,granularity=output")).attach(pipe) as stack:
        made = [(first if s < 3 else second)(noise, text["cond"], 1000.0 - 100 * s, "cond") for s in range(5)]
    assert torch.equal(made[1], made[0])
    assert torch.equal(made[2], made[0])
    assert torch.equal(made[3], second(noise, text["cond"], 700.0, "cond"))
    assert torch.equal(made[4], made[3])
    counts = stack.receipts[0].branches["cond"]
    assert (counts.computed, counts.skipped) == (2, 3)


def test_outside_a_run_our_networks_are_dense():
    """Before any run, after one, and after one that broke."""
    tiny = build("our-waver")
    noise, text = tiny.draw()
    plain = tiny(noise, text["cond"], 500.0, "cond")
    with Stack(parse_stack("taylorseer:interval=2+local-window:rows=0")).attach(tiny.network) as stack:
        assert torch.equal(tiny(noise, text["cond"], 500.0, "cond"), plain)
        sample(tiny, noise, text, stack)
        assert torch.equal(tiny(noise, text["cond"], 500.0, "cond"), plain)
        with pytest.raises(RuntimeError, match="on purpose"):
            sample(tiny, noise, text, stack, break_at=2)
        assert torch.equal(tiny(noise, text["cond"], 500.0, "cond"), plain)


@pytest.mark.filterwarnings("ignore:apg did nothing")
@pytest.mark.parametrize("family", ["our-waver", "our-latte", "wan", "hunyuan-video"])
@pytest.mark.parametrize("spec", ["taylorseer", "taylorseer:granularity=block", "local-window:frames=0", "apg"])
def test_a_run_leaves_no_tensors_to_the_garbage_collector(family, spec):
    """What is only freed by collecting cycles is memory that a GPU is missing meanwhile."""
    tiny = build(family)
    given = tiny.draw()
    with Stack(parse_stack(spec), allow_inert=True).attach(tiny.network) as stack, torch.no_grad():
        sample(tiny, *given, stack)
        gc.collect()
        gc.disable()
        try:
            sample(tiny, *given, stack)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [one for one in gc.garbage if isinstance(one, torch.Tensor)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left
