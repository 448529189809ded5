"""A ledger in double entry: what stands in it, whatever file it is written to. The postings of an entry come to
nothing."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from hashlib import sha256

from msgspec import Struct

from farebox.core.money import add_exact

Facts = tuple[tuple[str, str], ...]
"""What is known beside amounts, by names in small letters."""


class Posting(Struct, frozen=True):
    """By how much, in USD, an entry changes an account of the ledger."""

    account: str
    amount: Decimal
    facts: Facts = ()


class Opened(Struct, frozen=True):
    """An account of the ledger, before it is first posted to. `name` is what it stands for, as it is really written."""

    account: str
    name: str = ""


class Entry(Struct, frozen=True):
    """Something that happened on a UTC day (since 1970)."""

    day: int
    payee: str
    narration: str
    postings: tuple[Posting, ...]
    facts: Facts = ()


class Asserted(Struct, frozen=True):
    """What an account of the ledger comes to at the end of a day, so that a tool can say if the file was changed."""

    day: int
    account: str
    amount: Decimal


Line = Opened | Entry | Asserted

_PLAIN = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_MARKED = re.compile(r"-[0-9a-f]{6}$")
_LEFT_OUT = re.compile(r"[^A-Za-z0-9]+")
_MARK = 6
_NAME_MAX = 60
_PLACES = 9


def component(name: str) -> str:
    """A name as a part of an account's name, as beancount has them: ASCII letters, digits and hyphens, the first no
    small letter. Always the same for the same name; where something of the name is lost, six digits of its SHA-256 are
    added, so that no two names become one."""
    if _PLAIN.fullmatch(name) and len(name) <= _NAME_MAX and not _MARKED.search(name):
        return name[0].upper() + name[1:]
    return marked(name, sha256(name.encode()).hexdigest()[:_MARK])


def marked(name: str, mark: str) -> str:
    """The same, of what is told from others by a mark, whatever it is called."""
    left = _LEFT_OUT.sub("-", name).strip("-")[:_NAME_MAX].strip("-") or "x"
    return f"{left[0].upper()}{left[1:]}-{mark}"


def amount_text(amount: Decimal) -> str:
    """An exact amount with as many decimals as nano-dollars have, or more where it is finer. Tools allow for what is
    smaller than the last digit of an amount: with fewer digits, an error of some nano-dollars would pass."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(_PLACES, '0')}"


def sum_of(amounts: Iterable[Decimal]) -> Decimal:
    """Their exact sum."""
    total = Decimal(0)
    for amount in amounts:
        total = add_exact(total, amount)
    return total


def balanced(postings: Iterable[Posting]) -> tuple[Posting, ...]:
    """The postings of one entry."""
    found = tuple(postings)
    assert not sum_of(posting.amount for posting in found), found
    return found


def facts_of(values: Mapping[str, object]) -> Facts:
    """Those that there are."""
    return tuple((name, str(value)) for name, value in values.items() if value not in (None, ""))


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """A text without line ends and other control characters."""
    return _CONTROL.sub(" ", text).strip()
