"""A gateway in the test's own process, for what a test hands to its composition."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message

from farebox.app import Host, running, stand_alone
from farebox.core.formats.table import FORMATS, Formats
from farebox.settings import load
from farebox.store.prepare import prepare
from farebox.web.routes import Services
from tests.gateway import Response


@asynccontextmanager
async def services(
    folder: Path, upstream_url: str, host: Host = stand_alone, formats: Formats = FORMATS
) -> AsyncIterator[Services]:
    """Everything that serves, on books of its own in the folder."""
    settings = load(
        database_url=f"sqlite:///{folder / 'books.db'}", spool=str(folder / "spool"), upstream_url=upstream_url
    )
    prepare(settings.database_url)
    async with running(settings, host, formats) as found:
        yield found


async def ask(app: ASGIApp, method: str, path: str, key: str = "", body: Any = None, query: str = "") -> Response:
    """One request, as the server would hand it on."""
    sent: list[Message] = []
    received: list[Message] = [{"type": "http.request", "body": b"" if body is None else json.dumps(body).encode()}]

    async def receive() -> Message:
        while not received:  # its caller stays, however long the answer takes
            await asyncio.Event().wait()
        return received.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    where = {"path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": ""}
    await app({"type": "http", "method": method, **where, "headers": headers, "client": None}, receive, send)
    told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Response(sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))
