"""Who manages accounts and keys, by credentials of a class of their own, which order nothing."""

from farebox.core.callers import ManagementKey
from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import RequestHead
from farebox.core.keys import MANAGEMENT_PREFIX, PREFIX, TOKEN_LENGTH_MAX, digest
from farebox.identity.guesses import Guesses
from farebox.ports import Directory


class Managers:
    """Managers by their keys. Nothing is remembered, so that a revoked key is refused at once."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._guesses = Guesses()

    async def identify(self, head: RequestHead) -> ManagementKey:
        """The management key that was sent. Raises Refusal: 401, there is none; 403, it is a caller's key; 429, too
        many unknown keys are being tried."""
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
