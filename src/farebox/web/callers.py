"""Who is calling, for endpoints that are not orders."""

from starlette.types import Scope

from farebox.core.callers import Caller
from farebox.core.headers import read_request_head
from farebox.ports import Callers


async def caller_of(callers: Callers, scope: Scope) -> Caller:
    """Raises Refusal 401."""
    return await callers.identify(read_request_head(scope["headers"]))


async def caller_if_any(callers: Callers, scope: Scope) -> Caller | None:
    """None where no credential was sent. Raises Refusal 401 where one was, and is nobody's: a list for everybody would
    hide that."""
    head = read_request_head(scope["headers"])
    return await callers.identify(head) if head.tokens else None
