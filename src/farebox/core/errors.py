"""Refusals: why an order was not served. Each knows its status and type; only the wire format words it.

Statuses and error types: OpenRouter's OpenAPI document and its list of `metadata.error_type`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

RETRY_SECONDS_READ = 60
"""The longest `Retry-After` that clients heed: openai-node 7.57 and openai-python 2.20 ignore a longer one and repeat
within a second, which uses up their tries."""


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - the word of the house
    """Why an order was not served, or not to its end. Every format words it in its own error shape.

    `status` is the HTTP status and the integer `code` of the body; `error_type` is from OpenRouter's vocabulary;
    `param` names the member that is at fault, where a format's clients look for that.
    """

    status: int
    error_type: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    param: str | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.error_type}: {self.message}"


def invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_request", message)


def in_a_circle(hops: int) -> Refusal:
    """400, since nothing else would end it: no client repeats it, and each gateway on the way passes it back."""
    return invalid(
        f"the order came through {hops} gateways like this one: the upstream of one of them seems to be one that it"
        " came through before (see `base_url` in their settings)"
    )


def lists_in_a_circle(path: str) -> Refusal:
    return invalid(
        f"{path} is being asked of an upstream, and has not come while a gateway like this one asks for it here: the"
        " upstream of one of them seems to ask the other (see `base_url` in their settings)"
    )


def unauthenticated(message: str) -> Refusal:
    return Refusal(401, "authentication", message)


def unaffordable(message: str, **metadata: object) -> Refusal:
    """402. It begins with OpenRouter's own words, and its code: aider (0.86) repeats any other for a minute, and looks
    for both in what LiteLLM leaves it, which is the message alone."""
    return Refusal(402, "payment_required", f'Insufficient credits ("code":402). {message}', metadata=metadata)


def forbidden(message: str) -> Refusal:
    return Refusal(403, "permission_denied", message)


def unknown(message: str, **metadata: object) -> Refusal:
    return Refusal(404, "not_found", message, metadata=metadata)


class PresetNamed(Refusal):
    """404, unless the preset that the order names is put into it: see `core.presets`."""


def preset_named(name: str) -> PresetNamed:
    return PresetNamed(
        404,
        "not_found",
        f"`{name[:200]}` names a preset, which cannot be used here: name the model, and send the settings with the"
        " order",
    )


def wrong_method(method: str, allowed: str) -> Refusal:
    return Refusal(405, "invalid_request", f"{method} is not answered here; use {allowed}", headers={"allow": allowed})


def too_slow(message: str) -> Refusal:
    return Refusal(408, "timeout", message)


def _retry_after(wait_seconds: float) -> str:
    """`Retry-After`, in whole seconds. A wait of one to two minutes is told as one minute, the longest that clients
    heed; they are told the rest when they come back. A longer one is told as it is: no few tries would outlast it."""
    if RETRY_SECONDS_READ < wait_seconds < 2 * RETRY_SECONDS_READ:
        return str(RETRY_SECONDS_READ)
    return str(max(1, math.ceil(wait_seconds)))


def conflict(message: str, retry_after_seconds: int | None = None) -> Refusal:
    headers = {} if retry_after_seconds is None else {"retry-after": _retry_after(retry_after_seconds)}
    return Refusal(409, "precondition_failed", message, headers=headers)


def gone(message: str, **metadata: object) -> Refusal:
    return Refusal(410, "precondition_failed", message, metadata=metadata)


def too_large(message: str) -> Refusal:
    return Refusal(413, "payload_too_large", message)


def wrong_type(message: str) -> Refusal:
    return Refusal(415, "invalid_request", message)


def too_many(message: str, retry_after_seconds: int) -> Refusal:
    return Refusal(429, "rate_limit_exceeded", message, headers={"retry-after": _retry_after(retry_after_seconds)})


def over_limit(message: str, *, limit_source: str, most: int, remaining: int, reset_ms: int, wait_ms: int) -> Refusal:
    """429 in the shape of OpenRouter's own rate limits: its headers stand in the metadata, too. `reset_ms` is since
    1970."""
    limits = {
        "X-RateLimit-Limit": str(most),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(reset_ms),
    }
    return Refusal(
        429,
        "rate_limit_exceeded",
        message,
        headers={
            "retry-after": _retry_after(wait_ms / 1000),
            **{name.lower(): value for name, value in limits.items()},
        },
        metadata={
            "headers": limits,
            "limit_source": limit_source,
            "remedy_hint": f"Wait {max(1, -(-wait_ms // 1000))} s, or ask for a higher limit",
            "provider_name": None,
        },
    )


def headers_too_large(limit_bytes: int) -> Refusal:
    return Refusal(431, "invalid_request", f"the request line and headers are over {limit_bytes} bytes")


def unreachable(message: str) -> Refusal:
    """The upstream has not heard of the order: a retry is safe."""
    return Refusal(502, "provider_unavailable", message)


def denied() -> Refusal:
    """The upstream refused the operator's own account there: its key is wrong, say, or out of money. No caller's key
    is, so none of 401, 402 and 403. A retry costs nothing, and is served once the operator has mended it."""
    return Refusal(
        502,
        "provider_unavailable",
        "The upstream refuses this gateway's own account there, which its operator has to mend; nothing is wrong with"
        " your key",
    )


def connect_timeout(message: str) -> Refusal:
    """The upstream could not be reached in time and has not heard of the order: a retry is safe."""
    return Refusal(504, "timeout", message)


BROKEN_STATUS = 424
"""Failed Dependency: raised by every SDK and retried by none.

OpenAI's and Anthropic's clients repeat 408, 409, 429 and 5xx, OpenRouter's repeat 5xx for an hour; a repeated order
would be paid for twice once the upstream may have accepted it.
"""


def broken(message: str, **metadata: object) -> Refusal:
    """The upstream broke off after it may have accepted the order: what it cost is not known yet."""
    return Refusal(BROKEN_STATUS, "provider_unavailable", message, metadata=metadata)


def cost_unknown(message: str) -> Refusal:
    """As `broken`, and says that the cost is not known. `message` is a sentence without its full stop."""
    return broken(
        f"{message}. What it cost is not known yet: its hold stays open until that is settled, and nothing is charged"
        " before"
    )


_ERROR_TYPES = {
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    413: "payload_too_large",
    429: "rate_limit_exceeded",
    504: "timeout",
    524: "timeout",
    529: "provider_overloaded",
}


def error_type_of(status: int) -> str:
    """The type of an upstream's error that names none, from its status."""
    return _ERROR_TYPES.get(status, "provider_unavailable" if status >= 500 else "invalid_request")
