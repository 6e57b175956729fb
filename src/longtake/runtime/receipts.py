"""What a method did in a run, counted by the seam and not by the method."""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

LARGE = ("maps",)
"""Notes that hold tensors, and stay out of records."""


@dataclass
class Counts:
    """Calls of a method's sites in one branch.

    Args:
        computed: passed on as they were. skipped: not computed, something remembered or forecast took their place.
        changed: computed in another way.
    """

    computed: int = 0
    skipped: int = 0
    changed: int = 0


@dataclass
class Receipt:
    """What one method did.

    Args:
        method: its name. config: its settings.
        sites: places in the networks that it has to do with.
        branches: branch -> counts. Guidance counts under "guidance".
        macs_done, macs_dense: multiply-accumulates of the whole run with all methods, and without any; None when the
            networks' cost was not known.
        observed: calls that were looked at and left as they are.
        state_bytes: the most that the method remembered at a time.
        kernels: name of each kernel of its own -> calls. notes: what else it has to say.
    """

    method: str
    config: dict[str, Any]
    sites: int = 0
    observed: int = 0
    branches: dict[str, Counts] = field(default_factory=dict)
    macs_done: int | None = None
    macs_dense: int | None = None
    state_bytes: int = 0
    kernels: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)

    def count(self, branch: str) -> Counts:
        """Counts of a branch, which begin at 0."""
        return self.branches.setdefault(branch, Counts())

    @property
    def acted(self) -> bool:
        """Whether it did anything at all."""
        return bool(self.observed) or any(counts.skipped or counts.changed for counts in self.branches.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a record."""
        plain = {key: value for key, value in self.notes.items() if key not in LARGE}
        return {**asdict(replace(self, notes=plain)), "kernels": dict(self.kernels), "acted": self.acted}
