"""Signing in: by a key, which is never kept, or by a link that works once.

A session is 32 random bytes in a cookie, of which the books have the SHA-256: so every worker and node knows it, and
signing out ends it everywhere. It lasts an hour after its last use and twelve hours at most, and no longer than its key
holds: that is looked at for every page. Signing in always makes a new one, so nobody can choose somebody else's.

A form carries a token that follows from the session's secret: a page elsewhere cannot know it.
"""

import hmac
import secrets
from hashlib import sha256

from farebox import clock
from farebox.console.reading import SignedIn, SqlConsole
from farebox.core.errors import Refusal, forbidden, unauthenticated
from farebox.core.headers import HeaderList, read_request_head
from farebox.core.keys import MANAGEMENT_PREFIX, digest
from farebox.identity.keys import Managers
from farebox.ports import Callers

COOKIE = "farebox_console"

_SECRET_BYTES = 32
_TOKEN_LENGTH_MAX = 100

IDLE_US = 3600 * 1_000_000
LONGEST_US = 12 * IDLE_US
"""How long a session lasts after its last use, and at most."""

RENEW_US = 300 * 1_000_000
"""After so long a use is written down."""

LINK_US = IDLE_US
"""How long a link that signs in works, where nobody uses it."""

FORM_US = IDLE_US
"""How long a form that may be sent once can be sent."""

SESSIONS_MAX = 20
"""Sessions of one key; the oldest ends when there is another."""


class Sessions:
    """Who is signed in."""

    def __init__(self, kept: SqlConsole, callers: Callers, managers: Managers) -> None:
        self._kept = kept
        self._callers = callers
        self._managers = managers

    async def open(self, sent: str) -> str:
        """Open a session by a key that was sent, and return its secret. Raises Refusal: 401, the key is nobody's; 429,
        too many unknown ones are being tried."""
        head = read_request_head([(b"authorization", b"Bearer " + sent.strip().encode("ascii", "replace"))])
        if not head.tokens:
            raise unauthenticated("Paste a key: it begins with sk-fb-")
        is_manager = head.tokens[0].startswith(MANAGEMENT_PREFIX)
        key = await self._managers.identify(head) if is_manager else (await self._callers.identify(head)).key
        return await self._open(key.id, digest(head.tokens[0]), is_manager=is_manager)

    async def open_by_link(self, token: str) -> str:
        """The same by a link, which works once. Raises Refusal 403: it does not any more."""
        is_allowed, key_id = await self._kept.take_once(_digest("link", token), clock.now_us())
        found = await self._kept.key(key_id) if is_allowed and key_id is not None else None
        if found is None:
            raise forbidden("This link has been used, or is older than an hour; sign in with a key")
        return await self._open(found[1].id, found[1].digest, is_manager=False)

    async def _open(self, key_id: int, key_digest: bytes, *, is_manager: bool) -> str:
        token, now_us = secrets.token_urlsafe(_SECRET_BYTES), clock.now_us()
        await self._kept.open_session(
            _digest("session", token),
            key_id,
            key_digest,
            now_us,
            now_us + IDLE_US,
            is_manager=is_manager,
            since_us=now_us - LONGEST_US,
            most=SESSIONS_MAX,
        )
        return token

    async def find(self, token: str, *, is_use: bool = True) -> SignedIn | None:
        """Who is signed in by a session's secret; None where nobody is. A session lasts longer by what is a use of it:
        not by a page that is only left open."""
        if not token or len(token) > _TOKEN_LENGTH_MAX:
            return None
        now_us = clock.now_us()
        found = await self._kept.session(_digest("session", token), now_us, now_us - LONGEST_US)
        if is_use and found is not None and found.until_us < now_us + IDLE_US - RENEW_US:
            await self._kept.extend_session(_digest("session", token), now_us + IDLE_US)
        return found

    async def close(self, token: str) -> None:
        await self._kept.close_session(_digest("session", token))

    # What is done once

    async def permit(self, token: str) -> str:
        """A word with which whoever has this session may send one form, once."""
        word, now_us = secrets.token_urlsafe(_SECRET_BYTES), clock.now_us()
        await self._kept.allow_once(_digest("form", token + word), now_us, now_us + FORM_US)
        return word

    async def take_permit(self, token: str, word: str) -> bool:
        """Whether the form may be sent; from now on it may not."""
        is_allowed, _ = await self._kept.take_once(_digest("form", token + word), clock.now_us())
        return is_allowed


async def new_link(kept: SqlConsole, key_id: int) -> str:
    """The token of a link that signs in once, as who has a key."""
    token, now_us = secrets.token_urlsafe(_SECRET_BYTES), clock.now_us()
    await kept.allow_once(_digest("link", token), now_us, now_us + LINK_US, key_id)
    return token


def form_token(token: str) -> str:
    """What a session's forms carry."""
    return hmac.new(token.encode(), b"a form of the console", sha256).hexdigest()


def check_form(token: str, sent: str) -> None:
    """Raises Refusal 403: a form was not made for this session."""
    if not hmac.compare_digest(form_token(token).encode(), sent.encode("utf-8", "replace")):
        raise Refusal(403, "permission_denied", "This form is not of your session any more: open the page again")


def cookie(token: str, *, is_secure: bool) -> tuple[bytes, bytes]:
    """The header that sets a session's cookie; an empty token ends it. It goes with the browser."""
    ends = "" if token else "; Max-Age=0"
    secure = "; Secure" if is_secure else ""
    return b"set-cookie", f"{COOKIE}={token}; Path=/console; HttpOnly; SameSite=Strict{secure}{ends}".encode()


def token_in(headers: HeaderList) -> str:
    """The session's secret that a request's cookies have; empty where they have none."""
    for name, value in headers:
        if name == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                given, _, token = pair.strip().partition("=")
                if given == COOKIE:
                    return token
    return ""


def _digest(what: str, token: str) -> bytes:
    return sha256(f"{what} {token}".encode("utf-8", "replace")).digest()
