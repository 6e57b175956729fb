import pytest
import torch

from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import Choice, choose, draw_noise, sample_tokens
from longtake.errors import BadInput

GREEDY = Choice(temperature=0)


def small_gpt():
    gpt = GPT(vocabulary=11, length=16, width=16, depth=3, heads=2)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(weight.numel()))
    return gpt.eval()


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def shares(choice, logits, draws=20_000):
    noise = torch.arange(draws) / draws
    chosen = choose(logits.expand(draws, -1), noise, choice)
    return torch.bincount(chosen, minlength=logits.shape[-1]) / draws


LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.2, 0.6])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_as_frequent_as_the_softmax_says(temperature):
    torch.testing.assert_close(
        shares(Choice(temperature), LOGITS), (LOGITS / temperature).softmax(0), atol=1e-3, rtol=0
    )


def test_top_k_keeps_the_most_likely():
    expected = LOGITS.clone()
    expected[[0, 2]] = -torch.inf
    torch.testing.assert_close(shares(Choice(top_k=3), LOGITS), expected.softmax(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(shares(Choice(top_k=99), LOGITS), LOGITS.softmax(0), atol=1e-3, rtol=0)


def test_top_p_keeps_the_token_that_reaches_it():
    p = LOGITS.softmax(0)  # 0.09, 0.58, 0.03, 0.26, 0.14 by size: 1, 3, 4, 0, 2
    kept = p * torch.tensor([0.0, 1, 0, 1, 0])
    threshold = float(p[1] + p[3] / 2)
    torch.testing.assert_close(shares(Choice(top_p=threshold), LOGITS), kept / kept.sum(), atol=1e-3, rtol=0)
    assert shares(Choice(top_p=1e-6), LOGITS)[1] == 1


def test_top_p_is_of_what_top_k_left():
    p = LOGITS.softmax(0)
    two = p[1] / (p[1] + p[3])
    assert shares(Choice(top_k=2, top_p=float(two) - 0.01), LOGITS)[1] == 1
    assert shares(Choice(top_k=2, top_p=float(two) + 0.01), LOGITS)[1] < 1


def test_temperature_zero_takes_the_most_likely():
    assert choose(LOGITS[None], torch.tensor([0.999]), GREEDY).item() == 1


def test_cached_sampling_takes_what_whole_forwards_would():
    gpt, prompt = small_gpt(), torch.tensor([[1, 2], [3, 4]])
    noise = draw_noise(seeded(5, 6), 7)
    made = sample_tokens(gpt, prompt, noise, choice=Choice(top_k=6, top_p=0.9), ids=range(11))
    line = prompt
    for i in range(7):
        logits = gpt(line)[:, -1]
        line = torch.cat([line, choose(logits, noise[:, i], Choice(top_k=6, top_p=0.9))[:, None]], 1)
    assert torch.equal(made, line[:, 2:])
    assert len(made.unique()) > 2


def test_a_sequence_is_the_same_alone_and_in_a_batch():
    gpt, prompt = small_gpt(), torch.tensor([[1, 2], [3, 4], [5, 6]])
    both = sample_tokens(gpt, prompt, draw_noise(seeded(0, 1, 2), 6), choice=Choice(), ids=range(11))
    for row in range(3):
        alone = sample_tokens(gpt, prompt[row : row + 1], draw_noise(seeded(row), 6), choice=Choice(), ids=range(11))
        assert torch.equal(alone[0], both[row])


def test_only_the_allowed_ids_are_drawn():
    made = sample_tokens(
        small_gpt(),
        torch.tensor([[1], [2]]),
        draw_noise(seeded(0, 1), 12),
        choice=Choice(temperature=5.0),
        ids=range(4, 7),
    )
    assert set(made.unique().tolist()) == {4, 5, 6}


def test_positions_and_the_row_that_is_read_are_the_callers():
    gpt, prompt = small_gpt(), torch.tensor([[1, 2, 3, 4]])
    positions = torch.tensor([0, 1, 8, 9, 2, 3])  # the last two tokens of the prompt are behind the gap
    everything = torch.ones(4, 4, dtype=torch.bool)
    made = sample_tokens(
        gpt, prompt, torch.zeros(1, 3), choice=GREEDY, ids=range(11), positions=positions, mask=everything, read=1
    )
    first = gpt(prompt, positions=positions[:4], mask=everything)[:, 1].argmax(-1)
    assert made[0, 0] == first[0]
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[:4, 4:] = False
    mask[4, 5] = False
    line = torch.cat([prompt, made[:, :2]], 1)
    assert torch.equal(gpt(line, positions=positions, mask=mask)[:, 4:].argmax(-1), made[:, 1:])


def test_progress_is_told_for_each_token():
    told = []
    sample_tokens(
        small_gpt(),
        torch.tensor([[1]]),
        torch.zeros(1, 3),
        choice=GREEDY,
        ids=range(11),
        on_token=lambda *n: told.append(n),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInput, match="top_p in"):
        Choice(**values)
