"""Callers who wait: what keeps them from giving up reaches them, and who has gone before its order was sent has ordered
nothing."""

import asyncio
import contextlib
import http.client
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.formats.table import FORMATS
from farebox.core.headers import HeaderList
from farebox.core.reading import before_json
from farebox.ports import CallerGone
from farebox.testing import MemoryStore, Pause, Script
from tests.fast.test_exchange import ANSWER, DONE, LAST, TOKEN, USD, play
from tests.gateway import Gateway, Response, eventually
from tests.programs import simulator
from tests.served.test_crash_points import charged
from tests.served.test_formats import ORDERS, STREAMED
from tests.served.test_trouble import locked

PLACES = [*((path, False) for path in ORDERS), *((path, True) for path in STREAMED)]
"""Every format, whole and streamed."""


class Asked:
    """An order that was sent, on a connection of its own."""

    def __init__(
        self, gateway: Gateway, path: str, key: str, simulate: str, *, streamed: bool, idempotency_key: str = ""
    ) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        headers = {"authorization": f"Bearer {key}", "x-openrouter-simulate": simulate}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        body = {**ORDERS[path], **({"stream": True} if streamed else {})}
        self.connection.request("POST", f"/v1{path}", json.dumps(body), headers)
        self._head: http.client.HTTPResponse | None = None

    def head(self) -> http.client.HTTPResponse:
        """Waits for the answer's head."""
        if self._head is None:
            self._head = self.connection.getresponse()
        return self._head

    def answer(self) -> Response:
        """Waits for all of it."""
        got = self.head()
        try:
            return Response(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            self.connection.close()


@contextmanager
def asking(
    gateway: Gateway, simulate: str, places: list[tuple[str, bool]]
) -> Iterator[list[tuple[tuple[str, bool], str, Asked]]]:
    """Orders under way at once, each of an account of its own: path and whether streamed, the account's name, the
    order."""
    names = {(path, streamed): f"{path} {streamed} {simulate}" for path, streamed in places}
    keys = {place: gateway.new_key(name, "--plan", "paying", "--prepaid", "1") for place, name in names.items()}
    with ExitStack() as stack:
        asked = []
        for place, key in keys.items():
            order = Asked(gateway, place[0], key, simulate, streamed=place[1])
            stack.callback(order.connection.close)
            asked.append((place, names[place], order))
        yield asked


def states(gateway: Gateway, name: str) -> list[str]:
    return [line["what"].partition(" (")[0] for line in gateway.orders(name)]


def in_band(path: str, body: bytes) -> dict[str, Any]:
    """The error in an answer that had begun, in the format's own shape."""
    said = json.loads(body)
    assert said["error"]["message"]
    assert (said.get("type") == "error") is (path == "/messages")
    error: dict[str, Any] = said["error"]
    return error


def test_a_slow_answers_head_and_blank_lines_go_on_before_it(shared_gateway: Gateway) -> None:
    with asking(shared_gateway, "first-token-ms=4000", [(path, False) for path in ORDERS]) as asked:
        heads = [order.head() for _, _, order in asked]
        for head, (_, name, _) in zip(heads, asked, strict=True):
            assert (head.status, head.read(1), states(shared_gateway, name)) == (200, b"\n", ["held"])
            assert head.getheader("content-length") is None
            assert head.getheader("x-farebox-fare-usd") is None
        for head, ((path, _), name, _) in zip(heads, asked, strict=True):
            generation_id = head.getheader("x-generation-id")
            rest = head.read()
            assert rest.startswith(b"\n\n\n")
            assert ("data" if path == "/embeddings" else "usage") in json.loads(rest)
            (line,) = shared_gateway.orders(name)
            assert (line["what"], line["generation_id"]) == ("fare", generation_id)


def test_an_answer_that_is_whole_within_a_second_tells_its_length_and_its_fare(shared_gateway: Gateway) -> None:
    simulate = "first-token-ms=300,blank-lines=2,comments=1"
    with asking(shared_gateway, simulate, [(path, False) for path in ORDERS]) as asked:
        for (path, _), _, order in asked:
            answer = order.answer()
            assert answer.headers["content-length"] == str(len(answer.body))
            assert answer.headers["x-farebox-fare-events"] == "1"
            assert answer.body.startswith(b"\n\n\n") or path == "/responses", "which is completed"
            assert answer.json


def test_what_fails_after_the_head_is_an_error_that_nobody_repeats(shared_gateway: Gateway) -> None:
    simulate = "first-token-ms=1700,cut-at-byte=20"
    with asking(shared_gateway, simulate, [(path, False) for path in ORDERS]) as asked:
        for (path, _), name, order in asked:
            answer = order.answer()
            assert answer.status == 200
            assert "broke off" in in_band(path, answer.body)["message"]
            assert states(shared_gateway, name) == ["held"]


def test_who_leaves_a_slow_answer_pays_for_it(shared_gateway: Gateway) -> None:
    with asking(shared_gateway, "first-token-ms=2500", [(path, False) for path in ORDERS]) as asked:
        for _, _, order in asked:
            head = order.head()
            assert head.read(1) == b"\n"
            order.connection.close()
            head.close()
        for _, name, _ in asked:
            eventually(lambda name=name: states(shared_gateway, name) == ["fare"])  # type: ignore[misc]


def test_a_slow_answer_is_kept_under_its_key(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("slow and kept", "--plan", "paying", "--prepaid", "1")
    first, again = (
        Asked(shared_gateway, "/responses", key, "first-token-ms=1700", streamed=False, idempotency_key="k").answer()
        for _ in range(2)
    )
    assert first.json == again.json
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-length"] == str(len(again.body))
    assert states(shared_gateway, "slow and kept") == ["fare"]


def test_comments_of_a_stream_that_does_not_name_itself_go_on_at_once(shared_gateway: Gateway) -> None:
    simulate = "first-token-ms=4000,no-generation-header"
    with asking(shared_gateway, simulate, [(path, True) for path in STREAMED]) as asked:
        heads = [order.head() for _, _, order in asked]
        for head, (_, name, _) in zip(heads, asked, strict=True):
            assert (head.status, head.read(1)) == (200, b":")
            assert states(shared_gateway, name) == ["held"]
            assert head.getheader("x-generation-id") is None
        for head, (_, name, _) in zip(heads, asked, strict=True):
            rest = head.read()
            assert rest.count(b": ") > 30
            assert b"[DONE]" in rest or b"message_stop" in rest
            (line,) = shared_gateway.orders(name)
            assert line["what"] == "fare"
            assert line["generation_id"]


# Where we keep them waiting ourselves

SOON = {"FAREBOX_SILENCE_SECONDS": "0.5", "FAREBOX_STREAM_SILENCE_SECONDS": "0.5"}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("patient"), **SOON) as gateway:
        yield gateway
        gateway.audit()


@pytest.mark.parametrize("simulate", ["head-ms=3000", "first-token-ms=3000,silent"])
def test_a_silent_upstreams_callers_hear_of_us(patient: Gateway, simulate: str) -> None:
    with asking(patient, simulate, PLACES) as asked:
        heads = [order.head() for _, _, order in asked]
        lines = [FORMATS[path].KEEP_ALIVE if streamed else b"\n" for (path, streamed), _, _ in asked]
        for head, line in zip(heads, lines, strict=True):
            assert (head.status, head.read(len(line))) == (200, line)
        assert states(patient, asked[-1][1]) == ["held"]
        for head, line, ((path, _), name, _) in zip(heads, lines, asked, strict=True):
            rest = head.read()
            assert rest.startswith(line)
            if line == b"\n":
                assert ("data" if path == "/embeddings" else "usage") in json.loads(rest)
            else:
                assert b'"usage":{' in rest
                assert b'"error":{' not in rest
            assert states(patient, name) == ["fare"]


@pytest.mark.parametrize("simulate", ["head-ms=2000,status=503", "head-ms=2000,status=502,html"])
def test_a_silent_upstreams_refusal_is_told_in_the_answer_and_costs_nothing(patient: Gateway, simulate: str) -> None:
    with asking(patient, simulate, PLACES) as asked:
        for (path, streamed), name, order in asked:
            answer = order.answer()
            assert answer.status == 200
            if streamed:
                last = answer.body.rstrip().rpartition(b"data: ")[2]
                assert b"error" in last
                assert json.loads(last)
            else:
                assert in_band(path, answer.body)
            assert states(patient, name) == ["not served"]


def test_a_quick_answer_is_the_same_with_it(patient: Gateway) -> None:
    key = patient.new_key("quick", "--plan", "paying", "--prepaid", "1")
    answer = patient.chat(key)
    assert answer.headers["x-farebox-fare-events"] == "1"
    assert patient.chat(key, "status=429").status == 429
    # A machine that stands still for a while makes one slow, not all.
    quick = (patient.chat(key, "tokens=5,token-ms=20", stream=True).body for _ in range(9))
    assert any(b"keep-alive" not in body for body in quick)


def test_who_hears_the_upstreams_own_comments_hears_none_of_ours(patient: Gateway) -> None:
    with asking(patient, "first-token-ms=1500", [(path, True) for path in STREAMED]) as asked:
        for (path, _), _, order in asked:
            body = order.answer().body
            assert body.startswith(b": ")
            assert FORMATS[path].KEEP_ALIVE not in body


def test_who_follows_a_silent_answer_of_the_background_hears_of_us(patient: Gateway) -> None:
    key = patient.new_key("follower", "--plan", "paying", "--prepaid", "1")
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    order = {"model": "sim/echo:tokens=2,token-ms=700", "input": "Hi", "background": True, "stream": True}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", patient.port, timeout=30)) as connection:
        connection.request("POST", "/api/v1/responses", json.dumps(order), headers)
        begun = json.loads(connection.getresponse().readline().removeprefix(b"data: "))
    told = patient.request("GET", f"/api/v1/responses/{begun['response']['id']}?stream=true", headers=headers).body
    assert b'"response.created"' in told
    assert FORMATS["/responses"].KEEP_ALIVE in told
    assert b'"response.completed"' in told


# Who has gone


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Gateway]]:
    """An upstream that can be asked what it was sent, and a gateway before it."""
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        with Gateway(tmp_path_factory.mktemp("gone"), "--upstream", url, OPENROUTER_API_KEY="sk-or-x") as gateway:
            yield port, gateway
            gateway.audit()


def test_who_leaves_before_its_order_was_sent_has_ordered_nothing(elsewhere: tuple[int, Gateway]) -> None:
    port, gateway = elsewhere
    stays = gateway.new_key("stays", "--plan", "paying", "--prepaid", "1")
    keys = {place: gateway.new_key(f"leaves {place}", "--plan", "paying", "--prepaid", "1") for place in PLACES}
    with locked(gateway, 3):
        staying = Asked(gateway, "/responses", stays, "", streamed=False)
        leaving = [Asked(gateway, path, key, "", streamed=streamed) for (path, streamed), key in keys.items()]
        time.sleep(0.5)  # all wait for the books now
        for leaver in leaving:
            leaver.connection.close()
        assert staying.answer().status == 200

    def gone() -> list[dict[str, Any]]:
        log = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith('{"time"')]
        return [line for line in log if line.get("error") == "caller_gone"]

    eventually(lambda: len(gone()) == len(PLACES))
    assert {(line["status"], line["outcome"]) for line in gone()} == {(499, "refused")}
    for place in PLACES:
        assert states(gateway, f"leaves {place}") == []
        assert gateway.statement(f"leaves {place}")["balance_usd"] == "1"
    assert list(charged(port)) == [line["generation_id"] for line in gateway.orders("stays")]


class Caller:
    """A caller who is told how far its answer is."""

    def __init__(self, *, has_gone: bool = False) -> None:
        self.has_gone = has_gone
        self.told: list[object] = []

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        if self.has_gone:
            raise CallerGone
        self.told.append(("sending", dict(headers), streamed))

    def head_came(self, headers: Callable[[], HeaderList]) -> None:
        self.told.append(("head", dict(headers())))

    def pass_on(self, lines: bytes) -> None:
        self.told.append(lines)

    def answer_came(self) -> bytes:
        self.told.append("answer")
        return b""


@pytest.mark.parametrize("streamed", [False, True])
def test_an_order_whose_caller_has_gone_is_not_sent_and_its_hold_is_voided(streamed: bool) -> None:
    store = MemoryStore()
    with pytest.raises(CallerGone):
        play(Script([]), store=store, waiting=Caller(has_gone=True), stream=streamed)
    (hold,) = asyncio.run(store.holds(("pending", "open", "posted", "voided")))
    assert hold.state == "voided"
    assert asyncio.run(store.balance(hold.account_id)).available_nanos == USD


def test_a_caller_is_told_of_its_answer_as_it_comes() -> None:
    body = json.dumps(ANSWER).encode()
    steps: list[Any] = [b"\n", Pause(), b": OPEN", Pause(), b"ROUTER\r\n \n", Pause(), b"  " + body[:9], body[9:]]
    caller = Caller()
    result = play(Script(steps, content_type="application/json"), waiting=caller)
    sent, head, *lines, last = caller.told
    assert (sent, head) == (("sending", {}, False), ("head", {b"x-generation-id": b"gen-1"}))
    assert (lines, last) == ([b"\n", b"\n \n", b"  "], "answer")
    assert (result.body, result.fares) == (body, [100_000])


def test_a_streams_comments_go_on_until_it_names_itself() -> None:
    caller = Caller()
    steps: list[Any] = [b": wait\n", b"\n: wait\n\n", Pause(), TOKEN, LAST, DONE]
    result = play(Script(steps, generation_id=None), waiting=caller, stream=True)
    assert caller.told == [("sending", {}, True), ("head", {}), b": wait\n\n: wait\n\n", "answer"]
    assert result.body == TOKEN + LAST + DONE


def test_what_a_comment_line_stands_before_does_not_go_on_as_a_comment() -> None:
    caller = Caller()
    steps: list[Any] = [b": wait\n" + TOKEN, LAST, DONE]
    result = play(Script(steps, generation_id=None), waiting=caller, stream=True)
    assert caller.told == [("sending", {}, True), ("head", {}), "answer"]
    assert result.body == b"".join(steps)


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b": OPENROUTER PROCESSING\n", b":\n"])),
    st.sampled_from([b"", b'{"a": ":\\n"}', b"[1]\n", b": cut"]),
    st.lists(st.integers(0, 80)),
)
def test_what_comes_before_the_json_is_told_from_it_however_it_is_cut(
    before: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    text = b"".join(before) + rest
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    went_on, kept = b"", b""
    for start, end in itertools.pairwise(places):
        lines, kept = before_json(kept + text[start:end])
        went_on += lines
    assert went_on == b"".join(b"\n" if part.startswith(b":") else part for part in before)
    assert kept == (b":" if rest == b": cut" else rest)


def test_a_caller_who_sends_nothing_more_and_stays_is_served(shared_gateway: Gateway) -> None:
    """The look at who has gone takes nothing from who has not."""
    body = json.dumps(ORDERS["/messages"]).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {shared_gateway.key}\r\n"
    with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:9])
            with contextlib.suppress(TimeoutError):
                connection.settimeout(0.3)  # long enough to be looked for
                connection.recv(1)
            connection.settimeout(10)
            connection.sendall(body[9:])
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["type"]) == (200, "message")
