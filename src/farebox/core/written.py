"""Tables that people write, as structs: all that is wrong in one is found at once, each by its name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, structs

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


class Table(Struct, kw_only=True, frozen=True):
    """What one table may have in it. Each member has its type, and a `Meta` with its description and bounds."""

    CHECKS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    """What a member must be beside its type, by its name: gives the value, perhaps tidied, or raises ValueError. How
    members fit together is `__post_init__`'s to look at."""


T = TypeVar("T", bound=Table)


class Secret:
    """A text that no log, listing or traceback shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._text


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong: where, in words, and what was given (None where nothing was, or no single value)."""

    path: tuple[str, ...]
    words: str
    given: object = None
    known: tuple[str, ...] | None = None
    """Of a member that there is not: those that there are."""


class WrongTable(Exception):  # noqa: N818
    """All that is wrong in a table."""

    def __init__(self, wrongs: list[Wrong]) -> None:
        super().__init__(wrongs)
        self.wrongs = wrongs


def read(kind: type[T], given: Mapping[str, object], path: tuple[str, ...] = ()) -> T:
    """A table as a struct; texts may stand for numbers and truths, as in the environment. Raises WrongTable."""
    fields = {field.name: field for field in structs.fields(kind)}
    wrongs = [
        Wrong((*path, name), "there is no such setting", known=tuple(fields)) for name in given if name not in fields
    ]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        where = (*path, name)
        if name not in given:
            if field.required:
                wrongs.append(Wrong(where, "is not set, and has no default"))
            continue
        try:
            value = _value(field.type, given[name], where)
            values[name] = kind.CHECKS[name](value) if name in kind.CHECKS else value
        except WrongTable as error:
            wrongs += error.wrongs
        except (msgspec.ValidationError, ValueError) as error:
            wrongs.append(Wrong(where, _words(field.type, str(error)), given[name]))
    if not wrongs:
        try:
            return kind(**values)
        except ValueError as error:
            wrongs.append(Wrong(path, str(error)))
    raise WrongTable(wrongs)


def _value(kind: Any, given: object, path: tuple[str, ...]) -> Any:
    within = _table_within(kind)
    if within is None or not isinstance(given, Mapping):
        return msgspec.convert(given, kind, strict=False, dec_hook=_secret)
    found: dict[str, Table] = {}
    wrongs: list[Wrong] = []
    for name, table in given.items():
        if not isinstance(table, Mapping):
            wrongs.append(Wrong((*path, name), "write a table of members", table))
            continue
        try:
            found[name] = read(within, table, (*path, name))
        except WrongTable as error:
            wrongs += error.wrongs
    if wrongs:
        raise WrongTable(wrongs)
    return found


def _secret(kind: type, given: object) -> Secret:
    if kind is not Secret or not isinstance(given, str):
        raise ValueError("write a text")
    return Secret(given)


def _table_within(kind: Any) -> type[Table] | None:
    """Of what tables a table of tables is made."""
    if get_origin(kind) is Annotated:
        return _table_within(get_args(kind)[0])
    if get_origin(kind) is dict and isinstance(value := get_args(kind)[1], type) and issubclass(value, Table):
        return value
    return None


def _words(kind: Any, said: str) -> str:
    """msgspec's words, of TOML's types, with the names that there are where one is none of them."""
    said = said.replace("`array`", "a list").replace("`object`", "a table").replace(" | null", "")
    names = [repr(name) for name in _literals(kind)]
    if not names or not said.startswith("Invalid enum value"):
        return said
    return f"write {', '.join(names[:-1])} or {names[-1]}"


def _literals(kind: Any) -> Iterator[object]:
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    else:
        for part in get_args(kind):
            yield from _literals(part)
