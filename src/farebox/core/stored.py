"""Answers in Responses that are kept for their account: what an order asks of that, what its answer says of it, and the
row that is kept.

Who keeps them is Farebox, never the upstream: what it would keep were the operator's, of all callers together. So every
order goes there with `store: false`, and what its answer says of `store`, `background` and the answer before it is
written here.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from farebox.core.continuation import PREVIOUS, input_items, items_of
from farebox.core.formats.responses_required import told_of
from farebox.core.legible import Fields, decode_fields, decoded_or, leniently, written
from farebox.core.reading import UNREADABLE, is_null
from farebox.core.sse import EventSplitter, data_event, event_data, named_event

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

RUNNING = ("queued", "in_progress")

ID_CHARS_MAX = 200
"""The longest id of an answer that is kept: it is asked for in a path."""

_TRUE, _FALSE, _NULL = Raw(b"true"), Raw(b"false"), Raw(b"null")


class StoredRow(Struct, frozen=True):
    """A kept answer, and its order's input. `input` is the member of the order as it came, a text or a list of items;
    `answer` the whole answer as its caller got it. `events` are those that it was told in, where an order in the
    background was to be streamed. `worker` is the process that runs it, where it runs in the background."""

    account_id: int
    id: str
    previous_id: str | None
    status: Status
    created_us: int
    until_us: int
    input: bytes
    answer: bytes
    generation_id: str | None = None
    background: bool = False
    worker: str | None = None
    events: bytes | None = None

    @property
    def size(self) -> int:
        return len(self.input) + len(self.answer) + len(self.events or b"")

    @property
    def is_running(self) -> bool:
        return self.status in RUNNING


class Wanted(Struct):
    """What an order asks of keeping. `store` is None where it does not say."""

    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    input: Raw | UnsetType = UNSET
    conversation: Raw | UnsetType = UNSET

    @property
    def has_conversation(self) -> bool:
        return self.conversation is not UNSET and not is_null(self.conversation)


_decode_wanted = msgspec.json.Decoder(Wanted).decode


def read_wanted(body: bytes) -> Wanted | None:
    """None where the body is no order: who reads it whole says why."""
    try:
        return leniently(_decode_wanted, body)
    except UNREADABLE:
        return None


def for_upstream(body: bytes, wanted: Wanted) -> bytes:
    """The order without what is done here, and with `store: false`."""
    if wanted.store is False and b'"background' not in body:
        return body
    at = body.find(b"{") + 1
    if wanted.store is None and not wanted.background and b'"store"' not in body and body[at : at + 1] == b'"':
        # As nearly every order is: it need not be taken apart.
        return b'%b"store":false,%b' % (body[:at], body[at:])
    fields = decode_fields(body)
    fields["store"] = _FALSE
    for name in ("background", "background_options"):
        fields.pop(name, None)
    return bytes(written(fields))


def as_stream(body: bytes) -> bytes:
    """The order, streamed: so one in the background can be stopped, and told on."""
    fields = decode_fields(body)
    fields["stream"] = _TRUE
    return bytes(written(fields))


class _Life(Struct):
    type: str
    response: Raw | UnsetType = UNSET


class _Named(Struct):
    id: str = ""
    status: str = ""


_decode_life = msgspec.json.Decoder(_Life).decode
_decode_text = msgspec.json.Decoder(str).decode

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
_LIFE = _LAST | {"response.created", "response.in_progress", "response.queued"}

_WHOLE_RESPONSE = b'"response"'
"""What stands in the few events that carry the whole response, and within no text: there its quotes are escaped."""


class Keeping:
    """One order's answer on its way to its caller: what it says of keeping is written in, and what is kept noted.

    What a stream ends with, from its last whole response on, is `held_back` until the answer is kept: who reads it may
    continue it at once. `is_wanted`: the order says itself that it is to be kept.
    """

    __slots__ = (
        "_answer",
        "_bytes_max",
        "_earlier",
        "_events",
        "_input",
        "_is_ended",
        "_members",
        "_previous_id",
        "_status",
        "account_id",
        "generation_id",
        "held_back",
        "is_background",
        "is_kept",
        "is_streamed",
        "response_id",
    )

    def __init__(self, account_id: int, wanted: Wanted, *, is_kept: bool, bytes_max: int, earlier: int = 0) -> None:
        self.account_id = account_id
        self.is_kept = is_kept
        self.is_background = wanted.background is True
        self.is_streamed = wanted.stream is True
        self.response_id = ""
        self.generation_id: str | None = None
        self.held_back = b""
        self._earlier = earlier
        self._previous_id = wanted.previous_response_id
        self._input = b"[]" if wanted.input is UNSET or is_null(wanted.input) else bytes(wanted.input)
        self._bytes_max = bytes_max
        self._answer: bytes | None = None
        self._events = bytearray()
        self._status = ""
        self._is_ended = False
        before = _NULL if self._previous_id is None else Raw(msgspec.json.encode(self._previous_id))
        self._members: Fields = {PREVIOUS: before, "background": _TRUE if self.is_background else _FALSE}

    @property
    def has_answer(self) -> bool:
        """Whether an answer came that is kept."""
        return self._is_ended and self.is_kept and self._answer is not None and self._status in _STATUSES

    def run_as(self, response_id: str) -> None:
        """The answer gets an id of ours: its caller was told that before the upstream was asked."""
        self.response_id = response_id
        self._members["id"] = Raw(msgspec.json.encode(response_id))

    def changed(self, body: bytes) -> None:
        """Guards made another order of it: what they let through is what is kept. Where it cannot be told any more what
        of that is its own, all is, and the answer before it is not needed to continue it."""
        given = input_items(body)
        if len(given) == self._earlier + len(items_of(self._input)):
            given = given[self._earlier :]
        else:
            self._previous_id = None
        self._input = b"[" + b",".join(map(bytes, given)) + b"]"

    def begun(self, model: str, now_us: int, until_us: int, worker: str, order: bytes = b"{}") -> StoredRow:
        """The row of an order in the background that has yet to be served: its answer is what its caller is told at
        once."""
        self._status = "queued"
        response: Mapping[str, object] = {
            "id": self.response_id,
            "object": "response",
            "created_at": now_us // 1_000_000,
            "status": "queued",
            "model": model,
            "output": [],
            **dict.fromkeys(("completed_at", "error", "incomplete_details", "usage")),
            **told_of(order),
            "store": True,
            **self._members,
        }
        self._answer = msgspec.json.encode(response)
        return replace(self._row(now_us, until_us), worker=worker)

    def tell(self, answer: bytes) -> bytes:
        """A whole answer as its caller gets it, and as it is kept."""
        try:
            fields = decode_fields(answer)
        except UNREADABLE:
            return answer
        self._is_ended = True
        return bytes(written(self._told(fields)))

    def _told(self, fields: Fields) -> Fields:
        """Of the last whole response that comes, which is the answer."""
        id_ = decoded_or(_decode_text, fields.get("id"), "")
        self.generation_id = id_ or None
        self.response_id = self.response_id if "id" in self._members else id_
        self._status = decoded_or(_decode_text, fields.get("status"), "")
        fields.update(self._members)
        fields["store"] = _TRUE
        answer = bytes(written(fields))
        is_fit = 0 < len(self.response_id) <= ID_CHARS_MAX and len(answer) + len(self._input) <= self._bytes_max
        if self.is_kept and not (is_fit and self._status):
            self.is_kept = False
        if not self.is_kept:
            fields["store"] = _FALSE
        self._answer = answer if self.is_kept else None
        return fields

    def take(self, piece: bytes) -> bytes:
        """A piece of a stream, of whole events, as it goes on; b"" where it is held back."""
        told = self._take(piece)
        if self.is_background and self.is_streamed:
            self._note(told)
        return told

    def _note(self, told: bytes) -> None:
        """Keep what the answer is told in, to be told again; as far as it fits."""
        self._events += told
        if len(self._events) > self._bytes_max:
            self._events.clear()
            self.is_streamed = False

    def _take(self, piece: bytes) -> bytes:
        if self.held_back:
            self.held_back += piece
            return b""
        if _WHOLE_RESPONSE not in piece:
            return piece
        splitter, sent = EventSplitter(), bytearray()
        for event in splitter.feed(piece):
            if self.held_back:
                self.held_back += event
                continue
            told, is_last = self._event(event)
            if is_last:
                self.held_back = told
            else:
                sent += told
        if rest := splitter.rest():
            if self.held_back:
                self.held_back += rest
            else:
                sent += rest
        return bytes(sent)

    def _event(self, event: bytes) -> tuple[bytes, bool]:
        data = event_data(event)
        if data is None or _WHOLE_RESPONSE not in data:
            return event, False
        try:
            life = leniently(_decode_life, data)
            if life.type not in _LIFE or life.response is UNSET:
                return event, False
            fields, response = decode_fields(data), decode_fields(life.response)
        except UNREADABLE:
            return event, False
        fields["response"] = written(self._told(response))
        told = bytes(written(fields))
        is_last = life.type in _LAST
        self._is_ended = is_last
        name = life.type.encode()
        return (named_event(name, told) if event.startswith(b"event:") else data_event(told)), is_last

    def row(self, now_us: int, until_us: int) -> StoredRow | None:
        """What is kept of it now; None where nothing is: it is not to be, or no answer came."""
        return self._row(now_us, until_us) if self.has_answer else None

    def _row(self, now_us: int, until_us: int) -> StoredRow:
        assert self._answer is not None, self
        has_events = self._is_ended and self.is_background and self.is_streamed
        return StoredRow(
            self.account_id,
            self.response_id,
            self._previous_id,
            self._status,  # type: ignore[arg-type]
            now_us,
            until_us,
            self._input,
            self._answer,
            self.generation_id,
            self.is_background,
            events=bytes(self._events) + self.held_back if has_events else None,
        )


_STATUSES = frozenset({"queued", "in_progress", "completed", "incomplete", "failed", "cancelled"})


def turned(row: StoredRow, status: Status, why: str = "") -> StoredRow:
    """The row of an order in the background that goes on, or got no answer."""
    fields = decode_fields(row.answer)
    fields["status"] = Raw(msgspec.json.encode(status))
    if why:
        fields["error"] = Raw(msgspec.json.encode({"code": "server_error", "message": why}))
    return replace(row, status=status, answer=bytes(written(fields)))
