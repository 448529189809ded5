"""What is said of members that are not carried over, and what may be shown of them."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from msgspec import Struct

from farebox.core.moving.litellm_members import Member

ENVIRONMENT = "os.environ/"
"""Before the name of a variable, where LiteLLM shall read that."""

SHOWN_CHARS_MAX = 60

_SECRET = ("key", "secret", "password", "token", "credential", "url", "header", "auth", "dsn", "webhook")
"""Members with these in their names are never shown."""

_NUMBER_MAX = 10**15
_NUMBER_DIGITS_MAX = 30


class BadConfig(Exception):  # noqa: N818 - the word of the house
    """The configuration cannot be read. The message has a line for each mistake: where it is, and what is wrong."""


class Note(Struct, frozen=True):
    """What an operator should know of the member at `where`."""

    where: str
    words: str

    def __str__(self) -> str:
        return f"{self.where}: {self.words}"


def not_carried(where: str, words: str) -> Note:
    return Note(where, f"not carried over: {words}")


def left(member: Member, name: str, where: str, value: object) -> list[Note]:
    """The note of a member that the table does not carry over; none where it has no value."""
    if value is None:
        return []
    shown = _shown(name, value)
    return [not_carried(f"{where} = {shown}" if shown else where, member.words)]


def _shown(name: str, value: object) -> str:
    """A value, where it can be no key: numbers, yes and no, and names of variables."""
    if any(each in name.lower() for each in _SECRET) and "_cost" not in name:
        return ""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            text = str(value)
            return text if len(text) <= SHOWN_CHARS_MAX else ""
        case _:
            return ""


def plain(name: object) -> str:
    """A name that may stand in a message."""
    text = str(name) if isinstance(name, (str, int)) else what(name)
    return "".join(each if each.isprintable() else "?" for each in text[:SHOWN_CHARS_MAX])


def what(value: object) -> str:
    """What kind of thing stands where another should."""
    match value:
        case None:
            return "missing"
        case bool():
            return "true or false"
        case int() | Decimal():
            return "a number"
        case str():
            return "empty" if not value.strip() else "a text"
        case list():
            return "a list"
        case Mapping():
            return "a table"
        case _:
            return "something else"


def number_of(given: object) -> Fraction | None:
    """A number as it was written; None where it is none, or one that nobody means."""
    if isinstance(given, bool) or not isinstance(given, (int, str, Decimal)):
        return None
    try:
        number = Decimal(given)
    except (InvalidOperation, ValueError):
        return None
    if not number.is_finite() or abs(number.adjusted()) > _NUMBER_DIGITS_MAX or abs(number) > _NUMBER_MAX:
        return None
    return Fraction(number)
