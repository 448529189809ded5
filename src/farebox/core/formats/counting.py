"""Counting what an answer used, for upstreams that tell usage and no cost.

Strict, unlike all other reading of answers: who guesses here, charges a guess. A usage that is negative, no whole
number, larger in its parts than as a whole, or that says one thing twice and differently, is Unknown; so is one that
counts something that is not known here.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NoReturn, Protocol

import msgspec
from msgspec import Raw

from farebox.core.kinds import TOKENS_MAX
from farebox.core.legible import Fields, decode_fields, legible_if_needed
from farebox.core.reading import UNREADABLE, skip_to_json
from farebox.core.usage import Unknown, Usage

_DIGITS_MAX = 19
_TIER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_USUAL_TIERS = frozenset(("", "auto", "default", "standard", "on_demand", "global", "not_available"))
"""Names of the terms on which everybody is served: of service tiers, speeds, and places. (`on_demand` is Groq's.)"""


class Counting(Protocol):
    """Counts what one answer used, from its events or its body as they came."""

    def see_event(self, event: bytes) -> None:
        """Take note of one whole server-sent event."""

    def see_answer(self, body: bytes) -> None:
        """Take note of a whole answer."""

    def usage(self) -> Usage | Unknown | None:
        """What was used; Unknown where what was told cannot be right; None where the answer's end has not come, or
        nothing was told."""


class Wrong(Exception):  # noqa: N818 - the word of the house
    """A usage cannot be right; the message says why. Raised and caught here and in the formats' countings alone."""


class Reading:
    """The part of a Counting that formats share: what is wrong stays wrong, whatever comes after."""

    def __init__(self) -> None:
        self.wrong: Unknown | None = None

    def attempt(self, read: Callable[[bytes], None], data: bytes) -> None:
        if self.wrong is not None:
            return
        try:
            read(data)
        except Wrong as error:
            self.wrong = Unknown(f"the usage told cannot be charged: {error}")


def members(text: bytes | Raw) -> Fields:
    """An answer's or an event's members, unread: what is long in it costs nothing. Raises Wrong."""
    body = skip_to_json(bytes(text))
    if body.count(b'"usage"') > 1:
        strictly(body)
    try:
        return decode_fields(body)
    except UNREADABLE as error:
        raise Wrong("what came is no JSON object") from error


def value_of(fields: Fields, name: str) -> Any:
    """What one of those members is; None where it is absent. Raises Wrong."""
    return strictly(bytes(fields[name])) if name in fields else None


def usage_in(fields: Fields) -> Mapping[str, Any] | None:
    """The usage among those members; None where there is none. Raises Wrong."""
    usage = value_of(fields, "usage")
    if usage is not None and not isinstance(usage, dict):
        raise Wrong("`usage` is no object")
    return usage


def strictly(text: bytes) -> Any:
    """The value of a JSON text. Numbers with a fraction or an exponent come as floats, and are no counts.

    Raises:
        Wrong: it is no JSON, or an object in it says one thing twice, and differently.
    """
    try:
        value = _decode(text)
        if text.count(b":") == _members_in(value):
            return value  # no name stands in it twice, of which the last would have counted
    except UNREADABLE:
        pass  # not valid JSON, perhaps, and legible all the same
    try:
        return json.loads(legible_if_needed(text), object_pairs_hook=_once, parse_int=_whole, parse_constant=_whole)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"it is not JSON ({str(error)[:80]})") from error


_decode = msgspec.json.Decoder().decode


def _members_in(value: Any) -> int:
    """How many members the objects in a value have: as many as its text has colons, where no text in it has one."""
    within: Iterable[Any]
    if type(value) is dict:
        number, within = len(value), value.values()
    elif type(value) is list:
        number, within = 0, value
    else:
        return 0
    for each in within:
        if type(each) is dict or type(each) is list:
            number += _members_in(each)
    return number


def _whole(digits: str) -> int | float:
    """Python reads no more than some thousand digits as an integer; a float is no count."""
    return int(digits) if len(digits) <= _DIGITS_MAX and digits[-1].isdigit() else float("inf")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and repr(found[name]) != repr(value):
            raise Wrong(f"`{name[:40]}` stands in it twice, and differs")
        found[name] = value
    return found


def member(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object in a usage; an empty one where it is absent or null. Raises Wrong."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Wrong(f"`{name}` is no object")
    return value


Counts = Mapping[str, int]


def counts_in(fields: Mapping[str, Any], known: Collection[str], within: str = "") -> Counts:
    """The counts of these known names in an object, without those that are null. Refuses what is counted under other
    names: nobody knows what it costs. In a usage itself only members that are called `..._tokens` are counts; `within`
    one of its details each number is. Raises Wrong."""
    found: dict[str, int] = {}
    for name, value in fields.items():
        if name in known:
            if value is not None:
                found[name] = value if type(value) is int and 0 <= value <= TOKENS_MAX else _no_count(name, value)
        elif isinstance(value, (int, float)) and value != 0 and (within or name.endswith("_tokens")):
            raise Wrong(f"it counts `{f'{within}.{name}' if within else name}`, which is not known here")
    return found


def _no_count(name: str, value: object) -> NoReturn:
    if type(value) is not int or abs(value) >= 10**_DIGITS_MAX:
        raise Wrong(f"`{name}` is no whole number")
    raise Wrong(f"`{name}` is {'negative' if value < 0 else 'more than any answer uses'}")


def counted(fields: Mapping[str, Any], name: str) -> int | None:
    """One count; None where it is absent or null. Raises Wrong."""
    return counts_in({name: fields.get(name)}, (name,)).get(name)


def details(fields: Mapping[str, Any], name: str, known: Collection[str]) -> Counts:
    """The counts in one of a usage's details, as `counts_in`; none where it is absent or null. Raises Wrong."""
    return counts_in(member(fields, name), known, name)


def needed(counts: Counts, name: str) -> int:
    """A count that must be there. Raises Wrong."""
    if name not in counts:
        raise Wrong(f"`{name}` is missing")
    return counts[name]


def agreed(*values: int | None) -> int:
    """One count that is told under several names; 0 where it is told under none. Raises Wrong."""
    told = {value for value in values if value is not None}
    if len(told) > 1:
        raise Wrong(f"it says {' and '.join(map(str, sorted(told)))} of the same tokens")
    return told.pop() if told else 0


def rest(whole: int, name: str, **parts: int) -> int:
    """What is left of a whole that its parts lie in. Raises Wrong."""
    left = whole - sum(parts.values())
    if left < 0:
        shown = ", ".join(f"{part} {count}" for part, count in parts.items() if count)
        raise Wrong(f"the parts of `{name}` are larger than it: {whole}, {shown}")
    return left


def terms_of(*told: object) -> str:
    """The terms that an answer was served on, from its tier, speed or place; "" where all are usual. Raises Wrong."""
    named = []
    for value in told:
        if value is None:
            continue
        if not isinstance(value, str) or not (value in _USUAL_TIERS or _TIER.fullmatch(value)):
            raise Wrong(f"it was served on terms that are not readable: {str(value)[:40]!r}")
        if value not in _USUAL_TIERS:
            named.append(value)
    return "+".join(named)
