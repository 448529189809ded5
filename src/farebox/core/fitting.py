"""An order's body as an upstream takes it that is not OpenRouter: the model under the upstream's own name, and without
the members that only OpenRouter knows. All other members stay byte for byte, and a body that needs no change is not
changed.

Sources: OpenRouter's OpenAPI document (ChatRequest, ResponsesRequest, MessagesRequest), beside the types of OpenAI's
and Anthropic's SDKs. What other servers take, too (`top_k`, `min_p`, `repetition_penalty`), is the upstream's business.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
from msgspec import Raw, Struct

from farebox.core.declared import CappedBy
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.reading import is_null

_ROUTING = ("models", "route", "provider", "plugins", "transforms", "preset")
_OPENROUTERS = (*_ROUTING, "session_id", "trace", "debug", "cache_control", "stop_server_tools_when", "usage")

OPENROUTERS_OWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "/chat/completions": (*_OPENROUTERS, "reasoning", "include_reasoning", "image_config"),
        "/responses": (*_OPENROUTERS, "image_config"),
        "/embeddings": (*_OPENROUTERS, "input_type"),
        "/rerank": ("provider", "session_id", "trace"),
        "/messages": (*(each for each in _OPENROUTERS if each != "cache_control"), "fallbacks", "user"),
    }
)
"""The members of a request that only OpenRouter knows, by the format's path."""

_NONE: frozenset[str] = frozenset()
_OWN = {path: frozenset(names) for path, names in OPENROUTERS_OWN.items()}

_NULL = Raw(b"null")
_FORCED = Raw(b'{"include_usage":true}')

_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


def may_have_others_thoughts(body: bytes) -> bool:
    """Whether thoughts may be in it that another upstream sealed, and that were packed for this format (see
    `core.translate.thoughts`)."""
    return b"-v1|" in body or b'"chat:' in body


class Fitted(Struct, frozen=True):
    """The body to send; the members that were `left_out`; and whether it asks for a stream's usage where the caller did
    not (`adds_usage`)."""

    body: bytes
    left_out: tuple[str, ...] = ()
    adds_usage: bool = False


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Reasoning(Struct):
    effort: str | None = None


_decode_options = msgspec.json.Decoder(_StreamOptions).decode
_decode_reasoning = msgspec.json.Decoder(_Reasoning).decode


def renamed(body: bytes, own_name: Callable[[str], str]) -> bytes:
    """The body with its `model` under the upstream's own name."""
    fields = decode_fields(body)
    return bytes(written(fields)) if _rename(fields, own_name) else body


def fitted(
    path: str, body: bytes, own_name: Callable[[str], str], *, streamed: bool, capped_by: CappedBy | None = None
) -> Fitted:
    """The body for an upstream that speaks the format as OpenAI or Anthropic do; with its cap under the name
    `capped_by`, where one is given."""
    fields = decode_fields(body)
    is_changed = _rename(fields, own_name)
    if path == "/chat/completions":
        is_changed |= _tell_effort(fields)
        if capped_by is not None:
            is_changed |= _name_cap(fields, capped_by)
    left_out: list[str] = []
    if not _OWN.get(path, _NONE).isdisjoint(fields):
        is_changed = True
        taken = [(name, fields.pop(name)) for name in OPENROUTERS_OWN[path] if name in fields]
        left_out = [name for name, value in taken if not is_null(value)]
    if path == "/responses" and is_null(fields.get("store", _NULL)):
        # Nothing is stored here, and OpenAI stores what does not say otherwise.
        fields["store"] = Raw(b"false")
        is_changed = True
    adds_usage = streamed and path == "/chat/completions" and _force_usage(fields)
    if not (is_changed or adds_usage):
        return Fitted(body)
    return Fitted(bytes(written(fields)), tuple(left_out), adds_usage)


def _rename(fields: Fields, own_name: Callable[[str], str]) -> bool:
    """Put the model's own name in place; the first of `models` where there is no `model`. Whether that changed it."""
    model = decoded_or(_decode_text, fields.get("model"), "")
    is_first = not model
    if is_first:
        model = (decoded_or(_decode_texts, fields.get("models"), list[str]()) or [""])[0]
    own = own_name(model)
    if not own or (own == model and not is_first):
        return False
    fields["model"] = Raw(msgspec.json.encode(own))
    return True


def _tell_effort(fields: Fields) -> bool:
    """OpenRouter's `reasoning.effort` is OpenAI's `reasoning_effort`; what else it says is left out. Whether it was
    there."""
    if "reasoning" not in fields or is_null(fields["reasoning"]) or not is_null(fields.get("reasoning_effort", _NULL)):
        return False
    effort = decoded_or(_decode_reasoning, fields["reasoning"], _Reasoning()).effort
    if effort is None:
        return False
    fields["reasoning_effort"] = Raw(msgspec.json.encode(effort))
    if len(decode_fields(fields["reasoning"])) == 1:
        del fields["reasoning"]  # all of it is told
    return True


_OTHER_CAP: Mapping[CappedBy, CappedBy] = MappingProxyType(
    {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
)


def _name_cap(fields: Fields, name: CappedBy) -> bool:
    """Put the answer's cap under this name, the lower one where there are two. Whether that changed anything."""
    other = _OTHER_CAP[name]
    if is_null(fields.get(other, _NULL)):
        return False
    cap = fields.pop(other)
    if is_null(fields.get(name, _NULL)) or float(bytes(cap)) < float(bytes(fields[name])):
        fields[name] = cap
    return True


def _force_usage(fields: Fields) -> bool:
    """Ask for the usage of a stream. False where the caller asked for it."""
    options = fields.get("stream_options", _NULL)
    if decoded_or(_decode_options, options, _StreamOptions()).include_usage:
        return False
    asked = Fields() if is_null(options) else decoded_or(decode_fields, options, Fields())
    fields["stream_options"] = written({**asked, "include_usage": Raw(b"true")}) if asked else _FORCED
    return True
