"""An upstream that speaks OpenAI's API: OpenAI itself, or one of the many servers that do, most of them only its chat
completions.

Sources: OpenAI's Python SDK (its types, and its errors); vLLM's, llama.cpp's and Ollama's lists of models.
"""

from secrets import token_hex

import msgspec
from msgspec import Raw, Struct

from farebox.core.declared import Declared
from farebox.core.legible import decoded_or
from farebox.core.reading import UNREADABLE
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.ports import UpstreamBroke
from farebox.upstream.hosts import Host, OwnModel
from farebox.upstream.replies import HttpReply

_WITHOUT_ID = frozenset({"/embeddings", "/rerank"})
"""Formats whose answers name no generation, or do at some servers alone."""


class _Meta(Struct):
    n_ctx_train: int | None = None
    n_ctx: int | None = None


class _Model(Struct):
    """A model in OpenAI's list. vLLM says its context in `max_model_len`, llama.cpp in `meta`."""

    id: str
    created: int | float | None = None
    max_model_len: int | None = None
    meta: _Meta | None = None


class _List(Struct):
    data: list[Raw]


_decode_list = msgspec.json.Decoder(_List).decode
_decode_model = msgspec.json.Decoder(_Model).decode


class OpenAi(Host):
    """Its base URL is up to and including `/v1`. Its answers name the generation in their bodies, but for those of
    _WITHOUT_ID, which have the request's id."""

    def __init__(self, declared: Declared, api_key: str | None, deadlines: Deadlines, way: WayOut = DIRECTLY) -> None:
        credentials = {"authorization": f"Bearer {api_key}"} if api_key else {}
        super().__init__(declared, credentials, deadlines, way)

    async def models(self) -> tuple[OwnModel, ...]:
        try:
            listed = _decode_list(await self.fetch("/models")).data
        except UNREADABLE as error:
            raise UpstreamBroke(f"Its /models cannot be read: {error}") from error
        read = [decoded_or(_decode_model, each, None) for each in listed]
        return tuple(_own(model) for model in read if model is not None and model.id)

    def generation_id(self, path: str, reply: HttpReply) -> str | None:
        if path not in _WITHOUT_ID:
            return None
        head = reply.request_id.decode("latin-1").strip()
        return head if head and head.isascii() and head.isprintable() else f"req_{token_hex(12)}"


def _own(model: _Model) -> OwnModel:
    meta = model.meta or _Meta()
    created = int(model.created) if model.created is not None and model.created > 0 else 0
    context = model.max_model_len or meta.n_ctx or meta.n_ctx_train
    return OwnModel(model.id, created=created, context_tokens=context if context and context > 0 else None)
