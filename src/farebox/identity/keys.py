"""Farebox's own keys.

A key is 32 random bytes, so its SHA-256 is as hard to guess as the key and needs no salt. Only the digest is kept, and
looked up by equality: how long a look-up takes says something about the digest at most, from which nothing follows.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping

from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import RequestHead
from farebox.core.plans import Plan
from farebox.identity.guesses import Guesses
from farebox.ports import Account, BooksUnavailable, Caller, Directory, Key, PublishedPlans

log = logging.getLogger("farebox")

PREFIX = "sk-fb-"

MANAGEMENT_PREFIX = "sk-fb-management-"
"""Of keys that manage accounts and order nothing."""

_SECRET_BYTES = 32
TOKEN_LENGTH_MAX = 200
"""No key is longer. What is, is not hashed."""

CACHED_MAX = 100_000
"""Keys remembered in one process: about 100 MB at the very most."""

REVISION_SECONDS = 0.5
"""How long a revoked key may still be answered, by any process."""


def new_key(prefix: str = PREFIX) -> str:
    """A key to show once."""
    return prefix + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def hint(key: str) -> str:
    """What lists show of a key: enough to tell one's own keys apart, far too little to guess from."""
    prefix = MANAGEMENT_PREFIX if key.startswith(MANAGEMENT_PREFIX) else PREFIX
    return f"{key[: len(prefix) + 4]}...{key[-4:]}"


class PlansInForce(Mapping[str, Plan]):
    """A node's own plans, until one is published for all nodes: then those."""

    def __init__(self, own: Mapping[str, Plan]) -> None:
        self._plans = own

    def adopt(self, published: PublishedPlans) -> None:
        plans = {plan.name: plan for plan in published.plans}
        if plans != self._plans:
            log.warning("plans are served under as %s published them: %s", published.by, difference(self._plans, plans))
            self._plans = plans

    def __getitem__(self, name: str) -> Plan:
        return self._plans[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)


def difference(before: Mapping[str, Plan], after: Mapping[str, Plan]) -> str:
    """Which plans are others, in words; empty where none is."""
    named = {
        "new": [name for name in after if name not in before],
        "changed": [name for name, plan in after.items() if name in before and before[name] != plan],
        "gone": [name for name in before if name not in after],
    }
    return "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in named.items() if names)


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


class KeyCallers:
    """Callers by their keys, remembered until any process changes an account, a key, their limits or the plans."""

    def __init__(
        self, directory: Directory, plans: PlansInForce, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._directory = directory
        self._plans = plans
        self._now_us = now_us
        self._guesses = Guesses()
        self._known: dict[bytes, Caller] = {}
        self._revision = -1

    async def identify(self, head: RequestHead) -> Caller:
        for token in head.tokens:
            caller = await self._find(token)
            if caller is not None:
                if caller.key.expires_us is not None and caller.key.expires_us <= self._now_us():
                    raise unauthenticated("This key has expired")
                return caller
        if any(token.startswith(MANAGEMENT_PREFIX) for token in head.tokens):
            raise unauthenticated("A management key manages accounts and keys; order with a key of an account")
        if head.tokens:
            raise unauthenticated("This key is not known here, or was revoked. Farebox keys look like `sk-fb-...`")
        raise unauthenticated("No key was sent. Send `Authorization: Bearer sk-fb-...`, or the same as `x-api-key`")

    async def _find(self, token: str) -> Caller | None:
        if not token.startswith(PREFIX) or token.startswith(MANAGEMENT_PREFIX) or len(token) > TOKEN_LENGTH_MAX:
            return None
        key_digest = digest(token)
        caller = self._known.get(key_digest)
        return caller if caller is not None else await self._look_up(key_digest)

    async def _look_up(self, key_digest: bytes) -> Caller | None:
        self._guesses.check()
        revision = self._revision
        found = await self._directory.find_key(key_digest)
        if found is None or found[1].revoked_us is not None:
            await self._guesses.failed()
            return None
        caller = caller_of_key(*found, self._plans)
        # Remembered only if nothing changed while it was looked up: a revocation in between must not be outlived.
        if revision == self._revision and len(self._known) < CACHED_MAX:
            self._known[key_digest] = caller
        return caller

    async def watch(self) -> None:
        """Forget what is remembered whenever the directory changes. Runs until cancelled."""
        while True:
            try:
                revision = await self._directory.revision()
                if revision != self._revision and (published := await self._directory.published_plans()) is not None:
                    self._plans.adopt(published)
            except BooksUnavailable:
                revision = self._revision - 1
            if revision != self._revision:
                self._revision = revision
                self._known.clear()
            await self._directory.wait_for_change(REVISION_SECONDS)
