"""Streams of chat completions: read, event by event."""

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.errors import broken
from farebox.core.legible import Fields, decode_each, decoded_or, leniently
from farebox.core.reading import UNREADABLE, Number
from farebox.core.translate.answers.chat import (
    STOPS,
    citations_in,
    parts_in,
)
from farebox.core.translate.errors import failed
from farebox.core.translate.neutral import EMPTY, Thinking, Usage, Writer
from farebox.core.translate.raw import NO_ARGUMENTS, NULL, arguments_of, is_text, joined, object_in, quoted, said, word
from farebox.core.translate.thoughts import CHAT
from farebox.core.translate.usage import read_usage


class Function(Struct, frozen=True):
    """What is told of a call's function at once: its name, a piece of its arguments, or both."""

    name: Raw = NULL
    arguments: Raw = NULL


class _Call(Struct):
    index: int | None = None
    id: Raw = NULL
    function: Function | None = None


class _Delta(Struct, frozen=True):
    content: Raw = NULL
    refusal: Raw = NULL
    reasoning: Raw = NULL
    reasoning_content: Raw = NULL
    reasoning_details: Raw = NULL
    tool_calls: list[_Call] | None = None
    annotations: Raw = NULL


class _Odds(Struct):
    content: Raw = NULL


class _Choice(Struct):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Odds | None = None


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    created: Number | None = None
    choices: list[_Choice] | None = None
    usage: Raw = NULL
    error: Raw = NULL


_decode = Decoder(_Chunk).decode
_NO_DELTA, _NO_FUNCTION = _Delta(), Function()


class ChatReader:
    """Reads chunks. A chat completion does not say where a part ends, and its calls may come in turns."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._calls = Calls(writer)
        self._thought: Thinking | None = None
        self._texts: list[bytes] = []
        self._has_choices = self._has_usage = self._is_over = False
        self._stop: str | None = None
        self._usage: Usage | None = None

    def see(self, data: bytes) -> bool:
        """Read an event's data. Returns whether the answer has ended."""
        if data == b"[DONE]":
            self._is_over = True
            self.finish()
            return True
        try:
            chunk = leniently(_decode, data)
        except UNREADABLE:
            self._writer.fail(broken("the upstream sent an event that is not a chat completion's"))
            return True
        if said(chunk.error) is not None:
            self._writer.fail(failed(chunk.error))
            return True
        if chunk.id or chunk.choices:  # Azure's first chunk has neither: it tells of filters
            self._writer.start(chunk.id or "", chunk.model or "", int(chunk.created or 0))
        for choice in chunk.choices or ():
            if choice.finish_reason == "error":
                raise broken("the upstream accepted the order and then failed")
            self._has_choices = True
            if not choice.index:
                self._see_choice(choice.delta or _NO_DELTA, choice)
        if said(chunk.usage) is not None:
            # Some hosts tell the counts so far in every chunk.
            self._usage, self._has_usage = read_usage(chunk.usage), True
            self._is_over = self._is_over or not chunk.choices
        return False

    def _see_choice(self, delta: _Delta, choice: _Choice) -> None:
        if bytes(delta.reasoning_details) != b"null" or is_text(delta.reasoning) or is_text(delta.reasoning_content):
            self._think(delta)
        if bytes(delta.content).startswith(b"["):
            for part in parts_in(delta.content):
                if isinstance(part, Thinking):
                    self._say_thought(part.origin, part.text, None, None)
                else:
                    self._say(bytes(part.text), None)
        elif is_text(delta.content):
            self._say(bytes(delta.content), None if choice.logprobs is None else said(choice.logprobs.content))
        if is_text(delta.refusal):
            self._leave_thought()
            self._calls.flush()
            self._writer.refuse(bytes(delta.refusal))
        if delta.tool_calls:
            self._leave_thought()
            for call in delta.tool_calls:
                self._calls.see(call.index or 0, call.id, call.function or _NO_FUNCTION)
        if bytes(delta.annotations) != b"null":
            for citation in citations_in(delta.annotations, joined(self._texts)):
                self._writer.cite(citation)
        if choice.finish_reason:
            self._stop = STOPS.get(choice.finish_reason, "stop")

    def _say(self, text: bytes, odds: Raw | None) -> None:
        self._leave_thought()
        self._calls.flush()
        self._texts.append(text)
        self._writer.text(text, odds)

    def _think(self, delta: _Delta) -> None:
        details = decoded_or(decode_each, said(delta.reasoning_details), list[Fields]())
        if not details:
            name, told = (
                ("reasoning", delta.reasoning)
                if is_text(delta.reasoning)
                else ("reasoning_content", delta.reasoning_content)
            )
            if is_text(told):
                self._say_thought(f"{CHAT}:{name}", told, None, None)
        for detail in details:
            text = said(detail.get("text")) or said(detail.get("summary"))
            seal = said(detail.get("signature")) or said(detail.get("data"))
            origin = f"{CHAT}:{word(detail.get('format'))}"
            self._say_thought(origin, text, seal, said(detail.get("id")))

    def _say_thought(self, origin: str, text: Raw | None, seal: Raw | None, id_: Raw | None) -> None:
        self._calls.flush()
        thought = self._thought
        if thought is not None and (thought.seal is not None or (text is None and thought.id != id_)):
            self._leave_thought()
            thought = None
        if thought is None:
            if text is None or not is_text(text):
                if seal is not None:
                    self._writer.seal(Thinking(origin, None, seal, id_))
                return
            thought = self._thought = Thinking(origin, EMPTY, None, id_)
        if is_text(text):
            assert text is not None
            self._writer.think(thought.origin, bytes(text))
        if thought.origin == f"{CHAT}:" and origin != thought.origin:
            thought.origin = origin
        thought.id = thought.id or id_
        thought.seal = seal

    def _leave_thought(self) -> None:
        if self._thought is not None:
            self._writer.seal(self._thought)
            self._thought = None

    def finish(self) -> None:
        """The stream has ended. An answer that gave no reason for its end was cut off."""
        self._leave_thought()
        self._calls.flush()
        if self._stop is None and not (self._is_over and self._has_usage and self._has_choices):
            self._writer.fail(broken("the upstream's stream ended before its answer did"))
            return
        if self._usage is not None:
            self._writer.count(self._usage)
        stop = self._stop or "stop"
        self._writer.end("tools" if stop == "stop" and self._calls.were else stop, None)


class _Told(Struct):
    """What was told of a call so far."""

    id: Raw
    name: Raw
    pieces: list[bytes]
    look_at: int = 1
    is_whole: bool = False
    is_over: bool = False


class Calls:
    """Brings calls into a row that come in turns: others wait until the first one's arguments are whole. Calls of one
    answer are known by an `index`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._at: dict[int, _Told] = {}
        self._open: _Told | None = None
        self._waiting: list[_Told] = []

    @property
    def were(self) -> bool:
        """Whether there was any."""
        return bool(self._at)

    def see(self, index: int, id_: Raw, function: Function) -> None:
        told = arguments_of(function.arguments)
        pieces = [] if told is None else [bytes(told)]
        call = self._at.get(index)
        # Ollama (0.20) has all its calls at the index 0.
        if call is None or (is_text(id_) and is_text(function.name) and bytes(id_) != bytes(call.id)):
            call = self._at[index] = _Told(id_ if is_text(id_) else quoted(f"call_{index}"), function.name, [])
            self._waiting.append(call)
        if call.is_over and pieces:
            raise broken("the upstream went back to a call after its end")
        call.pieces += pieces
        if call is self._open:
            self._argue(pieces)
        else:
            self._advance()

    def end(self, index: int, id_: Raw, function: Function) -> None:
        """A call of this id and function is whole; of its arguments pieces may have come, or none."""
        if (call := self._at.get(index)) is None:
            self.see(index, id_, function)
        elif not call.pieces:
            self.see(index, NULL, Function(arguments=function.arguments))
        self._at[index].is_whole = True
        self._advance()

    def _argue(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._writer.argue(piece)

    def _advance(self) -> None:
        while self._waiting and (self._open is None or _is_whole(self._open)):
            self._next()

    def _next(self) -> None:
        self._leave()
        call = self._open = self._waiting.pop(0)
        self._writer.call(call.id, call.name)
        self._argue(call.pieces)

    def _leave(self) -> None:
        if self._open is not None:
            if not self._open.pieces:
                self._writer.argue(bytes(NO_ARGUMENTS))
            self._open.is_over = True
            self._open = None

    def flush(self) -> None:
        """End all calls: something else was said."""
        while self._waiting:
            self._next()
        self._leave()


def _is_whole(call: _Told) -> bool:
    """Whether a call's arguments are an object. That is looked at again when there are twice as many pieces: each look
    reads all of them, and other calls may have thousands of pieces meanwhile."""
    if not call.is_whole and len(call.pieces) >= call.look_at:
        call.is_whole = object_in(Raw(joined(call.pieces))) is not None
        call.look_at = 2 * len(call.pieces)
    return call.is_whole
