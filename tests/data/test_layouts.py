import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from longtake.data.layouts import class_words, list_sources
from longtake.errors import BadData, UnknownName


def touch(root: Path, *names: str) -> Path:
    """Layouts are told by names alone, so empty files do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def names(root: Path, **options) -> list[str]:
    return [source.name for source in list_sources(root, **options).sources]


UCF = [f"{name}/v_{name}_g01_c0{clip}.avi" for name in ("ApplyEyeMakeup", "YoYo", "Archery") for clip in (1, 2)]


def test_l1_class_folders(tmp_path: Path) -> None:
    listing = list_sources(touch(tmp_path, *UCF, "YoYo/list.xml", ".DS_Store"))
    assert listing.layout == "L1"
    assert listing.classes == ("ApplyEyeMakeup", "Archery", "YoYo")
    assert [source.label for source in listing.sources] == [0, 0, 1, 1, 2, 2]
    assert [source.prompts for source in listing.sources][::2] == [("apply eye makeup",), ("archery",), ("yo yo",)]
    assert listing.ignored == {".xml": 1}
    own = list_sources(tmp_path, class_prompts={"YoYo": "a person plays with a yo-yo"})
    assert own.sources[-1].prompts == ("a person plays with a yo-yo",)
    assert own.sources[0].prompts == ("apply eye makeup",)


def test_l2_split_and_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{name}" for name in UCF), "test/YoYo/v_YoYo_g02_c01.avi")
    train, test, both = (list_sources(tmp_path, split=split) for split in (None, "test", "all"))
    assert [listing.layout for listing in (train, test, both)] == ["L2"] * 3
    assert [listing.split for listing in (train, test, both)] == ["train", "test", "all"]
    assert [len(listing.sources) for listing in (train, test, both)] == [6, 1, 7]
    assert train.sources[-1].label == 2
    with pytest.raises(BadData, match="no split 'val': it has test, train"):
        list_sources(tmp_path, split="val")


def test_l3_folders_of_any_depth(tmp_path: Path) -> None:
    listing = list_sources(touch(tmp_path, "a.mp4", "deep/er/b.MOV", "deep/c.webm", "deep/notes.md"))
    assert listing.layout == "L3"
    assert [source.name for source in listing.sources] == ["a.mp4", "deep/c.webm", "deep/er/b.MOV"]
    assert all(source.label is None and source.prompts == () for source in listing.sources)


def test_one_folder_is_no_class_and_a_split_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path / "one", "videos/a.mp4", "videos/b.mp4")
    assert list_sources(tmp_path / "one").layout == "L3"
    assert list_sources(tmp_path / "one", layout="L1").classes == ("videos",)
    touch(tmp_path / "ffs", "train/a.mp4", "train/b.mp4", "val/c.mp4")
    split = list_sources(tmp_path / "ffs")
    assert (split.layout, split.split, len(split.sources)) == ("L3", "train", 2)
    touch(tmp_path / "preprocess_ffs", "train/videos/a.mp4")
    assert list_sources(tmp_path / "preprocess_ffs" / "train" / "videos").split == "train"


def test_l4_frame_folders_of_any_depth_in_numeric_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sky_train/x/clip/v_x_{number}.jpg" for number in (9, 10, 100, 1)), "sky_train/y/img-02.png")
    listing = list_sources(tmp_path / "sky_train")
    assert (listing.layout, listing.split) == ("L4", "train")
    assert [source.name for source in listing.sources] == ["x/clip", "y"]
    assert tuple(listing.sources[0].frames) == ("v_x_1.jpg", "v_x_9.jpg", "v_x_10.jpg", "v_x_100.jpg")


def test_l4_names_that_tie_are_a_problem_of_their_folder(tmp_path: Path) -> None:
    listing = list_sources(touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/x_01.jpg", "b/y_1.jpg"))
    assert [source.name for source in listing.sources] == ["a"]
    ((name, reason),) = listing.problems
    assert name == "b"
    assert "x_01.jpg and y_1.jpg are both frame 1" in reason


def test_l5_folders_and_zip_with_labels(tmp_path: Path) -> None:
    touch(tmp_path / "d", "v1/000000.jpg", "v1/000001.jpg", "v2/000000.jpg")
    assert list_sources(tmp_path / "d").layout == "L4"
    labels = {"labels": [["v1/000000.jpg", 3], ["v1/000001.jpg", 3], ["v2/000000.jpg", 5]]}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(labels))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in sorted((tmp_path / "d").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "d"))
        archive.writestr("readme.md", "")
    for listing in (list_sources(tmp_path / "d"), list_sources(tmp_path / "d.zip")):
        assert listing.layout == "L5"
        assert [(source.name, source.label, len(source.frames)) for source in listing.sources] == [
            ("v1", 3, 2),
            ("v2", 5, 1),
        ]
    assert tuple(list_sources(tmp_path / "d.zip").sources[0].frames) == ("v1/000000.jpg", "v1/000001.jpg")
    (tmp_path / "d" / "dataset.json").write_text("[]")
    with pytest.raises(BadData, match=r"dataset\.json"):
        list_sources(tmp_path / "d")


def test_prompts_beside_the_videos(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (tmp_path / "a.txt").write_text("a red ball\n")
    (tmp_path / "b.json").write_text(json.dumps({"caption": "plain", "captions": ["plain", "other"], "depth": [1]}))
    (tmp_path / "c.json").write_text("not json")
    listing = list_sources(tmp_path)
    assert [source.prompts for source in listing.sources] == [("a red ball",), ("plain", "other"), (), ()]
    assert listing.ignored == {".json": 1}


def test_what_is_asked_for_must_be_there(tmp_path: Path) -> None:
    touch(tmp_path / "v", "a/1.mp4", "b/2.mp4", "deep/er/3.mp4")
    assert list_sources(tmp_path / "v").layout == "L3"
    forced = list_sources(tmp_path / "v", layout="L1")
    assert [source.name for source in forced.sources] == ["a/1.mp4", "b/2.mp4"]
    assert forced.problems == (("deep/er/3.mp4", "not at the depth of class folders of videos (L1)"),)
    with pytest.raises(BadData, match="not L2"):
        list_sources(tmp_path / "v", layout="L2")
    with pytest.raises(BadData, match="holds no videos"):
        list_sources(tmp_path / "v", layout="L4")
    with pytest.raises(UnknownName, match="L11"):
        list_sources(tmp_path / "v", layout="L11")
    with pytest.raises(UnknownName, match="Did you mean 'train'"):
        list_sources(tmp_path / "v", split="trian")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not exist"):
        list_sources(tmp_path / "missing")
    with pytest.raises(BadData, match="it is empty"):
        list_sources(tmp_path)
    touch(tmp_path, "a.txt", "b.txt", "c.md")
    with pytest.raises(BadData, match=r"1 \.md, 2 \.txt"):
        list_sources(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(BadData, match=r"cannot be read as a \.zip"):
        list_sources(tmp_path / "x.zip")


def test_a_link_that_leads_back_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["a/1.mp4", "b/2.mp4"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("ApplyEyeMakeup", "apply eye makeup"), ("TVShow_at-night", "tv show at night"), ("Yo Yo2Go", "yo yo2 go")],
)
def test_class_words(name: str, words: str) -> None:
    assert class_words(name) == words


def test_frames_found_beside_videos_are_ignored_not_mixed_in(tmp_path: Path, write_video: Callable) -> None:
    touch(tmp_path, "poster.jpg", "clips/1.mp4")
    listing = list_sources(tmp_path)
    assert [source.name for source in listing.sources] == ["clips/1.mp4"]
    assert listing.ignored == {"images": 1}
