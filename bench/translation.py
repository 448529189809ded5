"""`python -m bench.translation`: what it costs to have several upstreams, and to translate. Slices of two kinds of
order take turns, so that the machine's good and bad moments meet both.

- One Farebox before the only upstream there is, of OpenRouter's kind; one before that upstream declared three times,
  the second and third to be tried where the first fails; and one before three hosts that tell no cost, each in a format
  of its own. The same order goes to the first, and to either of the others.
- Orders in each format go to each of the hosts: in its own format, and translated.

The hosts answer as OpenAI and Anthropic do (the simulator's shapes), in 29 words, an event each; the other upstream as
OpenRouter does, in as many words.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import uvloop

from bench.compare import trimmed_mean
from bench.load import Callers, Target
from bench.peers import BACKLOG, FixedUpstream, whole_reply
from bench.processes import ENVIRONMENT, LOAD_CORE, cpu_seconds, free_port, on_core, process, scratch
from bench.servers import Farebox, started
from farebox.simulator import anthropic_messages, openai_chat, openai_responses, talk
from farebox.simulator.faults import Faults
from farebox.simulator.openai import MODELS

NATIVES: Mapping[str, tuple[str, ModuleType]] = {
    "chat": ("openai", openai_chat),
    "responses": ("openai", openai_responses),
    "messages": ("anthropic", anthropic_messages),
}
"""By the format that a host speaks: its kind, and how it answers."""

PATHS = {"chat": "chat/completions", "responses": "responses", "messages": "messages"}
WORDS = 29
ASKED = "Say twenty-nine words about the exact fare of a ride."


def _host(native: str) -> type[FixedUpstream]:
    _, wire = NATIVES[native]
    turns = (talk.Turn("user", (ASKED,)),)
    asked = talk.Talk(("gpt-sim",), turns, wants_usage=True)
    said, faults = talk.answer(asked, MODELS["gpt-sim"], Faults(tokens=WORDS)), Faults()
    listed = json.dumps({"data": [{"id": "m"}], "has_more": False}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    parts: dict[str, object] = {
        "models": whole_reply(b"application/json", listed),
        "whole": whole_reply(b"application/json", wire.whole(said, "id-1", faults)),
        "stream_head": head,
        "events": [each + b"\n\n" for each in wire.events(said, "id-1", faults)],
    }
    return type(f"Host_{native}", (FixedUpstream,), parts)


async def _serve(ports: list[int]) -> None:
    """The hosts, and last the upstream of OpenRouter's kind."""
    loop = asyncio.get_running_loop()
    for upstream, port in zip([*map(_host, NATIVES), FixedUpstream], ports, strict=True):
        await loop.create_server(upstream, "127.0.0.1", port, backlog=BACKLOG)
    await loop.create_future()


@dataclass(frozen=True, slots=True)
class Order(Target):
    """A load of orders in one format, of a model of the host of another, or of OpenRouter's."""

    wire: str = "chat"
    model: str = "sim/echo"
    pid: int = 0
    """Of the Farebox that serves it."""

    def request(self, number: int, *, streamed: bool) -> bytes:
        body: dict[str, object] = {"model": self.model, "stream": streamed}
        cap = {"responses": "max_output_tokens", "messages": "max_tokens", "chat": "max_completion_tokens"}
        body[cap[self.wire]] = 100
        said = [{"role": "user", "content": ASKED}]
        body |= {"input": said, "store": False} if self.wire == "responses" else {"messages": said}
        if self.wire == "chat" and streamed:
            body["stream_options"] = {"include_usage": True}
        text = json.dumps(body, separators=(",", ":")).encode()
        lines = [
            f"POST /api/v1/{PATHS[self.wire]} HTTP/1.1",
            "host: 127.0.0.1",
            f"authorization: Bearer {self.keys[0]}",
            "content-type: application/json",
            "accept: */*",
            f"content-length: {len(text)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + text


@contextmanager
def _gateway(folder: Path, name: str, blocks: list[str], **settings: str) -> Iterator[Order]:
    """A Farebox before these upstreams, and the order at it that is most plain."""
    own = folder / name
    own.mkdir()
    config = own / "farebox.toml"
    config.write_text("".join(blocks))
    ours = Farebox(settings={"FAREBOX_CONFIG": str(config), "HOST_KEY": "k", **settings})
    port, books = free_port(), f"sqlite:///{own}/books.db"
    keys = ours.new_books(own, books)
    told = {**ours.environment, "FAREBOX_DATABASE_URL": books, "FAREBOX_PORT": str(port)}
    with started("Farebox", ours.command, own, Target(port, keys), books, **told) as server:
        yield Order(port, keys, pid=server.pid)


@contextmanager
def standing(folder: Path) -> Iterator[tuple[Order, Order, Callable[[str, str], Order]]]:
    """Orders at the only upstream, at the first of three like it, and, by its format and its host's, at one of three
    hosts."""
    *ports, openrouter = (free_port() for _ in (*NATIVES, "openrouter"))
    command = [sys.executable, "-m", "bench.translation", "--hosts", *map(str, (*ports, openrouter))]
    url = f"http://127.0.0.1:{openrouter}/api/v1"
    alike = [
        f'[upstreams.{name}]\nkind = "openrouter"\nbase_url = "{url}"\nkey_variable = "HOST_KEY"\norder = {order}\n'
        for order, name in enumerate(("first", "second", "third"))
    ]
    hosts = [
        f'[upstreams.{native}]\nkind = "{kind}"\nbase_url = "http://127.0.0.1:{port}/v1"\nprices = "free"\n'
        f'formats = ["{native}"]\nkey_variable = "HOST_KEY"\nnames = {{ "{native}/*" = "*" }}\n'
        for (native, (kind, _)), port in zip(NATIVES.items(), ports, strict=True)
    ]
    with ExitStack() as stack:
        stack.enter_context(process(command, openrouter, folder, LOAD_CORE, **ENVIRONMENT))
        only = stack.enter_context(_gateway(folder, "only", [], FAREBOX_UPSTREAM_URL=url))
        first = stack.enter_context(_gateway(folder, "several", alike))
        at_host = stack.enter_context(_gateway(folder, "hosts", hosts))
        yield only, first, lambda wire, native: replace(at_host, wire=wire, model=f"{native}/m")


async def _events(order: Order) -> int:
    """How many events a stream of it has, by asking once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", order.port)
    writer.write(order.request(0, streamed=True))
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        data = await reader.read(65536)
        assert data, got
        got += data
    writer.close()
    assert got.startswith(b"HTTP/1.1 200"), got
    return got.count(b"data: ")


SEVERAL = "| an order at | | the only one us | there us | more us | slices |\n|---|---|---|---|---|---|"
TRANSLATED = (
    "| order in | host speaks | | own us | translated us | more us | an event us | slices |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What an order costs, and another; by how much the second costs more, with its standard error. Microseconds."""

    means: tuple[float, float]
    more: float
    error: float


async def _compare(orders: tuple[Order, Order], pairs: int, *, streamed: bool) -> Compared:
    requests, connections = (150, 75) if streamed else (400, 64)
    sides = []
    for order in orders:
        told = replace(order, stream_events=await _events(order)) if streamed else order
        side = await Callers.connect(told, connections, streamed=streamed)
        await side.run(requests=2 * requests)
        sides.append(side)
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            pid = orders[which].pid
            before = cpu_seconds(pid)
            result = await sides[which].run(requests=requests)
            assert not result.failures, result
            taken[which].append((cpu_seconds(pid) - before) / requests * 1e6)
    for side in sides:
        side.close()
    more, error = trimmed_mean([after - before for before, after in zip(*taken, strict=True)])
    return Compared((trimmed_mean(taken[0])[0], trimmed_mean(taken[1])[0]), more, error)


def _measure(orders: tuple[Order, Order], pairs: int, load: str, *named: str, events: bool = False) -> None:
    """Print a row; with `events` a column has what an event's share is."""
    streamed = load == "streamed"
    found = uvloop.run(_compare(orders, pairs, streamed=streamed))
    what = f"streams of {WORDS} words" if streamed else "whole"
    per_event = [f"{found.more / WORDS:.1f}" if streamed else ""] if events else []
    means = [f"{each:,.0f}" for each in found.means]
    cells = [*named, what, *means, f"{found.more:.0f} ± {found.error:.0f}", *per_event, str(pairs)]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.translation", description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--loads", nargs="*", choices=["whole", "streamed"], default=["whole", "streamed"])
    parser.add_argument("--hosts", nargs="*", type=int, default=[], help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.hosts:
        uvloop.run(_serve(told.hosts))
        return
    with scratch() as folder, on_core(LOAD_CORE), standing(folder) as (only, first, at_host):
        print(SEVERAL, flush=True)
        for where, other in (("the first of three like it", first), ("one of three hosts", at_host("chat", "chat"))):
            for load in told.loads:
                _measure((only, other), told.pairs, load, where)
        print(f"\n{TRANSLATED}", flush=True)
        for native in NATIVES:
            for wire in NATIVES:
                if wire != native:
                    for load in told.loads:
                        pair = at_host(native, native), at_host(wire, native)
                        _measure(pair, told.pairs, load, wire, native, events=True)


if __name__ == "__main__":
    main()
