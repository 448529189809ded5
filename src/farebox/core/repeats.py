"""Orders that are sent again without an idempotency key: how they are recognized, which order they join, and what
becomes of them.

SDKs made by Stainless (OpenAI's, Anthropic's) send the same bytes again after 408, 409, 429, 5xx and broken
connections, and say so: `x-stainless-retry-count` is 0 with the first try, then 1, 2, ... They send no key.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Literal

from msgspec import Struct

from farebox.core.books import Delivery, First, HoldRow, HoldState, Seen
from farebox.core.errors import Refusal, conflict, gone

Joins = Literal["marked", "unmarked", "off"]
"""Which orders join one that was placed before: those that say that they repeat it; also those that do not say so,
where nobody was there to take its answer; none."""

REPEAT_LIFE_US = 15 * 60 * 1_000_000
"""How long after an order was placed a repeat of it joins it."""

LOST_US = 30 * 1_000_000
"""How long after an order was charged its answer counts as lost where its process has died since: it may have died
between the two."""

COUNT_DIGITS_MAX = 4
"""A retry count that is longer is none: nobody repeats a call so often."""

DIGEST_BYTES = 16

REPEAT_SECONDS = 1
"""The `Retry-After` of a repeat whose order is still being answered."""


def is_repeat(count: bytes) -> bool:
    """Whether an `x-stainless-retry-count` says that its request repeats another. What is no count says nothing."""
    return count != b"0" and count.isdigit() and len(count) <= COUNT_DIGITS_MAX and int(count) > 0


_NOTHING = sha256()


def order_digest(path: str, body: bytes) -> bytes:
    """By what an order is recognized when it is sent again."""
    hashed = _NOTHING.copy()  # to make a new one, OpenSSL looks for the algorithm each time
    hashed.update(b"%b\0%b" % (path.encode(), body))
    return hashed.digest()[:DIGEST_BYTES]


def is_repeatable(hold: HoldRow, now_us: int) -> bool:
    """Whether a repeat of the order, sent now, still joins it."""
    return hold.created_us > now_us - REPEAT_LIFE_US


class Kept(Struct, frozen=True):
    """What was kept for an order's repeats: its answer, or that there is none. `is_given`: a repeat has got it."""

    hold_id: str
    has_body: bool
    is_given: bool


class Found(Struct, frozen=True):
    """The order that a repeat joins; where it is to be `marked` as joined or lost, only if it is in this `state`
    still."""

    hold_id: str
    marked: Delivery | None = None
    state: HoldState = "pending"


def first_of(
    kept: Iterable[Kept], not_ended: Sequence[HoldRow], is_gone: Callable[[str], bool], *, is_marked: bool
) -> Found | None:
    """Which of the same orders a repeat joins: one whose answer was kept, the latest first; one that has not ended, the
    oldest first; one whose answer is lost. `is_gone` says whether a worker has died."""
    answers = [each for each in kept if is_marked or not each.is_given]
    for answer in answers:
        if answer.has_body:
            return Found(answer.hold_id)
    for hold in not_ended:
        if hold.delivery is not None:
            return Found(hold.id)
    if is_marked:
        for hold in not_ended:
            if hold.state == "pending":
                return Found(hold.id, "joined")
            if is_gone(hold.worker):
                return Found(hold.id, "lost", "open")
    return Found(answers[0].hold_id) if answers else None


def seen_ended(ended: Iterable[tuple[str, str]], own: str, is_gone: Callable[[str], bool]) -> Seen:
    """What a repeat finds where the same orders have ended (their holds and workers are given), and nothing was kept of
    them: one whose answer is lost, since its worker has died. What the `own` worker knows of its callers is noted."""
    may_follow = False
    for hold_id, worker in ended:
        if worker != own:
            if is_gone(worker):
                return Seen(hold_id)
            may_follow = True
    return Seen(may_follow=may_follow)


def becomes(first: First) -> Literal["answered", "ordered", "waiting"]:
    """What becomes of a repeat whose first order stands so.

    Raises:
        Refusal: 410, it has been charged, or may be, and there is no answer to give.
    """
    hold = first.hold
    if first.body is not None:
        return "answered"
    if hold.state == "voided":
        return "ordered"
    if hold.state == "pending" or (hold.state == "open" and not hold.is_unresolved):
        return "waiting"
    charged = "it has been charged" if hold.state == "posted" else "what it cost is not known"
    raise gone(
        f"This request says that it repeats another, whose answer was lost: {charged}, and its caller, or the process"
        f" that served it, was gone before the answer. Its generation is {hold.generation_id or 'not known'}; to order"
        " anew, send a new request",
        generation_id=hold.generation_id,
    )


def still_under_way() -> Refusal:
    """409, to be repeated: the order that this one repeats has not ended yet."""
    return conflict("The request that this one repeats is still being answered", REPEAT_SECONDS)
