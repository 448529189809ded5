"""A format's description of itself, for the OpenAPI document, telemetry and tests."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from farebox.core.schemas import FLAG, NAME, NUMBER, TEXT, Schema, array_of, object_of, or_null

if TYPE_CHECKING:
    from farebox.core.formats import Progress, Seen

FromForm = Callable[[bytes, bytes], bytes]
"""Makes the JSON body of an order that came as a form, of the form's bytes and its `Content-Type`. Raises Refusal
400."""

OutputModality = Literal["text", "image", "audio", "video", "embeddings", "rerank", "speech", "transcription"]
"""What answers are made of, by OpenRouter's names."""

NamedSchema = tuple[str, Schema]
"""A schema's name in the OpenAPI document, and the schema."""


class Described(Struct, frozen=True):
    """How a format is published.

    `request` has the members that Farebox checks, `answer` those that every whole answer has, `refusal` is the body of
    an error answer. `example` is a minimal valid order, of a model that the simulator has. `operation` is the format's
    name in OpenTelemetry's GenAI conventions.

    What few formats have: `answered_with` is what every answer is made of, where that is no text. `from_form`, where
    orders may come as `multipart/form-data`, makes the JSON of those. An answer of a format that `gives_bytes` goes on
    as it comes, unread, where it is not JSON; `media` is its type. Where no event `names_generation`, the answer's head
    does, or nothing. Answers of a format that `keeps_answers` are kept for their account, and continued by their id.
    `as_stream` makes a stream of a whole answer, where upstreams may give that in its place. Where answers repeat what
    was asked, `see_echoing` reads a whole one in place of `see_answer`, and `Progress` has the order. `opens` opens
    what callers were given packed, before an order is looked at; raises Refusal 400. Where an order
    `begins_job` that goes on after its answer, which is 202 then, `below` puts the caller's address of this gateway
    before the paths in that answer.
    """

    summary: str
    request: NamedSchema
    answer: NamedSchema
    refusal: NamedSchema
    example: Mapping[str, object]
    is_streamed: bool = True
    operation: str = "chat"
    answered_with: OutputModality | None = None
    from_form: FromForm | None = None
    gives_bytes: bool = False
    media: str = "application/json"
    names_generation: bool = True
    as_stream: Callable[[bytes], bytes] | None = None
    keeps_answers: bool = False
    see_echoing: "Callable[[bytes, Progress], Seen] | None" = None
    opens: Callable[[bytes], bytes] | None = None
    below: Callable[[bytes, str], bytes] | None = None

    @property
    def begins_job(self) -> bool:
        return self.below is not None


CAP: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "nullable": True}
"""A count above zero, such as an answer cap in tokens."""

COMMON: Schema = {"models": or_null(array_of(NAME)), "stream": or_null(FLAG), "service_tier": or_null(TEXT)}
"""Optional members of requests in most formats."""

SERVED: Schema = {"id": TEXT, "model": TEXT}
USAGE: Schema = {"usage": or_null(object_of({}, {"cost": or_null(NUMBER)}))}
"""Members of answers in most formats."""

HELLO: list[Mapping[str, object]] = [{"role": "user", "content": "Hello"}]
