"""Mutated requests, events, answers and heads, by the million: nothing may raise but a refusal, and nothing may be lost.

`python -m tools.fuzz --inputs 1000000`. Mutation without coverage guidance: the parsing is msgspec's, in C, where Python's
coverage sees nothing; what is ours are short decisions on what was parsed.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable

from farebox.core.errors import Refusal
from farebox.core.formats import Format, Progress, chat, embeddings, messages, responses
from farebox.core.headers import read_request_head
from farebox.core.intake import read_order
from farebox.core.meter import Meter
from farebox.core.plans import BUILT_IN
from farebox.core.pricing import read_price_list
from farebox.core.sse import EventSplitter
from farebox.core.usage import read_record
from farebox.upstream.simulator import chat as sim_chat
from farebox.upstream.simulator import embeddings as sim_embeddings
from farebox.upstream.simulator import messages as sim_messages
from farebox.upstream.simulator import responses as sim_responses
from farebox.upstream.simulator.catalog import page
from farebox.upstream.simulator.faults import Faults
from farebox.upstream.simulator.models import MODELS
from farebox.upstream.simulator.talk import Talk, Turn, answer

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
    (chat, json.dumps({"model": "a/b", "messages": _HELLO, "n": 1.0, **_REASONING, "max_tokens": 32e3}).encode()),
    (messages, json.dumps({"model": "a/b", "messages": _HELLO, **_THINKING, "max_tokens": 32000.0}).encode()),
    (responses, json.dumps({"model": "a/b", "input": "Hello", **_REASONING, "max_output_tokens": 9e3}).encode()),
]

_SAID = answer(Talk(("sim/reasoner",), (Turn("user", "Hello"),)), MODELS["sim/reasoner"], Faults())
_EMBED = sim_embeddings.Request(["Hello"], "sim/embedder")
STREAMS: list[tuple[Format, bytes]] = [
    (wire, b"".join(event + b"\n\n" for event in play.events(_SAID, "gen-1", Faults())))
    for wire, play in ((chat, sim_chat), (messages, sim_messages), (responses, sim_responses))
]
ANSWERS: list[tuple[Format, bytes]] = [
    *(
        (w, p.whole(_SAID, "gen-1", Faults()))
        for w, p in ((chat, sim_chat), (messages, sim_messages), (responses, sim_responses))
    ),
    (embeddings, sim_embeddings.whole(_EMBED, sim_embeddings.embed(_EMBED, MODELS["sim/embedder"]), "gen-1", Faults())),
]
TOKENS = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"0.1", b'"', b"{", b"}", b"[", b"]", b"[]", b"{}", b",", b":", b"\\u0000",
    b"\xff", b"\r", b"\n", b"\n\n", b"\r\n\r\n", b"data: ", b"event: ", b": ", b"[DONE]", b"retry: 1", b'"cost":', b'"usage":',
    b'"error":', b'"type":', b"9" * 400, b"[" * 3000, b'"response":', b'"sequence_number":', b'"id":null',
)  # fmt: skip


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """The seed with a few bytes changed, cut, doubled, or a token put in."""
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


def fuzz_request(chance: random.Random) -> None:
    wire, seed = chance.choice(REQUESTS)
    body = mutated(seed, chance)
    try:
        order = read_order(body, wire, BUILT_IN[chance.choice(("paying", "free"))])
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        json.loads(wire.refusal_body(refusal))
        return
    asked = order.asked
    assert asked.models
    assert all(asked.models)
    assert 0 <= asked.prompt_bytes <= len(body) + 1000
    if order.body is not body:
        assert wire.read(order.body).answer_tokens == order.answer_tokens


def fuzz_stream(chance: random.Random) -> None:
    wire, seed = chance.choice(STREAMS)
    stream = mutated(seed, chance)
    meter, splitter = Meter(wire, Progress("", "a/b", 1, chance.choice(("", "OpenAI/JS 1")))), EventSplitter()
    sent, cut = b"", b""
    at = 0
    while at < len(stream):
        size = chance.choice((1, 7, 100, 10_000))
        piece = stream[at : at + size]
        at += size
        cut += b"".join(splitter.feed(piece))
        sent += meter.feed(piece)
    assert cut + splitter.rest() == stream
    sent += meter.finish()
    meter.verdict("no cost")
    assert wire.error_event(Refusal(424, "server", "x"), meter.progress).endswith(b"\n\n")


def fuzz_answer(chance: random.Random) -> None:
    wire, seed = chance.choice(ANSWERS)
    body = mutated(seed, chance)
    seen = wire.see_answer(body)
    if seen.repaired is not None:
        json.loads(seen.repaired.decode("utf-8", "replace"))
    wire.typed_refusal(chance.choice((400, 429, 500)), body)
    read_record(body)


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


KINDS: dict[str, tuple[Callable[[random.Random], None], int]] = {
    "requests": (fuzz_request, 50),
    "streams": (fuzz_stream, 22),
    "answers": (fuzz_answer, 20),
    "heads": (fuzz_head, 7),
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
