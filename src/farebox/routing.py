"""The upstreams that may serve an order, tried in turn while nothing was accepted. The rules are in `core.routing`
(which ones, in what order) and `core.attempts` (when the next is tried)."""

import random
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple

from farebox.core.attempts import Attempt, Denied, MayBeCharged, NotReached, Refused, Went
from farebox.core.errors import Refusal, unknown
from farebox.core.formats import Asked
from farebox.core.headers import HeaderList
from farebox.core.routing import Candidate, Policy, Route, choose, still_to_try, without_wishes
from farebox.core.wishes import read_wishes
from farebox.denials import Denials, read_refusal
from farebox.ports import Reply, UpstreamBroke, UpstreamDenied, UpstreamUnreachable
from farebox.upstream_health import Health, Name

Send = Callable[[Candidate, bytes], Awaitable[Reply]]
"""Sends a body to a candidate. Raises UpstreamUnreachable, UpstreamBroke."""

RETRY_AFTER_DIGITS_MAX = 5


class Sole:
    """The attempt at an order where one upstream serves all: nothing to choose from, and nothing to note."""

    __slots__ = ("_denials", "at")

    made: tuple[Attempt, ...] = ()

    def __init__(self, candidate: Candidate, denials: Denials) -> None:
        self.at = candidate
        self._denials = denials

    async def answer(self, body: bytes, send: Send) -> Reply:
        """Raises what `send` raises, and UpstreamDenied."""
        reply = await send(self.at, body)
        if reply.status < 400:
            return reply
        refusal = await read_refusal(reply)
        if isinstance(refusal, Denied):
            self._denials.tell(self.at.upstream, refusal)
            raise _denied(self.at.upstream, refusal)
        return refusal

    def end(self, *, broke_off: bool = False, answer_tokens: int | None = None) -> None: ...

    def give_up(self) -> None: ...


_NO_TRIES: frozenset[Name] = frozenset()


class Routing:
    """Finds the upstreams for orders. `serving` gives the candidates for a model, `told` hears of each attempt when it
    is over, `denials` of each that was refused for the operator's own account, `chance` gives random numbers from 0 to
    below 1."""

    def __init__(
        self,
        serving: Callable[[str], Sequence[Candidate]],
        health: Health,
        policy: Policy = "order",
        told: Callable[[Attempt, bool], None] = lambda attempt, is_fallback: None,
        chance: Callable[[], float] = random.random,
        denials: Denials | None = None,
    ) -> None:
        self._serving = serving
        self._health = health
        self._policy = policy
        self._told = told
        self._chance = chance
        self._denials = denials or Denials()

    def attempts(self, path: str, body: bytes, asked: Asked) -> "Attempts | Sole":
        """The attempts at an order, none of them made yet.

        Raises:
            Refusal: 400, `provider` is no such; 404, nobody serves it as it is asked; 429, all who do are busy.
        """
        models, health = asked.models, self._health
        candidates: Sequence[Candidate] = self._serving(models[0])
        if len(candidates) == 1 and candidates[0].is_alone:
            # What the order wishes is read there.
            return Sole(candidates[0], self._denials)
        if len(models) > 1:
            candidates = [each for model in dict.fromkeys(models) for each in self._serving(model)]
        if not candidates:
            raise unknown(f"no upstream here serves `{models[0]}`")
        chance = self._chance() if len(candidates) > 1 else 0.0
        route = without_wishes(candidates, asked, path, health.condition, self._policy, chance)
        if route is None:
            wishes = read_wishes(path, body, asked)
            route = choose(wishes, candidates, health.condition, self._policy, chance, health.measured_of)
        return Attempts(route, health, self._told, self._denials)


class _WentWrong(NamedTuple):
    """An attempt that did not serve the order, and what is to be said of it where nobody else is tried: a reply, or an
    error to raise."""

    went: Went
    last_word: Reply | UpstreamUnreachable | UpstreamBroke | UpstreamDenied


class Attempts:
    """The attempts at one order. `made` are those that are over, for its record; `at` is the candidate that is tried
    now, or that answered."""

    __slots__ = (
        "_began",
        "_denials",
        "_head_seconds",
        "_health",
        "_is_under_way",
        "_told",
        "_tried",
        "at",
        "made",
        "route",
    )

    def __init__(self, route: Route, health: Health, told: Callable[[Attempt, bool], None], denials: Denials) -> None:
        self.route = route
        self.made: list[Attempt] = []
        self.at = route.candidates[0]
        self._health = health
        self._told = told
        self._denials = denials
        self._tried = _NO_TRIES
        self._is_under_way = False
        self._began = 0.0
        self._head_seconds: float | None = None

    async def answer(self, body: bytes, send: Send) -> Reply:
        """The first answer that accepts the order; or else the last one that refuses it.

        Raises:
            Refusal: what `send` raised for the last one: the order cannot be said there.
            UpstreamUnreachable: the last one tried was not reached.
            UpstreamDenied: the last one tried refused the operator's own account.
            UpstreamBroke: one may have accepted the order: nobody else is tried.
        """
        rest: Sequence[Candidate] = self.route.candidates
        while True:
            self.at, rest = rest[0], rest[1:]
            self._begin()
            try:
                came = await self._try(body, send)
            except Refusal:
                # It was not sent: it cannot be said there.
                self.give_up()
                if not rest:
                    raise
                continue
            except BaseException:
                self.give_up()
                raise
            if not isinstance(came, _WentWrong):
                return came
            rest = still_to_try(came.went, self.at, rest)
            self._over(came.went, is_fallback=bool(rest))
            if isinstance(came.last_word, Exception):
                if not rest:
                    raise came.last_word
            elif not rest:
                return came.last_word
            else:
                came.last_word.close()

    async def _try(self, body: bytes, send: Send) -> "Reply | _WentWrong":
        """The answer of the one that is tried now, if it accepts the order. Raises what else `send` raises."""
        try:
            reply = await send(self.at, self.route.body_for(self.at, body))
        except UpstreamUnreachable as error:
            return _WentWrong(NotReached(error.timed_out), error)
        except UpstreamBroke as error:
            return _WentWrong(MayBeCharged(), error)
        self._head_seconds = monotonic() - self._began
        if reply.status < 400:
            return reply
        refusal = await read_refusal(reply)
        if isinstance(refusal, Denied):
            self._denials.tell(self.at.upstream, refusal)
            return _WentWrong(refusal, _denied(self.at.upstream, refusal))
        return _WentWrong(Refused(refusal.status, _retry_after(refusal.headers)), refusal)

    def end(self, *, broke_off: bool = False, answer_tokens: int | None = None) -> None:
        """The answer has come to its end; or the upstream broke it off. Does nothing where none is under way."""
        if self._is_under_way:
            self._over(MayBeCharged() if broke_off else None, answer_tokens)

    def give_up(self) -> None:
        """The order was given up, which says nothing of the upstream."""
        if self._is_under_way:
            self._is_under_way = False
            self._health.let_go(self.at, self._tried)

    def _begin(self) -> None:
        self._tried = self._health.began(self.at)
        self._is_under_way = True
        self._began = monotonic()
        self._head_seconds = None

    def _over(self, went: Went | None, answer_tokens: int | None = None, *, is_fallback: bool = False) -> None:
        self._is_under_way = False
        seconds = monotonic() - self._began
        throughput: float | None = None
        if answer_tokens and self._head_seconds is not None and seconds > self._head_seconds:
            throughput = answer_tokens / (seconds - self._head_seconds)
        self._health.ended(self.at, self._tried, went, None if went else self._head_seconds, throughput)
        attempt = Attempt(self.at.upstream, self.at.model, went, seconds)
        self.made.append(attempt)
        self._told(attempt, is_fallback)


def _denied(upstream: str, denied: Denied) -> UpstreamDenied:
    return UpstreamDenied(f"upstream `{upstream}` refused the operator's account (status {denied.status})")


def _retry_after(headers: HeaderList) -> float | None:
    """In seconds; a date is not read."""
    text = next((value for name, value in headers if name == b"retry-after"), b"").strip()
    return float(text) if text.isdigit() and len(text) <= RETRY_AFTER_DIGITS_MAX else None
