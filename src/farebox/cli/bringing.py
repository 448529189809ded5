"""`farebox account import` and `farebox key import`: two hundred people, or another gateway's keys, from a file."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import farebox.cli.changes  # noqa: F401 - its commands are of the same two groups
from farebox.accounts import Accounts, BadTerms, NotFound, OtherTopUpBefore, check_key, check_open
from farebox.cli.accounts import account_app, described_key, key_app
from farebox.cli.session import AsJson, DatabaseUrl, fail, moment_us, print_csv, print_json, with_books
from farebox.core.callers import Account
from farebox.core.money import format_usd
from farebox.core.moving.foreign_keys import BadRows, ForeignKey, read_foreign_keys
from farebox.core.moving.people import Person, read_people
from farebox.ports import NameTaken
from farebox.store.books import SqlStore

T = TypeVar("T")

FILE_BYTES_MAX = 64 * 2**20
NO_KEY = "-"

File = Annotated[Path, typer.Argument(help="CSV with a head, or JSON; - for standard input.", allow_dash=True)]


def _read(file: Path) -> str:
    try:
        content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if str(file) == "-" else file.read_bytes()
        if len(content) > FILE_BYTES_MAX:
            fail(f"{file}: it is larger than {FILE_BYTES_MAX // 2**20} MB", 2)
        return content.decode()
    except OSError as error:
        fail(f"{file}: it cannot be read: {error.strerror}", 2)
    except UnicodeDecodeError:
        fail(f"{file}: it is not in UTF-8", 2)


def _read_as(file: Path, read: Callable[[str], T]) -> T:
    try:
        return read(_read(file))
    except BadRows as error:
        fail("\n".join(f"{file}: {line}" for line in str(error).splitlines()), 2)


@key_app.command("import")
def import_keys(
    file: File,
    account: Annotated[str | None, typer.Option(help="Whose they are, where a row does not say it.")] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take over another gateway's keys by their SHA-256 digests, so that callers keep the keys they have. Columns:
    digest, account, label, hint, expires, disabled, and limits; or LiteLLM's own. Said again, it doubles nothing: what
    is there stays as it is here."""
    rows, left_out = _read_as(file, read_foreign_keys)
    if left_out:
        typer.echo(f"farebox: not carried over: {', '.join(sorted(left_out))}", err=True)

    async def take(_: SqlStore, accounts: Accounts) -> list[dict[str, Any]]:
        named = {each.name: each for each, _ in await accounts.accounts()}
        await _check([(row.where, partial(_check_key, accounts, row, account, named)) for row in rows], file)
        taken: list[dict[str, Any]] = []
        for row in rows:
            owner = named[row.account or account or ""]
            try:
                key, was_there = await accounts.import_key(owner.name, row, _us_of(row.expires))
            except BadTerms as error:
                fail(f"{file}: {row.where}: {error}; the rows before it are imported", 2)
            taken.append({**described_key(owner, key), "was_there": was_there})
        return taken

    taken = with_books(database_url, take)
    if as_json:
        print_json(taken)
    else:
        new = sum(not each["was_there"] for each in taken)
        typer.echo(f"{new} keys imported, {len(taken) - new} were there")


async def _check_key(accounts: Accounts, row: ForeignKey, account: str | None, named: dict[str, Account]) -> None:
    owner = row.account or account
    if owner is None:
        raise BadTerms("account: missing; give the column, or --account for all")
    if owner not in named:
        raise NotFound(f"there is no account `{owner}`; `farebox account create` or `farebox account import` makes it")
    await accounts.check_import(owner, row)
    _us_of(row.expires)


@account_app.command("import")
def import_people(
    file: File,
    plan: Annotated[str | None, typer.Option(help="The plan of those whose row names none.")] = None,
    batch: Annotated[
        str, typer.Option(help="Under this name each account gets its `prepaid_usd` once: another one pays again.")
    ] = "import",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Open an account for each row, pay its money in, set its limits, make it a key, and print the keys as CSV, this
    once. Columns: name, plan, prepaid_usd, postpaid, limit_usd, label, expires, and limits. Said again, it doubles
    nothing: plans and limits become what the file says, money is not paid in again, and no second key is made."""
    people = _read_as(file, lambda text: read_people(text, plan))

    async def bring(_: SqlStore, accounts: Accounts) -> list[dict[str, Any]]:
        there = {each.name: each for each, _ in await accounts.accounts()}
        checks = [(each.where, partial(_check_person, accounts, each, there.get(each.name), batch)) for each in people]
        await _check(checks, file)
        rows: list[dict[str, Any]] = []
        for each in people:
            try:
                rows.append(await _bring(accounts, each, there.get(each.name), batch))
            except (BadTerms, NotFound, NameTaken, OtherTopUpBefore) as error:
                # What was made must be told: its keys are shown this once.
                _print(rows, as_json=as_json)
                fail(f"{file}: {each.where}: {error}; the rows before it are done")
        return rows

    _print(with_books(database_url, bring), as_json=as_json)


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    print_csv(rows)
    new = sum(row["account"] == "new" for row in rows)
    keys = sum(row["key"] is not None for row in rows)
    typer.echo(
        f"{new} accounts opened, {len(rows) - new} were there; {keys} keys made"
        + (": keep them, they are not shown again" if keys else ""),
        err=True,
    )


async def _check_person(accounts: Accounts, person: Person, account: Account | None, batch: str) -> None:
    accounts.check_new(person.name, person.plan)
    accounts.check_limits(person.limits)
    expires_us = _us_of(person.expires)
    if await _wants_key(accounts, person, account, batch):
        check_key(person.label or batch, expires_us)
        if account is not None:
            check_open(account)


async def _bring(accounts: Accounts, person: Person, account: Account | None, batch: str) -> dict[str, Any]:
    is_new = account is None
    wants_key = await _wants_key(accounts, person, account, batch)
    if account is None:
        account = await accounts.create(person.name, person.plan, person.limit_nanos, limits=person.limits)
    paid_in = 0
    if person.paid_in_nanos:
        # First, of what there is: another amount under the same name is refused.
        done = await accounts.top_up(account.name, person.paid_in_nanos, f"{batch}/{account.name}", batch)
        paid_in = 0 if done.is_repeat else person.paid_in_nanos
    if not is_new:
        account = await accounts.change(account.name, plan=person.plan, limits=person.limits)
    key: str | None = None
    label = person.label or batch
    if wants_key:
        key, _, _ = await accounts.create_key(account.name, label, _us_of(person.expires))
    return {
        "name": account.name,
        "account": "new" if is_new else "there",
        "plan": account.plan,
        "paid_in_usd": format_usd(paid_in),
        "label": label if person.label != NO_KEY else None,
        "key": key,
    }


async def _wants_key(accounts: Accounts, person: Person, account: Account | None, batch: str) -> bool:
    """Whether a key is to be made: none where one with the label was made before, revoked or not, as who revoked it
    wants no other by this."""
    if person.label == NO_KEY or account is None:
        return person.label != NO_KEY
    return all(key.label != (person.label or batch) for _, key in await accounts.keys(account.name))


def _us_of(text: str) -> int | None:
    """Raises BadTerms."""
    if not text:
        return None
    try:
        return moment_us(text)
    except ValueError as error:
        raise BadTerms(f"expires: {error}") from error


async def _check(checks: Sequence[tuple[str, Callable[[], Awaitable[None]]]], file: Path) -> None:
    """All rows before anything is done; ends the command where one is wrong."""
    faults: list[str] = []
    for where, look in checks:
        try:
            await look()
        except (BadTerms, NotFound) as error:
            faults.append(f"{file}: {where}: {error}")
    if faults:
        fail("\n".join(faults), 2)
