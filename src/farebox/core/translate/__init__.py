"""Orders, answers, streams and errors in another format than their upstream speaks. Pure: bytes in, bytes out.

An order in the caller's format (`source`) becomes one in a format of its upstream's (`native`), and what comes back
goes the other way. Between them stands the neutral form (`neutral`): each format has a reader and a writer of it for
orders, whole answers and streams. What cannot be said is refused, or left out and named, as `members` and its tables
say. Where both are one format nothing is translated, and bytes stay as they are.
"""

from collections.abc import Callable, Mapping
from itertools import permutations
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal
from farebox.core.formats import Format, Progress, chat, messages, responses
from farebox.core.formats.asking import decoded
from farebox.core.formats.envelope import failure
from farebox.core.legible import Fields, decode_fields, decoded_or, leniently
from farebox.core.pricing import ANSWER_TOKENS_MAX
from farebox.core.reading import UNREADABLE, skip_to_json
from farebox.core.sse import EventSplitter, ended, event_data
from farebox.core.translate.answers import chat as chat_answers
from farebox.core.translate.answers import messages as messages_answers
from farebox.core.translate.answers import responses as responses_answers
from farebox.core.translate.errors import refusal_of
from farebox.core.translate.members import Member, Rules, Sifter, rules_of
from farebox.core.translate.neutral import Answer, Order, Writer
from farebox.core.translate.orders import from_chat, from_messages, from_responses, to_chat, to_messages, to_responses
from farebox.core.translate.retelling import Gathering, retell
from farebox.core.translate.streams.from_chat import ChatReader
from farebox.core.translate.streams.from_messages import MessagesReader
from farebox.core.translate.streams.from_responses import ResponsesReader
from farebox.core.translate.streams.to_chat import ChatWriter
from farebox.core.translate.streams.to_messages import MessagesWriter
from farebox.core.translate.streams.to_responses import ResponsesWriter
from farebox.core.translate.tables import chat as chat_table
from farebox.core.translate.tables import messages as messages_table
from farebox.core.translate.tables import responses as responses_table


class Reader(Protocol):
    """Reads a stream in one format, and tells a Writer."""

    def see(self, data: bytes) -> bool: ...
    def finish(self) -> None: ...


class _Way(Struct, frozen=True):
    """A format's readers and writers."""

    name: str
    table: tuple[Member, ...]
    read_order: Callable[[Fields, dict[str, Raw], Sifter], Order]
    write_order: Callable[[Order, Sifter, int], dict[str, object]]
    decode_answer: Callable[[bytes], Any]
    read_answer: Callable[[Any], Answer]
    write_answer: Callable[[Answer], dict[str, object]]
    reader: Callable[[Writer], Reader]
    writer: Callable[[Progress], Writer]


_WAYS: tuple[tuple[Format, _Way], ...] = (
    (
        chat,
        _Way(
            "chat",
            chat_table.TABLE,
            from_chat.read,
            lambda order, sifter, _: to_chat.write(order, sifter),
            chat_answers.decode,
            chat_answers.read,
            chat_answers.write,
            ChatReader,
            ChatWriter,
        ),
    ),
    (
        messages,
        _Way(
            "messages",
            messages_table.TABLE,
            from_messages.read,
            to_messages.write,
            messages_answers.decode,
            messages_answers.read,
            messages_answers.write,
            MessagesReader,
            MessagesWriter,
        ),
    ),
    (
        responses,
        _Way(
            "responses",
            responses_table.TABLE,
            from_responses.read,
            lambda order, sifter, _: to_responses.write(order, sifter),
            responses_answers.decode,
            responses_answers.read,
            responses_answers.write,
            ResponsesReader,
            ResponsesWriter,
        ),
    ),
)

TABLES: Mapping[str, tuple[Member, ...]] = {way.name: way.table for _, way in _WAYS}
"""By a format's name, what becomes of each of its orders' members in the others."""


class Translation:
    """From one format to another, and back."""

    __slots__ = ("_native", "_rules", "_source", "_source_format")

    def __init__(self, source_format: Format, source: _Way, native: _Way) -> None:
        self._source_format = source_format
        self._source, self._native = source, native
        self._rules: Rules = rules_of(source.table, native.name)

    def order(self, body: bytes, *, answer_tokens_max: int = ANSWER_TOKENS_MAX) -> tuple[bytes, tuple[str, ...]]:
        """The order's body in the native format, and the names of the members that were left out. `body` was read by
        its format. Where the native format demands a cap, an order without one gets one of at most `answer_tokens_max`.

        Raises:
            Refusal: 400, a member cannot be said there, or is not as it should be.
        """
        sifter = Sifter(self._rules)
        plain, rest = sifter.top(decoded(decode_fields, body))
        order = self._source.read_order(rest, plain, sifter)
        written = self._native.write_order(order, sifter, answer_tokens_max)
        return msgspec.json.encode(written), sifter.left_out

    def answer(self, body: bytes, *, created: int, generation_id: str = "", during: Progress | None = None) -> bytes:
        """A whole answer in the caller's format. `created`, in seconds since 1970, and the id stand in it where the
        native one has none; `during` has the order, which some formats repeat.

        Raises:
            Refusal: 424, it is no valid answer, or failed after it was accepted.
        """
        return self._written(self._read(body), created, generation_id, during)

    def _read(self, body: bytes) -> Answer:
        """What a whole native answer says. Raises Refusal 424."""
        text = skip_to_json(body)
        try:
            read = leniently(self._native.decode_answer, text)
        except UNREADABLE as error:
            fields = decoded_or(decode_fields, text, Fields())
            raise failure(fields.get("error"), "the upstream's answer is not as its format has it") from error
        return self._native.read_answer(read)

    def _written(self, answer: Answer, created: int, generation_id: str, during: Progress | None) -> bytes:
        answer.id, answer.created, answer.during = answer.id or generation_id, answer.created or created, during
        return msgspec.json.encode(self._source.write_answer(answer))

    def stream(self, progress: Progress) -> "Stream":
        """What translates one stream. `progress` is the caller's side of it: what its events say of model and time
        until the native ones say something else, and the caller's client."""
        writer = self._source.writer(progress)
        return Stream(self._native.reader(writer), writer)

    def retold(self, body: bytes, progress: Progress) -> bytes:
        """A whole native answer as a stream in the caller's format, which was asked for.

        Raises:
            Refusal: 424, as `answer`.
        """
        writer = self._source.writer(progress)
        retell(self._read(body), writer)
        return b"".join(writer.sent)

    def gathered(
        self, events: bytes, *, created: int, generation_id: str = "", during: Progress | None = None
    ) -> bytes:
        """A native stream as a whole answer in the caller's format, which was asked for.

        Raises:
            Refusal: 424, it failed, or was cut off.
        """
        gathering = Gathering()
        stream = Stream(self._native.reader(gathering), gathering)
        stream.feed(events)
        stream.finish()
        if gathering.refusal is not None:
            raise gathering.refusal
        return self._written(gathering.answer, created, generation_id, during)

    def refusal(self, status: int, body: bytes) -> bytes:
        """The body of an upstream's refusal in the caller's format, to be sent under the same status."""
        return self._source_format.refusal_body(refusal_of(status, body))


class Stream:
    """Translates one stream: native bytes in, in pieces of any size; whole events in the caller's format out.

    Each event that says something makes one at least, at once; keep-alives become the caller's own. After the answer's
    end, or an error, nothing more comes out.
    """

    __slots__ = ("_is_over", "_reader", "_splitter", "_writer")

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._splitter = EventSplitter()
        self._reader, self._writer = reader, writer
        self._is_over = False

    def feed(self, chunk: bytes) -> bytes:
        """The events to send on now.

        Raises:
            Refusal: an event has grown too long and does not end.
        """
        for event in self._splitter.feed(chunk):
            if not self._is_over:
                self._see(event)
        return self._taken()

    def finish(self) -> bytes:
        """The events to send on after the upstream's last byte. An answer that has not ended by then was cut off, which
        an error tells."""
        rest = self._splitter.rest()
        if rest.strip() and not self._is_over:
            self._see(ended(rest))
        if not self._is_over:
            self._is_over = True
            self._reader.finish()
        return self._taken()

    def error(self, refusal: Refusal) -> bytes:
        """The event that says that the stream broke off; nothing where the answer has ended."""
        if self._is_over:
            return b""
        self._is_over = True
        self._writer.fail(refusal)
        return self._taken()

    def _see(self, event: bytes) -> None:
        data = event_data(event)
        if not data or not (data := data.strip()):
            if event.startswith(b":"):
                self._writer.keep_alive()
            return
        try:
            self._is_over = self._reader.see(data)
        except Refusal as refusal:
            self._is_over = True
            self._writer.fail(refusal)

    def _taken(self) -> bytes:
        sent = self._writer.sent
        if not sent:
            return b""
        taken = sent[0] if len(sent) == 1 else b"".join(sent)
        sent.clear()
        return taken


_TRANSLATIONS: Mapping[tuple[Format, Format], Translation] = MappingProxyType(
    {(source, native): Translation(source, way, other) for (source, way), (native, other) in permutations(_WAYS, 2)}
)


def translation(source: Format, native: Format) -> Translation | None:
    """How an order in `source` is served by an upstream that speaks `native`; None where it cannot be, or where the two
    are one."""
    return _TRANSLATIONS.get((source, native))


__all__ = ["TABLES", "Stream", "Translation", "translation"]
