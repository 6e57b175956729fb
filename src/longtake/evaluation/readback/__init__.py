"""Read-back: detectors that recover a scene's attributes from pixels, so that a prompt can be checked against a clip."""

from longtake.evaluation.readback.detector import ObjectReading, ReadBackDetector, Reading
from longtake.evaluation.readback.scoring import ATTRIBUTES, Score, score_readings

__all__ = ["ATTRIBUTES", "ObjectReading", "ReadBackDetector", "Reading", "Score", "score_readings"]
