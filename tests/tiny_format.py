"""A wire format as small as one can be: `{"model", "text"}` is answered by `{"model", "said", "usage"}`."""

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal
from farebox.core.formats import PASS, Asked, Progress, Seen
from farebox.core.formats.asking import decoded, named_models
from farebox.core.formats.chat_usage import counting
from farebox.core.formats.describing import USAGE, Described
from farebox.core.formats.envelope import ERROR, error_in_band, refusal_body, typed_refusal
from farebox.core.formats.mending import see_whole
from farebox.core.legible import Fields
from farebox.core.schemas import NAME, TEXT, object_of
from farebox.core.sse import KEEP_ALIVE, data_event
from farebox.core.usage import read_cost

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS", "capped", "counting", "end_event", "error_event", "read"]
__all__ += ["refusal_body", "see_answer", "see_event", "typed_refusal"]

CAPS: tuple[str, ...] = ()

TEXT_BEGINS = b""

DESCRIBED = Described(
    "Tiny talk",
    request=("TinyRequest", object_of({"model": NAME, "text": TEXT})),
    answer=("TinyAnswer", object_of({"model": TEXT, "said": TEXT}, USAGE)),
    refusal=ERROR,
    example={"model": "a/b", "text": "Hello"},
    is_streamed=False,
)


class _Request(Struct):
    text: str
    model: str | None = None


class _Answer(Struct):
    model: str
    said: str
    usage: Raw


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    return Asked(named_models(request.model, None), len(body), answers=0)


def capped(body: bytes, answer_tokens: int) -> bytes:
    return body


def see_event(event: bytes, progress: Progress) -> Seen:
    return PASS


def see_answer(body: bytes) -> Seen:
    return see_whole(body, "said", _read_answer, _mend_answer)


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    answer = _decode_answer(text)
    return Seen(model=answer.model, cost=read_cost(answer.usage), repaired=repaired)


def _mend_answer(fields: Fields) -> None: ...


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    return data_event(msgspec.json.encode({"error": error_in_band(refusal)}))


def end_event(progress: Progress) -> bytes:
    return b""
