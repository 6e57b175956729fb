"""Compare: dense against any stacks of methods, on the same prompts and seeds, as one table and one HTML page."""

from longtake.comparison.comparing import compare
from longtake.comparison.report import Report, Row, Spread

__all__ = ["Report", "Row", "Spread", "compare"]
