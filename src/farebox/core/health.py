"""How upstreams do: which of them fail, and for how long one that fails is left alone; and what was measured of them.

One that cannot be reached, or refuses the operator's key, is left alone with all its models; one that refuses orders of
one model, with that model. After a few failures in a row it is left alone for a while, twice as long each time. When
that is over, one order tries it, and the others wait for how that goes. A `Retry-After` is honoured, up to a bound.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from farebox.core.attempts import Denied, MayBeCharged, NotReached, Refused, Went
from farebox.core.wishes import PERCENTILES, Percentile

FAILURES_MAX = 3
"""After so many failures in a row it is left alone: one or two may be the order's own."""

ALONE_FIRST_US = 2_000_000
ALONE_LONGEST_US = 60_000_000
"""For how long: twice as long with each further failure, but never longer than this. OpenRouter skips hosts that failed
in the last 30 seconds."""

RETRY_AFTER_LONGEST_US = 300_000_000
"""A longer `Retry-After` is honoured up to here: it may be an hour, said by mistake."""

WHOLE = ""
"""In the place of a model: all of an upstream's."""


class Standing(Struct, frozen=True):
    """How an upstream stands with one of its models, or WHOLE: `failures` in a row, the last for this `reason`. It is
    left alone until `until_us`; 0: it is not. `changed_us` is when that last changed: failures that change nothing are
    counted by each process for itself."""

    upstream: str
    model: str = WHOLE
    failures: int = 0
    until_us: int = 0
    reason: str = ""
    changed_us: int = 0

    def is_left_alone(self, now_us: int) -> bool:
        """A time further away than any that is ever set was set by a clock that ran ahead: it counts no more."""
        return now_us < self.until_us <= now_us + RETRY_AFTER_LONGEST_US

    def wants_a_try(self, now_us: int) -> bool:
        """Whether it was left alone for long enough, and has not served an order since."""
        return self.until_us > 0 and not self.is_left_alone(now_us)


def is_failure(went: Went | None) -> bool:
    """Whether what became of an order speaks against its upstream: a refusal of what was ordered does not."""
    match went:
        case None:
            return False
        case Refused(status):
            return status == 429 or status >= 500
        case NotReached() | Denied() | MayBeCharged():
            return True


def concerns(went: Went, model: str) -> str:
    """Whether a failure is that of one model, or of all (WHOLE). What an account may not use (403) may be one model."""
    match went:
        case MayBeCharged() | Refused() | Denied(403):
            return model
        case NotReached() | Denied():
            return WHOLE


def failed(standing: Standing, went: Went, now_us: int) -> Standing:
    """How it stands after one more failure. While it is left alone, further failures are of orders that were under way:
    only their `Retry-After` counts."""
    is_alone = standing.is_left_alone(now_us)
    failures = standing.failures if is_alone else standing.failures + 1
    alone_us = 0
    if failures >= FAILURES_MAX and not is_alone:
        alone_us = min(ALONE_FIRST_US << min(failures - FAILURES_MAX, 16), ALONE_LONGEST_US)
    if isinstance(went, Refused) and went.retry_after_seconds is not None:
        alone_us = max(alone_us, min(int(went.retry_after_seconds * 1_000_000), RETRY_AFTER_LONGEST_US))
    until_us = max(standing.until_us if is_alone else 0, now_us + alone_us) if alone_us else standing.until_us
    changed_us = standing.changed_us if until_us == standing.until_us else now_us
    return Standing(standing.upstream, standing.model, failures, until_us, went.reason, changed_us)


def well(standing: Standing, now_us: int) -> Standing:
    """How it stands after an order was served."""
    return Standing(standing.upstream, standing.model, changed_us=now_us if standing.until_us else standing.changed_us)


def newer(mine: Standing, other: Standing, now_us: int) -> Standing:
    """Which of two processes' words on one standing holds: the later. One from a clock that ran ahead does not."""
    return other if mine.changed_us < other.changed_us <= now_us + RETRY_AFTER_LONGEST_US else mine


class Measured(Struct, frozen=True):
    """What was measured of an upstream and a model over the last half hour: seconds to an answer's first byte, and
    tokens a second after that, by percentile (empty where nothing was measured); the part of its orders that it
    served, None where there were none."""

    latency_seconds: Mapping[Percentile, float] = MappingProxyType({})
    throughput: Mapping[Percentile, float] = MappingProxyType({})
    uptime: float | None = None
    orders: int = 0


UNMEASURED = Measured()

SAMPLES_MAX = 500
SAMPLES_US = 30 * 60 * 1_000_000
"""OpenRouter's lists tell of the last half hour, too."""

MEASURED_US = 1_000_000


class _Sample(Struct):
    at_us: int
    is_served: bool
    latency_seconds: float | None
    throughput: float | None


class Samples:
    """The last orders of one upstream and model."""

    def __init__(self) -> None:
        self._kept: deque[_Sample] = deque(maxlen=SAMPLES_MAX)
        self._measured = UNMEASURED
        self._measured_us = 0

    def add(
        self, now_us: int, *, is_served: bool, latency_seconds: float | None = None, throughput: float | None = None
    ) -> None:
        self._kept.append(_Sample(now_us, is_served, latency_seconds, throughput))

    def measured(self, now_us: int) -> Measured:
        """Measured at most a second ago: many orders may ask."""
        if not 0 <= now_us - self._measured_us < MEASURED_US:
            self._measured, self._measured_us = self._measure(now_us), now_us
        return self._measured

    def _measure(self, now_us: int) -> Measured:
        while self._kept and self._kept[0].at_us <= now_us - SAMPLES_US:
            self._kept.popleft()
        if not self._kept:
            return UNMEASURED
        return Measured(
            _percentiles([each.latency_seconds for each in self._kept if each.latency_seconds is not None]),
            _percentiles([each.throughput for each in self._kept if each.throughput is not None], is_more_better=True),
            sum(each.is_served for each in self._kept) / len(self._kept),
            len(self._kept),
        )


def _percentiles(values: Sequence[float], *, is_more_better: bool = False) -> Mapping[Percentile, float]:
    """The nearest-rank percentiles: `p90` is what nine of ten are no worse than."""
    if not values:
        return MappingProxyType({})
    ranked = sorted(values, reverse=is_more_better)
    return MappingProxyType(
        {name: ranked[min(len(ranked) - 1, int(part * len(ranked)))] for name, part in PERCENTILES.items()}
    )
