"""Methods on top of converted networks: what they reach, what they leave alone, what is refused."""

import pytest
import torch
from tests.methods.dynamic.token_routed.test_network import half_open
from tests.methods.test_dydit import unsettled
from tiny_networks import Tiny, build, sample

from longtake.errors import Unsupported
from longtake.methods import parse_stack
from longtake.methods.dynamic.dydit import to_dydit
from longtake.methods.dynamic.flexdit import Density, to_flexdit
from longtake.methods.dynamic.token_routed import to_token_routed
from longtake.runtime.macs import counting
from longtake.runtime.stack import Stack
from longtake.runtime.views import view_of

pytestmark = pytest.mark.filterwarnings("ignore:.* did nothing")
GRIDS = Density(grids=((0, 2, 2), (2, 2, 1), (1, 2, 1), (1, 1, 1)))
NETWORKS = {
    "flexdit of Latte": ("our-latte", lambda network: to_flexdit(network, "1+2x[1,0,1,0]+1", GRIDS)),
    "flexdit of Waver": ("our-waver", lambda network: to_flexdit(network, "1+[1,0,1,0]+1", GRIDS)),
    "dydit of Latte": ("our-latte", lambda network: unsettled(to_dydit(network))),
    "dydit of Waver": ("our-waver", lambda network: unsettled(to_dydit(network))),
    "routed blocks of Latte": ("our-latte", lambda network: half_open(to_token_routed(network))),
    "routed blocks of Waver": ("our-waver", lambda network: half_open(to_token_routed(network))),
}
STACKS = [
    "taylorseer:interval=2",
    "taylorseer:interval=2,granularity=block",
    "taylorseer:interval=2,granularity=range,first=1,last=2",
    "taylorseer:interval=2,granularity=output",
    "delta-dit:skipped=1,boundary=2",
    "first-block:threshold=100,most=1",
    "local-window:frames=0,rows=0,columns=0",
    "minmax8:bits=3",
    "taylorseer:interval=2,granularity=block+local-window:frames=0,rows=0,columns=0+minmax8:bits=3",
]


@pytest.fixture(autouse=True)
def _as_when_sampling():
    with torch.no_grad():
        yield


def converted(name):
    family, convert = NETWORKS[name]
    tiny = build(family)
    return Tiny(tiny.name, convert(tiny.network).requires_grad_(False), tiny.given, True)


def run(tiny, spec, given, **options):
    with Stack(parse_stack(spec)).attach(tiny.network) as stack:
        return sample(tiny, *given, stack, **options), stack.receipts


@pytest.mark.parametrize("spec", STACKS)
@pytest.mark.parametrize("name", NETWORKS)
def test_methods_act_and_leave_nothing_behind(name, spec):
    tiny = converted(name)
    given = tiny.draw()
    dense = sample(tiny, *given)
    made, receipts = run(tiny, spec, given)
    again, _ = run(tiny, spec, given)
    assert all(receipt.acted for receipt in receipts)
    assert made.isfinite().all() and torch.equal(made, again) and not torch.equal(made, dense)
    assert torch.equal(sample(tiny, *given), dense)


@pytest.mark.parametrize("granularity", ["module", "block", "range", "output"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_cache_that_computes_every_step_changes_nothing(name, granularity):
    tiny = converted(name)
    given = tiny.draw()
    spec = f"taylorseer:interval=1,granularity={granularity}"
    with Stack(parse_stack(spec), allow_inert=True).attach(tiny.network) as stack:
        assert torch.equal(sample(tiny, *given, stack), sample(tiny, *given))


@pytest.mark.parametrize("name", ["flexdit of Latte", "flexdit of Waver"])
def test_outputs_of_sparse_dense_modules_are_forecast_and_nothing_inside_them(name):
    """Their tokens are dense on both sides, so that a forecast may cross from one sparse grid to another."""
    tiny = converted(name)
    modules = [module for module in tiny.network.blocks if hasattr(module, "recover")]
    called, seen = [], []
    for module in modules:
        module.recover.register_forward_hook(lambda *_: called.append(1))
        module.generate[0].register_forward_hook(lambda _, args, made: seen.append(args[0].shape))
    _, (receipt,) = run(tiny, "taylorseer:interval=3,granularity=block,last_full=false", tiny.draw(), steps=6)
    blocks = len(tiny.network.blocks)
    assert receipt.branches["cond"].skipped == receipt.branches["uncond"].skipped == 4 * blocks
    assert len(called) == 2 * 2 * len(modules), "steps 0 and 3, two branches"
    assert len(set(seen)) == 2, "the grid of sparse tokens changed between them"
    inside = {part for module in modules for part in module.modules()}
    assert not any(part.module in inside for part in view_of(tiny.network).parts)


@pytest.mark.parametrize("name", ["dydit of Latte", "dydit of Waver"])
def test_a_forecast_of_parts_holds_although_tokens_come_and_go(name):
    tiny = converted(name)
    tiny.network.receipt()
    _, (receipt,) = run(tiny, "taylorseer:interval=2", tiny.draw())
    assert receipt.sites == len(view_of(tiny.network).parts) > 0
    rows = tiny.network.receipt().notes["steps"]
    assert [row["calls"] for row in rows] == [2, 2, 2], "the second of four steps ran no part"


@pytest.mark.parametrize("name", ["flexdit of Latte", "flexdit of Waver"])
def test_costs_of_a_run_follow_the_grid_of_each_step(name):
    tiny = converted(name)
    noise, text = tiny.draw()
    with Stack(parse_stack("minmax8")).attach(tiny.network) as stack:
        for _ in range(2):  # the second run finds all of its costs known
            sample(tiny, noise, text, stack)
            dense, done = stack.receipts[0].macs_dense, stack.receipts[0].macs_done
            assert done == dense
            seen = tiny.network.receipt().notes["steps"]
            assert len({tuple(step["sparse"]) for step in seen}) > 1
            counted = 0
            for step in seen:
                with counting(view_of(tiny.network)) as counter:
                    tiny(noise, text["cond"], 1000 * step["noise"], "cond")
                counted += step["calls"] * counter.costs.total
            tiny.network.receipt()
            assert dense == counted


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("flexdit")])
def test_costs_that_no_call_tells_of_another_are_not_known(name):
    tiny = converted(name)
    _, receipts = run(tiny, "taylorseer:interval=2", tiny.draw())
    assert receipts[0].macs_dense is None


def test_two_ways_of_choosing_tokens_are_refused():
    network = build("our-latte").network
    with pytest.raises(Unsupported, match="FlexLatte cannot become a DyDiT"):
        to_dydit(to_flexdit(network, "1+2x[1,0,1,0]+1", GRIDS))
    with pytest.raises(Unsupported, match="DyLatte cannot become a FlexDiT"):
        to_flexdit(to_dydit(network), "1+2x[1,0,1,0]+1", GRIDS)
    with pytest.raises(Unsupported, match="DyLatte cannot have routed blocks"):
        to_token_routed(to_dydit(network))
    with pytest.raises(Unsupported, match="RoutedLatte cannot become a FlexDiT"):
        to_flexdit(to_token_routed(network), "1+2x[1,0,1,0]+1", GRIDS)
