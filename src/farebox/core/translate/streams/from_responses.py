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
    parts_in,
    stop_of,
    thought_in,
)
from farebox.core.translate.errors import failed
from farebox.core.translate.neutral import EMPTY, Thinking, Writer
from farebox.core.translate.raw import BREAK, NO_ARGUMENTS, NULL, arguments_of, is_text, joined, said
from farebox.core.translate.retelling import retell_parts
from farebox.core.translate.streams.from_chat import Calls, Function
from farebox.core.translate.thoughts import OPENAI
from farebox.core.translate.usage import read_usage


class _Event(Struct):
    type: str = ""
    response: Response | None = None
    item: Item | None = None
    delta: Raw = NULL
    logprobs: Raw = NULL
    annotation: Raw = NULL
    output_index: int = 0
    summary_index: int = 0
    error: Raw = NULL
    code: Raw = NULL
    message: Raw = NULL


_decode = Decoder(_Event).decode

_CONTENT = ("response.output", "response.function", "response.reasoning", "response.refusal")
"""How the names of events begin that belong to an item."""


class ResponsesReader:
    """Reads events; items come one after the other, but for calls, of which several may be open at once."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._texts: list[bytes] = []
        self._thought: Thinking | None = None
        self._calls = Calls(writer)
        self._has_items = self._is_said = False
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
        if not self._has_items and event.type.startswith(_CONTENT):
            self._has_items = True
            self._start(Response())
        match event.type:
            case "response.output_text.delta" if is_text(event.delta):
                self._say(bytes(event.delta), event.logprobs)
            case "response.function_call_arguments.delta" if is_text(event.delta):
                self._calls.see(event.output_index, NULL, Function(arguments=event.delta))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" if is_text(event.delta):
                self._think(bytes(event.delta))
            case "response.reasoning_summary_part.added" if event.summary_index and self._thought is not None:
                self._think(BREAK)
            case "response.refusal.delta" if is_text(event.delta):
                self._refuse(bytes(event.delta))
            case "response.output_item.added" if event.item is not None:
                self._begin(event.item, event.output_index)
            case "response.output_item.done" if event.item is not None:
                self._leave(event.item, event.output_index)
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
        self._writer.start(response.id or "", response.model or "", int(response.created_at or 0))

    def _begin(self, item: Item, index: int) -> None:
        self._is_said = False
        if item.type == "function_call":
            self._calls.see(index, item.call_id, Function(item.name))

    def _say(self, delta: bytes, odds: Raw) -> None:
        self._calls.flush()
        self._is_said = True
        self._texts.append(delta)
        self._writer.text(delta, None if bytes(odds) in (b"null", b"[]") else odds)

    def _refuse(self, delta: bytes) -> None:
        self._calls.flush()
        self._is_said = True
        self._writer.refuse(delta)

    def _think(self, delta: bytes) -> None:
        self._calls.flush()
        self._thought = self._thought or Thinking(OPENAI, EMPTY)
        self._writer.think(OPENAI, delta)

    def _leave(self, item: Item, index: int) -> None:
        match item.type:
            case "function_call":
                arguments = arguments_of(item.arguments) or NO_ARGUMENTS
                self._calls.end(index, item.call_id, Function(item.name, arguments))
            case "message" if not self._is_said:
                self._retell(item)
            case "reasoning" if self._thought is None:
                self._retell(item)
            case "reasoning":
                self._writer.seal(thought_in(item) or Thinking(OPENAI, EMPTY, None, said(item.id)))
                self._thought = None
            case _:
                pass  # all of it was told; or of a tool that the host runs
        self._is_said = False

    def _retell(self, item: Item) -> None:
        """Tell an item whose host gave it whole, in no deltas."""
        self._calls.flush()
        retell_parts(parts_in(item), self._writer)

    def finish(self) -> None:
        """The stream has ended. One without its last event was cut off."""
        last = self._last
        if last is None:
            self._writer.fail(broken("the upstream's stream ended before its answer did"))
            return
        self._start(last)
        if not self._has_items:
            for index, item in enumerate(last.output or ()):
                self._leave(item, index)
        self._calls.flush()
        if (told := read_usage(last.usage)) is not None:
            self._writer.count(told)
        self._writer.end(stop_of(last, has_calls=self._calls.were), None)


def _error_in(event: _Event, data: bytes) -> Raw:
    """The error object, wherever it stands: in the response, beside it, or it is the event."""
    within = NULL if event.response is None else event.response.error
    return said(within) or said(event.error) or Raw(data)
