"""Upstreams tried in turn, left alone where they fail, and seen alike by two nodes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.attempts import Attempt, MayBeCharged, NotReached, Refused, Went
from farebox.core.errors import Refusal
from farebox.core.formats import chat
from farebox.core.health import (
    ALONE_FIRST_US,
    ALONE_LONGEST_US,
    FAILURES_MAX,
    RETRY_AFTER_LONGEST_US,
    SAMPLES_US,
    WHOLE,
    Samples,
    Standing,
    failed,
    newer,
    well,
)
from farebox.core.routing import Candidate
from farebox.denials import Denials
from farebox.ports import BooksUnavailable, CallerGone, Reply, UpstreamBroke, UpstreamDenied, UpstreamUnreachable
from farebox.routing import Attempts, Routing, Sole
from farebox.testing import MemoryStore, Script, ScriptedReply
from farebox.upstream_health import NAMES_MAX, Health

CHAT = "/chat/completions"
S = 1_000_000
Said = Script | Exception


class Clock:
    def __init__(self) -> None:
        self.us = 1_000 * S

    def __call__(self) -> int:
        return self.us


def at(upstream: str, model: str = "a/b", order: int = 0, **declared: Any) -> Candidate:
    return Candidate(upstream, model, frozenset((CHAT,)), order=order, **declared)


def script(status: int = 200, **headers: str) -> Script:
    return Script([b"{}"], status, headers=[(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()])


class Node:
    """One process: what its upstreams say in turn, whom it asked, what it noted."""

    def __init__(self, *candidates: Candidate, store: MemoryStore | None = None, clock: Clock | None = None) -> None:
        self.candidates = candidates
        self.clock = clock or Clock()
        self.store = store or MemoryStore()
        self.health = Health(self.store, now_us=self.clock)
        self.told: list[tuple[str, str, bool]] = []
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.denied: list[tuple[str, int]] = []
        denials = Denials(lambda upstream, status: self.denied.append((upstream, status)))
        self.routing = Routing(self._serving, self.health, told=self._tell, chance=lambda: 0.0, denials=denials)

    def _serving(self, model: str) -> Sequence[Candidate]:
        return [each for each in self.candidates if each.model == model]

    def _tell(self, attempt: Attempt, is_fallback: bool) -> None:
        self.told.append((attempt.upstream, attempt.went.reason if attempt.went else "served", is_fallback))

    def attempts(self, **members: Any) -> tuple[bytes, Attempts]:
        order = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], **members}
        body = json.dumps(order).encode()
        attempts = self.routing.attempts(CHAT, body, chat.read(body))
        assert isinstance(attempts, Attempts)
        return body, attempts

    async def order(self, says: Mapping[str, Said], **members: Any) -> tuple[Reply, Attempts]:
        body, attempts = self.attempts(**members)

        async def send(candidate: Candidate, body: bytes) -> Reply:
            self.asked.append(candidate.upstream)
            self.bodies.append(body)
            said = says.get(candidate.upstream, script())
            if isinstance(said, Exception):
                raise said
            return ScriptedReply(said)

        return await attempts.answer(body, send), attempts

    async def served_by(self, says: Mapping[str, Said], **members: Any) -> str:
        _, attempts = await self.order(says, **members)
        attempts.end()
        return attempts.at.upstream

    def alone(self) -> dict[tuple[str, str], bool]:
        return {name: alone for name, alone in self.health.left_alone().items() if alone}


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


FIRST, SECOND, THIRD = at("first", order=1), at("second", order=2), at("third", order=3)


def test_the_next_is_tried_until_one_accepts_and_each_attempt_is_in_the_record() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND, THIRD)
        says: dict[str, Said] = {"first": UpstreamUnreachable("no"), "second": script(529)}
        reply, attempts = await node.order(says)
        assert (reply.status, attempts.at.upstream) == (200, "third")
        attempts.end(answer_tokens=5)
        assert node.asked == ["first", "second", "third"]
        assert [(each.upstream, each.went) for each in attempts.made] == [
            ("first", NotReached()),
            ("second", Refused(529)),
            ("third", None),
        ]
        assert node.told == [
            ("first", "unreachable", True),
            ("second", "status_529", True),
            ("third", "served", False),
        ]
        attempts.end()
        assert len(attempts.made) == 3, "an attempt ends once"

    run(work)


def test_where_nobody_accepts_the_last_word_is_told() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND)
        reply, _ = await node.order({"first": UpstreamUnreachable("no"), "second": script(503)})
        assert reply.status == 503
        assert await reply.read() == b"{}", "it is there to be passed on"
        with pytest.raises(UpstreamUnreachable) as caught:
            await node.order({"first": script(503), "second": UpstreamUnreachable("no", timed_out=True)})
        assert caught.value.timed_out
        assert node.told[-1] == ("second", "connect_timeout", False)

    run(work)


@pytest.mark.parametrize("said", [UpstreamBroke("it broke", "gen-9"), script(504), script(400)])
def test_nobody_else_is_tried_where_an_order_may_have_been_taken_or_is_wrong_itself(said: Said) -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND)
        if isinstance(said, Exception):
            with pytest.raises(UpstreamBroke) as caught:
                await node.order({"first": said})
            assert caught.value.generation_id == "gen-9"
        else:
            reply, _ = await node.order({"first": said})
            assert reply.status == said.status
        assert node.asked == ["first"]

    run(work)


def test_another_model_is_tried_where_the_first_will_not_have_the_order() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND, at("other", "c/d"))
        _, attempts = await node.order({"first": script(400)}, models=["c/d"])
        assert node.asked == ["first", "other"]
        assert json.loads(node.bodies[1])["model"] == "c/d"
        assert attempts.at.model == "c/d"

    run(work)


def test_nothing_is_read_of_an_order_that_one_serves_which_routes_itself() -> None:
    async def work() -> None:
        node = Node()
        routing = Routing(lambda model: [Candidate("openrouter", model, frozenset([CHAT]), is_alone=True)], node.health)
        body = b'{"model":"a/b","messages":[{"role":"user","content":"hi"}],"provider":"not such a thing"}'
        sole = routing.attempts(CHAT, body, chat.read(body))
        assert isinstance(sole, Sole)
        assert sole.at.upstream == "openrouter"
        with pytest.raises(Refusal, match="404"):
            Node(FIRST).attempts(model="x/y")

    run(work)


def test_one_that_fails_is_left_alone_tried_by_one_order_and_well_again() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND)
        down: dict[str, Said] = {"first": UpstreamUnreachable("no")}
        for _ in range(FAILURES_MAX + 2):
            assert await node.served_by(down) == "second"
        assert node.asked.count("first") == FAILURES_MAX
        assert node.alone() == {("first", WHOLE): True}
        node.clock.us += ALONE_FIRST_US
        # One order tries it; meanwhile others go elsewhere.
        trying = asyncio.Event()
        answered = asyncio.Event()
        body, attempts = node.attempts()

        async def send(candidate: Candidate, body: bytes) -> Reply:
            assert candidate.upstream == "first"
            trying.set()
            await answered.wait()
            return ScriptedReply(script())

        under_way = asyncio.create_task(attempts.answer(body, send))
        await trying.wait()
        assert await node.served_by({}) == "second"
        answered.set()
        await under_way
        attempts.end()
        assert await node.served_by({}) == "first"
        assert node.alone() == {}

    run(work)


def test_a_try_that_fails_doubles_the_time_and_one_that_is_given_up_leaves_it_to_the_next() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND)
        down: dict[str, Said] = {"first": UpstreamUnreachable("no")}
        for _ in range(FAILURES_MAX):
            await node.served_by(down)
        node.clock.us += ALONE_FIRST_US
        with pytest.raises(CallerGone):
            await node.order({"first": CallerGone()})
        assert await node.served_by(down) == "second"
        assert node.asked[-2:] == ["first", "second"]
        node.clock.us += 2 * ALONE_FIRST_US - 1
        assert node.alone()
        node.clock.us += 1
        assert not node.alone()

    run(work)


def test_another_order_where_nobody_else_is_left_does_not_end_the_try() -> None:
    node = Node(FIRST)
    for _ in range(FAILURES_MAX):
        node.health.ended(FIRST, node.health.began(FIRST), NotReached())
    node.clock.us += ALONE_FIRST_US
    trying, other = node.health.began(FIRST), node.health.began(FIRST)
    node.health.let_go(FIRST, other)
    assert node.health.condition(FIRST).is_being_tried
    node.health.let_go(FIRST, trying)
    assert not node.health.condition(FIRST).is_being_tried


def test_a_retry_after_is_honoured_for_the_model_that_was_refused() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND, at("first", "c/d"), at("second", "c/d", order=9))
        assert await node.served_by({"first": script(429, retry_after="20")}) == "second"
        assert node.alone() == {("first", "a/b"): True}
        assert await node.served_by({}) == "second"
        assert await node.served_by({}, model="c/d") == "first"
        node.clock.us += 20 * S
        assert await node.served_by({}) == "first"

    run(work)


@pytest.mark.parametrize(("status", "model"), [(401, WHOLE), (402, WHOLE), (403, "a/b")])
def test_the_operators_own_trouble_there_is_that_of_all_models_or_of_one_that_is_not_for_him(
    status: int, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND)
        for _ in range(FAILURES_MAX):
            assert await node.served_by({"first": script(status)}) == "second"
        assert node.alone() == {("first", model): True}
        assert node.denied == [("first", status)] * FAILURES_MAX
        assert len(caplog.messages) == 1, "once a minute"
        with pytest.raises(UpstreamDenied):
            await node.order({"first": UpstreamUnreachable("no"), "second": script(status)})

    run(work)


def test_refusals_of_what_was_ordered_say_nothing_against_an_upstream() -> None:
    async def work() -> None:
        node = Node(FIRST)
        for _ in range(9):
            await node.order({"first": script(400)})
        assert node.alone() == {}

    run(work)


@pytest.mark.parametrize("status", [400, 429, 503])
def test_whatever_an_upstream_answers_it_can_be_reached(status: int) -> None:
    """A refusal of one model, or of what was ordered, ends a time in which it is left alone with all its models."""
    node = Node(FIRST)
    for _ in range(FAILURES_MAX):
        node.health.ended(FIRST, node.health.began(FIRST), NotReached())
    assert node.alone() == {("first", WHOLE): True}
    node.health.ended(FIRST, node.health.began(FIRST), Refused(status))
    assert node.alone() == {}
    assert node.health.left_alone()[("first", WHOLE)] is False


def test_a_refusal_of_what_was_ordered_does_not_say_that_the_model_is_served_again() -> None:
    node = Node(FIRST)
    for _ in range(FAILURES_MAX):
        node.health.ended(FIRST, node.health.began(FIRST), Refused(503))
    node.health.ended(FIRST, node.health.began(FIRST), Refused(400))
    assert node.alone() == {("first", "a/b"): True}
    node.health.ended(FIRST, node.health.began(FIRST), None)
    assert node.alone() == {}


def test_an_answer_that_breaks_off_counts_as_a_failure() -> None:
    async def work() -> None:
        node = Node(FIRST, SECOND)
        for _ in range(FAILURES_MAX):
            _, attempts = await node.order({})
            attempts.end(broke_off=True)
        assert node.alone() == {("first", "a/b"): True}
        assert attempts.made[-1].went == MayBeCharged()
        assert node.health.measured("first", "a/b").uptime == 0

    run(work)


def test_orders_at_once_are_counted_to_their_answers_end() -> None:
    async def work() -> None:
        node = Node(at("first", orders_max=1), SECOND)
        _, attempts = await node.order({})
        assert await node.served_by({}) == "second"
        attempts.end()
        assert await node.served_by({}) == "first"

    run(work)


def test_two_nodes_agree_within_a_look() -> None:
    async def work() -> None:
        clock, store = Clock(), MemoryStore()
        one, other = Node(FIRST, SECOND, store=store, clock=clock), Node(FIRST, SECOND, store=store, clock=clock)
        down: dict[str, Said] = {"first": UpstreamUnreachable("no")}
        await other.served_by(down)  # what it has counted itself is no later word
        clock.us += 1
        for _ in range(FAILURES_MAX):
            await one.served_by(down)
        await one.health.agree()
        await other.health.agree()
        assert other.alone() == one.alone() == {("first", WHOLE): True}
        assert await other.served_by({}) == "second"
        clock.us += ALONE_FIRST_US
        assert await other.served_by({}) == "first"
        await other.health.agree()
        await one.health.agree()
        assert [each.until_us for each in one.health.standings()] == [0]

    run(work)


def test_what_changes_while_it_is_written_is_written_again_and_alone_nothing_is_read() -> None:
    written: list[bool] = []

    class Store(MemoryStore):
        async def put_standing(self, standing: Standing) -> None:
            written.append(standing.until_us > 0)
            if len(written) == 1:
                clock.us += 1
                health.ended(FIRST, health.began(FIRST), None)

        async def standings(self) -> list[Standing]:
            raise AssertionError("nobody else writes any")

    async def work() -> None:
        for _ in range(FAILURES_MAX):
            health.ended(FIRST, health.began(FIRST), NotReached())
        await health.agree()

    clock = Clock()
    health = Health(Store(), is_shared=False, now_us=clock)
    run(work)
    assert written == [True, False]


def test_nothing_is_written_but_what_changes() -> None:
    written: list[Standing] = []

    class Store(MemoryStore):
        async def put_standing(self, standing: Standing) -> None:
            if len(written) == 1:
                written.append(standing)
                raise BooksUnavailable("not now")
            written.append(standing)

    async def work() -> None:
        node = Node(FIRST, SECOND, store=Store())
        down: dict[str, Said] = {"first": UpstreamUnreachable("no")}
        for _ in range(FAILURES_MAX - 1):
            await node.served_by(down)
            await node.health.agree()
        await node.served_by({})
        await node.health.agree()
        assert written == []
        for _ in range(FAILURES_MAX + 5):
            await node.served_by(down)
            await node.health.agree()
        assert [each.failures for each in written] == [FAILURES_MAX]
        node.clock.us += ALONE_FIRST_US
        await node.served_by({})
        with pytest.raises(BooksUnavailable):
            await node.health.agree()
        await node.health.agree()
        assert [each.until_us == 0 for each in written] == [False, True, True], "what could not be written is, later"

    run(work)


def test_an_upstream_is_left_alone_twice_as_long_each_time_within_bounds() -> None:
    now_us, standing, times = 0, Standing("u"), []
    for _ in range(FAILURES_MAX + 9):
        standing = failed(standing, NotReached(), now_us)
        if standing.until_us > now_us:
            times.append(standing.until_us - now_us)
            now_us = standing.until_us
    assert times[:3] == [ALONE_FIRST_US, 2 * ALONE_FIRST_US, 4 * ALONE_FIRST_US]
    assert times[-1] == ALONE_LONGEST_US
    long = failed(Standing("u"), Refused(429, 1e9), 0)
    assert long.until_us == RETRY_AFTER_LONGEST_US
    assert not Standing("u", until_us=RETRY_AFTER_LONGEST_US + 2).is_left_alone(1), "set by a clock that ran ahead"


wents = st.sampled_from([NotReached(), Refused(503), Refused(429, 4.0), MayBeCharged()])


@given(st.lists(st.tuples(st.integers(0, 5 * S), wents | st.none())))
def test_whatever_happens_nobody_is_left_alone_beyond_the_bounds(history: list[tuple[int, Went | None]]) -> None:
    now_us, standing = S, Standing("u")
    for later_us, went in history:
        now_us += later_us
        before = standing
        standing = well(standing, now_us) if went is None else failed(standing, went, now_us)
        assert standing.until_us <= now_us + ALONE_LONGEST_US
        assert (standing.changed_us == now_us) >= (standing.until_us != before.until_us)
        if went is None:
            assert not standing.failures
        if before.is_left_alone(now_us) and went is not None:
            assert standing.until_us >= before.until_us
            assert standing.failures == before.failures


def test_the_later_word_holds_unless_its_clock_ran_ahead() -> None:
    mine, other = Standing("u", changed_us=5), Standing("u", until_us=9, changed_us=6)
    assert newer(mine, other, 7) is other
    assert newer(other, mine, 7) is other
    ahead = Standing("u", until_us=1, changed_us=8 + RETRY_AFTER_LONGEST_US)
    assert newer(mine, ahead, 7) is mine


def test_only_so_many_models_are_remembered_those_that_were_ordered_last() -> None:
    """Any variant of a model is one by its name."""
    health = Health(now_us=Clock())
    for number in range(NAMES_MAX + 5):
        for each in (at("first", f"a/b:{number}"), at("first", "a/b")):
            health.ended(each, health.began(each), Refused(503))
            health.ended(each, health.began(each), Refused(503))
    assert health.measured("first", "a/b").orders > 0
    assert health.measured("first", f"a/b:{NAMES_MAX}").orders == 2
    assert health.measured("first", "a/b:3").orders == 0
    assert len(health.standings()) == NAMES_MAX


def test_what_is_measured_is_of_the_last_half_hour() -> None:
    samples = Samples()
    for number in range(100):
        samples.add(S + number, is_served=number % 4 > 0, latency_seconds=number / 100, throughput=float(number))
    found = samples.measured(2 * S)
    assert (found.uptime, found.orders) == (0.75, 100)
    assert found.latency_seconds == {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99}
    assert found.throughput["p90"] == 9.0, "nine of ten are faster"
    assert samples.measured(2 * S + SAMPLES_US).uptime is None
