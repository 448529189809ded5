"""Streams of messages: read, event by event."""

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.errors import broken
from farebox.core.legible import Fields, decode_fields, decoded_or, leniently, written
from farebox.core.reading import UNREADABLE
from farebox.core.translate.answers.messages import (
    Block,
    StopDetails,
    WebCitation,
    explanation,
    stop_of,
)
from farebox.core.translate.errors import failed
from farebox.core.translate.neutral import EMPTY, Citation, Writer
from farebox.core.translate.raw import NO_ARGUMENTS, NULL, is_text, joined, quoted, said, word
from farebox.core.translate.thoughts import ANTHROPIC, unpacked
from farebox.core.translate.usage import read_usage


class _Started(Struct):
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL


class _Delta(Struct):
    type: str = ""
    text: Raw = NULL
    thinking: Raw = NULL
    signature: Raw = NULL
    partial_json: Raw = NULL
    citation: WebCitation | None = None
    stop_reason: str | None = None
    stop_sequence: Raw = NULL
    stop_details: StopDetails | None = None


class _Event(Struct):
    type: str = ""
    message: _Started | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    usage: Raw = NULL
    error: Raw = NULL


_decode = Decoder(_Event).decode
_NO_DELTA = _Delta()


class MessagesReader:
    """Reads events; blocks come one after the other."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._is_started = False
        self._block = ""
        self._input: Raw | None = None
        self._seal: list[Raw] = []
        self._is_said = False
        self._texts: list[bytes] = []
        self._text_start = 0
        self._cited: list[WebCitation] = []
        self._stop: _Delta | None = None
        self._usage = Fields()
        self._is_counted = self._has_calls = False

    def see(self, data: bytes) -> bool:
        """Read an event's data. Returns whether the answer has ended."""
        try:
            event = leniently(_decode, data)
        except UNREADABLE:
            if data == b"[DONE]":
                return False
            self._writer.fail(broken("the upstream sent an event that is not a message's"))
            return True
        if not self._is_started and event.type.startswith("content_block"):
            self._start(_Started())
        match event.type:
            case "content_block_delta":
                self._see_delta(event.delta or _NO_DELTA)
            case "content_block_start" if event.content_block is not None:
                self._begin(event.content_block)
            case "content_block_stop":
                self._leave()
            case "message_start":
                self._start(event.message or _Started())
            case "message_delta":
                # Some hosts tell the counts so far in one, or once more in another: those give no reason.
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._stop = event.delta
                told = self._count(event.usage)
                self._is_counted = self._is_counted or said(told.get("output_tokens")) is not None
            case "message_stop":
                self._stop = self._stop or _NO_DELTA
                self.finish()
                return True
            case "ping":
                self._writer.keep_alive()
            case "error":
                self._writer.fail(failed(event.error))
                return True
            case _:
                pass
        return False

    def _start(self, message: _Started) -> None:
        self._is_started = True
        self._writer.start(message.id or "", message.model or "", 0)
        self._count(message.usage)

    def _count(self, usage: Raw) -> Fields:
        """Take note of a usage: the last of each member counts. At the start nothing was made, whatever it says."""
        told = decoded_or(decode_fields, said(usage), Fields())
        self._usage.update((name, count) for name, count in told.items() if said(count) is not None)
        return told

    def _begin(self, block: Block) -> None:
        self._leave()  # some hosts do not say that a block has ended
        self._block, self._is_said = block.type, False
        match block.type:
            case "text":
                self._text_start = len(self._texts)
                if is_text(block.text):
                    self._say(bytes(block.text))
            case "tool_use":
                self._has_calls = True
                self._writer.call(block.id, block.name)
                self._input = said(block.input)
            case "thinking":
                self._seal = [block.signature] if is_text(block.signature) else []
                if is_text(block.thinking):
                    self._think(block.thinking)
            case "redacted_thinking":
                self._writer.seal(unpacked(None, block.data, ANTHROPIC))
            case _:
                pass  # of a tool that the host runs

    def _say(self, text: bytes) -> None:
        self._texts.append(text)
        self._writer.text(text)

    def _think(self, text: Raw) -> None:
        self._is_said = True
        self._writer.think(ANTHROPIC, bytes(text))

    def _see_delta(self, delta: _Delta) -> None:
        match delta.type:
            case "text_delta" if is_text(delta.text):
                self._say(bytes(delta.text))
            case "input_json_delta" if is_text(delta.partial_json) and self._block == "tool_use":
                self._is_said = True
                self._writer.argue(bytes(delta.partial_json))
            case "thinking_delta" if is_text(delta.thinking):
                self._think(delta.thinking)
            case "signature_delta":
                self._seal.append(delta.signature)
            case "citations_delta" if delta.citation is not None and is_text(delta.citation.url):
                self._cited.append(delta.citation)

    def _leave(self) -> None:
        match self._block:
            case "tool_use" if not self._is_said:
                given = self._input
                told = NO_ARGUMENTS if given is None else quoted(bytes(given).decode("utf-8", "replace"))
                self._writer.argue(bytes(told))
            case "thinking":
                seal = Raw(joined(self._seal)) if self._seal else NULL
                if is_text(seal) and not self._is_said:
                    # Not shown (`display`), and yet no redacted one: its host wants it back as a thought.
                    self._think(EMPTY)
                if self._is_said:
                    self._writer.seal(unpacked(EMPTY, seal, ANTHROPIC))
            case "text" if self._cited:
                start = len(word(Raw(joined(self._texts[: self._text_start]))))
                end = start + len(word(Raw(joined(self._texts[self._text_start :]))))
                for page in self._cited:
                    self._writer.cite(Citation(page.url, page.title, start, end, page.cited_text))
                self._cited = []
        self._block = ""

    def finish(self) -> None:
        """The stream has ended. An answer that gave no reason for its end was cut off."""
        stop = self._stop
        if stop is None:
            self._writer.fail(broken("the upstream's stream ended before its answer did"))
            return
        self._writer.start("", "", 0)
        self._leave()
        if stop.stop_reason == "refusal":
            self._writer.refuse(bytes(explanation(stop.stop_details)))
        told = read_usage(written(self._usage), is_messages=True) if self._is_counted else None
        if told is not None:
            self._writer.count(told)
        self._writer.end(stop_of(stop.stop_reason, has_calls=self._has_calls), said(stop.stop_sequence))
