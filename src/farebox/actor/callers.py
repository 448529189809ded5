"""Callers of an Actor: the platform has authenticated them, and their Apify token says who they are.

Only a token's digest is kept. The platform is asked whose token it is, again every FRESH_SECONDS.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from time import monotonic

from msgspec import Struct
from msgspec.structs import replace

from farebox import clock
from farebox.acting import acting
from farebox.core.books import Outside
from farebox.core.callers import Account, Caller, Key, User
from farebox.core.errors import forbidden, too_many, unauthenticated
from farebox.core.headers import RequestHead
from farebox.core.keys import digest
from farebox.core.plans import Plan
from farebox.core.trail import By
from farebox.identity.guesses import Guesses
from farebox.identity.keys import CACHED_MAX
from farebox.ports import ApifyUnreachable, Directory, Users

REQUEST_ID = b"x-actor-request-id"
"""The header with the platform's id of a request that it forwards; the request's caller is charged by this id."""

FRESH_SECONDS = 600.0
"""How long the platform's answer about a token counts: for so long a revoked token may still be served here."""

STALE_SECONDS = 86_400.0
"""How long it counts while the platform does not answer."""

UNSURE_SECONDS = 10.0
"""How long an unknown token counts as the run owner's while the platform does not answer, until it is asked again."""

UNKNOWN_SECONDS = 30.0
"""How long the platform is not asked again about a token that it did not know: some clients always send a dummy."""

UNKNOWN_MAX = 10_000
RETRY_SECONDS = 5


class Policy(Struct, frozen=True):
    """Who may order: everybody, or Actors only. An Actor is recognised by a header that the platform sets (`header`
    with this `value`) or, where `header` is empty, by sending the token of a run."""

    actors_only: bool = False
    header: bytes = b""
    value: bytes = b""

    def check_head(self, head: RequestHead) -> None:
        """Raises Refusal 403."""
        if self.actors_only and self.header and head.first(self.header).strip().lower() != self.value.lower():
            name, value = self.header.decode("latin-1"), self.value.decode("latin-1")
            raise forbidden(f"Only Actors may order here: the platform marks them by `{name}: {value}`, and did not")

    def check_user(self, user: User) -> None:
        """Raises Refusal 403."""
        if self.actors_only and not self.header and not user.is_of_run:
            raise forbidden(
                "Only Actors may order here: send the token of an Actor's run (its APIFY_TOKEN), not that of a user"
            )


class Terms(Struct, frozen=True):
    """The terms of one run. `owner` is the user whose run it is (None on one's own machine, where no token is needed),
    `limit_nanos` what the run may charge in all. With `is_shared` (multi-tenant) each request's own caller pays,
    charged by the request's id; without, the owner pays for all, charged by the run. `free_times` is how many of the
    platform's events stand for one of a free caller's."""

    account: str
    owner: User | None
    owner_is_paying: bool
    paying: Plan
    free: Plan
    is_shared: bool = False
    policy: Policy = Policy()
    limit_nanos: int | None = None
    is_charged: bool = True
    free_times: int = 1


class _Known(Struct):
    user: User
    caller: Caller
    asked_at: float


class ApifyCallers:
    """The `Callers` of one run. `users` is None on one's own machine."""

    def __init__(
        self, directory: Directory, users: Users | None, terms: Terms, now: Callable[[], float] = monotonic
    ) -> None:
        self._now = now
        self._directory = directory
        self._users = users
        self._terms = terms
        self._guesses = Guesses()
        self._known: dict[bytes, _Known] = {}
        self._unknown: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[_Known | None]] = {}
        self._unnamed: Caller | None = None
        self._making = asyncio.Lock()

    async def identify(self, head: RequestHead) -> Caller:
        policy = self._terms.policy
        policy.check_head(head)
        if self._users is None:
            return self._charged(await self._owner(), head)
        for token in head.tokens:
            known = await self._look_up(token)
            if known is None:
                continue
            policy.check_user(known.user)
            return self._charged(known.caller, head)
        if head.tokens:
            raise unauthenticated(
                "The Apify platform does not know this token: it is not an Apify token, was revoked or has expired"
            )
        if not self._terms.is_shared or policy.actors_only:
            raise unauthenticated("No token was sent. Send an Apify token as `Authorization: Bearer`, or `?token=`")
        return self._charged(await self._nobody(), head)

    def _charged(self, caller: Caller, head: RequestHead) -> Caller:
        """The caller with how it is charged outside. Raises Refusal 403: the request came past the platform, which so
        could not charge it."""
        if not self._terms.is_charged:
            return caller
        times = self._terms.free_times if caller.plan is self._terms.free else 1
        request_id = head.first(REQUEST_ID).decode("latin-1") if self._terms.is_shared else ""
        if self._terms.is_shared and not request_id:
            raise forbidden("This request did not come through the platform (it has no X-Actor-Request-ID)")
        return replace(caller, outside=Outside(request_id, times))

    async def owner(self) -> Caller:
        """The user whose run it is, as a caller, without a request."""
        return self._charged(await self._owner(), RequestHead())

    async def _owner(self) -> Caller:
        if self._unnamed is None:
            account, key = await self._account(self._terms.account, digest("the run's own"))
            plan = self._terms.paying if self._terms.owner_is_paying else self._terms.free
            self._unnamed = Caller(account, key, plan)
        return self._unnamed

    async def _nobody(self) -> Caller:
        """A caller whose token the platform did not pass on: only the request's id is known."""
        if self._unnamed is None:
            account, key = await self._account("callers without a token", digest("no token"))
            self._unnamed = Caller(account, key, self._terms.free)
        return self._unnamed

    async def _look_up(self, token: str) -> _Known | None:
        """The user and the caller whose token this is; None where it is nobody's. Raises Refusal 403, 429."""
        token_digest = digest(token)
        known = self._known.get(token_digest)
        if known is not None and self._now() < known.asked_at + FRESH_SECONDS:
            return known
        if self._now() < self._unknown.get(token_digest, 0.0):
            return None
        if token_digest not in self._asking:
            self._guesses.check()
            asking = asyncio.create_task(self._ask(token, token_digest, known))
            self._asking[token_digest] = asking
            asking.add_done_callback(lambda _: self._asking.pop(token_digest, None))
        return await asyncio.shield(self._asking[token_digest])

    async def _ask(self, token: str, token_digest: bytes, known: _Known | None) -> _Known | None:
        assert self._users is not None
        try:
            user = await self._users.user_of(token)
        except ApifyUnreachable as error:
            if known is not None and self._now() < known.asked_at + STALE_SECONDS:
                return known
            if self._terms.is_shared or self._terms.policy.actors_only or self._terms.owner is None:
                raise too_many(f"The platform does not say whose token this is: {error}", RETRY_SECONDS) from error
            # The platform routed the request to this run, and does that for the run's owner alone.
            known = await self._remember(token_digest, self._terms.owner)
            known.asked_at -= FRESH_SECONDS - UNSURE_SECONDS
            return known
        if user is None:
            self._known.pop(token_digest, None)
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[token_digest] = self._now() + UNKNOWN_SECONDS
            await self._guesses.failed()
            return None
        return await self._remember(token_digest, user)

    async def _remember(self, token_digest: bytes, user: User) -> _Known:
        owner = self._terms.owner
        if not self._terms.is_shared and owner is not None:
            if user.id != owner.id:
                raise forbidden("This run of the Actor is another user's, who would pay: ask the Actor's own URL")
            # Whether its owner is a paying user, the run knows from its environment.
            user = User(user.id, self._terms.owner_is_paying, user.is_of_run)
        name = f"user {user.id}" if self._terms.is_shared else self._terms.account
        account, key = await self._account(name, token_digest)
        caller = Caller(account, key, self._terms.paying if user.is_paying else self._terms.free)
        known = _Known(user, caller, self._now())
        if len(self._known) >= CACHED_MAX:
            self._known.clear()
        self._known[token_digest] = known
        return known

    async def _account(self, name: str, token_digest: bytes) -> tuple[Account, Key]:
        """The account of this name, and its key for this token; each is created where there is none."""
        key_digest = sha256(b"%b\0%b" % (name.encode(), token_digest)).digest()
        with acting(By("actor", "Farebox's Actor, for a caller")):
            return await self._found_or_made(name, key_digest)

    async def _found_or_made(self, name: str, key_digest: bytes) -> tuple[Account, Key]:
        async with self._making:
            account = await self._directory.find_account(name)
            if account is None:
                limit_nanos = None if self._terms.is_shared else self._terms.limit_nanos
                plan = self._terms.paying.name
                account = await self._directory.create_account(name, plan, limit_nanos, clock.now_us())
            found = await self._directory.find_key(key_digest)
            if found is not None:
                return found
            label = "a token of the platform"
            return account, await self._directory.create_key(account.id, label, key_digest, "", clock.now_us())
