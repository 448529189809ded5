"""Price files: `prices.toml`, in which an operator says what the models of upstreams cost that tell no cost.

`docs/prices.md` is its reference. Prices are read from their digits: a number in TOML is as exact here as a text.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, TypeVar

from farebox.core.tariffs import FREE, Borrowed, Declared, Entry, TokenPrices, canonical

FILE_BYTES_MAX = 4 * 2**20
"""Tens of thousands of entries."""

PRICE_DIGITS_MAX = 20
"""Longest price, in significant digits and after the point: what is longer came out of a calculation in floats."""

TOKEN_USD_MAX = Decimal("0.01")
"""A higher price of one token is one for a million that `per` does not say so of: the dearest that were ever listed are
below a tenth of it."""

REQUEST_USD_MAX = Decimal(100)

_PER_REQUEST = ("search", "request")
PRICES = TokenPrices.__struct_fields__
_MEMBERS = ("upstream", "model", "from", "per", "terms", "above_prompt_tokens", "free", "openrouter", *PRICES)
_PER = {"token": 0, "million": -6}
T = TypeVar("T")

_US = 1_000_000
_NAME_CHARS_MAX = 200


class BadPrices(Exception):  # noqa: N818 - the word of the house
    """A price file is wrong. The message has a line for each mistake: the file, the entry, the member, what is wrong
    and what would be right."""


class _Wrong(Exception):  # noqa: N818
    """What is wrong with a member of an entry."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")


def read_price_file(text: bytes, name: str) -> tuple[Declared, ...]:
    """The entries of a price file that is called `name`, in their order.

    Raises:
        BadPrices: with all that is wrong in it.
    """
    wrong: list[str] = []
    found: list[tuple[str, Declared]] = []
    for number, table in enumerate(_tables(text, name), start=1):
        place = f"{name}: [[prices]] {number}{_shown(table)}"
        members = _Members(table)
        entry = _read_entry(members)
        wrong += [f"{place}: {each}" for each in members.wrong]
        if not members.wrong:
            found.append((place, entry))
    wrong += _clashes(found)
    if wrong:
        raise BadPrices("\n".join(wrong))
    return tuple(entry for _, entry in found)


def _clashes(found: list[tuple[str, Declared]]) -> Iterator[str]:
    """What is wrong between entries that are right alone."""
    seen: dict[tuple[str, str, str, int], set[int]] = {}
    tiers: dict[tuple[str, str, str, int], str] = {}
    for place, entry in found:
        above = entry.above_prompt_tokens if isinstance(entry, Entry) else 0
        terms = entry.terms if isinstance(entry, Entry) else ""
        key = (entry.upstream, entry.model, terms, entry.since_us)
        if above in seen.setdefault(key, set()):
            yield f"{place}: from: another entry has prices of the same from the same moment on; keep one of them"
        seen[key].add(above)
        if above:
            tiers[key] = place
    for key, place in tiers.items():
        if 0 not in seen[key]:
            yield f"{place}: above_prompt_tokens: no entry from the same moment on says what shorter prompts cost"


def _tables(text: bytes, name: str) -> list[Mapping[str, Any]]:
    if len(text) > FILE_BYTES_MAX:
        raise BadPrices(f"{name}: it is longer than {FILE_BYTES_MAX} bytes, which no price file is")
    # Only here: who has no such file need not carry it.
    import tomllib

    try:
        read = tomllib.loads(text.decode(), parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise BadPrices(f"{name}: it is not UTF-8, as TOML must be (byte {error.start})") from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise BadPrices(f"{name}: it is no TOML: {str(error) or 'it is nested too deeply'}") from error
    tables = read.pop("prices", [])
    if read:
        unknown = ", ".join(f"`{each[:40]}`" for each in read)
        raise BadPrices(f"{name}: {unknown}: not known here; a price file has [[prices]] entries and nothing else")
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise BadPrices(f"{name}: prices: write each entry under a heading [[prices]], with two brackets")
    return tables


def _shown(table: Mapping[str, Any]) -> str:
    named = [str(table[name])[:60] for name in ("upstream", "model") if isinstance(table.get(name), str)]
    return f" ({', '.join(named)})" if named else ""


class _Members:
    """An entry's members as they are read, and all that is wrong with them."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.table = table
        self.wrong: list[str] = []

    def read(self, read: Callable[..., T], *given: object, otherwise: T) -> T:
        try:
            return read(*given)
        except _Wrong as error:
            self.wrong.append(str(error))
            return otherwise


def _read_entry(members: _Members) -> Declared:
    """What it says, as far as that can be read; what cannot be is in `members.wrong`."""
    table, read = members.table, members.read
    members.wrong += _unknown_members(table)
    upstream = read(_name, table, "upstream", otherwise="")
    model = read(_name, table, "model", otherwise="")
    since_us = read(_since_us, table.get("from"), otherwise=0)
    is_borrowed = "openrouter" in table
    listed = read(_name, table, "openrouter", otherwise="") if is_borrowed else ""
    is_free = read(_is_free, table.get("free", False), otherwise=False)
    members.wrong += _contradictions(table, is_free=is_free, is_borrowed=is_borrowed)
    if is_borrowed:
        return Borrowed(upstream=upstream, model=model, listed=listed, since_us=since_us)
    return Entry(
        upstream=upstream,
        model=model,
        since_us=since_us,
        terms=read(_name, table, "terms", otherwise="") if "terms" in table else "",
        above_prompt_tokens=read(_tokens, table.get("above_prompt_tokens", 0), otherwise=0),
        prices=FREE if is_free else _prices(members),
        is_free=is_free,
    )


def _unknown_members(table: Mapping[str, Any]) -> Iterator[str]:
    for name in table:
        if name not in _MEMBERS:
            near = get_close_matches(name, _MEMBERS, n=1)
            yield f"{name[:40]}: there is no such member{f'; did you mean `{near[0]}`?' if near else ''}"


def _contradictions(table: Mapping[str, Any], *, is_free: bool, is_borrowed: bool) -> Iterator[str]:
    priced = [name for name in (*PRICES, "per") if name in table]
    if is_free and (priced or is_borrowed):
        yield f"free: it costs nothing, and has `{(priced or ['openrouter'])[0]}`; keep one of them"
    if is_borrowed and priced:
        yield f"openrouter: its prices are OpenRouter's, and it has `{priced[0]}`; keep one of them"
    if is_borrowed and ("terms" in table or "above_prompt_tokens" in table):
        yield "openrouter: its list says itself for which prompts; leave `terms` and `above_prompt_tokens` out"


def _prices(members: _Members) -> TokenPrices:
    table = members.table
    per = table.get("per", "token")
    if not isinstance(per, str) or per not in _PER:
        members.wrong.append(f'per: write "token" (as where it is absent) or "million", not {str(per)[:40]!r}')
    found: dict[str, Decimal] = {}
    for name in PRICES:
        if name in table:
            scale = 0 if name in _PER_REQUEST else _PER.get(str(per), 0)
            found[name] = members.read(_price, name, table[name], scale, otherwise=Decimal(0))
        elif name in ("prompt", "answer"):
            members.wrong.append(
                f'{name}: missing, and nothing is free by omission: give a price, "0" for none, or `free = true`'
            )
    return TokenPrices(**found)


def _price(name: str, given: object, scale: int) -> Decimal:
    """A price in USD for one. Text and numbers are read by their digits. Raises _Wrong."""
    shown = str(given)[:40]
    if isinstance(given, bool) or not isinstance(given, (str, int, Decimal)):
        raise _Wrong(name, f'write a price in USD like "0.000003", not {shown!r}')
    if len(str(given)) > 2 * PRICE_DIGITS_MAX:
        raise _Wrong(
            name, f"{shown}... has {len(str(given))} characters; a price has {PRICE_DIGITS_MAX} digits at most"
        )
    try:
        price = Decimal(given.strip() if isinstance(given, str) else given)
    except InvalidOperation as error:
        raise _Wrong(name, f'{shown!r} is no number; write a price in USD like "0.000003"') from error
    if not price.is_finite():
        raise _Wrong(name, f'{shown!r} is no amount; write a price in USD like "0.000003"')
    if price < 0:
        raise _Wrong(name, f"{shown} is below zero; a price is 0 or more")
    if not price:
        return Decimal(0)
    if abs(price.adjusted()) > 2 * PRICE_DIGITS_MAX:
        raise _Wrong(name, f"{shown} is no price that anybody asks; write USD")
    exact = canonical(price)
    if _digits(exact) <= PRICE_DIGITS_MAX:
        exact = canonical(exact.scaleb(scale))
    if _digits(exact) > PRICE_DIGITS_MAX:
        raise _Wrong(name, f"{shown} has more than {PRICE_DIGITS_MAX} digits; write it as the provider's list has it")
    most = REQUEST_USD_MAX if name in _PER_REQUEST else TOKEN_USD_MAX
    if exact > most:
        hint = '; is it for a million? Then write per = "million"' if name not in _PER_REQUEST and not scale else ""
        raise _Wrong(name, f"{shown} comes to more than ${most} for one{hint}")
    return exact


def _digits(price: Decimal) -> int:
    """How many it has, or has after its point, whichever are more."""
    _, digits, exponent = price.as_tuple()
    assert isinstance(exponent, int), price
    return max(len(digits), -exponent)


def _name(table: Mapping[str, Any], member: str) -> str:
    given = table.get(member)
    example = {"upstream": "anthropic", "model": "claude-*", "terms": "priority"}.get(member, "anthropic/claude-opus-4")
    if given is None:
        raise _Wrong(member, f'missing; write {member} = "{example}"')
    if not isinstance(given, str) or not given.strip() or len(given) > _NAME_CHARS_MAX or not given.isprintable():
        raise _Wrong(member, f'write a name like "{example}", not {str(given)[:40]!r}')
    return given.strip()


def _tokens(given: object) -> int:
    if type(given) is not int or not 0 <= given < 2**40:
        raise _Wrong("above_prompt_tokens", f"write a number of tokens like 200000, not {str(given)[:40]!r}")
    return given


def _is_free(given: object) -> bool:
    if not isinstance(given, bool):
        raise _Wrong("free", f"write `free = true` for a model that costs nothing, not {str(given)[:40]!r}")
    return given


def _since_us(given: object) -> int:
    """The moment from which an entry holds, in microseconds since 1970. Raises _Wrong."""
    right = 'write a day like 2026-01-31 (from its beginning in UTC) or a moment like "2026-01-31T12:00:00Z"'
    if given is None:
        return 0
    if isinstance(given, str):
        try:
            written = datetime.fromisoformat(given.strip())
        except ValueError as error:
            raise _Wrong("from", f"{given[:40]!r} is no date; {right}") from error
        given = written
        if given.tzinfo is None and (given.hour, given.minute, given.second, given.microsecond) == (0, 0, 0, 0):
            given = given.date()
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise _Wrong("from", f"{given} does not say in which time zone; {right}")
        moment = given
    elif isinstance(given, date):
        moment = datetime(given.year, given.month, given.day, tzinfo=UTC)
    else:
        raise _Wrong("from", f"{str(given)[:40]!r} is no date; {right}")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    since_us = (since.days * 86_400 + since.seconds) * _US + since.microseconds
    if since_us < 0:
        raise _Wrong("from", f"{moment} is before 1970; {right}")
    return since_us
