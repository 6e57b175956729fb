import pytest
import tiny
import torch

from longtake.autoregressive.tats.hierarchy import (
    fill_gaps,
    gap_length,
    gap_loss,
    gap_mask,
    hierarchical,
    key_frames,
)
from longtake.autoregressive.tats.layout import layout
from longtake.autoregressive.tats.windows import Tally, slide
from longtake.backbones.gpt_sampling import choose
from longtake.errors import BadInput

U = tiny.U
CLASSES = torch.tensor([[0], [2]])
MASK = gap_mask(tiny.LAYOUT, 4)


def test_the_published_line_has_the_published_length_and_one_token_more_that_is_read():
    """1280 positions there, where the last token of F_4 is left out."""
    own = layout("none", codes=16384, rows=16, columns=16)
    assert gap_length(own, 4) == 1281


def test_the_mask_is_the_one_written_out():
    own = layout("audio", codes=7, rows=1, columns=2, audio=(2, 5))
    kinds = "cc" + "00" + "mmmm" + "33"  # spacing 3: two ends and two frames between
    expected = [[b != "m" or (a == "m" and j <= i) for j, b in enumerate(kinds)] for i, a in enumerate(kinds)]
    assert gap_mask(own, 3).tolist() == expected


def test_no_middle_token_changes_a_row_before_it_and_both_ends_change_all_of_them():
    gpt, line = tiny.between(), torch.cat([CLASSES[:1], tiny.LAYOUT.write(tiny.ids(1, 5))], 1)
    plain = gpt(line, mask=MASK)
    rows = slice(U, 4 * U)  # those that predict a middle token: the last of F_0 to the last but one of the middle
    for place in range(len(line[0])):
        changed = line.clone()
        changed[0, place] = 3 + (line[0, place] - 3 + 1) % 7
        moved = ((gpt(changed, mask=MASK) - plain).abs().amax(-1)[0] > 0).tolist()
        if 1 + U <= place < 1 + 4 * U:
            assert moved == [place <= row < 1 + 4 * U for row in range(len(line[0]))]
        else:
            assert all(moved[rows])


def test_the_published_mask_at_sampling_would_not_see_the_far_end():
    """Trap: the top left corner of the mask, over [c, F_0, F_4], treats F_4 as a middle."""
    ends = torch.cat([torch.arange(1 + U), torch.arange(1 + 4 * U, 1 + 5 * U)])
    right = MASK[ends][:, ends]
    assert right.all()
    assert not MASK[: 1 + 2 * U, : 1 + 2 * U].all()


@pytest.mark.parametrize("choice", [tiny.GREEDY, tiny.DRAWN])
def test_a_filled_gap_is_what_whole_forwards_under_the_training_mask_would_draw(choice):
    gpt, ends, noise = tiny.between(), tiny.ids(2, 2), tiny.noise(3, 5, 6)
    made = fill_gaps(gpt, tiny.LAYOUT, CLASSES, ends[:, 0], ends[:, 1], noise, choice=choice)
    line = torch.cat([ends[:, :1], torch.zeros(2, 3, 2, 3, dtype=torch.long), ends[:, 1:]], 1)
    line = torch.cat([CLASSES, tiny.LAYOUT.write(line)], 1)
    for i in range(3 * U):
        logits = gpt(line, mask=MASK)[:, U + i, 3:]  # row u is the last token of F_0
        line[:, 1 + U + i] = 3 + choose(logits, noise[:, i], choice)
    assert torch.equal(tiny.LAYOUT.write(made), line[:, 1 + U : 1 + 4 * U])


def test_the_cached_logits_are_those_of_the_whole_forward(monkeypatch):
    gpt, ends, noise = tiny.between(), tiny.ids(2, 2), tiny.noise(3, 5, 6)
    seen, head = [], gpt.head.forward
    monkeypatch.setattr(gpt.head, "forward", lambda x: seen.append(head(x)) or seen[-1])
    made = fill_gaps(gpt, tiny.LAYOUT, CLASSES, ends[:, 0], ends[:, 1], noise, choice=tiny.DRAWN)
    cached = torch.stack(seen, 1)
    line = torch.cat([CLASSES, tiny.LAYOUT.write(torch.cat([ends[:, :1], made, ends[:, 1:]], 1))], 1)
    torch.testing.assert_close(cached, gpt(line, mask=MASK)[:, U : 4 * U], atol=1e-5, rtol=1e-5)


def test_the_loss_is_that_of_the_middle_frames():
    gpt, ids = tiny.between(), tiny.ids(2, 5)
    found = gap_loss(gpt, tiny.LAYOUT, CLASSES, ids)
    line = torch.cat([CLASSES, tiny.LAYOUT.write(ids)], 1)
    plain = gpt(line, mask=MASK).log_softmax(-1)
    for row in range(2):
        terms = [-plain[row, at - 1, line[row, at]] for at in range(1 + U, 1 + 4 * U)]
        torch.testing.assert_close(found[row], torch.stack(terms).mean())


@pytest.mark.slow
def test_a_gpt_learns_to_fill_a_gap_by_what_is_behind_it():
    """The middle of the clip is its last frame, which a causal model could not know."""
    gpt = tiny.between(2)
    gpt.apply(lambda m: [w.data.mul_(0.3) for w in m.parameters(recurse=False)])
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)
    for step in range(250):
        ids = tiny.ids(32, 3, seed=step)
        ids[:, 1] = ids[:, 2]
        optimizer.zero_grad()
        loss = gap_loss(gpt, tiny.LAYOUT, torch.zeros(32, 1, dtype=torch.long), ids).mean()
        loss.backward()
        optimizer.step()
    ends = tiny.ids(8, 2, seed=999)
    made = fill_gaps(
        gpt,
        tiny.LAYOUT,
        torch.zeros(8, 1, dtype=torch.long),
        ends[:, 0],
        ends[:, 1],
        torch.zeros(8, U),
        choice=tiny.GREEDY,
    )
    assert (made[:, 0] == ends[:, 1]).float().mean() > 0.9


def video(frames, at_once=64, **changes):
    noise = tiny.noise(frames, 1, 2)
    given = {"spacing": 4, "choice": tiny.DRAWN, "at_once": at_once, **changes}
    return hierarchical(tiny.base(4), tiny.between(), tiny.LAYOUT, CLASSES, noise, **given)


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_gaps_filled_together_are_those_filled_one_by_one(at_once):
    assert torch.equal(video(13, at_once), video(13))


def test_key_frames_are_those_of_the_sliding_window_and_gaps_lie_between_them():
    made, noise = video(13), tiny.noise(13, 1, 2)
    sparse = slide(tiny.base(4), tiny.LAYOUT, CLASSES, noise[:, : 4 * U], choice=tiny.DRAWN)
    assert torch.equal(made[:, ::4], sparse)
    rest = noise[:, 4 * U :].view(2, 3, 3 * U)
    for gap in range(3):
        ends = sparse[:, gap], sparse[:, gap + 1]
        alone = fill_gaps(tiny.between(), tiny.LAYOUT, CLASSES, *ends, rest[:, gap], choice=tiny.DRAWN)
        assert torch.equal(made[:, 4 * gap + 1 : 4 * gap + 4], alone)


def test_one_key_frame_alone_has_no_gap():
    assert video(1).shape == (2, 1, 2, 3)


def test_a_thousand_frames_are_65_keys():
    assert key_frames(257, 4) == 65 and key_frames(258, 4) == 66 and key_frames(1, 4) == 1


def test_every_token_is_told():
    told = []
    video(9, tally=Tally(2 * 9 * U, lambda *numbers: told.append(numbers)))
    assert told[-1] == (108, 108) and len(told) == 3 * U + 3 * U  # keys, then both clips' two gaps at once


def test_noise_for_another_number_of_frames_is_refused():
    with pytest.raises(BadInput, match="key frames"):
        video(8)
