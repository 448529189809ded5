"""`make bench-compare REV=...`: this tree beside a revision of it. Both are alive at once before one upstream, and take
slices of a load in turn, so that the machine's good and bad moments meet both; what counts is the ratio within a pair.
"""

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import uvloop

from bench.load import Callers
from bench.peers import STREAM_EVENTS
from bench.processes import cpu_seconds
from bench.servers import Farebox, Missing, Server, Upstream, postgres, upstreams


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for, how many at a time, and how many requests make a slice."""

    name: str
    connections: int
    requests: int
    streamed: bool = False
    is_secured: bool = False
    on_postgres: bool = False


_STREAMS = f"streams of {STREAM_EVENTS} events, 100 at a time"
LOADS = {
    "whole": Load("whole answers, 64 at a time", 64, 500),
    "streamed": Load(_STREAMS, 100, 200, streamed=True),
    "alone": Load("whole answers, one caller", 1, 100),
    "tls": Load("the upstream behind TLS: whole answers, 64 at a time", 64, 500, is_secured=True),
    "tls-streamed": Load(f"the upstream behind TLS: {_STREAMS}", 100, 200, streamed=True, is_secured=True),
    "postgres": Load("PostgreSQL: whole answers, 64 at a time", 64, 500, on_postgres=True),
}
HEADER = "| load | | before | after | ratio | slices |\n|---|---|---|---|---|---|"

TRIM = 0.1
"""The share of the pairs at either end that does not count."""


def trimmed_mean(values: list[float]) -> tuple[float, float]:
    """The mean without the ends, and its standard error: that of all values, the ends drawn in to the outermost that
    count, divided by the share that counts (Tukey and McLaughlin)."""
    ordered, cut = sorted(values), int(len(values) * TRIM)
    kept = ordered[cut : len(ordered) - cut]
    drawn = [min(max(value, kept[0]), kept[-1]) for value in values]
    middle = fmean(drawn)
    variance = math.fsum((value - middle) ** 2 for value in drawn) / max(len(drawn) - 1, 1)
    return fmean(kept), math.sqrt(variance / len(drawn)) / (len(kept) / len(drawn))


def ratio_of(before: list[float], after: list[float]) -> tuple[float, float]:
    """The mean ratio of pairs, and its standard error. Averaged as logarithms, so that twice and half come to one."""
    mean, error = trimmed_mean([math.log(new / old) for old, new in zip(before, after, strict=True)])
    return math.exp(mean), math.exp(mean) * error


def row(name: str, what: str, before: list[float], after: list[float]) -> str:
    ratio, error = ratio_of(before, after)
    means = [
        f"{mean:,.0f}" if mean >= 10 else f"{mean:.2f}" for mean in (trimmed_mean(before)[0], trimmed_mean(after)[0])
    ]
    shown = f"{ratio:.3f}" + (f" ± {error:.3f}" if len(before) > 1 else "")
    return f"| {' | '.join([name, what, *means, shown, str(len(before))])} |"


@dataclass(frozen=True, slots=True)
class Side:
    """One tree's server, and the process of its database where that is a server, too."""

    server: Server
    database: int | None = None

    async def slice(self, callers: Callers, load: Load) -> dict[str, float]:
        """What a slice came to, by what the table calls it."""
        pids = [self.server.pid, *([self.database] if self.database else [])]
        before = [cpu_seconds(pid) for pid in pids]
        result = await callers.run(requests=load.requests)
        assert not result.failures, f"{self.server.name}: {result.failures} of {result.requests} failed"
        spent = [(cpu_seconds(pid) - was) / load.requests * 1e6 for pid, was in zip(pids, before, strict=True)]
        if self.database:
            return {"Farebox CPU us": spent[0], "database CPU us": spent[1], "both CPU us": sum(spent)}
        if load.connections == 1:
            return {"CPU us": spent[0], "p50 ms": result.p50 * 1000}
        return {"CPU us": spent[0]}


async def _in_turn(sides: tuple[Side, Side], load: Load, pairs: int) -> None:
    callers = [await Callers.connect(side.server.target, load.connections, streamed=load.streamed) for side in sides]
    for each in callers:
        await each.run(requests=2 * load.requests)
    taken: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append(await sides[which].slice(callers[which], load))
    for each in callers:
        each.close()
    for what in taken[0][0]:
        before, after = ([slice_[what] for slice_ in side] for side in taken)
        print(row(load.name, what, before, after), flush=True)


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return done.stdout.strip()


@contextmanager
def checked_out(folder: Path, revision: str) -> Iterator[Path]:
    tree = folder / "before"
    git("worktree", "add", "--quiet", "--detach", str(tree), revision)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


@contextmanager
def _standing(
    folder: Path, upstream: Upstream, trees: tuple[Farebox, Farebox], load: Load
) -> Iterator[tuple[Side, Side]]:
    """Both trees, each with books of its own: on PostgreSQL, each with a database server of its own."""
    with ExitStack() as stack:

        def side(tree: Farebox) -> Side:
            if not load.on_postgres:
                return Side(stack.enter_context(tree.start(folder, upstream)))
            cluster = stack.enter_context(postgres())
            server = stack.enter_context(tree.start(folder, upstream, cluster.new_database()))
            return Side(server, cluster.process.pid)

        yield side(trees[0]), side(trees[1])


def trees(folder: Path, revision: str, pairs: int, names: list[str]) -> None:
    """Compare the working tree with a revision, which is checked out for the time of it."""
    with checked_out(folder, revision) as before, upstreams(folder) as (plain, secured):
        print(f"before: {git('log', '-1', '--format=%h %s', revision)}")
        changed = git("status", "--porcelain", "--untracked-files=no")
        print(f"after: {git('log', '-1', '--format=%h %s')}{', and what is not committed' if changed else ''}")
        if git("diff", "--name-only", revision, "--", "requirements/run.txt"):
            print("requirements/run.txt differs: both run with the packages that are installed here")
        print(f"\n{HEADER}", flush=True)
        has_idle = False
        for load in (LOADS[name] for name in names):
            upstream = secured if load.is_secured else plain
            # OpenSSL's own variable: a revision may not know Farebox's.
            trusted = {"SSL_CERT_FILE": str(upstream.authority)} if upstream.authority else {}
            both = Farebox("before", before, trusted), Farebox("after", Path.cwd(), trusted)
            try:
                with _standing(folder, upstream, both, load) as sides:
                    if not has_idle:
                        print(row("nobody asks", "RSS MB", *([side.server.idle_rss_mb] for side in sides)), flush=True)
                        has_idle = True
                    uvloop.run(_in_turn(sides, load, pairs))
            except Missing as why:
                print(f"{load.name}: {why}; left out", flush=True)
