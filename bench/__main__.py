"""`make bench`: Farebox beside a bare pass-through of the same stack and nginx, in one run on one machine: with the
upstream plain and behind TLS, and with many slow streams. After that bench/scale.py: more processes, larger books.

Each is one process on one core; the load and the upstream share the other. They take slices of each load in turn. CPU
time is the process's own, with its threads and children, from /proc.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

from bench import compare, streams
from bench.compare import ratio_of, trimmed_mean
from bench.load import Result, load
from bench.others import OTHERS
from bench.peers import EVENT_SECONDS, STREAM_EVENTS
from bench.processes import LOAD_CORE, cpu_seconds, on_core, rss_mb, scratch
from bench.servers import OURS, Server, Upstream, standing, upstreams

LOADS = (("whole", 64), ("streamed", 100), ("whole", 1), ("streamed", 1))
"""The kind of answer, and how many are asked for at a time: enough to fill a core, and one after the other."""


SLICES = 8
"""Of a load, which the servers take in turn: so the machine's good and bad moments meet all of them."""

WARM_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice of a load came to, and the server's CPU microseconds a request."""

    result: Result
    cpu_us: float

    @classmethod
    def take(cls, server: Server, kind: str, connections: int, seconds: float) -> Self:
        before = cpu_seconds(server.pid)
        result = load(server.target, kind, connections, seconds)
        assert not result.failures, f"{server.name}: {result.failures} of {result.requests} failed"
        return cls(result, (cpu_seconds(server.pid) - before) / result.requests * 1e6)


HEADER = (
    "| server | requests/s | CPU us/request | CPU us/event | x bare | p50 ms | p99 ms | first byte +ms | idle RSS MB"
    " | RSS MB |\n|---|---|---|---|---|---|---|---|---|---|"
)


def row(server: Server, slices: list[Slice], bare: list[Slice], direct: Result, *, streamed: bool) -> str:
    """A line of the table. `x bare` is of the slices side by side; the first byte's is what the server adds to the
    upstream's own."""
    results = [each.result for each in slices]
    cpu_us = trimmed_mean([each.cpu_us for each in slices])[0]
    ratio, error = ratio_of([each.cpu_us for each in bare], [each.cpu_us for each in slices])
    cells = (
        server.name,
        f"{sum(each.requests for each in results) / sum(each.seconds for each in results):,.0f}",
        f"{cpu_us:,.0f}",
        f"{cpu_us / STREAM_EVENTS:.1f}" if streamed else "-",
        "1" if slices is bare else f"{ratio:.2f} ± {error:.2f}",
        f"{median(each.p50 for each in results) * 1000:.2f}",
        f"{median(each.p99 for each in results) * 1000:.2f}",
        f"{(median(each.first_byte_p50 for each in results) - direct.first_byte_p50) * 1000:.2f}",
        f"{server.idle_rss_mb:.0f}",
        f"{rss_mb(server.pid):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def table(upstream: Upstream, found: list[Server], kind: str, connections: int, seconds: float) -> None:
    """One load on all servers, in slices in turn."""
    streamed = kind == "streamed"
    paced = f"streams of {STREAM_EVENTS} events, {EVENT_SECONDS * 1000:g} ms apart"
    what = paced if streamed else "whole answers"
    behind = "upstream behind TLS, " if upstream.authority else ""
    print(f"\n{behind}{what}, {connections} at a time, {seconds:g} s each\n\n{HEADER}", flush=True)
    direct = load(upstream.direct, kind, connections, seconds / 4)
    for server in found:
        load(server.target, kind, connections, WARM_UP_SECONDS)
    taken: dict[str, list[Slice]] = {server.name: [] for server in found}
    for number in range(SLICES):
        for server in found if number % 2 else reversed(found):
            taken[server.name].append(Slice.take(server, kind, connections, seconds / SLICES))
    bare = taken[found[0].name]
    for server in found:
        print(row(server, taken[server.name], bare, direct, streamed=streamed), flush=True)


def audit(found: list[Server]) -> None:
    for server in found:
        if server.books:
            print("\nfarebox audit after the load:", flush=True)
            subprocess.run([sys.executable, "-m", "farebox", "audit", "--database-url", server.books], check=True)


def everything(folder: Path, options: argparse.Namespace) -> None:
    if options.only != "slow":
        with upstreams(folder) as (plain, secured):
            for upstream, starts in ((plain, OURS + OTHERS * options.peers), (secured, OURS)):
                with standing(folder, upstream, starts) as found:
                    for kind, connections in LOADS:
                        if options.only in (None, kind):
                            table(upstream, found, kind, connections, options.seconds)
                    audit(found)
    if options.only in (None, "slow"):
        streams.tables(folder, options.streams, options.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load runs")
    parser.add_argument("--only", choices=["whole", "streamed", "slow"], help="one kind of load")
    parser.add_argument("--peers", action="store_true", help="LiteLLM and Portkey, too; installed into .bench")
    parser.add_argument("--streams", type=int, default=5_000, help="how many slow ones are open at once")
    parser.add_argument(
        "--transfers", type=int, default=10_000_000, help="in the ledger that is large; 0: leave it out"
    )
    parser.add_argument("--compare", metavar="REV", help="instead: this tree beside a revision of it, in pairs")
    parser.add_argument("--pairs", type=int, default=40, help="of slices, a load")
    parser.add_argument(
        "--loads", nargs="+", choices=compare.LOADS, default=list(compare.LOADS), help="which are compared"
    )
    options = parser.parse_args()
    with scratch() as folder, on_core(LOAD_CORE):
        if options.compare:
            compare.trees(folder, options.compare, options.pairs, options.loads)
            return
        everything(folder, options)
    if options.only is None:
        command = [sys.executable, "-m", "bench.scale", str(options.seconds), str(options.transfers)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
