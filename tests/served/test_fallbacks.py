"""Several upstreams over real connections: the next one is tried where nothing was accepted, and never where an order
may have been charged; the books, the log and the metrics say which one served it."""

import http.client
import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farebox.crash import CRASH_VARIABLE
from farebox.simulator.server import embedded
from tests import hosts
from tests.gateway import Gateway, Response, eventually
from tests.upstreams import HttpUpstream
from tools.crash_points import arm
from tools.postgres import free_port

FILE = """
[upstreams.first]
kind = "{kind}"
base_url = "{first}"
key_variable = "KEY"
order = 1
first_byte_seconds = 1
models = ["m"]
{prices}

[upstreams.second]
kind = "{other}"
base_url = "{second}"
key_variable = "KEY"
order = 2
models = ["m", "gone/m", "deaf/m"]
names = {{ "m" = "{own}", "gone/m" = "{own}", "deaf/m" = "{own}" }}
{other_prices}

[upstreams.gone]
kind = "{kind}"
base_url = "{gone}"
order = 1
models = ["gone/m"]
{prices}

[upstreams.deaf]
kind = "{kind}"
base_url = "{deaf}"
order = 1
connect_seconds = 0.3
models = ["deaf/m"]
{prices}
"""

PRICES = """
[[prices]]
upstream = "{upstream}"
model = "*"
prompt = "0.00002"
answer = "0.00007"
cache_read = "0.000002"
"""

FILE_PRICES = 'prices = "file"'

ANSWERS = {
    "openrouter": ("/chat/completions", hosts.chat_whole, hosts.chat_stream),
    "openai": ("/chat/completions", hosts.chat_whole, hosts.chat_stream),
    "anthropic": ("/messages", hosts.messages_whole, hosts.messages_stream),
}
"""What the first upstream answers, in the format that it speaks."""

OTHERS = {
    "openrouter": ("openai", "/openai/v1", "gpt-sim"),
    "openai": ("anthropic", "/anthropic", "claude-sim"),
    "anthropic": ("openrouter", "/api/v1", "sim/echo"),
}
"""By the first upstream's kind, the second one: where it is, and what it calls the model."""


def plain(answer: bytes) -> bytes:
    """An answer of which nothing was written to a cache."""
    return re.sub(rb'("cache_(?:creation_input|write)_tokens"): 5', rb"\1: 0", answer)


@dataclass
class Pair:
    """A gateway before two upstreams of different kinds, the first of which does as a test says."""

    kind: str
    first: HttpUpstream
    gateway: Gateway

    def order(self, model: str = "m", **body: Any) -> Response:
        return self.gateway.chat(model=model, **body)

    def well(self) -> None:
        """The first serves again: it has no failures that count."""
        self.first.status, self.first.breaks, self.first.hangs = 200, "", 0
        whole = ANSWERS[self.kind][1]
        self.first.answer, self.first.content_type = [plain(whole([hosts.Words("First")]))], "application/json"

        def is_first() -> bool:
            answer = self.order()
            return answer.status == 200 and answer.json["choices"][0]["message"]["content"] == "First"

        eventually(is_first)
        self.first.orders.clear()

    def streams(self) -> None:
        stream = ANSWERS[self.kind][2]
        self.first.answer = [plain(event) for event in stream([hosts.Words("First words")])]
        self.first.content_type = "text/event-stream"

    def hold(self) -> dict[str, Any]:
        """The last order's."""
        return holds(self.gateway)[-1]

    def line(self) -> dict[str, Any]:
        """The last order's in the log."""
        hold_id = self.hold()["id"]
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in log_lines(self.gateway) if line.get("hold") == hold_id]
            return bool(found)

        eventually(is_there)
        return found[0]


def holds(gateway: Gateway) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM hold ORDER BY id")]


def log_lines(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log.read_text().splitlines() if '"farebox.orders"' in line]


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    with embedded() as url:
        yield url.removesuffix("/api/v1")


@pytest.fixture(scope="module")
def deaf() -> Iterator[str]:
    """Where connections are neither taken nor refused: the queue of those that wait is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


@pytest.fixture(scope="module", params=["openrouter", "openai", "anthropic"])
def pair(
    request: pytest.FixtureRequest, root: str, deaf: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    kind: str = request.param
    other, mount, own = OTHERS[kind]
    folder = tmp_path_factory.mktemp(kind)
    first = HttpUpstream()
    if kind == "openrouter":
        first.models({"id": "m", "pricing": {"prompt": "0.00001", "completion": "0.00003"}, "context_length": 9000})
    else:
        first.pages["/models"] = {"data": [{"id": "m"}]}
        first.generation_id = None
    with first.serving():
        (folder / "farebox.toml").write_text(
            FILE.format(
                kind=kind,
                other=other,
                first=first.url,
                second=root + mount,
                own=own,
                gone=f"http://127.0.0.1:{free_port()}/v1",
                deaf=deaf,
                prices="" if kind == "openrouter" else FILE_PRICES,
                other_prices="" if other == "openrouter" else FILE_PRICES,
            )
        )
        named = [name for name, of in (("first", kind), ("gone", kind), ("deaf", kind), ("second", other))]
        (folder / "prices.toml").write_text("".join(PRICES.format(upstream=name) for name in named))
        with Gateway(folder, KEY="sk-x", FAREBOX_PRICES_FILE="prices.toml") as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "100000")
            yield Pair(kind, first, gateway)
            gateway.audit()


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    text = gateway.request("GET", "/metrics").body.decode()
    for line in text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{label}="{value}"' in line for label, value in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0


def test_the_next_serves_an_order_that_the_first_refuses(pair: Pair) -> None:
    for status in (401, 402, 404, 429, 500, 503, 529):
        pair.well()
        before = metric(pair.gateway, "farebox_upstream_fallbacks_total", upstream="first", reason=f"status_{status}")
        pair.first.status, pair.first.answer = status, [b'{"error":{"message":"no"}}']
        answer = pair.order()
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["message"]["content"] == "You said: Hello"
        assert len(pair.first.orders) == 1
        hold = pair.hold()
        assert (hold["state"], hold["upstream"]) == ("posted", "second")
        assert re.fullmatch(rf"first \S+: status_{status}", hold["tried"])
        assert hold["created_us"] <= hold["sent_us"] <= hold["head_us"] <= hold["read_us"] <= hold["ended_us"]
        assert (hold["priced"] is None) == (OTHERS[pair.kind][0] == "openrouter")
        line = pair.line()
        assert line["upstream"] == "second"
        assert [(each["upstream"], each.get("error")) for each in line["attempts"]] == [
            ("first", f"status_{status}"),
            ("second", None),
        ]
        after = metric(pair.gateway, "farebox_upstream_fallbacks_total", upstream="first", reason=f"status_{status}")
        assert after == before + 1
        assert metric(pair.gateway, "farebox_upstream_attempts_total", upstream="second", outcome="served") > 0


def test_where_the_last_refuses_the_operators_account_its_caller_is_told_502_and_the_operator_why(pair: Pair) -> None:
    pair.well()
    pair.first.status, pair.first.answer = 403, [b'{"error":{"message":"no longer yours"}}']
    before = metric(pair.gateway, "farebox_upstream_denials_total", upstream="first", status="403")
    for streamed in (False, True):
        answer = pair.order(provider={"only": ["first"]}, stream=streamed)
        assert answer.status == 502
        assert answer.error["metadata"]["error_type"] == "provider_unavailable"
        assert "no longer yours" not in answer.error["message"]
        assert (pair.hold()["state"], pair.hold()["upstream"]) == ("voided", "first")
    assert pair.line()["attempts"][0]["error"] == "status_403"
    assert metric(pair.gateway, "farebox_upstream_denials_total", upstream="first", status="403") == before + 2
    told = "upstream `first` refuses this gateway's own account there, with status 403: no longer yours"
    assert pair.gateway.log.read_text().count(told) == 1


@pytest.mark.parametrize(("model", "error"), [("gone/m", "unreachable"), ("deaf/m", "connect_timeout")])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_next_serves_an_order_where_no_connection_is_made(
    pair: Pair, model: str, error: str, streamed: bool
) -> None:
    answer = pair.order(model, stream=streamed)
    assert answer.status == 200, answer.body
    eventually(lambda: pair.hold()["state"] == "posted")
    assert pair.hold()["upstream"] == "second"
    attempts = pair.line()["attempts"]
    assert (attempts[0]["upstream"], attempts[0]["error"]) == (model.partition("/")[0], error)
    assert attempts[1]["upstream"] == "second"


def test_what_is_wrong_with_the_order_itself_is_not_asked_elsewhere(pair: Pair) -> None:
    pair.well()
    pair.first.status, pair.first.answer = 400, [b'{"error":{"message":"no such thing"}}']
    assert pair.order().status == 400
    assert (pair.hold()["state"], pair.hold()["upstream"]) == ("voided", "first")


@pytest.mark.parametrize("how", ["breaks", "hangs", "504"])
@pytest.mark.parametrize("streamed", [False, True])
def test_nobody_else_is_tried_where_the_order_may_have_been_taken(pair: Pair, how: str, streamed: bool) -> None:
    pair.well()
    if how == "breaks":
        pair.first.breaks = "before"
    elif how == "hangs":
        pair.first.hangs = 3
    else:
        pair.first.status, pair.first.answer = 504, [b'{"error":{"message":"too late"}}']
    answer = pair.order(stream=streamed)
    assert len(pair.first.orders) == 1
    hold = pair.hold()
    if how == "504":
        # It said that it did not answer: a refusal costs nothing, but nobody knows whom it asked.
        assert (answer.status, hold["state"], hold["upstream"]) == (504, "voided", "first")
        return
    assert answer.status == 424, answer.body
    assert (hold["state"], hold["upstream"], hold["generation_id"]) == ("open", "first", None)
    assert [(each["upstream"], each["error"]) for each in pair.line()["attempts"]] == [("first", "broke_off")]


def test_a_stream_that_breaks_off_after_its_first_byte_ends_in_an_error_and_is_nobody_elses(pair: Pair) -> None:
    pair.well()
    pair.streams()
    pair.first.answer, pair.first.breaks = pair.first.answer[:4], "after"
    answer = pair.order(stream=True)
    assert answer.status == 200
    assert b"You said" not in answer.body
    last = [part for part in answer.body.decode().split("\n\n") if part.startswith("data: ")][-1]
    assert "broke off" in json.loads(last[6:])["error"]["message"]
    hold = pair.hold()
    assert (hold["state"], hold["upstream"]) == ("open", "first")
    assert hold["generation_id"]
    assert [(each["upstream"], each["error"]) for each in pair.line()["attempts"]] == [("first", "broke_off")]


def test_a_whole_answer_that_breaks_off_is_424_and_nobody_elses(pair: Pair) -> None:
    pair.well()
    pair.first.answer, pair.first.breaks = [pair.first.answer[0][:40]], "after"
    answer = pair.order()
    assert answer.status == 424
    assert (pair.hold()["state"], pair.hold()["upstream"]) == ("open", "first")


# Deaths between two attempts

DYING = """
[upstreams.first]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "KEY"
prices = "free"
order = 1
models = ["m"]
names = {{ "m" = "gpt-sim:status=503" }}

[upstreams.second]
kind = "anthropic"
base_url = "{root}/anthropic"
key_variable = "KEY"
prices = "file"
order = 2
models = ["m"]
names = {{ "m" = "claude-sim" }}
"""


@pytest.mark.parametrize(
    ("point", "upstream"),
    [
        ("NameGeneration:before", "first"),
        ("NameGeneration:after", "second"),
        ("forward:after", "second"),
        ("Settle:before", "second"),
    ],
)
def test_after_a_death_the_books_have_the_name_of_who_may_have_charged(
    root: str, tmp_path: Path, point: str, upstream: str
) -> None:
    (tmp_path / "farebox.toml").write_text(DYING.format(root=root))
    (tmp_path / "prices.toml").write_text(PRICES.format(upstream="second"))
    crash = {CRASH_VARIABLE: str(tmp_path / "crash"), "FAREBOX_RECONCILE_SECONDS": "86400"}
    gateway = Gateway(tmp_path, KEY="sk-x", FAREBOX_PRICES_FILE="prices.toml", **crash)
    with gateway:
        gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "100000")
        arm(tmp_path / "crash", point)
        with suppress(OSError, http.client.HTTPException):
            gateway.chat(model="m")
        gateway.process.wait(timeout=10)
    (hold,) = holds(gateway)
    assert (hold["state"], hold["upstream"]) == ("pending", upstream)
    key = gateway.key
    with gateway:
        gateway.key = key
        eventually(lambda: holds(gateway)[0]["state"] == "open")
        (hold,) = holds(gateway)
        assert hold["upstream"] == upstream
        assert json.loads(hold["priced"])["model"] == ("claude-sim" if upstream == "second" else "gpt-sim:status=503")
        assert gateway.cli("reconcile", "--list")[0]["hold_id"] == hold["id"]
        gateway.audit()
