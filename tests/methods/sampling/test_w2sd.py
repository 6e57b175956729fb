"""W2SD: what is exact about a round trip, what each pair compares, what it costs, and what it refuses."""

import copy
from contextlib import contextmanager

import diffusers
import pytest
import torch
from torch import nn

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import CFG
from longtake.diffusion.reversing import Level, step_between
from longtake.diffusion.sampling import sample
from longtake.errors import BadInput, Conflict, InertMethod, UnknownModel, Unsupported
from longtake.methods import parse_method, parse_stack
from longtake.methods.sampling.w2sd import STRONG, W2SD, WEAK, equal_evaluations, reflect
from longtake.runtime import Family, ModelView, TokenGrid
from longtake.runtime.stack import SAMPLER, Stack, arrange

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore:.*did nothing:UserWarning")

SHAPE = (2, 3, 2, 2, 2)
COND, NULL = (Conditions(torch.full((2, 1, 1), value)) for value in (1.0, -0.5))
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS = {
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "ddim v": lambda: diffusers.DDIMScheduler(
        clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ),
    "euler eps": lambda: diffusers.EulerDiscreteScheduler(),
}
EVERY = pytest.mark.parametrize("name", SCHEDULERS)
STEPS = 8


class Field(nn.Module):
    """The exact velocity of Gaussian data whose mean is a weight, moved by the prompt; `calls` tells who asked."""

    def __init__(self, mean=1.5, std=0.3, prompted=1.0):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean), requires_grad=False)
        self.std, self.prompted, self.calls = std, prompted, []

    def forward(self, x, text, info=None):
        self.calls.append((info.branch, info.s, x.shape[0], info.extra, info.t))
        mean = self.mean + self.prompted * text[:, 0, 0].view(-1, 1, 1, 1, 1)
        sigma = info.sigma
        centred = (x - (1 - sigma) * mean) / ((1 - sigma) ** 2 * self.std**2 + sigma**2)
        return sigma * centred - mean - (1 - sigma) * self.std**2 * centred


class Steady(nn.Module):
    """A prediction that does not depend on the sample: of the velocity, or of the noise."""

    def __init__(self, noise):
        super().__init__()
        self.noise, self.value = noise, drawn(9)

    def forward(self, x, text, info=None):
        return (self.value - x) / (1 - info.sigma) if self.noise else self.value


def drawn(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def view(network):
    return ModelView(network, Family("field", (), lambda network, given: TokenGrid(2, 2, 2), latents="x"))


def run(network, method=None, name="flow", *, guidance=1.0, steps=STEPS, allow_inert=False, **more):
    """(latents, receipts) of a run of our loop, without methods where there is none."""
    options = {
        "steps": steps,
        "null": None if guidance == 1 else NULL,
        "guider": CFG(guidance),
        "batched": True,
        **more,
    }
    scheduler = SCHEDULERS[name]() if isinstance(name, str) else name

    def denoise(x, info, given):
        return network(x, given.text, info=info)

    if method is None:
        return sample(denoise, scheduler, drawn(0), COND, **options), []
    methods = [method] if not isinstance(method, list) else method
    with Stack(methods, allow_inert=allow_inert).attach(network, [view(network)]) as stack:
        made = sample(denoise, scheduler, drawn(0), COND, **options, stack=stack)
        return made, stack.receipts


def pair_of(network, **settings):
    return W2SD(pair="weights", network=network, **settings)


def velocity(network, sigma, text=COND.text):
    """Of a network at a noise level, without a loop."""

    class Info:
        branch, s, extra, t = "cond", 0, False, 0.0

    Info.sigma = sigma
    return lambda x: network(x, text, info=Info)


# ------------------------------------------------------------------------------------------------------------ exactness


@EVERY
def test_nothing_reflected_is_the_plain_run_bit_for_bit(name):
    plain, _ = run(Field(), name=name)
    for idle in (pair_of(Field(0.0), lam=0), pair_of(Field(0.0), strength=0.0)):
        assert torch.equal(run(Field(), idle, name, allow_inert=True)[0], plain)
        with pytest.raises(InertMethod, match="w2sd"):
            run(Field(), idle, name)


@pytest.mark.parametrize(("name", "noise"), [("flow", False), ("unipc", False), ("ddim", True), ("euler eps", True)])
def test_a_prediction_that_does_not_depend_on_the_sample_leaves_it_where_it_is(name, noise):
    plain, _ = run(Steady(noise), name=name)
    made, (receipt,) = run(Steady(noise), pair_of(Steady(noise), lam=STEPS), name)
    assert receipt.notes["reflected_steps"] == list(range(STEPS - 1))
    if name == "unipc":  # of first order while there is reflection
        plain, _ = run(Steady(noise), pair_of(Steady(noise), lam=STEPS, inverse="implicit", rounds=1), name)
    torch.testing.assert_close(made, plain, atol=1e-5 * float(plain.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction", "sample"])
def test_one_round_trip_of_a_steady_prediction_is_none(kind):
    levels = (Level(0.3, 0.7), Level(0.4, 0.6)) if kind == "flow" else (Level(0.6, 0.8), Level(0.8, 0.6))
    x, value = drawn(0), drawn(1)
    made = reflect(x, step_between(kind, *levels), lambda x: value, [lambda x: value])
    torch.testing.assert_close(made, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["flow", "epsilon"])
def test_the_error_of_an_implicit_inverse_falls_with_every_round(kind):
    """Of equal models; in doubles, so that five rounds do not reach the rounding."""
    network, x = Field(), drawn(0).double()
    if kind == "flow":
        step, predict = step_between("flow", Level(0.3, 0.7), Level(0.4, 0.6)), velocity(network, 0.7)
    else:
        here, there = Level(0.6, 0.8), Level(0.7, 0.51**0.5)
        step, of_flow = step_between("epsilon", here, there), velocity(network, here.sigma)

        def predict(x):
            point = x / (here.data + here.noise)
            return point + (1 - here.sigma) * of_flow(point)

    errors = [float((reflect(x, step, predict, [predict] * rounds) - x).norm()) for rounds in range(1, 7)]
    assert all(later < 0.5 * before for before, later in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 1e-3 * errors[0]


@EVERY
def test_an_implicit_inverse_of_equal_models_converges_in_a_run(name):
    apart = {}
    plain, _ = run(Field(), pair_of(Field(), lam=6, rounds=20, inverse="implicit"), name)
    for rounds in (1, 2, 4):
        made, _ = run(Field(), pair_of(Field(), lam=6, rounds=rounds, inverse="implicit"), name)
        apart[rounds] = float((made - plain).norm())
    assert apart[1] > apart[2] > apart[4]
    explicit, _ = run(Field(), pair_of(Field(), lam=6), name)
    assert float((explicit - plain).norm()) == apart[1]


def test_the_gap_points_from_weak_to_strong_by_the_step():
    """x~ - x = dt (v_strong - v_weak), dt < 0, to first order (Theorem 1): the rest falls with the square."""
    strong, weak = (velocity(Field(mean), 0.8) for mean in (1.5, 0.5))
    x, rests = drawn(0).double(), []
    for dt in (0.04, 0.02, 0.01):
        made = reflect(x, step_between("flow", Level(0.2, 0.8), Level(0.2 + dt, 0.8 - dt)), strong, [weak])
        first_order = -dt * (strong(x) - weak(x))
        rests.append(float((made - x - first_order).norm()))
        assert rests[-1] < 0.2 * float(first_order.norm())
    assert rests[0] / rests[1] == pytest.approx(4, rel=0.05) and rests[1] / rests[2] == pytest.approx(4, rel=0.05)


def test_a_run_is_the_algorithm_by_hand():
    strong, weak, x, dts = Field(1.5), Field(0.5), drawn(0), 1 / STEPS
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - i / STEPS for i in range(STEPS)])
    made, _ = run(Field(1.5), pair_of(Field(0.5), lam=3, strength=0.7), scheduler, steps=None)
    for s in range(STEPS):
        v_strong, v_weak = velocity(strong, 1 - s / STEPS), velocity(weak, 1 - s / STEPS)
        if s < 3:
            y = x - dts * v_strong(x)
            x = x + 0.7 * (y + dts * v_weak(y) - x)
        x = x - dts * v_strong(x)
    torch.testing.assert_close(made, x, atol=1e-5, rtol=1e-5)


def test_weak_is_told_the_timestep_of_the_start():
    network = Field()
    run(network, pair_of(Field(), lam=2))
    by_step = {s: [(branch, t) for branch, at, _, _, t in network.calls if at == s] for s in range(3)}
    assert [branch for branch, _ in by_step[0]] == [STRONG, WEAK, "cond"]
    assert len({t for _, t in by_step[0]}) == 1 and len({t for _, t in by_step[1]}) == 1
    assert [branch for branch, _ in by_step[2]] == ["cond"]


@pytest.mark.parametrize("name", ["unipc", "dpm++"])
def test_a_solver_of_several_steps_makes_first_order_steps_from_what_was_reflected(name):
    """As Euler's on the same noise levels, until the last step, which is not reflected."""
    solver, paths = SCHEDULERS[name](), {}
    solver.set_timesteps(STEPS)
    euler = diffusers.FlowMatchEulerDiscreteScheduler()
    euler.set_timesteps(sigmas=[float(sigma) for sigma in solver.sigmas[:-1]])
    for kind, scheduler, steps in (("solver", SCHEDULERS[name](), STEPS), ("euler", euler, None)):
        paths[kind] = []
        keep = paths[kind]
        run(
            Field(),
            pair_of(Field(0.5), lam=STEPS),
            scheduler,
            steps=steps,
            on_step=lambda i, x, keep=keep: keep.append(x),
        )
    for ours, theirs in zip(paths["solver"][:-1], paths["euler"][:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)


@EVERY
def test_two_strengths_of_guidance_that_are_equal_are_two_equal_models(name):
    found, _ = run(Field(), W2SD(lam=3, weak_guidance=3.0), name, guidance=3.0)
    expected, _ = run(Field(), pair_of(Field(), lam=3), name, guidance=3.0)
    assert torch.equal(found, expected)
    named, _ = run(Field(), W2SD(lam=3, strong_guidance=3.0, weak_guidance=3.0), name, guidance=3.0)
    assert torch.equal(named, expected)
    assert not torch.allclose(run(Field(), W2SD(lam=3), name, guidance=3.0)[0], expected, atol=1e-3)


@pytest.mark.parametrize("strength", [-2.0, 0.0, 1.0, 4.5])
def test_any_strength_of_guidance_is_a_side(strength):
    """In one Euler step and back: y + dt * (null + strength * (cond - null))."""
    network, noise = Field(), drawn(0)
    steps = diffusers.FlowMatchEulerDiscreteScheduler()
    steps.set_timesteps(sigmas=[1.0, 0.5])
    made, _ = run(network, W2SD(lam=1, strong_guidance=2.0, weak_guidance=strength), steps, steps=None, guidance=3.0)

    def guided(x, sigma, scale):
        cond, null = velocity(network, sigma)(x), velocity(network, sigma, NULL.text)(x)
        return null + scale * (cond - null)

    y = noise - 0.5 * guided(noise, 1.0, 2.0)
    x = y + 0.5 * guided(y, 1.0, strength)
    x = x - 0.5 * guided(x, 1.0, 3.0)
    torch.testing.assert_close(made, x - 0.5 * guided(x, 0.5, 3.0), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    ("settings", "guidance", "evaluations", "predictions"),
    [
        ({"lam": 3}, 1.0, STEPS + 6, STEPS + 6),
        ({"lam": 3}, 2.0, STEPS + 6, 2 * (STEPS + 6)),
        ({"lam": 99}, 2.0, STEPS + 2 * (STEPS - 1), 2 * (STEPS + 2 * (STEPS - 1))),
        ({}, 2.0, STEPS + 2 * (STEPS // 4), 2 * (STEPS + 2 * (STEPS // 4))),
        ({"lam": 3, "inverse": "implicit", "rounds": 4}, 2.0, STEPS + 3 * 5, 2 * (STEPS + 3 * 5)),
        ({"lam": 3, "weak_guidance": 1.0}, 2.0, STEPS + 6, 2 * (STEPS + 6) - 3),
        ({"lam": 3, "late": True}, 1.0, STEPS + 6, STEPS + 6),
    ],
)
def test_the_receipt_counts_what_the_network_was_asked(settings, guidance, evaluations, predictions, batched):
    network = Field()
    _, (receipt,) = run(network, pair_of(Field(0.5), **settings), guidance=guidance, batched=batched)
    assert (receipt.notes["evaluations"], receipt.notes["predictions"]) == (evaluations, predictions)
    assert sum(size for _, _, size, _, _ in network.calls) == 2 * predictions  # a batch of two clips
    reflected = receipt.notes["reflected_steps"]
    assert receipt.branches[SAMPLER].changed == len(reflected) and STEPS - 1 not in reflected
    assert receipt.branches[SAMPLER].computed == STEPS - len(reflected)


def test_own_branches_are_extra_and_apart():
    network = Field()
    run(network, pair_of(Field(0.5), lam=2, inverse="implicit", rounds=2), guidance=2.0, batched=False)
    first = [(branch, extra) for branch, s, _, extra, _ in network.calls if s == 0]
    extra = [STRONG, f"{STRONG}.uncond", WEAK, f"{WEAK}.uncond", f"{WEAK}.2", f"{WEAK}.2.uncond"]
    assert first == [*((branch, True) for branch in extra), ("cond", False), ("uncond", False)]


@pytest.mark.parametrize(
    ("steps", "expected"), [(50, (24, 12)), (4, (2, 1)), (30, (14, 7)), (100, (50, 25)), (7, (2, 1))]
)
def test_equal_evaluations(steps, expected):
    count, lam = equal_evaluations(steps)
    assert (count, lam) == expected
    assert steps - 3 <= count + 2 * lam <= steps
    _, (receipt,) = run(Field(), pair_of(Field(0.5), lam=lam), steps=count)
    assert receipt.notes["evaluations"] == count + 2 * lam


def test_equal_evaluations_need_some():
    with pytest.raises(BadInput, match="at least 4"):
        equal_evaluations(3)


@pytest.mark.parametrize(("late", "steps"), [(False, [0, 1, 2]), (True, [4, 5, 6])])
def test_which_steps_are_reflected(late, steps):
    _, (receipt,) = run(Field(), pair_of(Field(0.5), lam=3, late=late))
    assert receipt.notes["reflected_steps"] == steps


# ------------------------------------------------------------------------------------------------- what a loop must allow


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (diffusers.FlowMatchHeunDiscreteScheduler(), "two calls"),
        (diffusers.SASolverScheduler(**FLOW), "SASolverScheduler draws noise"),
        (diffusers.DDPMScheduler(clip_sample=False), "DDPMScheduler draws noise"),
        (diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "stochastic_sampling=True"),
        (diffusers.DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"), "sde-dpmsolver"),
    ],
)
def test_a_sampler_whose_steps_cannot_be_undone_is_refused_before_the_network_is_asked(scheduler, words):
    network = Field()
    with pytest.raises(Unsupported, match=f"{words}.*use FlowMatchEuler") as told:
        run(network, pair_of(Field(0.5)), scheduler)
    assert "\n" not in str(told.value)
    assert not network.calls


def test_no_reflection_where_another_network_takes_over():
    """Steps 0 to 3 belong to one network, the others to the next; step 3 would go into its range and back."""
    taken = {float(t) for t in run_timesteps()[:4]}
    options = {"model_at": lambda t: "transformer" if t in taken else "transformer_2"}
    _, (receipt,) = run(Field(), pair_of(Field(0.5), lam=6), **options)
    assert receipt.notes["reflected_steps"] == [0, 1, 2, 4, 5]
    assert receipt.notes["left_out"] == [3]


def run_timesteps():
    scheduler = SCHEDULERS["flow"]()
    scheduler.set_timesteps(STEPS)
    return scheduler.timesteps


@EVERY
def test_what_is_given_of_a_clip_is_put_back_after_every_half_step(name):
    """The network never sees the given frame at a value of its own, whichever of the three calls it is."""
    told, seen = [], []

    def clamp(x, sigma):
        told.append(sigma)
        return torch.cat([torch.full_like(x[:, :, :1], 7.0), x[:, :, 1:]], dim=2)

    class Watching(Field):
        def forward(self, x, text, info=None):
            if (info.s, info.branch) != (0, STRONG):  # the first call has the noise itself
                seen.append((x[:, :, 0] / x[0, 0, 0, 0, 0]).std())
            return super().forward(x, text, info)

    made, _ = run(Watching(), pair_of(Field(0.5), lam=2), name, clamp=clamp)
    assert (made[:, :, 0] == 7).all()
    assert len(told) == STEPS + 4 and told[0] < told[1]
    assert len(seen) == STEPS + 3 and max(seen) < 1e-5


def test_a_prompt_needs_a_loop_that_can_encode_it():
    with pytest.raises(Unsupported, match="'a ball' cannot be encoded"):
        run(Field(), W2SD(pair="prompt", weak_prompt="a ball"), guidance=2.0)


def test_two_prompts_are_compared():
    """The weak side is given the states of its own prompt, guided as the strong one is."""
    raw = Conditions(torch.full((2, 1, 1), 0.25))
    network, told = Field(), []
    made, _ = run(
        network,
        W2SD(pair="prompt", weak_prompt="a ball", lam=3),
        guidance=2.0,
        encode=lambda prompt: told.append(prompt) or raw,
    )
    assert told == ["a ball"]
    same, _ = run(Field(), W2SD(pair="prompt", weak_prompt="a ball", lam=3), guidance=2.0, encode=lambda prompt: COND)
    assert torch.equal(same, run(Field(), pair_of(Field(), lam=3), guidance=2.0)[0])
    assert not torch.allclose(made, same, atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"strong_guidance": 3.0}, {"weak_guidance": 2.0}])
def test_a_strength_of_guidance_in_a_run_without_is_refused(settings):
    with pytest.raises(BadInput, match="a run without guidance") as told:
        run(Field(), W2SD(**settings))
    assert "\n" not in str(told.value)


# ---------------------------------------------------------------------------------------------------------- the two sides


def test_other_weights_change_places_and_come_back():
    network, weak = Field(1.5), Field(0.5)
    before = network.mean.data_ptr()
    made, _ = run(network, pair_of(weak, lam=3))
    assert (network.mean.data_ptr(), float(network.mean), float(weak.mean)) == (before, 1.5, 0.5)
    assert not torch.allclose(made, run(Field(1.5))[0], atol=1e-3)

    class Breaks(Field):
        def forward(self, x, text, info=None):
            if info.branch == WEAK:
                raise KeyboardInterrupt
            return super().forward(x, text, info)

    broken = Breaks(1.5)
    with pytest.raises(KeyboardInterrupt):
        run(broken, pair_of(weak, lam=3))
    assert float(broken.mean) == 1.5 and float(weak.mean) == 0.5


def test_a_reversed_pair_pushes_the_other_way():
    plain = run(Field(1.0))[0].mean()
    assert run(Field(1.0), pair_of(Field(0.5), lam=4))[0].mean() != pytest.approx(float(plain), abs=1e-6)
    up = float(run(Field(1.0), pair_of(Field(0.5), lam=1))[0].mean() - plain)
    down = float(run(Field(1.0), pair_of(Field(1.5), lam=1))[0].mean() - plain)
    assert up * down < 0


def test_weights_of_another_network_are_refused():
    class Wide(Field):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(2))

    class Other(nn.Module):
        pass

    for wrong, words in ((Wide(), r"'mean' of \(2,\)"), (Other(), "no weight 'mean'")):
        with pytest.raises(BadInput, match=words):
            run(Field(), pair_of(wrong))
    with pytest.raises(UnknownModel, match="'nowhere' is no folder"):
        run(Field(), W2SD(pair="weights", weak_weights="nowhere"))
    with pytest.raises(Unsupported, match="needs an adapter"):
        run(Field(), W2SD(pair="adapter"))


# --------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w2sd:pair=prompt", "needs weak_prompt"),
        ("w2sd:pair=weights", "needs weak_weights"),
        ("w2sd:pair=method", "needs weak_method"),
        ("w2sd:pair=cfg", "use one of guidance"),
        ("w2sd:lam=-2", "lam is -2"),
        ("w2sd:rounds=0", "rounds is 0"),
        ("w2sd:inverse=none", "use one of explicit, implicit"),
        ("w2sd:weak_method=taylorseer", "weak_method is taylorseer"),
        ("w2sd:weak_method=apg", "acts at the level 'guidance'"),
        ("w2sd:weak_guidance=much", "expected a float"),
    ],
)
def test_bad_settings_are_named_in_one_line(text, words):
    with pytest.raises(BadInput, match=words) as told:
        parse_method(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "method",
    [
        W2SD(weak_guidance=-1.5, strong_guidance=5.5, lam=12),
        W2SD(pair="prompt", weak_prompt="a ball, red + round"),
        W2SD(pair="method", weak_method="local-window:frames=0/rows=1", strength=0.5),
        W2SD(pair="adapter", strong_adapter=1.0, weak_adapter=0.0, inverse="implicit", rounds=5),
        W2SD(pair="weights", weak_weights="runs/early", late=True),
    ],
)
def test_what_is_written_is_read_back(method):
    assert parse_stack(str(method)) == [method]


def test_a_network_given_in_python_is_named_in_the_receipt():
    assert pair_of(Field()).config()["network"] == "Field"
    assert "network" not in W2SD().config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w2sd+apg", "sets the strength of guidance"),
        ("w2sd+cfg-interval", "sets the strength of guidance"),
        ("w2sd+w2sd:lam=3", "sampler level alone"),
        ("w2sd:pair=weights,weak_weights=x+minmax8", "whose weights"),
        ("w2sd:pair=method,weak_method=minmax8:bits=4+minmax8", "weak side of the other is minmax8"),
    ],
)
def test_what_it_does_not_go_with_is_said_by_both_names(text, words):
    with pytest.raises(Conflict, match=words) as told:
        arrange(parse_stack(text))
    assert "w2sd" in str(told.value)


def test_what_it_goes_with():
    for text in (
        "w2sd+taylorseer+local-window",
        "w2sd:pair=adapter+apg+minmax8",
        "w2sd:pair=method,weak_method=local-window:rows=0+local-window+cfg-interval",
    ):
        assert arrange(parse_stack(text))[0].name == "w2sd"


@contextmanager
def unchanged(network):
    before = copy.deepcopy(network.state_dict())
    yield
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_runs_do_not_remember_one_another():
    network, weak = Field(1.5), Field(0.5)
    alone, _ = run(network, pair_of(weak, lam=3))
    with unchanged(network), Stack([pair_of(weak, lam=3)]).attach(network, [view(network)]) as stack:
        for _ in range(2):
            made = sample(
                lambda x, info, given: network(x, given.text, info=info),
                SCHEDULERS["flow"](),
                drawn(0),
                COND,
                steps=STEPS,
                stack=stack,
            )
            assert torch.equal(made, alone)
            (receipt,) = stack.receipts
            assert receipt.notes["evaluations"] == STEPS + 6
