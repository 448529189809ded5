"""Farebox's own keys.

A key is 32 random bytes, so its SHA-256 is as hard to guess as the key and needs no salt. Only the digest is kept, and
it is looked up by equality: the time of a look-up may leak a part of the digest, which helps nobody to find the key.
"""

import logging
import secrets
from collections.abc import Callable

from farebox import clock
from farebox.core.callers import Caller, ManagementKey, PublishedPlans
from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import RequestHead
from farebox.core.keys import MANAGEMENT_PREFIX, PREFIX, TOKEN_LENGTH_MAX, caller_of_key, digest
from farebox.core.plans import Plan, difference
from farebox.identity.guesses import Guesses
from farebox.ports import BooksUnavailable, Directory

log = logging.getLogger("farebox")

_SECRET_BYTES = 32

CACHED_MAX = 100_000
"""The most keys remembered in one process: about 100 MB."""

REVISION_SECONDS = 0.5
"""How long a revoked key may still be accepted, by any process."""


def new_key(prefix: str = PREFIX) -> str:
    """A new key, to be shown once."""
    return prefix + secrets.token_urlsafe(_SECRET_BYTES)


class PlansInForce(dict[str, Plan]):
    """The plans by name: a node's own, until plans are published for all nodes; from then on those."""

    def adopt(self, published: PublishedPlans) -> None:
        """Serve under these plans from now on."""
        plans = {plan.name: plan for plan in published.plans}
        if plans != self:
            log.warning("plans are served under as %s published them: %s", published.by, difference(self, plans))
            self.clear()
            self.update(plans)


class KeyCallers:
    """The `Callers` of a stand-alone gateway. A caller is remembered until any process changes an account, a key, their
    limits or the plans."""

    def __init__(self, directory: Directory, plans: PlansInForce, now_us: Callable[[], int] = clock.now_us) -> None:
        self._directory = directory
        self._plans = plans
        self._now_us = now_us
        self._guesses = Guesses()
        self._known: dict[bytes, Caller] = {}
        self._good: set[bytes] = set()
        """Keys that were good when they were looked up last: they are looked up also while too many unknown ones are
        being tried, should a change have had them forgotten."""
        self._revision = -1
        self._takes_foreign = True
        """Whether a token may be a key that begins otherwise than Farebox's own: those are keys that were imported."""
        self._is_left_alone = False

    async def identify(self, head: RequestHead) -> Caller:
        tokens = head.tokens
        if len(tokens) > 1 and self._takes_foreign:
            # Farebox's own keys first: what stands in another header beside one is most often a dummy.
            tokens = tuple(sorted(tokens, key=lambda token: not token.startswith(PREFIX)))
        for token in tokens:
            if token.startswith(MANAGEMENT_PREFIX) or len(token) > TOKEN_LENGTH_MAX:
                continue
            if not self._takes_foreign and not token.startswith(PREFIX):
                continue
            key_digest = digest(token)
            caller = self._known.get(key_digest) or await self._look_up(key_digest)
            if caller is not None:
                if caller.key.expires_us is not None and caller.key.expires_us <= self._now_us():
                    raise unauthenticated("This key has expired")
                return caller
        if any(token.startswith(MANAGEMENT_PREFIX) for token in head.tokens):
            raise unauthenticated("A management key manages accounts and keys; order with a key of an account")
        if head.tokens:
            raise unauthenticated("This key is not known here, or was revoked. Farebox keys look like `sk-fb-...`")
        raise unauthenticated("No key was sent. Send `Authorization: Bearer sk-fb-...`, or the same as `x-api-key`")

    async def _look_up(self, key_digest: bytes) -> Caller | None:
        if key_digest not in self._good:
            self._guesses.check()
        revision = self._revision
        found = await self._directory.find_key(key_digest)
        if found is None or found[1].revoked_us is not None:
            self._good.discard(key_digest)
            await self._guesses.failed()
            return None
        if len(self._good) < CACHED_MAX:
            self._good.add(key_digest)
        account, key = found
        caller = caller_of_key(account, key.as_sent(key_digest), self._plans)
        # Remembered only if nothing changed during the look-up: it may be this key that was revoked.
        if revision == self._revision and not self._is_left_alone and len(self._known) < CACHED_MAX:
            self._known[key_digest] = caller
        return caller

    async def watch(self) -> None:
        """Forget the remembered callers, and adopt published plans, whenever the directory changes. Runs until
        cancelled. While it does not run, having failed, none is remembered: each is looked up for each order."""
        self._is_left_alone = False
        try:
            while True:
                try:
                    revision = await self._directory.revision()
                    if revision != self._revision:
                        if (new := await self._directory.published_plans()) is not None:
                            self._plans.adopt(new)
                        self._takes_foreign = await self._directory.has_foreign_keys()
                except BooksUnavailable:
                    revision = self._revision - 1
                if revision != self._revision:
                    self._revision = revision
                    self._known.clear()
                await self._directory.wait_for_change(REVISION_SECONDS)
        finally:
            self._is_left_alone = True
            self._revision -= 1
            self._known.clear()


class Managers:
    """Who manages accounts and keys, by credentials of a class of their own, which order nothing. Each is looked up
    each time, so that a revoked key is refused at once. Remembered is only which were good: these are looked up also
    while too many unknown ones are being tried, so that whoever tries keeps no manager out."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._guesses = Guesses()
        self._good: set[bytes] = set()

    async def identify(self, head: RequestHead) -> ManagementKey:
        """The management key that was sent. Raises Refusal: 401, there is none; 403, it is a caller's key; 429, too
        many unknown keys are being tried."""
        tokens = [token for token in head.tokens if token.startswith(PREFIX) and len(token) <= TOKEN_LENGTH_MAX]
        for token in tokens:
            key_digest = digest(token)
            if key_digest not in self._good:
                self._guesses.check()
            if token.startswith(MANAGEMENT_PREFIX):
                found = await self._directory.find_management_key(key_digest)
                if found is not None and found.revoked_us is None:
                    self._good.add(key_digest)
                    return found
                self._good.discard(key_digest)
            elif await self._directory.find_key(key_digest) is not None:
                raise forbidden("Only management keys can do this: `farebox management-key create` makes one")
        if tokens:
            await self._guesses.failed()
        raise unauthenticated(
            "Send a management key as `Authorization: Bearer sk-fb-management-...`; `farebox management-key create`"
            " makes one"
        )
