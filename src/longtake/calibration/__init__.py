"""Calibration: the settings of a method that meet a target, found on some prompts and checked on others."""

from longtake.calibration.calibrating import calibrate

__all__ = ["calibrate"]
