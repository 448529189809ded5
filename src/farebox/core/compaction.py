"""A conversation made short: what is ordered for that, and the one item that takes the place of all the others.

A model of the caller's choice is asked for a summary, in an order for a response like any other: so it works over every
upstream, and costs what that order costs. The summary travels in an item of the kind `compaction`, in the member where
OpenAI's is sealed; ours is packed and not sealed, since it says nothing but what its caller has said or been told. When
it comes back in an order, it becomes a message of the user's, which every model reads.

Sources: Open Responses (2026-04-24, `/responses/compact`), OpenAI's Python SDK (CompactedResponse).
"""

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.continuation import PREVIOUS, input_items, text_member
from farebox.core.errors import broken, invalid
from farebox.core.formats.asking import decoded
from farebox.core.legible import Fields, decode_fields, decode_list, decoded_or, leniently, text_of, written
from farebox.core.reading import UNREADABLE, is_null

PATH = "/responses/compact"

MARK = "farebox.summary.1."
"""What a packed summary begins with."""

_MARK = MARK.encode()

_KEPT = (
    "model models provider route instructions service_tier max_output_tokens reasoning prompt_cache_key user"
    " safety_identifier session_id trace metadata"
).split()
"""The members of the request that its order has, too. Tools are none of them: nothing is to be called."""

TASK = (
    "Write a summary of our conversation so far, to take its place: whoever goes on with it reads your summary and"
    " nothing else. Keep what I want and why, in my own words where they are short; what was decided, found out and"
    " done; names, paths, numbers, code and errors to the letter where they matter still; results of tools as far as"
    " they are needed; what is unfinished, and the next step. Leave out greetings and what has been settled. Answer"
    " with the summary alone."
)

_INTRODUCED = "Summary of our conversation so far:\n\n"


class _Item(Struct):
    type: str = "message"
    role: str = ""
    call_id: str = ""
    name: str = ""
    arguments: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    encrypted_content: str | None = None


_decode_item = msgspec.json.Decoder(_Item).decode


def previous_of(body: bytes) -> str:
    """The answer whose conversation is to be compacted; empty where none is named. Raises Refusal 400."""
    return text_member(decoded(decode_fields, body), PREVIOUS)


def order_of(body: bytes, earlier: Sequence[Raw] = ()) -> bytes:
    """The order for a response that summarizes what a request to compact brings, after the `earlier` items. Raises
    Refusal 400: there is nothing to compact, or something in it is wrong."""
    fields = decoded(decode_fields, body)
    given = fields.get("input", Raw(b"null"))
    try:
        items = [*earlier, *input_items(body)]
    except UNREADABLE as error:
        raise invalid("input: give a text or a list of items") from error
    told = [message for item in items if (message := _told(item)) is not None]
    if not told or (bytes(given) == b'""' and not earlier):
        raise invalid("input: there is nothing to compact; give the items of the conversation")
    order: Fields = {name: fields[name] for name in _KEPT if name in fields}
    order["input"] = Raw(b"[" + b",".join(map(bytes, [*told, _message("user", TASK)])) + b"]")
    order["store"] = Raw(b"false")
    return bytes(written(order))


def _message(role: str, text: str) -> Raw:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    return Raw(msgspec.json.encode({"type": "message", "role": role, "content": content}))


def _told(item: Raw) -> Raw | None:
    """An item as it is told to who summarizes: messages as they are; calls and their results as texts, since an
    upstream takes such only with the tools; None for thoughts, which the words after them have used."""
    read = decoded_or(_decode_item, item, _Item(type=""))
    kind = read.type
    if kind in ("message", "compaction", "") or kind.endswith("compaction"):
        return item
    if kind == "reasoning":
        return None
    if kind.endswith("_call_output"):
        return _message("user", f"[Result of the call {read.call_id}: {_text(read.output)}]")
    if kind in ("function_call", "custom_tool_call"):
        given = read.arguments if read.arguments is not UNSET else read.input
        return _message("assistant", f"[Call {read.call_id} of the tool {read.name}: {_text(given)}]")
    return _message("assistant", f"[{bytes(item).decode(errors='replace')}]")


def _text(value: Raw | UnsetType) -> str:
    if value is UNSET:
        return ""
    try:
        return text_of(value)
    except msgspec.DecodeError:
        return bytes(value).decode(errors="replace")


class _Piece(Struct):
    type: str = ""
    text: str = ""


class _Answered(Struct):
    type: str = ""
    content: Raw | UnsetType = UNSET


class _Response(Struct):
    id: str
    created_at: Raw = Raw(b"0")
    output: list[_Answered] = []
    usage: Raw = Raw(b"null")


_decode_response = msgspec.json.Decoder(_Response).decode
_decode_pieces = msgspec.json.Decoder(list[_Piece]).decode

_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def compacted(answer: bytes) -> bytes:
    """The compaction that a response to such an order makes. Raises Refusal 424: it has no words."""
    try:
        response = leniently(_decode_response, answer)
    except UNREADABLE as error:
        raise broken("the upstream's answer is no response") from error
    said = [each for each in response.output if each.type == "message"]
    pieces = [piece for each in said for piece in decoded_or(_decode_pieces, each.content, list[_Piece]())]
    summary = "\n\n".join(piece.text for piece in pieces if piece.type == "output_text" and piece.text)
    if not summary.strip():
        raise broken("the model answered without a summary")
    item = {"type": "compaction", "id": f"cmp_{response.id}", "encrypted_content": packed(summary)}
    return msgspec.json.encode(
        {
            "id": response.id,
            "object": "response.compaction",
            "created_at": response.created_at,
            "output": [item],
            "usage": _NO_USAGE if is_null(response.usage) else response.usage,
        }
    )


def packed(summary: str) -> str:
    return MARK + urlsafe_b64encode(summary.encode(errors="replace")).decode()


def opened(body: bytes) -> bytes:
    """An order with its summaries of ours as messages. Raises Refusal 400: one is not as it was given."""
    if _MARK not in body:
        return body
    try:
        fields = decode_fields(body)
        items = decode_list(fields["input"])
    except (KeyError, *UNREADABLE):
        return body  # who reads the order says what is wrong with it
    fields["input"] = Raw(b"[" + b",".join(bytes(_opened(item)) for item in items) + b"]")
    return bytes(written(fields))


def _opened(item: Raw) -> Raw:
    if _MARK not in bytes(item):
        return item
    read = decoded_or(_decode_item, item, _Item())
    if read.type != "compaction" or read.encrypted_content is None or not read.encrypted_content.startswith(MARK):
        return item
    try:
        summary = b64decode(read.encrypted_content[len(MARK) :].encode(), b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid("input[compaction].encrypted_content: it is not as it was given; pass it on unchanged") from error
    return _message("user", _INTRODUCED + summary)
