"""What every command needs: the books, a way to print, and a clear message when something is wrong."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from farebox import clock
from farebox.accounts import Accounts, BadTerms, NotFound, OtherTopUpBefore
from farebox.app import open_store
from farebox.ports import BooksUnavailable, NameTaken
from farebox.settings import BadSettings, Settings, load
from farebox.store.books import SqlStore
from farebox.store.engine import COMMAND_SECONDS
from farebox.store.prepare import UnusableBooks, take_up
from farebox.telemetry.watch import CannotTrace

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="The books: sqlite:///PATH or postgresql://...", show_default=False)
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
    except BadSettings as error:
        fail(str(error), 2)
    except NameTaken as error:
        fail(f"there is an account `{error}` already")
    except (BadTerms, CannotTrace) as error:
        fail(str(error), 2)
    except (NotFound, OtherTopUpBefore, UnusableBooks, BooksUnavailable) as error:
        fail(str(error))


def with_books(database_url: str | None, use: Callable[[SqlStore, Accounts], Awaitable[T]]) -> T:
    """What `use` returns on the books that the settings name, which are upgraded first where their schema is older."""

    async def run(settings: Settings) -> T:
        async with open_store(settings, COMMAND_SECONDS) as store:
            published = await store.published_plans()
            plans = {plan.name: plan for plan in published.plans} if published else {}
            return await use(store, Accounts(store, {**settings.every_plan, **plans}))

    with clear_errors():
        settings = load(database_url=database_url)
        take_up(settings.database_url)
        return asyncio.run(run(settings))
    raise AssertionError("clear_errors never swallows")


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print plain columns. Amounts must come as text, so that they stay exact."""
    cells = [list(columns), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return None if us is None else clock.iso(us)
