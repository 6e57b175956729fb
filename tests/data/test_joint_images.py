import pytest
import torch

from longtake.data.joint_images import WithImages
from longtake.errors import BadData


class Numbered(torch.utils.data.Dataset):
    """Clip i holds 10 i + frame everywhere."""

    def __init__(self, size: int, name: str = "latents", labels: bool = True) -> None:
        self.size, self.name, self.labels = size, name, labels

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key):
        index = key[1] if isinstance(key, tuple) else key
        clip = (10.0 * index + torch.arange(5.0)).view(1, 5, 1, 1).expand(2, 5, 3, 3)
        return {self.name: clip, **({"label": index} if self.labels else {})}


@pytest.mark.parametrize("name", ["latents", "pixels"])
def test_images_are_frames_of_other_clips_with_their_labels(name):
    data = WithImages(Numbered(7, name), 4, seed=1)
    assert len(data) == 7
    clips, frames = set(), set()
    for epoch in range(30):
        item = data[(epoch, 3)]
        assert torch.equal(item[name], Numbered(7, name)[3][name])
        assert item["images"].shape == (2, 4, 3, 3)
        values = item["images"][0, :, 0, 0]
        assert (item["images"] == values.view(1, 4, 1, 1)).all()
        assert (values // 10).long().tolist() == item["image_labels"].tolist()
        clips |= set(item["image_labels"].tolist())
        frames |= set((values % 10).tolist())
    assert clips == {0, 1, 2, 4, 5, 6}  # every other one, never itself
    assert frames == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_draws_follow_from_seed_epoch_and_index():
    one, again, other = (WithImages(Numbered(9), 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one[(2, 5)]["images"], again[(2, 5)]["images"])
    assert torch.equal(one[5]["images"], one[(0, 5)]["images"])
    assert not torch.equal(one[(2, 5)]["images"], one[(3, 5)]["images"])
    assert not torch.equal(one[(2, 5)]["images"], other[(2, 5)]["images"])


def test_without_classes_there_are_no_labels_and_one_clip_is_too_few():
    assert "image_labels" not in WithImages(Numbered(3, labels=False), 2)[0]
    with pytest.raises(BadData, match="1 clip is too few"):
        WithImages(Numbered(1), 2)
