from itertools import product

import pytest
import tiny
import torch

from longtake.autoregressive.tats.layout import layout
from longtake.autoregressive.tats.windows import Tally, slide, slide_in_space, window_places
from longtake.backbones.gpt_sampling import choose
from longtake.errors import BadInput

CLASSES = torch.tensor([[0], [2]])


def drawn(gpt, line, noise, choice, **given):
    """The next token after whole forwards, without a cache."""
    logits = gpt(line, **given)[:, -1, tiny.LAYOUT.conditions :]
    return tiny.LAYOUT.conditions + choose(logits, noise, choice)


@pytest.mark.parametrize("choice", [tiny.GREEDY, tiny.DRAWN])
@pytest.mark.parametrize("context", [1, 3])
def test_one_frame_more_than_the_context_is_plain_sampling(choice, context):
    gpt, noise = tiny.base(4), tiny.noise(context + 1, 1, 2)
    slid = slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=choice, context=context)
    line = CLASSES
    for i in range(noise.shape[1]):
        line = torch.cat([line, drawn(gpt, line, noise[:, i], choice)[:, None]], 1)
    assert torch.equal(tiny.LAYOUT.write(slid), line[:, 1:])


@pytest.mark.parametrize("context", [1, 2])
def test_a_long_video_is_windows_that_begin_anew(context):
    """Positions from 0, the condition in front again, and nothing of the window before but its last frames."""
    gpt, noise, u = tiny.base(3), tiny.noise(7, 1, 2), tiny.U
    made = tiny.LAYOUT.write(slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=tiny.DRAWN, context=context))
    for frame in range(context, 7):
        line = torch.cat([CLASSES, made[:, (frame - context) * u : frame * u]], 1)
        for i in range(frame * u, (frame + 1) * u):
            line = torch.cat([line, drawn(gpt, line, noise[:, i], tiny.DRAWN)[:, None]], 1)
        assert torch.equal(line[:, -u:], made[:, frame * u : (frame + 1) * u])


def test_by_default_all_of_the_window_but_one_frame_is_looked_back_at():
    gpt, noise = tiny.base(4), tiny.noise(6, 1, 2)
    made = slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=tiny.DRAWN)
    assert torch.equal(made, slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=tiny.DRAWN, context=3))
    assert not torch.equal(made, slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=tiny.DRAWN, context=1))


def test_the_opening_may_be_drawn_otherwise():
    gpt, noise = tiny.base(4), tiny.noise(3, 1, 2)
    made = slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=tiny.DRAWN, first=tiny.GREEDY, context=1)
    greedy = slide(gpt, tiny.LAYOUT, CLASSES, noise, choice=tiny.GREEDY, context=1)
    assert torch.equal(made[:, 0], greedy[:, 0]) and not torch.equal(made, greedy)


def test_ids_of_conditions_are_never_drawn():
    gpt = tiny.base(4)
    with torch.no_grad():
        gpt.head.weight[: tiny.LAYOUT.conditions] *= 100
    made = slide(gpt, tiny.LAYOUT, CLASSES, tiny.noise(3, 1, 2), choice=tiny.DRAWN)
    assert 0 <= made.min() and made.max() < 7


def test_every_token_is_told():
    told = []
    tally = Tally(2 * 5 * tiny.U, lambda done, total: told.append((done, total)))
    slide(tiny.base(4), tiny.LAYOUT, CLASSES, tiny.noise(5, 1, 2), choice=tiny.DRAWN, tally=tally)
    assert told == [(done, 60) for done in range(2, 61, 2)]


def test_what_does_not_fit_a_window_is_refused():
    gpt = tiny.base(4)
    with pytest.raises(BadInput, match="context 4 of a window of 4"):
        slide(gpt, tiny.LAYOUT, CLASSES, tiny.noise(5, 1, 2), choice=tiny.DRAWN, context=4)
    with pytest.raises(BadInput, match="noise for 5 tokens"):
        slide(gpt, tiny.LAYOUT, CLASSES, tiny.noise(1, 1, 2)[:, :5], choice=tiny.DRAWN)


# ------------------------------------------------------------------------------------------------------------ in space


def test_a_position_has_the_place_of_the_token_that_it_predicts():
    own = layout("audio", codes=7, rows=2, columns=2, audio=(3, 4))
    places = window_places(own, (2, 4, 5), (0, 1, 2), 2)
    assert len(places) == own.window_length(2)
    assert places.tolist() == [-1, -1, 7, 8, 12, 13, 27, 28, 32, 33]


@pytest.mark.parametrize("grid", [(3, 4, 5), (4, 3, 3)])
def test_each_token_is_given_the_window_around_it(grid):
    """Against a plain loop: one window and one whole forward for each token."""
    table, size, centre = (2, *grid[1:]), (2, 2, 3), (1, 1, 1)
    gpt = tiny.base(2, grid=table)
    count = grid[0] * grid[1] * grid[2]
    noise = torch.rand(2, count, generator=torch.Generator().manual_seed(3))
    made = slide_in_space(gpt, tiny.LAYOUT, CLASSES, noise, grid, choice=tiny.DRAWN)
    video = torch.zeros(2, *grid, dtype=torch.long)
    for number, token in enumerate(product(*map(range, grid))):
        start = [max(0, min(a - c, g - s)) for a, c, g, s in zip(token, centre, grid, size, strict=True)]
        t, i, j = (a - s for a, s in zip(token, start, strict=True))
        part = video[:, start[0] : start[0] + 2, start[1] : start[1] + 2, start[2] : start[2] + 3]
        line = torch.cat([CLASSES, part.reshape(2, -1)[:, : (t * 2 + i) * 3 + j]], 1)
        places = window_places(tiny.LAYOUT, table, (0, start[1], start[2]), 2)[: line.shape[1]]
        video[:, token[0], token[1], token[2]] = drawn(gpt, line, noise[:, number], tiny.DRAWN, places=places)
    assert torch.equal(made, video - 3)


def test_a_picture_of_the_size_of_the_window_is_sampled_as_a_window():
    gpt = tiny.base(4, grid=(4, 2, 3))
    places = window_places(tiny.LAYOUT, (4, 2, 3), (0, 0, 0), 4)
    noise = tiny.noise(4, 1, 2)
    made = slide_in_space(gpt, tiny.LAYOUT, CLASSES, noise, (4, 2, 3), choice=tiny.DRAWN)
    line = CLASSES
    for i in range(noise.shape[1]):
        line = torch.cat([line, drawn(gpt, line, noise[:, i], tiny.DRAWN, places=places[: i + 1])[:, None]], 1)
    assert torch.equal(tiny.LAYOUT.write(made), line[:, 1:])


def test_a_grid_without_its_table_is_refused():
    with pytest.raises(BadInput, match="do not fit"):
        slide_in_space(tiny.base(4), tiny.LAYOUT, CLASSES, torch.rand(2, 64), (4, 4, 4), choice=tiny.DRAWN)
