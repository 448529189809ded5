"""Open holds: asked about until they are answered, given up after a while, decided by an operator."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.core.audit import audit
from farebox.core.books import HoldRow, PlaceHold, Settle, TopUp
from farebox.core.questions import next_ask_us
from farebox.core.upstream import Filters, NoRecords, RecordAnswer
from farebox.core.usage import Cost, Unknown
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.reconcile import Reconciler
from farebox.testing import MemoryStore
from farebox.upstream.openrouter import HEADER_BYTES_MAX
from farebox.upstream.openrouter_pages import Fetched, OpenRouterPages, read_record
from farebox.upstream.running import alone
from tests.gateway import Gateway, eventually
from tests.served.test_formats import ORDERS, STREAMED, order
from tests.upstreams import HttpUpstream, declared

SECOND_US = 1_000_000


def record(**members: Any) -> bytes:
    told = {"total_cost": 0.00012, "is_byok": False, "model": "a/b", "tokens_prompt": 3, "tokens_completion": 4}
    return json.dumps({"data": {**told, **members}}).encode()


# What a record says


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        (record(), "0.00012"),
        (record(total_cost=0), "0"),
        (record(total_cost=3e-7), "3E-7"),
        (record(upstream_inference_cost=0.00012), "0.00012"),
        (record(is_byok=True, total_cost=0.000006, upstream_inference_cost=0.00012), "0.000126"),
        (record(is_byok=True, upstream_inference_cost=None), None),
        (record(total_cost=None), None),
        (record(total_cost=-1), None),
        (b"{}", None),
        (b"<html>", None),
    ],
)
def test_a_records_cost(body: bytes, cost: str | None) -> None:
    recorded = read_record(body)
    if cost is None:
        assert isinstance(recorded.cost, Unknown)
    else:
        assert recorded.cost == Cost(Decimal(cost))


def test_what_no_books_can_keep_of_a_record_is_left_out() -> None:
    recorded = read_record(record(model="a/\0b", tokens_prompt=2**63, tokens_completion=-1))
    assert recorded.cost == Cost(Decimal("0.00012"))
    assert (recorded.model, recorded.prompt_tokens, recorded.answer_tokens) == ("a/\ufffdb", None, None)


def test_questions_come_soon_then_rarely() -> None:
    assert [next_ask_us(asks, 0) // 1000 for asks in range(5)] == [200, 400, 800, 1600, 3200]
    assert next_ask_us(30, 0) == 60 * SECOND_US
    assert next_ask_us(30, 1000 * SECOND_US) == 100 * SECOND_US
    assert next_ask_us(99, 80_000 * SECOND_US) == 900 * SECOND_US


# The reconciler, with a clock of the test's own


class Asked(OpenRouterPages):
    """An upstream that answers questions in turn, the last answer for ever."""

    def __init__(self, *answers: Fetched | Exception) -> None:
        self._answers = list(answers)
        self.declared = declared("http://there")
        self.queries: list[Filters] = []

    async def fetch(self, path: str, query: Filters) -> Fetched:
        assert path == "/generation"
        self.queries.append(query)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def forward(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is ordered here")

    async def close(self) -> None:
        """Nothing is held open."""


Work = Callable[[MemoryStore, Reconciler, list[int]], Awaitable[None]]


def reconciling(upstream: Asked, work: Work, give_up_seconds: float = 86_400) -> HoldRow:
    """One open hold of a caller's; gives it as it stands when the work is done."""
    found: list[HoldRow] = []

    async def main() -> None:
        store, clock = MemoryStore(), [0]
        account = await store.create_account("a", "paying", 0, 1)
        key = await store.create_key(account.id, "", b"k", "hint", 1)
        await store.carry_out(TopUp("t", account.id, 10**9, 1))
        await store.carry_out(
            PlaceHold(
                id="h",
                account_id=account.id,
                key_id=key.id,
                wanted_nanos=100_000,
                least_nanos=1,
                plan="paying",
                event_price_nanos=10_000,
                model="a/b",
                streamed=True,
                created_us=0,
            )
        )
        await store.carry_out(Settle(hold_id="h", verdict=Unknown("hung up"), created_us=0, generation_id="gen-1"))
        await work(store, Reconciler(store, alone(upstream), give_up_seconds, lambda: clock[0]), clock)
        found.extend(await store.holds(("pending", "open", "posted", "voided")))
        with store.snapshot() as rows:
            assert audit(rows).differences == []

    asyncio.run(main())
    return found[0]


class Recordless(Asked):
    """An upstream that keeps no records."""

    async def record(self, generation_id: str) -> RecordAnswer:
        self.queries.append((("id", generation_id),))
        return NoRecords()


def test_an_upstream_without_records_is_asked_once_and_an_operator_decides() -> None:
    async def work(store: MemoryStore, reconciler: Reconciler, clock: list[int]) -> None:
        for _ in range(3):
            await reconciler.round()
            clock[0] += 60_000_000

    upstream = Recordless()
    hold = reconciling(upstream, work)
    assert (hold.state, hold.ask_us, hold.reason) == ("open", None, "hung up")
    assert len(upstream.queries) == 1


async def until_settled(store: MemoryStore, reconciler: Reconciler, clock: list[int]) -> None:
    for _ in range(2000):
        await reconciler.round()
        (hold,) = await store.holds(("pending", "open", "posted", "voided"))
        if hold.state != "open" or hold.is_unresolved:
            return
        assert hold.ask_us is not None
        clock[0] = max(clock[0], hold.ask_us)
    raise AssertionError("it goes on for ever")


def test_a_record_that_is_not_there_yet_is_asked_for_again() -> None:
    missing = Fetched(404, b"{}")
    upstream = Asked(
        missing, missing, UpstreamBroke("x"), UpstreamUnreachable("x"), Fetched(500, b""), Fetched(200, record())
    )
    hold = reconciling(upstream, until_settled)
    assert (hold.state, hold.served_model, hold.prompt_tokens, hold.answer_tokens) == ("posted", "a/b", 3, 4)
    assert upstream.queries == [(("id", "gen-1"),)] * 6


def test_a_fare_is_of_the_recorded_cost() -> None:
    async def work(store: MemoryStore, reconciler: Reconciler, clock: list[int]) -> None:
        await until_settled(store, reconciler, clock)
        (post,) = [each for each in await store.transfers(2) if each.kind == "post"]
        assert (post.cost, post.events, post.amount_nanos) == (Decimal("0.00012"), 12, 120_000)

    reconciling(Asked(Fetched(200, record())), work)


def test_a_question_without_an_answer_is_given_up_after_a_day_and_not_guessed() -> None:
    upstream = Asked(Fetched(404, b"{}"))
    hold = reconciling(upstream, until_settled)
    assert (hold.state, hold.is_unresolved, hold.reason) == ("open", True, "the upstream has no record of it yet")
    assert 100 < hold.asks == len(upstream.queries) < 200


def test_a_clock_that_jumps_ahead_does_not_end_the_questions() -> None:
    async def work(store: MemoryStore, reconciler: Reconciler, clock: list[int]) -> None:
        clock[0] = 10 * 86_400 * SECOND_US
        await until_settled(store, reconciler, clock)

    missing = [Fetched(404, b"{}")] * 5
    assert reconciling(Asked(*missing, Fetched(200, record())), work).state == "posted"


def test_a_record_without_a_cost_stays_a_question() -> None:
    hold = reconciling(Asked(Fetched(200, record(total_cost=None))), until_settled, give_up_seconds=60)
    assert (hold.state, hold.is_unresolved) == ("open", True)


def test_a_429_is_heeded() -> None:
    upstream = Asked(Fetched(429, b"", retry_after_seconds=30), Fetched(200, record()))

    async def work(store: MemoryStore, reconciler: Reconciler, clock: list[int]) -> None:
        clock[0] = SECOND_US
        assert await reconciler.round() == 1
        clock[0] = 30 * SECOND_US
        assert await reconciler.round() == 0
        clock[0] = 32 * SECOND_US
        assert await reconciler.round() == 1

    assert reconciling(upstream, work).state == "posted"


def test_nobody_is_asked_where_that_is_switched_off() -> None:
    async def work(store: MemoryStore, reconciler: Reconciler, clock: list[int]) -> None:
        clock[0] = 10**12
        assert await reconciler.round() == 0

    assert reconciling(Asked(Fetched(200, record())), work, give_up_seconds=0).state == "open"


# The real server


def serve(folder: Path, *arguments: str, **environment: str) -> Gateway:
    return Gateway(folder, *arguments, FAREBOX_RECONCILE_SECONDS="86400", **environment)


def hang_up(gateway: Gateway, path: str, body: dict[str, Any], simulate: str) -> None:
    """Order a stream, and leave it after its first event."""
    text = json.dumps({"model": "sim/echo", "stream": True, **body})
    head = f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(
            f"{head}x-openrouter-simulate: {simulate}\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()
        )
        got = b""
        while b"data: " not in got:
            got += connection.recv(65536)


def test_a_caller_who_hangs_up_pays_what_the_upstream_charged(tmp_path: Path) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    with serve(tmp_path) as gateway:
        for path, body in (
            ("/chat/completions", {"messages": hello}),
            ("/messages", {"messages": hello}),
            ("/responses", {"input": "Hello"}),
        ):
            hang_up(gateway, path, body, "token-ms=50,tokens=200,generation-ms=700")
        eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare"] * 3)
        for line in gateway.orders():
            # What was sent before the caller left, and no more: 200 tokens would be 0.00012.
            assert Decimal("7.5E-7") <= Decimal(line["cost_usd"]) < Decimal("0.00004")
            record = gateway.request(
                "GET", f"/v1/generation?id={line['generation_id']}", headers={"x-api-key": gateway.key}
            ).json["data"]
            assert Decimal(str(record["total_cost"])) == Decimal(line["cost_usd"])
            assert record["cancelled"] is True
        assert gateway.audit()["orders"]["open"] == 0


def test_where_streams_are_drained_a_caller_who_hangs_up_pays_for_the_whole(tmp_path: Path) -> None:
    hello = {"messages": [{"role": "user", "content": "Hello"}]}
    limits = {"FAREBOX_HANG_UP": "drain", "FAREBOX_DRAINS_MAX": "1", "FAREBOX_RECONCILE_SECONDS": "0"}
    with Gateway(tmp_path, **limits) as gateway:
        hang_up(gateway, "/chat/completions", hello, "token-ms=20,tokens=50")
        hang_up(gateway, "/messages", hello, "token-ms=20,tokens=50")  # one too many
        eventually(lambda: sorted(line["what"][:4] for line in gateway.orders()) == ["fare", "held"])
        (posted,) = [line for line in gateway.orders() if line["what"] == "fare"]
        assert Decimal(posted["cost_usd"]) == Decimal("0.00003075")
        assert posted["answer_tokens"] == 50


def test_questions_outlive_a_kill(tmp_path: Path) -> None:
    # The simulator is a process of its own: it must remember what it charged.
    upstream = HttpUpstream(answer=[b"data: {}\n\n"])
    with upstream.serving(), serve(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
        gateway.key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        upstream.answer, upstream.waits = [b": wait\n\n", b"more"], threading.Event()

        def ask() -> None:
            with pytest.raises((OSError, http.client.HTTPException)):
                gateway.chat(gateway.key, model="a/b", stream=True)

        asking = threading.Thread(target=ask)
        asking.start()
        eventually(lambda: [line["generation_id"] for line in gateway.orders("a")] == ["gen-1"])
        key = gateway.key
        gateway.kill()
        asking.join()
        gateway.start()
        gateway.key = key
        eventually(lambda: "/generation?id=gen-1" in upstream.asked)
        assert "open" in gateway.orders("a")[0]["what"]
        upstream.pages["/generation"] = json.loads(record())
        eventually(lambda: gateway.orders("a")[0]["what"] == "fare")
        assert gateway.orders("a")[0]["cost_usd"] == "0.00012"
        assert gateway.audit()["unresolved"] == 0


def test_an_answer_whose_head_is_too_long_is_asked_about(tmp_path: Path) -> None:
    """It was charged for; a head of up to 64 KiB is read, beyond that its generation's id is looked for in it."""
    upstream = HttpUpstream(answer=[b"data: {}\n\n"], headers={"x-policy": "a" * (HEADER_BYTES_MAX + 1)})
    with upstream.serving(), serve(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
        gateway.key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        for path in ORDERS:
            for streamed in (False, True) if path in STREAMED else (False,):
                model = "a/e" if path == "/embeddings" else "a/b"
                refused = order(gateway, path, model=model, stream=streamed)
                assert (refused.status, "retry-after" in refused.headers) == (424, False), path
                assert "head is longer than is read" in refused.json["error"]["message"]
        eventually(lambda: "/generation?id=gen-1" in upstream.asked)
        assert gateway.audit()["unresolved"] == 0
        upstream.pages["/generation"] = json.loads(record())
        eventually(lambda: {line["what"] for line in gateway.orders("a")} <= {"fare", "fare above its hold"}, 20)
        assert {line["cost_usd"] for line in gateway.orders("a")} == {"0.00012"}
        assert len(gateway.orders("a")) == len(upstream.orders) == 7
        upstream.headers, upstream.content_type = {"x-policy": "a" * HEADER_BYTES_MAX}, "application/json"
        upstream.answer = [b'{"id":"gen-1","choices":[],"usage":{"cost":0.0001}}']
        served = gateway.chat(gateway.key, model="a/b")
        assert (served.status, served.headers["x-farebox-fare-events"]) == (200, "10")
        assert "x-policy" not in served.headers
        gateway.audit()


# An operator's decision


def test_what_nobody_can_answer_is_listed_and_decided_by_an_operator(gateway: Gateway) -> None:
    for _ in range(2):
        gateway.chat(simulate="usage=missing,no-generation-header")
        gateway.chat(simulate="cut-at-byte=0,no-generation-header")
    listed = gateway.cli("reconcile", "--list")
    assert len(listed) == 4
    lost = [each["hold_id"] for each in listed if each["generation_id"] is None]
    assert [each["unresolved"] for each in listed if each["hold_id"] in lost] == [True, True]
    assert gateway.audit()["unresolved"] == 2
    first, second = lost
    for arguments, code in (
        ((first,), 2),
        ((first, "--void"), 2),
        ((first, "--void", "--cost", "1", "--reason", "r"), 2),
        ((first, "--cost", "much", "--reason", "r"), 2),
        ((first, "--cost=-1", "--reason", "r"), 2),
        (("--void", "--reason", "r"), 2),
        (("nobody", "--void", "--reason", "r"), 1),
    ):
        done = gateway.run("reconcile", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert done.stderr.startswith("farebox: ")
    gateway.cli("reconcile", first, "--cost", "0.0000123", "--reason", "asked the support")
    left = gateway.cli("reconcile", second, "--void", "--reason", "never billed")
    assert len(left) == 2
    by_hold = {line["hold_id"]: line for line in gateway.orders()}
    assert by_hold[first]["what"] == "adjustment (asked the support)"
    assert (by_hold[first]["cost_usd"], by_hold[first]["amount_usd"]) == ("0.0000123", "-0.00002")
    assert by_hold[second]["what"] == "adjustment (never billed)"
    again = gateway.run("reconcile", first, "--void", "--reason", "twice")
    assert (again.returncode, "is posted" in again.stderr) == (1, True)
    found = gateway.audit()
    assert (found["unresolved"], found["adjustments"]) == (0, 2)
