"""When an order that one upstream did not serve is sent to the next: only where nothing was accepted, so that nobody
pays for two attempts where one answered.

- It was not reached (no connection, or none in time): the next is tried.
- It refused with 429, 5xx, or because of the operator's own account or list there (404): a refusal costs nothing, so
  the next is tried. Any other refusal is about what was ordered: only another model is tried then.
- It may have taken the order (the connection broke after it was sent, or the head did not come in time; 408, 504 and
  524 say the same of a host further on): what it cost is not known, so it is not repeated elsewhere.
- A head of status below 400 came: the order is accepted, and is not sent anywhere else, whatever comes after it.
"""

from collections.abc import Sequence

from msgspec import Struct

TOO_LATE = frozenset({408, 504, 524})
"""Refusals that say that time ran out while somebody further on may have been at work."""

NEXT_STATUSES = frozenset({404, 429})
"""Refusals below 500 after which the next upstream is tried."""


class NotReached(Struct, frozen=True):
    """No connection was made: the upstream has not heard of the order."""

    timed_out: bool = False

    @property
    def reason(self) -> str:
        return "connect_timeout" if self.timed_out else "unreachable"


class Refused(Struct, frozen=True):
    """It answered with this status, of 400 or more: the order cost nothing."""

    status: int
    retry_after_seconds: float | None = None

    @property
    def reason(self) -> str:
        return f"status_{self.status}"


class Denied(Struct, frozen=True):
    """It refused the operator's own account with this status (see `core.denials`): the order cost nothing. `words` are
    its own, for the operator."""

    status: int
    words: str = ""

    @property
    def reason(self) -> str:
        return f"status_{self.status}"


class MayBeCharged(Struct, frozen=True):
    """It may have taken the order, and nobody has said what that cost."""

    @property
    def reason(self) -> str:
        return "broke_off"


Went = NotReached | Refused | Denied | MayBeCharged
"""What went wrong with an attempt. `reason` is a word for metrics, logs and lists."""


def next_may_try(went: Went, *, is_other_model: bool) -> bool:
    """Whether an order that went wrong so is sent to another upstream, or there for another of its models."""
    match went:
        case NotReached() | Denied():
            return True
        case MayBeCharged():
            return False
        case Refused(status):
            if status in TOO_LATE:
                return False
            return is_other_model or status >= 500 or status in NEXT_STATUSES


class Attempt(Struct, frozen=True):
    """One attempt, for the order's record: where it went, as which model, what went wrong (None: it was served), and
    how long that took."""

    upstream: str
    model: str
    went: Went | None
    seconds: float


def failed_of(attempts: Sequence[Attempt]) -> str | None:
    """Those that did not serve an order, and why, as the books keep them; None where there are none."""
    failed = [
        f"{each.upstream or 'the built-in one'} {each.model}: {each.went.reason}" for each in attempts if each.went
    ]
    return "; ".join(failed) or None
