"""Every change that a store can make is entered in its trail by the same transaction, and by nothing else."""

import asyncio
import dataclasses
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import get_args

import psycopg
import pytest
from msgspec.structs import replace

from farebox.accounts import Store
from farebox.acting import acting
from farebox.core.allowances import NO_LIMITS, Limits
from farebox.core.audit import audit
from farebox.core.books import (
    LAST_US,
    AskLater,
    Command,
    Correct,
    Decision,
    Done,
    KeepAnswer,
    NameGeneration,
    PayOut,
    PlaceHold,
    Settle,
    TopUp,
)
from farebox.core.callers import Account, Key, KeyTerms, PublishedPlans
from farebox.core.plans import BUILT_IN, Plan
from farebox.core.trail import By, Told, TrailFilter
from farebox.core.usage import Cost, Unknown
from farebox.ports import Directory, NameTaken, PresetShelf
from tests.served.test_store import Engine, Rows, engine, set_limits

__all__ = ["engine"]

USD = 10**9
ANA = By("cli", "ana@desk")
ALL = TrailFilter(0, LAST_US)

READ = (
    "accounts find_account keys find_key has_foreign_keys allowance management_keys find_management_key published_plans"
    " allowances_of limited_end_users end_users end_user secret revision wait_for_change preset presets preset_versions"
).split()
"""The methods of the two ports that change nothing."""

Changing = Callable[[Store, Account, Key], Awaitable[object]]


async def _revoke_manager(store: Store, account: Account, key: Key) -> None:
    made = await store.create_management_key("theirs", b"m2", "hint", account.id, 5)
    await store.revoke_management_key(made.id, 6)


CHANGES: dict[str, tuple[Changing, str]] = {
    "create_account": (lambda s, a, k: s.create_account("another", "free", None, 5), "account.opened"),
    "change_account": (
        lambda s, a, k: s.change_account(a.id, lambda _: replace(a, name="renamed", plan="free"), 5),
        "account.changed",
    ),
    "create_key": (lambda s, a, k: s.create_key(a.id, "second", b"2", "hint", 5, KeyTerms(9)), "key.made"),
    "change_key": (lambda s, a, k: s.change_key(k.id, lambda _: replace(k, label="renamed"), 5), "key.changed"),
    "rotate_key": (
        lambda s, a, k: s.rotate_key(k.id, lambda _: replace(k, digest=b"3", old_digest=k.digest)),
        "key.rotated",
    ),
    "limit_end_user": (
        lambda s, a, k: s.limit_end_user(a.id, "ann", lambda _: Limits(day_nanos=USD), 5),
        "end_user.limited",
    ),
    "create_management_key": (
        lambda s, a, k: s.create_management_key("ops", b"m", "hint", None, 5),
        "management_key.made",
    ),
    "revoke_management_key": (_revoke_manager, "management_key.revoked"),
    "publish_plans": (
        lambda s, a, k: s.publish_plans(PublishedPlans((BUILT_IN["free"], Plan("gold", 5)), "node", 5)),
        "plans.published",
    ),
    "save_preset": (lambda s, a, k: s.save_preset(a.id, "slug", "be brief", "{}", 5), "preset.saved"),
    "drop_preset": (lambda s, a, k: s.drop_preset(a.id, "kept"), "preset.dropped"),
}
"""Every other one, and what the trail says of it."""

OF_ORDERS = {PlaceHold, NameGeneration, KeepAnswer, AskLater}
"""Commands that nobody gives but who serves orders."""

COMMANDS: dict[type[Command], tuple[Callable[[Account], Command], str]] = {
    TopUp: (lambda a: TopUp("t2", a.id, USD, 5, "invoice 7", ANA), "money.paid_in"),
    Settle: (
        lambda a: Settle(hold_id="open", verdict=Cost(Decimal("0.1")), created_us=5, decision=Decision("told", ANA)),
        "order.decided",
    ),
    Correct: (lambda a: Correct("posted", 5, "cut short", back_nanos=USD // 10, by=ANA), "money.given_back"),
    PayOut: (lambda a: PayOut("out", a.id, 5, "closed", ANA), "money.paid_out"),
}


def test_every_way_to_change_something_is_known_here() -> None:
    methods = {name for port in (Directory, PresetShelf) for name in vars(port) if not name.startswith("_")}
    assert methods == CHANGES.keys() | set(READ)
    assert set(get_args(Command)) == COMMANDS.keys() | OF_ORDERS


async def begun(store: Store) -> tuple[Account, Key]:
    """An account with a key, a preset, an order that is open, and one that was charged for."""
    account = await store.create_account("one", "paying", 0, 1)
    key = await store.create_key(account.id, "first", b"1", "hint", 1)
    await store.save_preset(account.id, "kept", None, "{}", 1)
    assert await store.carry_out(TopUp("t1", account.id, 2 * USD, 1)) == Done()
    for name, verdict in (("open", Unknown("it broke off")), ("posted", Cost(Decimal("0.2")))):
        place = PlaceHold(name, account.id, key.id, USD, USD, "paying", 10_000, "a/b", streamed=False, created_us=2)
        await store.carry_out(place)
        await store.carry_out(Settle(hold_id=name, verdict=verdict, created_us=3))
    return account, key


def by_ana(told: Told) -> tuple[str, str | None]:
    assert told.entry.by == ANA
    return told.entry.change.what, told.account


def test_what_is_changed_is_entered_once_by_who_changed_it(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await begun(store)
        last = len(await store.entries(ALL, LAST_US, 100))
        assert last == 4, "orders are none of the trail's"
        for name, (change, what) in CHANGES.items():
            before = (await store.entries(ALL, LAST_US, 1))[0].entry.id
            with acting(ANA):
                await change(store, account, key)
            new = [each for each in await store.entries(ALL, LAST_US, 5) if each.entry.id > before]
            assert by_ana(new[0])[0] == what, name
            assert len(new) == (2 if name == "revoke_management_key" else 1), name
        for make, what in COMMANDS.values():
            if what == "money.paid_out":
                break
            await store.carry_out(make(account))
            (told,) = await store.entries(ALL, LAST_US, 1)
            assert by_ana(told)[0] == what
            assert told.entry.change.reason in ("invoice 7", "told", "cut short")
        numbers = [each.entry.id for each in await store.entries(ALL, LAST_US, 100)]
        assert numbers == list(range(len(numbers), 0, -1))
        with store.snapshot() as rows:
            found = audit(rows)
        assert (found.differences, found.entries) == ([], len(numbers))

    engine.run(work)


def test_an_entry_says_from_what_to_what(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await begun(store)
        await store.change_account(account.id, lambda _: replace(account, name="two", plan="free", closed_us=9), 5)
        await set_limits(store, account.id, None, Limits(day_nanos=USD, models=("a/*", "b/*")), 5)
        await set_limits(store, account.id, None, Limits(day_nanos=3 * USD // 2), 6)
        await store.change_key(key.id, lambda _: replace(key, disabled=True, revoked_us=7), 5)
        await store.change_key(key.id, lambda _: replace(key, revoked_us=8), 5)
        for make, what in COMMANDS.values():
            if what != "money.paid_in":
                await store.carry_out(make(account))
        found = [(each.entry.change.what, dict(each.entry.change.members)) for each in await store.entries(ALL, 99, 8)]
        assert found == [
            ("money.paid_out", {"balance_usd": ("1.8", "0")}),
            ("money.given_back", {"balance_usd": ("1.7", "1.8"), "fare_usd": ("0.2", "0.1")}),
            (
                "order.decided",
                {
                    "state": ("open", "posted"),
                    "held_usd": ("1", "0"),
                    "cost_usd": (None, "0.1"),
                    "fare_usd": (None, "0.1"),
                },
            ),
            ("key.revoked", {"disabled": (True, False), "revoked_us": (7, 8)}),
            ("key.disabled", {"disabled": (False, True), "revoked_us": (None, 7)}),
            ("account.limited", {"usd_per_day": ("1", "1.5"), "models": ("a/*, b/*", None)}),
            ("account.limited", {"usd_per_day": (None, "1"), "models": (None, "a/*, b/*")}),
            ("account.closed", {"name": ("one", "two"), "plan": ("paying", "free"), "closed_us": (None, 9)}),
        ]

    engine.run(work)


def test_what_changes_nothing_is_not_entered(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await begun(store)
        other = await store.create_account("other", "free", None, 2)
        made = await store.create_management_key("ops", b"m", "hint", None, 5)
        await store.revoke_management_key(made.id, 6)
        before = (await store.entries(ALL, LAST_US, 1))[0].entry.id
        assert await store.carry_out(TopUp("t1", account.id, 2 * USD, 9)) == Done(is_repeat=True)
        await store.carry_out(TopUp("t1", account.id, 3 * USD, 9))
        await store.carry_out(Correct("posted", 9, "as it is", fare_nanos=USD // 5))
        await store.carry_out(PayOut("out", other.id, 9, "nothing is left"))
        await store.carry_out(Settle(hold_id="posted", verdict=Cost(Decimal(1)), created_us=9, decision=Decision("no")))
        await store.change_account(account.id, lambda _: account, 9)
        await store.change_key(key.id, lambda _: replace(key, updated_us=9), 9)
        await set_limits(store, account.id, key.id, NO_LIMITS, 9)
        await store.revoke_management_key(made.id, 9)
        assert not await store.drop_preset(account.id, "none")
        with pytest.raises(NameTaken):
            await store.change_account(other.id, lambda _: replace(other, name="one"), 9)
        with pytest.raises(NameTaken):
            await store.create_account("one", "free", None, 2)
        assert (await store.entries(ALL, LAST_US, 1))[0].entry.id == before

    engine.run(work)


def test_entries_are_found_by_time_account_key_who_and_what(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await begun(store)
        await store.create_account("100%", "free", None, 2)
        with acting(By("api", "Büro_1", manager_id=(await store.create_management_key("m", b"m", "h", None, 1)).id)):
            await store.change_key(key.id, lambda _: replace(key, label="renamed"), 9)
        every = await store.entries(ALL, LAST_US, 100)
        for wanted, whats in (
            (replace(ALL, account_id=account.id), ["key.changed", "money.paid_in", "preset.saved", "key.made"]),
            (replace(ALL, account_id=account.id, key_id=key.id), ["key.changed", "key.made"]),
            (replace(ALL, key_id=key.id, what="key.made"), ["key.made"]),
            (replace(ALL, what="account"), ["account.opened", "account.opened"]),
            (replace(ALL, what="acc"), []),
            (replace(ALL, who="ro_"), ["key.changed"]),
            (replace(ALL, who="r%"), []),
            (replace(ALL, until_us=2), ["money.paid_in"]),
        ):
            found = await store.entries(wanted, LAST_US, 4)
            assert [each.entry.change.what for each in found][: len(whats)] == whats, wanted
            assert len(found) == len(whats), wanted
            assert all(wanted.takes(each.entry) for each in found)
        assert await store.entries(ALL, every[2].entry.id, 2) == every[3:5]
        assert (every[0].account, every[0].key_label, every[0].key_digest) == ("one", "renamed", b"1")

    engine.run(work)


def test_nobody_changes_an_entry(engine: Engine) -> None:
    if engine.kind == "memory":
        return  # there is no database

    async def work(store: Store) -> None:
        await begun(store)

    engine.run(work)
    for change in ("UPDATE trail SET who = 'nobody'", "DELETE FROM trail"):
        if engine.kind == "sqlite":
            with closing(sqlite3.connect(engine.path)) as file, pytest.raises(sqlite3.IntegrityError, match="added to"):
                file.execute(change)
        else:
            with psycopg.connect(engine.url) as db, pytest.raises(psycopg.Error, match="added to"):
                db.execute(change.encode())


def test_two_processes_number_their_entries_without_gaps(engine: Engine) -> None:
    async def work(store: Store) -> None:
        async with engine.open() as beside:
            account, _ = await begun(store)
            top_ups = (TopUp(f"x{number}", account.id, 1, 5) for number in range(10))
            await asyncio.gather(
                *(each.carry_out(top_up) for top_up in top_ups for each in (store, beside)),
                *(each.create_key(account.id, "", bytes([99, at]), "h", 1) for at, each in enumerate((store, beside))),
            )
            with store.snapshot() as rows:
                found = audit(rows)
            assert found.differences == []
            assert found.entries == 4 + 10 + 2

    engine.run(work)


def test_the_audit_names_what_the_trail_lacks(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await begun(store)
        with store.snapshot() as rows:
            kept = Rows(list(rows.transfers()), list(rows.holds()), list(rows.balances()), trail=list(rows.entries()))
        assert audit(kept).differences == []
        first, second, third, paid_in = kept.trail
        foreign = replace(paid_in, change=replace(paid_in.change, account_id=9))
        unknown = replace(paid_in, change=replace(paid_in.change, transfer_id="t9"))
        for trail, said in (
            ([first, third, paid_in], "the trail has no entry 2, and one 3"),
            ([first, second, third], "transfer t1: nothing in the trail says who made it"),
            ([first, second, third, foreign], "entry 4 of the trail is of account 9"),
            ([first, second, third, unknown], "entry 4 of the trail is of transfer t9, which is not in the books"),
        ):
            found = audit(dataclasses.replace(kept, trail=trail)).differences
            assert any(said in each for each in found), (said, found)

    Engine("memory", tmp_path).run(work)
