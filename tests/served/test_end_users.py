"""End users and tags of orders: kept as set, limited as keys are, and summed."""

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from farebox.accounts import Store
from farebox.core.allowances import DAY_US, NO_LIMITS, Limits, end_user_owner
from farebox.core.audit import audit
from farebox.core.bills import OrderFilter, OrderPlace, TotalsFilter
from farebox.core.books import Held, HoldRow, NotCovered, Settle
from farebox.core.usage import Cost, Unknown
from farebox.testing import MemoryStore
from tests.served.test_store import USD, Engine, Rows, account_with, differences, engine, hold

__all__ = ["engine"]

SEARCH, CHAT = '{"feature":"chat","team":"search"}', '{"team":"x.y"}'


async def settle(store: Store, name: str, cost: str, at_us: int) -> None:
    await store.carry_out(
        Settle(hold_id=name, verdict=Cost(Decimal(cost)), created_us=at_us, prompt_tokens=2, answer_tokens=3)
    )


def test_totals_by_end_user_and_tag_are_the_days_totals(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, other_key = await account_with(store, "b", USD)
        place = hold(account, key, "h1", 100_000)
        fine = "0.0000100000000000000000000000001"
        for name, end_user, tags, cost in (
            ("h1", "ann", SEARCH, "0.00002"),
            ("h2", "ann", None, fine),
            ("h3", None, CHAT, "0.00001"),
            ("h4", "bob", SEARCH, fine),
            ("h5", None, None, "0.00003"),
        ):
            await store.carry_out(replace(place, id=name, end_user=end_user, tags=tags))
            await settle(store, name, cost, DAY_US)
        await store.carry_out(hold(other, other_key, "h6", 100_000))
        await settle(store, "h6", "0.00001", DAY_US)

        async def sums(*by: str, most: int = 99, **filters: object) -> list[tuple[str, str, int, Decimal]]:
            wanted = TotalsFilter(0, 9, by, **filters)  # type: ignore[arg-type]
            found = await store.attributed_totals(account.id, wanted, most)
            assert wanted.is_attributed
            return sorted((each.end_user, each.tags, each.total.orders, each.total.cost) for each in found)

        assert await sums("end_user") == [
            ("", "", 2, Decimal("0.00004")),
            ("ann", "", 2, Decimal("0.00002") + Decimal(fine)),
            ("bob", "", 1, Decimal(fine)),
        ]
        assert await sums("tag:team", "day") == [
            ("", "", 2, Decimal("0.00003") + Decimal(fine)),
            ("", "search", 2, Decimal("0.00002") + Decimal(fine)),
            ("", "x.y", 1, Decimal("0.00001")),
        ]
        assert await sums("end_user", tag=("team", "search")) == [
            ("ann", "", 1, Decimal("0.00002")),
            ("bob", "", 1, Decimal(fine)),
        ]
        assert await sums("model", end_user="ann") == [("", "", 2, Decimal("0.00002") + Decimal(fine))]
        assert await sums(end_user="nobody") == []
        assert len(await sums("end_user", most=2)) == 2
        by_account = await store.attributed_totals(None, TotalsFilter(0, 9, ("account", "end_user")), 99)
        assert sorted((each.total.key[0], each.end_user, each.total.orders) for each in by_account) == [
            (account.id, "", 2),
            (account.id, "ann", 2),
            (account.id, "bob", 1),
            (other.id, "", 1),
        ]

        async def ids(**filters: object) -> list[str]:
            wanted = OrderFilter(**filters)  # type: ignore[arg-type]
            found, _ = await store.order_page(account.id, wanted, OrderPlace(9 * DAY_US), 9)
            return [each.hold.id for each in found]

        assert await ids(end_user="ann") == ["h2", "h1"]
        assert await ids(tag=("team", "search")) == ["h4", "h1"]
        assert await ids(end_user="ann", tag=("feature", "chat")) == ["h1"]
        assert await ids(end_user="ann", state="voided") == []
        assert [each.end_user for each in await store.end_users(account.id, 0, "", 9)] == ["ann", "bob"]
        (bob,) = await store.end_users(account.id, 0, "ann", 1)
        assert (bob.orders, bob.fares_nanos, bob.latest_us) == (1, 20_000, DAY_US)
        assert await store.end_user(account.id, 0, "bob") == bob
        assert differences(store) == []

    engine.run(work)


def test_an_end_user_has_its_own_limit_or_the_one_by_default(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        place = replace(hold(account, key, "h1", 100_000, least=1), created_us=DAY_US, end_user="ann")
        await store.carry_out(place)
        await settle(store, "h1", "0.00003", DAY_US)
        await store.carry_out(replace(place, id="h2"))
        # What was spent, and is held, before there was a limit counts.
        await store.limit_end_user(account.id, None, lambda _: Limits(day_nanos=200_000), DAY_US)
        assert await store.carry_out(replace(place, id="h3")) == Held(70_000)
        owner = end_user_owner(account.id, "ann")
        assert await store.carry_out(replace(place, id="h4")) == NotCovered(0, owner, "day")
        assert await store.carry_out(replace(place, id="h5", end_user="bob")) == Held(100_000)
        assert await store.carry_out(replace(place, id="h6", end_user=None)) == Held(100_000)
        await settle(store, "h2", "0.00001", DAY_US)
        await store.carry_out(Settle(hold_id="h5", verdict=Unknown("who knows"), created_us=DAY_US))
        assert differences(store) == []
        (ann,) = await store.allowances_of([owner, "end_user 9 nobody"])
        assert (ann.limits, ann.day_nanos, ann.pending_nanos, ann.at_once) == (NO_LIMITS, 40_000, 70_000, 1)
        # One of its own goes before the default, and falls back to it.
        await store.limit_end_user(
            account.id, "ann", lambda _: Limits(day_nanos=120_000, requests_per_minute=9), DAY_US
        )
        assert await store.carry_out(replace(place, id="h7")) == Held(10_000)
        assert [each.owner for each in await store.limited_end_users(account.id, "", 9)] == [owner]
        await store.limit_end_user(account.id, "ann", lambda _: NO_LIMITS, DAY_US)
        assert await store.limited_end_users(account.id, "", 9) == []
        assert await store.carry_out(replace(place, id="h8")) == Held(80_000)
        assert differences(store) == []
        await store.limit_end_user(account.id, None, lambda _: NO_LIMITS, DAY_US)
        assert await store.allowances_of([owner]) == []
        assert await store.carry_out(replace(place, id="h9")) == Held(100_000)
        # With a limit of its own and no default.
        await store.limit_end_user(account.id, "bob", lambda _: Limits(total_nanos=130_000), DAY_US)
        assert await store.carry_out(replace(place, id="hA", end_user="bob")) == Held(30_000)
        assert differences(store) == []

    engine.run(work)


def test_two_nodes_together_pass_no_limit_of_an_end_user(engine: Engine) -> None:
    async def main() -> None:
        async with engine.open() as one, engine.open() as two:
            account, key = await account_with(one, "a", USD)
            await one.limit_end_user(account.id, None, lambda _: Limits(month_nanos=100_000), DAY_US)
            place = replace(hold(account, key, "h", 10_000), created_us=DAY_US, end_user="ann")

            async def order(number: int) -> bool:
                store, name = (one, two)[number % 2], f"h{number:02}"
                held = await store.carry_out(replace(place, id=name))
                if isinstance(held, Held):
                    await settle(store, name, "0.00001", DAY_US)
                return isinstance(held, Held)

            placed = await asyncio.gather(*map(order, range(30)))
            assert sum(placed) == 10
            (ann,) = await two.allowances_of([end_user_owner(account.id, "ann")])
            assert (ann.month_nanos, ann.pending_nanos, ann.at_once) == (100_000, 0, 0)
            assert await one.secret("x") == await two.secret("x")
            assert differences(one) == []

    asyncio.run(main())


def test_an_orphan_of_an_end_user_is_served_no_more(engine: Engine) -> None:
    async def main() -> None:
        async with engine.open() as two:
            account, key = await account_with(two, "a", USD)
            await two.limit_end_user(account.id, None, lambda _: Limits(orders_at_once=1), 1)
            async with engine.open() as one:
                place = replace(hold(account, key, "h1", 10_000), end_user="ann")
                assert await one.carry_out(place) == Held(10_000)
                assert not isinstance(await two.carry_out(replace(place, id="h2")), Held)
            assert [each.id for each in await two.open_orphans()] == ["h1"]
            assert await two.carry_out(replace(place, id="h2")) == Held(10_000)
            assert differences(two) == []

    asyncio.run(main())


def test_wrong_totals_by_end_user_are_named_and_mended(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        place = replace(hold(account, key, "h1", 100_000), end_user="ann", tags=SEARCH)
        for name in ("h1", "h2"):
            await store.carry_out(replace(place, id=name))
            await settle(store, name, "0.0000100000000000000000000000001", DAY_US)
        with store.snapshot() as rows:
            (right,) = list(rows.attributed_totals())

            class Wrong(Rows):
                def attributed_totals(self) -> list[object]:  # type: ignore[override]
                    return [replace(right, end_user="bob")]

            wrong = Wrong(list(rows.transfers()), list(rows.holds()), list(rows.balances()))
            (said,) = audit(wrong).differences  # type: ignore[arg-type]
        assert said.startswith(f"account {account.id}, 1970-01-02: its totals by end user and tag say 2 orders")
        if isinstance(store, MemoryStore):
            return
        await store._desk.write("UPDATE attributed_total SET orders = 1", ())  # type: ignore[attr-defined]
        assert len(differences(store)) == 1
        assert await store.recount() == [1]  # type: ignore[attr-defined]
        assert await store.recount() == []  # type: ignore[attr-defined]
        assert differences(store) == []

    engine.run(work)


@pytest.mark.parametrize("named", [None, "ann"])
def test_holds_come_back_with_whom_they_are_for(engine: Engine, named: str | None) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(replace(hold(account, key, "h1", 1), end_user=named, tags=named and CHAT))
        (found,) = await store.holds(("pending",))
        assert isinstance(found, HoldRow)
        assert (found.end_user, found.tags) == (named, named and CHAT)

    engine.run(work)
