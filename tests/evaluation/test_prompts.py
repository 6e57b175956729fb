"""Prompts: files of them, and captions turned back into what they ask for."""

import json
from pathlib import Path

import pytest

from longtake.data.scenes import SceneOptions, sample_scene
from longtake.errors import BadData
from longtake.evaluation.prompts import asked, read_prompts


def without_texture(attributes: dict) -> dict:
    objects = [{key: value for key, value in thing.items() if key != "texture"} for thing in attributes["objects"]]
    return {**attributes, "objects": objects}


def test_every_whole_caption_says_what_it_asks_for() -> None:
    whole = 0
    for seed in range(60):
        for options in (SceneOptions(), SceneOptions.everything("all")):
            scene = sample_scene(seed, options)
            for caption in scene.captions:
                found = asked(caption)
                assert found is None or without_texture(found) == without_texture(scene.attributes), caption
                whole += found is not None
            assert asked(scene.caption) is not None
    assert whole > 400


@pytest.mark.parametrize(
    "text",
    [
        "a dog in the park",
        "a red ball rolls behind a blue cube on a checkered floor",  # to which side?
        "a red ball rolls left",  # in front of what?
        "a red ball rolls to the left on a checkered floor and sings",
        "",
    ],
)
def test_what_leaves_something_open_asks_for_nothing_that_can_be_checked(text: str) -> None:
    assert asked(text) is None


def test_files_of_prompts(tmp_path: Path) -> None:
    caption = sample_scene(0).caption
    (tmp_path / "a.txt").write_text(f"{caption}\n\n a dog \n")
    text = read_prompts(tmp_path / "a.txt")
    assert [prompt.text for prompt in text] == [caption, "a dog"]
    assert text[0].attributes is not None and text[1].attributes is None
    own = {"objects": [{"colour": "red", "shape": "ball", "motion": "spin"}], "background": "sky", "camera": "static"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "x", "attributes": own}) + '\n"y"\n')
    assert [(p.text, p.attributes) for p in read_prompts(tmp_path / "a.jsonl")] == [("x", own), ("y", None)]
    (tmp_path / "b.jsonl").write_text('{"prompt": "x", "attributes": {"objects": []}}')
    assert read_prompts(tmp_path / "b.jsonl")[0].attributes is None  # not enough to read anything back
    (tmp_path / "a.json").write_text('["x", {"prompt": "y"}]')
    assert [p.text for p in read_prompts(tmp_path / "a.json")] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "\n", "hold none"),
        ("a.json", "{", "not JSON"),
        ("a.json", "3", "hold none"),
        ("a.jsonl", '{"text": "x"}', "not a prompt"),
        ("gone.txt", None, "gone.txt"),
    ],
)
def test_a_file_without_prompts(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadData, match=words):
        read_prompts(tmp_path / name)
