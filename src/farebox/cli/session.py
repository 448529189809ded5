"""What every command needs: the books, a way to print, and a clear message when something is wrong."""

import asyncio
import csv
import getpass
import io
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, NoReturn, TypeVar

import typer

from farebox import clock
from farebox.accounts import Accounts
from farebox.acting import acting
from farebox.bills import harmless
from farebox.cli.trouble import MENDABLE, lines, worded
from farebox.core.allowances import date_of, day_of
from farebox.core.money import parse_usd
from farebox.core.trail import By
from farebox.settings import load
from farebox.store.books import SqlStore
from farebox.store.engine import COMMAND_SECONDS
from farebox.store.prepare import open_store, take_up

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="The books: sqlite:///PATH or postgresql://...")
]


_MONTH = re.compile(r"(\d{4})-(\d\d)")


def read_moment(text: str, option: str, last_day: int | None = None) -> int:
    """A moment that was typed, in microseconds since 1970. Ends the command where it is none; or, where a `last_day` is
    given, behind that or before 1970."""
    try:
        found = moment_us(text)
    except ValueError as error:
        fail(f"{option}: {error}", 2)
    if last_day is not None and not 0 <= day_of(found) <= last_day:
        fail(f"{option}: {text!r} is not of a year from 1970 to {date_of(last_day)[:4]}", 2)
    return found


def moment_us(text: str) -> int:
    """The moment that a text names, the beginning of a day or a month where it names no more, in microseconds since
    1970. Raises ValueError."""
    try:
        found = _MONTH.fullmatch(text)
        at = datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC) if found else datetime.fromisoformat(text)
        return clock.us_of(at)
    except ValueError:
        raise ValueError(
            f"{text!r} is no moment; write 2026-11-28, 2026-11-28T14:30, 2026-11-28T14:30+02:00 or, of a month,"
            " 2026-11; in UTC where it names no zone"
        ) from None


def read_month(text: str) -> tuple[int, int]:
    """A month that was typed: its first moment, and that of the next one. Ends the command where it is none."""
    found = _MONTH.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 12 or not 1970 <= int(found[1]) < 9999:
        fail(f"--month: {text!r} is no month; write it like 2026-11", 2)
    year, month = int(found[1]), int(found[2])
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    first, after = (clock.us_of(datetime(*each, 1, tzinfo=UTC)) for each in ((year, month), following))
    return first, after


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command, saying why."""
    typer.echo(lines(message), err=True)
    raise typer.Exit(code)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Say in a line, without a traceback, what an operator can mend."""
    try:
        yield
    except MENDABLE as error:
        said, code = worded(error)
        typer.echo(said, err=True)
        raise typer.Exit(code) from error


def with_books(database_url: str | None, use: Callable[[SqlStore, Accounts], Awaitable[T]]) -> T:
    """What `use` returns on the books that the settings name, which are upgraded first where their schema is older."""
    with clear_errors():
        settings = load(database_url=database_url)
        take_up(settings.database_url)

        async def run() -> T:
            async with open_store(settings.database_url, COMMAND_SECONDS) as store:
                published = await store.published_plans()
                plans = {plan.name: plan for plan in published.plans} if published else {}
                return await use(store, Accounts(store, {**settings.every_plan, **plans}))

        with acting(By("cli", _user())):
            return asyncio.run(run())
    raise AssertionError("clear_errors never swallows")


def _user() -> str:
    """Who runs the command, as the machine knows it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def nanos_of(text: str, option: str = "") -> int:
    """An amount in USD that was typed, in nano-dollars."""
    try:
        return parse_usd(text)
    except ValueError as error:
        fail(f"{option}: {error}" if option else str(error), 2)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def print_rows(
    heads: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    names: Sequence[str] = (),
    missing: str = "",
    *,
    as_json: bool = False,
    as_csv: bool = False,
) -> None:
    """Print rows as it was asked: with all their members as JSON or CSV, else as a table."""
    if as_json and as_csv:
        fail("--json and --csv exclude each other", 2)
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    else:
        print_table(heads, rows, names, missing)


def print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    """Print RFC 4180's CSV: a head with the members' names, lists with blanks between. A text that a spreadsheet would
    take for a formula is quoted with a `'`, so that it stays one."""
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    if rows:
        written.writerow(rows[0])
    written.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    typer.echo(text.getvalue(), nl=False)


def _csv_cell(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list() | tuple():
            return " ".join(map(str, value))
        case str():
            return harmless(value)
        case _:
            return value


def print_table(
    heads: Sequence[str], rows: Sequence[Mapping[str, object]], names: Sequence[str] = (), missing: str = ""
) -> None:
    """Print plain columns: the head of each, and under it the member of that name of every row; all its members, where
    none are named. Amounts must come as text, so that they stay exact. Where a terminal is too narrow, times are told
    to the minute, and the longest texts are cut; a number never is. What is negative, and what is open, is marked."""
    cells = [
        [*map(str, heads)],
        *[[missing if row[name] is None else _seen(str(row[name])) for name in names or row] for row in rows],
    ]
    widths = _widths(cells)
    if sys.stdout.isatty() and _total(widths) > (columns := shutil.get_terminal_size().columns):
        cells = [[_TIME.sub(r"\1Z", cell) for cell in line] for line in cells]
        widths = _fitted(cells, _widths(cells), columns)
    for line in cells:
        shown = [_cut(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)]
        shown[-1] = shown[-1].rstrip()
        coloured = [_marked(cell, text) for cell, text in zip(line, shown, strict=True)]
        typer.echo(GAP.join(coloured).rstrip())


def _seen(text: str) -> str:
    """A text of strangers, such as a note or an end user, without what would steer a terminal or end the line."""
    return (
        text
        if text.isprintable()
        else "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    )


GAP = "  "

CUT_MIN = 8
"""No column is cut to less: what is left would tell nothing."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_TIME = re.compile(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d):\d\d\.\d{3}Z")
_NEVER_CUT = re.compile(r"-?\d+(\.\d+)?|\d{4}-\d\d-\d\dT\d\d:\d\dZ|")


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _fitted(cells: Sequence[Sequence[str]], widths: list[int], columns: int) -> list[int]:
    """The columns' widths on a terminal: those of texts narrower, the widest first, until the line fits."""
    texts = [
        place for place, column in enumerate(zip(*cells[1:], strict=True)) if not all(map(_NEVER_CUT.fullmatch, column))
    ]
    fitted = list(widths)
    while _total(fitted) > columns:
        widest = max(texts, key=lambda place: fitted[place], default=None)
        if widest is None or fitted[widest] <= max(CUT_MIN, len(cells[0][widest])):
            texts = [place for place in texts if place != widest]
            if not texts:
                break
            continue
        fitted[widest] -= 1
    return fitted


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


_OPEN = ("open", "held", "pending", "unresolved", "expired", "expires")
_NOT_GOOD = ("revoked", "disabled", "closed")


def _marked(cell: str, text: str) -> str:
    if cell.startswith("-") and _NUMBER.fullmatch(cell):
        return styled(text, "red")
    if cell.startswith(_OPEN):
        return styled(text, "yellow")
    return styled(text, "bright_black") if cell.startswith(_NOT_GOOD) else text


def styled(text: str, colour: str) -> str:
    """Coloured, where a terminal shows it and nobody asked for none (`NO_COLOR`)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return typer.style(text, fg=colour)


def moment(us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return None if us is None else clock.iso(us)
