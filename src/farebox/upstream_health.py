"""How upstreams do, as all processes see it. The rules are in `core.health`.

Each process counts for itself, and keeps what was measured. That one is left alone from now on, or is well again, is
written into the books' database when it happens, and read from there once a second: never on an order's way.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from farebox import clock
from farebox.core.attempts import Refused, Went
from farebox.core.health import (
    UNMEASURED,
    WHOLE,
    Measured,
    Samples,
    Standing,
    concerns,
    failed,
    is_failure,
    newer,
    well,
)
from farebox.core.routing import WELL, Candidate, Condition
from farebox.ports import BooksUnavailable, Standings

LOOK_SECONDS = 1.0
"""How often what other processes wrote is read: two nodes agree within two seconds."""

WRITE_SECONDS = 0.1
"""The least time between two writings, however often something changes."""

NAMES_MAX = 4096
"""So many upstreams' models are remembered, those that were ordered last: callers may put any variant behind a name."""

FORGET_US = 24 * 3600 * 1_000_000

T = TypeVar("T")

Name = tuple[str, str]
"""An upstream, and a model of it or WHOLE."""

_NOTHING: frozenset[Name] = frozenset()


class Health:
    """How upstreams do now. Where `is_shared`, other processes' words are read, too; without `standings` nothing is
    kept."""

    def __init__(
        self, standings: Standings | None = None, *, is_shared: bool = True, now_us: Callable[[], int] = clock.now_us
    ) -> None:
        self._kept = standings
        self._is_shared = is_shared
        self._now_us = now_us
        self._standings: dict[Name, Standing] = {}
        self._trying: set[Name] = set()
        self._orders: Counter[str] = Counter()
        self._samples: dict[Name, Samples] = {}
        self._to_write: dict[Name, Standing] = {}
        self._has_to_write = asyncio.Event()

    def condition(self, candidate: Candidate) -> Condition:
        """How a candidate does; how many orders it is serving only where that is bounded, or somebody failed."""
        if not self._standings and candidate.orders_max is None:
            return WELL
        now_us = self._now_us()
        found = [self._standings[name] for name in _names(candidate) if name in self._standings]
        return Condition(
            max((each.until_us for each in found if each.is_left_alone(now_us)), default=0),
            any(_name(each) in self._trying for each in found if each.wants_a_try(now_us)),
            self._orders[candidate.upstream],
        )

    def measured_of(self, candidate: Candidate) -> Measured:
        return self.measured(candidate.upstream, candidate.model)

    def measured(self, upstream: str, model: str) -> Measured:
        """What was measured by this process."""
        samples = self._samples.get((upstream, model))
        return UNMEASURED if samples is None else samples.measured(self._now_us())

    def standings(self) -> list[Standing]:
        """All that were ever left alone, or fail now."""
        return [each for each in self._standings.values() if each.failures or each.until_us or each.changed_us]

    def left_alone(self) -> dict[Name, bool]:
        """For metrics: which of them are left alone."""
        now_us = self._now_us()
        return {_name(each): each.is_left_alone(now_us) for each in self.standings()}

    def began(self, candidate: Candidate) -> "frozenset[Name]":
        """An order goes to a candidate. Returns what it is the one to try, for `ended`."""
        self._orders[candidate.upstream] += 1
        if not self._standings:
            return _NOTHING
        now_us = self._now_us()
        tried = frozenset(
            name
            for name in _names(candidate)
            if name in self._standings and self._standings[name].wants_a_try(now_us) and name not in self._trying
        )
        self._trying |= tried
        return tried

    def ended(
        self,
        candidate: Candidate,
        tried: "frozenset[Name]",
        went: Went | None,
        latency_seconds: float | None = None,
        throughput: float | None = None,
    ) -> None:
        """What became of it: `went` is None where it was served. Latency in seconds, throughput in tokens a second."""
        self.let_go(candidate, tried)
        now_us = self._now_us()
        is_served = not is_failure(went)
        name = (candidate.upstream, candidate.model)
        if (samples := self._samples.pop(name, None)) is None:
            samples = Samples()
        self._samples[name] = samples
        _keep_within_bounds(self._samples)
        samples.add(now_us, is_served=is_served, latency_seconds=latency_seconds, throughput=throughput)
        if is_served:
            if not self._standings:
                return
            # One that refuses what was ordered can be reached; whether it serves the model is not known from that.
            for name in _names(candidate) if went is None else ((candidate.upstream, WHOLE),):
                self._well(name, now_us)
            return
        assert went is not None
        of = concerns(went, candidate.model)
        if of != WHOLE and isinstance(went, Refused):
            self._well((candidate.upstream, WHOLE), now_us)
        name = (candidate.upstream, of)
        self._take(name, failed(self._standings.get(name) or Standing(*name), went, now_us))

    def let_go(self, candidate: Candidate, tried: "frozenset[Name]") -> None:
        """It was given up, and says nothing of the upstream."""
        self._orders[candidate.upstream] -= 1
        if tried:
            self._trying -= tried

    def _well(self, name: Name, now_us: int) -> None:
        standing = self._standings.get(name)
        if standing is not None and (standing.failures or standing.until_us):
            self._take(name, well(standing, now_us))

    def _take(self, name: Name, standing: Standing) -> None:
        before = self._standings.pop(name, None)
        self._standings[name] = standing
        _keep_within_bounds(self._standings)
        if standing.changed_us != (0 if before is None else before.changed_us):
            self._to_write[name] = standing
            self._has_to_write.set()

    async def agree(self) -> None:
        """Write what changed here, and read what changed elsewhere. Raises BooksUnavailable."""
        assert self._kept is not None
        while self._to_write:
            name, standing = next(iter(self._to_write.items()))
            await self._kept.put_standing(standing)
            if self._to_write[name] is standing:
                del self._to_write[name]
        if not self._is_shared:
            return
        for other in await self._kept.standings():
            name = _name(other)
            mine = self._standings.get(name) or Standing(*name)
            self._standings[name] = newer(mine, other, self._now_us())
        _keep_within_bounds(self._standings)

    async def run(self) -> None:
        """Agree with the other processes, once a second and when something changes. Runs until cancelled."""
        assert self._kept is not None
        with suppress(BooksUnavailable):
            await self._kept.forget_standings(self._now_us() - FORGET_US)
        while True:
            with suppress(BooksUnavailable):
                await self.agree()
            self._has_to_write.clear()
            await asyncio.sleep(WRITE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS - WRITE_SECONDS):
                    await self._has_to_write.wait()


def _keep_within_bounds(named: dict[Name, T]) -> None:
    """Forget those that came first."""
    while len(named) > NAMES_MAX:
        del named[next(iter(named))]


def _names(candidate: Candidate) -> tuple[Name, Name]:
    return (candidate.upstream, WHOLE), (candidate.upstream, candidate.model)


def _name(standing: Standing) -> Name:
    return standing.upstream, standing.model
