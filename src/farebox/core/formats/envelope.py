"""OpenRouter's error envelope: of chat completions, responses and embeddings, and of all paths that have no format.
Without an integer `code` and `metadata.error_type` OpenRouter's SDKs lose the error's type.
"""

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import BROKEN_STATUS, Refusal, broken, error_type_of
from farebox.core.formats.describing import NamedSchema
from farebox.core.legible import decode_fields, leniently, written
from farebox.core.reading import UNREADABLE
from farebox.core.schemas import TEXT, WHOLE, object_of

ERROR: NamedSchema = (
    "Error",
    object_of({"error": object_of({"code": WHOLE, "message": TEXT, "metadata": object_of({"error_type": TEXT})})}),
)


def error_of(refusal: Refusal) -> dict[str, object]:
    """The error object of a refusal, to be sent under its own status."""
    return {
        "code": refusal.status,
        "message": refusal.message,
        "metadata": {"error_type": refusal.error_type, **refusal.metadata},
    }


def error_in_band(refusal: Refusal) -> dict[str, object]:
    """The error object of a stream's last event. A broken upstream is code 502 here: no client retries within a
    stream."""
    error = error_of(refusal)
    return {**error, "code": 502} if refusal.status == BROKEN_STATUS else error


def refusal_body(refusal: Refusal) -> bytes:

    return msgspec.json.encode({"error": error_of(refusal)})


UNTOLD = "the upstream reported an error"
"""What an error says that has no message."""


class _Metadata(Struct):
    error_type: str


class _Error(Struct):
    code: int
    message: str
    metadata: _Metadata | None = None


class _Envelope(Struct):
    error: _Error


class LooseError(Struct):
    """An error as upstreams send it: with a code of either type (both are documented), or without one."""

    code: int | str | None = None
    message: str | None = None
    metadata: dict[str, Raw] | None = None
    type: str | None = None


class _LooseEnvelope(Struct):
    error: LooseError


_decode_strictly = msgspec.json.Decoder(_Envelope).decode
_decode_loosely = msgspec.json.Decoder(_LooseEnvelope).decode
_decode_error = msgspec.json.Decoder(LooseError).decode


def typed_refusal(status: int, body: bytes) -> bytes | None:
    """The body of an upstream's refusal, with the integer code and the error type that SDKs read added where they are
    missing; None where it is not such an envelope."""
    try:
        leniently(_decode_strictly, body)
    except UNREADABLE:
        try:
            fields = decode_fields(body)
            error = leniently(_decode_loosely, body).error
        except UNREADABLE:
            return None
        fields["error"] = Raw(msgspec.json.encode(typed_error(error, status)))
        return bytes(written(fields))
    return body


def typed_error(error: LooseError, code_otherwise: int) -> dict[str, object]:
    """The error with an integer `code` and `metadata.error_type`, without which SDKs throw an opaque error."""
    metadata: dict[str, object] = dict(error.metadata or {})
    if isinstance(error.code, str):
        metadata.setdefault("provider_code", error.code)
    text = str(error.code)
    code = int(text) if text.isascii() and text.isdigit() else code_otherwise
    metadata.setdefault("error_type", error_type_of(code))
    return {"code": code, "message": error.message or UNTOLD, "metadata": metadata}


def read_error(raw: Raw | bytes | None) -> LooseError:
    """Read an error object; whatever else stands in its place becomes the message."""
    try:
        return leniently(_decode_error, raw or b"{}")
    except UNREADABLE:
        return LooseError(message=bytes(raw or b"").decode(errors="replace"))


def failure(error: Raw | None, otherwise: str) -> Refusal:
    """424 for a whole answer that holds an `error` instead: with its message, or `otherwise` if it has none."""
    said = read_error(error).message
    return broken(f"the upstream accepted the order and then failed: {said}" if said else otherwise)
