"""Errors of one format in another's words: those that come in place of an answer, and those within a stream."""

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.errors import BROKEN_STATUS, Refusal, error_type_of
from farebox.core.formats.envelope import UNTOLD, LooseError, read_error, unblaming
from farebox.core.legible import decoded_or
from farebox.core.translate.raw import said

_TYPES = frozenset(
    "context_length_exceeded max_tokens_exceeded token_limit_exceeded string_too_long rate_limit_exceeded"
    " provider_overloaded invalid_request invalid_prompt not_found payload_too_large content_policy_violation refusal"
    " invalid_image image_too_large image_too_small unsupported_image_format image_not_found image_download_failed"
    " authentication permission_denied payment_required timeout server".split()
)
"""Codes that say the same as OpenRouter's `error_type` of that name."""

_OF_ANTHROPIC = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "authentication",
    "billing_error": "payment_required",
    "permission_error": "permission_denied",
    "not_found_error": "not_found",
    "request_too_large": "payload_too_large",
    "rate_limit_error": "rate_limit_exceeded",
    "timeout_error": "timeout",
    "overloaded_error": "provider_overloaded",
}


class _Body(Struct):
    error: Raw = Raw(b"null")


_decode = Decoder(_Body).decode


def refusal_of(status: int, body: bytes) -> Refusal:
    """An upstream's refusal, from the body that it has in any format."""
    told = decoded_or(_decode, body, _Body()).error
    otherwise = UNTOLD if said(told) is not None else "the upstream refused the order"
    refusal = _refusal(status, read_error(said(told)), otherwise)
    # OpenAI calls a key that is none an invalid request, too: the status says more.
    return _of_type(refusal, error_type_of(status)) if refusal.error_type == "invalid_request" else refusal


def failed(error: Raw) -> Refusal:
    """An error within a stream, whose order was accepted: whatever it says, the order is not what is wrong."""
    refusal = _refusal(BROKEN_STATUS, unblaming(read_error(said(error))), UNTOLD)
    is_ours = refusal.error_type in ("invalid_request", "invalid_prompt")
    return _of_type(refusal, "provider_unavailable") if is_ours else refusal


def _refusal(status: int, error: LooseError, otherwise: str) -> Refusal:
    metadata: dict[str, object] = {n: value for n, value in (error.metadata or {}).items() if n != "error_type"}
    code = error.code if isinstance(error.code, str) else None
    kind = next((each for each in (code, error.type) if each in _TYPES), _OF_ANTHROPIC.get(error.type or ""))
    if code is not None and code != kind:
        metadata["provider_code"] = code
    return Refusal(status, kind or "invalid_request", error.message or otherwise, metadata=metadata)


def _of_type(refusal: Refusal, error_type: str) -> Refusal:
    return Refusal(refusal.status, error_type, refusal.message, refusal.headers, refusal.metadata)
