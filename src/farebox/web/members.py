"""Reading what a manager sends: members of a JSON object, each with an error that names it."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw

from farebox import clock
from farebox.core.allowances import LIMIT_NAMES
from farebox.core.errors import invalid
from farebox.core.money import parse_usd
from farebox.core.reading import UNREADABLE, is_null, json_path_error

Fields = dict[str, Raw]
"""An object's members, not read yet. Each reader raises Refusal 400, and returns None where its member is absent or
null."""

_DIGITS_MAX = 20
"""The most digits before or after the point: more than any amount has, and few enough to write out."""


def check_names(fields: Fields, *names: str) -> None:
    for name in fields:
        if name not in names:
            raise invalid(f"{name}: there is no such member; there are {', '.join(names)}")


_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def fields_of(body: bytes) -> Fields:
    try:
        return _decode_fields(body)
    except UNREADABLE as error:
        raise invalid(json_path_error(error)) from error


def _decoded(fields: Fields, name: str, kind: Any, what: str) -> Any:
    """A member, or None where it is absent or null."""
    if name not in fields or is_null(fields[name]):
        return None
    try:
        return msgspec.json.decode(fields[name], type=kind)
    except UNREADABLE as error:
        raise invalid(f"{name}: {what}") from error


def text_of(fields: Fields, name: str) -> str | None:
    value: str | None = _decoded(fields, name, str, "write a text")
    return value


def flag_of(fields: Fields, name: str) -> bool | None:
    value: bool | None = _decoded(fields, name, bool, "write true or false")
    return value


def number_of(raw: Raw, name: str) -> str:
    """A number as plain text, however it was written: `100.0` and `1e2` are `100`."""
    try:
        given = msgspec.json.decode(raw, type=Decimal)
    except UNREADABLE as error:
        raise invalid(f"{name}: write a number") from error
    if not given.is_finite() or not -_DIGITS_MAX < given.adjusted() < _DIGITS_MAX:
        raise invalid(f"{name}: {given:.3e} is no amount or count")
    return format(given.to_integral_value() if given == given.to_integral_value() else given, "f")


def amount_of(fields: Fields, name: str) -> int | None:
    if name not in fields or is_null(fields[name]):
        return None
    try:
        return parse_usd(number_of(fields[name], name))
    except ValueError as error:
        raise invalid(f"{name}: {error}") from error


def limits_of(fields: Fields, name: str = "farebox_limits") -> dict[str, str | list[str] | None]:
    members: Fields = _decoded(fields, name, dict[str, Raw], "write an object of limits") or {}
    given: dict[str, str | list[str] | None] = {}
    for limit, raw in members.items():
        if is_null(raw):
            given[limit] = None
        elif limit == "models":
            given[limit] = _decoded(members, limit, list[str], "write a list of model ids or patterns")
        elif limit in LIMIT_NAMES:
            given[limit] = number_of(raw, f"{name}.{limit}")
        else:
            raise invalid(f"{name}.{limit}: there is no such limit; there are {', '.join(LIMIT_NAMES)}")
    return given


def moment_of(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(f"{name}: write it like 2027-12-31T23:59:59Z, not {text[:40]!r}") from error
    if at.utcoffset() is None or at.utcoffset():
        raise invalid(f"{name}: write it in UTC, like 2027-12-31T23:59:59Z")
    return clock.us_of(at.replace(microsecond=0))


def day_of_date(text: str) -> int:
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError as error:
        raise invalid(f"date: write it like 2026-08-24, not {text[:40]!r}") from error
