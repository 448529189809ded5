"""Streams of responses: written, event by event."""

import msgspec
from msgspec import Raw

from farebox.core.errors import Refusal
from farebox.core.formats import Progress, responses
from farebox.core.formats.responses_required import told
from farebox.core.sse import data_event
from farebox.core.translate.answers.responses import (
    annotation,
    call_item,
    ended,
    item_id,
    message_item,
    reasoning_item,
    response_of,
    text_piece,
)
from farebox.core.translate.neutral import EMPTY, Call, Citation, Thinking, Usage
from farebox.core.translate.raw import joined
from farebox.core.translate.usage import usage_in_responses


class ResponsesWriter:
    """Writes events, and with the last the whole response."""

    def __init__(self, progress: Progress) -> None:
        self.sent: list[bytes] = []
        self._progress = progress
        self._is_started = False
        self._output: list[dict[str, object]] = []
        self._item = ""
        self._item_id = b""
        self._part = ""
        self._pieces: list[bytes] = []
        self._content: list[dict[str, object]] = []
        self._annotations: list[dict[str, object]] = []
        self._odds: list[bytes] = []
        self._call: Call | None = None
        self._is_refused = False
        self._usage: Usage | None = None

    def start(self, id_: str, model: str, created: int) -> None:
        if self._is_started:
            return
        self._is_started = True
        progress = self._progress
        progress.generation_id, progress.model = id_ or progress.generation_id, model or progress.model
        progress.created = created or progress.created
        progress.response_id = progress.generation_id
        response = self._response("in_progress", [])
        self._say("response.created", {"response": response})
        self._say("response.in_progress", {"response": response})

    def _response(self, status: str, output: list[dict[str, object]]) -> dict[str, object]:
        progress = self._progress
        return response_of(progress.generation_id, progress.model, progress.created, status, output, told(progress))

    def _say(self, name: str, members: dict[str, object]) -> None:
        event = {"type": name, "sequence_number": self._progress.next_number, **members}
        self._progress.next_number += 1
        self.sent.append(data_event(msgspec.json.encode(event)))

    def _say_delta(self, name: bytes, place: bytes, delta: bytes, more: bytes = b"") -> None:
        number = self._progress.next_number
        self._progress.next_number = number + 1
        self.sent.append(
            b'data: {"type":"response.%b.delta","sequence_number":%d,"item_id":%b,"output_index":%d,%b"delta":%b%b}\n\n'
            % (name, number, self._item_id, len(self._output), place, delta, more)
        )

    @property
    def _place(self) -> dict[str, object]:
        return {"item_id": Raw(self._item_id), "output_index": len(self._output)}

    def _begin(self, kind: str, item: dict[str, object]) -> None:
        self._item = kind
        self._item_id = msgspec.json.encode(item["id"])
        self._say("response.output_item.added", {"output_index": len(self._output), "item": item})

    def _id(self, kind: str) -> str:
        return item_id(kind, self._progress.generation_id, len(self._output))

    def _speak(self, part: str) -> None:
        """Begin a part of a message's, in the message that is open or a new one."""
        if self._item != "message":
            self._close()
            self._content = []
            self._begin("message", message_item(self._id("msg"), [], "in_progress"))
        self._leave_part()
        self._part = part
        self._pieces, self._annotations, self._odds = [], [], []
        empty = text_piece(EMPTY, []) if part == "output_text" else {"type": "refusal", "refusal": ""}
        self._say("response.content_part.added", {**self._place, "content_index": len(self._content), "part": empty})

    def text(self, delta: bytes, logprobs: Raw | None = None) -> None:
        if self._part != "output_text":
            self._speak("output_text")
        self._pieces.append(delta)
        odds = b"[]" if logprobs is None else bytes(logprobs)
        if logprobs is not None:
            self._odds.append(odds)
        self._say_delta(b"output_text", b'"content_index":%d,' % len(self._content), delta, b',"logprobs":%b' % odds)

    def cite(self, citation: Citation) -> None:
        if self._part != "output_text":
            self._speak("output_text")
        told = annotation(citation)
        place = {**self._place, "content_index": len(self._content), "annotation_index": len(self._annotations)}
        self._annotations.append(told)
        self._say("response.output_text.annotation.added", {**place, "annotation": told})

    def refuse(self, delta: bytes) -> None:
        self._is_refused = True
        if self._part != "refusal":
            self._speak("refusal")
        self._pieces.append(delta)
        self._say_delta(b"refusal", b'"content_index":%d,' % len(self._content), delta)

    def _leave_part(self) -> None:
        if not self._part:
            return
        whole = Raw(joined(self._pieces))
        place = {**self._place, "content_index": len(self._content)}
        if self._part == "output_text":
            odds = Raw(b"[%b]" % b",".join(each[1:-1] for each in self._odds))
            part = text_piece(whole, self._annotations, odds)
            self._say("response.output_text.done", {**place, "text": whole, "logprobs": odds})
        else:
            part = {"type": "refusal", "refusal": whole}
            self._say("response.refusal.done", {**place, "refusal": whole})
        self._say("response.content_part.done", {**place, "part": part})
        self._content.append(part)
        self._part = ""

    def think(self, origin: str, delta: bytes) -> None:
        if self._item != "reasoning":
            self._close()
            self._pieces = []
            self._begin("reasoning", {"id": self._id("rs"), "type": "reasoning", "summary": []})
            part = {"type": "summary_text", "text": ""}
            self._say("response.reasoning_summary_part.added", {**self._place, "summary_index": 0, "part": part})
        self._pieces.append(delta)
        self._say_delta(b"reasoning_summary_text", b'"summary_index":0,', delta)

    def seal(self, thinking: Thinking) -> None:
        if self._item != "reasoning":
            self._close()
            self._begin("reasoning", {"id": self._id("rs"), "type": "reasoning", "summary": []})
            text = None
        else:
            text = Raw(joined(self._pieces))
            place = {**self._place, "summary_index": 0}
            self._say("response.reasoning_summary_text.done", {**place, "text": text})
            part = {"type": "summary_text", "text": text}
            self._say("response.reasoning_summary_part.done", {**place, "part": part})
        whole = Thinking(thinking.origin, text, thinking.seal, thinking.id)
        self._leave(reasoning_item(self._id("rs"), whole))

    def call(self, id_: Raw, name: Raw) -> None:
        self._close()
        self._call = Call(id_, name, EMPTY)
        self._pieces = []
        self._begin("function_call", call_item(self._id("fc"), self._call, "in_progress"))

    def argue(self, delta: bytes) -> None:
        self._pieces.append(delta)
        self._say_delta(b"function_call_arguments", b"", delta)

    def _leave(self, item: dict[str, object]) -> None:
        self._say("response.output_item.done", {"output_index": len(self._output), "item": item})
        self._output.append(item)
        self._item = ""

    def _close(self, status: str = "completed") -> None:
        if self._item == "message":
            self._leave_part()
            self._leave(message_item(self._id("msg"), self._content, status))
        elif self._item == "function_call":
            assert self._call is not None
            arguments = Raw(joined(self._pieces))
            done = {**self._place, "name": self._call.name, "arguments": arguments}
            self._say("response.function_call_arguments.done", done)
            call = Call(self._call.id, self._call.name, arguments)
            self._leave(call_item(self._id("fc"), call, status))

    def count(self, told: Usage) -> None:
        self._usage = told

    def end(self, stop: str, stop_sequence: Raw | None) -> None:
        status, more = ended(stop, is_refused=self._is_refused)
        self._close(status)
        response = {**self._response(status, self._output), **more}
        if self._usage is not None:
            response["usage"] = usage_in_responses(self._usage)
        self._say(f"response.{status}", {"response": response})

    def keep_alive(self) -> None:
        self.sent.append(responses.KEEP_ALIVE)

    def fail(self, refusal: Refusal) -> None:
        self.sent.append(responses.error_event(refusal, self._progress))
