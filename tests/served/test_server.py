"""The real server, called over real sockets."""

import contextlib
import json
import math
import re
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.http.server import HEAD_BYTES_MAX
from tests.gateway import Gateway, Response, events_of, eventually
from tests.schemas import assert_accepted

HELLO = [{"role": "user", "content": "Hello"}]


def raw(port: int, data: bytes, timeout: float = 10) -> bytes:
    """Send bytes as they are, read until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def raw_order(gateway: Gateway, simulate: str, **body: Any) -> bytes:
    """An order as it stands on the wire, for tests that leave before its answer's end."""
    text = json.dumps({"model": "sim/echo", "messages": HELLO, **body}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        f"x-openrouter-simulate: {simulate}\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def stream(gateway: Gateway, key: str | None = None, simulate: str = "", **body: Any) -> tuple[Response, list[Any]]:
    answer = gateway.chat(key, simulate, stream=True, **body)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer, events_of(answer.body)


# The first start


@pytest.fixture
def first_start(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that found no books."""
    gateway = Gateway(tmp_path)
    gateway.makes_books = True
    with gateway as running:
        yield running


def test_the_first_start_makes_a_demo_and_its_curl_line_works(first_start: Gateway) -> None:
    gateway = first_start
    assert "SIMULATED" in gateway.banner
    assert "OPENROUTER_API_KEY" in gateway.banner
    assert stat.S_IMODE((gateway.folder / "data" / "farebox.db").stat().st_mode) == 0o600
    command = gateway.banner[gateway.banner.index("curl") :].split("\n\n")[0]
    done = subprocess.run(["bash", "-c", command.replace("curl", "curl -sS", 1)], capture_output=True, text=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "You said: Hello"
    (order,) = gateway.orders()
    assert (order["what"], order["events"]) == ("fare", 1)
    assert gateway.audit()["paid_in_usd"] == "5"


def test_a_second_start_keeps_the_accounts_and_keeps_the_key_to_itself(gateway: Gateway) -> None:
    key = gateway.key
    gateway.chat()
    gateway.stop()
    gateway.start()
    assert "sk-fb-" not in gateway.banner
    assert gateway.chat(key).status == 200
    assert len(gateway.orders()) == 2


def test_several_workers_serve_one_set_of_books(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--workers", "2") as gateway:
        answers: list[int] = []

        def call() -> None:
            answers.append(gateway.chat().status)

        calls = [threading.Thread(target=call) for _ in range(40)]
        for each in calls:
            each.start()
        for each in calls:
            each.join()
        assert answers == [200] * 40
        assert len(gateway.orders()) == 40
        gateway.audit()


def test_an_upstream_of_ones_own_is_asked_with_the_operators_key(tmp_path: Path) -> None:
    heads: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            heads.append(connection.recv(65536))
            entry = {"id": "a/b", "pricing": {"prompt": "0", "completion": "0"}}
            body = json.dumps({"data": [entry]}).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
    with Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-operator") as gateway:
        assert "SIMULATED" not in gateway.banner
        assert "sk-or-operator" not in gateway.banner
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        headers = {
            "authorization": f"Bearer {key}",
            "cookie": "secret=1",
            "http-referer": "https://example.org",
            "x-title": "Title",
            "x-openrouter-categories": "c",
            "x-session-id": "s",
            "anthropic-beta": "interleaved-thinking-2025-05-14",
            "anthropic-version": "2023-06-01",
            "x-forwarded-for": "10.0.0.1",
            "x-stainless-os": "Linux",
        }
        body = b'{"model":"a/b",  "messages":[{"role":"user","content":"hi"}], "zebra": 1.10}'
        answer = gateway.request("POST", "/v1/messages?beta=true", body, headers)
        head, _, sent = heads[-1].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /api/v1/messages HTTP/1.1")
        assert sent == body
        lower = head.lower()
        for name in (
            b"http-referer: https://example.org",
            b"x-title: title",
            b"x-openrouter-categories: c",
            b"x-session-id: s",
            b"anthropic-beta: interleaved-thinking-2025-05-14",
            b"anthropic-version: 2023-06-01",
        ):
            assert name in lower
        assert b"authorization: bearer sk-or-operator" in lower
        for name in (b"cookie", b"sk-fb-", b"x-forwarded-for", b"x-stainless"):
            assert name not in lower
        assert "set-cookie" not in answer.headers
    listener.close()


# Calls


def test_both_bases_answer(shared_gateway: Gateway) -> None:
    for base in ("/api/v1", "/v1"):
        body = {"model": "sim/echo", "messages": HELLO}
        answer = shared_gateway.request(
            "POST", f"{base}/chat/completions", body, {"authorization": f"bearer  {shared_gateway.key} "}
        )
        assert answer.status == 200
        assert answer.headers["x-generation-id"] == answer.json["id"]
        assert answer.headers["x-farebox-fare-events"] == "1"
        assert answer.headers["x-farebox-fare-usd"] == "0.00001"


def test_each_call_is_accounted_for_to_the_last_event(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("accounted", "--plan", "paying", "--prepaid", "1")
    costs = ["3E-7", "7.1e-05", "0.00001212", "0", "0.01"]
    for cost in costs:
        shared_gateway.chat(key, f"cost={cost}")
        stream(shared_gateway, key, f"cost={cost}")
    statement = shared_gateway.statement("accounted")
    events = [line["events"] for line in statement["lines"] if line["what"].startswith("fare")]
    assert events == [1, 1, 8, 8, 2, 2, 0, 0, 1000, 1000]
    assert statement["events"] == sum(events)
    assert statement["spent_usd"] == "0.02022"
    assert statement["balance_usd"] == "0.97978"
    told = shared_gateway.request("GET", "/api/v1/credits", headers={"authorization": f"Bearer {key}"})
    assert told.body == b'{"data":{"total_credits":1,"total_usage":0.02022}}'


@pytest.mark.parametrize("usage", ["separate", "delta", "merged"])
@pytest.mark.parametrize(
    "framing", ["", "crlf", "cr", "split=1", "split=7,crlf", "no-final-blank,no-done", "comments=3"]
)
def test_a_stream_is_passed_and_metered_however_it_comes(shared_gateway: Gateway, usage: str, framing: str) -> None:
    key = shared_gateway.new_key(f"stream-{usage}-{framing}", "--plan", "paying", "--prepaid", "1")
    answer = shared_gateway.chat(key, f"usage={usage},{framing},cost=0.0005", stream=True)
    end = {"crlf": b"\r\n\r\n", "cr": b"\r\r", "split=7,crlf": b"\r\n\r\n"}.get(framing, b"\n\n")
    assert answer.body.endswith(end)
    assert answer.body.count(b"data: ") == answer.body.count(end) - (3 if framing == "comments=3" else 0)
    (order,) = shared_gateway.orders(f"stream-{usage}-{framing}")
    assert (order["what"], order["events"], order["generation_id"]) == ("fare", 50, answer.headers["x-generation-id"])


@pytest.mark.parametrize(
    "defect", ["role-empty", "fingerprint-null", "tool-calls-null", "no-finish", "no-index", "usage-null", "no-choices"]
)
def test_what_strict_sdks_choke_on_is_repaired_and_nothing_else(shared_gateway: Gateway, defect: str) -> None:
    answer, events = stream(shared_gateway, simulate=f"defect={defect}")
    for event in events[:-1]:
        assert_accepted("ChatStreamChunk", event)
    generation = answer.headers["x-generation-id"]
    plain, _ = stream(shared_gateway)
    same = plain.body.replace(plain.headers["x-generation-id"].encode(), generation.encode()).split(b"\n\n")
    changed = [number for number, part in enumerate(answer.body.split(b"\n\n")) if part != same[number]]
    assert len(changed) <= 1


def test_first_events_are_not_held_back(shared_gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as connection:
        connection.sendall(raw_order(shared_gateway, "stall-at-event=1", stream=True))
        got = b""
        while b"data: " not in got:
            got += connection.recv(65536)
    assert b"You" in got


def test_pictures_tools_and_reasoning_pass_and_are_billed_as_reported(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("varied", "--plan", "paying", "--prepaid", "5")
    answer = shared_gateway.chat(key, model="sim/painter", modalities=["image", "text"])
    assert answer.json["choices"][0]["message"]["images"]
    _, events = stream(shared_gateway, key, model="sim/painter", modalities=["image", "text"])
    assert any(c["delta"].get("images") for e in events[:-1] for c in e["choices"])
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    assert shared_gateway.chat(key, tools=tools).json["choices"][0]["finish_reason"] == "tool_calls"
    assert shared_gateway.chat(key, model="sim/reasoner").json["choices"][0]["message"]["reasoning"]
    assert shared_gateway.chat(key, model="sim/nobody:free", models=["sim/echo"]).status == 404
    served = shared_gateway.chat(key, model="sim/auto", models=["sim/echo-pro"], provider={"sort": "price"}, plugins=[])
    assert served.json["model"] == "sim/echo"
    for line in shared_gateway.orders("varied"):
        assert line["events"] == math.ceil(Decimal(line["cost_usd"]) * 100_000), line


def test_a_free_caller_is_capped_and_pays_ten_times(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("free", "--plan", "free", "--prepaid", "1")
    answer = shared_gateway.chat(key, "tokens=5000,cost=0.0001")
    assert answer.json["usage"]["completion_tokens"] == 2048
    assert answer.headers["x-farebox-fare-usd"] == "0.001"


def test_a_small_balance_lowers_the_cap_and_says_so(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("small", "--plan", "paying", "--prepaid", "0.005")
    answer = shared_gateway.chat(key, "tokens=8000", model="sim/echo-pro", max_tokens=8000)
    cap = int(answer.headers["x-farebox-answer-cap"])
    assert answer.json["usage"]["completion_tokens"] == cap < 8000
    refused = shared_gateway.chat(key, "tokens=8000", model="sim/echo-pro", max_tokens=8000)
    assert refused.status == 402
    assert refused.error["metadata"]["answer_tokens_covered"] < 16
    assert "covers an answer of" in refused.error["message"]


def test_an_order_whose_tools_cost_nothing_is_placed_with_what_it_can_cost(shared_gateway: Gateway) -> None:
    """As Codex asks: a search tool is always there, and ten cents are enough."""
    key = shared_gateway.new_key("cents", "--plan", "paying", "--prepaid", "0.10")
    headers = {"authorization": f"Bearer {key}"}
    ordered = {"model": "sim/echo", "input": "hi", "max_output_tokens": 500, "store": False}
    for tools in (
        [{"type": "function", "name": "f"}, {"type": "web_search", "external_web_access": False}],
        [{"type": "local_shell"}, {"type": "namespace", "name": "n", "description": "d", "tools": []}],
    ):
        answer = shared_gateway.request("POST", "/api/v1/responses", {**ordered, "tools": tools}, headers)
        assert (answer.status, "x-farebox-answer-cap" in answer.headers) == (200, False)
    many = {**ordered, "tools": [{"type": "web_search", "max_uses": 50}]}
    refused = shared_gateway.request("POST", "/api/v1/responses", many, headers)
    assert refused.status == 402
    shared_gateway.audit()


def test_two_hundred_callers_on_a_balance_for_fifty_get_fifty(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("crowd", "--plan", "paying", "--prepaid", "0.05")
    statuses: list[int] = []

    def call() -> None:
        statuses.append(shared_gateway.chat(key, model="sim/penny", simulate="first-token-ms=50").status)

    calls = [threading.Thread(target=call) for _ in range(200)]
    for each in calls:
        each.start()
    for each in calls:
        each.join()
    assert (statuses.count(200), statuses.count(402)) == (50, 150)
    statement = shared_gateway.statement("crowd")
    assert (statement["balance_usd"], statement["spent_usd"], statement["held_usd"]) == ("0", "0.05", "0")
    shared_gateway.audit()


def test_holds_larger_than_their_fares_never_take_a_balance_below_zero(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("eager", "--plan", "paying", "--prepaid", "0.01")
    answers: list[Response] = []

    def call() -> None:
        answers.append(shared_gateway.chat(key, "tokens=400,first-token-ms=20", model="sim/echo", max_tokens=400))

    calls = [threading.Thread(target=call) for _ in range(200)]
    for each in calls:
        each.start()
    for each in calls:
        each.join()
    assert {answer.status for answer in answers} == {200, 402}
    statement = shared_gateway.statement("eager")
    booked = sum(line["events"] for line in statement["lines"] if line["what"] == "fare")
    told = sum(int(answer.headers["x-farebox-fare-events"]) for answer in answers if answer.status == 200)
    assert booked == told <= 1000
    assert float(statement["balance_usd"]) >= 0
    assert not any(line["what"] == "fare above its hold" for line in statement["lines"])


# What goes wrong upstream


def test_upstream_refusals_pass_and_cost_nothing(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("refused", "--plan", "paying", "--prepaid", "1")
    for status, told in ((402, 502), (429, 429), (503, 503)):
        for streamed in (False, True):
            answer = shared_gateway.chat(key, f"status={status}", stream=streamed)
            assert answer.error["code"] == told
            assert ("retry-after" in answer.headers) == (status != 402)
            assert ("x-ratelimit-limit" in answer.headers) == (status == 429)
    statement = shared_gateway.statement("refused")
    assert statement["balance_usd"] == "1"
    assert statement["held_usd"] == "0"
    assert {line["what"] for line in statement["lines"]} == {"top-up", "not served"}


@pytest.mark.parametrize(
    ("fault", "streamed", "status", "what"),
    [
        ("html", False, 424, "held"),
        ("html,status=502", False, 502, "not served"),
        ("html,status=404", True, 404, "not served"),
        ("cut-at-byte=40", False, 424, "held"),
        ("cut-at-event=2", True, 200, "held"),
        ("cut-at-event=0", True, 200, "held"),
        ("error-at-event=1", True, 200, "held"),
        ("endless-at-event=1", True, 200, "held"),
        ("bare-error-at-event=0", True, 200, "held"),
        ("usage=missing", True, 200, "held"),
        ("usage=missing", False, 200, "held"),
        ("usage=is-null", True, 200, "held"),
        ("cost=is-null", False, 200, "held"),
        ("choices=empty", False, 200, "fare"),
        ("blank-lines=5,comments=2", False, 200, "fare"),
        ("defect=no-fingerprint", False, 200, "fare"),
        ("no-generation-header", True, 200, "fare"),
        ("no-generation-header", False, 200, "fare"),
        ("defect=wrapped-comment", True, 200, "fare"),
        ("byok=0.01,cost=0.0005", False, 200, "fare"),
    ],
)
def test_each_fault_is_told_clearly_and_booked_right(
    shared_gateway: Gateway, fault: str, streamed: bool, status: int, what: str
) -> None:
    name = f"fault {fault} {streamed}"
    key = shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    answer = shared_gateway.chat(key, fault, stream=streamed)
    assert answer.status == status
    (order,) = shared_gateway.orders(name)
    assert order["what"].startswith(what)
    if status != 200:
        assert answer.error
    elif streamed:
        for event in events_of(answer.body):
            if event != "[DONE]":
                assert_accepted("ChatStreamChunk", event)
        if fault.startswith(("cut", "error", "bare", "endless")):
            assert events_of(answer.body)[-1]["error"]["code"] in (402, 502)
        assert answer.headers["x-generation-id"] == order["generation_id"]
    else:
        assert_accepted("ChatResult", answer.json)
        assert answer.headers["x-generation-id"] == order["generation_id"] == answer.json["id"]


def test_deadlines_end_what_hangs(tmp_path: Path) -> None:
    with Gateway(
        tmp_path, FAREBOX_FIRST_BYTE_SECONDS="0.5", FAREBOX_NO_DATA_SECONDS="0.5", FAREBOX_BODY_SECONDS="0.5"
    ) as g:
        answer = g.chat(simulate="head-ms=20000")
        assert answer.status == 424
        assert "0.5 s" in answer.error["message"]
        assert (
            "nothing came for"
            in events_of(g.chat(simulate="stall-at-event=2", stream=True).body)[-1]["error"]["message"]
        )
        assert g.chat(simulate="first-token-ms=20000,silent").status == 424
        half = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {g.key}\r\ncontent-length: 9\r\n"
        )
        with socket.create_connection(("127.0.0.1", g.port), timeout=10) as connection:
            connection.sendall(half.encode() + b"\r\n{")
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
        assert [line["what"].split(" ")[0] for line in g.orders()] == ["held"] * 3
        assert len(g.cli("reconcile", "--list")) == 3


def test_a_caller_who_hangs_up_mid_stream_leaves_an_open_hold(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(raw_order(gateway, "token-ms=100,tokens=100", stream=True))
        while b"data: " not in connection.recv(65536):
            pass
    until = time.monotonic() + 10
    while time.monotonic() < until and not (found := gateway.cli("reconcile", "--list")):
        time.sleep(0.1)
    assert "hung up" in found[0]["reason"]
    assert found[0]["generation_id"]


def test_a_caller_who_hangs_up_on_a_whole_answer_pays_for_it(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(raw_order(gateway, "first-token-ms=2000"))
        eventually(lambda: [order["what"] for order in gateway.orders()] == ["held"])
    eventually(lambda: [order["what"] for order in gateway.orders()] == ["fare"])


# Bad input


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b"\xff\xff", 400),
        (b'{"model":1,"messages":[{"content":"x"}]}', 400),
        (b'{"model":"sim/echo","messages":[]}', 400),
        (b'{"model":"sim/echo","messages":"x"}', 400),
        (b'{"model":"sim/nobody","messages":[{"role":"user","content":"x"}]}', 404),
        (b"[" * 100_000, 400),
        (b'{"model":"sim/echo","messages":[{"content":"x"}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"model":"sim/echo","messages":[{"role":"user","content":"x"}],"n":' + b"9" * 5000 + b"}", 400),
        (b'{"model":"sim/echo","messages":[{"role":"user","content":"x"}],"max_tokens":1e400}', 400),
    ],
)
def test_bad_bodies_are_refused_in_the_envelope_and_cost_nothing(
    shared_gateway: Gateway, body: bytes, status: int
) -> None:
    before = shared_gateway.statement()["balance_usd"]
    answer = shared_gateway.request(
        "POST", "/api/v1/chat/completions", body, {"authorization": f"Bearer {shared_gateway.key}"}
    )
    assert answer.status == status
    assert answer.error
    assert shared_gateway.statement()["balance_usd"] == before
    assert shared_gateway.chat().status == 200


def test_a_body_of_a_hundred_megabytes_is_refused(shared_gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {shared_gateway.key}"}
    answer = shared_gateway.request("POST", "/v1/chat/completions", b"x" * 100_000_000, headers)
    assert answer.status == 413
    assert answer.error
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {shared_gateway.key}\r\n"
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    assert b" 413 " in raw(
        shared_gateway.port, head.encode() + b"transfer-encoding: chunked\r\n\r\n" + chunk * 40 + b"0\r\n\r\n"
    )
    assert shared_gateway.chat().status == 200


def test_a_header_of_a_megabyte_is_refused(shared_gateway: Gateway) -> None:
    for size in (HEAD_BYTES_MAX + 1, 1_000_000):
        head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-big: " + b"x" * size
        answer = raw(shared_gateway.port, head)
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 431
    assert shared_gateway.chat().status == 200


def test_what_is_not_http_is_refused_in_the_envelope(shared_gateway: Gateway) -> None:
    answer = raw(shared_gateway.port, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 400


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer sk-fb-" + "x" * 43, "Bearer sk-or-v1-x", "Basic eDp5", "sk-fb-x"]
)
def test_without_a_good_key_nothing_is_served(shared_gateway: Gateway, header: str | None) -> None:
    headers = {"authorization": header} if header else {}
    for method, path in (("POST", "/api/v1/chat/completions"), ("GET", "/api/v1/key"), ("GET", "/v1/credits")):
        answer = shared_gateway.request(method, path, b"{}" if method == "POST" else None, headers)
        assert answer.status == 401
        assert answer.error["metadata"]["error_type"] == "authentication"


def test_a_revoked_key_stops_within_seconds(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("revoked", "--plan", "paying", "--prepaid", "1")
    assert shared_gateway.chat(key).status == 200
    shared_gateway.cli("key", "revoke", key)
    until = time.monotonic() + 5
    while time.monotonic() < until and shared_gateway.chat(key).status == 200:
        time.sleep(0.1)
    assert shared_gateway.chat(key).status == 401


def test_a_key_of_another_instance_is_nobodys(shared_gateway: Gateway, tmp_path: Path) -> None:
    with Gateway(tmp_path) as other:
        assert shared_gateway.chat(other.key).status == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 405),
        ("GET", "/api/v1/keys", 403),
        ("POST", "/api/v1/auth/keys", 404),
        ("GET", "/api/v1/../v1/keys", 404),
        ("GET", "/api/v1/models%2f..", 404),
        ("GET", "/api/v1/activity", 403),
        ("GET", "/api/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
    ],
)
def test_what_is_not_served_is_refused_in_the_envelope(
    shared_gateway: Gateway, method: str, path: str, status: int
) -> None:
    answer = shared_gateway.request(method, path, headers={"authorization": f"Bearer {shared_gateway.key}"})
    assert answer.status == status
    assert answer.error


def test_a_browser_at_the_root_is_shown_where_everything_is(shared_gateway: Gateway) -> None:
    """With nothing from elsewhere; a `Host` that is no name stands nowhere in it. Programs get the envelope."""
    asked = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = shared_gateway.request("GET", "/", headers=asked)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    text = page.body.decode()
    for base in ("/api/v1", "/api", "/mcp"):
        assert f"<code>http://127.0.0.1:{shared_gateway.port}{base}</code>" in text
    linked = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert linked == ["/api/v1/models", "/docs", "/openapi.json", "/healthz", "/readyz"]
    assert {shared_gateway.request("GET", each).status for each in linked} == {200}
    behind = shared_gateway.request("GET", "/", headers={**asked, "x-forwarded-proto": "https", "host": "llm.example"})
    assert "<code>https://llm.example/api/v1</code>" in behind.body.decode()
    assert "<evil" not in shared_gateway.request("GET", "/", headers={**asked, "host": "<evil>"}).body.decode()
    for accept in ("application/json", "text/event-stream", "*/*"):
        refused = shared_gateway.request("GET", "/", headers={"accept": accept})
        assert (refused.status, refused.headers["allow"], refused.error["code"]) == (405, "POST", 405)


# The rest of the surface


def test_the_models_are_the_upstreams_page_by_page(shared_gateway: Gateway) -> None:
    everything = shared_gateway.request("GET", "/api/v1/models").json
    assert_accepted("ModelsListResponse", everything)
    assert everything["object"] == "list"
    assert {model["object"] for model in everything["data"]} == {"model"}
    total = everything["total_count"]
    assert total == len(everything["data"]) >= 12
    paged: list[str] = []
    path: str | None = "/v1/models?limit=5"
    while path:
        page = shared_gateway.request("GET", path).json
        assert len(page["data"]) <= 5
        paged += [model["id"] for model in page["data"]]
        path = page["links"]["next"]
    assert paged == [model["id"] for model in everything["data"]]
    assert shared_gateway.request("GET", f"/v1/models?offset={total}&limit=500").json["data"] == []
    for query in ("limit=0", "limit=x", "offset=-1", "limit=1001"):
        assert shared_gateway.request("GET", f"/v1/models?{query}").status == 400


def test_key_and_credits_are_the_callers_own(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("own", "--plan", "free", "--prepaid", "2.5")
    shared_gateway.chat(key, "cost=0.0001")
    headers = {"authorization": f"Bearer {key}"}
    told = shared_gateway.request("GET", "/api/v1/key", headers=headers).json
    assert_accepted("GetCurrentKeyResponse", told)
    data = told["data"]
    assert (data["limit"], data["usage"], data["usage_daily"], data["limit_remaining"]) == (2.5, 0.001, 0.001, 2.499)
    assert data["is_free_tier"]
    told = shared_gateway.request("GET", "/api/v1/credits", headers=headers).json
    assert_accepted("GetCreditsResponse", told)
    assert told == {"data": {"total_credits": 2.5, "total_usage": 0.001}}


def test_health_and_readiness(tmp_path: Path, shared_gateway: Gateway) -> None:
    assert shared_gateway.request("GET", "/healthz").status == 200
    assert shared_gateway.request("GET", "/readyz").json["status"] == "ready"


def test_a_key_is_nowhere_in_the_books(gateway: Gateway) -> None:
    gateway.chat()
    for path in (gateway.folder / "data").iterdir():
        if path.is_file():
            assert gateway.key.encode() not in path.read_bytes()
            assert gateway.key.removeprefix("sk-fb-").encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/", "/api/v1", "/v1", "/api/v1/models", "/api/v1/key", "/v1/messages", "/nothing"]
)
def test_head_is_answered_as_get_would_be(shared_gateway: Gateway, path: str) -> None:
    """Claude Code asks for the base by HEAD before its first order."""
    headers = {"authorization": f"Bearer {shared_gateway.key}"}
    head, get = (shared_gateway.request(method, path, None, headers) for method in ("HEAD", "GET"))
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_a_402_begins_with_the_words_at_which_agents_stop(shared_gateway: Gateway) -> None:
    """aider's, which has the message alone where it came through LiteLLM's OpenAI route."""
    key = shared_gateway.new_key("out of credits", "--plan", "paying")
    order = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}
    for path, body in (
        ("/api/v1/chat/completions", order),
        ("/api/v1/messages", order),
        ("/api/v1/responses", {"model": "sim/echo", "input": "Hello"}),
    ):
        answer = shared_gateway.request("POST", path, body, {"authorization": f"Bearer {key}"})
        assert answer.status == 402
        assert answer.json["error"]["message"].startswith('Insufficient credits ("code":402). This order can cost')
