"""A turn of a conversation in Responses, continued from those before: the earlier turns' items, and what their models
answered, become the beginning of its own input.

Rules over JSON, whoever keeps the turns: the books, or a connection in its memory. What an item says is passed on byte
for byte. `instructions` are not carried over, as at OpenAI: they are no items.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import Refusal, invalid
from farebox.core.legible import Fields, decode_fields, decode_list, decoded_or, leniently, text_of, written
from farebox.core.reading import is_null

PREVIOUS = "previous_response_id"

ENDED_WELL = frozenset({"completed", "incomplete"})
"""How an answer ended that can be continued. One that met its cap did; one that failed or was cancelled did not."""


class NotContinued(Refusal):
    """Why a turn cannot be continued: the answer that it names is not there (404), or is none to continue (400)."""

    def __init__(self, status: int, response_id: str, message: str) -> None:
        is_unknown = status == 404
        super().__init__(
            status,
            "not_found" if is_unknown else "invalid_request",
            f"{PREVIOUS}: {message}",
            metadata={"reason": "previous_response_not_found" if is_unknown else "previous_response_not_continuable"},
            param=PREVIOUS,
        )
        self.response_id = response_id


def not_found(response_id: str) -> NotContinued:
    """There is no such answer: it is another account's, was deleted, has expired, or never was. They are told alike."""
    return NotContinued(
        404,
        response_id,
        f"no answer `{response_id[:80]}` is kept for this account; it may have been deleted, or its time is over, or it"
        " was ordered with `store: false`. Send the earlier items in `input` instead",
    )


def not_ended_well(response_id: str, status: str) -> NotContinued:
    """There is such an answer, and it is not one to continue."""
    hint = "wait until it has ended" if status in ("queued", "in_progress") else "continue the turn before it"
    return NotContinued(400, response_id, f"the answer `{response_id[:80]}` is `{status}`; {hint}")


def text_member(fields: Fields, name: str) -> str:
    """A member's text; empty where it is absent or null. Raises Refusal 400."""
    value = fields.get(name)
    if value is None or is_null(value):
        return ""
    try:
        return text_of(value)
    except msgspec.DecodeError as error:
        raise invalid(f"{name}: expected a text") from error


class _Body(Struct):
    input: Raw | UnsetType = UNSET


class _Answer(Struct):
    output: Raw | UnsetType = UNSET


class _Item(Struct):
    type: str = "message"
    encrypted_content: Raw | UnsetType = UNSET
    signature: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_item = msgspec.json.Decoder(_Item).decode


def input_items(body: bytes) -> list[Raw]:
    """The items of an order's input; a text is one message of its user. Raises those of UNREADABLE: it is no order."""
    given = leniently(_decode_body, body).input
    return [] if given is UNSET or is_null(given) else items_of(bytes(given))


def items_of(text: bytes) -> list[Raw]:
    """The same of the member alone. Raises those of UNREADABLE."""
    if text.startswith(b'"'):
        return [Raw(b'{"type":"message","role":"user","content":[{"type":"input_text","text":' + text + b"}]}")]
    return decode_list(text)


def output_items(answer: bytes) -> list[Raw]:
    """What of an answer is input of the turn after it: all but thoughts that nobody can take up, since only a summary
    of them was given. OpenAI refuses an order that has such. Raises those of UNREADABLE: it is no answer."""
    output = leniently(_decode_answer, answer).output
    if output is UNSET or is_null(output):
        return []
    return [item for item in decode_list(output) if _can_be_taken_up(item)]


def _can_be_taken_up(item: Raw) -> bool:
    read = decoded_or(_decode_item, item, _Item())
    return read.type != "reasoning" or any(map(_says_something, (read.encrypted_content, read.signature, read.content)))


def _says_something(member: Raw | UnsetType) -> bool:
    return member is not UNSET and bytes(member) not in (b"null", b"[]", b'""')


def continued(body: bytes, earlier: Sequence[Raw]) -> bytes:
    """An order with the earlier items before its own, which names no previous answer any more. Raises those of
    UNREADABLE: it is none."""
    fields = decode_fields(body)
    items = [*earlier, *input_items(body)]
    fields.pop(PREVIOUS, None)
    fields["input"] = Raw(b"[" + b",".join(map(bytes, items)) + b"]")
    return bytes(written(fields))
