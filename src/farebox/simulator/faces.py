"""Whom the simulator stands in for: a face each, with its paths, its keys, its errors and its ids."""

from collections.abc import Mapping
from types import ModuleType
from typing import Protocol

from farebox.core.errors import Refusal, invalid, unauthenticated, unknown
from farebox.simulator import catalog, chat, models, table

Headers = list[tuple[bytes, bytes]]
Given = Mapping[bytes, bytes]

REFUSALS = {
    402: ("payment_required", "Insufficient credits. Add more using https://openrouter.ai/credits"),
    403: ("permission_denied", "Simulated: this key may not do that"),
    408: ("timeout", "Simulated: the request timed out"),
    429: ("rate_limit_exceeded", "Rate limit exceeded: simulated"),
    500: ("server", "Internal Server Error"),
    502: ("provider_unavailable", "Provider returned error"),
    503: ("provider_overloaded", "No instances available (simulated)"),
    529: ("provider_overloaded", "Overloaded"),
}
"""What each status is refused with, where it is asked for."""


class Face(Protocol):
    """What differs between those whom the simulator stands in for. `formats` are by their paths under the base. What
    `keeps_alive` sends comments, or blank lines, while a model thinks."""

    formats: Mapping[str, ModuleType]
    keeps_alive: bool

    def key(self, headers: Given) -> bytes:
        """The caller's key, if the headers are as they must be. Raises Refusal."""

    def page(self, path: str, query: Mapping[str, str], headers: Given) -> bytes:
        """The body of a list. Raises Refusal."""

    def find(self, model: str) -> models.Model | None:
        """The model of an id, which may have faults behind a colon."""

    def no_such_model(self, model: str) -> Refusal: ...

    def refused(self, refusal: Refusal, wire: ModuleType | None, number: str) -> bytes:
        """The body of a refusal; `number` is the request's."""

    def generation_id(self, wire: ModuleType, number: str) -> str: ...

    def head(self, generation_id: str, number: str) -> Headers:
        """The headers of an answer. `generation_id` is empty where it is not to be told, or there is none."""


class OpenRouterFace:
    """OpenRouter's."""

    formats = table.AT
    keeps_alive = True

    def key(self, headers: Given) -> bytes:
        if found := bearer(headers) or headers.get(b"x-api-key", b"").strip():
            return found
        raise unauthenticated("No auth credentials found")

    def page(self, path: str, query: Mapping[str, str], headers: Given) -> bytes:
        if path == "/models/user":
            self.key(headers)
        return catalog.page(path, dict(query))

    def find(self, model: str) -> models.Model | None:
        return models.find(model)

    def no_such_model(self, model: str) -> Refusal:
        return invalid(f"{model} is not a valid model ID")

    def refused(self, refusal: Refusal, wire: ModuleType | None, number: str) -> bytes:
        body: bytes = (wire or chat).refused(refusal)
        return body

    def generation_id(self, wire: ModuleType, number: str) -> str:
        return f"gen-{number}"

    def head(self, generation_id: str, number: str) -> Headers:
        return [(b"x-generation-id", generation_id.encode())] if generation_id else []


def bearer(headers: Given) -> bytes:
    """The token after `Bearer`; empty where there is none."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def lost() -> Refusal:
    return unknown("Not Found")
