"""Streams of messages: written, event by event."""

import msgspec
from msgspec import Raw

from farebox.core.errors import Refusal
from farebox.core.formats import Progress, messages
from farebox.core.sse import named_event
from farebox.core.translate.answers.messages import (
    CALLER,
    stopped,
    written_citation,
)
from farebox.core.translate.neutral import Citation, Thinking, Usage
from farebox.core.translate.raw import is_text
from farebox.core.translate.thoughts import ANTHROPIC, sealed_for
from farebox.core.translate.usage import USAGE_AT_START, usage_in_messages


class MessagesWriter:
    """Writes events; each under its name, or Anthropic's SDKs drop it."""

    def __init__(self, progress: Progress) -> None:
        self.sent: list[bytes] = []
        self._progress = progress
        self._is_started = False
        self._index = -1
        self._open = ""
        self._texts: list[bytes] = []
        self._is_refused = False
        self._usage: Usage | None = None

    def start(self, id_: str, model: str, created: int) -> None:
        if self._is_started:
            return
        self._is_started = True
        progress = self._progress
        progress.generation_id, progress.model = id_ or progress.generation_id, model or progress.model
        message: dict[str, object] = {
            "id": progress.generation_id,
            "type": "message",
            "role": "assistant",
            "model": progress.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": {**USAGE_AT_START, "inference_geo": None, "service_tier": None},
        }
        self._say("message_start", {"message": message})

    def _say(self, name: str, members: dict[str, object]) -> None:
        self.sent.append(named_event(name.encode(), msgspec.json.encode({"type": name, **members})))

    def _begin(self, kind: str, block: dict[str, object]) -> None:
        self._close()
        self._index, self._open = self._index + 1, kind
        self._say("content_block_start", {"index": self._index, "content_block": {"type": kind, **block}})

    def _close(self) -> None:
        if self._open:
            self._say("content_block_stop", {"index": self._index})
            self._open = ""

    def _delta(self, head: bytes, value: bytes) -> None:
        self.sent.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{%b%b}}\n\n'
            % (self._index, head, value)
        )

    def text(self, delta: bytes, logprobs: Raw | None = None) -> None:
        if self._open != "text":
            self._begin("text", {"text": "", "citations": None})
        self._delta(b'"type":"text_delta","text":', delta)

    def cite(self, citation: Citation) -> None:
        if self._open != "text":
            self._begin("text", {"text": "", "citations": None})
        self._delta(b'"type":"citations_delta","citation":', msgspec.json.encode(written_citation(citation)))

    def refuse(self, delta: bytes) -> None:
        self._is_refused = True
        self.text(delta)

    def think(self, origin: str, delta: bytes) -> None:
        if self._open != "thinking":
            self._begin("thinking", {"thinking": "", "signature": ""})
        self._delta(b'"type":"thinking_delta","thinking":', delta)

    def seal(self, thinking: Thinking) -> None:
        sealed = sealed_for(ANTHROPIC, thinking)
        if self._open != "thinking":
            self._begin("redacted_thinking", {"data": sealed})
        elif is_text(sealed):
            self._delta(b'"type":"signature_delta","signature":', bytes(sealed))
        self._close()

    def call(self, id_: Raw, name: Raw) -> None:
        self._begin("tool_use", {"id": id_, "name": name, "input": {}, "caller": CALLER})

    def argue(self, delta: bytes) -> None:
        self._delta(b'"type":"input_json_delta","partial_json":', delta)

    def count(self, told: Usage) -> None:
        self._usage = told

    def end(self, stop: str, stop_sequence: Raw | None) -> None:
        self._close()
        delta = {**stopped("filter" if self._is_refused else stop, stop_sequence), "container": None}
        self._say("message_delta", {"delta": delta, "usage": usage_in_messages(self._usage)})
        self._say("message_stop", {})

    def keep_alive(self) -> None:
        self.sent.append(messages.KEEP_ALIVE)

    def fail(self, refusal: Refusal) -> None:
        self.sent.append(messages.error_event(refusal, self._progress))
