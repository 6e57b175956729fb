"""Targets as they are written, what meets them, and how a miss is told."""

import math

import pytest

from longtake.calibration.targets import MEASURES, parse_targets, verdict, written
from longtake.errors import BadInput, UnknownName
from longtake.methods.profiles import Numbers


def test_targets_are_read_and_written_back():
    found = parse_targets(" psnr>=30 , macs <= 0.5")
    assert [(one.name, one.bound) for one in found] == [("psnr", 30.0), ("macs", 0.5)]
    assert parse_targets([str(one) for one in found]) == found
    assert parse_targets(["speedup>=2", "latent<=.1,ssim>=9e-1"])[2].bound == 0.9


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("psrn>=30", UnknownName, "'psrn'. Did you mean 'psnr'"),
        ("speed>=2", UnknownName, "Did you mean 'speedup'"),
        ("psnr", BadInput, "'psnr' is not NAME>=VALUE or NAME<=VALUE: write psnr>=30"),
        ("psnr>30", BadInput, "is not NAME>=VALUE"),
        ("psnr>=", BadInput, "is not NAME>=VALUE"),
        ("psnr>=thirty", BadInput, "is not NAME>=VALUE"),
        ("psnr>=nan", BadInput, "is not NAME>=VALUE"),
        ("psnr>=30,", BadInput, "target '' is not"),
        ("psnr<=30", BadInput, "write psnr>=30"),
        ("macs>=0.5", BadInput, "share of dense; write macs<=0.5"),
        ("psnr>=100", BadInput, "above 0 and below 100"),
        ("macs<=2", BadInput, "above 0 and below 1"),
        ("speedup>=0.5", BadInput, "use a number above 1"),
        ("latent<=inf", BadInput, "use a number above 0"),
        ("psnr>=30,psnr>=31", BadInput, "psnr has two targets"),
        ([], BadInput, "there is no target"),
    ],
)
def test_what_is_no_target_is_said_in_one_line(text, error, words):
    with pytest.raises(error) as caught:
        parse_targets(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_target_is_missed_by_what_lacks():
    numbers = Numbers(4, psnr=29.5, macs=0.7, latent=0.1)
    psnr, macs, latent, speedup = parse_targets("psnr>=30,macs<=0.5,latent<=0.1,speedup>=2")
    assert psnr.missed(numbers) == 0.5 and macs.missed(numbers) == pytest.approx(0.2) and latent.missed(numbers) == 0
    assert speedup.missed(numbers) == math.inf
    assert verdict(psnr.outcome(numbers)) == "psnr>=30 missed by 0.50 dB: 29.50 dB"
    assert verdict(macs.outcome(numbers)) == "macs<=0.5 missed by 0.200: 0.700 of dense"
    assert verdict(latent.outcome(numbers)) == "latent<=0.1 met: 0.1000"
    with pytest.raises(BadInput, match="speedup was not measured"):
        speedup.outcome(numbers)


def test_a_miss_is_never_rounded_to_nothing():
    (psnr,) = parse_targets("psnr>=30")
    assert verdict(psnr.outcome(Numbers(1, psnr=29.9999))) == "psnr>=30 missed by 0.01 dB: 30.00 dB"


def test_every_measure_is_a_number_of_a_profile():
    assert all(getattr(Numbers(1), name) is None for name in MEASURES)
    assert written("psnr", None) == "not known"
