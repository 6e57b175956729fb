"""The search: few settings are tried, each is measured, and the one that is returned has met what it must.

Ordered knobs run from careful to bold, and bolder is presumed to cost less and to depart further from dense. So the
settings that fit lie on one side of a boundary, and the best of them at it: the boldest where likeness is bounded, the
most careful where cost is. The boundary is found by bisection,

    all ordered knobs together, from the most careful to the boldest of each   at most log2(n + 1) trials, rounded up
    then each alone, further in the same direction                             as many for each knob, if there are several

For each further combination of the values of unordered knobs one setting is tried at the place where it would be better
than the best so far: one step beyond it where likeness is bounded, and only if that fits the search goes on from there;
the same place where cost is, as likeness is what it can gain. Where the presumption does not hold the setting may be
less than the best of all, and still is one that was measured and fits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from math import ceil, log2

from longtake.runtime.knobs import Knob, Value

Setting = dict[str, Value]


class Side(Enum):
    """Where a setting lies: it fits; it does not, and neither does anything bolder, or more careful."""

    CAREFUL = "too careful"
    FITS = "fits"
    BOLD = "too bold"


Try = Callable[[Setting], Side]
"""Tries a setting, and notes what it gave."""


@dataclass(frozen=True)
class Space:
    """What is searched.

    Args:
        ordered: knobs from careful to bold.
        free: combinations of the values of the others, the first of which is searched in full; at least one, may be empty.
    """

    ordered: tuple[Knob, ...]
    free: tuple[Setting, ...]

    @property
    def length(self) -> int:
        """Places from the most careful to the boldest when all ordered knobs move together."""
        return max((len(knob.values) for knob in self.ordered), default=1)

    def together(self, place: int) -> tuple[int, ...]:
        """Index of the value of each ordered knob at one of these places."""
        last = max(self.length - 1, 1)
        return tuple(round(place * (len(knob.values) - 1) / last) for knob in self.ordered)

    def setting(self, places: Sequence[int], free: Setting) -> Setting:
        """Of the values at these indices."""
        values = {knob.name: knob.values[place] for knob, place in zip(self.ordered, places, strict=True)}
        return {**values, **free}

    def boldness(self, setting: Mapping[str, Value]) -> float:
        """Mean over ordered knobs of how far along its values each is, from 0 to 1."""
        shares = [knob.values.index(setting[knob.name]) / max(len(knob.values) - 1, 1) for knob in self.ordered]
        return sum(shares) / len(shares) if shares else 0.0

    @property
    def most(self) -> int:
        """Settings that a search tries at most."""
        one = _trials(self.length)
        if len(self.ordered) > 1:
            one += sum(_trials(len(knob.values)) for knob in self.ordered)
        return one + (len(self.free) - 1) * (one + 1)


def space_of(knobs: Sequence[Knob], defaults: Mapping[str, Value]) -> Space:
    """What there is to search in.

    Args:
        knobs: with at least one value each.
        defaults: settings of the method, whose combination of unordered values is tried first where it is among them.
    """
    free = [knob for knob in knobs if not knob.ordered]
    combinations = [
        dict(zip([knob.name for knob in free], values, strict=True)) for values in product(*(k.values for k in free))
    ]
    combinations.sort(key=lambda one: any(defaults.get(name) != value for name, value in one.items()))
    return Space(tuple(knob for knob in knobs if knob.ordered), tuple(combinations))


def search(space: Space, tried: Try, *, bold: bool) -> None:
    """Try settings until the boundary is found.

    Args:
        space: to search.
        tried: tries a setting; called once for each.
        bold: look for the boldest that fits, else for the most careful.
    """
    known: dict[tuple[tuple[int, ...], int], Side] = {}
    direction = _Direction(space, bold)
    best, spot = -1, ()  # how far along the places, and the indices of the values there

    for number in range(len(space.free)):

        def at(places: tuple[int, ...], number: int = number) -> Side:
            if (places, number) not in known:
                known[places, number] = tried(space.setting(places, space.free[number]))
            return known[places, number]

        def together(place: int, at: Callable[[tuple[int, ...]], Side] = at) -> Side:
            return at(direction.together(place))

        if best >= 0 and not bold:
            at(spot)
            continue
        if number and (best + 1 >= space.length or direction.beyond(together(best + 1))):
            continue
        found = _boundary(best + 1 if number else -1, space.length, together, direction)
        if found < 0 or together(found) is not Side.FITS:
            continue
        best, spot = found, direction.together(found)
        if len(space.ordered) > 1:
            spot = _alone(space, spot, at, direction)


@dataclass(frozen=True)
class _Direction:
    """Which way the search goes: places in its order, and when it has gone too far."""

    space: Space
    bold: bool

    def together(self, place: int) -> tuple[int, ...]:
        """As `Space.together`, counted in the order of the search."""
        return self.space.together(place if self.bold else self.space.length - 1 - place)

    def beyond(self, side: Side) -> bool:
        return side is (Side.BOLD if self.bold else Side.CAREFUL)


def _boundary(low: int, high: int, side: Callable[[int], Side], direction: _Direction) -> int:
    """The last index above `low` that is not beyond the boundary; `low` where all are."""
    while high - low > 1:
        middle = (low + high) // 2
        if direction.beyond(side(middle)):
            high = middle
        else:
            low = middle
    return low


def _alone(
    space: Space, places: tuple[int, ...], at: Callable[[tuple[int, ...]], Side], direction: _Direction
) -> tuple[int, ...]:
    """Move each knob further by itself, as far as the setting goes on to fit. Returns where that leads."""
    step = 1 if direction.bold else -1
    for number, knob in enumerate(space.ordered):

        def moved(by: int, number: int = number, places: tuple[int, ...] = places) -> tuple[int, ...]:
            return tuple(place + step * by * (i == number) for i, place in enumerate(places))

        left = len(knob.values) - 1 - places[number] if direction.bold else places[number]
        places = moved(_boundary(0, left + 1, lambda by, to=moved: at(to(by)), direction))
    return places


def _trials(count: int) -> int:
    """Of a bisection over so many places."""
    return ceil(log2(count + 1))
