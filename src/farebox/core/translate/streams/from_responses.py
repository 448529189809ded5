"""Streams of responses: read, event by event."""

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.errors import broken
from farebox.core.legible import leniently
from farebox.core.reading import UNREADABLE
from farebox.core.translate.answers.responses import (
    Item,
    Response,
    cited,
    stop_of,
    thought_in,
)
from farebox.core.translate.errors import failed
from farebox.core.translate.neutral import EMPTY, Thinking, Writer
from farebox.core.translate.raw import BREAK, NO_ARGUMENTS, NULL, arguments_of, is_text, joined, said
from farebox.core.translate.thoughts import OPENAI
from farebox.core.translate.usage import read_usage


class _Event(Struct):
    type: str = ""
    response: Response | None = None
    item: Item | None = None
    delta: Raw = NULL
    logprobs: Raw = NULL
    annotation: Raw = NULL
    summary_index: int = 0
    error: Raw = NULL
    code: Raw = NULL
    message: Raw = NULL


_decode = Decoder(_Event).decode

_CONTENT = ("response.output", "response.function", "response.reasoning", "response.refusal")
"""How the names of events begin that belong to an item."""


class ResponsesReader:
    """Reads events; items come one after the other."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._texts: list[bytes] = []
        self._thought: Thinking | None = None
        self._is_started = False
        self._is_argued = self._has_calls = False
        self._last: Response | None = None

    def see(self, data: bytes) -> bool:
        """Read an event's data. Returns whether the answer has ended."""
        try:
            event = leniently(_decode, data)
        except UNREADABLE:
            if data == b"[DONE]":
                return False
            self._writer.fail(broken("the upstream sent an event that is not a response's"))
            return True
        if not self._is_started and event.type.startswith(_CONTENT):
            self._start(Response())
        match event.type:
            case "response.output_text.delta" if is_text(event.delta):
                self._texts.append(bytes(event.delta))
                odds = bytes(event.logprobs)
                self._writer.text(bytes(event.delta), None if odds in (b"null", b"[]") else event.logprobs)
            case "response.function_call_arguments.delta" if is_text(event.delta):
                self._is_argued = True
                self._writer.argue(bytes(event.delta))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" if is_text(event.delta):
                self._think(bytes(event.delta))
            case "response.reasoning_summary_part.added" if event.summary_index and self._thought is not None:
                self._think(BREAK)
            case "response.refusal.delta" if is_text(event.delta):
                self._writer.refuse(bytes(event.delta))
            case "response.output_item.added" if event.item is not None:
                self._begin(event.item)
            case "response.output_item.done" if event.item is not None:
                self._leave(event.item)
            case "response.output_text.annotation.added":
                if (citation := cited(event.annotation, joined(self._texts))) is not None:
                    self._writer.cite(citation)
            case "response.created" | "response.in_progress" | "response.queued" if event.response is not None:
                self._start(event.response)
            case "response.completed" | "response.incomplete" if event.response is not None:
                self._last = event.response
                self.finish()
                return True
            case "response.failed" | "response.error" | "error":
                self._writer.fail(failed(_error_in(event, data)))
                return True
            case _:
                pass  # the end of a part, which the next one tells, too; or of a tool that the host runs
        return False

    def _start(self, response: Response) -> None:
        self._is_started = True
        self._writer.start(response.id or "", response.model or "", int(response.created_at or 0))

    def _begin(self, item: Item) -> None:
        if item.type == "function_call":
            self._has_calls, self._is_argued = True, False
            self._writer.call(item.call_id, item.name)

    def _think(self, delta: bytes) -> None:
        self._thought = self._thought or Thinking(OPENAI, EMPTY)
        self._writer.think(OPENAI, delta)

    def _leave(self, item: Item) -> None:
        if item.type == "function_call" and not self._is_argued:
            self._writer.argue(bytes(arguments_of(item.arguments) or NO_ARGUMENTS))
        elif item.type == "reasoning":
            thought = thought_in(item)
            if self._thought is not None:
                self._writer.seal(thought or Thinking(OPENAI, EMPTY, None, said(item.id)))
            elif thought is not None:
                if thought.text is not None:
                    self._writer.think(OPENAI, bytes(thought.text))
                self._writer.seal(thought)
            self._thought = None

    def finish(self) -> None:
        """The stream has ended. One without its last event was cut off."""
        last = self._last
        if last is None:
            self._writer.fail(broken("the upstream's stream ended before its answer did"))
            return
        self._start(last)
        if (told := read_usage(last.usage)) is not None:
            self._writer.count(told)
        self._writer.end(stop_of(last, has_calls=self._has_calls), None)


def _error_in(event: _Event, data: bytes) -> Raw:
    """The error object, wherever it stands: in the response, beside it, or it is the event."""
    within = NULL if event.response is None else event.response.error
    return said(within) or said(event.error) or Raw(data)
