"""Reading what a manager sends: members of a JSON object, each with an error that names it."""

from datetime import date, datetime
from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import Raw

from farebox import clock
from farebox.core.allowances import LAST_DAY, LIMIT_NAMES, MODELS
from farebox.core.errors import invalid
from farebox.core.money import parse_usd
from farebox.core.reading import UNREADABLE, is_null, json_path_error

Value = TypeVar("Value")

_DIGITS_MAX = 20
"""The most digits before or after the point: more than any amount has, and few enough to write out."""


class Fields(dict[str, Raw]):
    """An object's members, not read yet. Each reader raises Refusal 400, and returns None where its member is absent or
    null. `within` is what goes before a member's name in the error."""

    @classmethod
    def of(cls, body: bytes) -> "Fields":
        try:
            return cls(msgspec.json.decode(body, type=dict[str, Raw]))
        except UNREADABLE as error:
            raise invalid(json_path_error(error)) from error

    def check_names(self, *names: str, within: str = "", what: str = "member") -> None:
        for name in self:
            if name not in names:
                raise invalid(f"{within}{name}: there is no such {what}; there are {', '.join(names)}")

    def _read(self, name: str, kind: type[Value], wanted: str, within: str = "") -> Value | None:
        if name not in self or is_null(self[name]):
            return None
        try:
            return msgspec.json.decode(self[name], type=kind)
        except UNREADABLE as error:
            raise invalid(f"{within}{name}: {wanted}") from error

    def text(self, name: str) -> str | None:
        text = self._read(name, str, "write a text")
        if text is not None and "\0" in text:
            raise invalid(f"{name}: write a text without NUL characters")
        return text

    def flag(self, name: str) -> bool | None:
        return self._read(name, bool, "write true or false")

    def number(self, name: str, within: str = "") -> str | None:
        """A number as plain text, however it was written: `100.0` and `1e2` are `100`."""
        given = self._read(name, Decimal, "write a number", within)
        if given is None:
            return None
        if not given.is_finite() or not -_DIGITS_MAX < given.adjusted() < _DIGITS_MAX:
            raise invalid(f"{within}{name}: {given:.3e} is no amount or count")
        return format(given.to_integral_value() if given == given.to_integral_value() else given, "f")

    def amount(self, name: str) -> int | None:
        """An amount in USD, as nano-dollars."""
        number = self.number(name)
        try:
            return None if number is None else parse_usd(number)
        except ValueError as error:
            raise invalid(f"{name}: {error}") from error

    def limits(self, name: str = "farebox_limits") -> dict[str, str | list[str] | None]:
        """Changes of limits, as `Accounts.limit` takes them."""
        limits = Fields(self._read(name, dict[str, Raw], "write an object of limits") or {})
        limits.check_names(*LIMIT_NAMES, within=f"{name}.", what="limit")
        patterns = "write a list of model ids or patterns"
        return {
            limit: limits._read(limit, list[str], patterns) if limit == MODELS else limits.number(limit, f"{name}.")
            for limit in limits
        }

    def moment(self, name: str) -> int | None:
        """A moment, in microseconds since 1970."""
        text = self.text(name)
        if text is None:
            return None
        try:
            at = datetime.fromisoformat(text)
        except ValueError as error:
            raise invalid(f"{name}: write it like 2027-12-31T23:59:59Z, not {text[:40]!r}") from error
        if at.utcoffset() is None or at.utcoffset():
            raise invalid(f"{name}: write it in UTC, like 2027-12-31T23:59:59Z")
        return clock.us_of(at.replace(microsecond=0))


def day_of_date(text: str, name: str = "date") -> int:
    """A day since 1970. Raises Refusal 400, which says by `name` what is wrong."""
    try:
        day = (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError as error:
        raise invalid(f"{name}: write it like 2026-08-24, not {text[:40]!r}") from error
    if not 0 <= day <= LAST_DAY:
        raise invalid(f"{name}: write a day of a year from 1970 to 9998, not {text[:40]!r}")
    return day
