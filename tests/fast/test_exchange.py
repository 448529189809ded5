"""The data path, as playbooks: what the upstream and the caller do in; what the caller gets and what is booked out."""

import asyncio
import json
import time
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

import pytest

from farebox.answers import Answer, RepeatedAnswer, Streaming
from farebox.catalog import Catalog, SharedPrices
from farebox.core.books import (
    Command,
    Fare,
    NameGeneration,
    NotCovered,
    Outcome,
    PlaceHold,
    Settle,
    Settled,
)
from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Format, chat
from farebox.core.plans import BUILT_IN
from farebox.core.pricing import Ceiling, KeptPrices
from farebox.core.shortfall import not_covered
from farebox.core.upstream import ALL_MODELS, Filters
from farebox.deadlines import Deadlines
from farebox.identity.keys import new_key
from farebox.ports import BooksUnavailable, UpstreamBroke, UpstreamUnreachable, Waiting
from farebox.testing import (
    PRICES,
    Break,
    During,
    MemoryStore,
    Pause,
    Playbook,
    Played,
    Script,
    ScriptedUpstream,
    Silence,
)
from farebox.upstream.openrouter_pages import Fetched

USD = 10**9
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.0001}
CHUNK = {
    "id": "gen-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "a/b",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}],
}
ANSWER = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "model": "a/b-served",
    "system_fingerprint": None,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": USAGE,
}
MODELS = PRICES


def event(chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


TOKEN = event(CHUNK)
LAST = event({**CHUNK, "choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"


def whole(body: Any = ANSWER, **head: Any) -> Script:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Script([text], content_type="application/json", **head)


def play(
    script: Script | Exception,
    plan: str = "paying",
    paid_in: int = USD,
    during: During | None = None,
    token: str | None = None,
    store: MemoryStore | None = None,
    streaming: Streaming | None = None,
    wire: Format = chat,
    waiting: Waiting | None = None,
    **request: Any,
) -> Played:
    """One order, from a new account with `paid_in`."""
    order = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, **request}
    playbook = Playbook(
        script,
        order,
        wire=wire,
        plan=plan,
        paid_in=paid_in,
        token=token,
        store=store,
        streaming=streaming,
        waiting=waiting,
        during=during,
    )
    return playbook.play()


def test_a_stream_passes_byte_for_byte_and_its_cost_is_posted() -> None:
    steps: list[Any] = [b": OPENROUTER PROCESSING\n\n", TOKEN, Pause(), TOKEN, LAST, DONE]
    result = play(Script([*steps]), stream=True)
    assert result.body == b": OPENROUTER PROCESSING\n\n" + TOKEN + TOKEN + LAST + DONE
    assert result.fares == [100_000]
    assert (result.hold.state, result.hold.generation_id, result.hold.prompt_tokens) == ("posted", "gen-1", 1)
    assert result.answer
    assert result.answer.settled == Settled("posted", Fare(Decimal("0.0001"), 10, 100_000))


def test_every_event_goes_on_as_soon_as_it_is_whole() -> None:
    result = play(Script([TOKEN, TOKEN[:20], TOKEN[20:] + TOKEN, LAST + DONE]), stream=True)
    assert result.sent == [TOKEN, TOKEN + TOKEN, LAST + DONE]


def test_a_whole_answer_is_booked_before_it_is_sent() -> None:
    result = play(whole())
    assert json.loads(result.body) == ANSWER
    assert result.fares == [100_000]
    assert (result.hold.generation_id, result.hold.served_model) == ("gen-1", "a/b-served")


def test_a_free_caller_pays_ten_times_and_is_capped() -> None:
    result = play(whole(), plan="free", max_tokens=None)
    assert result.fares == [1_000_000]
    assert result.order["max_tokens"] == 2048


def test_a_zero_is_posted_as_a_zero() -> None:
    result = play(whole({**ANSWER, "usage": {**USAGE, "cost": 0}}))
    assert result.fares == [0]
    assert result.available == USD


@pytest.mark.parametrize("status", [400, 404, 408, 429, 500, 503, 524, 529])
def test_an_upstreams_refusal_passes_as_it_came_and_costs_nothing(status: int) -> None:
    result = play(whole(b'{"error": {"code": 1, "message": "no"}}', status=status, headers=[(b"retry-after", b"2")]))
    assert result.body == b'{"error": {"code": 1, "message": "no"}}'
    assert result.answer
    assert result.answer.status == status
    assert (b"retry-after", b"2") in result.answer.headers
    assert (result.hold.state, result.fares, result.available) == ("voided", [], USD)


FLAGGED = b'{"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}}'
CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error": {"message": "Incorrect API key provided: sk-proj-abc***xyz", "code": "invalid_api_key"}}'),
        (402, b'{"error": {"code": 402, "message": "Insufficient credits"}}'),
        (403, b'{"type": "error", "error": {"type": "permission_error", "message": "not for your key"}}'),
        (403, b"<html>no</html>"),
        (429, b'{"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "your plan"}}'),
        (400, b'{"type": "error", "error": {"type": "invalid_request_error", "message": "%b"}}' % CREDIT.encode()),
    ],
)
def test_a_refusal_of_the_operators_account_is_none_of_the_callers_and_is_told_in_the_log(
    status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    result = play(whole(body, status=status))
    assert result.refusal
    assert (result.refusal.status, result.refusal.error_type) == (502, "provider_unavailable")
    assert "nothing is wrong with your key" in result.refusal.message
    assert (result.hold.state, result.fares, result.available) == ("voided", [], USD)
    (told,) = caplog.messages
    assert f"upstream `scripted` refuses this gateway's own account there, with status {status}" in told


@pytest.mark.parametrize(("status", "body"), [(403, FLAGGED), (429, b'{"error": {"message": "slow down"}}')])
def test_a_refusal_of_what_was_ordered_is_told_as_it_came_in_pieces_too(
    status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    result = play(Script([body[:9], Pause(), body[9:]], status=status, content_type="application/json"))
    assert result.answer
    assert (result.answer.status, result.body, caplog.messages) == (status, body, [])
    cut = play(Script([b'{"err', Break()], status=status, content_type="application/json"))
    assert (cut.answer.status if cut.answer else cut.refusal and cut.refusal.status) == (502 if status == 403 else 429)


@pytest.mark.parametrize(("timed_out", "status"), [(False, 502), (True, 504)])
def test_an_upstream_that_cannot_be_reached_costs_nothing_and_may_be_retried(timed_out: bool, status: int) -> None:
    result = play(UpstreamUnreachable("refused", timed_out=timed_out))
    assert result.refusal
    assert result.refusal.status == status
    assert (result.hold.state, result.available) == ("voided", USD)


@pytest.mark.parametrize(
    "script",
    [
        UpstreamBroke("no answer within 300 s"),
        Script([b'{"id":', Break()], content_type="application/json"),
        whole(b"<!DOCTYPE html>"),
        whole(b'{"error":{"code":500,"message":"late"}}'),
    ],
)
def test_an_order_that_may_have_been_accepted_leaves_a_question_and_is_not_retried(script: Script | Exception) -> None:
    result = play(script)
    assert result.refusal
    assert result.refusal.status == 424
    assert result.hold.state == "open"
    assert result.fares == []
    assert result.available is not None
    assert result.available == USD - result.hold.amount_nanos < USD


@pytest.mark.parametrize("usage", [None, {**USAGE, "cost": None}, {**USAGE, "cost": -1}])
def test_a_whole_answer_without_a_cost_arrives_and_its_hold_stays_open(usage: Any) -> None:
    result = play(whole({**ANSWER, "usage": usage}))
    assert json.loads(result.body)["choices"] == ANSWER["choices"]
    assert (result.hold.state, result.hold.generation_id) == ("open", "gen-1")


def test_an_answer_with_empty_choices_is_billed_on_what_it_says() -> None:
    assert play(whole({**ANSWER, "choices": []})).fares == [100_000]
    assert play(whole({**ANSWER, "choices": [], "usage": None})).hold.state == "open"


def test_a_stream_that_breaks_ends_in_an_error_and_an_open_hold() -> None:
    result = play(Script([TOKEN, TOKEN[:30], Break()]), stream=True)
    assert result.sent[0] == TOKEN
    error = json.loads(result.sent[-1][6:])
    assert error["error"]["code"] == 502
    assert error["choices"][0]["finish_reason"] == "error"
    assert error["id"] == "gen-1"
    assert len(result.sent) == 2
    assert (result.hold.state, result.hold.generation_id) == ("open", "gen-1")


def test_a_break_after_the_usage_is_settled_on_the_usage() -> None:
    result = play(Script([TOKEN, LAST, Break()]), stream=True)
    assert result.fares == [100_000]


@pytest.mark.parametrize("last", [LAST, LAST[:-2], TOKEN])
def test_a_stream_that_breaks_off_says_that_its_cost_is_not_known_only_where_it_is_not(last: bytes) -> None:
    broken = play(Script([TOKEN, last, Break()]), stream=True)
    assert broken.hold.state == ("open" if last == TOKEN else "posted")
    assert b'"error"' in broken.sent[-1]
    assert (b"not known yet" in broken.sent[-1]) is (last == TOKEN)


def test_a_usage_event_cut_of_its_empty_line_by_a_break_still_counts() -> None:
    assert play(Script([TOKEN, LAST[:-2], Break()]), stream=True).fares == [100_000]


def test_a_stream_without_usage_leaves_a_question() -> None:
    result = play(Script([TOKEN, DONE]), stream=True)
    assert result.body == TOKEN + DONE
    assert result.hold.state == "open"
    assert "without saying" in (result.hold.reason or "")


def test_an_error_in_the_stream_leaves_a_question_unless_it_says_its_cost() -> None:
    error = {**CHUNK, "error": {"code": 502, "message": "m"}}
    assert play(Script([TOKEN, event(error)]), stream=True).hold.state == "open"
    assert play(Script([TOKEN, event({**error, "usage": USAGE})]), stream=True).fares == [100_000]
    assert play(Script([event({"error": {"code": 402, "message": "m"}})]), stream=True).hold.state == "open"


def test_a_caller_who_hangs_up_stops_the_upstream_and_leaves_a_question() -> None:
    async def hang_up(answer: Answer | RepeatedAnswer, _: bytes, __: MemoryStore) -> None:
        answer.hang_up()

    result = play(Script([TOKEN, Silence(), LAST]), stream=True, during=hang_up)
    assert result.body == TOKEN
    assert result.hold.state == "open"
    assert "hung up" in (result.hold.reason or "")


def test_a_caller_who_hangs_up_after_the_usage_pays_what_it_says() -> None:
    async def hang_up_late(answer: Answer | RepeatedAnswer, chunk: bytes, _: MemoryStore) -> None:
        if chunk == LAST:
            answer.hang_up()

    result = play(Script([TOKEN, LAST, Silence()]), stream=True, during=hang_up_late)
    assert result.fares == [100_000]


def test_a_drained_stream_settles_on_its_real_usage() -> None:
    async def hang_up(answer: Answer | RepeatedAnswer, _: bytes, __: MemoryStore) -> None:
        answer.hang_up()

    draining = Streaming(Deadlines(), drains_max=1, drain_seconds=60)
    for _ in range(3):  # each gives its place back
        result = play(Script([TOKEN, Pause(), TOKEN, LAST, DONE]), stream=True, during=hang_up, streaming=draining)
        assert result.fares == [100_000]
        assert result.hold.state == "posted"


def test_a_drain_is_bounded_in_number_and_time() -> None:
    async def hang_up(answer: Answer | RepeatedAnswer, _: bytes, __: MemoryStore) -> None:
        answer.hang_up()

    full = Streaming(Deadlines(), drains_max=2, drain_seconds=60)
    others: list[object] = []

    async def hang_up_as_third(answer: Answer | RepeatedAnswer, _: bytes, __: MemoryStore) -> None:
        others.extend(full.drain(lambda _: None) for _ in range(2) if len(others) < 2)
        answer.hang_up()

    result = play(Script([TOKEN, Pause(), TOKEN, LAST, DONE]), stream=True, during=hang_up_as_third, streaming=full)
    assert None not in others
    assert (result.hold.state, result.hold.reason) == ("open", "the caller hung up before the answer's end")
    short = Streaming(Deadlines(tick_seconds=0.01), drains_max=1, drain_seconds=0.02)
    result = play(Script([TOKEN, Silence()]), stream=True, during=hang_up, streaming=short)
    assert result.hold.state == "open"
    assert "did not end within 0.02 s" in (result.hold.reason or "")


def test_comments_alone_do_not_keep_a_stream_alive() -> None:
    patient = Streaming(Deadlines(), no_event_seconds=3600)
    steps: list[Any] = [TOKEN, *[b": still here\n\n", Pause()] * 50]
    assert play(Script([*steps, LAST, DONE]), stream=True, streaming=patient).fares == [100_000]
    impatient = Streaming(Deadlines(), no_event_seconds=0)
    result = play(Script([*steps, Silence()]), stream=True, streaming=impatient)
    assert result.hold.state == "open"
    assert b"nothing but comments" in result.body


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_an_event_behind_a_comment_line_is_one(line_end: bytes) -> None:
    impatient = Streaming(Deadlines(), no_event_seconds=0)
    noted = (b": a comment\n" + TOKEN).replace(b"\n", line_end)
    steps: list[Any] = [step for _ in range(9) for step in (noted, Pause())]
    result = play(Script([*steps, LAST, DONE]), stream=True, streaming=impatient)
    assert result.body == noted * 9 + LAST + DONE
    assert result.fares == [100_000]


def test_blank_lines_alone_do_not_keep_a_whole_answer_alive() -> None:
    steps: list[Any] = [*[b"\n", Pause(), b": still here\n", Pause()] * 50, json.dumps(ANSWER).encode()]
    patient = Streaming(Deadlines(), no_event_seconds=3600)
    assert play(Script(steps, content_type="application/json"), streaming=patient).fares == [100_000]
    impatient = Streaming(Deadlines(), no_event_seconds=0)
    result = play(Script([*steps[:-1], Silence()], content_type="application/json"), streaming=impatient)
    assert (result.hold.state, result.hold.reason) == ("open", "nothing but blank lines came for 0 s")
    assert isinstance(result.refusal, Refusal)
    assert result.refusal.status == 424


class _Uncappable:
    """Chat, but for bodies that cannot be taken apart."""

    def __getattr__(self, name: str) -> Any:
        return getattr(chat, name)

    def capped(self, body: bytes, answer_tokens: int) -> bytes:
        raise invalid(f"cannot be capped at {answer_tokens}: {body[:9]!r}")


def test_an_order_that_cannot_be_capped_to_the_balance_leaves_no_hold() -> None:
    uncappable: Any = _Uncappable()
    result = play(whole(), paid_in=USD // 1000, max_tokens=None, wire=uncappable)
    assert result.refusal is not None
    assert result.refusal.status == 400
    assert (result.hold.state, result.available, result.forwarded) == ("voided", USD // 1000, [])


def test_the_generation_is_in_the_books_before_its_first_byte_goes_out() -> None:
    seen: list[str | None] = []

    async def look(_: Answer | RepeatedAnswer, __: bytes, store: MemoryStore) -> None:
        (hold,) = await store.holds(("pending",))
        seen.append(hold.generation_id)

    play(Script([TOKEN, LAST, DONE]), stream=True, during=look)
    play(Script([b": wait\n\n", TOKEN, LAST, DONE], generation_id=None), stream=True, during=look)
    assert set(seen) == {"gen-1"}


def test_a_generation_that_only_the_first_chunk_names_is_told_in_the_head() -> None:
    steps: list[Any] = [b": wait\n\n", TOKEN[:10], TOKEN[10:], LAST, DONE]
    result = play(Script(steps, generation_id=None), stream=True)
    assert result.body == b": wait\n\n" + TOKEN + LAST + DONE
    assert result.answer
    assert (b"x-generation-id", b"gen-1") in result.answer.headers


def test_the_answer_cap_is_lowered_to_what_the_balance_covers() -> None:
    result = play(whole(), paid_in=1_000_000, max_tokens=50_000)
    assert result.answer
    headers = dict(result.answer.headers)
    cap = int(headers[b"x-farebox-answer-cap"])
    assert result.order["max_tokens"] == cap
    # A byte is at most a token: 90 and some of prompt at $0.000001, the rest at $0.00001 a token.
    prompt = len(result.forwarded[0].body) + len("50000") - len(str(cap))
    assert cap == (1_000_000 - 1000 * prompt) // 10_000
    assert result.hold.amount_nanos == 1_000_000
    assert result.fares == [100_000]


def test_an_order_that_the_balance_cannot_cover_is_told_what_it_would_cover() -> None:
    result = play(whole(), paid_in=200_000, max_tokens=50_000)
    assert result.refusal
    assert result.refusal.status == 402
    assert result.refusal.metadata["answer_tokens_covered"] in range(1, 16)
    assert f"{result.refusal.metadata['answer_tokens_covered']} tokens" in result.refusal.message
    assert (result.holds, result.order, result.available) == ([], {}, 200_000)


def test_the_advice_on_an_order_that_is_not_covered_is_about_what_makes_it_dear() -> None:
    plain = play(whole(), paid_in=200_000, max_tokens=50_000).refusal
    assert plain
    assert "Shorten the prompt, choose" in plain.message
    searching = play(whole(), paid_in=200_000, tools=[{"type": "openrouter:web_search"}]).refusal
    assert searching
    assert searching.status == 402
    assert "Ask for fewer searches, choose" in searching.message


def test_a_ceiling_that_no_answer_changes_covers_no_number_of_tokens() -> None:
    place = PlaceHold(
        id="h",
        account_id=1,
        key_id=1,
        wanted_nanos=2,
        least_nanos=2,
        plan="paying",
        event_price_nanos=10_000,
        model="a/e",
        streamed=False,
        created_us=1,
    )
    refusal = not_covered(NotCovered(1), place, Ceiling(Decimal(1), Decimal(0), 32_768), BUILT_IN["paying"])
    assert "answer_tokens_covered" not in refusal.metadata


def test_an_unknown_or_missing_key_is_refused_before_the_body_is_read() -> None:
    for token in (new_key(), "sk-or-v1-something", "sk-fb-", "sk-fb-" + "x" * 10_000):
        result = play(whole(), token=token)
        assert result.refusal
        assert (result.refusal.status, result.holds) == (401, [])


def test_an_unknown_model_costs_nothing() -> None:
    result = play(whole(), model="c/d")
    assert result.refusal
    assert (result.refusal.status, result.holds) == (404, [])


def test_a_cancelled_order_is_settled_all_the_same() -> None:
    async def cancel(_: Answer | RepeatedAnswer, __: bytes, ___: MemoryStore) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        play(Script([TOKEN, LAST, DONE]), stream=True, during=cancel)


def test_a_byok_answer_costs_its_fee_and_the_hosts_bill() -> None:
    usage = {**USAGE, "cost": 0.0005, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0095}}
    (fare,) = play(whole({**ANSWER, "usage": usage})).fares
    assert fare == 10_000_000


@pytest.mark.parametrize("tokens", [-1, 10**9 + 1, 2**63, 10**30])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_no_books_can_keep_of_an_answer_does_not_keep_its_fare_from_them(tokens: int, streamed: bool) -> None:
    """A number of tokens beyond all integers of a database, a text with a NUL."""
    usage = {**USAGE, "prompt_tokens": tokens, "completion_tokens": tokens}
    named = {"id": "gen-\0", "model": "a/\0b", "usage": usage}
    script = Script([TOKEN, event({**CHUNK, "choices": [], **named}), DONE], generation_id=None)
    result = play(script if streamed else whole({**ANSWER, **named}, generation_id=None), stream=streamed)
    assert result.hold.state == "posted"
    assert result.fares == [100_000]
    assert (result.hold.prompt_tokens, result.hold.answer_tokens, result.hold.served_model) == (None, None, "a/\ufffdb")
    assert result.hold.generation_id == ("gen-1" if streamed else "gen-\ufffd")


def test_a_model_whose_name_no_books_can_keep_is_refused() -> None:
    result = play(whole(), model="a/b:x\0y")
    assert result.refusal
    assert (result.refusal.status, result.holds) == (400, [])
    assert "NUL" in result.refusal.message


def test_a_fare_above_its_hold_is_posted_in_full_and_flagged() -> None:
    result = play(whole({**ANSWER, "usage": {**USAGE, "cost": 0.5}}), max_tokens=10)
    assert result.fares == [500_000_000]
    assert result.transfers[-1].over_hold_nanos == 500_000_000 - result.hold.amount_nanos
    assert result.transfers[-1].cost == Decimal("0.5")


class FailingStore(MemoryStore):
    """Books on a disk that fails for one kind of command."""

    fails_on: type = Settle

    async def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, self.fails_on):
            raise BooksUnavailable("disk full")
        return await super().carry_out(command)


@pytest.mark.parametrize(("fails_on", "streamed"), [(Settle, False), (Settle, True), (NameGeneration, True)])
def test_what_cannot_be_booked_is_not_refused_in_a_way_that_is_repeated(fails_on: type, streamed: bool) -> None:
    store = FailingStore()
    store.fails_on = fails_on
    result = play(Script([TOKEN, LAST, DONE]) if streamed else whole(), store=store, stream=streamed)
    assert result.refusal
    assert result.refusal.status == 424
    assert result.hold.state == ("pending" if fails_on is Settle else "open")


def test_books_that_cannot_take_a_hold_stop_the_order_before_it_is_sent() -> None:
    store = FailingStore()
    store.fails_on = PlaceHold
    with pytest.raises(BooksUnavailable):
        play(whole(), store=store)


def test_a_refusal_that_is_cut_off_is_still_a_refusal_and_costs_nothing() -> None:
    result = play(Script([b'{"err', Break()], status=503, content_type="application/json"))
    assert (result.body, result.hold.state) == (b"", "voided")


def test_a_generation_id_that_is_no_header_is_not_made_one() -> None:
    chunk = event({**CHUNK, "id": "gen-\r\nset-cookie: a=b"})
    result = play(Script([chunk, LAST, DONE], generation_id=None), stream=True)
    assert result.answer
    assert b"x-generation-id" not in dict(result.answer.headers)
    assert result.hold.state == "posted"


def test_without_a_price_list_nothing_is_served() -> None:
    async def main() -> None:
        now = [0.0]
        upstream = ScriptedUpstream(pages={"/models": MODELS})
        catalog = Catalog(upstream, 300, 3600, now=lambda: now[0])
        with pytest.raises(Refusal) as refused:
            catalog.current()
        assert refused.value.status == 502
        assert await catalog.refresh()
        now[0] = 3000
        upstream.pages["/models"] = b"<html>"
        assert not await catalog.refresh()
        assert catalog.current().rates
        assert catalog.is_stale
        now[0] = 3601
        with pytest.raises(Refusal) as refused:
            catalog.current()
        assert refused.value.status == 502

    asyncio.run(main())


def test_kept_prices_that_cannot_be_read_are_asked_for() -> None:
    async def main() -> None:
        store, upstream = MemoryStore(), ScriptedUpstream(pages={"/models": MODELS})
        catalog = Catalog(upstream, 0.1, 3600, shared=SharedPrices(store, "a"))
        assert await catalog.refresh()
        upstream.fetched.clear()
        await store.keep_prices("a", KeptPrices((b'{"data": []}',), time.time_ns() // 1000 + 60_000_000))
        keeping = asyncio.create_task(catalog.keep_fresh())
        await asyncio.sleep(1)
        keeping.cancel()
        assert "/models" in [path for path, _ in upstream.fetched]
        assert catalog.trouble is None

    asyncio.run(main())


def test_a_gateway_that_asks_for_what_is_being_asked_of_an_upstream_is_not_let_wait_for_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        came = asyncio.Event()

        class Slow(ScriptedUpstream):
            async def fetch(self, path: str, query: Filters) -> Fetched:
                await came.wait()
                return await super().fetch(path, query)

        catalog = Catalog(Slow(pages={"/models": MODELS}), 300, 3600, circle_seconds=0.01)
        first = asyncio.create_task(catalog.page(ALL_MODELS))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match=r"400.*/models is being asked of an upstream.*`base_url`"):
            await catalog.page(ALL_MODELS, is_for_gateway=True)
        others = [asyncio.create_task(catalog.page(ALL_MODELS, is_for_gateway=each)) for each in (True, False)]
        await asyncio.sleep(0)
        came.set()
        assert {page.models[0].id for page, _ in await asyncio.gather(first, *others)} == {"a/b"}
        down = Catalog(ScriptedUpstream(pages={"/models": UpstreamUnreachable("no")}), 300, 3600)
        assert not await down.refresh()
        assert not await down.refresh()
        assert caplog.messages == ["there is no new price list: no"], "once, until there is one"

    asyncio.run(main())


def test_of_two_processes_one_asks_for_the_prices_and_both_have_them() -> None:
    async def main() -> None:
        class Slow(ScriptedUpstream):
            async def fetch(self, path: str, query: Filters) -> Fetched:
                await asyncio.sleep(0.01)
                return await super().fetch(path, query)

        # Time that passes by a microsecond a look: nothing becomes too old, however slow this machine is.
        now_us = partial(next, count(time.time_ns() // 1000))
        store, upstreams = MemoryStore(), [Slow(pages={"/models": MODELS}) for _ in range(2)]
        catalogs = [
            Catalog(upstream, 0.01, 3600, lambda: 0.0, SharedPrices(store, "a"), now_us) for upstream in upstreams
        ]
        for catalog in catalogs:
            assert await catalog.refresh()
        before = [catalog.current() for catalog in catalogs]
        for upstream in upstreams:
            upstream.fetched.clear()
        keeping = [asyncio.create_task(catalog.keep_fresh()) for catalog in catalogs]
        while any(each.current() is prices for each, prices in zip(catalogs, before, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asked, *others = sorted((each.fetched for each in upstreams), key=len, reverse=True)
        assert [path for path, _ in asked][:2] == ["/models", "/embeddings/models"]
        assert others == [[]]
        assert all(not catalog.is_stale and catalog.trouble is None for catalog in catalogs)
        for task in keeping:
            task.cancel()

    asyncio.run(main())
