import pytest
import torch
from latte_recorded import awake, noise

from longtake.backbones.latte import SIZES, VARIANTS, Latte, latte_config
from longtake.backbones.latte_blocks import KINDS, LatteBlock, LatteCondition
from longtake.errors import BadInput, BadSize, UnknownName
from longtake.layers.positions import sincos_line
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.runtime import StepInfo, TokenGrid
from longtake.runtime.stack import Stack

SMALL = {"width": 16, "depth": 4, "heads": 2}
TIMES = torch.tensor([3.0, 720.0])


CHOICES = [
    {"variant": variant, "inject": inject, **more}
    for variant in VARIANTS
    for inject in ("s_adaln", "all_tokens")
    for more in ({}, {"temporal_pos": "rope"}, {"tubelet": 2}, {"learned_variance": False})
    if not (variant == "joint" and inject == "all_tokens")
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: "-".join(str(v) for v in c.values()))
def test_every_switch_starts_at_zero_and_then_depends_on_all_it_is_given(choice):
    model = Latte(**SMALL, classes=5, **choice)
    x, labels = noise(2, 4, 4, 8, 8), torch.tensor([1, 4])
    out = model(x, TIMES, labels=labels)
    assert out.shape == (2, 4 if choice.get("learned_variance") is False else 8, 4, 8, 8)
    assert not out.any()
    awake(model)
    with torch.no_grad():
        out = model(x, TIMES, labels=labels)
        others = [
            model(noise(2, 4, 4, 8, 8, seed=1), TIMES, labels=labels),
            model(x, TIMES.flip(0), labels=labels),
            model(x, TIMES, labels=labels.flip(0)),
        ]
        alone = model(x[1:], TIMES[1:], labels=labels[1:])
    assert all((out - other).abs().max() > 1e-3 for other in others)
    # A sample does not see its neighbours; products of other sizes round otherwise.
    torch.testing.assert_close(out[1:], alone, atol=5e-4, rtol=1e-4)
    model.train().zero_grad()
    model(x, TIMES, labels=labels).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters())


@pytest.mark.parametrize(("size", "millions"), [("S/2", 32.48), ("B/2", 129.55), ("L/2", 456.82), ("XL/2", 673.68)])
def test_parameters_are_as_many_as_published(size, millions):
    counts = {}
    for variant in (1, 2, 3, 4):
        with torch.device("meta"):
            counts[variant] = sum(p.numel() for p in Latte(**latte_config(size, variant)).parameters()) / 1e6
    assert counts[1] == pytest.approx(millions, abs=0.01)
    assert counts[2] == counts[1]
    assert counts[3] == pytest.approx(counts[1], rel=0.02)
    assert counts[4] == counts[3]
    if size == "XL/2":
        assert counts[3] == pytest.approx(676.36, abs=0.01)  # printed 676.33


def test_sizes_have_the_published_depth_width_and_heads():
    assert SIZES == {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    assert latte_config("L/4")["patch"] == 4
    with pytest.raises(UnknownName, match="no Latte is called 'XL/3'"):
        latte_config("XL/3")


def silence(model: Latte, parts: slice, kind: str) -> None:
    """Zero some of the six parts of the modulation of all blocks of a kind."""
    for block in model.blocks:
        if block.kind == kind:
            for value in (block.projection.linear.weight, block.projection.linear.bias):
                value.data.view(6, -1)[parts] = 0


def test_without_time_it_is_the_image_model_frame_by_frame_and_knows_no_order(monkeypatch):
    model = awake(Latte(**SMALL, classes=5))
    silence(model, slice(2, None, 3), "time")  # both gates
    monkeypatch.setattr(model, "_moments", lambda frames, images, device: torch.zeros(frames + images, 1, 16))
    x, labels = noise(2, 4, 4, 8, 8), torch.tensor([1, 4])
    with torch.no_grad():
        out = model(x, TIMES, labels=labels)
        frames = [model(x[:, :, f : f + 1], TIMES, labels=labels) for f in range(4)]
        order = torch.tensor([2, 0, 3, 1])
        mixed = model(x[:, :, order], TIMES, labels=labels)
    torch.testing.assert_close(out, torch.cat(frames, dim=2), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out[:, :, order], mixed, atol=1e-6, rtol=1e-5)


def test_time_matters_when_it_is_there():
    model = awake(Latte(**SMALL))
    x = noise(1, 4, 4, 8, 8)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        out, mixed = model(x, TIMES[:1]), model(x[:, :, order], TIMES[:1])
        alone = model(x[:, :, :1], TIMES[:1])
    assert (out[:, :, order] - mixed).abs().max() > 1e-2
    assert (out[:, :, :1] - alone).abs().max() > 1e-2


@pytest.mark.parametrize("variant", ["1", "2", "3", "4", "joint"])
def test_single_images_and_the_clip_do_not_see_each_other(variant):
    model = awake(Latte(**SMALL, classes=5, variant=variant))
    x, labels, own = noise(2, 4, 6, 8, 8), torch.tensor([1, 4]), torch.tensor([[0, 2], [3, 3]])
    other = noise(2, 4, 6, 8, 8, seed=1)
    with torch.no_grad():
        out = model(x, TIMES, labels=labels, image_labels=own, images=2)
        new_clip = model(torch.cat([other[:, :, :4], x[:, :, 4:]], 2), TIMES, labels=labels, image_labels=own, images=2)
        new_images = model(
            torch.cat([x[:, :, :4], other[:, :, 4:]], 2), TIMES, labels=labels, image_labels=own, images=2
        )
        plain = model(x[:, :, :4], TIMES, labels=labels)
        other_labels = model(x, TIMES, labels=labels, image_labels=own.flip(0), images=2)
    assert torch.equal(out[:, :, 4:], new_clip[:, :, 4:])
    assert torch.equal(out[:, :, :4], new_images[:, :, :4])
    torch.testing.assert_close(out[:, :, :4], plain, atol=1e-4, rtol=1e-4)  # no images: plain mode
    assert (out[:, :, :4] - new_clip[:, :, :4]).abs().max() > 1e-2
    assert torch.equal(out[:, :, :4], other_labels[:, :, :4])
    assert (out[:, :, 4:] - other_labels[:, :, 4:]).abs().max() > 1e-3


def test_an_image_is_what_the_model_makes_of_a_clip_without_attention_over_time(monkeypatch):
    model = awake(Latte(**SMALL, variant="1"))
    x = noise(1, 4, 3, 8, 8)
    with torch.no_grad():
        image = model(x, TIMES[:1], images=1)[:, :, 2:]
        silence(model, slice(2, None, 3), "time")
        monkeypatch.setattr(model, "_moments", lambda frames, images, device: torch.zeros(frames + images, 1, 16))
        alone = model(x[:, :, 2:], TIMES[:1])
    torch.testing.assert_close(image, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half_width", [False, True])
def test_variant_4_is_the_sum_of_its_two_attentions_computed_apart(half_width):
    block = awake(LatteBlock(16, 32, 4, "parallel", "block", 0, 1, half_width=half_width))
    h, total = noise(2, 3, 4, 16), noise(2, 1, 16, seed=1)
    cond = LatteCondition(total, None, None, None, None, TokenGrid(3, 2, 2), 3, None, total[:, 0])
    with torch.no_grad():
        shift, scale, gate, shift_f, scale_f, gate_f = block.projection(total).unsqueeze(3).unbind(2)
        norm = torch.nn.functional.layer_norm
        u = norm(h, (16,), eps=1e-6) * (1 + scale) + shift
        after = h.clone()
        for axis in ("space", "time"):
            attention = block.attentions[axis]
            heads, inner = 2, 8 if half_width else 16
            rows = u if axis == "space" else u.transpose(1, 2)
            q, k, v = attention.qkv(rows).view(*rows.shape[:3], 3, heads, inner // heads).unbind(3)
            weights = torch.einsum("arqhd,arkhd->arhqk", q, k) * (inner // heads) ** -0.5
            made = torch.einsum("arhqk,arkhd->arqhd", weights.softmax(-1), v).flatten(-2)
            made = made if axis == "space" else made.transpose(1, 2)
            after = after + gate * (made @ attention.out.weight.T + attention.out.bias)
        wanted = after + gate_f * block.ffn(norm(after, (16,), eps=1e-6) * (1 + scale_f) + shift_f)
        torch.testing.assert_close(block(h, cond), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("variant", "kinds", "at"), [
    ("1", ["space", "time"] * 2, 1), ("2", ["space", "space", "time", "time"], 2), ("3", ["serial"] * 4, 0),
    ("4", ["parallel"] * 4, 0), ("joint", ["joint"] * 4, 0), ("spatial", ["space"] * 4, 1),
])  # fmt: skip
def test_the_order_of_blocks_and_where_positions_in_time_enter(variant, kinds, at):
    model = awake(Latte(**SMALL, variant=variant))
    assert [block.kind for block in model.blocks] == kinds
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda block, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        model(noise(1, 4, 4, 8, 8), TIMES[:1])
    jumps = [number for number in range(1, 4) if not torch.equal(seen[number - 1][1], seen[number][0])]
    assert jumps == ([at] if at else [])
    if at:
        added = seen[at][0] - seen[at - 1][1]
        table = sincos_line(torch.arange(4), 16)
        torch.testing.assert_close(added, table[:, None].expand(1, 4, 16, 16), atol=1e-5, rtol=1e-4)
    assert set(KINDS) == {"space", "time", "joint", "serial", "parallel"}


def test_every_attention_is_a_site_that_a_method_can_find():
    model = Latte(**SMALL, variant="3", text="cross", text_width=8)
    sites = [module.site for module in model.modules() if hasattr(module, "site")]
    assert [(s.kind, s.stream, s.layer) for s in sites[:3]] == [
        ("attn.self", "spatial", 0), ("attn.self", "temporal", 0), ("attn.cross", "spatial", 0),
    ]  # fmt: skip
    modules = dict(model.named_modules())
    assert all(s.name in modules and s.heads == 2 and s.head_dim == 8 and s.n_layers == 4 for s in sites)


def test_rotary_positions_turn_attention_over_time_only():
    model = awake(Latte(**SMALL, temporal_pos="rope"))
    x = noise(1, 4, 4, 8, 8)
    with torch.no_grad():
        out, shifted = model(x, TIMES[:1]), model(x[:, :, [1, 2, 3, 0]], TIMES[:1])
    assert (out[:, :, 1:] - shifted[:, :, :3]).abs().max() > 1e-3
    still = x[:, :, :1].expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        same = model(still, TIMES[:1])
    torch.testing.assert_close(same, same[:, :, :1].expand_as(same), atol=1e-5, rtol=1e-5)  # values are not turned


def test_padding_of_a_prompt_is_not_read():
    model = awake(Latte(**SMALL, text="cross", text_width=8))
    x, text = noise(2, 4, 3, 8, 8), noise(2, 5, 8, seed=1)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    with torch.no_grad():
        out = model(x, TIMES, text, mask)
        changed = text.clone()
        changed[0, 3:] = 9.0
        again = model(x, TIMES, changed, mask)
        whole = model(x[:1], TIMES[:1], text[:1, :3])
    torch.testing.assert_close(out, again, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(out[:1], whole, atol=2e-4, rtol=1e-4)


def test_it_saves_and_loads(tmp_path):
    model = awake(Latte(**SMALL, classes=3, variant=4, temporal_gain=True))
    model.save_pretrained(tmp_path)
    again = Latte.from_pretrained(tmp_path).eval()
    x = noise(1, 4, 2, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(x, TIMES[:1]), again(x, TIMES[:1]), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())


def test_gradient_checkpointing_changes_nothing():
    model = awake(Latte(**SMALL)).train()
    x = noise(1, 4, 3, 4, 4)
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(x, TIMES[:1]).square().mean().backward()
        gradients.append(model.blocks[1].ffn.up.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variant": "5"}, "variant is '5'; use one of 1, 2, 3"),
        ({"inject": "film"}, "inject is 'film'"),
        ({"depth": 3}, "depth 3 in variant 1.*even"),
        ({"variant": "4", "heads": 1}, "1 heads in variant 4.*even"),
        ({"width": 18}, "width 18 with 2 heads"),
        ({"variant": "joint", "inject": "all_tokens"}, "all_tokens"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        Latte(**{**SMALL, **arguments})


def test_inputs_that_do_not_fit_are_refused():
    x = noise(1, 4, 3, 8, 8)
    with pytest.raises(BadSize, match="multiples"):
        Latte(**SMALL, tubelet=2)(x, TIMES[:1])
    with pytest.raises(BadInput, match="at least one frame"):
        Latte(**SMALL)(x, TIMES[:1], images=3)
    with pytest.raises(BadInput, match="takes none"):
        Latte(**SMALL)(x, TIMES[:1], condition=x)
    with pytest.raises(BadInput, match="no text was given"):
        Latte(**SMALL, text="cross")(x, TIMES[:1])
    with pytest.raises(BadInput, match=r"takes \(77, 768\)"):
        Latte(**SMALL, text="vector")(x, TIMES[:1], noise(1, 3, 8))


@pytest.mark.parametrize("temporal_pos", ["sincos", "rope"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_range_that_methods_may_skip_adds_positions_in_time_once(variant, temporal_pos):
    """Reused right behind the full step, at the same latents and time, a range gives what it gave."""
    deep = {**SMALL, "depth": 6}
    model = awake(Latte(**deep, variant=variant, temporal_pos=temporal_pos)).eval()
    x, half = noise(2, 4, 4, 8, 8), torch.full((2,), 500.0)
    infos = [StepInfo(0, s, 2, 500.0, 0.5, 0.5, "cond") for s in range(2)]
    with Stack([TaylorSeer(interval=2, order=0, granularity="range", last_full=False)]).attach(model) as stack:
        full, reused = (model(x, half, info=info) for info in infos)
    counts = stack.ledgers[0].receipts[0].branches["cond"]
    safe = {"1": 1, "2": 3, "spatial": 1}.get(variant, 0) if temporal_pos == "sincos" else 0
    assert counts.skipped == deep["depth"] - safe
    torch.testing.assert_close(reused, full, atol=1e-4, rtol=1e-4)
