"""Orders that are sent again under an idempotency key: how they are recognized, and the refusals when their answer
cannot be given again."""

from hashlib import sha256

from farebox.core.books import HoldRow, Repeatable
from farebox.core.errors import Refusal, conflict, gone, invalid

KEY_CHARACTERS_MAX = 255

KEPT_BYTES_MAX = 1024 * 1024
"""Longest answer kept under an idempotency key: some 200,000 tokens of text. The operator's disk holds those of a
day."""

UNDELIVERED_BYTES_MAX = 8 * 1024 * 1024
"""Longest answer kept for a repeat without a key, for some minutes: what takes longer than a proxy waits may be a
painted picture."""

REPEAT_SECONDS = 1
"""The `Retry-After` of a repetition whose order is still being answered."""


def repeatable(key: bytes, path: str, body: bytes) -> Repeatable | None:
    """By what an order is recognized when it is sent again; None without a key. Raises Refusal 400: the key is too
    long."""
    if not key:
        return None
    if len(key) > KEY_CHARACTERS_MAX:
        raise invalid(f"idempotency-key: at most {KEY_CHARACTERS_MAX} characters, not {len(key)}")
    return Repeatable(sha256(key).digest(), sha256(b"%b\0%b" % (path.encode(), body)).digest())


def other_order() -> Refusal:
    """409: the key was used for an order with another path or body."""
    return conflict("idempotency-key: another order was sent under this key; a key stands for one order")


def still_answered() -> Refusal:
    """409, to be repeated: the order under the key has not ended yet."""
    return conflict("idempotency-key: the order under this key is still being answered", REPEAT_SECONDS)


def not_kept(hold: HoldRow) -> Refusal:
    """410: the order under the key has ended, and its answer was not kept."""
    why = f"was over {KEPT_BYTES_MAX} bytes, broke off, or was deleted" if hold.state == "posted" else "was cut off"
    return gone(
        f"idempotency-key: the answer to the order under this key was not kept: it {why}."
        f" Its generation is {hold.generation_id or 'not known'}; to order anew, send another key",
        generation_id=hold.generation_id,
    )
