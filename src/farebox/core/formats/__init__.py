"""Wire formats: one module each, the same few functions each."""

from typing import Protocol

from msgspec import Struct

from farebox.core.errors import Refusal
from farebox.core.usage import Cost, Unknown


class Asked(Struct, frozen=True):
    """What Farebox reads of a request; the rest of the body is the upstream's business.

    `models` in the order they are tried; `answer_tokens` is the caller's own cap, None where there is none.
    `prompt_bytes` (without pictures) and `images` bound the prompt's tokens; `prompt_is_open` when something may fill
    the whole context (a file or a search by reference); `is_premium` when a dearer service tier than the listed one was
    asked for.
    """

    models: tuple[str, ...]
    streamed: bool
    answer_tokens: int | None
    answers: int
    prompt_bytes: int
    images: int
    prompt_is_open: bool
    is_premium: bool


class Seen(Struct, frozen=True):
    """What Farebox read in one event, or in a whole answer.

    `repaired` is None when the bytes may go on as they are. `failure` is set when a whole answer is none.
    """

    generation_id: str | None = None
    model: str | None = None
    cost: Cost | Unknown | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    repaired: bytes | None = None
    failure: Refusal | None = None


PASS = Seen()
"""An event that tells nothing new and needs no change: nearly every one."""


class Identity(Struct, frozen=True):
    """How an event of ours names itself, so that it reads as part of the stream it stands in."""

    generation_id: str
    model: str
    created: int


class Format(Protocol):
    """The functions that each format module has."""

    def read(self, body: bytes) -> Asked:
        """Read a request body; raises Refusal 400 when it is not one."""

    def capped(self, body: bytes, answer_tokens: int) -> bytes:
        """The body with its answer capped at `answer_tokens`, all else byte for byte."""

    def see_event(self, event: bytes, identity: Identity) -> Seen:
        """Read one whole server-sent event."""

    def see_answer(self, body: bytes) -> Seen:
        """Read a whole answer."""

    def error_event(self, refusal: Refusal, identity: Identity) -> bytes:
        """An in-band error: the stream's last event, after which a client raises and does not retry."""

    def refusal_body(self, refusal: Refusal) -> bytes:
        """An error answer in this format's own shape."""
