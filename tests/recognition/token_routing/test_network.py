"""The grid: exactness of routing, of its two executions and of its costs; gradients, saving, early stop, bad input."""

import pytest
import torch
from tests.recognition.token_routing.tiny import TINY, counted, pictures, scattered, set_gates, tiny

from longtake.errors import BadInput, UnknownName
from longtake.recognition.token_routing import TokenRoutingBackbone, budget_loss, routing_config


def close(one, other, atol):
    for a, b in zip((*one.pyramid, one.logits), (*other.pyramid, other.logits), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)


def plain_grid(network, images):
    """The unrouted grid, written down from its definition."""
    x, size = network.embed(images)
    level = [x, None, None, None]
    for column in range(network.config.columns + 1):
        here, sent = size, None
        for scale in range(4):
            node, x = network.node(column, scale), level[scale]
            if sent is not None:
                x = node.merge(sent if x is None else x + sent)
            if node.down is not None:
                sent = node.down.convolution(x.transpose(1, 2).unflatten(2, here)).flatten(2).transpose(1, 2)
            if node.block is not None:
                x = x + node.block.attention(node.block.norms[0](x), here)
                x = x + node.block.mlp(node.block.norms[1](x), here, None)
            level[scale] = x
            here = tuple(-(-n // 2) for n in here)
    return network.head(level[-1].mean(1))


@torch.no_grad()
def test_all_gates_open_equal_the_unrouted_grid():
    routed, bare, images = tiny(), tiny(gate="none"), pictures()
    bare.load_state_dict({name: w for name, w in routed.state_dict().items() if ".gate." not in name})
    for execution in ("masked", "gathered"):
        close(routed(images, execution=execution), bare(images), 2e-6)
    torch.testing.assert_close(bare(images).logits, plain_grid(bare, images), atol=1e-6, rtol=0)


@torch.no_grad()
def test_all_gates_closed_are_the_identity():
    images = pictures()
    for execution in ("masked", "gathered"):
        closed = set_gates(tiny(), row=-1.0, down=-1.0)(images, execution=execution)
        tokens, size = tiny().embed(images)
        assert torch.equal(closed.pyramid[0], tokens.transpose(1, 2).unflatten(2, size))
        assert not any(level.any() for level in closed.pyramid[1:])


@torch.no_grad()
def test_closed_row_gates_leave_only_what_comes_down():
    network, images = set_gates(tiny(), row=-1.0, down=1.0), pictures()
    found = network(images)
    for node in network.nodes[:8]:
        for weight in node.block.parameters():
            weight.fill_(torch.nan)  # no block has a say
    close(found, network(images), 0.0)
    assert found.pyramid[3].abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("gate", ["hard", "soft"])
@pytest.mark.parametrize("size", [(32, 32), (50, 70), (96, 33)])
def test_gathered_equals_masked(gate, size):
    network, images = scattered(gate=gate), pictures(3, *size)
    if gate == "soft":  # gates that are no steps hand rounding on and enlarge it: in float32 it comes to 3e-5
        network, images = network.double(), images.double()
    masked, gathered = (network(images, execution=execution) for execution in ("masked", "gathered"))
    assert 0.1 < gathered.share.mean() < 0.9
    close(masked, gathered, 1e-5)


@torch.no_grad()
def test_a_batch_equals_its_images():
    network, images = scattered(), pictures()
    together = network(images)
    for index in range(len(images)):
        alone = network(images[index : index + 1])
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-5, rtol=0)
        assert together.macs[index] == alone.macs[0]


@pytest.mark.parametrize("size", [(32, 32), (50, 70)])
def test_expected_costs_are_those_counted(size):
    images = pictures(1, *size)
    for network in (scattered(), tiny(), set_gates(tiny(), row=-1.0, down=1.0), set_gates(tiny(), row=1.0, down=-1.0)):
        found, count = counted(network, images)
        assert int(found.macs) == count
    found, count = counted(tiny(), images)
    assert found.full == count


def test_a_batch_pays_for_padded_queries_alone():
    network, images = scattered(), pictures(4)
    found, count = counted(network, images)
    padding = 0
    for node in found.routes:
        if node.row is not None:
            tokens = (node.row > 0).sum(1)
            some = tokens[tokens > 0]
            attention = network.node(node.column, node.scale).block.attention
            keys = attention._reduced(
                torch.zeros(1, tokens.new_tensor(node.size).prod(), attention.q.in_features), node.size
            )
            padding += int((tokens.max() - some).sum()) * 2 * keys.shape[1] * attention.q.in_features
    assert padding > 0
    assert count == int(found.macs.sum()) + padding


def test_gradients_reach_every_weight_and_the_budget_the_gates():
    network = set_gates(tiny(), row=1.0, down=1.0, spread=0.3).train()
    found = network(pictures(), generator=torch.Generator().manual_seed(0))
    found.logits.square().mean().backward()
    assert not [name for name, w in network.named_parameters() if w.grad is None or not w.grad.any()]
    network = tiny().train()  # gates that see no token: the budget reaches them in no other way
    budget_loss(network(pictures(), generator=torch.Generator().manual_seed(0)).share, 0.5).backward()
    for node in network.nodes[:-1]:
        assert (node.gate.logits.bias.grad > 0).all()  # descending closes every gate


def test_draws_come_from_the_generators():
    network, images = scattered().train(), pictures()
    drawn = [network(images, generator=torch.Generator().manual_seed(seed)).share for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    alone = network(images[1:2], generator=[torch.Generator().manual_seed(7)])
    both = network(images[:2], generator=[torch.Generator().manual_seed(seed) for seed in (6, 7)])
    assert both.macs[1] == alone.macs[0]


@torch.no_grad()
def test_a_scale_that_few_tokens_take_stops_in_evaluation():
    network, images = tiny(early_stop=0.5, columns=3), pictures(2, 64, 64)
    gate = network.node(1, 0).gate  # in the second column a third of the first image's tokens, and all of the second's
    decide = gate.forward
    places = torch.arange(256) % 3 == 0

    def some(x, condition=None):
        logits = decide(x)
        logits[0, ~places, 0] = -1.0
        return logits

    gate.forward = some
    rows = [node.row for node in network(images).routes if node.scale == 0 and node.row is not None]
    assert [float(row[0].mean()) for row in rows] == [1.0, 0.0, 0.0]
    assert [float(row[1].mean()) for row in rows] == [1.0, 1.0, 1.0]
    close(network(images), network(images, execution="masked"), 1e-5)
    others = [node.row for node in network(images).routes if node.scale > 0 and node.row is not None]
    assert all(bool(row.all()) for row in others)
    training = network.train()(images, generator=torch.Generator().manual_seed(0))
    row = next(node.row for node in training.routes if node.scale == 0 and node.column == 2)
    assert row[0].any()


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(tmp_path):
    network, images = scattered(), pictures()
    network.save_pretrained(tmp_path)
    again = TokenRoutingBackbone.from_pretrained(str(tmp_path), low_cpu_mem_usage=False).eval()
    close(network(images), again(images), 0.0)
    assert tuple(again.config.classes) == TINY["classes"]


@torch.no_grad()
def test_bf16_and_autocast_run_both_ways():
    images = pictures(2, 64, 64)
    for execution in ("masked", "gathered"):
        expected = scattered()(images, execution=execution).pyramid[0]
        with torch.autocast("cpu", torch.bfloat16):
            auto = scattered()(images, execution=execution)
        half = scattered().to(torch.bfloat16)(images.bfloat16(), execution=execution)
        assert half.pyramid[0].dtype == torch.bfloat16
        for found in (auto, half):  # a gate near its threshold may fall to the other side
            assert (found.pyramid[0].float() - expected).abs().median() < 0.1


@torch.no_grad()
def test_the_receipt_tells_the_tokens_of_every_node():
    network, images = scattered(), pictures(2, 64, 64)
    found = network(images)
    receipt = found.receipt({})
    assert receipt.acted
    assert receipt.macs_done == int(found.macs.double().sum()) < receipt.macs_dense == 2 * found.full
    nodes = receipt.notes["nodes"]
    assert [(n["scale"], n["column"]) for n in nodes] == [(s, c) for c in range(3) for s in range(4)]
    assert [n["tokens"] for n in nodes[:4]] == [512, 128, 32, 8]
    assert nodes[0]["row"] == int(found.routes[0].row.sum())
    assert nodes[3]["down"] is None and nodes[-2]["row"] is None
    assert network(images, execution="masked").receipt({}).macs_done == receipt.macs_dense
    assert not tiny()(images).receipt({}).acted


@torch.no_grad()
def test_a_new_network_runs_almost_everything():
    torch.manual_seed(0)
    found = TokenRoutingBackbone(**TINY).train()(pictures(), generator=torch.Generator().manual_seed(0))
    assert 0.9 < found.share.mean() < 1.0
    assert TokenRoutingBackbone(**TINY).eval()(pictures()).share.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": (8, 8, 16)},
        {"heads": (1, 3, 3, 4)},
        {"reductions": (4, 2, 0, 1)},
        {"columns": 0},
        {"gate": "tanh"},
        {"temperature": 0.0},
        {"early_stop": 1.0},
    ],
)
def test_bad_settings_are_refused(changes):
    with pytest.raises(BadInput):
        TokenRoutingBackbone(**{**TINY, **changes})


def test_bad_images_are_refused():
    for shape in ((1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)):
        with pytest.raises(BadInput):
            tiny()(torch.zeros(shape))
    with pytest.raises(BadInput):
        tiny()(pictures(), execution="sparse")


@pytest.mark.parametrize("size", ["nano", "tiny", "b0"])
def test_the_sizes_can_be_built(size):
    with torch.device("meta"):
        network = TokenRoutingBackbone(**routing_config(size))
    assert len(network.nodes) == 4 * (network.config.columns + 1)
    with pytest.raises(UnknownName, match="Did you mean 'nano'"):
        routing_config("nanno")
