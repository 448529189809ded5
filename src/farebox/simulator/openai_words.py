"""What OpenAI's formats have in common: errors, dated names, and members that it does not know."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from farebox.core.errors import Refusal
from farebox.core.legible import decode_fields
from farebox.core.reading import UNREADABLE
from farebox.simulator.faults import Faults
from farebox.simulator.talk import Said

T = TypeVar("T")

DATED = "-2026-01-01"
"""What a model's name ends with in its answers."""

FINGERPRINT = "fp_5150000000"


def wrong(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> Refusal:
    return Refusal(status, "invalid_request", message, metadata={"param": param, "code": code})


def error_body(message: str, kind: str, param: object, code: object) -> bytes:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def read_known(
    body: bytes, known: frozenset[str], decode: Callable[[bytes], T], unknown: Callable[[str], Refusal]
) -> T:
    """A request. Raises Refusal: it has members that are not `known`, or none that are."""
    try:
        fields = decode_fields(body)
    except UNREADABLE as error:
        raise wrong(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP"
            " library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
        ) from error
    for name in fields:
        if name not in known:
            raise unknown(name)
    if not fields.get("model"):
        raise wrong("you must provide a model parameter")
    try:
        return decode(body)
    except UNREADABLE as error:
        raise wrong(str(error)) from error


def counted(said: Said, faults: Faults) -> tuple[int, int]:
    """The tokens of prompt and answer, as they are told."""
    sign = -1 if faults.usage == "negative" else 1
    return sign * said.prompt_tokens, sign * said.answer_tokens


def usage_members(usage: Mapping[str, object], faults: Faults) -> Iterable[dict[str, object]]:
    """The member `usage` of each chunk that tells it: none, one, or two."""
    match faults.usage:
        case "missing":
            return ()
        case "is-null":
            return ({"usage": None},)
        case "twice":
            return ({"usage": usage}, {"usage": usage})
        case _:
            return ({"usage": usage},)


def unpriced(usage: dict[str, object]) -> dict[str, object]:
    """A usage without what OpenRouter adds to it."""
    return {name: value for name, value in usage.items() if name not in ("cost", "is_byok", "cost_details")}
