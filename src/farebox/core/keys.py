"""Farebox's own keys, as far as no chance is in it.

A key is 32 random bytes, so its SHA-256 is as hard to guess as the key and needs no salt. Only the digest is kept, and
looked up by equality: how long a look-up takes says something about the digest at most, from which nothing follows.
"""

import hashlib
from collections.abc import Mapping

from farebox.core.callers import Account, Caller, Key
from farebox.core.errors import forbidden
from farebox.core.plans import Plan

PREFIX = "sk-fb-"


MANAGEMENT_PREFIX = "sk-fb-management-"
"""Of keys that manage accounts and order nothing."""


TOKEN_LENGTH_MAX = 200
"""No key is longer. What is, is not hashed."""


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def hint(key: str) -> str:
    """What lists show of a key: enough to tell one's own keys apart, far too little to guess from."""
    prefix = MANAGEMENT_PREFIX if key.startswith(MANAGEMENT_PREFIX) else PREFIX
    return f"{key[: len(prefix) + 4]}...{key[-4:]}"


def caller_of_key(account: Account, key: Key, plans: Mapping[str, Plan]) -> Caller:
    """Who calls with a key that is good. Raises Refusal 403: its account's plan is not known here."""
    plan = plans.get(account.plan)
    if plan is None:
        raise forbidden(
            f"The account's plan `{account.plan}` is not in this gateway's settings; its operator can add it"
        )
    for whose, limits in (("the account's limits", account.limits), ("the key's limits", key.limits)):
        if limits.models is not None or limits.answer_tokens_max is not None:
            plan = plan.narrowed(whose, limits)
    return Caller(account, key, plan)
