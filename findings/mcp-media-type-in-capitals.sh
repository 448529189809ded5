#!/usr/bin/env bash
# mcp 2.3.0 (PyPI, the official SDK), streamable HTTP: media types are case-insensitive (RFC 9110, 8.3.1), and one of the
# SDK's two checks of `Content-Type` compares them so; the other compares as it came.
#
# Guessed: `Application/JSON` is served like `application/json`.
# Seen: 415 "Unsupported Media Type: Content-Type must be application/json". A client that writes it so is told to send what
# it sends. A gateway before such a server can put the header in small letters.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'mcp==2.3.0'

told=$("$folder/venv/bin/python" - <<'PY'
import asyncio
import json

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

WHO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "probe", "version": "1"}}
BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": WHO}).encode()


async def status(manager, content_type):
    """What the SDK's own ASGI server answers to the same message under a content type."""
    seen = []

    async def receive():
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message):
        seen.append(message.get("status"))

    accept = b"application/json, text/event-stream"
    headers = [(b"host", b"127.0.0.1"), (b"accept", accept), (b"content-type", content_type)]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/mcp"}
    scope |= {"raw_path": b"/mcp", "query_string": b"", "root_path": "", "headers": headers, "state": {}}
    scope |= {"asgi": {"version": "3.0"}, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    await manager.handle_request(scope, receive, send)
    return seen[0]


async def main():
    manager = StreamableHTTPSessionManager(Server("probe"), json_response=True, stateless=True)
    async with manager.run():
        for content_type in (b"application/json", b"Application/JSON"):
            print(content_type.decode(), await status(manager, content_type))


asyncio.run(main())
PY
)
echo "$told"
[ "$told" = "application/json 200
Application/JSON 415" ] || { echo "this has changed"; exit 1; }
