"""From the credentials that came with a request to its caller."""

from farebox.core.errors import unauthenticated
from farebox.ports import Caller, Callers


async def authenticate(callers: Callers, tokens: tuple[str, ...]) -> Caller:
    """Whoever one of the credentials belongs to: clients send a dummy beside it. Raises Refusal 401."""
    for token in tokens:
        caller = await callers.find(token)
        if caller is not None:
            return caller
    if tokens:
        raise unauthenticated("This key is not known here, or was revoked. Farebox keys look like `sk-fb-...`")
    raise unauthenticated("No key was sent. Send `Authorization: Bearer sk-fb-...`, or the same as `x-api-key`")
