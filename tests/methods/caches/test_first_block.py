"""The first-block cache decides by the relative change of what the first block adds."""

import pytest
import torch
from tiny_networks import build, sample

from longtake.errors import BadInput, Unsupported
from longtake.methods.caches.first_block import FirstBlock
from longtake.runtime.stack import Stack


def run(tiny, method, given=None, **options):
    with Stack([method], allow_inert=True).attach(tiny.network) as stack:
        return sample(tiny, *(given or tiny.draw()), stack, **options), stack.receipts[0]


def test_the_decision_is_the_relative_mean_change_of_the_first_residual():
    """Recomputed from what enters and leaves block 0 on the conditional branch, which comes first in each step."""
    tiny, residuals, steps = build("our-waver"), [], 12
    every = run(tiny, FirstBlock(threshold=1e-9, last_full=False), steps=steps)[1].notes["change"]
    threshold = 1.5 * sorted(every)[len(every) // 2]
    with Stack([FirstBlock(threshold=threshold, last_full=False)]).attach(tiny.network) as stack:
        hook = tiny.network.blocks[0].register_forward_hook(lambda m, args, out: residuals.append(out[0] - args[0]))
        sample(tiny, *tiny.draw(), stack, steps=steps)
        hook.remove()
    receipt, first = stack.receipts[0], residuals[0::2]
    kept, changes, skipped = first[0], [], 0
    for residual in first[1:]:
        changes.append(((residual - kept).abs().mean() / kept.abs().mean()).item())
        if changes[-1] < threshold:
            skipped += 1
        else:
            kept = residual
    assert receipt.notes["change"] == pytest.approx(changes, abs=1e-4)
    assert 0 < skipped < steps - 1
    assert {branch: counts.skipped for branch, counts in receipt.branches.items()} == {
        "cond": 3 * skipped,
        "uncond": 3 * skipped,
    }


def test_the_first_block_always_runs_and_the_rest_adds_what_it_added():
    tiny, ran = build("wan"), []
    for i, block in enumerate(tiny.network.blocks):
        block.attn1.register_forward_pre_hook(lambda module, args, i=i: ran.append(i))
    noise, text = tiny.draw()
    with Stack([FirstBlock(threshold=1e9)]).attach(tiny.network):
        for t in (900.0, 800.0):
            ran.clear()
            tiny(noise, text["cond"], t, "cond")
    assert ran == [0]


def test_limits_of_how_often():
    tiny = build("our-waver")

    def skips(**settings):
        return run(tiny, FirstBlock(threshold=1e9, **settings), steps=8)[1].branches["cond"].skipped // 3

    assert skips(last_full=False) == 7
    assert skips() == 6
    assert skips(warmup=4) == 3
    assert skips(most=1, last_full=False) == 4
    assert skips(most=2, last_full=False) == 5


def test_a_threshold_of_nothing_is_dense():
    tiny = build("our-waver")
    given = tiny.draw()
    made, receipt = run(tiny, FirstBlock(threshold=0), given)
    assert torch.equal(made, sample(tiny, *given))
    assert not receipt.acted


def test_a_network_with_nothing_to_skip_is_refused():
    from longtake.backbones.latte import Latte

    with pytest.raises(Unsupported, match="1 blocks"):
        Stack([FirstBlock()]).attach(Latte(latent_channels=4, width=16, depth=1, heads=2, variant="3"))


def test_bad_settings():
    for settings in ({"threshold": -1}, {"threshold": float("nan")}, {"warmup": -1}, {"most": -1}):
        with pytest.raises(BadInput, match=f"first-block: {next(iter(settings))}"):
            FirstBlock(**settings)
