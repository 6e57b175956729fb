"""What one run has cost and what its methods did, while it goes on and behind it."""

from dataclasses import dataclass, field
from typing import Any

from longtake.runtime.macs import Costs
from longtake.runtime.receipts import Receipt


@dataclass
class Ledger:
    """What one run has cost and what its methods did.

    Args:
        receipts: one for each method. done, dense: multiply-accumulates so far; `unknown` once a call's are not known.
        costs: of a call, by network, branch and form of what it is given. closed: the run is over. judged: methods that did
            nothing in it have been complained about.
        alone: steps whose prediction without the prompt was left out; it would have cost as much as the one with it.
    """

    receipts: list[Receipt]
    done: int = 0
    dense: int = 0
    unknown: bool = False
    closed: bool = False
    judged: bool = False
    costs: dict[Any, Costs] = field(default_factory=dict)
    alone: set[int] = field(default_factory=set)
