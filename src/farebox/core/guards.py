"""What a guard is: somebody else's code that sees an order before its money is set aside, and may refuse it or change
its body; and a whole answer after it was booked."""

from collections.abc import Awaitable
from typing import Protocol

from msgspec import Struct


class OrderView(Struct, frozen=True):
    """An order as a guard sees it. `account` and `plan` are names, `key` is the key's label, or what lists show of it.
    `format` is the path of its wire format, such as `/chat/completions`; `body` its bytes, JSON of that format."""

    account: str
    key: str
    plan: str
    models: tuple[str, ...]
    format: str
    streamed: bool
    body: bytes

    @property
    def model(self) -> str:
        """The one that is tried first."""
        return self.models[0]


class AnswerView(Struct, frozen=True):
    """A whole answer, or a whole stream (`content_type` says which), as its caller got it; and the order as guards
    let it pass. `fare_nanos` is what was charged, in nano-dollars; None while that is not known."""

    order: OrderView
    generation_id: str
    content_type: str
    body: bytes
    fare_nanos: int | None = None


class Pass(Struct, frozen=True):
    """The order may go on as it is."""


class Refuse(Struct, frozen=True):
    """The order is refused with 403; its caller is told the reason."""

    reason: str


class Changed(Struct, frozen=True):
    """The order goes on with this body, of the same format, streamed or not as before."""

    body: bytes


Decision = Pass | Refuse | Changed


class Guard(Protocol):
    """Either method may be left out, and may be a coroutine function. One that is none is called in a thread, several
    at once; one that is must not block. Whatever they raise counts as a failure."""

    def before(self, order: OrderView) -> Decision | Awaitable[Decision]:
        """Look at an order before its money is set aside."""

    def after(self, answer: AnswerView) -> None | Awaitable[None]:
        """Look at an answer that was booked. Its caller has it already, or gets it meanwhile."""
