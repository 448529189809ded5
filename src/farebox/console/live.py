"""Live: orders under way and those that ended just now, as they come.

Where they stand is read from the books, so the orders of every node are there. Whoever watches shares what was read:
once a second for all who watch the same, less often where that takes long, and never where nobody watches. What is
told is how things stand, and only when it has changed: so nothing heaps up, however many orders come, and who is slow
to take it gets the newest.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic

from farebox import clock
from farebox.console import rendering
from farebox.console.house import House
from farebox.console.naming import Names
from farebox.console.reading import FILTERED_MAX, IN_MINUTE_MAX, LiveFilter, LiveNow, LiveOrder
from farebox.console.requests import Cell, Page, Request, viewer_of
from farebox.console.shown import decimals_of, places_of
from farebox.core.errors import Refusal, too_many
from farebox.core.money import format_usd
from farebox.http.asgi import EVENT_STREAM, AsgiCall
from farebox.ports import BooksUnavailable

EVENTS = "/live/events"

COLUMNS = (
    "placed",
    "ended",
    "account",
    "key",
    "model",
    "state",
    "streamed",
    "prompt_tokens",
    "answer_tokens",
    "cost_usd",
    "fare_usd",
    "held_usd",
    "order",
)

SHOWN = 30
"""Orders that have not ended, and as many that have."""

TICK_SECONDS = 1.0
REST_TIMES, REST_SECONDS_MAX = 100, 10.0
"""How often somebody who watches is told, and is read what they see: where reading takes long, it rests a hundred times
as long, so that it takes a hundredth of a core."""

CHECK_SECONDS = 2.0
"""After so long it is asked whether the session still holds."""

BEAT_SECONDS = 5.0
"""After so long without news, a watcher is told that there are none: a connection that is dead is found."""

TAKEN_SECONDS = 30.0
"""Who takes nothing for so long is left."""

RETRY_MS = 3_000

WATCHING_MAX, OF_ACCOUNT_MAX, OPERATORS_MAX = 64, 8, 64
"""How many watch at once, in one process: by sessions of accounts, in all and of one of them, and by operators'."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a viewer is told of an order: whose it is, and what the upstream charged for it."""

    with_accounts: bool
    shows_cost: bool


@dataclass(slots=True)
class _Seen:
    """What those see who watch the same. It is read again when `until` (monotonic seconds) has passed."""

    event: bytes
    until: float


async def show(house: House, request: Request) -> Page:
    """GET /console/live: where things stand, for whom no script tells how they go on."""
    wanted = await _wanted(house, request)
    now = await house.reading.live(wanted, request.now_us, SHOWN)
    asked = {name: request.text(name) for name in ("account", "key_id", "model")}
    names = Names(house.reading)
    told = _told(house, request)
    values = {
        **_values(now, told),
        **asked,
        "key": "" if wanted.key_id is None else await names.key(wanted.key_id),
        "events": f"{EVENTS}?{rendering.query_text(asked)}",
    }
    return Page("live.html", values, columns=COLUMNS, rows=[_row(each, told) for each in (*now.not_ended, *now.ended)])


async def _wanted(house: House, request: Request) -> LiveFilter:
    """Raises Refusal 404: an account or a key that is not there, or another's."""
    account_id = request.viewer.account_id
    if account_id is None and (name := request.text("account")):
        account_id = (await house.accounts.find(name)).id
    key_id = request.whole("key_id") or None
    if key_id is not None:
        await Names(house.reading).check_sees_key(request.viewer, key_id)
    return LiveFilter(account_id, key_id, request.text("model") or None)


def _told(house: House, request: Request) -> _Told:
    return _Told(request.viewer.account is None, house.shows_cost(request.viewer))


def _row(order: LiveOrder, told: _Told) -> dict[str, Cell]:
    return {
        "placed": clock.iso(order.created_us),
        "ended": None if order.ended_us is None else clock.iso(order.ended_us),
        "account": order.account,
        "key": order.key,
        "model": order.model,
        "state": order.state,
        "streamed": int(order.streamed),
        "prompt_tokens": order.prompt_tokens,
        "answer_tokens": order.answer_tokens,
        "cost_usd": order.cost if told.shows_cost else None,
        "fare_usd": None if order.fare_nanos is None else format_usd(order.fare_nanos),
        "held_usd": format_usd(order.held_nanos),
        "order": order.id,
    }


def _values(now: LiveNow, told: _Told) -> dict[str, object]:
    return {
        "now": now,
        "with_accounts": told.with_accounts,
        "shows_cost": told.shows_cost,
        "places": places_of(order.fare_nanos for order in now.ended),
        "cost_places": decimals_of(order.cost for order in now.ended),
        "shown": SHOWN,
        "looked_at": FILTERED_MAX,
        "in_minute_max": IN_MINUTE_MAX,
    }


class Watching:
    """Whoever watches."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._watchers: Counter[int | None] = Counter()
        self._seen: dict[tuple[LiveFilter, _Told], _Seen] = {}
        self._reading = asyncio.Lock()

    async def follow(self, call: AsgiCall, request: Request) -> None:
        """GET /console/live/events: server-sent events, until the caller or its session is gone, or the server stops.
        Raises Refusal before that begins: as the page does; 429, too many watch; 503, the server is stopping."""
        if self._house.is_stopping():
            raise Refusal(503, "provider_unavailable", "This gateway is stopping")
        wanted = await _wanted(self._house, request)
        gone = asyncio.Event()
        with self._room(request.viewer.account_id):
            await call.begin(200, [*EVENT_STREAM, *rendering.SAFETY, (b"vary", b"cookie")])
            call.when_gone(gone.set)
            try:
                await self._tell(call, request, wanted, gone)
                await call.end()
            except TimeoutError:
                await call.break_off()
            finally:
                call.when_gone(None)

    @contextmanager
    def _room(self, account_id: int | None) -> Iterator[None]:
        """Be one of those who watch. Raises Refusal 429."""
        watchers = self._watchers
        operators = watchers[None]
        of_accounts = watchers.total() - operators
        is_full = (
            operators >= OPERATORS_MAX
            if account_id is None
            else watchers[account_id] >= OF_ACCOUNT_MAX or of_accounts >= WATCHING_MAX
        )
        if is_full:
            raise too_many("Too many watch already; the page can be loaded again by hand", 5)
        watchers[account_id] += 1
        try:
            yield
        finally:
            watchers[account_id] -= 1
            if not watchers.total():
                watchers.clear()
                self._seen.clear()

    async def _tell(self, call: AsgiCall, request: Request, wanted: LiveFilter, gone: asyncio.Event) -> None:
        """Tell one of them how things stand, and again when they have changed."""
        await _put(call, b"retry: %d\n\n" % RETRY_MS)
        last = b""
        checked_at = told_at = monotonic()
        while not (gone.is_set() or self._house.is_stopping()):
            try:
                if monotonic() - checked_at >= CHECK_SECONDS:
                    found = await self._house.sessions.find(request.session, is_use=False)
                    if found is None:
                        await _put(call, _event("ended", "Nobody is signed in here any more"))
                        return
                    # Its account's plan may be another one now, and show less.
                    request = replace(request, viewer=viewer_of(found))
                    checked_at = monotonic()
                event = await self._newest(wanted, _told(self._house, request))
            except BooksUnavailable:
                return  # the browser asks again
            if event is not last:
                await _put(call, event)
                last, told_at = event, monotonic()
            elif monotonic() - told_at >= BEAT_SECONDS:
                await _put(call, _event("beat", "."))
                told_at = monotonic()
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await gone.wait()
            except TimeoutError:
                continue

    async def _newest(self, wanted: LiveFilter, told: _Told) -> bytes:
        """How things stand, as an event: the same object as before where nothing has changed."""
        async with self._reading:
            seen = self._seen.get((wanted, told))
            if seen is not None and monotonic() < seen.until:
                return seen.event
            now = await self._house.reading.live(wanted, clock.now_us(), SHOWN)
            values = _values(now, told)
            event = _event("orders", rendering.fragment("live-orders.html", values))
            if seen is not None and _said(seen.event) == _said(event):
                event = seen.event
            rest = now.seconds * REST_TIMES * max(1, len(self._seen))
            # Somewhat less than a tick, or every other one would find what was read at the one before.
            until = monotonic() + max(0.9 * TICK_SECONDS, min(rest, REST_SECONDS_MAX))
            self._seen[wanted, told] = _Seen(event, until)
            self._forget(monotonic() - REST_SECONDS_MAX)
            return event

    def _forget(self, before: float) -> None:
        """What nobody has wanted for a while."""
        for each in [each for each, seen in self._seen.items() if seen.until < before]:
            del self._seen[each]


def _event(name: str, html: str) -> bytes:
    """A server-sent event; its id says of when it is. A line ends where the text has one, and a carriage return, which
    would end one, too, is none."""
    lines = html.replace("\r", " ").split("\n")
    at = clock.iso(clock.now_us(), "seconds").replace("T", " ").removesuffix("Z")
    return "".join([f"id: {at}\nevent: {name}\n", *(f"data: {line}\n" for line in lines), "\n"]).encode()


def _said(event: bytes) -> bytes:
    """An event without its time."""
    return event.partition(b"\n")[2]


async def _put(call: AsgiCall, event: bytes) -> None:
    """Raises TimeoutError: it was not taken."""
    async with asyncio.timeout(TAKEN_SECONDS):
        await call.put(event)
