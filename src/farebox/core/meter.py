"""The meter: a stream's bytes pass through it, and it reads what they say about the cost.

It changes no server-sent event but those that strict SDKs choke on, keeps none back but one whose end has not come, and
does no I/O. Of an upstream that tells no cost it counts what was used, and a tariff makes the cost of that.
"""

from farebox.core.errors import Refusal
from farebox.core.formats import PASS, Format, Progress, Seen
from farebox.core.kinds import TOKENS_MAX, UNITS_MAX
from farebox.core.likeness import Likeness, PutChunk
from farebox.core.reading import as_kept
from farebox.core.sse import CR, LF, EventSplitter, ended, event_data
from farebox.core.tariffs import Priced, Tariff
from farebox.core.usage import Cost, Unknown, Usage, Verdict

_COLON = ord(":")
"""Begins a comment, behind which an event's data may come."""


class Meter:
    """Reads one exchange, streamed or whole. The last cost seen is the one that counts; with a `tariff`, what its
    prices make of the usage once the answer's end has come, and never what the upstream says of the cost."""

    __slots__ = (
        "_cost",
        "_counting",
        "_likeness",
        "_splitter",
        "_tariff",
        "_wire",
        "answer_tokens",
        "job_id",
        "progress",
        "prompt_tokens",
        "served_model",
        "sse_events",
        "units",
    )

    def __init__(self, wire: Format, progress: Progress, tariff: Tariff | None = None) -> None:
        self._wire = wire
        self._tariff = tariff
        self._counting = None if tariff is None else wire.counting()
        self._splitter: EventSplitter | None = None
        self._likeness: Likeness | None = None
        self._cost: Cost | Unknown | None = None
        self.progress = progress
        self.sse_events = 0
        """Server-sent events so far, comments not counted."""
        self.served_model: str | None = None
        self.prompt_tokens: int | None = None
        self.answer_tokens: int | None = None
        self.job_id: str | None = None
        """The job that the order began, if it did."""
        self.units: int | None = None
        """How much of its kind's unit was used, where the answer tells."""

    def identify(self, generation_id: str | None) -> None:
        """Take the generation's id from the answer's head, where it stands there."""
        if generation_id:
            self.progress.generation_id = generation_id

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to send on now: every server-sent event that `chunk` completes.

        Raises:
            Refusal: one has grown too long and does not end.
        """
        if (splitter := self._splitter) is None:
            splitter = self._splitter = EventSplitter()
        # Nearly always one event comes, of one line, or of its name's and one more. Of all looks at it, these are the
        # cheapest.
        lines = chunk[:-2]
        is_whole = LF not in lines or b"\n\n" not in lines
        if splitter.is_between and is_whole and chunk[-2:] == b"\n\n" and lines and CR not in lines:
            if lines[0] != _COLON or event_data(chunk) is not None:
                self.sse_events += 1
            if self._counting is not None:
                self._counting.see_event(chunk)
            seen = self._wire.see_event(chunk, self.progress)
            return self._passed(chunk) if seen is PASS else self._sent_on(chunk, seen)
        events = splitter.feed(chunk)
        if self._likeness is not None:
            self._likeness.is_between = splitter.is_between
        return b"".join([self._pass(event) for event in events])

    def pass_likes(self, put: PutChunk) -> Likeness | None:
        """Let events that are like one before go by without being read, to `put`. None where each must be read."""
        text_begins = self._wire.TEXT_BEGINS
        if not text_begins or self._counting is not None:
            return None
        self._likeness = likeness = Likeness(text_begins, put)
        likeness.is_between = self._splitter is None or self._splitter.is_between
        return likeness

    def finish(self) -> bytes:
        """The bytes to send on after the upstream's last: a server-sent event whose closing empty line is missing,
        with that line."""
        rest = b"" if self._splitter is None else self._splitter.rest()
        return self._pass(ended(rest)) if rest.strip() else rest

    def read_answer(self, body: bytes) -> tuple[bytes, Refusal | None]:
        """The body to send on, and the Refusal if it is no valid answer."""
        if self._counting is not None:
            self._counting.see_answer(body)
        see_echoing = self._wire.DESCRIBED.see_echoing
        seen = self._wire.see_answer(body) if see_echoing is None else see_echoing(body, self.progress)
        self._note(seen)
        self.job_id = seen.job_id
        return (body if seen.repaired is None else seen.repaired), seen.failure

    def verdict(self, otherwise: str) -> Verdict:
        """What an accepted order cost: what its answer reports, or its usage comes to; or Unknown with the reason that
        `otherwise` gives, where nothing of that came."""
        if self._tariff is None:
            return self._cost or Unknown(otherwise)
        usage = self._usage()
        if isinstance(usage, Usage):
            self.prompt_tokens, self.answer_tokens = usage.prompt_tokens, usage.answer_tokens
        else:
            self.prompt_tokens = self.answer_tokens = None  # what contradicts itself is in no record
        return self._tariff.cost(usage or Unknown(otherwise))

    @property
    def priced(self) -> Priced | None:
        """By which prices the order is charged, and for what; None where its upstream tells the cost."""
        if self._tariff is None:
            return None
        usage = self._usage()
        return self._tariff.priced(usage if isinstance(usage, Usage) else None)

    def _usage(self) -> Usage | Unknown | None:
        return None if self._counting is None else self._counting.usage()

    def error_event(self, refusal: Refusal) -> bytes:
        """A server-sent event that says to a stream's reader that the stream broke off."""
        return self._wire.error_event(refusal, self.progress)

    def _pass(self, event: bytes) -> bytes:
        if event[0] != _COLON or event_data(event) is not None:
            self.sse_events += 1
        if self._counting is not None:
            self._counting.see_event(event)
        seen = self._wire.see_event(event, self.progress)
        return self._passed(event) if seen is PASS else self._sent_on(event, seen)

    def _passed(self, event: bytes) -> bytes:
        if self._likeness is not None:
            self._likeness.learn(event)
        return event

    def _sent_on(self, event: bytes, seen: Seen) -> bytes:
        self._note(seen)
        return event if seen.repaired is None else seen.repaired

    def _note(self, seen: Seen) -> None:
        if seen.generation_id and not self.progress.generation_id:
            self.progress.generation_id = as_kept(seen.generation_id)
        if seen.model:
            self.served_model = as_kept(seen.model)
        if seen.cost is not None and not (isinstance(seen.cost, Unknown) and isinstance(self._cost, Cost)):
            self._cost = seen.cost
        if seen.prompt_tokens is not None and 0 <= seen.prompt_tokens <= TOKENS_MAX:
            self.prompt_tokens = seen.prompt_tokens
        if seen.answer_tokens is not None and 0 <= seen.answer_tokens <= TOKENS_MAX:
            self.answer_tokens = seen.answer_tokens
        if seen.units is not None and 0 <= seen.units <= UNITS_MAX:
            self.units = (self.units or 0) + seen.units
