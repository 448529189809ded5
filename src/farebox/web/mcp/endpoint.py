"""/mcp: Farebox's tools for agents, over MCP's streamable HTTP, without sessions and in plain JSON.

The official SDK weighs 57 MB, so it is imported by the first request that needs it.
"""

import asyncio
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from starlette.types import Message, Receive, Scope, Send

from farebox.accounts import Accounts
from farebox.background import Supervisor
from farebox.catalog import Catalog
from farebox.core.errors import unknown, wrong_type
from farebox.core.headers import HeaderList, read_request_head
from farebox.core.legible import legible_if_needed
from farebox.http.asgi import JSON, Endpoint
from farebox.platform.runs import Runner
from farebox.platform.store import SqlRuns
from farebox.whole_orders import WholeOrders

CALLER = "farebox.caller"
"""Where a request's caller stands in its scope."""


class ActorTools(NamedTuple):
    """What the Actor's tools need, where this gateway is a platform for Actors."""

    runner: Runner
    runs: SqlRuns


class Agents:
    """What the tools need, and the MCP server, which starts with the first request."""

    def __init__(
        self,
        orders: WholeOrders,
        catalog: Catalog,
        accounts: Accounts,
        supervisor: Supervisor,
        actor: ActorTools | None = None,
    ) -> None:
        self.orders = orders
        self.catalog = catalog
        self.accounts = accounts
        self._supervisor = supervisor
        self.actor = actor
        self._running: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Endpoint] | None = None

    async def endpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One JSON-RPC message by POST. There are no sessions, so nothing to listen to by GET or to DELETE."""
        head = read_request_head(scope["headers"])
        await self.orders.callers.identify(head)
        scope["headers"] = _spelt_out(scope["headers"])
        server, receive = await self._server(), _plainly(receive)
        message = await receive()
        # Once more, and last: the message may have been long in coming.
        scope[CALLER] = await self.orders.callers.identify(head)
        await server(scope, _begun_with(message, receive), send)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _server(self) -> Endpoint:
        if find_spec("mcp") is None:
            raise unknown("There are no tools here: MCP is not installed (pip install 'farebox[mcp]')")
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._running = asyncio.create_task(self._run(self._ready))
        return await asyncio.shield(self._ready)

    async def _run(self, ready: "asyncio.Future[Endpoint]") -> None:
        try:
            tools = await asyncio.to_thread(import_module, "farebox.web.mcp.tools")
            async with tools.serving(self) as endpoint:
                ready.set_result(endpoint)
                await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - told to the supervisor, and to who waits
            self._ready = None  # the next request tries again
            self._supervisor.failed("tools", error)
            if not ready.done():
                ready.set_exception(error)


def _spelt_out(headers: HeaderList) -> HeaderList:
    """Headers with the `content-type` and `accept` that the SDK insists on, added where a request leaves them out.

    Raises:
        Refusal: 415, the request sends another type than JSON.
    """
    media_type = read_request_head(headers).media_type
    if media_type not in (b"", JSON[1]):
        raise wrong_type(f"content-type: send application/json, not {media_type[:80].decode('latin-1')!r}")
    said = [(name, value) for name, value in headers if value and name != JSON[0]]
    accepts_all = [] if any(name == b"accept" for name, _ in said) else [(b"accept", b"*/*")]
    return [*said, JSON, *accepts_all]


def _begun_with(message: Message, receive: Receive) -> Receive:
    """Receive a message that was received before, then what comes after it."""
    first = [message]

    async def receive_next() -> Message:
        return first.pop() if first else await receive()

    return receive_next


BODY_BYTES_MAX = 32 * 1024 * 1024
"""The longest message; the SDK's server refuses a longer one."""


def _plainly(receive: Receive) -> Receive:
    """Receive a whole message, with what the SDK's strict JSON reader would refuse replaced: half of a character in a
    prompt would fail every later call of an agent that has it in its history."""

    async def whole() -> Message:
        parts: list[bytes] = []
        size = 0
        while (message := await receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            is_last = not message.get("more_body", False)
            if is_last or size > BODY_BYTES_MAX:
                body = b"".join(parts)
                return {**message, "body": legible_if_needed(body) if is_last else body}
        return message

    return whole
