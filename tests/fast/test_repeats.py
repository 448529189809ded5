"""Which order a repeat joins, and what becomes of it: the rules, and the data path between a scripted upstream and
books in memory."""

import asyncio
import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from farebox.admission import Admission
from farebox.answers import RepeatedAnswer, Streaming
from farebox.catalog import Catalog
from farebox.core.books import Command, Done, First, HoldRow, KeepAnswer, Outcome, Seen, Settle, Sought, TopUp
from farebox.core.errors import Refusal
from farebox.core.formats import chat
from farebox.core.headers import read_request_head
from farebox.core.keys import digest
from farebox.core.plans import BUILT_IN
from farebox.core.repeats import Found, Joins, Kept, becomes, first_of, is_repeat
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange, Request
from farebox.identity.keys import KeyCallers, PlansInForce, new_key
from farebox.joining import Joining
from farebox.late_settlements import LateSettlements
from farebox.ports import BooksUnavailable, CallerGone
from farebox.testing import PRICES, MemoryStore, Pause, Script, ScriptedUpstream
from farebox.upstream.running import alone
from tests.fast.test_exchange import whole


@pytest.mark.parametrize(
    ("count", "says_so"), [(b"1", True), (b"42", True), (b"9999", True), (b"0", False), (b"000", False)]
)
def test_a_count_says_whether_it_is_a_repeat(count: bytes, says_so: bool) -> None:
    assert is_repeat(count) is says_so


@pytest.mark.parametrize("count", [b"", b"-1", b"1.0", b"1e9", b"one", b"\xb2", b"10000", b"9" * 5000, b"1, 1"])
def test_what_is_no_count_says_nothing(count: bytes) -> None:
    assert not is_repeat(count)


HOLD = HoldRow("h", 2, 1, "alive", "pending", 10, "paying", 10, "a/b", streamed=False, created_us=1)


def test_the_order_of_what_is_joined() -> None:
    answered, lost, given = Kept("a", True, False), Kept("b", False, False), Kept("c", True, True)
    open_hold = replace(HOLD, state="open")

    def joins(kept: list[Kept], holds: list[HoldRow], *, is_marked: bool = True) -> Found | None:
        return first_of(kept, holds, lambda worker: worker == "dead", is_marked=is_marked)

    assert joins([lost, answered], [HOLD]) == Found("a")
    assert joins([lost], [HOLD]) == Found("h", "joined")
    assert joins([lost], [replace(HOLD, id="i"), replace(HOLD, delivery="lost")]) == Found("h")
    assert joins([lost], [open_hold]) == Found("b")
    assert joins([], [open_hold]) is None
    assert joins([], [replace(open_hold, worker="dead")]) == Found("h", "lost", "open")
    assert joins([given], []) == Found("c")
    assert joins([given], [HOLD], is_marked=False) is None


def test_what_becomes_of_a_repeat() -> None:
    asked = replace(HOLD, state="open", ask_us=5)
    assert becomes(First(replace(HOLD, state="posted"), b"{}")) == "answered"
    assert becomes(First(asked, b"{}")) == "answered"
    assert becomes(First(asked, None)) == becomes(First(HOLD, None)) == "waiting"
    assert becomes(First(replace(HOLD, state="voided"), None)) == "ordered"
    for end in (replace(HOLD, state="posted", generation_id="gen-1"), replace(HOLD, state="open")):
        with pytest.raises(Refusal) as refused:
            becomes(First(end, None))
        assert refused.value.status == 410


LOOKS = 5
"""How often a repeat here looks again."""


@dataclass
class Caller:
    """Takes an answer, unless it has gone."""

    is_gone: bool = False
    is_half_closed: bool = False
    tell: Callable[[], None] | None = None

    def has_gone(self) -> bool:
        return self.is_gone

    def may_have_gone(self) -> bool:
        return self.is_gone or self.is_half_closed

    def tell_if_lost(self, tell: Callable[[], None], size: int = 0) -> None:
        self.tell = tell

    def go(self) -> None:
        assert self.tell is not None
        self.is_gone = True
        self.tell()


class Falling(MemoryStore):
    """Books that fall as they are to take an order's end, which they have taken (`has_taken`) or not."""

    def __init__(self, *, has_taken: bool) -> None:
        super().__init__()
        self._has_taken = has_taken
        self._has_fallen = False

    async def carry_out(self, command: Command) -> Outcome:
        if not isinstance(command, Settle) or self._has_fallen:
            return await super().carry_out(command)
        self._has_fallen = True
        if self._has_taken:
            await super().carry_out(command)
        raise BooksUnavailable("the connection broke", is_in_doubt=True)


class Slow(MemoryStore):
    """Books that let somebody go before they take an order's end; what is to be kept after all has not come yet."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    async def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, KeepAnswer):
            return Done()
        if isinstance(command, Settle):
            self._meanwhile()
        return await super().carry_out(command)


class Late(MemoryStore):
    """Books that take what is to be kept after all only when they may; `look` is called at each look for a first."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look
        self.may_keep = asyncio.Event()
        self.to_keep = 0

    async def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, KeepAnswer):
            self.to_keep += 1
            await self.may_keep.wait()
        return await super().carry_out(command)

    async def find_first(self, sought: Sought) -> Seen:
        seen = await super().find_first(sought)
        self._look()
        return seen


class House:
    """An exchange with books in memory, and one key."""

    def __init__(self, *scripts: Script | Exception, joins: Joins = "marked", wait_seconds: float = 9) -> None:
        self.store = MemoryStore()
        self.upstream = ScriptedUpstream(*scripts, pages={"/models": PRICES})
        self._joins = joins
        self._wait_seconds = wait_seconds
        self._key = new_key()

    async def open(self) -> "House":
        account = await self.store.create_account("a", "paying", 0, 1)
        await self.store.create_key(account.id, "", digest(self._key), "hint", 1)
        await self.store.carry_out(TopUp("t", account.id, 10**9, 1))
        await self._start()
        return self

    async def beside(self, worker: str) -> "House":
        """Another process on the same books."""
        other = copy(self)
        other.store = self.store.beside(worker)
        await other._start()
        return other

    async def _start(self) -> None:
        catalog = Catalog(self.upstream, 300, 3600)
        await catalog.refresh()
        admission = Admission(99, 3)
        self.joining = Joining(
            self.store, admission, self._joins, self._wait_seconds, look_again_seconds=(0.001,) * LOOKS
        )
        self.late = LateSettlements(self.store)
        self.exchange = Exchange(
            callers=KeyCallers(self.store, PlansInForce(BUILT_IN)),
            prices=catalog,
            ledger=self.store,
            upstreams=alone(self.upstream),
            streaming=Streaming(Deadlines()),
            admission=admission,
            joining=self.joining,
            late=self.late,
        )

    async def order(self, count: int | None = None, taker: Caller | None = None) -> tuple[bytes, bool]:
        """An answer's body, and whether it is the first's. Raises Refusal."""
        sent = [(b"authorization", f"Bearer {self._key}".encode())]
        sent += [] if count is None else [(b"x-stainless-retry-count", b"%d" % count)]

        async def body() -> bytes:
            return json.dumps(
                {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
            ).encode()

        request = Request("/chat/completions", chat, read_request_head(sent), body, taker=taker)
        async with self.exchange.open(request) as answer:
            read = await answer.read()
        return read, isinstance(answer, RepeatedAnswer)

    async def until_placed(self) -> None:
        while not await self.states():  # noqa: ASYNC110 - books in memory tell nobody
            await asyncio.sleep(0)

    async def states(self) -> list[str]:
        return [hold.state for hold in await self.store.holds(("pending", "open", "posted", "voided"))]


def slow(**head: int) -> Script:
    script = whole(**head)
    script.steps.insert(0, Pause(400))
    return script


def test_who_leaves_while_the_end_waits_for_the_books_has_left_when_it_is_booked() -> None:
    async def play() -> None:
        caller = Caller()
        house = House(whole(), whole())
        house.store = Slow(caller.go)
        await house.open()
        first, _ = await house.order(0, caller)
        assert await house.order(1, Caller()) == (first, True)
        assert await house.states() == ["posted"]

    asyncio.run(play())


def test_a_repeat_looks_again_for_what_another_process_is_about_to_note() -> None:
    async def play() -> None:
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1
            if looks == LOOKS - 1:
                late.may_keep.set()

        caller, late = Caller(), Late(look)
        house = House(whole(), whole())
        house.store = late
        await house.open()
        writing = asyncio.create_task(house.joining.run())
        first, _ = await house.order(0, caller)
        caller.go()
        other = await house.beside("other")
        assert await other.order(1, Caller()) == (first, True)
        assert looks > 1
        assert await house.states() == ["posted"]
        writing.cancel()

    asyncio.run(play())


def test_a_repeat_of_what_was_taken_at_another_process_is_an_order_and_so_is_at_once_what_is_no_repeat() -> None:
    async def play() -> None:
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1

        house = House(whole(), whole(), whole())
        house.store = Late(look)
        await house.open()
        await house.order(0, Caller())
        other = await house.beside("other")
        assert (await other.order(0, Caller()))[1] is False
        assert looks == 0
        assert (await other.order(1, Caller()))[1] is False
        assert looks == LOOKS + 1
        assert await house.states() == ["posted"] * 3

    asyncio.run(play())


def test_a_repeat_whose_caller_leaves_while_it_looks_again_is_not_placed() -> None:
    async def play() -> None:
        impatient = Caller()
        house = House(whole(), whole())
        house.store = Late(lambda: setattr(impatient, "is_gone", True))
        await house.open()
        await house.order(0, Caller())
        other = await house.beside("other")
        with pytest.raises(CallerGone):
            await other.order(1, impatient)
        assert await house.states() == ["posted"]

    asyncio.run(play())


def test_an_order_whose_caller_leaves_while_it_waits_for_the_books_is_not_placed() -> None:
    async def play() -> None:
        house = await House(whole()).open()
        with pytest.raises(CallerGone):
            await house.order(0, Caller(is_gone=True))
        assert await house.states() == []

    asyncio.run(play())


def test_what_is_noted_of_several_orders_waits_for_one_commit() -> None:
    async def play() -> None:
        late = Late(lambda: None)
        house = House(whole(), whole(), whole())
        house.store = late
        await house.open()
        callers = [Caller() for _ in range(3)]
        for caller in callers:
            await house.order(0, caller)
        for caller in callers:
            caller.go()
        writing = asyncio.create_task(house.joining.write_down())
        while late.to_keep < len(callers):  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0)
        late.may_keep.set()
        await writing

    asyncio.run(play())


def test_a_repeat_looks_again_where_its_first_was_just_seen_to_leave() -> None:
    async def play() -> None:
        caller = Caller()
        late = Late(lambda: None if caller.is_gone else caller.go())
        late.may_keep.set()
        house = House(whole(), whole())
        house.store = late
        await house.open()
        first, _ = await house.order(0, caller)
        assert await house.order(1, Caller()) == (first, True)
        assert await house.states() == ["posted"]

    asyncio.run(play())


def test_a_repeat_is_handed_what_nobody_took() -> None:
    async def play() -> None:
        house = await House(whole(), whole()).open()
        first, _ = await house.order(0, Caller(is_half_closed=True))
        assert await house.order(1, Caller()) == await house.order(2, Caller()) == (first, True)
        assert await house.order(0, Caller()) == (first, False)
        assert await house.states() == ["posted", "posted"]

    asyncio.run(play())


@pytest.mark.parametrize("has_taken", [True, False])
def test_an_answer_that_could_not_be_booked_is_for_a_repeat(has_taken: bool) -> None:
    async def play() -> None:
        house = House(whole(), whole())
        house.store = Falling(has_taken=has_taken)
        await house.open()
        with pytest.raises(Refusal, match="could not be booked"):
            await house.order(0, Caller())
        late = asyncio.create_task(house.late.run())
        while house.late.waiting:  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0)
        assert (await house.order(1, Caller()))[1] is True
        assert await house.states() == ["posted"]
        late.cancel()

    asyncio.run(play())


def test_many_repeats_wait_for_one_order_beyond_what_an_account_may_order_at_once() -> None:
    async def play() -> None:
        house = await House(slow()).open()
        first = asyncio.create_task(house.order(0, Caller()))
        await asyncio.sleep(0)
        answers = await asyncio.gather(first, *(house.order(1, Caller()) for _ in range(20)))
        assert [is_first for _, is_first in answers] == [False] + [True] * 20
        assert await house.states() == ["posted"]

    asyncio.run(play())


def test_repeats_of_what_never_came_are_one_order_and_are_refused_together() -> None:
    async def play() -> None:
        house = await House(slow()).open()
        answers = await asyncio.gather(*(house.order(1, Caller()) for _ in range(20)))
        assert sorted(is_first for _, is_first in answers) == [False] + [True] * 19
        refused = await House(slow(status=429), slow(status=429), slow(status=429), slow(status=429)).open()
        outcomes = await asyncio.gather(*(refused.order(1, Caller()) for _ in range(3)), return_exceptions=True)
        assert len(refused.upstream.received) <= 3, outcomes

    asyncio.run(play())


def test_an_answer_that_turns_out_not_to_be_taken_is_kept() -> None:
    async def play() -> None:
        house = await House(whole(), whole()).open()
        caller = Caller()
        first, _ = await house.order(0, caller)
        caller.go()
        assert await house.order(1, Caller()) == (first, True)

    asyncio.run(play())


def test_what_does_not_say_so_joins_only_one_whose_caller_has_gone() -> None:
    async def play() -> None:
        house = await House(slow(), whole(), whole(), joins="unmarked").open()
        caller = Caller()
        first = asyncio.create_task(house.order(None, caller))
        await house.until_placed()
        assert (await house.order(None, Caller()))[1] is False
        caller.go()
        assert (await house.order(None, Caller()))[1] is True
        await first
        # Delivered now: not given again to who does not ask for it.
        assert (await house.order(None, Caller()))[1] is False
        assert await house.states() == ["posted"] * 3

    asyncio.run(play())


def test_a_repeat_waits_no_longer_than_it_may() -> None:
    async def play() -> None:
        house = await House(slow(), wait_seconds=0).open()
        first = asyncio.create_task(house.order(0, Caller()))
        await house.until_placed()
        with pytest.raises(Refusal, match="still being answered") as late:
            await house.order(1, Caller())
        assert (late.value.status, late.value.headers["retry-after"]) == (409, "1")
        await first

    asyncio.run(play())


def test_nothing_is_joined_where_it_is_off() -> None:
    async def play() -> None:
        house = await House(whole(), whole(), joins="off").open()
        await house.order(0, Caller(is_half_closed=True))
        assert (await house.order(1, Caller()))[1] is False
        assert await house.states() == ["posted"] * 2

    asyncio.run(play())
