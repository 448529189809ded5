"""The simulator as Anthropic: it demands a version, a cap and turns in order, and tells its usage bit by bit, but no
costs.

Sources: Anthropic's Python SDK (its types, and how it reads errors and streams), its pages on messages and thinking.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, ModuleType

import msgspec

from farebox import clock
from farebox.core.errors import Refusal, unauthenticated, unknown
from farebox.simulator import anthropic_messages, models
from farebox.simulator.faces import Given, Headers, bearer, lost
from farebox.simulator.models import Model

BASE = "/v1"

COUNT_PATH = f"{BASE}/messages/count_tokens"
"""Where a prompt is counted, at no cost."""

PAGE_MODELS = 20
PAGE_MODELS_MAX = 1000

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.id: model
        for model in (
            replace(models.MODELS["sim/echo"], id="claude-sim"),
            replace(models.MODELS["sim/echo-pro"], id="claude-sim-pro"),
            replace(models.MODELS["sim/seer"], id="claude-sim-vision"),
        )
    }
)


class AnthropicFace:
    """Anthropic's."""

    formats: Mapping[str, ModuleType] = MappingProxyType({f"{BASE}/messages": anthropic_messages})
    keeps_alive = True

    def key(self, headers: Given) -> bytes:
        # Its SDKs of 2026 send a key as a bearer's, older ones as `x-api-key`.
        key = headers.get(b"x-api-key", b"").strip() or bearer(headers)
        if not key:
            raise unauthenticated("x-api-key header is required")
        if not headers.get(b"anthropic-version"):
            raise Refusal(400, "invalid_request", "anthropic-version: header is required")
        return key

    def page(self, path: str, query: Mapping[str, str], headers: Given) -> bytes:
        self.key(headers)
        entries = [_entry(model) for model in MODELS.values()]
        if path != f"{BASE}/models":
            name = path.removeprefix(f"{BASE}/models/")
            found = next((each for each in entries if each["id"] == name), None)
            if found is None:
                raise lost() if name == path else self.no_such_model(name)
            return msgspec.json.encode(found)
        text = query.get("limit", str(PAGE_MODELS))
        if not text.isdigit() or not 1 <= int(text) <= PAGE_MODELS_MAX:
            raise Refusal(400, "invalid_request", f"limit: Input should be between 1 and {PAGE_MODELS_MAX}")
        ids = [each["id"] for each in entries]
        start = ids.index(query["after_id"]) + 1 if query.get("after_id") in ids else 0
        shown = entries[start : start + int(text)]
        body = {
            "data": shown,
            "has_more": start + len(shown) < len(entries),
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        }
        return msgspec.json.encode(body)

    def count(self, headers: Given, body: bytes) -> bytes:
        """The body of an answer that counts a prompt. Raises Refusal."""
        self.key(headers)
        model, tokens = anthropic_messages.counted(body)
        if self.find(model) is None:
            raise self.no_such_model(model)
        return msgspec.json.encode({"input_tokens": tokens})

    def find(self, model: str) -> Model | None:
        return MODELS.get(model.partition(":")[0])

    def no_such_model(self, model: str) -> Refusal:
        return unknown(f"model: {model}")

    def refused(self, refusal: Refusal, wire: ModuleType | None, number: str) -> bytes:
        return anthropic_messages.error_body(refusal, number)

    def generation_id(self, wire: ModuleType, number: str) -> str:
        return f"msg_01{number.replace('-', '')}"

    def head(self, generation_id: str, number: str) -> Headers:
        return [
            (b"request-id", anthropic_messages.request_id(number).encode()),
            (b"anthropic-organization-id", b"00000000-0000-4000-8000-000000000000"),
            (b"anthropic-ratelimit-requests-limit", b"50"),
            (b"anthropic-ratelimit-requests-remaining", b"49"),
        ]


def _entry(model: Model) -> dict[str, object]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": clock.iso(model.created * 1_000_000, "seconds"),
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.answer_tokens_max,
        "lifecycle": "active",
    }
