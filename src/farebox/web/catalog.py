"""GET /models: the upstream's list, from the cache, page by page."""

from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from farebox.catalog_cache import PAGE_MAX, Catalog
from farebox.core.errors import invalid
from farebox.web.asgi import Endpoint, send_json
from farebox.web.refusals import guarded

STALE_HEADER = (b"x-farebox-stale", b"true")
"""On a list that the upstream should have renewed by now and could not."""


def models(catalog: Catalog) -> Endpoint:
    """OpenRouter's list with OpenAI's two members. The SDK's iterator asks on until a page is short: both honoured."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        entries = catalog.current().entries
        query = parse_qs(scope["query_string"].decode("latin-1"))
        offset = _whole(query, "offset", 0, least=0)
        limit = _whole(query, "limit", len(entries) if "offset" not in query else 500, least=1)
        if "limit" in query and limit > PAGE_MAX:
            raise invalid(f"limit: at most {PAGE_MAX}, not {limit}")
        page = entries[offset : offset + limit]
        following = offset + len(page)
        body = {
            "object": "list",
            "data": [_as_openai_model(entry) for entry in page],
            "links": {
                "next": f"{scope['path']}?offset={following}&limit={limit}" if following < len(entries) else None
            },
            "total_count": len(entries),
        }
        await send_json(send, msgspec.json.encode(body), [STALE_HEADER] if catalog.is_stale else None)

    return guarded(endpoint)


def _as_openai_model(entry: bytes) -> msgspec.Raw:
    return msgspec.Raw(b'{"object":"model",' + entry.lstrip()[1:].lstrip())


def _whole(query: dict[str, list[str]], name: str, otherwise: int, least: int) -> int:
    text = query.get(name, [str(otherwise)])[-1]
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least:
        raise invalid(f"{name}: a whole number from {least} up, not {text[:40]!r}")
    return int(text)
