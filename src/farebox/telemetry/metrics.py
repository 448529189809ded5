"""Metrics for Prometheus, of this process or of all workers together.

Several workers share their counts through files in a folder (prometheus-client's multi-process mode), so that any of
them can answer for all.
"""

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from farebox.core.attempts import Attempt
from farebox.core.books import NotEnded
from farebox.core.names import without_variants
from farebox.core.passage import Passage

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder where workers share their counts. The library reads it when it is first imported."""

SINCE_VARIABLE = "PROMETHEUS_MULTIPROC_SINCE_US"
"""Says since when they do, in microseconds since 1970."""

REFRESH_SECONDS = 1.0

_REGISTRY = CollectorRegistry(auto_describe=False)


class _Times(Histogram):
    """A histogram that takes many values for the price of one."""

    def observe_all(self, values: Iterable[float]) -> None:
        """As `observe` with each of them."""
        total = 0.0
        counts = [0] * len(self._upper_bounds)
        for value in values:
            total += value
            counts[bisect_left(self._upper_bounds, value)] += 1
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


_counter = partial(Counter, registry=_REGISTRY)
_gauge = partial(Gauge, registry=_REGISTRY, multiprocess_mode="livesum")
_histogram = partial(_Times, registry=_REGISTRY)

_FIRST_BYTE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ADDED_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 5)
_COMMIT_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 5, 10)

_orders = _counter(
    "farebox_orders",
    "Requests for orders that are over: posted, voided, open (cost not known yet), replayed (a kept answer), refused.",
    ["outcome", "model", "format"],
)
_events = _counter("farebox_fare_events", "Events of $0.00001 charged, by plan.", ["plan", "model"])
_fares = _counter("farebox_fares_usd", "Fares in USD, by plan: to watch, the ledger is exact.", ["plan", "model"])
_errors = _counter(
    "farebox_errors", "Answers that are errors, Farebox's own and the upstream's.", ["error_type", "status", "format"]
)
_added = _histogram(
    "farebox_first_byte_added_seconds",
    "What Farebox adds to the time to an answer's first byte: before the order is sent, and after the head is there.",
    ["format"],
    buckets=_ADDED_SECONDS,
)
_upstream = _histogram(
    "farebox_upstream_first_byte_seconds",
    "From an order sent to the head of its answer.",
    ["format"],
    buckets=_FIRST_BYTE_SECONDS,
)
_streams = _gauge("farebox_streams_open", "Streams that go on to callers.")
_sockets = _gauge("farebox_sockets_open", "WebSockets that are open.")
_remembered = _gauge("farebox_sockets_remembered_bytes", "What WebSockets remember of their last turns.")
_in_progress = _gauge("farebox_orders_in_progress", "Orders that are being served.")
_queue = _gauge("farebox_writer_queue", "Commands that wait for the books.")
_late = _gauge("farebox_late_settlements", "Settlements that the books could not take yet, kept on this node's disk.")
_wal = Gauge(
    "farebox_wal_bytes",
    "Size of the write-ahead log beside books in a file: large where a reader keeps a transaction open.",
    registry=_REGISTRY,
    # All workers have the same one.
    multiprocess_mode="livemax",
)
_commit = _histogram(
    "farebox_commit_seconds",
    "A transaction of the writer's, from its begin to its durable end.",
    buckets=_COMMIT_SECONDS,
)
_commands = _counter("farebox_commands", "Commands that the writer carried out.")
_reconciled = _counter("farebox_reconciled", "Open holds settled since, by what the upstream said.", ["verdict"])
_attempts = _counter(
    "farebox_upstream_attempts",
    "Attempts at orders, by upstream and what became of them: served, or what went wrong.",
    ["upstream", "outcome"],
)
_fallbacks = _counter(
    "farebox_upstream_fallbacks",
    "Orders that went on to another upstream, by the one that did not serve them and why.",
    ["upstream", "reason"],
)
_denials = _counter(
    "farebox_upstream_denials",
    "Orders that an upstream refused for the operator's own account there: a wrong key, or no money. Callers are told"
    " 502, where nobody else serves them.",
    ["upstream", "status"],
)
_left_alone = Gauge(
    "farebox_upstream_left_alone",
    "1 while an upstream is left alone, with all its models (model empty) or one of them, after it failed.",
    ["upstream", "model"],
    registry=_REGISTRY,
    # Each worker knows what the others do, and all nodes agree within two seconds.
    multiprocess_mode="livemax",
)
_lookups = _counter(
    "farebox_cache_lookups",
    "Orders that ask for a kept answer: hit, miss, or left_out for their tools.",
    ["outcome"],
)
_cached = Gauge(
    "farebox_cache_bytes", "Answers kept for the same orders again.", registry=_REGISTRY, multiprocess_mode="livemax"
)
_guards = _counter(
    "farebox_guard_verdicts",
    "What guards made of orders: pass, changed, refuse, failed, slow; and of answers, where they failed or were slow.",
    ["guard", "verdict"],
)
_alerts = _counter(
    "farebox_alert_attempts",
    "Attempts to deliver alerts: delivered, failed (it is tried again), given_up (after a day of them).",
    ["outcome"],
)
_task_failures = _counter(
    "farebox_task_failures", "Failures of background tasks that nobody foresaw; each began again.", ["task"]
)


def count_task_failures(task: str, failures: int) -> None:
    """Count so many more failures of a background task; 0 has it stand among the metrics."""
    _task_failures.labels(task).inc(failures)


def count_alert(outcome: str) -> None:
    """Count an attempt to deliver an alert."""
    _alerts.labels(outcome).inc()


class _Seen(Struct):
    """Orders of one outcome, model, format and plan: how many, what they were charged, and the seconds that their
    answers' first bytes took."""

    orders: int = 0
    events: int = 0
    fare_nanos: int = 0
    added_seconds: list[float] = []
    upstream_seconds: list[float] = []


class Metrics:
    """What this process counts. `tell` counts the orders that wait for it. (Children of labels are cached: to look one
    up costs more than to count.)"""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.streams = 0
        """Streams that go on to callers."""
        self._tell = tell
        self._order = cache(_orders.labels)
        self._fare = cache(lambda plan, model: (_events.labels(plan, model), _fares.labels(plan, model)))
        self._times = cache(lambda wire: (_added.labels(wire), _upstream.labels(wire)))
        self._live: tuple[tuple[Gauge, Callable[[], int]], ...] = ()
        self._attempt = cache(_attempts.labels)
        self._fallback = cache(_fallbacks.labels)
        self._alone: Callable[[], Mapping[tuple[str, str], bool]] = dict
        self._commits: deque[tuple[int, float]] = deque()
        self._attempts: Tally[tuple[str, str]] = Tally()

    def count(self, passages: Iterable[Passage]) -> None:
        """Count orders that are over, attempts and commits: summed first, since a metric takes a sum for the price of
        one."""
        commits = [self._commits.popleft() for _ in range(len(self._commits))]
        _commands.inc(sum(commands for commands, _ in commits))
        _commit.observe_all([seconds for _, seconds in commits])
        for (name, reason), number in self._attempts.items():
            self._attempt(name, reason).inc(number)
        self._attempts.clear()
        seen: dict[tuple[str, str, str, str], _Seen] = {}
        for passage in passages:
            plan = passage.caller.plan.name if passage.caller is not None else ""
            alike = (outcome_of(passage), passage.model, passage.path, plan)
            if (sums := seen.get(alike)) is None:
                sums = seen[alike] = _Seen()
            sums.orders += 1
            if passage.given_ns:
                before, after = passage.held_ns - passage.began_ns, passage.given_ns - passage.head_ns
                sums.added_seconds.append((before + after) / 1e9)
                sums.upstream_seconds.append((passage.head_ns - passage.held_ns) / 1e9)
            if passage.events and passage.fare_nanos:
                sums.events += passage.events
                sums.fare_nanos += passage.fare_nanos
            if passage.status >= 400:
                _errors.labels(passage.error_type, passage.status, passage.path.strip("/")).inc()
        for (outcome, name, path, plan), sums in seen.items():
            # Without variants, which callers can make up: each label stays in memory for ever.
            wire, model = path.strip("/"), without_variants(name)
            self._order(outcome, model, wire).inc(sums.orders)
            if sums.added_seconds:
                added, upstream = self._times(wire)
                added.observe_all(sums.added_seconds)
                upstream.observe_all(sums.upstream_seconds)
            if sums.events:
                events, fares = self._fare(plan, model)
                events.inc(sums.events)
                fares.inc(sums.fare_nanos / 1e9)

    def committed(self, commands: int, seconds: float) -> None:
        """Called by the writer's thread; counted with the orders."""
        self._commits.append((commands, seconds))

    def attempted(self, attempt: Attempt, is_fallback: bool) -> None:
        """An attempt at an order is over; the order went on to another upstream where that `is_fallback`."""
        reason = "served" if attempt.went is None else attempt.went.reason
        self._attempts[attempt.upstream, reason] += 1
        if is_fallback:
            self._fallback(attempt.upstream, reason).inc()

    def denied(self, upstream: str, status: int) -> None:
        """An upstream refused the operator's own account."""
        _denials.labels(upstream, status).inc()

    def looked_up(self, outcome: str) -> None:
        """An order asked for a kept answer."""
        _lookups.labels(outcome).inc()

    def guarded(self, guard: str, verdict: str) -> None:
        _guards.labels(guard, verdict).inc()

    def watch_upstreams(self, left_alone: Callable[[], Mapping[tuple[str, str], bool]]) -> None:
        """Read from this function which upstreams (and models of theirs) are left alone."""
        self._alone = left_alone

    def watch_cache(self, size: Callable[[], int]) -> None:
        """Read from this function how large the kept answers are."""
        self._live = (*self._live, (_cached, size))

    def watch_sockets(self, connections: Callable[[], int], size: Callable[[], int]) -> None:
        """Read from these functions how many WebSockets are open, and how much they remember."""
        self._live = (*self._live, (_sockets, connections), (_remembered, size))

    def reconciled(self, verdict: str) -> None:
        _reconciled.labels(verdict).inc()

    def watch(
        self, orders: Callable[[], int], queue: Callable[[], int], late: Callable[[], int], wal: Callable[[], int]
    ) -> None:
        """Read the gauges' values from these functions: orders in progress, commands queued, late settlements, bytes of
        the write-ahead log."""
        self._live = (
            *self._live,
            (_streams, lambda: self.streams),
            (_in_progress, orders),
            (_queue, queue),
            (_late, late),
            (_wal, wal),
        )

    def refresh(self) -> None:
        """Bring all metrics to where they are now."""
        self._tell()
        for gauge, value in self._live:
            gauge.set(value())
        for (upstream, model), is_alone in self._alone().items():
            _left_alone.labels(upstream, model).set(is_alone)

    async def keep_fresh(self) -> None:
        """Refresh again and again, because another worker may be asked. Runs until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)


def outcome_of(passage: Passage) -> str:
    """What became of a request for an order, in a word: the label `outcome`."""
    if passage.is_replay:
        return "replayed"
    return passage.state or "refused"


def exposition(holds: NotEnded | None, outbox_lag_seconds: float = 0) -> bytes:
    """All metrics in Prometheus's text format; without those of the books where `holds` is None."""
    registry = _of_all_workers() or CollectorRegistry(auto_describe=False)
    if FOLDER_VARIABLE not in os.environ:
        registry.register(_REGISTRY)
    if holds is not None:
        registry.register(_Books(holds, outbox_lag_seconds))
    return generate_latest(registry)


def watched_by_people() -> Iterator[Metric]:
    """The metrics of errors and of first bytes; of several workers all metrics. Reads files where there are several."""
    if together := _of_all_workers():
        yield from together.collect()
    else:
        for each in (_errors, _added, _upstream):
            yield from each.collect()


def _of_all_workers() -> CollectorRegistry | None:
    """None where there is one process."""
    if not (folder := os.environ.get(FOLDER_VARIABLE)):
        return None
    _forget_dead(Path(folder))
    registry = CollectorRegistry(auto_describe=False)
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def _forget_dead(folder: Path) -> None:
    """Drop the gauges of workers that have died."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


class _Books(Collector):
    """Metrics that are read from the books: the same from every process."""

    def __init__(self, holds: NotEnded, outbox_lag_seconds: float) -> None:
        self._holds = holds
        self._lag = outbox_lag_seconds

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "farebox_holds",
            "Holds in the books that have not ended: of orders being served (pending), whose cost is asked for (open),"
            " whose cost an operator must decide (unresolved), and whose job runs (jobs). The same from every process.",
            labels=["state"],
        )
        for state, count in asdict(self._holds).items():
            family.add_metric([state], count)
        yield family
        yield GaugeMetricFamily(
            "farebox_outbox_lag_seconds",
            "Age of the oldest fare that an outside biller was not told yet.",
            value=self._lag,
        )
