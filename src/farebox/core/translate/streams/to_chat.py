"""Streams of chat completions: written, event by event."""

import msgspec
from msgspec import Raw

from farebox.core.errors import Refusal
from farebox.core.formats import Progress, chat
from farebox.core.sse import data_event
from farebox.core.translate.answers.chat import (
    annotation,
    finish_reason,
    form_of,
)
from farebox.core.translate.neutral import Citation, Thinking, Usage
from farebox.core.translate.orders.to_chat import details_of
from farebox.core.translate.thoughts import OPENAI
from farebox.core.translate.usage import usage_in_chat


class ChatWriter:
    """Writes chunks, as OpenRouter does: the usage in one of its own, then `[DONE]`."""

    def __init__(self, progress: Progress) -> None:
        self.sent: list[bytes] = []
        self._progress = progress
        self._head = b""
        self._call = self._detail = self._page = -1
        self._is_thinking = self._is_refused = False
        self._usage: Usage | None = None

    def start(self, id_: str, model: str, created: int) -> None:
        if self._head:
            return
        progress = self._progress
        progress.generation_id, progress.model = id_ or progress.generation_id, model or progress.model
        progress.created = created or progress.created
        head = {
            "id": progress.generation_id,
            "object": "chat.completion.chunk",
            "created": progress.created,
            "model": progress.model,
        }
        self._head = b"data: " + msgspec.json.encode(head)[:-1]
        self._say(b'{"role":"assistant","content":""}')

    def _say(self, delta: bytes, more: bytes = b"") -> None:
        self.sent.append(
            b'%b,"choices":[{"index":0,"delta":%b,"finish_reason":null%b}]}\n\n' % (self._head, delta, more)
        )

    def text(self, delta: bytes, logprobs: Raw | None = None) -> None:
        more = b"" if logprobs is None else b',"logprobs":{"content":%b,"refusal":null}' % bytes(logprobs)
        self._say(b'{"content":%b}' % delta, more)

    def cite(self, citation: Citation) -> None:
        self._page += 1
        annotations = [{"index": self._page, **annotation(citation)}]
        self._say(msgspec.json.encode({"annotations": annotations}))

    def refuse(self, delta: bytes) -> None:
        self._is_refused = True
        self._say(b'{"refusal":%b}' % delta)

    def think(self, origin: str, delta: bytes) -> None:
        kind, name = ("summary", "summary") if origin == OPENAI else ("text", "text")
        detail = b'{"type":"reasoning.%b","%b":%b' % (kind.encode(), name.encode(), delta)
        if not self._is_thinking:
            self._is_thinking = True
            self._detail += 1
            detail += b',"format":%b' % msgspec.json.encode(form_of(origin))
        detail += b',"index":%d}' % self._detail
        self._say(b'{"reasoning":%b,"reasoning_details":[%b]}' % (delta, detail))

    def seal(self, thinking: Thinking) -> None:
        was_said, self._is_thinking = self._is_thinking, False
        details: list[dict[str, object]] = []
        if was_said and thinking.origin == OPENAI:
            details.append({"type": "reasoning.summary", "summary": "", "id": thinking.id, "index": self._detail})
        elif was_said and thinking.seal is not None:
            details.append({"type": "reasoning.text", "signature": thinking.seal, "index": self._detail})
        if thinking.seal is not None and (not was_said or thinking.origin == OPENAI):
            self._detail += 1
            sealed = Thinking(thinking.origin, None, thinking.seal, thinking.id)
            details += details_of(sealed, form_of(thinking.origin), self._detail)
        if details:
            self._say(msgspec.json.encode({"reasoning_details": details}))

    def call(self, id_: Raw, name: Raw) -> None:
        self._call += 1
        self._say(
            b'{"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]}'
            % (self._call, bytes(id_), bytes(name))
        )

    def argue(self, delta: bytes) -> None:
        self._say(b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (self._call, delta))

    def count(self, told: Usage) -> None:
        self._usage = told

    def end(self, stop: str, stop_sequence: Raw | None) -> None:
        self.sent.append(
            b'%b,"choices":[{"index":0,"delta":{},"finish_reason":"%b"}]}\n\n'
            % (self._head, finish_reason(stop, is_refused=self._is_refused).encode())
        )
        if self._usage is not None:
            told = msgspec.json.encode(usage_in_chat(self._usage))
            self.sent.append(data_event(self._head.removeprefix(b"data: ") + b',"choices":[],"usage":%b}' % told))
        self.sent.append(b"data: [DONE]\n\n")

    def keep_alive(self) -> None:
        self.sent.append(chat.KEEP_ALIVE)

    def fail(self, refusal: Refusal) -> None:
        self.sent.append(chat.error_event(refusal, self._progress))
