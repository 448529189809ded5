"""What this machine has counted since it started, read back for people: errors by kind, and how long answers' first
bytes took."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from farebox import clock
from farebox.telemetry.metrics import SINCE_VARIABLE, Metrics, watched_by_people

_STARTED_US = clock.now_us()


class Times(NamedTuple):
    """How long something took: so often, half of it not longer than `median_seconds`, and all but a twentieth not
    longer than `p95_seconds`. Both are read off a histogram, and None where nothing was counted."""

    number: int
    median_seconds: float | None
    p95_seconds: float | None


class Counts(NamedTuple):
    """`errors` are answers to orders by their kind and status, the most frequent first; `upstream` and `added` the
    times to an answer's first byte that the upstream took, and that Farebox added."""

    since_us: int
    errors: Sequence[tuple[str, str, int]]
    upstream: Times
    added: Times


async def read_counts(metrics: Metrics) -> Counts:
    """Of all workers of this machine; on a thread, since it reads their files."""
    metrics.refresh()
    return await asyncio.to_thread(_counts)


def _counts() -> Counts:
    errors: Counter[tuple[str, str]] = Counter()
    times: dict[str, Counter[float]] = {}
    for family in watched_by_people():
        for sample in family.samples:
            if sample.name == "farebox_errors_total":
                errors[sample.labels["error_type"], sample.labels["status"]] += int(sample.value)
            elif sample.name.endswith("_bucket"):
                upto = float(sample.labels["le"])
                times.setdefault(family.name, Counter())[upto] += int(sample.value)
    return Counts(
        int(os.environ.get(SINCE_VARIABLE, _STARTED_US)),
        [(kind, status, number) for (kind, status), number in errors.most_common()],
        _times(times.get("farebox_upstream_first_byte_seconds", {}).items()),
        _times(times.get("farebox_first_byte_added_seconds", {}).items()),
    )


def _times(buckets: Iterable[tuple[float, int]]) -> Times:
    """Of a histogram's buckets: up to how many seconds, and how many took no longer."""
    ranked = sorted(buckets)
    number = ranked[-1][1] if ranked else 0
    return Times(number, _quantile(ranked, number, 0.5), _quantile(ranked, number, 0.95))


def _quantile(ranked: Sequence[tuple[float, int]], number: int, part: float) -> float | None:
    """As Prometheus reckons it: evenly within a bucket; of the last one, which has no end, where it begins."""
    below_seconds, below = 0.0, 0
    for upto, count in ranked:
        if number and count >= part * number:
            if upto == float("inf") or count == below:
                return below_seconds
            return below_seconds + (upto - below_seconds) * (part * number - below) / (count - below)
        below_seconds, below = upto, count
    return None
