"""Farebox beyond one process: on PostgreSQL, with several workers and nodes, on one account and on many; and with a
large ledger. `python -m bench.scale SECONDS TRANSFERS`; `make bench` runs it after the rest.

Here nothing is pinned: Farebox, the database, the load and the upstream share the machine's cores.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.load import Result, Target
from bench.processes import cpu_seconds, free_port, process, rss_mb, scratch
from bench.servers import Farebox, Missing, Upstream, postgres, upstreams
from farebox.store.prepare import engine_of, is_postgres
from tools.postgres import Cluster

CONNECTIONS = 64
ACCOUNTS = 16
CORES = ",".join(map(str, sorted(os.sched_getaffinity(0))))
DAYS = 90
"""Over which a large ledger's orders are spread."""


@dataclass(frozen=True, slots=True)
class Books:
    """A database with as many paying accounts as there are keys."""

    url: str
    keys: list[str]


def new_books(folder: Path, url: str, accounts: int) -> Books:
    return Books(url, Farebox().new_books(folder, url, accounts))


@contextmanager
def serving(folder: Path, books: Books, upstream: Upstream, workers: int) -> Iterator[tuple[int, int]]:
    """A node: its process, and its port."""
    port = free_port()
    command = [sys.executable, "-m", "farebox", "serve", "--port", str(port), "--database-url", books.url]
    command += ["--upstream", upstream.url, "--workers", str(workers)]
    with process(command, port, folder, CORES, **Farebox().environment) as pid:
        time.sleep(2)
        yield pid, port


def load(ports: list[int], keys: list[str], seconds: float) -> list[Result]:
    """The same load on all nodes at the same time, its connections shared out."""
    each = str(CONNECTIONS // len(ports))
    targets = [msgspec.json.encode(Target(port, keys)).decode() for port in ports]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.load", target, "whole", each, str(seconds)], stdout=subprocess.PIPE
        )
        for target in targets
    ]
    results = [msgspec.json.decode(done.communicate(timeout=seconds + 60)[0], type=Result) for done in running]
    assert not any(result.failures for result in results), results
    return results


def row(name: str, nodes: list[tuple[int, int]], keys: list[str], seconds: float, database: int | None = None) -> None:
    """Load the nodes and print a line."""
    pids, ports = [pid for pid, _ in nodes], [port for _, port in nodes]
    idle_mb = sum(rss_mb(pid) for pid in pids)
    load(ports, keys, 1)
    watched = [*pids, *([database] if database else [])]
    before = [cpu_seconds(pid) for pid in watched]
    results = load(ports, keys, seconds)
    spent = [cpu_seconds(pid) - was for pid, was in zip(watched, before, strict=True)]
    requests = sum(result.requests for result in results)
    per_request = sum(spent[: len(pids)]) / requests * 1e6
    of_database = f"{spent[-1] / requests * 1e6:,.0f}" if database else "-"
    p50, p99 = max(result.p50 for result in results), max(result.p99 for result in results)
    cells = (name, len(keys), f"{requests / seconds:,.0f}", f"{per_request:,.0f}", of_database)
    print(f"| {' | '.join(map(str, cells))} | {p50 * 1000:.1f} | {p99 * 1000:.1f} | {idle_mb:.0f} |", flush=True)


HEADER = (
    "| books | accounts | requests/s | Farebox CPU us/request | database CPU us/request | p50 ms | p99 ms"
    " | RSS MB before |\n|---|---|---|---|---|---|---|---|"
)


def compare(folder: Path, cluster: Cluster | None, upstream: Upstream, seconds: float) -> None:
    cores = CORES.count(",") + 1
    print(
        f"\nwhole answers, {CONNECTIONS} at a time, {seconds:g} s each, {cores} cores for all\n\n{HEADER}", flush=True
    )
    on_file = new_books(folder, f"sqlite:///{folder}/books.db", ACCOUNTS)
    on_server = new_books(folder, cluster.new_database(), ACCOUNTS) if cluster else None
    for workers in (1, 2):
        with serving(folder, on_file, upstream, workers) as node:
            row(f"SQLite, {workers} worker{'s' * (workers > 1)}", [node], on_file.keys, seconds)
    if cluster is None or on_server is None:
        return
    pid = cluster.process.pid
    for workers, nodes in ((1, 1), (2, 1), (1, 2), (2, 2)):
        name = f"PostgreSQL, {nodes} node{'s' * (nodes > 1)} of {workers} worker{'s' * (workers > 1)}"
        with ExitStack() as stack:
            running = [stack.enter_context(serving(folder, on_server, upstream, workers)) for _ in range(nodes)]
            row(name, running, on_server.keys, seconds, pid)
            row(name, running, on_server.keys[:1], seconds, pid)


# A large ledger

_FILL = {
    "sqlite": "WITH RECURSIVE o(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM o WHERE n + 1 < {last})",
    "postgres": "WITH o AS (SELECT generate_series({first}::bigint, {last}::bigint - 1) AS n)",
}
_IDS = {
    "sqlite": "printf('%014x%012x', {start} + n * {step}, n)",
    "postgres": "lpad(to_hex({start} + n * {step}), 14, '0') || lpad(to_hex(n), 12, '0')",
}
HOLD = (
    "hold (id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,"
    " generation_id, served_model, prompt_tokens, answer_tokens, ended_us, asks)"
)
TRANSFER = (
    "transfer (id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, over_hold_nanos, cost,"
    " events, event_price_nanos)"
)
PART = 500_000


def fill(books: Books, transfers: int) -> None:
    """Orders that were served and posted, two transfers each, on the first account."""
    kind = "postgres" if is_postgres(books.url) else "sqlite"
    orders = transfers // 2
    step = DAYS * 86_400_000_000 // orders
    start = time.time_ns() // 1000 - (DAYS + 1) * 86_400_000_000
    moment = f"{start} + n * {step}"
    order = _IDS[kind].format(start=start, step=step)
    false = "false" if kind == "postgres" else "0"
    engine = engine_of(books.url)
    with closing(engine.connect()) as db:
        (account, key) = db.execute("SELECT account_id, id FROM api_key ORDER BY id LIMIT 1").fetchone()
        for first in range(0, orders, PART):
            rows = _FILL[kind].format(first=first, last=min(orders, first + PART))
            with engine.transaction(db):
                hold = (
                    f"{order}, {account}, {key}, 'fill', 'posted', 20000, 'paying', 10000, 'sim/echo', {false},"
                    f" {moment}, 'gen-' || n, 'sim/echo', 12, 29, {moment} + 900, 0"
                )
                held = f"{order}, 'hold', {account}, 1, 20000, {moment}, {order}, 0, NULL, NULL, NULL"
                post = (
                    f"{order} || '-end', 'post', {account}, 1, 20000, {moment} + 900, {order}, 0, '0.0000192', 2, 10000"
                )
                for columns, values in ((HOLD, hold), (TRANSFER, held), (TRANSFER, post)):
                    db.execute(f"INSERT INTO {columns} {rows} SELECT {values} FROM o")
                done = (min(orders, first + PART) - first) * 20_000
                db.execute(f"UPDATE balance SET debits_nanos = debits_nanos + {done} WHERE account_id = {account}")
        if kind == "postgres":
            db.execute("ANALYZE")


def timed(name: str, *arguments: str, url: str) -> None:
    """A command, how long it takes and how much memory at most."""
    command = [sys.executable, "-m", "farebox", *arguments, "--database-url", url]
    began = time.monotonic()
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, **Farebox().environment}, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(running.pid, 0)
    assert status == 0, name
    print(f"| {name} | {time.monotonic() - began:,.1f} | {used.ru_maxrss / 1024:,.0f} |", flush=True)


def large(
    url: str, name: str, folder: Path, upstream: Upstream, seconds: float, transfers: int, pid: int | None
) -> None:
    """An order beside an empty ledger and beside a large one, and what reads the large one."""
    books = new_books(folder, url, 1)
    print(f"\n{name}: an order beside an empty ledger and one of {transfers:,} transfers\n\n{HEADER}", flush=True)
    with serving(folder, books, upstream, 1) as node:
        row(f"{name}, empty", [node], books.keys, seconds, pid)
    began = time.monotonic()
    fill(books, transfers)
    filled = time.monotonic() - began
    with serving(folder, books, upstream, 1) as node:
        row(f"{name}, {transfers:,} transfers", [node], books.keys, seconds, pid)
    print(f"\n(filled in {filled:,.0f} s)\n\n| command | s | memory MB |\n|---|---|---|", flush=True)
    yesterday = time.strftime("%Y-%m-%dT00:00:00", time.gmtime(time.time() - 2 * 86_400))
    timed("`farebox audit`", "audit", url=url)
    timed("`farebox statement`, two days of 90", "statement", "bench-0", "--since", yesterday, "--json", url=url)
    timed("`farebox activity`, a month", "activity", "--days", "30", url=url)
    timed("`farebox key limit`, the first of a key", "key", "limit", "1", "usd_per_day=1000", url=url)
    timed("`farebox account list`", "account", "list", url=url)


def main() -> None:
    seconds, transfers = float(sys.argv[1]), int(sys.argv[2])
    with scratch() as folder, ExitStack() as stack:
        upstream, _ = stack.enter_context(upstreams(folder, CORES))
        cluster: Cluster | None = None
        try:
            cluster = stack.enter_context(postgres())
        except Missing as why:
            print(f"\n{why}: its rows are left out")
        compare(folder, cluster, upstream, seconds)
        if transfers:
            large(f"sqlite:///{folder}/large.db", "SQLite", folder, upstream, seconds, transfers, None)
            if cluster is not None:
                url = cluster.new_database()
                large(url, "PostgreSQL", folder, upstream, seconds, transfers, cluster.process.pid)


if __name__ == "__main__":
    main()
