"""Refusals that are about the operator's own account at an upstream: its key, its money, what it may use there. A
caller would take such a status or word for one about his own key, so he is never told it; the operator is."""

from msgspec import Struct

from farebox.core.formats.envelope import blames_account, read_error
from farebox.core.legible import Fields, decode_fields, decoded_or

STATUSES = frozenset({400, 401, 402, 403, 429})
"""Refusals that may be. Of 401 and 402 it is certain: an upstream knows no caller's key, and no caller's money. What
the others are about, only their bodies tell."""


class Told(Struct, frozen=True):
    """What a refusal says: `words` are for the operator. `is_of_account`: it is about his own account."""

    is_of_account: bool
    words: str = ""


def told(status: int, body: bytes | None) -> Told:
    """What a refusal with one of STATUSES says; `body` is None where it cannot be read."""
    if body is None:
        return Told(status not in (400, 429))
    fields = decoded_or(decode_fields, body, Fields())
    error = read_error(fields.get("error") or body)
    return Told(blames_account(error, status), " ".join((error.message or "").split()))
