"""What is compared: prompts by number, file or list; stacks that are refused before a model is loaded; clips and seeds."""

import pytest

from longtake.comparison.asking import DENSE, clips_wanted, find_contenders, find_prompts
from longtake.data.scenes import is_held_out
from longtake.errors import BadData, BadInput, Conflict, UnknownName
from longtake.methods.caches.taylorseer import TaylorSeer


def test_a_number_asks_for_captions_of_scenes_that_training_never_showed():
    found = find_prompts("3")
    assert found.texts == tuple(scene.caption for scene in found.scenes) and len(set(found.texts)) == 3
    assert all(map(is_held_out, found.scenes))
    assert find_prompts(2).texts == found.texts[:2]


def test_prompts_of_a_file_or_a_list_come_without_scenes(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red ball\n\na blue cube\n")
    assert (find_prompts(file).texts, find_prompts(str(file)).scenes) == (("a red ball", "a blue cube"), ())
    assert find_prompts(["one", "two"]).texts == ("one", "two")


@pytest.mark.parametrize("count", ["0", "-4", 10_001, True])
def test_a_number_out_of_range_is_named(count):
    with pytest.raises(BadInput, match="prompts is"):
        find_prompts(count)


def test_no_prompts_are_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(BadData, match="hold none"):
        find_prompts(tmp_path / "empty.txt")
    with pytest.raises(BadInput, match="no prompts"):
        find_prompts([])


def test_dense_comes_first_and_stacks_are_named_as_they_are_arranged():
    found = find_contenders(
        ["taylorseer:interval=4+cfg-interval", [TaylorSeer(interval=5), "apg"], TaylorSeer(order=2)]
    )
    names = [DENSE, "cfg-interval+taylorseer:interval=4", "apg+taylorseer", "taylorseer:order=2"]
    assert [one.name for one in found] == names
    assert found[0].methods == ()


@pytest.mark.parametrize(
    ("stacks", "error", "words"),
    [
        ([], BadInput, "no stack"),
        (["taylorser"], UnknownName, "stack 'taylorser'.*Did you mean 'taylorseer'"),
        (["taylorseer:intervall=4"], UnknownName, "no setting 'intervall'"),
        (["taylorseer", "taylorseer:interval=5"], BadInput, "given twice"),
        (["delta-dit+taylorseer"], Conflict, "delta-dit and taylorseer cannot be used together"),
        ([[]], BadInput, "no method"),
    ],
)
def test_a_stack_that_cannot_be_is_named(stacks, error, words):
    with pytest.raises(error, match=words.replace("no stack", "there is no stack")):
        find_contenders(stacks)


def test_more_seeds_add_clips_and_change_none():
    prompts = find_prompts(["a", "b", "c"])
    few, many = clips_wanted(prompts, 1, 7), clips_wanted(prompts, 3, 7)
    assert many[:3] == few
    assert [(one.prompt, one.seed) for one in many] == list(zip("abcabcabc", range(7, 16), strict=True))
    with pytest.raises(BadInput, match="seeds is 0"):
        clips_wanted(prompts, 0, 0)
