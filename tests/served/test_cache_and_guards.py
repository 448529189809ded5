"""Kept answers and guards in a real server."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farebox.core.money import EVENT_NANOS
from farebox.simulator.server import embedded
from tests.gateway import Gateway, Response, eventually

GUARDS = """
[guards.codenames]
kind = "patterns"
settings.patterns = { "a code name" = "project falcon" }

[guards.redaction]
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "farebox.toml").write_text(GUARDS)
    with Gateway(folder) as running:
        yield running
        running.audit()


def ask(
    gateway: Gateway, cache: str = "", key: str = "", simulate: str = "", said: str = "hi", **body: Any
) -> Response:
    body |= {"model": "sim/echo", "messages": [{"role": "user", "content": said}]}
    headers = {"authorization": f"Bearer {key or gateway.key}", "content-type": "application/json"}
    headers |= {"x-farebox-cache": cache} if cache else {}
    headers |= {"x-openrouter-simulate": simulate} if simulate else {}
    return gateway.request("POST", "/api/v1/chat/completions", body, headers)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_second_of_two_same_orders_costs_nothing(guarded: Gateway, streamed: bool) -> None:
    before = len(guarded.orders())
    first = ask(guarded, "60", said=f"the same {streamed}", stream=streamed)
    assert first.headers["x-farebox-cache"] == "miss"
    again = ask(guarded, "60", said=f"the same {streamed}", stream=streamed)
    assert again.headers["x-farebox-cache"] == "hit"
    assert again.headers["age"] in ("0", "1")
    assert again.body == first.body
    assert again.headers["x-generation-id"] == first.headers["x-generation-id"]
    if not streamed:
        assert again.headers["x-farebox-fare-events"] == "0"
    assert len(guarded.orders()) == before + 1
    assert "x-farebox-cache" not in ask(guarded, said=f"the same {streamed}", stream=streamed).headers
    assert len(guarded.orders()) == before + 2


@pytest.mark.parametrize(
    "simulate", ["status=503", "cut-at-event=2", "usage=missing", "bare-error-at-event=2", "no-done"]
)
def test_what_is_no_whole_success_is_not_kept(guarded: Gateway, simulate: str) -> None:
    for _ in range(2):
        answer = ask(guarded, "60", said=simulate, simulate=simulate, stream=True)
        assert answer.headers.get("x-farebox-cache", "miss") == "miss"


def test_a_key_can_be_set_and_a_restart_keeps_answers(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        assert gateway.cli("key", "cache", "1", "600")["cache_seconds"] == 600
        eventually(lambda: ask(gateway, said="kept").headers.get("x-farebox-cache") == "hit")
        assert ask(gateway, "0", said="kept").headers.get("x-farebox-cache") is None
        assert ask(gateway, "soon", said="kept").status == 400
        # What waits to be written is, in a moment.
        eventually(lambda: b"farebox_cache_bytes" in gateway.request("GET", "/metrics").body)
        gateway.stop()
        with gateway:
            assert ask(gateway, said="kept").headers["x-farebox-cache"] == "hit"
            metrics = gateway.request("GET", "/metrics").body.decode()
            assert 'farebox_cache_lookups_total{outcome="hit"} 1.0' in metrics


def test_a_guard_refuses_an_order_and_another_changes_it(guarded: Gateway) -> None:
    before = len(guarded.orders())
    refused = ask(guarded, said="what of project falcon?")
    assert refused.status == 403
    assert refused.error["metadata"]["guard"] == "codenames"
    assert len(guarded.orders()) == before
    changed = ask(guarded, said="I am max@example.com")
    assert "[e-mail address]" in json.dumps(changed.json)
    assert "max@example.com" not in json.dumps(changed.json)
    metrics = guarded.request("GET", "/metrics").body.decode()
    assert 'farebox_guard_verdicts_total{guard="codenames",verdict="refuse"} 1.0' in metrics


# Guards of another package

THEIRS = """
import json, sqlite3, threading
from contextlib import closing

from farebox.guards import Pass


class Odd:
    def __init__(self, word, does):
        self.word, self.does = word.encode(), does

    def before(self, order):
        if self.word in order.body:
            if self.does == "wait":
                threading.Event().wait(3)
            else:
                raise RuntimeError("a secret of the guard's")
        return Pass()


class Watching:
    def after(self, answer):
        with closing(sqlite3.connect("data/farebox.db")) as db:
            found = db.execute("SELECT state FROM hold WHERE generation_id = ?", (answer.generation_id,)).fetchone()
        told = [answer.generation_id, answer.fare_nanos, answer.order.account, answer.body.decode(), found[0]]
        with open("seen.jsonl", "a") as file:
            file.write(json.dumps(told) + "\\n")
"""

ODD = """
[guards.{name}]
kind = "odd"
seconds = 0.05
on_failure = "{on_failure}"
settings = {{ word = "{name}", does = "{does}" }}
"""

SET = [("slow-strict", "refuse", 403), ("slow-mild", "pass", 200)]
SET += [("fails-strict", "refuse", 403), ("fails-mild", "pass", 200)]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Guards that are slow or fail, found by their entry points, and one that sees answers."""
    package, folder = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("theirs")
    (package / "their_guards.py").write_text(THEIRS)
    (package / "their_guards-1.dist-info").mkdir()
    for name, text in (
        ("METADATA", "Metadata-Version: 2.1\nName: their-guards\nVersion: 1\n"),
        ("entry_points.txt", "[farebox.guards]\nodd = their_guards:Odd\nwatching = their_guards:Watching\n"),
    ):
        (package / "their_guards-1.dist-info" / name).write_text(text)
    declared = [
        ODD.format(name=name, on_failure=on_failure, does="wait" if "slow" in name else "fail")
        for name, on_failure, _ in SET
    ]
    (folder / "farebox.toml").write_text("".join([*declared, "[guards.watching]\nseconds = 5\n"]))
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    gateway = Gateway(folder, PYTHONPATH=path)
    gateway.python = sys.executable
    with gateway:
        yield gateway
        gateway.audit()


def test_a_guard_that_is_slow_or_fails_refuses_or_lets_pass_as_is_set(theirs: Gateway) -> None:
    for name, _, status in SET:
        before = len(theirs.orders())
        answer = ask(theirs, said=f"this is {name}")
        assert answer.status == status, answer.body
        assert len(theirs.orders()) == before + (status == 200)
        assert b"secret" not in answer.body
        if status == 403:
            assert answer.error["metadata"]["guard"] == name
        verdict = "slow" if "slow" in name else "failed"
        metrics = theirs.request("GET", "/metrics").body.decode()
        assert f'farebox_guard_verdicts_total{{guard="{name}",verdict="{verdict}"}} 1.0' in metrics
    assert ask(theirs, said="as ever").status == 200


def test_a_guard_sees_whole_answers_and_streams_once_they_are_booked(theirs: Gateway) -> None:
    seen = theirs.folder / "seen.jsonl"
    answers = {each.headers["x-generation-id"]: each for each in (ask(theirs, stream=on) for on in (False, True))}
    eventually(lambda: seen.exists() and all(each in seen.read_text() for each in answers))
    events = {each["generation_id"]: each["events"] for each in theirs.orders() if each["generation_id"] in answers}
    told = [json.loads(line) for line in seen.read_text().splitlines()]
    for generation_id, nanos, account, body, state in [each for each in told if each[0] in answers]:
        assert (account, state, body) == ("demo", "posted", answers[generation_id].body.decode())
        assert nanos == events[generation_id] * EVENT_NANOS > 0


def test_a_wrong_guard_is_a_sentence_at_start(tmp_path: Path) -> None:
    (tmp_path / "farebox.toml").write_text('[guards.x]\nkind = "patern"\n')
    done = Gateway(tmp_path).run("serve", "--port", "0")
    assert done.returncode == 2
    assert "guards.x: there is no kind of guard `patern`" in done.stderr


# Over other formats, accounts and nodes

CLAUDE = """
[upstreams.claude]
kind = "anthropic"
base_url = "{root}/anthropic"
prices = "file"
names = {{ "sim/echo" = "claude-sim" }}
models = ["sim/echo"]
key_variable = "LOCAL_KEY"
"""

PRICES = """
[[prices]]
upstream = "claude"
model = "*"
per = "million"
prompt = "3"
answer = "15"
"""


@pytest.fixture(scope="module")
def translating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One upstream, which speaks messages alone, and charges by the price file."""
    folder = tmp_path_factory.mktemp("translating")
    with embedded() as url:
        (folder / "farebox.toml").write_text(CLAUDE.format(root=url.removesuffix("/api/v1")) + GUARDS)
        (folder / "prices.toml").write_text(PRICES)
        with Gateway(folder, LOCAL_KEY="k", FAREBOX_PRICES_FILE="prices.toml") as running:
            running.key = running.new_key("demo", "--plan", "paying", "--prepaid", "5")
            yield running
            running.audit()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_translated_answer_is_kept_as_its_caller_got_it(translating: Gateway, streamed: bool) -> None:
    before = len(translating.orders())
    first = ask(translating, "60", said=f"translated {streamed}", stream=streamed)
    assert (first.status, first.headers["x-farebox-cache"]) == (200, "miss"), first.body
    again = ask(translating, "60", said=f"translated {streamed}", stream=streamed)
    assert (again.headers["x-farebox-cache"], again.body) == ("hit", first.body)
    assert b"chat.completion" in again.body
    (line,) = translating.orders()[before:]
    assert line["events"] > 0
    metrics = translating.request("GET", "/metrics").body.decode()
    assert 'farebox_cache_lookups_total{outcome="hit"}' in metrics


def test_another_account_gets_no_answer_that_is_kept_for_this_one(translating: Gateway) -> None:
    other = translating.new_key("other", "--plan", "paying", "--prepaid", "5")
    assert ask(translating, "60", said="mine").headers["x-farebox-cache"] == "miss"
    assert ask(translating, "60", said="mine").headers["x-farebox-cache"] == "hit"
    assert ask(translating, "60", key=other, said="mine").headers["x-farebox-cache"] == "miss"
    assert len(translating.orders("other")) == 1


def test_what_one_node_kept_the_other_gives(translating: Gateway, tmp_path: Path) -> None:
    assert ask(translating, "60", said="on one node").headers["x-farebox-cache"] == "miss"
    for name in ("farebox.toml", "prices.toml"):
        (tmp_path / name).write_text((translating.folder / name).read_text())
    books = f"sqlite:///{translating.folder / 'data' / 'farebox.db'}"
    more = {"LOCAL_KEY": "k", "FAREBOX_PRICES_FILE": "prices.toml", "FAREBOX_DATABASE_URL": books}
    with Gateway(tmp_path, **more) as node:
        node.key = translating.key
        again = ask(node, "60", said="on one node")
        assert (again.status, again.headers["x-farebox-cache"]) == (200, "hit")
        assert int(again.headers["age"]) >= 0


def test_guards_see_translated_orders_and_those_of_tools_and_batches(translating: Gateway) -> None:
    said = "what of project falcon, then?"
    assert ask(translating, said=said).status == 403
    before = len(translating.orders())
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    call = {"name": "chat", "arguments": {"model": "sim/echo", "prompt": said}}
    tool = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    answer = translating.request("POST", "/mcp", tool, {**headers, "x-api-key": translating.key})
    assert answer.status == 200
    assert b"guard `codenames`" in answer.body
    order = {"model": "sim/echo", "messages": [{"role": "user", "content": said}]}
    (translating.folder / "orders.jsonl").write_text(json.dumps(order) + "\n")
    translating.environment["FAREBOX_KEY"] = translating.key
    done = translating.run("batch", "orders.jsonl", "--json", "--results", "openai")
    (line,) = (translating.folder / "orders.results.jsonl").read_text().splitlines()
    assert json.loads(line)["response"]["status_code"] == 403, done.stderr
    assert len(translating.orders()) == before
