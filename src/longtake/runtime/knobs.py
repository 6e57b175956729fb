"""Settings of a method that a calibration may search, declared by the method itself."""

from dataclasses import dataclass

Value = bool | int | float | str


@dataclass(frozen=True)
class Knob:
    """A setting that trades likeness to a dense run for work that is saved.

    Args:
        name: of the setting, a field of the method.
        values: that are searched; where `ordered`, from careful to bold: a later one saves at least as much, and is
            expected to depart at least as far from dense. Two calibrations search the same values, so that their profiles
            can be compared.
        ordered: False for alternatives of about the same cost, of which each is tried.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool = True
