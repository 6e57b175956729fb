"""Costs against formulas written down here."""

import pytest
import torch
from tiny_networks import FAMILIES, STEPS, build, sample
from torch import nn

from longtake.runtime.macs import counting, scores
from longtake.runtime.method import Method
from longtake.runtime.stack import Stack
from longtake.runtime.views import view_of

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def costs(tiny, *given):
    """Of one call that a stack without methods watches."""
    noise, text = given or tiny.draw()
    with Stack([Whole()]).attach(tiny.network) as stack:
        sample(tiny, noise, text, stack, steps=1)
    return stack.receipts[0].macs_dense // 2


class Whole(Method):
    """Looks at the network's calls."""

    name = "whole"

    def rank(self):
        return "observer"

    def predict(self, here, nxt):
        here.receipt.observed += 1
        return nxt()

    def config(self):
        return {}


def test_a_tiny_wan():
    """8 tokens of width 24 from patches of 4 x 4 numbers, 5 words of width 16, feed-forward of 24, 4 blocks."""
    n, words, d, inner = 8, 5, 24, 24
    block = 4 * n * d * d + 2 * n * n * d  # self-attention: q, k, v, out; scores and values
    block += 2 * n * d * d + 2 * words * d * d + 2 * n * words * d  # cross-attention: q, out; k, v of the words
    block += 2 * n * d * inner
    time = 16 * d + d * d + d * 6 * d
    text = words * 16 * d + words * d * d
    assert costs(build("wan")) == 4 * block + n * 16 * d + n * d * 16 + time + text


def test_a_tiny_waver():
    """32 video tokens and 5 words of width 16, two dual and two single blocks; modulation is shared."""
    n, words, d, channels = 32, 5, 16, 4
    attention = 2 * (n + words) ** 2 * d
    block = (n + words) * (4 * d * d + 2 * d * 4 * d) + attention
    inputs = n * (2 * channels + 4) * d + words * (16 * d + d * d)
    time = 256 * d + d * d + d * 6 * d + d * 2 * d
    assert costs(build("our-waver")) == 4 * block + inputs + time + n * d * channels


def test_a_batch_of_two_costs_twice_and_the_count_is_of_each_form():
    tiny = build("wan")
    one = costs(tiny)
    assert costs(tiny, *tiny.draw(batch=2)) == 2 * one
    assert costs(tiny, *tiny.draw(size=(8, 4))) > 2 * one - tiny.network.config.num_layers * 4 * 5 * 24 * 24 * 2


def test_calls_alike_are_counted_once_while_a_stack_is_attached(monkeypatch):
    tiny, counted = build("wan"), []
    monkeypatch.setattr("longtake.runtime.conductor.counting", lambda view: counted.append(view) or counting(view))
    with Stack([Whole()]).attach(tiny.network) as stack:
        totals = []
        for _ in range(3):
            sample(tiny, *tiny.draw(), stack)
            totals.append(stack.receipts[0].macs_dense)
        assert len(counted) == 2 and len(set(totals)) == 1  # one of each branch
        sample(tiny, *tiny.draw(batch=2), stack)
        assert len(counted) == 4 and stack.receipts[0].macs_dense == 2 * totals[0]


def test_words_that_a_network_leaves_out_cost_nothing():
    """Mochi attends to the words of each clip alone, so its costs depend on the prompt and not on its length alone."""
    tiny = build("mochi")
    noise, text = tiny.draw()
    full = {branch: words.clone() for branch, words in text.items()}
    full["cond"][0, -2:, 0] = full["uncond"][0, -2:, 0] = 0.5
    with Stack([Whole()]).attach(tiny.network) as stack:
        sample(tiny, noise, text, stack, steps=1)
        padded = stack.receipts[0].macs_dense
        sample(tiny, noise, full, stack, steps=1)
        assert stack.receipts[0].macs_dense > padded


@pytest.mark.parametrize("family", FAMILIES)
def test_counting_changes_no_bit_and_leaves_nothing(family):
    tiny = build(family)
    noise, text = tiny.draw()
    plain = tiny(noise, text["cond"], 500.0, "cond")
    with counting(view_of(tiny.network)) as counter:
        assert torch.equal(tiny(noise, text["cond"], 500.0, "cond"), plain)
    total = counter.costs.by_module.total()
    assert total > 0
    tiny(noise, text["cond"], 500.0, "cond")
    assert counter.costs.by_module.total() == total


def test_linear_layers_and_attention_of_a_module_are_told_apart():
    tiny = build("wan")
    noise, text = tiny.draw()
    seen = {}

    class Look(Whole):
        def predict(self, here, nxt):
            out = nxt()
            seen.update(stack.conductors[0].call.costs.by_module)
            here.receipt.observed += 1
            return out

    with Stack([Look()]).attach(tiny.network) as stack:
        tiny(noise, text["cond"], 500.0, "cond")
    assert seen[scores("blocks.2.attn1")] == 2 * 8 * 8 * 24
    assert seen[scores("blocks.2.attn2")] == 2 * 8 * 5 * 24
    assert seen["blocks.2.attn1.to_q"] == 8 * 24 * 24


def test_an_attention_that_is_replaced_from_the_first_call_on_is_saved_and_no_more():
    """Its projections still run; what the method says of its own work is added."""
    tiny = build("wan")

    class Sparse(Whole):
        name = "sparse"
        predict = Method.predict

        def wants(self, site):
            return site.kind == "attn.self"

        def attend(self, here, call, nxt):
            here.changed("nothing", macs=10)
            return call.v

    with Stack([Sparse()]).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    receipt, calls = stack.receipts[0], STEPS * 2
    assert receipt.macs_dense == calls * costs(tiny)
    assert receipt.macs_dense - receipt.macs_done == calls * 4 * (2 * 8 * 8 * 24 - 10)


def test_a_layer_that_computes_in_its_own_way_counts_as_the_one_it_replaces():
    class Own(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.in_features, self.out_features, self.layer = layer.in_features, layer.out_features, [layer]

        def forward(self, x):
            return self.layer[0](x) + (x @ x.transpose(-1, -2)).mean()

    class Replace(Whole):
        name = "replace"
        predict = Method.predict

        def linear(self, site, module):
            return Own(module) if site.name.endswith("to_q") else None

    tiny = build("wan")
    with Stack([Replace()]).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack, steps=1)
    assert stack.receipts[0].macs_dense == 2 * costs(tiny)


def test_a_run_whose_dense_cost_was_never_seen_says_so():
    """A part that is computed in another way from the first call on hides what it would have cost."""

    class Hidden(Whole):
        name = "hidden"
        predict = Method.predict

        def wants(self, site):
            return site.kind == "ffn"

        def part(self, here, x, nxt):
            here.changed()
            return x

    tiny = build("wan")
    with Stack([Hidden()]).attach(tiny.network) as stack:
        sample(tiny, *tiny.draw(), stack)
    assert stack.receipts[0].macs_dense is None
