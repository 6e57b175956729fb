"""A folder of images with a folder for each class."""

import pytest
from PIL import Image

from longtake.data.image_folder import ImageFolder
from longtake.errors import BadData


@pytest.fixture
def folder(tmp_path):
    for name, count in (("whiteCats", 2), ("dogs", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (60, 40), (255, 255, 255)).save(tmp_path / name / f"{number}.png")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "dogs" / "note.txt").write_text("no image")
    return tmp_path


def test_items_are_sorted_and_know_their_class(folder):
    data = ImageFolder(folder, 32, 48)
    assert data.class_names == ("dogs", "whiteCats")
    assert [(data[i]["label"], data[i]["prompt"], data[i]["source"]) for i in range(3)] == [
        (0, "dogs", "dogs/0.png"),
        (1, "white cats", "whiteCats/0.png"),
        (1, "white cats", "whiteCats/1.png"),
    ]
    assert data[(3, 0)]["pixels"].shape == (3, 1, 32, 48)
    assert data[0]["pixels"].eq(1).all()


def test_what_is_no_folder_of_classes_is_refused(folder, tmp_path):
    with pytest.raises(BadData, match="cannot be read"):
        ImageFolder(tmp_path / "nowhere", 32, 32)
    (folder / "birds").mkdir()
    with pytest.raises(BadData, match="birds holds no images"):
        ImageFolder(folder, 32, 32)
