"""An upstream that speaks Anthropic's API.

Sources: Anthropic's Python SDK (its types, headers and pages).
"""

import asyncio
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from farebox import clock
from farebox.core.declared import Declared
from farebox.core.fitting import fitted
from farebox.core.legible import decode_fields, decoded_or, written
from farebox.core.reading import UNREADABLE
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.ports import UpstreamBroke
from farebox.upstream.hosts import PAGES_MAX, Host, OwnModel, without_version

VERSION = "anthropic-version"
VERSION_DEFAULT = "2023-06-01"

_BETA, _OPENROUTERS_BETA = "anthropic-beta", "x-anthropic-beta"

PAGE_MODELS = 1000
"""The longest page of models that is given."""


MESSAGES = "/messages"
COUNT_TOKENS = "/messages/count_tokens"

COUNTED = (
    "model messages system tools tool_choice thinking output_config cache_control speed mcp_servers context_management"
    " compaction billing_policy user_profile_id workspace_id"
).split()
"""The members of an order that count towards its prompt: its page for that refuses all others."""


class _Count(Struct):
    input_tokens: int


class _Model(Struct):
    id: str
    display_name: str | None = None
    created_at: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None


class _Page(Struct):
    data: list[Raw]
    has_more: bool | None = None
    last_id: str | None = None


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_count = msgspec.json.Decoder(_Count).decode
_decode_model = msgspec.json.Decoder(_Model).decode


class Anthropic(Host):
    """Its base URL is up to what stands before `/v1`; one that ends with that is taken, too."""

    def __init__(self, declared: Declared, api_key: str | None, deadlines: Deadlines, way: WayOut = DIRECTLY) -> None:
        credentials = {"x-api-key": api_key} if api_key else {}
        base_url, version = without_version(declared.base_url), {VERSION: VERSION_DEFAULT}
        super().__init__(declared, credentials, deadlines, way, base_url=base_url, page_fields=version)

    def target(self, path: str) -> str:
        return f"/v1{path}"

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        along = super().headers(given)
        along[VERSION] = given.get(VERSION, VERSION_DEFAULT)
        if betas := [given[name] for name in (_BETA, _OPENROUTERS_BETA) if name in given]:
            along[_BETA] = ", ".join(betas)
        return along

    async def count_tokens(self, body: bytes, headers: Mapping[str, str]) -> int | None:
        own = fitted(MESSAGES, body, self._own_name, streamed=False).body
        members = decode_fields(own)
        counted = written({name: members[name] for name in COUNTED if name in members})
        path, along = self.target(COUNT_TOKENS), self.headers(headers)
        try:
            async with asyncio.timeout(self._page_seconds):
                reply = await self._orders.post(path, bytes(counted), along, streamed=False)
                try:
                    return _counted(await reply.read()) if reply.status == 200 else None
                finally:
                    reply.close()
        except TimeoutError as error:
            raise UpstreamBroke(f"no count within {self._page_seconds:g} s") from error

    async def models(self) -> tuple[OwnModel, ...]:
        found: list[OwnModel] = []
        after: tuple[tuple[str, str], ...] = ()
        for _ in range(PAGES_MAX):
            try:
                page = _decode_page(await self.fetch("/v1/models", (("limit", str(PAGE_MODELS)), *after)))
            except UNREADABLE as error:
                raise UpstreamBroke(f"Its /v1/models cannot be read: {error}") from error
            read = [decoded_or(_decode_model, each, None) for each in page.data]
            found += [_own(model) for model in read if model is not None and model.id]
            following = (("after_id", page.last_id or ""),)
            if not page.has_more or not page.last_id or following == after:
                break
            after = following
        return tuple(found)


def _counted(body: bytes) -> int | None:
    count = decoded_or(_decode_count, body, None)
    return None if count is None or count.input_tokens < 0 else count.input_tokens


def _own(model: _Model) -> OwnModel:
    created = _seconds(model.created_at or "")
    return OwnModel(model.id, model.display_name or "", created, model.max_input_tokens, model.max_tokens)


def _seconds(moment: str) -> int:
    try:
        return max(0, clock.read_iso(moment) // 1_000_000)
    except ValueError:
        return 0
