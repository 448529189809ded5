"""What hosts may answer that no host should: each has the verdict that is right, which is never an estimate, and the
caller gets a clear word in its own format, whether or not the answer is translated. What is translated is taken by the
strict SDK of the caller's format, or it raises."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from farebox.core.formats import chat as chat_format
from farebox.core.formats import messages as messages_format
from farebox.core.formats import responses as responses_format
from tests import hosts, sdks
from tests.gateway import Gateway, Response, eventually
from tests.upstreams import HttpUpstream

FILE = """
[upstreams.gpt]
kind = "openai"
base_url = "{gpt}"
models = ["gpt", "either"]
formats = ["chat"]
prices = "file"
order = 1

[upstreams.claude]
kind = "anthropic"
base_url = "{claude}"
models = ["claude"]
prices = "file"

[upstreams.azure]
kind = "openai"
base_url = "{azure}"
models = ["azure"]
formats = ["responses"]
prices = "file"

[upstreams.full]
kind = "anthropic"
base_url = "{full}"
models = ["either"]
prices = "file"
"""

PRICES = """
[[prices]]
upstream = "{}"
model = "*"
prompt = "{}"
answer = "0.00007"
cache_read = "0.000002"
"""

FINE: hosts.Said = [hosts.Words("Fine")]
CALLED: hosts.Said = [hosts.Called("call_1", "look", {"a": 1})]


def plain(answer: bytes) -> bytes:
    """As a host tells it: without a cost, and nothing was written to a cache."""
    return re.sub(
        rb'("cache_(?:creation_input|write)_tokens"): 5', rb"\1: 0", answer.replace(b', "cost": 0.0', b', "x": 0.0')
    )


def chat(said: hosts.Said = FINE) -> Any:
    return json.loads(plain(hosts.chat_whole(said)))


def message(said: hosts.Said = FINE) -> Any:
    return json.loads(plain(hosts.messages_whole(said)))


def response(said: hosts.Said = FINE) -> Any:
    return json.loads(plain(hosts.responses_whole(said)))


def counting(body: Any, **counts: Any) -> Any:
    return {**body, "usage": {**body["usage"], **counts}}


def broken_call() -> Any:
    body = chat(CALLED)
    body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = '{"a": 1'
    return body


def broken_item() -> Any:
    body = response(CALLED)
    body["output"][0]["arguments"] = '{"a": 1'
    return body


def misplaced() -> Any:
    body = chat()
    body["choices"][0]["usage"] = body.pop("usage")
    return body


def changed(event: bytes, change: Callable[[Any], object]) -> bytes:
    """An event with its data changed in place."""
    body = json.loads(event.partition(b"data: ")[2])
    change(body)
    return hosts.data(body, body.get("type", ""))


def misplace(within: str) -> Callable[[Any], object]:
    """Moves the usage of an event out of one of its members, or into it."""

    def change(body: Any) -> None:
        if "usage" in body:
            body[within]["usage"] = body.pop("usage")
        else:
            body["usage"] = body[within].pop("usage")

    return change


def without(events: list[bytes], *words: bytes) -> list[bytes]:
    return [event for event in events if not any(word in event for word in words)]


def cut_call(events: list[bytes], word: bytes) -> list[bytes]:
    """Without the last piece of a call's arguments."""
    last = max(number for number, event in enumerate(events) if word in event)
    return events[:last] + events[last + 1 :]


CHATS = [plain(event) for event in hosts.chat_stream(FINE)]
MESSAGES = [plain(event) for event in hosts.messages_stream(FINE)]
CHAT_CALLS = cut_call([plain(event) for event in hosts.chat_stream(CALLED)], b'"arguments"')
MESSAGE_CALLS = cut_call([plain(event) for event in hosts.messages_stream(CALLED)], b"partial_json")
RESPONSES = [plain(event) for event in hosts.responses_stream(FINE)]
RESPONSE_CALLS = cut_call(
    [plain(event).replace(rb"{\"a\": 1}", rb"{\"a\"") for event in hosts.responses_stream(CALLED)], b"arguments.delta"
)
MORE = CHATS[-2].replace(b'"completion_tokens": 20, "total_tokens": 60', b'"completion_tokens": 21, "total_tokens": 61')
MOST = changed(RESPONSES[-1], lambda body: body["response"]["usage"].update(output_tokens=21, total_tokens=61))
LESS = CHATS[-2].replace(b'"completion_tokens": 20', b'"completion_tokens": -20')
DEARER = MESSAGES[-2].replace(b'"output_tokens": 20', b'"output_tokens": 25')

POSTED = "posted"
NOT_SAID = "the answer ended without saying what it cost"


class Odd(NamedTuple):
    """`why` is the reason for which the order is open, or POSTED; `said` what its caller is told (`native`: only where
    nothing is translated)."""

    name: str
    model: str
    streamed: bool
    answer: Any
    why: str
    said: str = ""
    native: str = ""


ODD = (
    Odd("another format", "gpt", False, message(), "it counts `input_tokens`", "has no choices"),
    Odd("another format", "gpt", False, response(), "it counts `input_tokens`", "has no choices"),
    Odd("another format", "claude", False, chat(), "it counts `prompt_tokens`", "has no content"),
    Odd("another format", "azure", False, chat(), "it counts `prompt_tokens`", "has no output"),
    Odd("another format, streamed", "gpt", True, MESSAGES, "it counts `output_tokens`", "ended before", native=" "),
    Odd("another format, streamed", "gpt", True, RESPONSES, NOT_SAID, "ended before", native=" "),
    Odd("another format, streamed", "claude", True, CHATS, NOT_SAID, "ended before", native=" "),
    Odd("another format, streamed", "azure", True, MESSAGES, NOT_SAID, "ended before", native=" "),
    Odd("a stream where none was asked", "gpt", False, CHATS, POSTED, "Fine"),
    Odd("a stream where none was asked", "claude", False, MESSAGES, POSTED, "Fine"),
    Odd("a stream where none was asked", "azure", False, RESPONSES, POSTED, "Fine"),
    Odd("half a stream where none was asked", "claude", False, MESSAGES[:5], "ended", "ended before", native=" "),
    Odd("none where one was asked", "gpt", True, chat(), POSTED, "Fine"),
    Odd("none where one was asked", "claude", True, message(CALLED), POSTED, "look"),
    Odd("none where one was asked", "azure", True, response(), POSTED, "Fine"),
    Odd("an error where a stream was asked", "gpt", True, {"error": {"message": "boom"}}, "then failed: boom", "boom"),
    Odd("usage below zero", "gpt", False, counting(chat(), prompt_tokens=-1), "`prompt_tokens` is negative", "Fine"),
    Odd("usage below zero", "claude", False, counting(message(), output_tokens=-1), "`output_tokens` is negative"),
    Odd("usage below zero", "azure", False, counting(response(), input_tokens=-1), "`input_tokens` is negative"),
    Odd("usage below zero, streamed", "gpt", True, [*CHATS[:-2], LESS, CHATS[-1]], "is negative", "Fine"),
    Odd("usage that is text", "gpt", False, counting(chat(), prompt_tokens="40"), "is no whole number", "Fine"),
    Odd("usage in the wrong place", "gpt", False, misplaced(), NOT_SAID, "Fine"),
    Odd(
        "usage in the wrong place, streamed",
        "claude",
        True,
        [*MESSAGES[:-2], changed(MESSAGES[-2], misplace("delta")), MESSAGES[-1]],
        "told at the start only",
        "Fine",
    ),
    Odd(
        "usage in the wrong place, streamed",
        "azure",
        True,
        [*RESPONSES[:-1], changed(RESPONSES[-1], misplace("response"))],
        NOT_SAID,
        "Fine",
    ),
    Odd("no usage", "gpt", False, {**chat(), "usage": None}, NOT_SAID, "Fine"),
    Odd("no usage", "claude", False, {**message(), "usage": None}, NOT_SAID, "Fine"),
    Odd("no usage", "azure", False, {**response(), "usage": None}, NOT_SAID, "Fine"),
    Odd("no usage, streamed", "gpt", True, [*CHATS[:-2], CHATS[-1]], NOT_SAID, "Fine"),
    Odd("no usage, streamed", "claude", True, without(MESSAGES, b"message_delta"), "told at the start only", "Fine"),
    Odd("usage twice", "gpt", True, [*CHATS[:-1], *CHATS[-2:]], POSTED, "Fine"),
    Odd("usage twice", "azure", True, [*RESPONSES, RESPONSES[-1]], POSTED, "Fine"),
    Odd("usage twice, and it differs", "gpt", True, [*CHATS[:-1], MORE, CHATS[-1]], "told twice, and differs", "Fine"),
    Odd("usage twice, and it differs", "claude", True, [*MESSAGES[:-1], DEARER], "was 20, and then 25", "Fine"),
    Odd("usage twice, and it differs", "azure", True, [*RESPONSES, MOST], "told twice, and differs", "Fine"),
    Odd("no [DONE]", "gpt", True, CHATS[:-1], POSTED, "Fine"),
    Odd("no message_stop", "claude", True, MESSAGES[:-1], POSTED, "Fine"),
    Odd("no response.completed", "azure", True, RESPONSES[:-1], NOT_SAID, "Fine"),
    Odd("arguments that are no JSON", "gpt", False, broken_call(), POSTED, "look"),
    Odd("arguments that are no JSON", "azure", False, broken_item(), POSTED, "look"),
    Odd("arguments that are no JSON, streamed", "gpt", True, CHAT_CALLS, POSTED, "look"),
    Odd("arguments that are no JSON, streamed", "claude", True, MESSAGE_CALLS, POSTED, "look"),
    Odd("arguments that are no JSON, streamed", "azure", True, RESPONSE_CALLS, POSTED, "look"),
    Odd("nothing", "gpt", False, b"", "no JSON object", "not JSON"),
    Odd("nothing but [DONE]", "gpt", True, CHATS[-1:], NOT_SAID, "ended before", native=" "),
    Odd("a web page", "claude", False, b"<p>Hello", "no JSON object", "not JSON"),
)


TOOLS: dict[str, Any] = {
    "/chat/completions": {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
    "/messages": {"name": "look", "input_schema": {"type": "object"}},
    "/responses": {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False},
}
FORMATS = {"/chat/completions": chat_format, "/messages": messages_format, "/responses": responses_format}
NATIVE = {"gpt": "/chat/completions", "claude": "/messages", "azure": "/responses"}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, HttpUpstream]]:
    names = [*NATIVE, "full"]
    made = {name: HttpUpstream(pages={"/models": {"data": [{"id": name}]}}, generation_id=None) for name in names}
    with ExitStack() as stack:
        for each in made.values():
            stack.enter_context(each.serving())
        yield made


@pytest.fixture(scope="module")
def gateway(upstreams: dict[str, HttpUpstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "farebox.toml").write_text(FILE.format(**{name: each.url for name, each in upstreams.items()}))
    (folder / "prices.toml").write_text("".join(PRICES.format(name, "0.00002") for name in upstreams))
    with Gateway(folder, FAREBOX_PRICES_FILE="prices.toml") as running:
        running.key = running.new_key("demo", "--plan", "paying", "--prepaid", "100000")
        yield running
        running.audit()


def last_hold(gateway: Gateway, model: str = "%") -> dict[str, Any]:
    """That of the last order, or of the last for a model."""
    last = "SELECT * FROM hold WHERE model LIKE ? ORDER BY id DESC LIMIT 1"
    with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db")) as db:
        db.row_factory = sqlite3.Row
        return dict(db.execute(last, (model,)).fetchone() or {"state": ""})


def place(gateway: Gateway, path: str, model: str, *, streamed: bool = False) -> Response:
    said: Any = [{"role": "user", "content": "Hi"}]
    asked = {"input": said, "max_output_tokens": 99} if path == "/responses" else {"messages": said, "max_tokens": 99}
    body = {"model": model, "stream": streamed, "tools": [TOOLS[path]], **asked}
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    return gateway.request("POST", f"/api/v1{path}", body, headers)


def assert_taken(path: str, answer: Response, odd: Odd) -> None:
    """The strict SDK of the caller's format takes what was translated, in the way that was asked for; or it raises."""
    wire, is_stream = FORMATS[path], answer.headers["content-type"] == "text/event-stream"
    if answer.status != 200:
        assert answer.status == 424
        assert not is_stream
        return
    assert is_stream == odd.streamed
    if "ended before its answer did" in answer.body.decode():
        with pytest.raises((openai.APIError, anthropic.APIError, RuntimeError)):
            sdks.streamed(wire, answer.body)
    else:
        (sdks.streamed if is_stream else sdks.whole)(wire, answer.body)


@pytest.mark.parametrize("path", TOOLS)
def test_each_has_its_verdict_and_a_clear_word(gateway: Gateway, upstreams: dict[str, HttpUpstream], path: str) -> None:
    for odd in ODD:
        upstream = upstreams[odd.model]
        if isinstance(odd.answer, list):
            upstream.answer, upstream.content_type = odd.answer, "text/event-stream"
        else:
            text = odd.answer if isinstance(odd.answer, bytes) else json.dumps(odd.answer).encode()
            upstream.answer, upstream.content_type = [text], "application/json"
        answer = place(gateway, path, odd.model, streamed=odd.streamed)
        told = answer.body.decode()
        eventually(lambda: last_hold(gateway)["state"] != "pending")
        hold = last_hold(gateway)
        assert (hold["upstream"], hold["state"]) == (odd.model, "posted" if odd.why == POSTED else "open"), odd
        if odd.why != POSTED:
            assert odd.why in hold["reason"], (odd.name, hold["reason"])
            assert (hold["prompt_tokens"], hold["answer_tokens"]) == (None, None), "what nobody can charge is no count"
        is_native = path == NATIVE[odd.model]
        expected = odd.native if odd.native and is_native else odd.said
        assert expected in told, (odd.name, told)
        if not odd.streamed and odd.said and odd.why != POSTED and "Fine" not in odd.said and not odd.native:
            assert answer.status == 424, (odd.name, told)
        if not is_native:
            assert_taken(path, answer, odd)
            assert ("_tokens" in told.replace("max_output_tokens", "")) == is_usage_told(path, odd, told), odd.name


def is_usage_told(path: str, odd: Odd, told: str) -> bool:
    """Counts are told where they are charged, or told twice; else not at all, or in messages as not known."""
    if odd.why == POSTED or "differs" in odd.why or "and then" in odd.why:
        return True
    is_message = path == "/messages" and ('"message_start"' in told or '"type":"message"' in told)
    assert not is_message or '"is_unknown":true' in told or '"error"' in told
    return is_message


def test_the_list_in_force_when_an_order_was_placed_counts_to_its_end(
    gateway: Gateway, upstreams: dict[str, HttpUpstream]
) -> None:
    """Of a whole answer, of a stream that is translated, and of one by the upstream that was tried next. What is no
    list changes nothing: one with a price below zero, of thirty digits, or without one. The books are exact before the
    change, during it, and after."""
    file, release = gateway.folder / "prices.toml", Event()
    whole = json.dumps(message()).encode()
    says = {"claude": ([whole[:9], whole[9:]], "application/json"), "full": ([b"{}"], "application/json")}
    says |= {"gpt": (CHATS, "text/event-stream"), "azure": (RESPONSES, "text/event-stream")}
    for name, (answer, content_type) in says.items():
        upstreams[name].answer, upstreams[name].content_type = answer, content_type
    upstreams["full"].status = 503
    gateway.audit()

    def order(model: str) -> None:
        path, streamed = ASKED[model]
        assert place(gateway, path, model, streamed=streamed).status == 200

    def cost(model: str) -> Decimal | None:
        """Of its last order, once that has ended."""
        hold_id = last_hold(gateway, model)["id"]
        (told,) = [each["cost_usd"] for each in gateway.orders() if each["hold_id"] == hold_id]
        return None if told is None else Decimal(told)

    def now_costs(model: str, amount: Decimal) -> bool:
        order(model)
        eventually(lambda: cost(model) is not None)
        return cost(model) == amount

    for wrong, word in (("-0.1", "below"), (f"0.{2:030}", "digits"), (None, "missing")):
        text = "".join(PRICES.format(name, wrong) for name in upstreams).replace('prompt = "None"\n', "")
        file.write_text(text)
        eventually(lambda word=word: tells(gateway, word))  # type: ignore[misc]
    running = [model for model in ASKED if model != "azure"]
    with ThreadPoolExecutor(len(running)) as threads:
        upstreams["claude"].waits = upstreams["gpt"].waits = upstreams["full"].thinks = release
        futures = [threads.submit(order, model) for model in running]
        eventually(lambda: [each["what"] for each in gateway.orders()[-3:]] == ["held"] * 3)
        file.write_text("".join(PRICES.format(name, DEAR) for name in upstreams))
        eventually(lambda: now_costs("azure", Decimal(DEAR) * 30 + REST))
        gateway.audit()
        release.set()
        for future in futures:
            future.result(timeout=20)
    old = Decimal("0.00002")
    eventually(lambda: None not in [cost(model) for model in running])
    assert [cost(model) for model in running] == [old * 25 + REST, old * 30 + REST, old * 30 + REST]
    assert (last_hold(gateway)["upstream"], len(upstreams["full"].orders)) == ("azure", 1)
    gateway.audit()
    assert now_costs("claude", Decimal(DEAR) * 25 + REST)
    assert now_costs("gpt", Decimal(DEAR) * 30 + REST)


ASKED = {
    "claude": ("/messages", False),
    "gpt": ("/responses", True),
    "either": ("/chat/completions", True),
    "azure": ("/responses", True),
}
"""How each model is asked for: as its host speaks, translated, and at whichever upstream has room."""

DEAR = "0.00003"
REST = Decimal("0.000002") * 10 + Decimal("0.00007") * 20


def tells(gateway: Gateway, word: str) -> bool:
    lines = [line for line in gateway.log.read_text().splitlines() if "the price file changes nothing" in line]
    return any(word in line for line in lines)


def test_two_upstreams_of_one_name_are_a_sentence_at_start(tmp_path: Path) -> None:
    one = FILE.format(**{name: f"http://127.0.0.1:{port}/v1" for port, name in enumerate((*NATIVE, "full"), 1)})
    (tmp_path / "farebox.toml").write_text(one + one)
    done = Gateway(tmp_path).run("upstream", "list")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "farebox.toml" in done.stderr
    assert "gpt" in done.stderr
