"""Asking guards within bounds. One that fails, is slow, or answers what is no answer, refuses the order or lets it
pass, as is set for it; the gateway goes on in any case."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Literal, TypeVar

from msgspec import Struct

from farebox.core.books import Fare, KeptAnswer
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, forbidden
from farebox.core.formats import Asked, Format
from farebox.core.guards import AnswerView, Changed, Decision, Guard, OrderView, Pass, Refuse
from farebox.core.intake import read_asked
from farebox.guards.threads import Threads

T = TypeVar("T")

OnFailure = Literal["refuse", "pass"]

ANSWERS_MAX = 256
"""Answers that wait to be looked at; of more, guards are not told. Each is a megabyte at most."""

ANSWERS_AT_ONCE = 4
REASON_LENGTH_MAX = 500

log = logging.getLogger("farebox")


class DeclaredGuard(Struct, frozen=True):
    """A guard under its name, how many seconds it may take, and what becomes of an order where it fails."""

    name: str
    guard: Guard
    seconds: float = 1.0
    on_failure: OnFailure = "refuse"


class Guarded(Struct, frozen=True):
    """An order that all guards let pass: its body, what that asks, and how guards saw it last."""

    body: bytes
    asked: Asked
    view: OrderView


class _Failed(Exception):  # noqa: N818
    """A guard did not decide; `verdict` is the word for metrics, the message says why."""

    def __init__(self, verdict: Literal["failed", "slow"], message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


class Guards:
    """All guards, asked one after the other. `counted` is told each one's name and verdict."""

    def __init__(
        self, guards: Sequence[DeclaredGuard], counted: Callable[[str, str], None] = lambda guard, verdict: None
    ) -> None:
        self._before = [each for each in guards if callable(getattr(each.guard, "before", None))]
        self._after = [each for each in guards if callable(getattr(each.guard, "after", None))]
        self._counted = counted
        self._threads = Threads("farebox-guard")
        self._answers: asyncio.Queue[AnswerView] = asyncio.Queue(ANSWERS_MAX)

    @property
    def want_answers(self) -> bool:
        """Whether there is a guard that looks at answers, so that a copy of each is wanted."""
        return bool(self._after)

    async def before(self, caller: Caller, path: str, wire: Format, body: bytes, asked: Asked | None = None) -> Guarded:
        """Have all guards look at an order. `asked` is what its body asks, where that was read before.

        Raises:
            Refusal: 403, a guard refuses it; 400, it is no order of this format.
        """
        asked = asked or read_asked(body, wire)
        view = _view(caller, path, body, asked)
        for each in self._before:
            try:
                decision = await self._decision(each, view)
                if isinstance(decision, Changed):
                    asked = _asked_anew(decision, view, wire)
                    view = _view(caller, path, decision.body, asked)
            except _Failed as failure:
                self._counted(each.name, failure.verdict)
                log.warning("the guard `%s` did not decide on an order: %s", each.name, failure)
                if each.on_failure == "refuse":
                    raise _refused(each, f"it could not look at it: it {failure}") from failure
                continue
            match decision:
                case Refuse(reason):
                    self._counted(each.name, "refuse")
                    raise _refused(each, str(reason)[:REASON_LENGTH_MAX])
                case Changed():
                    self._counted(each.name, "changed")
                case Pass():
                    self._counted(each.name, "pass")
        return Guarded(view.body, asked, view)

    def after(self, view: OrderView, kept: KeptAnswer | None, generation_id: str, fare: Fare | None) -> None:
        """Have guards look at an answer that was booked, soon. `kept` is None where it broke off, or is longer than is
        kept: guards are not told then."""
        if kept is None or not self._after:
            return
        answer = AnswerView(view, generation_id, kept.content_type, kept.body, None if fare is None else fare.nanos)
        try:
            self._answers.put_nowait(answer)
        except asyncio.QueueFull:
            for each in self._after:
                self._counted(each.name, "left_out")

    async def run(self) -> None:
        """Have guards look at answers as they come. Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(ANSWERS_AT_ONCE):
                tasks.create_task(self._look_at_answers())

    async def _look_at_answers(self) -> None:
        while True:
            await self.look_at(await self._answers.get())

    async def look_at(self, answer: AnswerView) -> None:
        """Have all guards look at one answer. What goes wrong is counted and logged."""
        for each in self._after:
            try:
                await self._ask(each, each.guard.after, answer)
            except _Failed as failure:
                self._counted(each.name, failure.verdict)
                log.warning("the guard `%s` did not look at an answer: it %s", each.name, failure)

    async def _decision(self, each: DeclaredGuard, order: OrderView) -> Decision:
        """What a guard decides. Raises _Failed."""
        said = await self._ask(each, each.guard.before, order)
        if not isinstance(said, Pass | Refuse | Changed):
            raise _Failed("failed", f"answered {type(said).__name__}, which is no decision")
        return said

    async def _ask(self, each: DeclaredGuard, method: Callable[[T], Any], seen: T) -> object:
        """What a guard says, within its bound. Raises _Failed."""
        try:
            async with asyncio.timeout(each.seconds):
                said = method(seen) if iscoroutinefunction(method) else await self._threads.do(lambda: method(seen))
                # A decorator may hide that it is a coroutine function.
                return await said if isawaitable(said) else said
        except TimeoutError as error:
            raise _Failed("slow", f"took longer than {each.seconds:g} s") from error
        except Exception as error:
            # Somebody else's code: whatever it raises, the order's caller is told what is set.
            log.error("the guard `%s` failed", each.name, exc_info=error)
            raise _Failed("failed", "failed") from error


def _asked_anew(changed: Changed, view: OrderView, wire: Format) -> Asked:
    """What a changed body asks. Raises _Failed."""
    try:
        asked = read_asked(changed.body, wire)
    except (Refusal, TypeError) as error:
        raise _Failed("failed", f"made an order of it that is none: {error}") from error
    if asked.streamed != view.streamed:
        raise _Failed("failed", "changed whether it is streamed")
    return asked


def _view(caller: Caller, path: str, body: bytes, asked: Asked) -> OrderView:
    key = caller.key.label or caller.key.hint
    return OrderView(caller.account.name, key, caller.plan.name, asked.models, path, asked.streamed, body)


def _refused(each: DeclaredGuard, reason: str) -> Refusal:
    refusal = forbidden(f"The guard `{each.name}` refuses this order: {reason}")
    return Refusal(
        refusal.status, refusal.error_type, refusal.message, metadata={"guard": each.name, "reasons": [reason]}
    )
