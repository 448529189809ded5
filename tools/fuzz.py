"""Mutated requests, events, answers, heads and upstreams, by the million: nothing may raise but a refusal, nothing may be lost, and
what an SDK reads when it asks directly, it reads here.

`python -m tools.fuzz --inputs 1000000`. Mutation without coverage guidance: the parsing is msgspec's, in C, where Python's
coverage sees nothing; what is ours are short decisions on what was parsed.
"""

import argparse
import asyncio
import gzip
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy as copy
from decimal import Decimal, InvalidOperation
from itertools import permutations
from typing import Any

from farebox.core.errors import Refusal
from farebox.core.formats import (
    Format,
    Progress,
    chat,
    embeddings,
    images,
    messages,
    rerank,
    responses,
    speech,
    transcriptions,
    videos,
)
from farebox.core.headers import read_request_head
from farebox.core.intake import Order, read_order
from farebox.core.legible import legible_if_needed
from farebox.core.meter import Meter
from farebox.core.money import is_readable_cost
from farebox.core.plans import BUILT_IN
from farebox.core.reading import skip_to_json
from farebox.core.sse import EventSplitter, event_data
from farebox.core.tariffs import Entry, Tariff, Tariffs, TokenPrices
from farebox.core.translate import translation
from farebox.core.usage import KINDS as COUNTED
from farebox.core.usage import Cost
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.simulator import chat as sim_chat
from farebox.simulator import embeddings as sim_embeddings
from farebox.simulator import images as sim_images
from farebox.simulator import messages as sim_messages
from farebox.simulator import rerank as sim_rerank
from farebox.simulator import responses as sim_responses
from farebox.simulator import transcriptions as sim_transcriptions
from farebox.simulator.catalog import page
from farebox.simulator.faults import Faults
from farebox.simulator.models import MODELS
from farebox.simulator.talk import Talk, Turn, answer
from farebox.upstream.openrouter_pages import read_price_list, read_record
from tests import hosts
from tests.wire import Wired

_HELLO = [{"role": "user", "content": "Hello"}]
_PARTS = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
_REASONING = {"reasoning": {"max_tokens": 10_000, "exclude": False}}
_THINKING = {
    "thinking": {"type": "enabled", "budget_tokens": 10_000},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}

REQUESTS: list[tuple[Format, bytes]] = [
    (chat, json.dumps({"model": "a/b", "messages": _HELLO, "stream": True, "max_tokens": 9, "n": 2}).encode()),
    (chat, json.dumps({"models": ["a/b"], "messages": [{"role": "user", "content": _PARTS}], "tools": []}).encode()),
    (messages, json.dumps({"model": "a/b", "messages": _HELLO, "max_tokens": 9, "fallbacks": []}).encode()),
    (messages, json.dumps({"model": "a/b", "messages": [{"role": "user", "content": _PARTS}], "system": "x"}).encode()),
    (responses, json.dumps({"model": "a/b", "input": "Hello", "max_output_tokens": 9, "store": False}).encode()),
    (responses, json.dumps({"model": "a/b", "input": [{"role": "user", "content": _PARTS}], "prompt": None}).encode()),
    (embeddings, json.dumps({"model": "a/b", "input": ["Hello", "there"]}).encode()),
    (embeddings, json.dumps({"model": "a/b", "input": [[1, 2], [3]]}).encode()),
    (embeddings, json.dumps({"model": "a/b", "input": [1.0, 2]}).encode()),
    (rerank, json.dumps({"model": "a/b", "query": "q", "documents": ["Hello", {"text": "x"}], "top_n": 1.0}).encode()),
    (images, json.dumps({"model": "a/b", "prompt": "Hello", "n": 2.0, "input_references": _PARTS[1:]}).encode()),
    (speech, json.dumps({"model": "a/b", "input": [{"text": "Hello"}], "speed": 1.0}).encode()),
    (transcriptions, json.dumps({"model": "a/b", "input_audio": {"data": "UklGRg==", "format": "wav"}}).encode()),
    (videos, json.dumps({"model": "a/b", "prompt": "Hello", "duration": 4.0, "frame_images": _PARTS[1:]}).encode()),
    (chat, json.dumps({"model": "a/b", "messages": _HELLO, "n": 1.0, **_REASONING, "max_tokens": 32e3}).encode()),
    (messages, json.dumps({"model": "a/b", "messages": _HELLO, **_THINKING, "max_tokens": 32000.0}).encode()),
    (responses, json.dumps({"model": "a/b", "input": "Hello", **_REASONING, "max_output_tokens": 9e3}).encode()),
]

_SAID = answer(Talk(("sim/reasoner",), (Turn("user", ("Hello",)),)), MODELS["sim/reasoner"], Faults())
_EMBED = sim_embeddings.Request(["Hello"], "sim/embedder")
STREAMS: list[tuple[Format, bytes]] = [
    (wire, b"".join(event + b"\n\n" for event in play.events(_SAID, "gen-1", Faults())))
    for wire, play in ((chat, sim_chat), (messages, sim_messages), (responses, sim_responses))
]
_RANK = sim_rerank.Request("sim/reranker", "q", ["Hello", "there"])
_RANKED = sim_rerank.make(_RANK, MODELS["sim/reranker"], Faults())
_PAINT = sim_images.Request("sim/illustrator", "Hello", 2)
_PAINTED = sim_images.make(_PAINT, MODELS["sim/illustrator"], Faults())
_HEAR = sim_transcriptions.Request("sim/scribe", sim_transcriptions.Audio("UklGRg==", "wav"), "verbose_json")
_HEARD = sim_transcriptions.make(_HEAR, MODELS["sim/scribe"], Faults())
STREAMS.append((images, b"".join(event + b"\n\n" for event in sim_images.events(_PAINTED, "", Faults()))))
_VECTORS = sim_embeddings.embed(_EMBED, MODELS["sim/embedder"])
ANSWERS: list[tuple[Format, bytes, str]] = [
    (chat, sim_chat.whole(_SAID, "gen-1", Faults()), "choices"),
    (messages, sim_messages.whole(_SAID, "gen-1", Faults()), "content"),
    (responses, sim_responses.whole(_SAID, "gen-1", Faults()), "output"),
    (embeddings, sim_embeddings.whole(_EMBED, _VECTORS, "gen-1", Faults()), "data"),
    (rerank, sim_rerank.whole(_RANK, _RANKED, "gen-1", Faults()), "results"),
    (images, sim_images.whole(_PAINT, _PAINTED, "gen-1", Faults()), "data"),
    (transcriptions, sim_transcriptions.whole(_HEAR, _HEARD, "gen-1", Faults()), "text"),
]
"""With the member without which it is none."""

TOKENS = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"0.1", b'"', b"{", b"}", b"[", b"]", b"[]", b"{}", b",", b":", b"\\u0000",
    b"\xff", b"\r", b"\n", b"\n\n", b"\r\n\r\n", b"data: ", b"event: ", b": ", b"[DONE]", b"retry: 1", b'"cost":', b'"usage":',
    b'"error":', b'"type":', b"9" * 400, b"[" * 3000, b'"response":', b'"sequence_number":', b'"id":null',
)  # fmt: skip


ODD = (
    rb'"\ud83d"', rb'"\ude00 x"', rb'"\ud83d\ude00"', rb'"a \ud83d"', b'"\xff\xfe"', b'"a\tb"', b"NaN", b"-Infinity", b'"0.0001"',
    b"1.0", b"4096.0", b"1e3", b"6000.5", b"null",
)  # fmt: skip
"""Values that JSON's own readers take and strict ones do not, numbers as floats, a number as a text."""
UNPAIRED = (
    b'"thinking":{"type":"enabled","budget_tokens":9000}', b'"reasoning":{"max_tokens":9000.0}', b'"max_tokens":8.0', b'"n":1.0',
    b'"max_output_tokens":1e3', b'"tool_calls":[{"id":"a"},{"index":null}]', b'"index":null', b'"usage":{"cost":0.0002}',
    b'"error":{"code":502,"message":"m"}', rb'"\ud83d":1', b'"\xff":1',
)  # fmt: skip
"""Members that are bound to another one, or stand where none of them does."""

_VALUE = re.compile(rb'(?<=[:,\[])\s*(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|null|true|false)(?=\s*[,\]}])')
_OBJECT = re.compile(rb'\{(?=\s*")')


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """The seed with a few bytes changed, cut, doubled, or a token put in; or still JSON, with values that are odd."""
    if chance.random() < 0.4:
        return odd(seed, chance)
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(TOKENS)
            case 1:
                del data[at : at + chance.choice((1, 1, 4, 40))]
            case 2:
                data[at : at + 1] = bytes((chance.randrange(256),))
            case 3:
                data[at:at] = data[at : at + chance.choice((1, 20, 200))]
            case _:
                end = at + chance.choice((1, 4, 20))
                data[at:end] = chance.choice(TOKENS)
    return bytes(data)


def odd(seed: bytes, chance: random.Random) -> bytes:
    """The seed with some values replaced, and members put in."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        values, objects = list(_VALUE.finditer(seed)), list(_OBJECT.finditer(seed))
        if objects and chance.random() < 0.3:
            at = chance.choice(objects).end()
            seed = seed[:at] + chance.choice(UNPAIRED) + b"," + seed[at:]
        elif values:
            found = chance.choice(values)
            seed = seed[: found.start()] + chance.choice(ODD) + seed[found.end() :]
    return seed


def _number(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("Infinity")


_ELSEWHERE = json.JSONDecoder(strict=False, parse_float=_number, parse_int=_number)


def read_elsewhere(text: bytes | None) -> dict[str, Any] | None:
    """The object that an SDK reads there when it asks directly; None where it reads none."""
    try:
        read = _ELSEWHERE.decode((text or b"").removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def assert_cost_is_read(usage: object, cost: object) -> None:
    """A cost that stands there is the one that counts, whatever stands around it."""
    if not isinstance(usage, dict) or usage.get("is_byok") not in (None, False):
        return
    told = usage.get("cost")
    if isinstance(told, Decimal) and is_readable_cost(told):
        assert cost == Cost(told), (usage, cost)


_BOUND = {"max_tokens", "max_completion_tokens", "max_output_tokens", "thinking", "reasoning"}
"""Members of an order that a cap may change."""


def fuzz_request(chance: random.Random) -> None:
    wire, seed = chance.choice(REQUESTS)
    body = mutated(seed, chance)
    known = read_elsewhere(body)
    order = _order(wire, body, chance)
    if isinstance(order, Refusal):
        json.loads(wire.refusal_body(order))
        assert known is None or "is not JSON" not in order.message, order
        return
    asked = order.asked
    assert known is not None
    assert asked.models
    assert all(asked.models)
    assert 0 <= asked.prompt_bytes <= 3 * len(body) + 1000
    if order.body is not body:
        assert wire.read(legible_if_needed(order.body)).answer_tokens == order.answer_tokens
        after = read_elsewhere(order.body)
        assert after is not None
        assert repr(without(after, _BOUND)) == repr(without(known, _BOUND))


def _order(wire: Format, body: bytes, chance: random.Random) -> Order | Refusal:
    try:
        return read_order(body, wire, BUILT_IN[chance.choice(("paying", "free"))])
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        return refusal


_PRICED = Tariffs([Entry(upstream="u", model="m", prices=TokenPrices(**dict.fromkeys(COUNTED, Decimal("0.000001"))))])
_FOUND = _PRICED.find("u", "m", 1)
assert _FOUND is not None
TARIFF: Tariff = _FOUND


def without(members: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


def fuzz_stream(chance: random.Random) -> None:
    wire, seed = chance.choice(STREAMS)
    stream = mutated(seed, chance)
    progress = Progress(chance.choice(("", "gen-1")), "a/b", 1, chance.choice(("", "OpenAI/JS 1")))
    meter, splitter, events = Meter(wire, progress), EventSplitter(), list[bytes]()
    priced = Meter(wire, copy(progress), TARIFF)
    sent = also_sent = b""
    at = 0
    while at < len(stream):
        size = chance.choice((1, 7, 100, 10_000))
        piece = stream[at : at + size]
        at += size
        events += splitter.feed(piece)
        sent += meter.feed(piece)
        also_sent += priced.feed(piece)
    assert b"".join(events) + splitter.rest() == stream
    sent += meter.finish()
    meter.verdict("no cost")
    assert also_sent + priced.finish() == sent, "a tariff changed what goes on"
    assert_charged_for_what_was_used(priced)
    assert wire.error_event(Refusal(424, "server", "x"), meter.progress).endswith(b"\n\n")
    again = Progress("gen-1", "a/b", 1, progress.client)
    for event in events:
        assert_event_is_read(wire, event, again)


def assert_charged_for_what_was_used(meter: Meter) -> None:
    verdict, kept = meter.verdict("no cost"), meter.priced
    assert kept is not None
    if isinstance(verdict, Cost):
        assert kept.usage is not None
        assert verdict == TARIFF.cost(kept.usage)
        assert is_readable_cost(verdict.amount)


def assert_event_is_read(wire: Format, event: bytes, progress: Progress) -> None:
    """What an SDK reads of an event when it asks directly is read of what goes on in its place."""
    seen = wire.see_event(event, progress)
    sent = event if seen.repaired is None else seen.repaired
    told = read_elsewhere(event_data(event))
    if told is None:
        return
    name, response = told.get("type"), told.get("response")
    if wire is not responses:
        assert_cost_is_read(told.get("usage") if name != "message_start" else None, seen.cost)
    elif name in ("response.completed", "response.failed", "response.incomplete", "error"):
        within = response.get("usage") if isinstance(response, dict) else None
        assert_cost_is_read(told.get("usage") if within is None else within, seen.cost)
    if sent == event or sent.startswith(b":"):
        return
    after = read_elsewhere(event_data(sent))
    assert after is not None, sent
    if told.get("error") is None and name != "response.error":
        assert repr(_said(wire, after)) == repr(_said(wire, told)), (event, sent)


def _said(wire: Format, event: dict[str, Any]) -> object:
    """What an event says, as far as no mend may touch it."""
    if wire is not chat:
        return event.get("delta")
    choices = event.get("choices")
    deltas = [each.get("delta") for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    return [each.get("content") if isinstance(each, dict) else None for each in deltas]


ASKED = (
    b'{"model":"a/b","input":"Hi","temperature":0.5,"text":{"format":{"type":"json_schema","name":"n","schema":{}}},'
    b'"tools":[{"type":"function","name":"f"}],"tool_choice":"auto","reasoning":{"effort":"low"},"metadata":{"a":"b"}}'
)
"""An order, as far as answers repeat it."""


def fuzz_answer(chance: random.Random) -> None:
    wire, seed, essential = chance.choice(ANSWERS)
    body = mutated(seed, chance)
    see_echoing, asked = wire.DESCRIBED.see_echoing, chance.choice((b"", ASKED, mutated(ASKED, chance)))
    during = [Progress("", "a/b", 1, asked=asked) for _ in range(2)]
    seen = wire.see_answer(body) if see_echoing is None else see_echoing(body, during[0])
    priced = Meter(wire, during[1], TARIFF)
    assert priced.read_answer(body)[0] == (body if seen.repaired is None else seen.repaired)
    assert_charged_for_what_was_used(priced)
    told = read_elsewhere(skip_to_json(body))
    if told is not None:
        assert (seen.failure is None) == (essential in told)
        assert_cost_is_read(told.get("usage"), seen.cost)
    if seen.repaired is not None:
        after = read_elsewhere(seen.repaired)
        assert told is not None
        assert after is not None
        if wire is responses:
            assert_kept(told[essential], after[essential])
        else:
            assert wire in (chat, embeddings, images, rerank) or repr(after[essential]) == repr(told[essential])
    wire.typed_refusal(chance.choice((400, 429, 500)), body)
    read_record(body)


def assert_kept(told: Any, after: Any) -> None:
    """All that was said still stands there; a null said nothing."""
    if isinstance(told, dict) and isinstance(after, dict):
        for name, value in told.items():
            if value is not None:
                assert_kept(value, after[name])
    elif isinstance(told, list) and isinstance(after, list):
        for each, still in zip(told, after, strict=True):
            assert_kept(each, still)
    elif told is not None:
        assert repr(told) == repr(after)


_PAIRS = [
    (source, native, translation(source, native)) for source, native in permutations((chat, messages, responses), 2)
]
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1.50}'}}
_TALK = {
    "model": "a/b",
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": _PARTS},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": "auto",
    "reasoning_effort": "low",
    "max_tokens": 9,
}
_SAID_BY_HOSTS: hosts.Said = [hosts.Thought("So."), hosts.Words("Hello"), hosts.Called("c", "f", {"a": [1, {}]})]


def fuzz_translation(chance: random.Random) -> None:
    """Orders, answers and streams between formats: what a format reads is translated or refused, a stream is the same
    however it is cut, and what comes out is JSON."""
    source, native, found = chance.choice(_PAIRS)
    assert found is not None
    body = json.dumps(_TALK).encode()
    if source is not chat:
        made = translation(chat, source)
        assert made is not None
        body, _ = made.order(body)
    try:
        order = read_order(mutated(body, chance), source, BUILT_IN["paying"])
        native.read(legible_if_needed(found.order(order.body)[0]))
    except Refusal as refusal:
        if refusal.status != 400:
            raise
    try:
        source.see_answer(found.answer(mutated(hosts.whole(native, _SAID_BY_HOSTS), chance), created=1))
    except Refusal as refusal:
        if refusal.status != 424:
            raise
    found.refusal(400, mutated(hosts.whole(native, _SAID_BY_HOSTS), chance))
    told = mutated(b"".join(hosts.stream(native, _SAID_BY_HOSTS)), chance)
    whole, cut = found.stream(Progress("", "a/b", 1)), found.stream(Progress("", "a/b", 1))
    at_once = whole.feed(told) + whole.finish()
    size = chance.choice((1, 7, 100))
    assert b"".join([cut.feed(told[at : at + size]) for at in range(0, len(told), size)]) + cut.finish() == at_once
    for event in EventSplitter().feed(at_once):
        data = event_data(event)
        assert data is None or data == b"[DONE]" or read_elsewhere(data) is not None, event


_HEAD = [
    (b"authorization", b"Bearer sk-fb-x"), (b"x-api-key", b"sk-fb-y"), (b"user-agent", b"OpenAI/JS 7"),
    (b"idempotency-key", b"k"), (b"content-type", b"application/json; charset=utf-8"), (b"content-encoding", b"gzip"),
    (b"x-openrouter-title", b"t"), (b"cookie", b""), (b"x-title", b"t"),
]  # fmt: skip


def fuzz_head(chance: random.Random) -> None:
    head = read_request_head([(name, mutated(value, chance)) for name, value in _HEAD if chance.random() < 0.8])
    assert len(head.tokens) <= 2
    assert all(token and token == token.strip(" ") for token in head.tokens)
    assert set(head.forwarded) <= {"x-openrouter-title", "x-title"}


_PRICES = page("/models", {"output_modalities": "all"})


def fuzz_prices(chance: random.Random) -> None:
    try:
        listed = read_price_list(mutated(_PRICES, chance))
    except ValueError:
        return
    assert all(rates.prompt >= 0 and rates.answer >= 0 for rates in listed.rates.values())


_JSON = b'{"a":1}'
_COUNTED = b"Content-Length: 7\r\n\r\n" + _JSON
_PACKED = gzip.compress(_JSON)
UPSTREAM_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nX-Generation-Id: gen-1\r\nContent-Type: application/json\r\n" + _COUNTED,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n"
    + _JSON[:3]
    + b"\r\n4\r\n"
    + _JSON[3:]
    + b"\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\n" + _COUNTED,
    b"HTTP/1.1 429 Slow Down\r\nRetry-After: 9\r\nConnection: close\r\n" + _COUNTED,
    b"HTTP/1.0 200 OK\r\n\r\n" + _JSON,
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(_PACKED), _PACKED),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
)
FRAMING = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"0\r\n\r\n", b"7\r\n", b"-1", b"ffffffffffffffff", b"99999999999999999999",
    b"Content-Length: 7\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Content-Encoding: br\r\n",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 A\r\n\r\n", b"HTTP/1.1 100 A\r\n\r\n", b"HTTP/2.0", b"HTTP/0.9", b"x: y\r\n" * 130, b"\x1f\x8b",
)  # fmt: skip


def fuzz_upstream(chance: random.Random) -> None:
    answer = mutated(chance.choice(UPSTREAM_ANSWERS), chance)
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(answer) + 1)
        answer = answer[:at] + chance.choice(FRAMING) + answer[at + chance.choice((0, 0, 2)) :]
    pieces: list[bytes] = []
    at = 0
    while at < len(answer):
        size = chance.choice((1, 2, 7, 100))
        pieces.append(answer[at : at + size])
        at += size
    asyncio.run(assert_cut_is_whole(answer, pieces))


async def assert_cut_is_whole(answer: bytes, pieces: list[bytes]) -> None:
    """What is read of an answer, and whether its connection serves another order, is the same however it is cut."""
    whole, kept = await read_on_wire([answer])
    cut, kept_too = await read_on_wire(pieces)
    assert whole == cut, (answer, whole, cut)
    # Empty lines behind an answer are nothing to the parser; to a connection that is idle by then they are too much.
    assert kept == kept_too or (kept and answer.endswith((b"\r", b"\n"))), answer


async def read_on_wire(pieces: list[bytes]) -> tuple[tuple[object, ...] | None, bool]:
    wired = Wired()
    wired.pool.idle[wired.connection] = None
    order = wired.order()
    await asyncio.sleep(0)
    wired.reads(*pieces)
    is_kept = wired.is_idle()
    if not is_kept:
        wired.ends()
    try:
        reply = await order
        read = reply.status, reply.content_type, reply.headers, reply.generation_id, await reply.read()
    except (UpstreamBroke, UpstreamUnreachable):
        return None, is_kept
    finally:
        await wired.pool.close()
    assert not any(byte in value for _, value in reply.headers for byte in b"\r\n"), reply.headers
    return read, is_kept


KINDS: dict[str, tuple[Callable[[random.Random], None], int]] = {
    "requests": (fuzz_request, 35),
    "streams": (fuzz_stream, 22),
    "answers": (fuzz_answer, 20),
    "heads": (fuzz_head, 7),
    "translations": (fuzz_translation, 10),
    "upstreams": (fuzz_upstream, 5),
    "price lists": (fuzz_prices, 1),
}


def run(inputs: int, seed: int) -> Counter[str]:
    """Try so many inputs; gives how many of each kind. Raises whatever was found, its seed in a note."""
    names = list(KINDS)
    weights = [weight for _, weight in KINDS.values()]
    counts: Counter[str] = Counter()
    draw = random.Random(seed)  # noqa: S311
    for number in range(inputs):
        (kind,) = draw.choices(names, weights)
        try:
            KINDS[kind][0](random.Random(f"{seed}-{number}"))  # noqa: S311
        except Exception as error:
            error.add_note(f"kind {kind!r}, seed {seed}-{number}")
            raise
        counts[kind] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    asked = parser.parse_args()
    counts = run(asked.inputs, asked.seed)
    print(f"seed {asked.seed}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}; nothing raised")


if __name__ == "__main__":
    main()
