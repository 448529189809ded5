"""Callers by the platform's tokens, as time goes by and the platform is silent."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from farebox.actor.callers import (
    FRESH_SECONDS,
    REQUEST_ID,
    STALE_SECONDS,
    UNKNOWN_SECONDS,
    UNSURE_SECONDS,
    ApifyCallers,
    Terms,
)
from farebox.core.callers import User
from farebox.core.errors import Refusal
from farebox.core.headers import RequestHead
from farebox.core.plans import BUILT_IN
from farebox.ports import ApifyUnreachable
from farebox.testing import MemoryStore

HEAD = RequestHead(("token",), sent=[(REQUEST_ID, b"request-1")])
TERMS = Terms("run r", User("u", True, is_of_run=False), True, BUILT_IN["paying"], BUILT_IN["free"])
SHARED = replace(TERMS, is_shared=True)


class SomePlatform:
    """Knows one user's token, until it does not."""

    def __init__(self) -> None:
        self.user: User | None = User("u", True, is_of_run=False)
        self.is_silent = False
        self.asked = 0

    async def user_of(self, token: str) -> User | None:
        self.asked += 1
        if self.is_silent:
            raise ApifyUnreachable("silent")
        return self.user


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def play(terms: Terms, work: Callable[[ApifyCallers, SomePlatform, Clock], Awaitable[None]]) -> None:
    async def main() -> None:
        platform, clock = SomePlatform(), Clock()
        await work(ApifyCallers(MemoryStore(), platform, terms, clock), platform, clock)

    asyncio.run(main())


async def status(callers: ApifyCallers, head: RequestHead = HEAD) -> int:
    try:
        await callers.identify(head)
    except Refusal as refusal:
        return refusal.status
    return 200


def test_a_known_token_is_served_for_a_day_while_the_platform_is_silent() -> None:
    async def work(callers: ApifyCallers, platform: SomePlatform, clock: Clock) -> None:
        assert await status(callers) == 200
        platform.is_silent = True
        clock.seconds += STALE_SECONDS - 1
        assert await status(callers) == 200
        clock.seconds += 2
        assert await status(callers) == 429

    play(SHARED, work)


def test_a_revoked_token_is_served_for_minutes_at_most() -> None:
    async def work(callers: ApifyCallers, platform: SomePlatform, clock: Clock) -> None:
        assert await status(callers) == 200
        platform.user = None
        clock.seconds += FRESH_SECONDS - 1
        assert await status(callers) == 200
        clock.seconds += 2
        assert await status(callers) == 401
        platform.user = User("u", True, is_of_run=False)
        assert await status(callers) == 401
        clock.seconds += UNKNOWN_SECONDS + 1
        assert await status(callers) == 200

    play(TERMS, work)


def test_the_owner_is_taken_for_the_caller_for_seconds_only() -> None:
    async def work(callers: ApifyCallers, platform: SomePlatform, clock: Clock) -> None:
        platform.is_silent = True
        assert [await status(callers) for _ in range(3)] == [200] * 3
        assert platform.asked == 1
        platform.is_silent, platform.user = False, User("another", True, is_of_run=False)
        clock.seconds += UNSURE_SECONDS + 1
        assert await status(callers) == 403

    play(TERMS, work)


def test_many_at_once_are_asked_about_once() -> None:
    async def work(callers: ApifyCallers, platform: SomePlatform, clock: Clock) -> None:
        assert await asyncio.gather(*(status(callers) for _ in range(50))) == [200] * 50
        assert platform.asked == 1

    play(SHARED, work)


def test_a_caller_without_a_token_is_charged_by_its_request_and_served_as_free() -> None:
    async def work(callers: ApifyCallers, platform: SomePlatform, clock: Clock) -> None:
        caller = await callers.identify(replace(HEAD, tokens=()))
        assert caller.plan is BUILT_IN["free"]
        assert caller.outside is not None
        assert caller.outside.charge_to == "request-1"
        assert await status(callers, RequestHead()) == 403

    play(SHARED, work)
