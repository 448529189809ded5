"""Farebox's own keys: their shape, their digest, and the caller behind one. `identity.keys` makes new ones.

A key is 32 random bytes, so its SHA-256 is as hard to guess as the key and needs no salt. Only the digest is stored,
and looked up by equality: the time that takes can leak something of the digest at most, which does not lead to the key.
"""

import hashlib
from collections.abc import Mapping

from farebox.core.callers import Account, Caller, Key
from farebox.core.errors import forbidden
from farebox.core.plans import Plan

PREFIX = "sk-fb-"
MANAGEMENT_PREFIX = "sk-fb-management-"
"""How management keys begin."""

TOKEN_LENGTH_MAX = 200
"""No key is longer; longer tokens are refused without hashing them."""


_NOTHING = hashlib.sha256()


def digest(key: str) -> bytes:
    """The key's SHA-256, 32 bytes: all that is stored of it."""
    hashed = _NOTHING.copy()  # to make a new one, OpenSSL looks for the algorithm each time
    hashed.update(key.encode())
    return hashed.digest()


def hint(key: str) -> str:
    """What lists show of a key: its prefix, four characters and the last four. Enough to tell one's own keys apart."""
    prefix = MANAGEMENT_PREFIX if key.startswith(MANAGEMENT_PREFIX) else PREFIX
    return f"{key[: len(prefix) + 4]}...{key[-4:]}"


def caller_of_key(account: Account, key: Key, plans: Mapping[str, Plan]) -> Caller:
    """The caller behind a valid key. Raises Refusal 403: its account is closed, or its plan not in the settings."""
    if account.closed_us is not None:
        raise forbidden("The account is closed")
    plan = plans.get(account.plan)
    if plan is None:
        raise forbidden(
            f"The account's plan `{account.plan}` is not in this gateway's settings; its operator can add it"
        )
    for whose, limits in (("the account's limits", account.limits), ("the key's limits", key.limits)):
        if limits.models is not None or limits.answer_tokens_max is not None:
            plan = plan.narrowed(whose, limits)
    return Caller(account, key, plan)
