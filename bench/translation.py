"""`python -m bench.translation`: what it costs to translate. One Farebox before three hosts that speak one format each;
orders in each format go to each host. Slices of those in the host's own format and of those that are translated take
turns, so that the machine's good and bad moments meet both.

The hosts answer as OpenAI and Anthropic do (the simulator's shapes), in 29 words, an event each.
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
    loop = asyncio.get_running_loop()
    for native, port in zip(NATIVES, ports, strict=True):
        await loop.create_server(_host(native), "127.0.0.1", port, backlog=BACKLOG)
    await loop.create_future()


@dataclass(frozen=True, slots=True)
class Order(Target):
    """A load of orders in one format, to the host of another."""

    wire: str = ""
    native: str = ""

    def request(self, number: int, *, streamed: bool) -> bytes:
        body: dict[str, object] = {"model": f"{self.native}/m", "stream": streamed}
        cap = {"responses": "max_output_tokens", "messages": "max_tokens", "chat": "max_completion_tokens"}
        body[cap[self.wire]] = 100
        said = [{"role": "user", "content": ASKED}]
        body |= {"input": said, "store": False} if self.wire == "responses" else {"messages": said}
        if self.wire == "chat" and streamed:
            body["stream_options"] = {"include_usage": True}
        text = json.dumps(body).encode()
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
def standing(folder: Path) -> Iterator[tuple[int, Callable[[str, str], Order]]]:
    """The gateway's process, and what makes a load for it."""
    ports = [free_port() for _ in NATIVES]
    command = [sys.executable, "-m", "bench.translation", "--hosts", *map(str, ports)]
    with ExitStack() as stack:
        stack.enter_context(process(command, ports[-1], folder, LOAD_CORE, **ENVIRONMENT))
        settings = folder / "farebox.toml"
        blocks = [
            f'[upstreams.{native}]\nkind = "{kind}"\nbase_url = "http://127.0.0.1:{port}/v1"\nprices = "free"\n'
            f'formats = ["{native}"]\nkey_variable = "HOST_KEY"\nnames = {{ "{native}/*" = "*" }}\n'
            for (native, (kind, _)), port in zip(NATIVES.items(), ports, strict=True)
        ]
        settings.write_text("".join(blocks))
        ours = Farebox(settings={"FAREBOX_CONFIG": str(settings), "HOST_KEY": "k"})
        port, books = free_port(), f"sqlite:///{folder}/books.db"
        keys = ours.new_books(folder, books)
        told = {**ours.environment, "FAREBOX_DATABASE_URL": books, "FAREBOX_PORT": str(port)}
        server = stack.enter_context(started("Farebox", ours.command, folder, Target(port, keys), books, **told))
        yield server.pid, lambda wire, native: Order(port, keys, wire=wire, native=native)


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


HEADER = (
    "| order in | host speaks | | own us | translated us | more us | an event us | slices |\n"
    "|---|---|---|---|---|---|---|---|"
)


async def _compare(pid: int, orders: tuple[Order, Order], pairs: int, *, streamed: bool) -> None:
    own, translated = orders
    requests, connections = (150, 75) if streamed else (400, 64)
    events = WORDS
    sides = []
    for order in orders:
        told = replace(order, stream_events=await _events(order)) if streamed else order
        side = await Callers.connect(told, connections, streamed=streamed)
        await side.run(requests=2 * requests)
        sides.append(side)
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            before = cpu_seconds(pid)
            result = await sides[which].run(requests=requests)
            assert not result.failures, result
            taken[which].append((cpu_seconds(pid) - before) / requests * 1e6)
    for side in sides:
        side.close()
    more, error = trimmed_mean([after - before for before, after in zip(*taken, strict=True)])
    means = [f"{trimmed_mean(each)[0]:,.0f}" for each in taken]
    what = f"streams of {events} words" if streamed else "whole"
    per_event = f"{more / events:.1f}" if streamed else ""
    cells = [translated.wire, own.native, what, *means, f"{more:.0f} ± {error:.0f}", per_event, str(pairs)]
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
    with scratch() as folder, on_core(LOAD_CORE), standing(folder) as (pid, order):
        print(HEADER, flush=True)
        for native in NATIVES:
            for wire in NATIVES:
                if wire != native:
                    for load in told.loads:
                        pair = order(native, native), order(wire, native)
                        uvloop.run(_compare(pid, pair, told.pairs, streamed=load == "streamed"))


if __name__ == "__main__":
    main()
