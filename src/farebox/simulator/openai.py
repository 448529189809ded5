"""The simulator as OpenAI: it tells no costs, a stream's usage only when asked, refuses what it does not know, and
answers under a model's dated name.

Sources: OpenAI's Python SDK (its types, and how it reads errors and streams).
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, ModuleType

import msgspec

from farebox.core.errors import Refusal
from farebox.simulator import models, openai_chat, openai_embeddings, openai_responses
from farebox.simulator.faces import Given, Headers, bearer, lost
from farebox.simulator.models import Model
from farebox.simulator.openai_words import error_body, wrong

BASE = "/v1"

_CODES = {
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    429: ("requests", "rate_limit_exceeded"),
}
"""Type and code of an error by its status."""

_PREFIXES = {openai_chat: "chatcmpl-", openai_responses: "resp_", openai_embeddings: "embd_"}


def _as(model: str, own: str, **more: object) -> Model:
    return replace(models.MODELS[model], id=own, **more)  # type: ignore[arg-type]


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.id: model
        for model in (
            _as("sim/echo", "gpt-sim"),
            _as("sim/reasoner", "o-sim"),
            _as("sim/seer", "gpt-sim-vision"),
            _as("sim/embedder", "text-embedding-sim"),
        )
    }
)


class OpenAiFace:
    """OpenAI's."""

    formats: Mapping[str, ModuleType] = MappingProxyType(
        {
            f"{BASE}/chat/completions": openai_chat,
            f"{BASE}/responses": openai_responses,
            f"{BASE}/embeddings": openai_embeddings,
        }
    )
    keeps_alive = False

    def key(self, headers: Given) -> bytes:
        if found := bearer(headers):
            return found
        message = (
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer"
            " auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        raise Refusal(401, "authentication", message, metadata={"code": None})

    def page(self, path: str, query: Mapping[str, str], headers: Given) -> bytes:
        self.key(headers)
        if path == f"{BASE}/models":
            return msgspec.json.encode({"object": "list", "data": [_entry(model) for model in MODELS.values()]})
        name = path.removeprefix(f"{BASE}/models/")
        if name in MODELS:
            return msgspec.json.encode(_entry(MODELS[name]))
        raise lost() if name == path else self.no_such_model(name)

    def find(self, model: str) -> Model | None:
        return MODELS.get(model.partition(":")[0])

    def no_such_model(self, model: str) -> Refusal:
        message = f"The model `{model}` does not exist or you do not have access to it."
        return wrong(message, code="model_not_found", status=404)

    def refused(self, refusal: Refusal, wire: ModuleType | None, number: str) -> bytes:
        usual = ("server_error", None) if refusal.status >= 500 else ("invalid_request_error", None)
        kind, code = _CODES.get(refusal.status, usual)
        told = refusal.metadata
        return error_body(refusal.message, str(told.get("type", kind)), told.get("param"), told.get("code", code))

    def generation_id(self, wire: ModuleType, number: str) -> str:
        return _PREFIXES[wire] + number.replace("-", "")

    def head(self, generation_id: str, number: str) -> Headers:
        return [
            (b"x-request-id", f"req_{number.replace('-', '')}".encode()),
            (b"openai-version", b"2020-10-01"),
            (b"openai-processing-ms", b"12"),
            (b"openai-organization", b"org-simulated"),
        ]


def _entry(model: Model) -> dict[str, object]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": "system"}
