"""A format's description of itself, for the OpenAPI document, telemetry and tests."""

from collections.abc import Mapping

from msgspec import Struct

from farebox.core.schemas import FLAG, NAME, NUMBER, TEXT, Schema, array_of, object_of, or_null

NamedSchema = tuple[str, Schema]
"""A schema's name in the OpenAPI document, and the schema."""


class Described(Struct, frozen=True):
    """How a format is published.

    `request` has the members that Farebox checks, `answer` those that every whole answer has, `refusal` is the body of
    an error answer. `example` is a minimal valid order, of a model that the simulator has. `operation` is the format's
    name in OpenTelemetry's GenAI conventions.
    """

    summary: str
    request: NamedSchema
    answer: NamedSchema
    refusal: NamedSchema
    example: Mapping[str, object]
    is_streamed: bool = True
    operation: str = "chat"


CAP: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "nullable": True}
"""An answer cap, in tokens."""

COMMON: Schema = {"models": or_null(array_of(NAME)), "stream": or_null(FLAG), "service_tier": or_null(TEXT)}
"""Optional members of requests in most formats."""

SERVED: Schema = {"id": TEXT, "model": TEXT}
USAGE: Schema = {"usage": or_null(object_of({}, {"cost": or_null(NUMBER)}))}
"""Members of answers in most formats."""

HELLO: list[Mapping[str, object]] = [{"role": "user", "content": "Hello"}]
