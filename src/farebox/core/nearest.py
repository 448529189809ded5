"""The listed names that a misspelt one may have meant.

Whoever asks may misspell as often as they like, so the work is bounded by the list alone: the pairs of letters that two
names share are counted, which takes half a microsecond a name, where difflib takes seven.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice

NEAREST = 3

NAME_CHARACTERS_MAX = 100
"""How much of a misspelt name is read: no model's is longer."""

LIKENESS_MIN = 0.5
"""From which on two names are alike: 1 is the same, 0 has nothing in common. One letter of four is off: 0.6."""

LISTED_KEPT = 4096
"""Names whose pairs are kept: a few times as many as any list has."""

Pairs = frozenset[str]


def nearest(name: str, listed: Iterable[str], is_allowed: Callable[[str], bool]) -> list[str]:
    """The allowed names that are most like `name`, whatever its case, the likest first. Without an author (`gpt-5`) it
    is compared with what stands after theirs."""
    name = name[:NAME_CHARACTERS_MAX].lower()
    pairs, is_whole = _pairs(name), "/" in name
    compared = ((each, each if is_whole else each.rpartition("/")[2]) for each in listed)
    scored = ((_likeness(pairs, _pairs_of_listed(text)), each) for each, text in compared)
    alike = sorted((-likeness, each) for likeness, each in scored if likeness >= LIKENESS_MIN)
    return list(islice((each for _, each in alike if is_allowed(each)), NEAREST))


def _likeness(one: Pairs, other: Pairs) -> float:
    """Dice's coefficient."""
    return 2 * len(one & other) / (len(one) + len(other))


def _pairs(name: str) -> Pairs:
    """Its pairs of neighbouring letters, the ends being letters, too."""
    return frozenset(map("".join, zip(f" {name}", f"{name} ", strict=True)))


@lru_cache(LISTED_KEPT)
def _pairs_of_listed(name: str) -> Pairs:
    return _pairs(name.lower())


def look_there(names: Sequence[str]) -> str:
    """The end of a refusal that says there is no such model: those nearest to it, if there are any, and the list."""
    said = [f"`{name}`" for name in names]
    near = f"did you mean {' or '.join(filter(None, (', '.join(said[:-1]), said[-1])))}? " if said else ""
    return f"; {near}GET /api/v1/models has the list"
