"""Two who change the same thing at once: it comes out as if one came after the other, and the trail tells it so. And
what is one change is written whole, or not at all."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from farebox.accounts import Accounts, BadTerms, NotFound, Store
from farebox.core.allowances import NO_LIMITS, Limits
from farebox.core.attribution import Attribution
from farebox.core.books import LAST_US
from farebox.core.callers import Account, Key
from farebox.core.moving.foreign_keys import ForeignKey, read_foreign_keys
from farebox.core.plans import BUILT_IN
from farebox.core.runs import BilledEvents, Record
from farebox.core.trail import TrailFilter, Value
from farebox.end_users import EndUsers
from farebox.platform.store import SqlRuns
from farebox.ports import KeyTaken
from farebox.store.books import SqlStore
from farebox.store.sqlite import Sqlite
from tests.books import new_books
from tests.served.test_runs import begun_run
from tests.served.test_store import Engine, account_with, engine

__all__ = ["engine"]

USD = 10**9
ROUNDS = 20
DIGEST = "ab" * 32

Change = Callable[[Accounts, Account, str], Awaitable[object]]
"""Of an account, or of its key that has a digest."""

CHANGES: dict[str, Change] = {
    "rename": lambda accounts, _, key: accounts.change_key(key, label="renamed"),
    "disable": lambda accounts, _, key: accounts.change_key(key, disabled=True),
    "a day": lambda accounts, _, key: accounts.change_key(key, limits=lambda _: {"usd_per_day": "1"}),
    "a minute": lambda accounts, _, key: accounts.change_key(key, limits=lambda _: {"requests_per_minute": "5"}),
    "revoke": lambda accounts, _, key: accounts.revoke_key(key),
    "rotate": lambda accounts, _, key: accounts.rotate_key(key, 60),
    "close": lambda accounts, account, _: accounts.close(account.name),
    "plan": lambda accounts, account, _: accounts.change(account.name, plan="free"),
    "in all": lambda accounts, account, _: accounts.limit(account, None, {"usd_total": "3"}),
    "another key": lambda accounts, account, _: accounts.create_key(account.name, "another"),
}


async def check_trail(store: Store) -> None:
    """Each entry begins with what the one before it ended with."""
    last: dict[tuple[object, ...], Value] = {}
    for told in reversed(await store.entries(TrailFilter(0, LAST_US), LAST_US, 1_000)):
        change = told.entry.change
        for name, (before, after) in change.members.items():
            member = (change.account_id, change.key_id, change.about, name)
            assert name == "secret" or last.get(member, before) == before, (change, last)
            last[member] = after


async def at_once(store: Store, *names: str) -> tuple[Account, Key, list[BaseException]]:
    """What an account and its key are after these changes, which begin together; and what was refused."""
    accounts = Accounts(store, BUILT_IN)
    account = await accounts.create(f"a{len(await accounts.every())}", "paying", None)
    _, _, key = await accounts.create_key(account.name, "made")
    begun = [CHANGES[name](accounts, account, key.digest.hex()) for name in names]
    said = await asyncio.gather(*begun, return_exceptions=True)
    found = {each.id: (owner, each) for owner, each in await accounts.keys(account.name)}
    await check_trail(store)
    return *found[key.id], [each for each in said if isinstance(each, BaseException)]


@pytest.mark.parametrize("other", ["rename", "disable", "a day", "rotate"])
def test_a_key_that_is_revoked_stays_so_whatever_is_changed_meanwhile(engine: Engine, other: str) -> None:
    async def work(store: Store) -> None:
        for names in (("revoke", other), (other, "revoke")):
            _, key, refused = await at_once(store, *names)
            assert (key.revoked_us is None, key.disabled) == (False, False)
            assert [type(each) for each in refused] == ([NotFound] if names[0] == "revoke" else [])

    engine.run(work)


@pytest.mark.parametrize("other", ["rename", "a day", "rotate"])
def test_two_changes_of_a_key_are_both_made(engine: Engine, other: str) -> None:
    async def work(store: Store) -> None:
        for names in (("a minute", other), (other, "a minute")):
            _, key, refused = await at_once(store, *names)
            assert refused == []
            assert key.limits == Limits(requests_per_minute=5, day_nanos=USD if other == "a day" else None)
            assert (key.label == "renamed", key.old_digest is not None) == (other == "rename", other == "rotate")

    engine.run(work)


def test_a_closed_account_stays_closed_whatever_is_changed_meanwhile(engine: Engine) -> None:
    async def work(store: Store) -> None:
        for names in (("close", "plan", "in all"), ("in all", "plan", "close")):
            account, _, refused = await at_once(store, *names)
            assert refused == []
            assert account.closed_us is not None
            assert (account.plan, account.limits) == ("free", Limits(total_nanos=3 * USD))
        _, _, refused = await at_once(store, "close", "another key")
        assert [type(each) for each in refused] == [BadTerms]

    engine.run(work)


def test_of_two_who_rotate_a_key_one_is_told_so_and_no_secret_is_lost(engine: Engine) -> None:
    async def work(store: Store) -> None:
        _, key, refused = await at_once(store, "rotate", "rotate")
        # In memory the one has ended before the other begins.
        assert [type(each) for each in refused] == ([] if engine.kind == "memory" else [NotFound])
        assert key.old_digest is not None

    engine.run(work)


def test_two_limits_of_an_end_user_set_at_once_both_hold(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, _ = await account_with(store, "a", 0)
        end_users = EndUsers(store, Attribution("plain", b""))
        for named in ("ann", None):
            await asyncio.gather(
                end_users.limit(account, named, {"usd_per_day": "1"}),
                end_users.limit(account, named, {"requests_per_minute": "5"}),
            )
            expected = Limits(requests_per_minute=5, day_nanos=USD)
            assert await end_users.limit(account, named, {}) == expected
        await check_trail(store)

    engine.run(work)


def foreign() -> ForeignKey:
    (row,), _ = read_foreign_keys(f'[{{"digest": "{DIGEST}", "max_budget": 1}}]')
    return row


def test_a_key_that_two_bring_along_at_once_is_there_once(engine: Engine) -> None:
    async def work(store: Store) -> None:
        accounts = Accounts(store, BUILT_IN)
        await account_with(store, "a", 0)
        taken = await asyncio.gather(*(accounts.import_key("a", foreign(), None) for _ in range(2)))
        assert [was_there for _, was_there in taken] == [False, True]
        assert [key.limits for key, _ in taken] == [Limits(total_nanos=USD)] * 2
        with pytest.raises(KeyTaken):
            await store.create_key(taken[0][0].account_id, "", bytes.fromhex(DIGEST), "hint", 1)

    engine.run(work)


# What several processes change


def test_two_processes_that_keep_and_drop_a_preset_do_one_after_the_other(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, _ = await account_with(store, "a", 0)
        async with engine.open() as beside:
            for _ in range(ROUNDS):
                await asyncio.gather(
                    store.save_preset(account.id, "kept", None, "{}", 1),
                    beside.save_preset(account.id, "kept", None, "{}", 1),
                    beside.drop_preset(account.id, "kept"),
                    store.drop_preset(account.id, "kept"),
                )
                await check_trail(store)
            assert await store.preset_versions(account.id, "kept") == []

    engine.run(work)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_two_processes_that_set_a_low_balance_or_drop_a_receiver_tell_it_as_it_was(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, _ = await account_with(store, "a", 0)
        async with engine.open() as beside:
            assert isinstance(store, SqlStore)
            assert isinstance(beside, SqlStore)
            for number in range(ROUNDS):
                made = await store.add_receiver("ops", "https://alerts.example", "slack", None, (), account.id, 1)
                await asyncio.gather(
                    *(each.set_low_balance(account.id, number * 10 + at) for at, each in enumerate((store, beside))),
                    *(each.drop_receiver(made.id) for each in (store, beside)),
                )
            await check_trail(store)
            removed = TrailFilter(0, LAST_US, what="alert.removed")
            assert len(await store.entries(removed, LAST_US, 1_000)) == ROUNDS

    engine.run(work)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_two_processes_that_add_to_a_run_lose_and_double_nothing(engine: Engine) -> None:
    async def work(store: Store) -> None:
        assert isinstance(store, SqlStore)
        _, key = await account_with(store, "a", 0)
        both = [SqlRuns(store.engine, name) for name in ("one", "two")]
        await both[0].create_run(begun_run(key), b"{}")
        for number in range(ROUNDS):
            await asyncio.gather(*(runs.append("d-r", [b"{}"]) for runs in both))
            bills = [BilledEvents(f"{number} {at}", "r", f"key {number}", "event", 5) for at in range(2)]
            holds = await asyncio.gather(*(runs.note_bill(bill, 0) for runs, bill in zip(both, bills, strict=True)))
            assert len(set(holds)) == 1
        assert await both[0].item_count("d-r") == 2 * ROUNDS
        assert await both[0].outcomes("d-r") == []  # none is of an order of the run's
        await both[0].push(
            "d-r", 1, b'{"status":200,"fare_usd":"0.1","answer":"\\u0000\\u0000 \\\\\\u0000 \\\\u0000 \\ud83d"}'
        )
        assert [each.fare_usd for each in await both[0].outcomes("d-r")] == ["0.1"]
        for name in ("ab", "b"):
            await both[0].put_record("s-r", Record(name, "text/plain", b"read"))
        assert await both[0].records("s-r", "", "", 5) == [("ab", 4), ("b", 4)]
        assert await both[0].records("s-r", "", "a", 5) == [("ab", 4)]
        assert await both[0].records("s-r", "ab", "", 5) == [("b", 4)]
        assert await both[0].input_of("r") == b"{}"
        for runs in both:
            await runs.close()

    engine.run(work)


# What is one change


Begun = Callable[[Accounts], Awaitable[object]]


@pytest.mark.parametrize(
    "change",
    [
        lambda accounts: accounts.import_key("a", foreign(), None),
        lambda accounts: accounts.create_key("a", "second", limits={"usd_per_day": "1"}),
        lambda accounts: accounts.create("b", "free", 0, limits={"usd_per_day": "1"}),
        lambda accounts: accounts.change("a", plan="free", limits={"usd_per_day": "1"}),
        lambda accounts: accounts.change_key("first", label="renamed", limits=lambda _: {"usd_per_day": "1"}),
    ],
)
def test_what_fails_at_the_limits_changes_nothing_and_goes_well_the_next_time(tmp_path: Path, change: Begun) -> None:
    new_books(tmp_path / "books.db")

    async def main() -> None:
        store = await SqlStore.open(Sqlite(tmp_path / "books.db"), "w")
        accounts = Accounts(store, BUILT_IN)
        account = await accounts.create("a", "paying", 0)
        await store.create_key(account.id, "made", b"1" * 32, "first", 1)
        before = await accounts.keys(None), await accounts.every()
        with closing(sqlite3.connect(tmp_path / "books.db")) as file:
            # As where the process is killed there.
            file.execute("CREATE TRIGGER cut BEFORE INSERT ON allowance BEGIN SELECT RAISE(ABORT, 'cut'); END")
            with pytest.raises(sqlite3.IntegrityError, match="cut"):
                await change(accounts)
            assert (await accounts.keys(None), await accounts.every()) == before
            assert len(await store.entries(TrailFilter(0, LAST_US), LAST_US, 9)) == 2
            file.execute("DROP TRIGGER cut")
        await change(accounts)
        found = [key.limits for _, key in await accounts.keys(None)] + [each.limits for each in await accounts.every()]
        assert sum(limits != NO_LIMITS for limits in found) == 1
        await store.close()

    asyncio.run(main())
