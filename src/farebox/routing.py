"""The upstreams that may serve an order, tried in turn while nothing was accepted. The rules are in `core.routing`
(which ones, in what order) and `core.attempts` (when the next is tried)."""

import random
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from farebox.core.attempts import Attempt, MayBeCharged, NotReached, Refused, Went
from farebox.core.errors import Refusal, unknown
from farebox.core.formats import Asked
from farebox.core.headers import HeaderList
from farebox.core.routing import Candidate, Policy, Route, choose, still_to_try
from farebox.core.wishes import read_wishes
from farebox.ports import Reply, UpstreamBroke, UpstreamUnreachable
from farebox.upstream_health import Health, Name

Send = Callable[[Candidate, bytes], Awaitable[Reply]]
"""Sends a body to a candidate. Raises UpstreamUnreachable, UpstreamBroke."""

RETRY_AFTER_DIGITS_MAX = 5


class Sole:
    """The attempt at an order where one upstream serves all: nothing to choose from, and nothing to note."""

    __slots__ = ("at",)

    made: tuple[Attempt, ...] = ()

    def __init__(self, candidate: Candidate) -> None:
        self.at = candidate

    def answer(self, body: bytes, send: Send) -> Awaitable[Reply]:
        return send(self.at, body)

    def end(self, *, broke_off: bool = False, answer_tokens: int | None = None) -> None: ...

    def give_up(self) -> None: ...


_NO_TRIES: frozenset[Name] = frozenset()


class Routing:
    """Finds the upstreams for orders. `serving` gives the candidates for a model, `told` hears of each attempt when it
    is over, `chance` gives random numbers from 0 to below 1."""

    def __init__(
        self,
        serving: Callable[[str], Sequence[Candidate]],
        health: Health,
        policy: Policy = "order",
        told: Callable[[Attempt, bool], None] = lambda attempt, is_fallback: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._serving = serving
        self._health = health
        self._policy = policy
        self._told = told
        self._chance = chance

    def attempts(self, path: str, body: bytes, asked: Asked) -> "Attempts | Sole":
        """The attempts at an order, none of them made yet.

        Raises:
            Refusal: 400, `provider` is no such; 404, nobody serves it as it is asked; 429, all who do are busy.
        """
        models = asked.models
        candidates: Sequence[Candidate] = self._serving(models[0])
        if len(candidates) == 1 and candidates[0].is_alone:
            # What the order wishes is read there.
            return Sole(candidates[0])
        if len(models) > 1:
            candidates = [each for model in dict.fromkeys(models) for each in self._serving(model)]
        if not candidates:
            raise unknown(f"no upstream here serves `{models[0]}`")
        wishes = read_wishes(path, body, asked)
        route = choose(wishes, candidates, self._health.condition, self._policy, self._chance())
        return Attempts(route, self._health, self._told)


class Attempts:
    """The attempts at one order. `made` are those that are over, for its record; `at` is the candidate that is tried
    now, or that answered."""

    def __init__(self, route: Route, health: Health, told: Callable[[Attempt, bool], None]) -> None:
        self.route = route
        self.made: list[Attempt] = []
        self.at = route.candidates[0]
        self._health = health
        self._told = told
        self._tried = _NO_TRIES
        self._is_under_way = False
        self._began = 0.0
        self._head_seconds: float | None = None

    async def answer(self, body: bytes, send: Send) -> Reply:
        """The first answer that accepts the order; or else the last one that refuses it.

        Raises:
            Refusal: what `send` raised for the last one: the order cannot be said there.
            UpstreamUnreachable: the last one tried was not reached.
            UpstreamBroke: one may have accepted the order: nobody else is tried.
        """
        rest: Sequence[Candidate] = self.route.candidates
        while True:
            self.at, rest = rest[0], rest[1:]
            self._begin()
            failure: UpstreamUnreachable | UpstreamBroke | None = None
            reply: Reply | None = None
            went: Went
            try:
                reply = await send(self.at, self.route.body_for(self.at, body))
            except UpstreamUnreachable as error:
                failure, went = error, NotReached(error.timed_out)
            except UpstreamBroke as error:
                failure, went = error, MayBeCharged()
            except Refusal:
                # It was not sent: it cannot be said there.
                self.give_up()
                if not rest:
                    raise
                continue
            except BaseException:
                self.give_up()
                raise
            else:
                self._head_seconds = monotonic() - self._began
                if reply.status < 400:
                    return reply
                went = Refused(reply.status, _retry_after(reply.headers))
            rest = still_to_try(went, self.at, rest)
            self._over(went, is_fallback=bool(rest))
            if not rest:
                break
            if reply is not None:
                reply.close()
        if failure is not None:
            raise failure
        assert reply is not None
        return reply

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


def _retry_after(headers: HeaderList) -> float | None:
    """In seconds; a date is not read."""
    text = next((value for name, value in headers if name == b"retry-after"), b"").strip()
    return float(text) if text.isdigit() and len(text) <= RETRY_AFTER_DIGITS_MAX else None
