"""GET /, for a browser: where everything is. One page that loads nothing else; programs are told the method that they
can use, as everywhere."""

import re
from collections.abc import Awaitable
from html import escape

from starlette.types import Receive, Scope, Send

from farebox import __version__
from farebox.core.errors import wrong_method
from farebox.http.asgi import Endpoint, send_whole
from farebox.web.docs import HTML_HEADERS, STYLE

CLIENTS = (
    ("OpenAI SDKs", "/api/v1"),
    ("OpenRouter SDKs", "/api/v1"),
    ("Anthropic SDKs, Claude Code", "/api"),
    ("Tools for agents (MCP)", "/mcp"),
)
"""Whose base URL is which, below this server's own."""

PAGES = (
    ("/docs", "what it answers"),
    ("/openapi.json", "the same for machines"),
    ("/healthz", "whether it is alive"),
    ("/readyz", "whether it takes orders"),
)

_HOST = re.compile(r"[\w.:\[\]-]{1,255}")


def with_front_page(others: Endpoint) -> Endpoint:
    """What is served at /: this page for GET, `others` for POST."""

    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return others(scope, receive, send) if scope["method"] == "POST" else _front_page(scope, send)

    return serve


async def _front_page(scope: Scope, send: Send) -> None:
    """Raises Refusal 405: it is asked by no browser."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    if "text/html" not in headers.get(b"accept", ""):
        raise wrong_method(scope["method"], "POST")
    host = headers.get(b"host", "")
    scheme = "https" if headers.get(b"x-forwarded-proto") == "https" else scope["scheme"]
    root = f"{scheme}://{host}" if _HOST.fullmatch(host) else ""
    varying = [(b"vary", b"Accept, Host"), (b"cache-control", b"no-store")]
    await send_whole(send, 200, [*HTML_HEADERS, *varying], _page(root).encode())


def _page(root: str) -> str:
    bases = "".join(
        f"<tr><td>{escape(whose)}</td><td><code>{escape(root + base)}</code></td></tr>" for whose, base in CLIENTS
    )
    pages = "".join(f'<li><a href="{path}">{path}</a>: {escape(what)}</li>' for path, what in PAGES)
    order = (
        f"curl {root}/api/v1/chat/completions \\\n"
        "  -H 'Authorization: Bearer sk-fb-...' -H 'Content-Type: application/json' \\\n"
        """  -d '{"model": "MODEL", "messages": [{"role": "user", "content": "Hello"}]}'"""
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Farebox</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>Farebox {escape(__version__)}</h1><p>An LLM gateway that charges the exact fare. It speaks OpenRouter's"
        f" API; your key is the one that its operator gave you.</p><h2>Base URLs</h2><table>{bases}</table>"
        f"<h2>An order</h2><pre>{escape(order)}</pre>"
        f'<p><a href="/api/v1/models">/api/v1/models</a> lists the models.</p><h2>Pages</h2><ul>{pages}</ul>'
        "</body></html>"
    )
