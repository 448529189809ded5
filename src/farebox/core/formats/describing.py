"""What a format says of itself to whoever lists formats: the OpenAPI document, telemetry, tests."""

from collections.abc import Mapping

from msgspec import Struct

from farebox.core.schemas import FLAG, NAME, NUMBER, TEXT, Schema, array_of, object_of, or_null

NamedSchema = tuple[str, Schema]
"""A schema, after the name under which the OpenAPI document has it."""


class Described(Struct, frozen=True):
    """A format as it is published.

    `request` has the members that Farebox checks, `answer` those that every whole answer has, `refusal` is the body of
    an error answer. `example` is a shortest valid order, of a model that the simulated upstream has. `operation` is
    its name in OpenTelemetry's GenAI conventions.
    """

    summary: str
    request: NamedSchema
    answer: NamedSchema
    refusal: NamedSchema
    example: Mapping[str, object]
    is_streamed: bool = True
    operation: str = "chat"


CAP: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "nullable": True}
"""A bound for the tokens of an answer."""

COMMON: Schema = {"models": or_null(array_of(NAME)), "stream": or_null(FLAG), "service_tier": or_null(TEXT)}
"""Members that requests in most formats may have."""

SERVED: Schema = {"id": TEXT, "model": TEXT}
USAGE: Schema = {"usage": or_null(object_of({}, {"cost": or_null(NUMBER)}))}
"""Members of answers."""

HELLO: list[Mapping[str, object]] = [{"role": "user", "content": "Hello"}]
