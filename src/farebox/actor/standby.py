"""The Actor as a server, in Standby: the gateway at the run's port, until the platform stops it.

Around the gateway stand an answer to the platform's readiness probe, and a page at the root that says how to use it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from html import escape
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from farebox.actor.environment import ActorEnvironment
from farebox.actor.hosting import Hosting
from farebox.actor.system_events import SystemEvent, listening
from farebox.app import App, Hosted
from farebox.background import Supervisor
from farebox.http.asgi import send_whole
from farebox.identity.keys import PlansInForce
from farebox.ports import Upstreams
from farebox.serving import listen, run
from farebox.settings import Settings
from farebox.store.books import SqlStore
from farebox.telemetry.metrics import count_task_failures

MIGRATION_SECONDS = 10.0
"""How long a migration leaves, where the platform does not say."""

RESERVED_SECONDS = 5.0
"""How much of that is reserved for charging, and for leaving what another machine needs, once answers were broken
off."""

SOONEST_SECONDS = 1.5
"""The least pause before a second signal: one that comes sooner counts as the first."""

READINESS_PROBE = b"x-apify-container-server-readiness-probe"
_BEARER = b"x-apify-authorization"

_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_HTML = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
]


def serve(environment: ActorEnvironment, settings: Settings) -> None:
    """Serve until the run is stopped, or moves."""
    bound = listen(settings.host, settings.port)
    url = settings.public_url or f"http://127.0.0.1:{bound.getsockname()[1]}"
    server = _Server(environment, settings)
    around = partial(_with_landing_page, _landing_page(url, f"{url}/docs"))
    run(settings, App(settings, server.host, around, supervisor=server.supervisor), bound)
    if server.is_migrating:
        asyncio.run(_move(environment, settings))


class _Server:
    def __init__(self, environment: ActorEnvironment, settings: Settings) -> None:
        self._environment = environment
        self._settings = settings
        self.supervisor = Supervisor(count_task_failures)
        self.is_migrating = False

    @asynccontextmanager
    async def host(self, store: SqlStore, upstreams: Upstreams, plans: PlansInForce) -> AsyncIterator[Hosted]:
        async with (
            aclosing(Hosting(self._environment, self._settings)) as hosting,
            listening(
                self._environment.system_events_url, self._settings, partial(self._hear, hosting), self.supervisor
            ),
            hosting.host(store, upstreams, plans) as hosted,
        ):
            yield hosted

    async def _hear(self, hosting: Hosting, event: SystemEvent) -> None:
        """Stop the server by a signal, in order; a second signal breaks off what has not ended by itself."""
        if event.name == "aborting":
            os.kill(os.getpid(), signal.SIGTERM)
        elif event.name == "migrating" and not self.is_migrating:
            self.is_migrating = True
            os.kill(os.getpid(), signal.SIGTERM)
            left = MIGRATION_SECONDS if event.remaining_seconds is None else event.remaining_seconds
            await asyncio.sleep(max(SOONEST_SECONDS, left - RESERVED_SECONDS))
            os.kill(os.getpid(), signal.SIGTERM)
        elif event.name == "persistState":
            await hosting.save()


async def _move(environment: ActorEnvironment, settings: Settings) -> None:
    async with aclosing(Hosting(environment, settings)) as hosting:
        await hosting.move()


def _with_landing_page(page: str, app: ASGIApp) -> ASGIApp:
    """The gateway as a Standby Actor's server."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        if any(name == READINESS_PROBE for name, _ in headers):
            await send_whole(send, 200, _TEXT, b"ok")
        elif scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await send_whole(send, 200, _HTML, page.encode())
        else:
            await app(_with_token(scope), receive, send)

    return serve


def _with_token(scope: Scope) -> Scope:
    """The request with its token where the gateway looks for it, and out of the query, which logs may show."""
    query: bytes = scope["query_string"]
    names = {name for name, _ in scope["headers"]}
    if b"token=" not in query and _BEARER not in names:
        return scope
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    tokens = [f"Bearer {value}".encode() for name, value in pairs if name == "token" and value]
    tokens += [value for name, value in scope["headers"] if name == _BEARER]
    rest = urlencode([(name, value) for name, value in pairs if name != "token"]).encode()
    added = [(b"authorization", tokens[0])] if tokens and b"authorization" not in names else []
    return {**scope, "query_string": rest, "headers": [*scope["headers"], *added]}


def _landing_page(url: str, document_url: str) -> str:
    """How to use the server at `url`."""
    base = f"{url.rstrip('/')}/api/v1"
    example = f"""curl {base}/chat/completions \\
  -H "Authorization: Bearer $APIFY_TOKEN" -H "Content-Type: application/json" \\
  -d '{{"model": "openrouter/auto", "messages": [{{"role": "user", "content": "Hello"}}]}}'"""
    rows = "".join(
        f"<tr><td>{escape(what)}</td><td><code>{escape(where)}</code></td></tr>"
        for what, where in (
            ("OpenRouter and OpenAI SDKs, base URL", base),
            ("Anthropic SDK and Claude Code, base URL", f"{url.rstrip('/')}/api"),
            ("Tools for agents (MCP)", f"{url.rstrip('/')}/mcp"),
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Farebox</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 3rem auto; padding: 0 1rem; color: #1b1f24;
  background: #fff; }}
pre, code {{ font: .9rem ui-monospace, monospace; background: #f3f5f7; border-radius: 4px; }}
pre {{ padding: .8rem; overflow-x: auto; }} code {{ padding: .1rem .3rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; }}
td {{ border-top: 1px solid #d0d7de; padding: .4rem .8rem .4rem 0; vertical-align: top; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6edf3; background: #0d1117; }} pre, code {{ background: #1c2129; }} a {{ color: #6cb6ff; }} }}
</style></head><body>
<h1>Any model, one token</h1>
<p>This Actor is a server: it speaks OpenRouter's API, and charges what OpenRouter charges, rounded up to $0.00001, as
events of your run. Your Apify token is the key.</p>
<pre>{escape(example)}</pre>
<table>{rows}</table>
<p>See <a href="{escape(document_url)}">what it answers</a>.</p>
</body></html>
"""
