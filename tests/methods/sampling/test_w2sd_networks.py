"""W2SD on networks and pipelines: every family, adapters, methods on the weak side, caches beside it, records."""

import copy
from functools import cache

import diffusers
import peft
import pytest
import torch
from tiny_networks import build
from tiny_pipelines import FAMILIES, NEGATIVE, PROMPT, noise_levels, wan

import longtake
from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import sample, velocity_denoiser
from longtake.errors import UnknownModel, Unsupported
from longtake.methods import parse_stack
from longtake.methods.sampling.w2sd import STRONG, W2SD, WEAK
from longtake.pipelines import load
from longtake.pipelines.foreign import ForeignPipeline
from longtake.pipelines.generating import generate, regenerate
from longtake.pipelines.schedulers import scheduler_named
from longtake.runtime import StepInfo
from longtake.runtime.stack import SAMPLER, Stack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore:In CPU autocast:UserWarning")

OURS = ("our-waver", "our-latte")
STEPS = 5


@cache
def pipeline(name):
    """A tiny pipeline of diffusers, deterministic."""
    scheduler = diffusers.DDIMScheduler(**noise_levels(), clip_sample=False) if name == "allegro" else None
    pipe = FAMILIES[name].build(scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe, name, guidance=3.0, steps=STEPS, **more):
    tiny = FAMILIES[name]
    size = {"frames": tiny.frames, "height": tiny.size, "width": tiny.size}
    return ForeignPipeline(pipe)(
        PROMPT, negative_prompt=NEGATIVE, steps=steps, guidance=guidance, seed=5, **size, **more
    )


def ours(tiny, stack=None, guidance=3.0, scheduler="euler", batched=False, steps=STEPS):
    noise, text = tiny.draw()
    cond, null = (Conditions(text[branch]) for branch in ("cond", "uncond"))
    options = {"steps": steps, "null": null, "guider": CFG(guidance), "batched": batched, "stack": stack}
    return sample(velocity_denoiser(tiny.network), scheduler_named(scheduler), noise, cond, **options)


def reflected(tiny, *methods, **options):
    with Stack(list(methods)).attach(tiny.network) as stack:
        made = ours(tiny, stack, **options)
        return made, stack.finish(0)


def traces(network):
    return (
        [(name, id(module)) for name, module in network.named_modules()],
        {name: (value.data_ptr(), value.clone()) for name, value in network.state_dict().items()},
        [name for name, module in network.named_modules() if "forward" in vars(module)],
    )


def assert_untouched(network, before):
    modules, weights, forwards = traces(network)
    assert modules == before[0] and forwards == before[2]
    for name, (place, value) in weights.items():
        assert place == before[1][name][0] and torch.equal(value, before[1][name][1])


# ------------------------------------------------------------------------------------------------------- nine families


@pytest.mark.parametrize("name", [*OURS, *FAMILIES])
def test_every_family_is_reflected_at_the_declared_cost(name):
    """Two strengths of guidance: the network is asked as often as the receipt says, and is left as it was."""
    tiny = build(name) if name in OURS else None
    pipe = None if tiny else pipeline(name)
    network, sizes = (tiny.network if tiny else pipe.transformer), []

    def whole(method=None):
        if tiny:
            return (ours(tiny), None) if method is None else reflected(tiny, method)
        if method is None:
            return theirs(pipe, name).latents, None
        with longtake.apply(ForeignPipeline(pipe), method) as stack:
            return theirs(pipe, name).latents, stack.receipts

    plain, _ = whole()
    before = traces(network)
    handle = network.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    made, (receipt,) = whole(W2SD(lam=2, weak_guidance=0.5))
    handle.remove()
    assert receipt.notes["evaluations"] == STEPS + 4
    assert sum(sizes) == receipt.notes["predictions"] == 2 * (STEPS + 4)
    assert receipt.branches[SAMPLER].changed == 2
    assert {STRONG, WEAK} <= set(receipt.branches)
    assert receipt.macs_done * STEPS == receipt.macs_dense * (STEPS + 4)
    assert made.isfinite().all() and (made - plain).abs().max() > 1e-3 * plain.abs().max()
    assert_untouched(network, before)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "wan"])
def test_equal_sides_are_the_nearer_to_the_plain_run_the_more_rounds(name):
    """Of single-step samplers; a solver of several steps would make steps of another order."""
    pipe = pipeline(name)
    plain, apart = theirs(pipe, name, guidance=1.0).latents, []
    for rounds in (1, 4):
        method = W2SD(pair="weights", network=copy.deepcopy(pipe.transformer), lam=2, inverse="implicit", rounds=rounds)
        with longtake.apply(ForeignPipeline(pipe), method):
            apart.append(float((theirs(pipe, name, guidance=1.0).latents - plain).norm()))
    assert apart[1] < 0.7 * apart[0]


def test_allegros_own_sampler_draws_noise_and_is_refused():
    pipe = FAMILIES["allegro"].build()
    pipe.set_progress_bar_config(disable=True)
    with longtake.apply(ForeignPipeline(pipe), W2SD(), allow_inert=True):
        with pytest.raises(Unsupported, match=r"EulerAncestralDiscreteScheduler draws noise.*DDIMScheduler"):
            theirs(pipe, "allegro")


@pytest.mark.filterwarnings("ignore:.*did nothing")
@pytest.mark.parametrize("name", [*OURS, *FAMILIES])
def test_nothing_reflected_is_the_dense_run_bit_for_bit(name):
    if name in OURS:
        tiny = build(name)
        with Stack([W2SD(lam=0)], allow_inert=True).attach(tiny.network) as stack:
            assert torch.equal(ours(tiny, stack), ours(tiny))
        return
    pipe = pipeline(name)
    plain = theirs(pipe, name).latents
    with longtake.apply(ForeignPipeline(pipe), W2SD(lam=0), allow_inert=True):
        assert torch.equal(theirs(pipe, name).latents, plain)


def test_both_networks_of_wan_are_reflected_by_themselves_and_not_across():
    pipe = wan(boundary_ratio=0.8)
    pipe.set_progress_bar_config(disable=True)
    foreign = ForeignPipeline(pipe)
    foreign.dialect.set_steps(6, (4, 3, 4, 4))
    names = [foreign.dialect.network_at(float(t))[0] for t in pipe.scheduler.timesteps]
    last = names.index("transformer_2") - 1
    assert 0 < last < 4
    with longtake.apply(foreign, W2SD(lam=5)) as stack:
        theirs(pipe, "wan", steps=6)
        (receipt,) = stack.receipts
    assert receipt.notes["left_out"] == [last]
    assert receipt.notes["reflected_steps"] == [s for s in range(5) if s != last]
    assert receipt.notes["evaluations"] == 6 + 2 * 4


# ------------------------------------------------------------------------------------------------------------ the sides


def by_hand(tiny, ordinary, strong, weak, lam):
    """Euler steps and round trips without a loop; the three functions put the network into a state."""
    noise, text = tiny.draw()
    scheduler = scheduler_named("euler")
    scheduler.set_timesteps(STEPS)
    sigmas = [float(sigma) for sigma in scheduler.sigmas]
    x, denoise = noise, velocity_denoiser(tiny.network)

    def velocity(state, x, s):
        state()
        info = StepInfo(0, s, STEPS, float(scheduler.timesteps[s]), sigmas[s], sigmas[s], "cond")
        return denoise(x, info, Conditions(text["cond"]))

    with torch.no_grad():
        for s in range(STEPS):
            dt = sigmas[s + 1] - sigmas[s]
            if s < lam:
                y = x + dt * velocity(strong, x, s)
                x = y - dt * velocity(weak, y, s)
            x = x + dt * velocity(ordinary, x, s)
    ordinary()
    return x


def adapted(name="our-waver"):
    """A tiny network with a LoRA that does something."""
    tiny = build(name)
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, lora_alpha=4, target_modules=r".*(qkv|out|to_q|to_v)"), tiny.network
    )
    layers = [module for module in tiny.network.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert layers
    generator = torch.Generator().manual_seed(3)
    for layer in layers:
        for part in (*layer.lora_A.values(), *layer.lora_B.values()):
            part.weight.data.normal_(0, 0.3, generator=generator)
    tiny.network.eval().requires_grad_(False)
    return tiny, layers


def test_strengths_of_an_adapter_are_set_and_nothing_is_built_anew():
    tiny, layers = adapted()
    before, own = traces(tiny.network), [dict(layer.scaling) for layer in layers]

    def strength(scale):
        return lambda: [layer.set_scale("default", scale) for layer in layers]

    expected = by_hand(tiny, strength(1.0), strength(1.5), strength(-1.5), lam=2)
    made, (receipt,) = reflected(tiny, W2SD(pair="adapter", lam=2), guidance=1.0)
    torch.testing.assert_close(made, expected, atol=2e-5, rtol=2e-5)
    assert [dict(layer.scaling) for layer in layers] == own
    assert_untouched(tiny.network, before)
    assert receipt.notes["evaluations"] == STEPS + 4
    same, _ = reflected(tiny, W2SD(pair="adapter", strong_adapter=1.0, weak_adapter=1.0, lam=2), guidance=1.0)
    other, _ = reflected(tiny, W2SD(pair="weights", network=copy.deepcopy(tiny.network), lam=2), guidance=1.0)
    assert torch.equal(same, other)


def test_a_merged_adapter_is_refused():
    tiny, layers = adapted()
    for layer in layers:
        layer.merge()
    with pytest.raises(Unsupported, match="unmerge it"):
        Stack([W2SD(pair="adapter")]).attach(tiny.network)


@pytest.mark.parametrize("name", ["our-latte", "our-waver"])
def test_a_quantised_weak_side_is_a_pair_with_the_quantised_network(name):
    """8-bit layers change places for the weak calls alone."""
    tiny = build(name)
    before = traces(tiny.network)
    made, _ = reflected(tiny, W2SD(pair="method", weak_method="minmax8:bits=3/keep=head", lam=2))
    assert_untouched(tiny.network, before)
    quantised = copy.deepcopy(tiny.network)
    with Stack(parse_stack("minmax8:bits=3,keep=head")).attach(quantised) as stack:
        for module in (pair for conductor in stack.conductors for pair in conductor.replaced(0)):
            old, new = module
            old.weight.data = new.weights(old.weight.dtype)
    expected, _ = reflected(tiny, W2SD(pair="weights", network=quantised, lam=2))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(made, reflected(tiny, W2SD(weak_guidance=3.0, lam=2))[0], atol=1e-3)


@pytest.mark.parametrize("name", ["our-waver", "our-latte"])
def test_a_sparse_weak_side_is_sparse_there_alone(name):
    tiny = build(name)
    made, (receipt,) = reflected(tiny, W2SD(pair="method", weak_method="local-window:frames=0/rows=0/columns=0", lam=2))
    assert receipt.kernels and receipt.branches[WEAK].changed > 0
    assert receipt.branches[STRONG].changed == receipt.branches["cond"].changed == 0
    same, _ = reflected(tiny, W2SD(pair="method", weak_method="local-window:frames=-1/rows=-1/columns=-1", lam=2))
    equal, _ = reflected(tiny, W2SD(weak_guidance=3.0, lam=2))
    torch.testing.assert_close(same, equal, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(made, equal, atol=1e-3)


def test_sparse_attention_beside_it_acts_on_both_sides():
    tiny = build("our-waver")
    _, (_, window) = reflected(tiny, W2SD(lam=2), *parse_stack("local-window:rows=0"))
    assert window.method == "local-window"
    assert all(window.branches[branch].changed for branch in (STRONG, WEAK, "cond", "uncond"))


@pytest.mark.parametrize("granularity", ["module", "block", "output"])
def test_caches_beside_it_leave_the_round_trip_alone(granularity):
    """They act on ordinary steps only, and what they kept is that of the ordinary steps."""
    tiny = build("our-waver")
    cached = parse_stack(f"taylorseer:mask=10101,granularity={granularity}")
    method = W2SD(weak_guidance=3.0, lam=3, inverse="implicit", rounds=2)
    _, (_, receipt) = reflected(tiny, method, *cached)
    assert receipt.method == "taylorseer"
    assert set(receipt.branches) == {"cond", "uncond"}
    counts = receipt.branches["cond"]
    assert counts.computed * 2 == counts.skipped * 3
    assert receipt.notes["full_steps"] == [0, 2, 4]


def test_projected_guidance_keeps_an_average_for_each_side():
    """Its momentum is that of one branch: with equal sides and a perfect inverse it is the plain run with momentum."""
    tiny = build("our-waver")
    guide = parse_stack("apg:momentum=-0.5,scale=2.0")
    with Stack(guide).attach(tiny.network) as stack:
        plain = ours(tiny, stack)
    network = copy.deepcopy(tiny.network)
    made, receipts = reflected(
        tiny, W2SD(pair="weights", network=network, lam=1, inverse="implicit", rounds=20), *guide
    )
    assert receipts[1].branches["guidance"].changed == STEPS + 21
    assert made.isfinite().all() and not torch.equal(made, plain)


# ----------------------------------------------------------------------------------------------------------- pipelines


SMALL = {"frames": 9, "height": 32, "width": 32, "steps": 4}


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return load(tiny_folder)


@pytest.fixture(scope="module")
def weaker(tiny_folder, tmp_path_factory):
    """A folder like the tiny pipeline's, with other weights of the transformer."""
    other = load(tiny_folder)
    for weight in other.transformer.parameters():
        weight.data.mul_(0.9)
    folder = tmp_path_factory.mktemp("weaker") / "pipe"
    other.save_pretrained(folder)
    return folder


def test_prompts_are_encoded_by_our_pipeline(pipe):
    plain = pipe("a red ball", **SMALL).latents

    def made(method):
        with longtake.apply(pipe, method):
            return pipe("a red ball", **SMALL).latents

    equal = made(W2SD(lam=2, weak_guidance=4.0))
    same = made(W2SD(pair="prompt", weak_prompt="a red ball", lam=2))
    torch.testing.assert_close(same, equal, atol=1e-4, rtol=1e-4)
    other = made(W2SD(pair="prompt", weak_prompt="a blue cube", lam=2))
    assert (other - equal).abs().max() > 1e-3
    assert not torch.equal(equal, plain)


def test_prompts_are_encoded_by_a_pipeline_of_diffusers():
    pipe = pipeline("ltx")

    def made(method):
        with longtake.apply(ForeignPipeline(pipe), method):
            return theirs(pipe, "ltx", count=2).latents

    equal = made(W2SD(lam=2, weak_guidance=3.0))
    torch.testing.assert_close(made(W2SD(pair="prompt", weak_prompt=PROMPT, lam=2)), equal, atol=1e-4, rtol=1e-4)
    assert (made(W2SD(pair="prompt", weak_prompt="a cube", lam=2)) - equal).abs().max() > 1e-3


@pytest.mark.parametrize("place", ["", "transformer", "transformer/diffusion_pytorch_model.safetensors"])
def test_weaker_weights_are_read_from_a_pipeline_a_network_and_a_file(pipe, weaker, place):
    with longtake.apply(pipe, W2SD(pair="weights", weak_weights=str(weaker / place), lam=2)):
        made = pipe("a red ball", **SMALL).latents
    with longtake.apply(pipe, W2SD(pair="weights", network=load(weaker), lam=2)):
        assert torch.equal(made, pipe("a red ball", **SMALL).latents)
    with longtake.apply(pipe, W2SD(pair="weights", network=pipe.transformer, lam=2)):
        assert not torch.equal(made, pipe("a red ball", **SMALL).latents)


def test_a_folder_without_weights_is_named(pipe, tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UnknownModel, match=str(place)) as told:
            longtake.apply(pipe, W2SD(pair="weights", weak_weights=str(place)))
        assert "\n" not in str(told.value)


def test_a_clip_is_made_again_from_its_record(tiny_folder, tmp_path):
    (method,) = parse_stack("w2sd:lam=2,weak_guidance=-0.5,strength=0.8")
    made = generate("a red ball", model=tiny_folder, out=tmp_path / "clip.mp4", **SMALL, methods=[method])[0]
    assert made.record.settings.methods == (str(method),)
    assert made.record.receipts[0]["notes"]["evaluations"] == 8
    again = regenerate(tmp_path / "clip.json", methods=[method])
    assert again.path.read_bytes() == made.path.read_bytes()
