"""Answers that are kept for the same order again: for whom, which, and for how long."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from farebox.answer_cache import AnswerCache, CachedAnswer, Missed
from farebox.core.books import KeptAnswer, Settled
from farebox.core.caching import CachedRow, Lookup, acts_outside, is_success, read_lookup
from farebox.core.callers import Account, Caller, Key
from farebox.core.errors import Refusal
from farebox.core.formats import chat
from farebox.core.headers import RequestHead, read_request_head
from farebox.core.intake import Order, read_order
from farebox.core.plans import BUILT_IN
from farebox.ports import BooksUnavailable
from farebox.testing import MemoryStore

CHAT = "/chat/completions"
PLAN = BUILT_IN["paying"]
POSTED = Settled("posted")
S = 1_000_000
ANSWER = {"id": "gen-1", "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}]}
WHOLE = json.dumps(ANSWER).encode()
STREAM = b': c\n\ndata: {"id":"gen-1","choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def caller(account: int = 2, key: int = 7, seconds: int | None = None) -> Caller:
    return Caller(Account(account, "a", "paying", 0), Key(key, account, "", b"", "", 0, cache_seconds=seconds), PLAN)


def order(**members: Any) -> Order:
    body = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], **members}
    return read_order(json.dumps(body).encode(), chat, PLAN)


def head(cache: bytes = b"60", **more: Any) -> RequestHead:
    return RequestHead(cache=cache, **more)


class Cache:
    """A cache, its clock, and what it counted."""

    def __init__(self, store: MemoryStore | None = None, bytes_max: int = 10_000) -> None:
        self.us = 1000 * S
        self.counted: list[str] = []
        self.store = store or MemoryStore()
        self.cache = AnswerCache(self.store, bytes_max, 3600, self.counted.append, lambda: self.us)

    async def look(
        self,
        cache: bytes = b"60",
        ordered: Order | None = None,
        by: Caller | None = None,
        upstream: str = "u",
        path: str = CHAT,
        **more: Any,
    ) -> CachedAnswer | Missed | None:
        return await self.cache.look(by or caller(), head(cache, **more), path, ordered or order(), upstream)

    async def miss(self, **given: Any) -> Missed:
        missed = await self.look(**given)
        assert isinstance(missed, Missed), missed
        return missed

    async def keep(
        self, body: bytes = WHOLE, kind: str = "application/json", upstream: str = "u", **given: Any
    ) -> None:
        missed = await self.miss(upstream=upstream, **given)
        self.cache.keep(missed, upstream, missed.body, KeptAnswer("h", kind, body), POSTED, "gen-1")

    async def is_hit(self, **given: Any) -> bool:
        return isinstance(await self.look(**given), CachedAnswer)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


@pytest.mark.parametrize("is_written", [False, True])
def test_the_same_order_gets_the_kept_answer_with_its_age(is_written: bool) -> None:
    async def work() -> None:
        cache = Cache()
        assert (await cache.miss()).headers == [(b"x-farebox-cache", b"miss")]
        await cache.keep()
        if is_written:
            await cache.cache.write_down()
        cache.us += 5 * S + 1
        answer = await cache.look()
        assert isinstance(answer, CachedAnswer)
        assert await answer.read() == WHOLE
        assert answer.headers == [(b"x-generation-id", b"gen-1"), (b"age", b"5"), (b"x-farebox-cache", b"hit")]
        assert answer.settled.fare is not None
        assert (answer.settled.fare.nanos, answer.is_stream, answer.status) == (0, False, 200)
        assert cache.counted == ["miss", "miss", "hit"]

    run(work)


def test_a_stream_is_given_again_as_its_bytes() -> None:
    async def work() -> None:
        cache = Cache()
        await cache.keep(STREAM, "text/event-stream", ordered=order(stream=True))
        answer = await cache.look(ordered=order(stream=True))
        assert isinstance(answer, CachedAnswer)
        assert answer.is_stream
        sent: list[bytes] = []
        await answer.stream_to(sent.append)
        assert b"".join(sent) == STREAM

    run(work)


@pytest.mark.parametrize(
    "other",
    [
        {"ordered": order(temperature=1)},
        {"by": caller(account=3)},
        {"upstream": "v"},
        {"path": "/other"},
        {"forwarded": {"anthropic-beta": "x"}},
    ],
)
def test_another_order_gets_none(other: dict[str, Any]) -> None:
    async def work() -> None:
        cache = Cache()
        await cache.keep()
        assert not await cache.is_hit(**other)
        assert await cache.is_hit(by=caller(key=8)), "another key of the account does"

    run(work)


def test_an_answer_is_good_as_long_as_it_was_kept_for_and_no_older_than_is_asked() -> None:
    async def work() -> None:
        cache = Cache()
        await cache.keep(cache=b"60")
        cache.us += 30 * S
        assert await cache.is_hit(cache=b"31")
        assert not await cache.is_hit(cache=b"30")
        cache.us += 30 * S
        assert not await cache.is_hit(cache=b"3600")

    run(work)


def test_who_does_not_ask_takes_no_part() -> None:
    async def work() -> None:
        cache = Cache()
        await cache.keep()
        assert await cache.look(cache=b"") is None
        assert await cache.look(cache=b"0", by=caller(seconds=60)) is None
        assert await cache.look(idempotency_key=b"k") is None
        assert await cache.is_hit(cache=b"", by=caller(seconds=60))

    run(work)


def test_the_header_is_read_of_a_request() -> None:
    assert read_request_head([(b"x-farebox-cache", b" 60 ")]).cache == b"60"


@pytest.mark.parametrize(
    ("header", "key_seconds", "found"),
    [
        (b"60", None, Lookup(60)),
        (b"60, tools", 5, Lookup(60, with_tools=True)),
        (b"7200,Tools", None, Lookup(3600, with_tools=True)),
        (b"0", 60, None),
        (b"", None, None),
        (b"", 0, None),
        (b"", 60, Lookup(60)),
        (b"", 7200, Lookup(3600)),
    ],
)
def test_who_asks(header: bytes, key_seconds: int | None, found: Lookup | None) -> None:
    assert read_lookup(header, key_seconds, 3600) == found


@pytest.mark.parametrize("header", [b"yes", b"-1", b"1.5", b"60, all", b"60,", b"9" * 30, b"\xff"])
def test_what_is_no_such_header_is_a_400(header: bytes) -> None:
    with pytest.raises(Refusal, match="x-farebox-cache") as caught:
        read_lookup(header, None, 3600)
    assert caught.value.status == 400


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("members", "is_outside"),
    [
        ({}, False),
        ({"tools": [FUNCTION]}, False),
        ({"tools": None, "plugins": []}, False),
        ({"tools": [{"name": "f", "input_schema": {}}]}, False),
        ({"prompt": "a text to go on with"}, False),
        ({"plugins": [{"id": "web", "enabled": False}, {"id": "response-healing"}]}, False),
        ({"tools": [FUNCTION, {"type": "web_search_20250305", "name": "web_search"}]}, True),
        ({"tools": [{"type": "mcp", "server_url": "x"}]}, True),
        ({"tools": [{"type": "of next year"}]}, True),
        ({"tools": [{"type": "openrouter:datetime"}]}, True),
        ({"tools": "all"}, True),
        ({"plugins": [{"id": "web"}]}, True),
        ({"plugins": [{"id": "of next year"}]}, True),
        ({"mcp_servers": [{"url": "x"}]}, True),
        ({"web_search_options": {}}, True),
        ({"previous_response_id": "resp_1"}, True),
        ({"conversation": "conv_1"}, True),
        ({"container": "container_1"}, True),
        ({"prompt": {"id": "pmpt_1"}}, True),
    ],
)
def test_tools_that_act_outside_are_told_from_others(members: dict[str, Any], is_outside: bool) -> None:
    assert acts_outside(json.dumps({"model": "a/b", **members}).encode(), ("a/b",)) is is_outside


def test_an_order_whose_tools_act_outside_takes_part_only_where_it_says_so() -> None:
    async def work() -> None:
        cache = Cache()
        searching = order(tools=[{"type": "openrouter:web_search"}])
        assert await cache.look(ordered=searching) is None
        assert await cache.look(ordered=order(model="a/b:online")) is None
        await cache.keep(ordered=searching, cache=b"60, tools")
        assert await cache.is_hit(ordered=searching, cache=b"60, tools")
        assert await cache.look(ordered=searching) is None
        assert cache.counted == ["left_out", "left_out", "miss", "hit", "left_out"]

    run(work)


def event(said: object) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "is_good"),
    [
        (WHOLE, True),
        (b"\n\n" + WHOLE, True),
        (b'{"type":"message","content":[],"error":null}', True),
        (b'{"object":"response","status":"incomplete","output":[]}', True),
        (b'{"object":"list","data":[]}', True),
        (b'{"choices":[]}', False),
        (b'{"choices":[{"finish_reason":"error"}]}', False),
        (b'{"choices":[{"finish_reason":"stop","error":{"code":502}}]}', False),
        (b'{"error":{"code":502}}', False),
        (b'{"object":"response","status":"failed"}', False),
        (b'{"object":"response","status":"cancelled"}', False),
        (b'{"object":"response","status":"in_progress"}', False),
        (b'{"object":"response","status":"queued"}', False),
        (b"not JSON", False),
    ],
)
def test_a_whole_answer_is_kept_where_it_is_a_success(body: bytes, is_good: bool) -> None:
    assert is_success(body, is_stream=False) is is_good


@pytest.mark.parametrize(
    ("body", "is_good"),
    [
        (STREAM, True),
        (event({"type": "message_stop"}), True),
        (event({"type": "response.completed", "response": {"status": "completed"}}), True),
        (event({"choices": [{"finish_reason": "stop"}]}), False),
        (event({"type": "response.completed"})[:-1], False),
        (STREAM + b"data: {", False),
        (event({"error": {"code": 502}}) + DONE, False),
        (event({"choices": [{"finish_reason": "error"}]}) + DONE, False),
        (event({"type": "error"}) + event({"type": "message_stop"}), False),
        (event({"type": "response.failed"}) + DONE, False),
        (event({"type": "response.completed", "response": {"status": "failed"}}), False),
        (b"data: nonsense\n\n" + DONE, False),
        (b"", False),
    ],
)
def test_a_stream_is_kept_where_it_came_to_its_own_end_without_an_error(body: bytes, is_good: bool) -> None:
    assert is_success(body, is_stream=True) is is_good


def test_only_what_was_booked_as_ordered_is_kept() -> None:
    async def work() -> None:
        cache = Cache()
        missed = await cache.miss()
        kept = KeptAnswer("h", "application/json", WHOLE)
        cache.cache.keep(missed, "u", missed.body, None, POSTED, "gen-1")
        cache.cache.keep(missed, "u", missed.body, kept, Settled("open"), "gen-1")
        cache.cache.keep(missed, "u", missed.body, kept, Settled("voided"), "gen-1")
        cache.cache.keep(missed, "u", b"capped", kept, POSTED, "gen-1")
        cache.cache.keep(missed, "u", missed.body, replace(kept, body=b'{"error":{}}'), POSTED, "gen-1")
        cache.cache.keep(missed, "u", missed.body, replace(kept, body=WHOLE.ljust(10_001)), POSTED, "gen-1")
        assert not await cache.is_hit()
        cache.cache.keep(missed, "v", missed.body, kept, POSTED, "gen\n1")
        assert not await cache.is_hit(), "another upstream answered"
        answer = await cache.look(upstream="v")
        assert isinstance(answer, CachedAnswer)
        assert (b"age", b"0") in answer.headers
        assert dict(answer.headers).get(b"x-generation-id") is None, "an id that is no header's value"

    run(work)


def test_an_answer_that_is_kept_anew_takes_the_place_of_the_one_before() -> None:
    """Also while that is being written; and it counts once against what may wait."""
    bodies = [WHOLE.replace(b"hi", b"h%d" % number) for number in range(9)]
    written: list[bytes] = []

    async def work() -> None:
        class Store(MemoryStore):
            async def keep_cached(self, row: CachedRow) -> None:
                written.append(row.body)
                if len(written) == 1:
                    keep(bodies[-1])
                await super().keep_cached(row)

        cache = Cache(Store(), bytes_max=2 * len(WHOLE))
        missed = await cache.miss()

        def keep(body: bytes) -> None:
            cache.cache.keep(missed, "u", missed.body, KeptAnswer("h", "application/json", body), POSTED, "gen-1")

        for body in bodies[:-1]:
            keep(body)
        await cache.cache.write_down()
        assert written == [bodies[-2], bodies[-1]]
        answer = await cache.look()
        assert isinstance(answer, CachedAnswer)
        assert await answer.read() == bodies[-1]

    run(work)


def test_the_oldest_go_where_more_is_kept_than_may_be() -> None:
    async def work() -> None:
        cache = Cache(bytes_max=5 * len(WHOLE))
        orders = [order(seed=number) for number in range(9)]
        for each in orders:
            cache.us += 1
            await cache.keep(ordered=each)
            await cache.cache.write_down()
        assert [await cache.is_hit(ordered=each) for each in orders] == [False] * 4 + [True] * 5
        assert (cache.cache.answers, cache.cache.bytes) == (5, 5 * len(WHOLE))

    run(work)


def test_books_that_take_nothing_now_do_not_hold_up_orders_and_get_it_later() -> None:
    class Store(MemoryStore):
        is_down = True

        async def keep_cached(self, row: CachedRow) -> None:
            if self.is_down:
                raise BooksUnavailable("not now")
            await super().keep_cached(row)

        async def cached_answer(self, digest: bytes, now_us: int) -> CachedRow | None:
            if self.is_down:
                raise BooksUnavailable("not now")
            return await super().cached_answer(digest, now_us)

    async def work() -> None:
        store = Store()
        cache = Cache(store)
        await cache.keep()
        with pytest.raises(BooksUnavailable):
            await cache.cache.write_down()
        assert await cache.is_hit()
        assert not await cache.is_hit(ordered=order(seed=1))
        store.is_down = False
        await cache.cache.write_down()
        assert await Cache(store).is_hit(), "another process finds it"

    run(work)
