"""Choosing: what can be measured with what is given, and one line for what cannot."""

import pytest
import torch

from longtake.data.scenes import sample_scene
from longtake.errors import BadInput, UnknownName
from longtake.evaluation.choosing import METRICS, WANTED, check_sizes, choose, find_partners, left_out_lines
from longtake.evaluation.cuts import cut
from longtake.evaluation.protocol import Protocol, Side
from longtake.evaluation.sources import TensorSource

NOTHING = ("clip", "seams")


def cuts(count: int = 2, frames: int = 3, size: int = 4, **known):
    pixels = torch.randint(0, 256, (count, 3, frames, size, size), dtype=torch.uint8)
    return cut(TensorSource(pixels, **known), Side(frames=frames))


def test_every_need_is_explained() -> None:
    needs = {need for metric in METRICS.values() for need in metric.needs}
    assert needs == set(WANTED)


def test_all_means_what_can_be_measured() -> None:
    chosen, left_out = choose(None, cuts(), None, WANTED["pairs"], NOTHING)
    moving = ["flicker", "warping", "motion", "dynamic", "smoothness", "cuts"]
    assert chosen == ["is", *moving, "subject", "background", "drift"]
    assert set(left_out) == set(METRICS) - set(chosen) and left_out["fvd"] == WANTED["real"]
    scene = sample_scene(0)
    known = {"prompts": [scene.caption] * 2, "attributes": [scene.attributes] * 2}
    assert choose(None, cuts(**known), cuts(), "")[0] == list(METRICS)
    unshipped, left_out = choose(None, cuts(), cuts(), "", (*NOTHING, "network", "classes", "frames"))
    assert unshipped == ["psnr", "ssim", "gmsd", *moving, "background"] and "--network FILE" in left_out["fvd"]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("fvd", "--real"),
        ("psnr", "--real"),
        ("readback", "captions of scenes"),
        ("clip", "--clip"),
        ("seam", "--seam"),
        ("fdv", "'fvd'"),
    ],
)
def test_what_is_asked_for_and_cannot_be_measured_is_one_line(metric: str, words: str) -> None:
    with pytest.raises((BadInput, UnknownName)) as error:
        choose([metric], cuts(), None, WANTED["real"], NOTHING)
    assert words in str(error.value) and metric in str(error.value)


def test_one_frame_has_no_motion() -> None:
    with pytest.raises(BadInput, match="two frames"):
        choose(["motion"], cuts(frames=1), None, "")
    with pytest.raises(BadInput, match="no metric was asked for"):
        choose([], cuts(), None, "")


def test_names_are_read_as_people_write_them() -> None:
    assert choose([" Flicker", "motion ", "flicker"], cuts(), None, "")[0] == ["flicker", "motion"]


def test_partners_are_of_the_same_name() -> None:
    fake, real = cuts(5), cuts(7)
    places, why = find_partners(fake, real)
    assert why == "" and [real.name(place) for place in places] == [fake.name(i) for i in range(5)]
    assert find_partners(real, fake)[0] == () and "has no partner" in find_partners(real, fake)[1]
    assert find_partners(fake, cuts(7, frames=2))[0] == () and find_partners(fake, None)[0] == ()


def test_several_windows_of_a_video_are_told_apart() -> None:
    pixels = torch.randint(0, 256, (3, 3, 7, 4, 4), dtype=torch.uint8)
    fake, real = (cut(TensorSource(p), Side(frames=3, windows=2)) for p in (255 - pixels, pixels))
    places, _ = find_partners(fake, real)
    for number, place in enumerate(places):
        assert fake.clips[number].frames == real.clips[place].frames
        assert fake.name(number) == real.name(place)


def test_sides_of_different_sizes_are_refused() -> None:
    check_sizes(cuts(), cuts(), Protocol())
    with pytest.raises(BadInput, match=r"generated clips are 4x4 and real ones 6x6.*set size"):
        check_sizes(cuts(), cuts(size=6), Protocol())


def test_metrics_that_lack_the_same_are_left_out_in_one_sentence() -> None:
    lines = left_out_lines({"psnr": "partners", "seam": "seams", "ssim": "partners"})
    assert lines == ("psnr, ssim are left out: they need partners", "seam is left out: it needs seams")
