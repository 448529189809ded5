"""Who manages accounts and keys: a class of credential of its own, with which nothing is ordered."""

from farebox.core.callers import ManagementKey
from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import RequestHead
from farebox.core.keys import MANAGEMENT_PREFIX, PREFIX, TOKEN_LENGTH_MAX, digest
from farebox.identity.guesses import Guesses
from farebox.ports import Directory


class Managers:
    """Managers by their keys. Nothing is remembered: a revoked key is refused from that moment on."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._guesses = Guesses()

    async def identify(self, head: RequestHead) -> ManagementKey:
        """Raises Refusal: 401, nobody; 403, a caller; 429, too many are guessing."""
        tokens = [token for token in head.tokens if token.startswith(PREFIX) and len(token) <= TOKEN_LENGTH_MAX]
        for token in tokens:
            self._guesses.check()
            if token.startswith(MANAGEMENT_PREFIX):
                found = await self._directory.find_management_key(digest(token))
                if found is not None and found.revoked_us is None:
                    return found
            elif await self._directory.find_key(digest(token)) is not None:
                raise forbidden("Only management keys can do this: `farebox management-key create` makes one")
        if tokens:
            await self._guesses.failed()
        raise unauthenticated(
            "Send a management key as `Authorization: Bearer sk-fb-management-...`; `farebox management-key create`"
            " makes one"
        )
