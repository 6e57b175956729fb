"""TaylorSeer against its table, against plain reuse, against polynomials and against diffusers' own hook."""

from itertools import pairwise

import pytest
import torch
from tiny_networks import build, sample

from longtake.errors import BadInput, Unsupported
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.runtime import StepInfo
from longtake.runtime.stack import Stack


def run(tiny, method, given=None, **options):
    with Stack([method]).attach(tiny.network) as stack:
        return sample(tiny, *(given or tiny.draw()), stack, **options), stack.receipts[0]


@pytest.mark.parametrize(
    ("interval", "warmup", "full"),
    [(3, 2, 18), (4, 2, 14), (5, 2, 11), (6, 3, 10), (5, 1, 10)],  # DiT-XL three times, FLUX, HunyuanVideo and Wan
)
def test_full_steps_of_the_published_settings(interval, warmup, full):
    """Of 50 steps, from the printed ratios of operations: 2.78, 3.57, 4.55, 5 and 5 times fewer."""
    steps = TaylorSeer(interval, warmup=warmup, last_full=False).schedule.steps(50)
    assert len(steps) == full
    assert steps[:warmup] == list(range(warmup))
    assert {after - before for before, after in pairwise(steps[warmup - 1 :])} == {interval}
    tiny = build("wan")
    method = TaylorSeer(interval, warmup=warmup, granularity="output", last_full=False)
    receipt = run(tiny, method, steps=50)[1]
    assert receipt.notes["full_steps"] == steps
    assert (receipt.branches["cond"].computed, receipt.branches["uncond"].skipped) == (full, 50 - full)
    assert receipt.macs_done * 50 == receipt.macs_dense * full


@pytest.mark.parametrize("granularity", ["module", "output"])
def test_order_0_is_plain_reuse_bit_for_bit(granularity):
    """Against hooks that hand out what each module returned on the last full step."""
    tiny, full = build("wan"), {0, 3}
    made, _ = run(tiny, TaylorSeer(order=0, mask="10010", granularity=granularity))

    held, now = {}, {}
    modules = [tiny.network]
    if granularity == "module":
        modules = [part for block in tiny.network.blocks for part in (block.attn1, block.attn2, block.ffn)]

    def reuse(module, args, kwargs, output):
        """The call's number in this run says the step and the branch: cond on even ones, uncond on odd ones."""
        call = now[module] = now.get(module, -1) + 1
        if call // 2 in full:
            held[module, call % 2] = output
        return held[module, call % 2]

    handles = [module.register_forward_hook(reuse, with_kwargs=True) for module in modules]
    expected = sample(tiny, *tiny.draw())
    for handle in handles:
        handle.remove()
    assert torch.equal(made, expected)


@pytest.mark.parametrize("granularity", ["block", "range"])
def test_order_0_adds_the_residual_of_the_last_full_step(granularity):
    """The stream goes on from today's input, so only the block's own addition is old."""
    tiny = build("our-waver")
    made, _ = run(tiny, TaylorSeer(order=0, mask="10010", granularity=granularity))
    residual, calls = {}, {}

    def after(module, args, output):
        call = calls[module] = calls.get(module, -1) + 1
        step, branch = divmod(call, 2)
        if step in {0, 3}:
            residual[module, branch] = [new - old for new, old in zip(output, args[:2], strict=True)]
        return tuple(old + added for old, added in zip(args[:2], residual[module, branch], strict=True))

    for block in tiny.network.blocks:
        block.register_forward_hook(after)
    torch.testing.assert_close(made, sample(tiny, *tiny.draw()), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("basis", ["taylor", "newton"])
@pytest.mark.parametrize("granularity", ["module", "block", "range", "output"])
def test_what_is_linear_along_the_steps_is_exact_from_order_1_on(granularity, basis):
    """A network whose output at step s is a + s * b, at unequal distances between full steps."""
    _, errors = _linear_along_steps()
    for order, exact in ((0, False), (1, True), (2, True)):
        method = TaylorSeer(order=order, mask="1100100", granularity=granularity, basis=basis)
        assert (max(errors(method)) < 1e-5) == exact


def _linear_along_steps():
    """A network of one number, and how far its outputs are from a line under a method."""
    from torch import nn

    from longtake.runtime import BlockForm, Blocks, Family, ModelView, Part, TokenGrid

    class Half(nn.Module):
        def forward(self, x, s):
            return 0 * x + 0.5 + 0.25 * s

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Half()

        def forward(self, hidden_states, s):
            return hidden_states + self.part(hidden_states, s)

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(2))

        def forward(self, hidden_states, timestep):
            for block in self.blocks:
                hidden_states = block(hidden_states, (10 - timestep)[0])
            return hidden_states

    family = Family(
        "line",
        (Blocks("blocks", BlockForm((Part("part", "ffn"),))),),
        lambda network, given: TokenGrid(1, 2, 2),
    )
    network = Line()

    def errors(method):
        x, found = torch.zeros(1, 4, 3), []
        with Stack([method]).attach(network, [ModelView(network, family)]):
            for s in range(7):
                found.append((network(x, torch.tensor([10.0 - s])) - (1 + 0.5 * s)).abs().max().item())
        return found

    return network, errors


def test_agrees_with_the_hook_of_diffusers():
    """Same modules, same full steps, factors in float32; theirs counts calls, so it needs a fresh network per run."""
    from diffusers import TaylorSeerCacheConfig

    theirs, ours = build("hunyuan-video"), build("hunyuan-video")
    given, steps, interval, warmup = ours.draw(), 12, 4, 3
    full = [s < warmup or (s - warmup - 1) % interval == 0 for s in range(steps)]
    for order in (1, 2):
        theirs.network.enable_cache(
            TaylorSeerCacheConfig(
                cache_interval=interval,
                disable_cache_before_step=warmup,
                max_order=order,
                taylor_factors_dtype=torch.float32,
                cache_identifiers=[
                    r"transformer_blocks\.\d+\.(attn|ff|ff_context)",
                    r"single_transformer_blocks\.\d+\.proj_out",
                ],
            )
        )
        expected = sample(theirs, *given, steps=steps)
        theirs.network.disable_cache()
        mask = "".join("01"[one] for one in full)
        made, receipt = run(ours, TaylorSeer(order=order, mask=mask, factor_dtype="float32"), given, steps=steps)
        assert receipt.notes["full_steps"] == [s for s in range(steps) if full[s]]
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(made, sample(ours, *given, steps=steps), atol=1e-3)


def test_memory_is_order_plus_one_tensors_for_each_place_and_branch():
    tiny = build("wan")
    noise, text = tiny.draw()
    hidden = 8 * 24 * 4
    for order in (0, 2):
        for granularity, places in (("module", 12), ("block", 4), ("range", 1)):
            method = TaylorSeer(2, order, granularity=granularity, last_full=False)
            assert run(tiny, method, (noise, text), steps=7)[1].state_bytes == 2 * places * (order + 1) * hidden
    halved = run(tiny, TaylorSeer(2, 1, factor_dtype="bfloat16", last_full=False), (noise, text))[1]
    assert halved.state_bytes == 2 * 12 * 2 * hidden // 2


def test_positions_can_be_timesteps_or_noise_levels():
    """At even steps all three agree; a network that nobody tells its noise level cannot have the last."""
    tiny, given = build("our-waver"), build("our-waver").draw()
    by_index = run(tiny, TaylorSeer(2, distance="index"), given)[0]
    for distance in ("t", "sigma"):
        torch.testing.assert_close(
            run(tiny, TaylorSeer(2, distance=distance), given)[0], by_index, atol=1e-4, rtol=1e-4
        )
    with pytest.raises(Unsupported, match="no noise level"):
        run(build("wan"), TaylorSeer(2, distance="sigma"))


def test_uneven_timesteps_are_measured():
    """A network linear in t is forecast exactly by distances in t, and not by those in steps."""
    network, _ = _linear_along_steps()
    from longtake.runtime import BlockForm, Blocks, Family, ModelView, TokenGrid

    family = Family("line", (Blocks("blocks", BlockForm(())),), lambda network, given: TokenGrid(1, 2, 2))
    error = {}
    for distance in ("index", "t"):
        method = TaylorSeer(mask="110", granularity="output", distance=distance)
        with Stack([method]).attach(network, [ModelView(network, family)]):
            for t in (10.0, 9.0, 4.0):
                made = network(torch.zeros(1, 4, 3), torch.tensor([t]))
        error[distance] = (made - (1 + 0.5 * 6)).abs().max().item()
    assert error["t"] < 1e-5
    assert error["index"] > 1


def test_a_branch_that_was_not_there_on_the_full_step_is_computed():
    tiny = build("our-waver")
    noise, text = tiny.draw()
    with Stack([TaylorSeer(mask="1000", granularity="output")]).attach(tiny.network) as stack:
        run_number, made = stack.begin(), {}
        for s, branches in enumerate((["cond"], ["cond", "uncond"], ["cond", "uncond"])):
            for branch in branches:
                info = StepInfo(run_number, s, 4, 900.0, 0.9, 0.9, branch)
                made[s, branch] = tiny(noise, text[branch], 900.0, branch, info)
        counts = stack.finish(run_number)[0].branches
    assert torch.equal(made[1, "uncond"], tiny(noise, text["uncond"], 900.0, "uncond"))
    assert (counts["cond"].skipped, counts["uncond"].computed, counts["uncond"].skipped) == (2, 1, 1)


def test_words_of_joint_blocks_are_forecast_too():
    """Hooks outside of ours see the words that enter the last block: they move on steps that are forecast."""
    tiny, words = build("our-waver"), []
    noise, text = tiny.draw()
    with Stack([TaylorSeer(mask="11000", granularity="block")]).attach(tiny.network) as stack:
        handle = tiny.network.blocks[3].register_forward_pre_hook(lambda module, args: words.append(args[1]))
        number = stack.begin()
        for s in range(5):
            tiny(noise * (1 + s), text["cond"], 900.0 - 50 * s, "cond", StepInfo(number, s, 5, 900.0, 0.9, 0.9, "cond"))
        handle.remove()
    change = words[1] - words[0]
    assert change.abs().max() > 1e-3
    for k in (1, 2, 3):
        torch.testing.assert_close(words[1 + k], words[1] + k * change, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"order": 4}, "order is 4"),
        ({"granularity": "layer"}, "'layer'"),
        ({"basis": "cubic"}, "'cubic'"),
        ({"distance": "time"}, "'time'"),
        ({"factor_dtype": "int8"}, "'int8'"),
        ({"interval": 0}, "interval is 0"),
    ],
)
def test_bad_settings_are_named_in_one_line(settings, named):
    with pytest.raises(BadInput, match=named) as caught:
        TaylorSeer(**settings)
    assert "\n" not in str(caught.value)


def test_a_range_that_is_not_safe_is_refused_before_anything_is_attached():
    tiny = build("latte")
    with pytest.raises(Unsupported, match="before block 2; begin the range there"):
        Stack([TaylorSeer(granularity="range", first=0)]).attach(tiny.network)
    assert not hasattr(tiny.network, "_diffusers_hook")


@pytest.mark.filterwarnings("ignore:taylorseer did nothing")
@pytest.mark.parametrize("granularity", ["module", "block", "range", "output"])
def test_nothing_is_kept_where_nothing_is_ever_forecast(granularity):
    tiny = build("our-waver")
    for settings in ({"interval": 1}, {"mask": "1111"}):
        method = TaylorSeer(granularity=granularity, **settings)
        with Stack([method], allow_inert=True).attach(tiny.network) as stack:
            sample(tiny, *tiny.draw(), stack)
            assert stack.receipts[0].state_bytes == 0
    assert run(tiny, TaylorSeer(mask="1101", granularity=granularity))[1].state_bytes > 0


@torch.no_grad()
def test_a_caller_may_write_into_what_the_network_returns():
    tiny = build("our-waver")
    noise, text = tiny.draw()
    method = TaylorSeer(interval=3, order=0, granularity="output", last_full=False)
    with Stack([method]).attach(tiny.network):
        made = []
        for s in range(3):
            out = tiny(noise, text["cond"], 500.0, "cond", info=StepInfo(0, s, 3, 500.0, 0.5, 0.5, "cond"))
            made.append(out.clone())
            out.zero_()
    assert made[0].any() and torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
