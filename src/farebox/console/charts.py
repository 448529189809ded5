"""Fares over time as bars, to be drawn by a template: whole numbers in a grid, since a browser scales them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEIGHT = 1000
WIDTH = 24
GAP = 6
"""The grid: so high is the highest bar, so wide is a bar, and the gap after it."""

NAMED_MAX = 4
"""So many names have a colour of their own; the others are one together."""

OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar: where it stands in the grid, and which of the chart's names it is of."""

    x: int
    y: int
    height: int
    name: int


@dataclass(frozen=True, slots=True)
class Bars:
    """`days` have what each adds up to, `names` are those of the parts, the largest first, with their sums."""

    days: Sequence[tuple[int, int]]
    names: Sequence[tuple[str, int]]
    parts: Sequence[Part]
    table: Sequence[tuple[int, Sequence[int]]]
    most_nanos: int

    @property
    def width(self) -> int:
        return max(1, len(self.days) * (WIDTH + GAP) - GAP)


def bars(spent: Mapping[tuple[int, str], int], first_day: int, last_day: int) -> Bars:
    """Bars of nano-dollars by day and name, for each of the days."""
    sums: dict[str, int] = {}
    for (_, name), nanos in spent.items():
        sums[name] = sums.get(name, 0) + nanos
    ranked = sorted(sums, key=lambda name: (-sums[name], name))
    named, rest = ranked[:NAMED_MAX], ranked[NAMED_MAX:]
    days = range(first_day, last_day + 1)
    table = [(day, [*(spent.get((day, name), 0) for name in named), *_others(spent, day, rest)]) for day in days]
    most = max((sum(values) for _, values in table), default=0)
    names = [(name, sums[name]) for name in named]
    if rest:
        names.append((OTHERS, sum(sums[name] for name in rest)))
    parts: list[Part] = []
    for place, (_, values) in enumerate(table):
        top = HEIGHT
        for number, nanos in enumerate(values):
            height = nanos * HEIGHT // most if most else 0
            # What was spent is seen, however little it was.
            height = max(height, 8) if nanos else 0
            top = max(0, top - height)
            if height:
                parts.append(Part(place * (WIDTH + GAP), top, height, number))
    return Bars([(day, sum(values)) for day, values in table], names, parts, table, most)


def _others(spent: Mapping[tuple[int, str], int], day: int, rest: Sequence[str]) -> list[int]:
    return [sum(spent.get((day, name), 0) for name in rest)] if rest else []
