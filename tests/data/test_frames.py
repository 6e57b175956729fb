from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longtake.data.frames import NumberedNames, pack_names, read_frames
from longtake.errors import BadVideo


@pytest.mark.parametrize(
    ("names", "packed"),
    [
        ([f"v_x_{n:06d}.jpg" for n in range(95, 120)], True),
        ([f"img-{n}.png" for n in range(8, 12)], True),
        ([f"clip2/{n:03d}.jpg" for n in range(0, 30, 5)], True),
        (["7.jpg"], True),
        (["1.jpg", "2.jpg", "4.jpg"], False),
        (["01.jpg", "2.jpg"], False),
        (["a1.jpg", "b2.jpg"], False),
        (["1.jpg", "2.png"], False),
        (["a.jpg", "b.jpg"], False),
    ],
)
def test_names_are_packed_without_loss(names: list[str], packed: bool) -> None:
    kept = pack_names(names)
    assert isinstance(kept, NumberedNames) == packed
    assert list(kept) == names
    assert kept[-1] == names[-1]
    assert list(kept[1:3]) == names[1:3]
    assert len(kept) == len(names)


def test_frames_by_number_in_the_order_asked(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    frames = write_frames(tmp_path / "v", 6, 8, 8)
    names = [f"{n:06d}.png" for n in range(6)]
    assert torch.equal(read_frames(tmp_path / "v", names, [4, 0, 4, 2]), frames[[4, 0, 4, 2]])


def test_two_sizes_and_missing_frames_are_refused(tmp_path: Path, write_frames: Callable[..., Tensor]) -> None:
    write_frames(tmp_path / "v", 2, 8, 8)
    write_frames(tmp_path / "v", 1, 8, 10, first=2)
    names = [f"{n:06d}.png" for n in range(4)]
    with pytest.raises(BadVideo, match=r"000002\.png is 10x8 and 000000\.png is 8x8"):
        read_frames(tmp_path / "v", names, [0, 1, 2])
    with pytest.raises(BadVideo, match=r"000003\.png does not exist"):
        read_frames(tmp_path / "v", names, [3])
