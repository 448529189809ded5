"""Whole answers told as streams, and streams as whole answers: for hosts that send the one where the other was asked
for. Only what is translated is told anew: in their own format answers pass as they come."""

from collections.abc import Iterable

from msgspec import Raw

from farebox.core.errors import Refusal
from farebox.core.translate.neutral import Answer, Call, Citation, Part, Refused, Text, Thinking, Usage, Writer
from farebox.core.translate.raw import joined


def retell(answer: Answer, writer: Writer) -> None:
    """Tell a writer of streams all that a whole answer says."""
    writer.start(answer.id, answer.model, answer.created)
    retell_parts(answer.parts, writer)
    if answer.usage is not None:
        writer.count(answer.usage)
    writer.end(answer.stop, answer.stop_sequence)


def retell_parts(parts: Iterable[Part], writer: Writer) -> None:
    for part in parts:
        match part:
            case Text(text):
                writer.text(bytes(text), part.logprobs)
                for citation in part.citations:
                    writer.cite(citation)
            case Refused(text):
                writer.refuse(bytes(text))
            case Thinking():
                if part.text is not None:
                    writer.think(part.origin, bytes(part.text))
                writer.seal(part)
            case Call(id_, name, arguments):
                writer.call(id_, name)
                writer.argue(bytes(arguments))
            case _:
                raise AssertionError(part)


class Gathering:
    """Writes no stream: `answer` is all that it was told, once it has ended, and `refusal` why it is none."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.refusal: Refusal | None = None
        self.answer = Answer("", "", 0, [], "stop")
        self._pieces: list[bytes] = []
        self._odds: list[bytes] = []
        self._citations: list[Citation] = []
        self._part: Part | None = None

    def start(self, id_: str, model: str, created: int) -> None:
        answer = self.answer
        answer.id, answer.model = answer.id or id_, answer.model or model
        answer.created = answer.created or created

    def _go_on(self, part: Part) -> None:
        """Go on with the part that is open, or begin this one where that is of another kind."""
        if type(self._part) is not type(part):
            self._leave()
            self._part = part

    def _leave(self) -> None:
        """End the part that is open."""
        part, told = self._part, Raw(joined(self._pieces))
        if part is None:
            return
        match part:
            case Text():
                part.text, part.citations = told, tuple(self._citations)
                part.logprobs = Raw(b"[%b]" % b",".join(self._odds)) if self._odds else None
            case Refused() | Thinking():
                part.text = told
            case Call():
                part.arguments = told
            case _:
                raise AssertionError(part)
        self.answer.parts.append(part)
        self._part, self._pieces, self._odds, self._citations = None, [], [], []

    def text(self, delta: bytes, logprobs: Raw | None = None) -> None:
        self._go_on(Text(Raw(delta)))
        self._pieces.append(delta)
        if logprobs is not None:
            self._odds.append(bytes(logprobs)[1:-1])

    def cite(self, citation: Citation) -> None:
        self._go_on(Text(Raw(b'""')))
        self._citations.append(citation)

    def refuse(self, delta: bytes) -> None:
        self._go_on(Refused(Raw(delta)))
        self._pieces.append(delta)

    def think(self, origin: str, delta: bytes) -> None:
        self._go_on(Thinking(origin))
        self._pieces.append(delta)

    def seal(self, thinking: Thinking) -> None:
        part = self._part
        if isinstance(part, Thinking):
            part.origin, part.seal, part.id = thinking.origin, thinking.seal, thinking.id
            self._leave()
        else:
            self._leave()
            self.answer.parts.append(Thinking(thinking.origin, None, thinking.seal, thinking.id))

    def call(self, id_: Raw, name: Raw) -> None:
        self._leave()
        self._part = Call(id_, name, Raw(b'""'))

    def argue(self, delta: bytes) -> None:
        self._pieces.append(delta)

    def count(self, told: Usage) -> None:
        self.answer.usage = told

    def end(self, stop: str, stop_sequence: Raw | None) -> None:
        self._leave()
        self.answer.stop, self.answer.stop_sequence = stop, stop_sequence

    def keep_alive(self) -> None:
        """Nothing to keep alive."""

    def fail(self, refusal: Refusal) -> None:
        self.refusal = refusal
