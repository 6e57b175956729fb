"""What one run has cost and what its methods did, and the call of a network in which it is."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from longtake.runtime.macs import Costs, Counting
from longtake.runtime.nouns import StepInfo, TokenGrid
from longtake.runtime.receipts import Receipt


@dataclass
class Ledger:
    """What one run has cost and what its methods did.

    Args:
        receipts: one for each method. done, dense: multiply-accumulates so far; `unknown` once a call's are not known.
        closed: the run is over. judged: methods that did nothing in it have been complained about.
        alone: steps whose prediction without the prompt was left out; it would have cost as much as the one with it.
    """

    receipts: list[Receipt]
    done: int = 0
    dense: int = 0
    unknown: bool = False
    closed: bool = False
    judged: bool = False
    alone: set[int] = field(default_factory=set)


@dataclass
class Call:
    """The call of the network that is going on.

    Args:
        costs: of the whole call without methods; None while they are not known. kind: what all calls that cost as much have
            in common; None for a call of which no other tells.
        saved: names of modules that were not computed as they are. extra: multiply-accumulates of methods' own work.
        unseen: something was not computed, so that what the call costs densely cannot be counted in it.
        kept: what methods keep of this run and branch, by their number and the site's name. steps: of this step, by number.
    """

    info: StepInfo
    grid: TokenGrid
    ledger: Ledger
    costs: Costs | None
    kind: Hashable | None
    kept: dict[tuple[int, str], dict[str, Any]]
    steps: dict[int, dict[str, Any]]
    saved: list[tuple[str, ...]] = field(default_factory=list)
    extra: int = 0
    unseen: bool = False
    counting: Counting | None = None
