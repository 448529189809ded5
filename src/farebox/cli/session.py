"""What every command needs: the books, a way to print, and a clear message when something is wrong."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, NoReturn, TypeVar

import typer

from farebox import clock
from farebox.accounts import Accounts, BadTerms, NotFound, OtherTopUpBefore
from farebox.core.money import parse_usd
from farebox.ports import BooksUnavailable, NameTaken
from farebox.reconcile import NotOpen
from farebox.settings import BadSettings, load
from farebox.store.books import SqlStore
from farebox.store.engine import COMMAND_SECONDS
from farebox.store.prepare import UnusableBooks, open_store, take_up

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="The books: sqlite:///PATH or postgresql://...")
]


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command, saying why."""
    for line in message.splitlines():
        typer.echo(f"farebox: {line}", err=True)
    raise typer.Exit(code)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Say in a line, without a traceback, what an operator can mend. Exit status 2: a bad setting or argument; 1: all
    else."""
    try:
        yield
    except (BadSettings, BadTerms) as error:
        fail(str(error), 2)
    except NameTaken as error:
        fail(f"there is an account `{error}` already")
    except (NotFound, NotOpen, OtherTopUpBefore, UnusableBooks, BooksUnavailable) as error:
        fail(str(error))


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

        return asyncio.run(run())
    raise AssertionError("clear_errors never swallows")


def nanos_of(text: str, option: str = "") -> int:
    """An amount in USD that was typed, in nano-dollars."""
    try:
        return parse_usd(text)
    except ValueError as error:
        fail(f"{option}: {error}" if option else str(error), 2)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def print_table(
    heads: Sequence[str], rows: Sequence[Mapping[str, object]], names: Sequence[str] = (), missing: str = ""
) -> None:
    """Print plain columns: the head of each, and under it the member of that name of every row; all its members, where
    none are named. Amounts must come as text, so that they stay exact."""
    cells = [heads, *[[missing if row[name] is None else str(row[name]) for name in names or row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def moment(us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return None if us is None else clock.iso(us)
