"""What becomes of a member of an order in another format: the form of tables by which orders are sifted, and from which
docs/formats.md is made.

A path names a member as `messages[user].content[text].text`: in brackets stands the kind of an element (a role, or its
`type`).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Raw, Struct

from farebox.core.errors import invalid
from farebox.core.legible import Fields

Fate = Literal["as", "made", "left", "refused", "taken"]
"""Copied under a name; translated by code; left out and named; refused; left out in silence, since Farebox itself reads
it or the target needs no such word."""


class Cell(Struct, frozen=True):
    """What becomes of a member. `text` is the name in the target, or what it becomes, or what would be right.
    Where its value is one of `unless` it says nothing, and is dropped."""

    fate: Fate
    text: str
    unless: tuple[bytes, ...] = ()


class Member(Struct, frozen=True):
    """A member, or with `is_kind` a kind of element, and what becomes of it in the other formats."""

    path: str
    cells: Mapping[str, Cell]
    is_kind: bool = False


def as_(name: str) -> Cell:
    return Cell("as", name)


def made(text: str) -> Cell:
    return Cell("made", text)


def left(*unless: str) -> Cell:
    return Cell("left", "", tuple(each.encode() for each in ("null", *unless)))


def refused(text: str, *unless: str) -> Cell:
    return Cell("refused", text, tuple(each.encode() for each in ("null", *unless)))


def taken(text: str) -> Cell:
    return Cell("taken", text)


class Rules(Struct, frozen=True):
    """The cells for one target, by the path of what they are in, and then by name. `passing` are the names that nothing
    is to be done about; `copied` are an order's own members that are, with their names there."""

    members: Mapping[str, Mapping[str, Cell]]
    passing: Mapping[str, frozenset[str]]
    copied: Mapping[str, str]
    kinds: Mapping[str, Mapping[str, Cell]]


def rules_of(table: Iterable[Member], target: str) -> Rules:
    members: dict[str, dict[str, Cell]] = {}
    kinds: dict[str, dict[str, Cell]] = {}
    for row in table:
        cell = row.cells[target]
        if row.is_kind:
            parent, _, name = row.path.removesuffix("]").rpartition("[")
            kinds.setdefault(parent, {})[name] = cell
        else:
            parent, _, name = row.path.rpartition(".")
            members.setdefault(parent, {})[name] = cell
    passing = {
        path: frozenset(name for name, cell in cells.items() if cell.fate == "made") for path, cells in members.items()
    }
    copied = {name: cell.text for name, cell in members[""].items() if cell.fate == "as"}
    return Rules(members, passing, copied, kinds)


_NAME = re.compile(r"[\w.:\[\]-]{1,100}", re.ASCII)

LEFT_OUT_MAX = 32
"""How many members are named: they stand in a header."""


class Sifter:
    """Goes through an order's objects, refuses what the target cannot say, and notes what is left out."""

    __slots__ = ("_left", "_rules")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._left: dict[str, None] = {}

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out, each once, in the order in which it was met; fit for a header."""
        if not self._left:
            return ()
        return tuple(name if _NAME.fullmatch(name) else "?" for name in self._left)[:LEFT_OUT_MAX]

    def leave(self, name: str) -> None:
        self._left[name] = None

    def members(self, path: str, fields: Fields) -> Fields:
        """The members of an object that code translates; the others are refused, or left out.

        Raises:
            Refusal: 400, the target cannot say one of them.
        """
        passing = self._rules.passing[path]
        if fields.keys() <= passing:
            return fields
        for name, raw in fields.items():
            if name not in passing:
                self._drop(path, name, raw)
        return {name: raw for name, raw in fields.items() if name in passing}

    def top(self, fields: Fields) -> tuple[dict[str, Raw], Fields]:
        """The members of an order that are copied, by the target's names, and those that code translates."""
        passing, copied = self._rules.passing[""], self._rules.copied
        plain: dict[str, Raw] = {}
        rest: Fields = {}
        for name, raw in fields.items():
            if name in passing:
                rest[name] = raw
            elif name not in copied:
                self._drop("", name, raw)
            elif bytes(raw) != b"null":
                plain[copied[name]] = raw
        return plain, rest

    def _drop(self, path: str, name: str, raw: Raw) -> None:
        """See to a member that does not go on: refuse it, or note that it is left out where it says something."""
        cell = self._rules.members[path].get(name)
        whole = f"{path}.{name}" if path else name
        if cell is None:
            if bytes(raw) != b"null":
                self.leave(whole)
        elif cell.fate != "taken" and bytes(raw) not in cell.unless:
            if cell.fate == "refused":
                raise invalid(f"{whole}: {cell.text}")
            self.leave(whole)

    def kind(self, path: str, kind: str) -> None:
        """Check that the target has a kind of element.

        Raises:
            Refusal: 400, it does not.
        """
        cell = self._rules.kinds[path].get(kind)
        if cell is None:
            known = ", ".join(f"`{each}`" for each, one in self._rules.kinds[path].items() if one.fate != "refused")
            raise invalid(f"{path}: `{kind}` cannot be put into the format of this model's host; it has {known}")
        if cell.fate == "refused":
            raise invalid(f"{path}[{kind}]: {cell.text}")


def needed(fields: Fields, name: str, path: str = "") -> Raw:
    """A text that an object must have. Raises Refusal 400."""
    value = fields.get(name)
    if value is None or not bytes(value).startswith(b'"'):
        raise invalid(f"{path}.{name}: give a text" if path else f"{name}: give a text")
    return value
