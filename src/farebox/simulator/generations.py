"""The simulator's own books: what it charged for each generation, which only the key that ordered it may read."""

import time
from collections import OrderedDict

import msgspec
from msgspec import Raw, Struct

from farebox import clock
from farebox.core.errors import unknown
from farebox.core.legible import decoded_or
from farebox.simulator.faults import Faults
from farebox.simulator.made import Made
from farebox.simulator.models import PROVIDER
from farebox.simulator.talk import Said, number_of

KEPT_MAX = 100_000

CONTENTS_MAX = 1_000
CONTENT_BYTES_MAX = 64 * 1024
"""Orders whose prompts and answers are kept: so many, the latest, and none that is longer."""

_ALWAYS_NULL = (
    "app_id cache_discount external_user http_referer moderation_latency native_tokens_cached num_fetches"
    " num_input_audio_prompt num_media_completion num_media_prompt num_search_results preset_id provider_responses"
    " router service_tier upstream_id user_agent web_search_engine workspace_id"
).split()


class _Asked(Struct):
    messages: list[Raw] | None = None


_decode_asked = msgspec.json.Decoder(_Asked).decode


class Generations:
    """The records of one simulator, the oldest dropped beyond KEPT_MAX."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, bytes, bytes]] = OrderedDict()
        self._charged: dict[str, str] = {}
        self._usage: dict[str, dict[str, object]] = {}
        self._contents: OrderedDict[str, tuple[bytes, bytes, Said]] = OrderedDict()

    def add(
        self, generation_id: str, key: bytes, said: Said, faults: Faults, *, streamed: bool, sent_tokens: int | None
    ) -> None:
        """Write a generation down; it can be read `faults.generation_ms` later. `sent_tokens`: how many tokens were
        sent of an answer that was broken off, else None. What was written down once stays."""
        if generation_id in self._kept:
            return
        cost = number_of(said.cost(sent_tokens)) if faults.cost in (None, "is-null") else faults.cost
        body = _record(generation_id, said, faults, cost, streamed=streamed, sent_tokens=sent_tokens)
        self._kept[generation_id] = (time.monotonic() + faults.generation_ms / 1000, key, body)
        self._charged[generation_id] = cost
        self._usage[generation_id] = _usage(said, cost, sent_tokens)
        while len(self._kept) > KEPT_MAX:
            dropped, _ = self._kept.popitem(last=False)
            del self._charged[dropped], self._usage[dropped]

    def keep_content(self, generation_id: str, key: bytes, order: bytes, said: Said) -> None:
        """Keep what was ordered, and what was said to it, unless that was long."""
        if len(order) > CONTENT_BYTES_MAX:
            return
        self._contents[generation_id] = key, order, said
        while len(self._contents) > CONTENTS_MAX:
            self._contents.popitem(last=False)

    def content(self, generation_id: str, key: bytes) -> bytes:
        """The body of `GET /generation/content`. Raises Refusal 404: it is not kept, or another key's."""
        owner, order, said = self._contents.get(generation_id, (b"", b"", None))
        if said is None or owner != key:
            raise unknown(f"Generation {generation_id} not found")
        return _content(order, said)

    def books(self) -> bytes:
        """What was charged for every generation: a JSON object of costs as text by generation id."""
        return msgspec.json.encode(self._charged)

    def usage_books(self) -> bytes:
        """For every generation: its model, what was charged, and for how many tokens."""
        return msgspec.json.encode(self._usage)

    def find(self, generation_id: str, key: bytes) -> bytes:
        """The body of `GET /generation`. Raises Refusal 404: not there, not yet, or another key's."""
        ready_at, owner, body = self._kept.get(generation_id, (0.0, b"", b""))
        if owner != key or not body or time.monotonic() < ready_at:
            raise unknown(f"Generation {generation_id} not found")
        return body


def _content(order: bytes, said: Said) -> bytes:
    """What was ordered as `messages` where there are any, or else as one text, whatever the format."""
    asked = decoded_or(_decode_asked, order, _Asked())
    said_in = {"messages": asked.messages} if asked.messages is not None else {"prompt": order.decode(errors="replace")}
    output = {"completion": said.text or None, "reasoning": "".join(said.reasoning) or None}
    return msgspec.json.encode({"data": {"input": said_in, "output": output, "error": None}})


def _usage(said: Said, cost: str, sent_tokens: int | None) -> dict[str, object]:
    """`prompt_tokens` are all of the prompt, with those of a cache; `answer_tokens` are all that were made."""
    answer_tokens = said.answer_tokens if sent_tokens is None else min(sent_tokens, said.answer_tokens)
    return {
        "model": said.model.id,
        "prompt_tokens": said.prompt_tokens,
        "cached_tokens": said.cached_tokens,
        "cache_write_tokens": said.cache_write_tokens,
        "answer_tokens": answer_tokens,
        "reasoning_tokens": min(len(said.reasoning), answer_tokens),
        "cost": cost,
        "is_cancelled": sent_tokens is not None,
    }


def _api_type(said: Said) -> str:
    if isinstance(said, Made):
        return said.api_type
    return "embeddings" if said.vectors else "completions"


def _record(
    generation_id: str, said: Said, faults: Faults, cost: str, *, streamed: bool, sent_tokens: int | None
) -> bytes:
    tokens = said.answer_tokens if sent_tokens is None else min(sent_tokens, said.answer_tokens)
    finish = "cancelled" if sent_tokens is not None else said.finish_reason
    data = {
        **dict.fromkeys(_ALWAYS_NULL),
        "id": generation_id,
        "api_type": _api_type(said),
        "cancelled": sent_tokens is not None,
        "created_at": clock.iso(clock.now_us(), "microseconds"),
        "data_region": "global",
        "finish_reason": finish,
        "native_finish_reason": finish,
        "generation_time": 12,
        "latency": 3,
        "is_byok": faults.byok is not None,
        "model": said.model.id,
        "native_tokens_completion": tokens,
        "native_tokens_completion_images": said.image_tokens or None,
        "native_tokens_prompt": said.prompt_tokens,
        "native_tokens_reasoning": len(said.reasoning),
        "tokens_completion": tokens,
        "tokens_prompt": said.prompt_tokens,
        "origin": "",
        "provider_name": PROVIDER,
        "streamed": streamed,
        "total_cost": Raw(cost.encode()),
        "usage": Raw(cost.encode()),
        "upstream_inference_cost": Raw(faults.byok.encode()) if faults.byok else None,
    }
    return msgspec.json.encode({"data": data})
