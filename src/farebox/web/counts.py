"""POST /messages/count_tokens: how many tokens a prompt has, as Anthropic's clients ask. Nothing is ordered."""

import msgspec
from starlette.types import Receive, Scope, Send

from farebox.core.formats import messages
from farebox.core.headers import read_request_head
from farebox.http.asgi import AsgiBody, Endpoint, send_json
from farebox.http.bodies import BodyReader
from farebox.http.refusals import guarded
from farebox.ports import Callers
from farebox.token_counts import TokenCounts

PATH = "/messages/count_tokens"

COUNTED_HEADER = b"x-farebox-tokens"
"""`counted`, by the upstream, or `at-most`: a bound, which no count of it exceeds."""


def count_tokens(callers: Callers, counts: TokenCounts, bodies: BodyReader) -> Endpoint:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        head = read_request_head(scope["headers"])
        caller = await callers.identify(head)
        counted = await counts.count(caller, head, await bodies.read_json(AsgiBody(scope, receive), head))
        how = b"at-most" if counted.counted_by is None else b"counted"
        await send_json(send, msgspec.json.encode({"input_tokens": counted.tokens}), [(COUNTED_HEADER, how)])

    return guarded(endpoint, messages)
