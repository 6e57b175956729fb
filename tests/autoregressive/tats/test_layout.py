import pytest
import tiny
import torch

from longtake.autoregressive.tats.layout import TEXT_END, TEXT_PAD, layout, text_tokens, window_loss
from longtake.errors import BadInput, BadSize, UnknownName

SIZES = {"codes": 7, "rows": 2, "columns": 3}


@pytest.mark.parametrize(
    ("kind", "more", "prefix", "conditions"),
    [
        ("none", {}, 1, 1),
        ("class", {"classes": 3}, 1, 3),
        ("text", {}, 256, 258),
        ("audio", {"audio": (8, 32)}, 8, 32),
    ],
)
def test_ids_of_conditions_come_first(kind, more, prefix, conditions):
    own = layout(kind, **SIZES, **more)
    assert (own.prefix, own.conditions, own.vocabulary) == (prefix, conditions, conditions + 7)
    assert own.video == range(conditions, conditions + 7)


def test_what_is_written_is_read_frame_by_frame_and_row_by_row():
    ids = tiny.ids(2, 4)
    tokens = tiny.LAYOUT.write(ids)
    assert tokens[1, 1 * 6 + 1 * 3 + 2] == ids[1, 1, 1, 2] + 3
    assert torch.equal(tiny.LAYOUT.read(tokens), ids)
    with pytest.raises(BadSize, match="2 rows of 3"):
        tiny.LAYOUT.write(ids.mT)


def test_the_published_windows_have_the_published_lengths():
    own = layout("none", codes=16384, rows=16, columns=16)
    assert own.window_length(4) == 1024
    assert own.frames_of(tiny.base(4)) == 0  # a GPT of another layout
    assert tiny.LAYOUT.frames_of(tiny.base(4)) == 4


def test_text_is_its_bytes_an_end_and_padding():
    (line,) = text_tokens(["é!"])
    assert line[:4].tolist() == [0xC3, 0xA9, ord("!"), TEXT_END]
    assert set(line[4:].tolist()) == {TEXT_PAD} and len(line) == 256
    assert text_tokens(["x" * 255])[0, -1] == TEXT_END
    with pytest.raises(BadInput, match="256 bytes"):
        text_tokens(["x" * 256])


def test_the_loss_is_that_of_the_video_tokens_alone():
    own = layout("audio", **SIZES, audio=(2, 5))
    gpt, ids = tiny.base(2, own), tiny.ids(2, 2, own=own)
    condition = torch.tensor([[0, 4], [1, 2]])
    found = window_loss(gpt, own, condition, ids)
    line = torch.cat([condition, ids.flatten(1) + 5], 1)
    assert line.shape[1] == gpt.config.length + 1
    plain = gpt(line[:, :-1]).log_softmax(-1)
    for row in range(2):
        terms = [-plain[row, at - 1, line[row, at]] for at in range(2, 2 + 12)]
        torch.testing.assert_close(found[row], torch.stack(terms).mean())
    assert not torch.allclose(window_loss(gpt, own, condition.flip(1), ids), found)


def test_a_gpt_learns_a_video_by_heart():
    gpt, ids = tiny.base(2), tiny.ids(3, 2)
    condition = torch.arange(3)[:, None]
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = window_loss(gpt, tiny.LAYOUT, condition, ids).mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_what_does_not_fit_is_named():
    with pytest.raises(UnknownName, match="clas"):
        layout("clas", **SIZES)
    with pytest.raises(BadInput, match="condition 'class' of 1 tokens and 0 ids"):
        layout("class", **SIZES)
