"""`python -m bench.parts`: what each part of an order's way costs. A server with one part taken out stands beside a
whole one, and both take slices of the load in turn; what is saved is the part's.

A part that is out is replaced by its own first result, so that what comes after it runs as it did. The books of such a
server are no books. What several parts save together is more than their sum: the caches have less to hold.
"""

import argparse
import asyncio
import gc
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvloop

from bench.compare import LOADS, Load, Side, trimmed_mean
from bench.load import Callers
from bench.processes import LOAD_CORE, on_core, scratch
from bench.servers import Farebox, Upstream, upstreams

SIDES_AT_ONCE = 6
"""Servers that stand at once: each is some 70 MB."""


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's first result, for ever."""
    results: list[Any] = []

    def first(*arguments: Any, **named: Any) -> Any:
        if not results:
            results.append(function(*arguments, **named))
        return results[0]

    return first


def _async_once(function: Callable[..., Any]) -> Callable[..., Any]:
    results: list[Any] = []

    async def first(*arguments: Any, **named: Any) -> Any:
        if not results:
            results.append(await function(*arguments, **named))
        return results[0]

    return first


def _put(owner: object, **parts: Any) -> None:
    for name, part in parts.items():
        setattr(owner, name, part)


def _no_upstream() -> None:
    from farebox.upstream.pool import Connections
    from farebox.upstream.replies import HttpReply

    ask = Connections.post
    kept: list[HttpReply] = []

    class Ready(HttpReply):
        is_complete = True

        def __init__(self, reply: HttpReply, body: bytes) -> None:
            for name in HttpReply.__slots__:
                setattr(self, name, getattr(reply, name))
            self._body = body

        async def chunk(self) -> bytes:
            raise AssertionError

        async def read(self) -> bytes:
            return self._body

        def close(self) -> None: ...

    async def post(self: Connections, path: str, body: bytes, headers: Any, *, streamed: bool) -> HttpReply:
        if not kept:
            reply = await ask(self, path, body, headers, streamed=streamed)
            kept.append(Ready(reply, await reply.read()))
        return kept[0]

    _put(Connections, post=post)


def _no_commit() -> None:
    from contextlib import contextmanager

    from farebox.store.pages import Pages
    from farebox.store.sqlite import Sqlite

    @contextmanager
    def transaction(self: Sqlite, db: Any) -> Any:
        yield db

    _put(Sqlite, transaction=transaction, version=lambda self, db: 1)
    _put(Pages, _write=lambda self, db, page: None)


def _no_ledger() -> None:
    from decimal import Decimal

    from farebox.core.books import Done, Fare, Held, PlaceHold, Settle, Settled
    from farebox.store.books import SqlStore

    held, settled, done = Held(1_000_000), Settled("posted", Fare(Decimal("0.0000192"), 2, 20_000)), Done()

    async def carry_out(self: SqlStore, command: Any) -> Any:
        # As the real one does, it lets others run before it answers.
        await asyncio.sleep(0)
        return held if isinstance(command, PlaceHold) else settled if isinstance(command, Settle) else done

    _put(SqlStore, carry_out=carry_out)


def _no_telemetry() -> None:
    from farebox.telemetry.watch import Watch

    _put(Watch, saw=lambda self, passage: None)


def _no_log() -> None:
    from farebox.telemetry import watch

    _put(watch, log_orders=lambda passages: None)


def _no_reading() -> None:
    from farebox import exchange
    from farebox.core.intake import read_order

    _put(exchange, read_order=_once(read_order))


def _no_ceiling() -> None:
    from farebox import exchange
    from farebox.core.pricing import ceiling

    _put(exchange, ceiling=_once(ceiling))


def _no_head() -> None:
    from farebox.core.headers import read_request_head
    from farebox.web import relay

    _put(relay, read_request_head=_once(read_request_head))


def _no_auth() -> None:
    from farebox.identity.keys import KeyCallers

    _put(KeyCallers, identify=_async_once(KeyCallers.identify))


def _no_meter() -> None:
    from farebox.core.formats import chat

    _put(chat, see_answer=_once(chat.see_answer))


def _no_deadlines() -> None:
    from farebox.deadlines import Deadlines

    _put(Deadlines, add=lambda self, wait: None, discard=lambda self, wait: None)


def _no_fsync() -> None:
    from farebox.store import sqlite

    _put(sqlite, PRAGMAS=tuple(each.replace("FULL", "OFF") for each in sqlite.PRAGMAS))


PARTS: dict[str, Callable[[], None]] = {
    "the upstream": _no_upstream,
    "the ledger": _no_ledger,
    "the commit": _no_commit,
    "metrics and the log": _no_telemetry,
    "the log": _no_log,
    "reading the order": _no_reading,
    "the ceiling": _no_ceiling,
    "the head": _no_head,
    "authentication": _no_auth,
    "metering": _no_meter,
    "deadlines": _no_deadlines,
    "fsync": _no_fsync,
    "the garbage collector": gc.disable,
}
"""What takes each of them out of the process in which it is called."""

TOGETHER = [part for part in PARTS if part not in ("the commit", "the log", "fsync")]
"""Those that are no part of another."""


def serve(parts: list[str]) -> None:
    """`farebox serve` without these parts."""
    from farebox.cli import main as run

    for part in parts:
        PARTS[part]()
    sys.argv = ["farebox", "serve"]
    run()


async def _in_turn(sides: dict[str, Side], load: Load, pairs: int) -> None:
    callers = {}
    for name, side in sides.items():
        callers[name] = await Callers.connect(side.server.target, load.connections, streamed=load.streamed)
        await callers[name].run(requests=4 * load.requests)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs):
        for name in list(sides) if number % 2 else reversed(sides):
            (spent,) = (await sides[name].slice(callers[name], load)).values()
            taken[name].append(spent)
    whole = taken.pop("")
    for name, spents in taken.items():
        saved, error = trimmed_mean([before - after for before, after in zip(whole, spents, strict=True)])
        print(f"| {name} | {trimmed_mean(spents)[0]:.0f} | {saved:.0f} ± {error:.0f} |", flush=True)
    print(f"(whole: {trimmed_mean(whole)[0]:.0f})", flush=True)


def measure(names: list[str], pairs: int) -> None:
    load = LOADS["whole"]
    with scratch() as folder, on_core(LOAD_CORE), upstreams(folder) as (plain, _):
        print("| without | CPU us | saved |\n|---|---|---|", flush=True)
        for since in range(0, len(names), SIDES_AT_ONCE - 1):
            with ExitStack() as stack:

                def side(name: str, upstream: Upstream = plain, stack: ExitStack = stack) -> Side:
                    parts = TOGETHER if name == "all of these" else [name] if name else []
                    command = [sys.executable, "-m", "bench.parts", "--serve", *parts]
                    return Side(stack.enter_context(Farebox(command=command).start(folder, upstream)))

                sides = {name: side(name) for name in ["", *names[since : since + SIDES_AT_ONCE - 1]]}
                uvloop.run(_in_turn(sides, load, pairs))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parts", description=__doc__)
    parser.add_argument("--pairs", type=int, default=30, help="of slices, a part")
    parser.add_argument("--parts", nargs="+", default=[*PARTS, "all of these"], help="which; all where left out")
    parser.add_argument("--serve", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
    else:
        measure(options.parts, options.pairs)


if __name__ == "__main__":
    main()
