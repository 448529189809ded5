"""Farebox under everything at once: callers who hang up, an upstream that breaks, a process that is killed again and again.

With `--nodes` the books are in a PostgreSQL of its own, which is killed, too (`--database-kills`).

`python -m tools.chaos` (or `make chaos`) serves orders in every format, kills the server many times, lets it ask for what
it does not know, and compares its books with those of the simulated upstream, generation by generation.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from farebox.clock import now_us
from farebox.core.audit import audit
from farebox.core.books import HoldRow, Transfer, settlement_id
from farebox.core.formats.table import FORMATS
from farebox.core.money import format_usd
from farebox.core.repeats import order_digest
from farebox.crash import CRASH_VARIABLE
from farebox.store.books import SqlStore
from farebox.store.prepare import engine_of
from tools.chaos_upstreams import Charged, OneSimulator, SeveralUpstreams, World, get
from tools.crash_points import POINTS, arm
from tools.postgres import Cluster, find, free_port

CALLERS = 32
ANSWER_SECONDS = 20.0
START_SECONDS = 120.0
DEATH_SECONDS = 60.0
SETTLED_SECONDS = 120.0

_MINUTE_US = 60_000_000
_KILL = "kill a server"
_DATABASE = "kill the database"

MINUTE_CAP = 20
MONEY_CAP_NANOS = 50_000_000
"""Limits of two keys, each of which gets a tenth of the orders: far more than it allows."""

REPEATED_PART = 0.2
"""How many of the orders are whole ones whose callers repeat them as SDKs do."""

MORE = 30
MORE_MAX = 40
"""How many more orders are sent at a time where those so far are too few to show anything, and how often."""

TRIES = 8
SLOW = ("head-ms=300",) * 20
"""What else may happen to them: most are slow enough to be left."""

REPEATED_STATUSES = (408, 409, 429, 500, 502, 503, 504)
"""What OpenAI's and Anthropic's SDKs repeat."""


@dataclass(slots=True)
class Outcome:
    """How a run ended. No differences: every fare is what the upstream charged, or is open and listed."""

    orders: int = 0
    kills: int = 0
    database_kills: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    repeats: int = 0
    joined: int = 0
    fallbacks: int = 0
    served: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    unresolved: Counter[str] = field(default_factory=Counter)
    peak_per_minute: int = 0
    spent_nanos: int = 0
    above_nanos: int = 0
    differences: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"orders {self.orders}, kills {self.kills}, of the database {self.database_kills}, deaths at points of the"
            f" path {self.deaths.total()}, answered to their end {self.answers}, repeats {self.repeats}, of which"
            f" {self.joined} were handed the first's answer; served by another upstream than the first tried"
            f" {self.fallbacks}{self._by_upstream()}; holds posted {self.states['posted']}, voided"
            f" {self.states['voided']}, open {self.states['open']}, unresolved {self.unresolved.total()}; most in a"
            f" minute {self.peak_per_minute} of {MINUTE_CAP}, spent and held ${format_usd(self.spent_nanos)} of"
            f" ${format_usd(MONEY_CAP_NANOS)}, of that ${format_usd(self.above_nanos)} above holds; differences to the"
            f" upstream's books: {len(self.differences)}"
        )

    def _by_upstream(self) -> str:
        return "".join(f", {count} by {upstream}" for upstream, count in sorted(self.served.items()))


class Server(Protocol):
    """A process that leads a session of its own, as `subprocess.Popen` and tests' forked programs give it."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


Start = Callable[[int, dict[str, str], Path], Server]
"""Starts a server on a port, in an environment; what it prints goes to a file."""


def serve(port: int, environment: dict[str, str], printed: Path) -> Server:
    command = [sys.executable, "-m", "farebox", "serve", "--port", str(port)]
    with printed.open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)  # noqa: S603


class Chaos:
    """One run, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        workers: int,
        seed: int,
        nodes: int = 1,
        cluster: Cluster | None = None,
        start: Start = serve,
        world: World | None = None,
    ) -> None:
        self._folder = folder
        self._world = world or OneSimulator()
        self._serve = start
        self._cluster = cluster
        self._database_url = cluster.new_books() if cluster else f"sqlite:///{folder / 'books.db'}"
        self._workers = workers
        self._random = random.Random(seed)  # noqa: S311 - a run that can be repeated
        self._ports = [free_port() for _ in range(nodes)]
        self._keys: list[tuple[str, int]] = []
        self._servers: dict[int, Server] = {}
        self._until = 0
        self._due = 0
        self._has_killed = False
        self._armed = folder / "crash"
        self._calls: dict[bytes, list[str]] = {}
        self.outcome = Outcome()

    def run(
        self, orders: int, kills: int, deaths: int, database_kills: int = 0, *, posted: int = 0, joined: int = 0
    ) -> Outcome:
        """So many orders; meanwhile a server is killed, and processes come to their deaths at one point after another.
        Then as many more as it takes, within reason, until so many are posted, and so many repeats were handed the
        first's answer: on a slow machine most may be cut off by the deaths."""
        return self.under(self._load(orders, kills, deaths, database_kills, posted, joined))

    def under(self, load: Coroutine[None, None, None]) -> Outcome:
        """Serve a load, then compare the books."""
        with self._world.running(self._folder) as settings:
            self._environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("FAREBOX_")},
                "FAREBOX_DATABASE_URL": self._database_url,
                **settings,
                "FAREBOX_WORKERS": str(self._workers),
                CRASH_VARIABLE: str(self._armed),
                "FAREBOX_FIRST_BYTE_SECONDS": "5",
                "FAREBOX_NO_DATA_SECONDS": "5",
            }
            self._command("db", "upgrade")
            self._command("account", "create", "chaos", "--plan", "paying", "--prepaid", "100000")
            # Never reached, but counted: the audit holds what counts against them to the ledger in the end.
            self._command("account", "limit", "chaos", "usd_per_month=50000", "orders_at_once=10000")
            self._keys = [
                self._limited_key("usd_total=50000", "tokens_per_minute=1000000000"),
                self._limited_key(f"requests_per_minute={MINUTE_CAP}"),
                self._limited_key(f"usd_total={format_usd(MONEY_CAP_NANOS)}"),
            ]
            try:
                self._start_all()
                asyncio.run(load)
                self._kill_all()
                self._start_all()
                self._await_answers()
            finally:
                self._kill_all()
            self._compare(self._world.charged())
            self._count_fallbacks()
        return self.outcome

    # The server

    def _command(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, "-m", "farebox", *words, "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _limited_key(self, *limits: str) -> tuple[str, int]:
        created = self._command("key", "create", "chaos")
        self._command("key", "limit", created["key"], *limits)
        return created["key"], created["id"]

    def _start_all(self) -> None:
        for port in self._ports:
            self._start(port)

    def _kill_all(self) -> None:
        for port in self._ports:
            self._kill(port)

    def _start(self, port: int) -> None:
        self._servers[port] = self._serve(port, self._environment, self._folder / "serve.log")
        until = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                if b"ready" in get(port, "/readyz"):
                    return
            assert time.monotonic() < until, (self._folder / "serve.log").read_text()[-2000:]
            time.sleep(0.02)

    def _kill(self, port: int) -> None:
        if (server := self._servers.pop(port, None)) is not None:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            _until_free(port)

    def _crash_database(self) -> None:
        """As when its machine loses power; and again some orders later."""
        assert self._cluster is not None
        self._cluster.stop(signal.SIGQUIT)
        time.sleep(self._random.random())
        self._cluster.start(is_durable=True)
        self.outcome.database_kills += 1

    # The load

    async def _load(self, orders: int, kills: int, deaths: int, database_kills: int, posted: int, joined: int) -> None:
        self._until = orders
        callers = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        ends = [_KILL] * kills + [_DATABASE] * database_kills
        ends += [POINTS[number % len(POINTS)] for number in range(deaths)]
        self._random.shuffle(ends)
        for number, point in enumerate(ends):
            # Between two of them a part of the orders, however long they take.
            await self._until_due(orders * (number + 1) // (len(ends) + 1))
            print(f"{self.outcome.orders} orders; {number + 1} of {len(ends)}: {point}", flush=True)
            if point == _KILL:
                await asyncio.sleep(self._random.random() * 0.05)
                port = self._random.choice(self._ports)
                self._kill(port)
                self.outcome.kills += 1
                await asyncio.to_thread(self._start, port)
            elif point == _DATABASE:
                await asyncio.to_thread(self._crash_database)
            else:
                await self._die_at(point)
        await self._until_due(orders)
        for _ in range(MORE_MAX):
            if self.outcome.joined >= joined and (not posted or await asyncio.to_thread(self._posted) >= posted):
                break
            await self._until_due(self.outcome.orders + MORE)
        self._has_killed = True
        await asyncio.gather(*callers)

    async def _until_due(self, orders: int) -> None:
        """Let callers go on until so many orders were sent."""
        self._due = orders
        while self.outcome.orders < self._due:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.005)

    async def _die_at(self, point: str) -> None:
        """Let a process die at a point. One of several is replaced, and the others take over what it leaves; a single
        one is started again."""
        arm(self._armed, point)
        until = time.monotonic() + DEATH_SECONDS
        while self._armed.exists():
            if time.monotonic() > until:
                self._armed.unlink(missing_ok=True)
                return
            # It comes with some load, and not before a heap of questions.
            self._due = max(self._due, self.outcome.orders) + 1
            await asyncio.sleep(0.005)
        self.outcome.deaths[point] += 1
        if self._workers == 1:
            while not (dead := [port for port, server in self._servers.items() if server.poll() is not None]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for port in dead:
                self._kill(port)
                await asyncio.to_thread(self._start, port)

    async def _call(self) -> None:
        while self.outcome.orders < self._until or not self._has_killed:
            if self.outcome.orders >= self._due:
                await asyncio.sleep(0.05)
                continue
            if self._random.random() < REPEATED_PART:
                await self._call_as_sdks_do()
                continue
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._random.choice(self._ports))
            except OSError:
                await asyncio.sleep(0.02)
                continue
            self.outcome.orders += 1
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    is_answered = await self._order(reader, writer)
                self.outcome.answers += is_answered
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

    async def _call_as_sdks_do(self) -> None:
        """One call, sent again with the same bytes until it is answered: after a broken connection, a status that SDKs
        repeat, and where it takes too long. It must not be two orders."""
        chance = self._random
        path, body = chance.choice(self._world.bodies)
        text = json.dumps({**body, "user": f"call {len(self._calls)}"}).encode()
        tries = self._calls[order_digest(path, text)] = []
        key = self._keys[0][0]
        for count in range(TRIES):
            head = (
                f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
                f"x-openrouter-simulate: generation-ms={chance.choice((0, 300, 900))},{chance.choice((*SLOW, *self._world.faults))}\r\n"
                f"x-stainless-retry-count: {count}\r\ncontent-length: {len(text)}\r\n\r\n"
            )
            self.outcome.orders += count == 0
            self.outcome.repeats += count > 0
            patience = chance.random() * 0.4 if chance.random() < 0.5 else ANSWER_SECONDS
            answer, port, sent_us = b"", chance.choice(self._ports), now_us()
            with suppress(OSError, TimeoutError):
                answer = await _ask(port, head.encode() + text, patience)
            tries.append(f"at {port} from {_moment(sent_us)} to {_moment(now_us())}: {answer[9:12].decode() or 'left'}")
            if len(answer) > 12 and int(answer[9:12]) not in REPEATED_STATUSES:
                self.outcome.answers += 1
                self.outcome.joined += b"\r\nidempotency-replayed: true" in answer
                return
            await asyncio.sleep(0.4 + chance.random() * 0.2)  # as the SDKs at first

    async def _order(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One order, left at a random byte one time in three; whether its answer came to its end."""
        chance = self._random
        path, body = chance.choice(self._world.bodies)
        if FORMATS[path].DESCRIBED.is_streamed:
            body = {**body, "stream": chance.random() < 0.6}
        text = json.dumps(body).encode()
        ((key, _),) = chance.choices(self._keys, (8, 1, 1))
        head = (
            f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
            f"x-openrouter-simulate: generation-ms={chance.choice((0, 300, 900))},{chance.choice(self._world.faults)}\r\n"
            + (f"idempotency-key: {chance.randrange(50)}\r\n" if chance.random() < 0.05 else "")
            + f"content-length: {len(text)}\r\n\r\n"
        )
        request = head.encode() + text
        leaves = chance.random()
        if leaves < 0.03:
            writer.write(request[: chance.randrange(len(request))])
            await writer.drain()
            return False
        writer.write(request)
        await writer.drain()
        stays_for = chance.randrange(3000) if leaves < 0.33 else None
        got = 0
        while part := await reader.read(4096 if stays_for is None else max(1, min(64, stays_for - got))):
            got += len(part)
            if stays_for is not None and got >= stays_for:
                return False
        return True

    # The books

    def _await_answers(self) -> None:
        """Until nothing is pending and nobody will be asked any more."""
        until = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < until:
            holds, _ = self._rows()
            if not any(hold.state == "pending" or (hold.state == "open" and not hold.is_unresolved) for hold in holds):
                return
            time.sleep(0.5)

    def _rows(self) -> tuple[list[HoldRow], dict[str, Transfer]]:
        async def read() -> tuple[list[HoldRow], dict[str, Transfer]]:
            store = await SqlStore.open(engine_of(self._database_url), f"chaos-{os.getpid()}")
            try:
                with store.snapshot() as rows:
                    holds = list(rows.holds())
                    transfers = {transfer.id: transfer for transfer in rows.transfers()}
                    self.outcome.differences = audit(rows).differences
                    return holds, transfers
            finally:
                await store.close()

        return asyncio.run(read())

    def _posted(self) -> int:
        return sum(hold.state == "posted" for hold in self._rows()[0])

    def _compare(self, charged: dict[str, Charged]) -> None:
        holds, transfers = self._rows()
        found = self.outcome
        known: dict[str, HoldRow] = {}
        for hold in holds:
            found.states[hold.state] += 1
            if hold.is_unresolved:
                found.unresolved[hold.reason or ""] += 1
            if hold.state == "pending":
                found.differences.append(f"hold {hold.id} is pending for ever")
            if hold.generation_id is not None:
                if hold.generation_id in known:
                    found.differences.append(f"{hold.generation_id} is in the books twice")
                known[hold.generation_id] = hold
        for generation_id, hold in known.items():
            there = charged.get(generation_id)
            if there is not None and there.upstream != hold.upstream:
                found.differences.append(f"{generation_id}: by {there.upstream}, in the books by {hold.upstream}")
            if hold.state == "posted":
                posted = transfers[settlement_id(hold.id)].cost
                if there is None or posted is None or there.cost + _bill(posted, there.cost) != posted:
                    found.differences.append(f"{generation_id}: posted {posted}, charged {there}")
            elif hold.state == "voided" and there is not None:
                found.differences.append(f"{generation_id}: voided, charged {there}")
        self._compare_calls(holds)
        self._compare_caps(holds, transfers)
        # What an upstream charged and we have no name for must be among its holds that are open and have none; or posted,
        # at just that cost.
        unnamed = [hold for hold in holds if hold.generation_id is None]
        nameless = Counter(hold.upstream for hold in unnamed if hold.state == "open")
        posted_costs = Counter(
            (hold.upstream, transfers[settlement_id(hold.id)].cost) for hold in unnamed if hold.state == "posted"
        )
        left: Counter[tuple[str | None, Decimal | None]] = Counter(
            (there.upstream, there.cost) for each, there in charged.items() if each not in known
        )
        found.differences += [f"posted without a name, and charged by nobody: {each}" for each in posted_costs - left]
        unknown = Counter(upstream for upstream, _ in (left - posted_costs).elements())
        for upstream, count in unknown.items():
            if count > nameless[upstream]:
                found.differences.append(
                    f"{count} generations of {upstream} are not in the books, {nameless[upstream]} holds have no name"
                )
        found.served.update(there.upstream for there in charged.values() if there.upstream is not None)

    def _count_fallbacks(self) -> None:
        """From the log: orders that another upstream served than the first that was tried."""
        with (self._folder / "serve.log").open("rb") as log:
            for line in log:
                if b'"attempts":[' in line and b'"farebox.orders"' in line:
                    attempts = json.loads(line[line.index(b"{") :])["attempts"]
                    self.outcome.fallbacks += len(attempts) > 1 and "error" not in attempts[-1]

    def _compare_calls(self, holds: list[HoldRow]) -> None:
        """Each call is one order, however often it was sent: what was not taken up may be ordered again, nothing
        else."""
        orders = Counter(hold.order_digest for hold in holds if hold.state != "voided")
        for call, tries in self._calls.items():
            if orders[call] > 1:
                held = [
                    f"{hold.id} by {hold.worker} from {_moment(hold.created_us)}"
                    f" to {'-' if hold.ended_us is None else _moment(hold.ended_us)}: {hold.state},"
                    f" delivery {hold.delivery}, {hold.reason}"
                    for hold in holds
                    if hold.order_digest == call
                ]
                self.outcome.differences.append(
                    "\n  ".join((f"one call was ordered {orders[call]} times:", *tries, *held))
                )

    def _compare_caps(self, holds: list[HoldRow], transfers: dict[str, Transfer]) -> None:
        found = self.outcome
        _, minute_key, money_key = (key_id for _, key_id in self._keys)
        began = sorted(hold.created_us for hold in holds if hold.key_id == minute_key)
        found.peak_per_minute = max(
            (bisect_left(began, first + _MINUTE_US) - at for at, first in enumerate(began)), default=0
        )
        if found.peak_per_minute > MINUTE_CAP:
            found.differences.append(f"{found.peak_per_minute} orders in a minute, {MINUTE_CAP} are allowed")
        for hold in holds:
            if hold.key_id == money_key and hold.state != "voided":
                ending = transfers.get(settlement_id(hold.id))
                found.spent_nanos += hold.amount_nanos if ending is None else ending.amount_nanos
                # A host's own bill (`byok=`) may take a fare above its hold: no cap foresees that.
                found.above_nanos += 0 if ending is None else ending.over_hold_nanos
        if found.spent_nanos - found.above_nanos > MONEY_CAP_NANOS:
            found.differences.append(
                f"${format_usd(found.spent_nanos)} spent, ${format_usd(MONEY_CAP_NANOS)} are allowed"
            )


def _until_free(port: int) -> None:
    """Wait until nobody listens: the kernel ends a killed server's workers one by one, on a slow machine slowly."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < until, f"port {port} is not free"
            time.sleep(0.01)
        else:
            return


async def _ask(port: int, request: bytes, patience_seconds: float) -> bytes:
    """The answer to a request; raises TimeoutError, and hangs up, where it does not begin in time. Nothing is read that is
    not asked for: what comes as the caller leaves is not taken."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, request)
        async with asyncio.timeout(patience_seconds):
            answer = await loop.sock_recv(connection, 1)
        while part := await loop.sock_recv(connection, 65536):
            answer += part
    return answer


def _moment(at_us: int) -> str:
    """Seconds within the hour: enough to tell what came first."""
    return f"{at_us % 3_600_000_000 / 1_000_000:.3f} s"


BYOK_BILL = Decimal("0.0002")


def _bill(posted: Decimal, cost: Decimal) -> Decimal:
    """What the host charged beside, for an order on the operator's own key (the simulator's books have the fee)."""
    return BYOK_BILL if posted - cost == BYOK_BILL else Decimal(0)


def _cluster() -> Cluster:
    programs = find()
    assert programs is not None, "PostgreSQL is not installed: apt-get install postgresql"
    cluster = Cluster(programs)
    cluster.stop()
    cluster.start(is_durable=True)
    return cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--deaths", type=int, default=10 * len(POINTS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=0, help="Servers on one PostgreSQL; 0: one on a file.")
    parser.add_argument("--database-kills", type=int, default=0)
    parser.add_argument("--upstreams", action="store_true", help="Four upstreams of three kinds, some of which fail.")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.workers} workers", flush=True)
    with tempfile.TemporaryDirectory(prefix="farebox-chaos-") as folder:
        cluster = _cluster() if asked.nodes else None
        try:
            world = SeveralUpstreams() if asked.upstreams else OneSimulator()
            chaos = Chaos(Path(folder), asked.workers, asked.seed, asked.nodes or 1, cluster, world=world)
            outcome = chaos.run(asked.orders, asked.kills, asked.deaths, asked.database_kills)
        finally:
            if cluster is not None:
                cluster.remove()
    for difference in outcome.differences[:50]:
        print(difference)
    for reason, count in outcome.unresolved.most_common():
        print(f"unresolved, {count}: {reason}")
    print(outcome.line())
    sys.exit(bool(outcome.differences))


if __name__ == "__main__":
    main()
