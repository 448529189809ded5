"""Farebox's own keys.

A key is 32 random bytes, so its SHA-256 is as hard to guess as the key and needs no salt. Only the digest is kept, and
looked up by equality: how long a look-up takes says something about the digest at most, from which nothing follows.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping

from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import RequestHead
from farebox.core.plans import Plan
from farebox.identity.guesses import Guesses
from farebox.ports import BooksUnavailable, Caller, Directory

PREFIX = "sk-fb-"
_SECRET_BYTES = 32
_TOKEN_LENGTH_MAX = 200
"""No key is longer. What is, is not hashed."""

CACHED_MAX = 100_000
"""Keys remembered in one process: about 100 MB at the very most."""

REVISION_SECONDS = 0.5
"""How long a revoked key may still be answered, by any process."""


def new_key() -> str:
    """A key to show once."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def hint(key: str) -> str:
    """What lists show of a key: enough to tell one's own keys apart, far too little to guess from."""
    return f"{key[: len(PREFIX) + 4]}...{key[-4:]}"


class KeyCallers:
    """Callers by their keys, remembered until any process changes an account or a key."""

    def __init__(self, directory: Directory, plans: Mapping[str, Plan]) -> None:
        self._directory = directory
        self._plans = plans
        self._guesses = Guesses()
        self._known: dict[bytes, Caller] = {}
        self._revision = -1

    async def identify(self, head: RequestHead) -> Caller:
        for token in head.tokens:
            caller = await self._find(token)
            if caller is not None:
                return caller
        if head.tokens:
            raise unauthenticated("This key is not known here, or was revoked. Farebox keys look like `sk-fb-...`")
        raise unauthenticated("No key was sent. Send `Authorization: Bearer sk-fb-...`, or the same as `x-api-key`")

    async def _find(self, token: str) -> Caller | None:
        if not token.startswith(PREFIX) or len(token) > _TOKEN_LENGTH_MAX:
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
        account, key = found
        plan = self._plans.get(account.plan)
        if plan is None:
            raise forbidden(
                f"The account's plan `{account.plan}` is not in this gateway's settings; its operator can add it"
            )
        caller = Caller(account, key, plan)
        # Remembered only if nothing changed while it was looked up: a revocation in between must not be outlived.
        if revision == self._revision and len(self._known) < CACHED_MAX:
            self._known[key_digest] = caller
        return caller

    async def watch(self) -> None:
        """Forget what is remembered whenever the directory changes. Runs until cancelled."""
        while True:
            try:
                revision = await self._directory.revision()
            except BooksUnavailable:
                revision = self._revision - 1
            if revision != self._revision:
                self._revision = revision
                self._known.clear()
            await asyncio.sleep(REVISION_SECONDS)
