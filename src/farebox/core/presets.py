"""Presets: a model and settings that an account keeps under a name, and that its orders name in their place.

They are kept here, for the account that made them: what OpenRouter would keep is its operator's, whom all callers
share. Paths and shapes are OpenRouter's (its OpenAPI document); which members it keeps, and how they meet an order's
own, stands nowhere: here those of PLACES are kept, and an order's own go before.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import invalid, too_large
from farebox.core.legible import Fields, decode_fields, decoded_or, leniently, written
from farebox.core.names import PRESET
from farebox.core.reading import LIST_MAX, UNREADABLE, is_null, json_path_error

PRESETS_MAX = 100
"""How many an account may have."""

VERSIONS_MAX = 100
"""How many versions of one are kept, the latest."""

PRESET_CHARACTERS_MAX = 64 * 1024
"""The longest: what is kept of it, its system prompt and all."""

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")

CHAT, MESSAGES, RESPONSES = "/chat/completions", "/messages", "/responses"

_EVERYWHERE = "provider route plugins service_tier temperature top_p top_k".split()
_OPENAIS = "frequency_penalty presence_penalty reasoning".split()
_CHATS = "logit_bias min_p repetition_penalty seed top_a".split()

PLACES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        CHAT: {name: name for name in (*_EVERYWHERE, *_OPENAIS, *_CHATS, "stop", "max_tokens")},
        RESPONSES: {**{name: name for name in (*_EVERYWHERE, *_OPENAIS)}, "max_tokens": "max_output_tokens"},
        MESSAGES: {
            **{name: name for name in _EVERYWHERE},
            "stop": "stop_sequences",
            "max_tokens": "max_tokens",
        },
    }
)
"""By the path of a format: the members of a preset beside its models, and what orders call each."""

_OTHER_CAP = "max_completion_tokens"
"""What chat completions may have in the place of `max_tokens`."""


class PresetVersion(Struct, frozen=True):
    """One version of a preset. `first_us` is when its first was made; `config` is JSON, an object of members by their
    names in PLACES, with `model` and `models`."""

    account_id: int
    slug: str
    version: int
    first_us: int
    created_us: int
    system_prompt: str | None
    config: str


class Named(Struct, frozen=True):
    """The preset that an order names, and the model that it names beside it."""

    slug: str
    model: str | None = None


class _Message(Struct):
    role: str = ""
    content: Raw = Raw(b"null")


class _Text(Struct):
    text: str = ""


_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[_Text]).decode
_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode

_NULL = Raw(b"null")


def checked_slug(slug: str) -> str:
    """Raises Refusal 400: it is none."""
    if not SLUG.fullmatch(slug):
        raise invalid("slug: up to 64 letters, digits, `-`, `_`, `.` and `~`, the first of them a letter or a digit")
    return slug


# Made of an order


def preset_of(path: str, body: bytes) -> tuple[str | None, str]:
    """The system prompt and the config in the body of an order at a path of PLACES; what else it says is left out.

    Raises:
        Refusal: 400, it is no JSON object, or names a preset itself; 413, it is too long.
    """
    fields = _fields(body)
    if PRESET in decoded_or(_decode_text, fields.get("model"), "") or not is_null(fields.get("preset", _NULL)):
        raise invalid("model: a preset is not made of another one; name a model")
    if path == CHAT and is_null(fields.get("max_tokens", _NULL)) and _OTHER_CAP in fields:
        fields["max_tokens"] = fields[_OTHER_CAP]
    places = {"model": "model", "models": "models", **PLACES[path]}
    kept = {name: fields[own] for name, own in places.items() if not is_null(fields.get(own, _NULL))}
    system_prompt = _system_prompt(path, fields).replace("\0", "")  # which PostgreSQL keeps in no text
    config = bytes(written(kept)).decode("utf-8", "replace")
    if len(config) + len(system_prompt) > PRESET_CHARACTERS_MAX:
        raise too_large(f"A preset has at most {PRESET_CHARACTERS_MAX} characters, its system prompt included")
    return system_prompt or None, config


def _fields(body: bytes) -> Fields:
    try:
        return leniently(decode_fields, body)
    except UNREADABLE as error:
        raise invalid(json_path_error(error)) from error


def _system_prompt(path: str, fields: Fields) -> str:
    if path != CHAT:
        return _said(fields.get("system" if path == MESSAGES else "instructions", _NULL))
    messages = decoded_or(_decode_messages, fields.get("messages"), list[_Message]())
    if len(messages) > LIST_MAX:
        raise too_large(f"messages: at most {LIST_MAX} are read")
    said = [_said(each.content) for each in messages if each.role in _SYSTEM]
    return "\n\n".join(text for text in said if text)


def _said(content: Raw) -> str:
    """A text, or the texts of its parts."""
    text = decoded_or(_decode_text, content, "")
    return text or "\n\n".join(part.text for part in decoded_or(_decode_texts, content, list[_Text]()))


_SYSTEM = ("system", "developer")


def next_version(
    latest: PresetVersion | None, account_id: int, slug: str, system_prompt: str | None, config: str, now_us: int
) -> PresetVersion:
    """The version behind the `latest`; the first where there is none."""
    version, first_us = (1, now_us) if latest is None else (latest.version + 1, latest.first_us)
    return PresetVersion(account_id, slug, version, first_us, now_us, system_prompt, config)


# Put into an order


def named_in(body: bytes) -> Named | None:
    """The preset that an order names: in `model`, alone or behind a model (`a/b@preset/mine`), or in `preset`. None: in
    neither, or in a list of models. Raises Refusal 400: in both."""
    fields = _fields(body)
    model = decoded_or(_decode_text, fields.get("model"), "")
    slug = decoded_or(_decode_text, fields.get("preset"), "")
    before, mark, behind = model.partition(PRESET)
    if mark and slug:
        raise invalid("preset: `model` names one, too; name one of them")
    if mark:
        return Named(behind, before or None)
    return Named(slug, model or None) if slug else None


def with_preset(path: str, body: bytes, named: Named, preset: PresetVersion) -> bytes:
    """The body of an order at a path of PLACES with what its preset has and it has not itself. Raises Refusal 400: no
    model is left to ask."""
    fields, config = _fields(body), decode_fields(preset.config.encode())
    fields.pop("preset", None)
    fields.pop("model", None)
    if named.model is not None:
        fields["model"] = Raw(msgspec.json.encode(named.model))
    elif all(is_null(fields.get(each, _NULL)) for each in ("models", "fallbacks")):
        fields |= {each: config[each] for each in ("model", "models") if each in config}
        if "model" not in fields and "models" not in fields:
            raise invalid(f"model: the preset `{preset.slug}` names none; name one, or save one with it")
    is_capped = path == CHAT and not is_null(fields.get(_OTHER_CAP, _NULL))
    for name, own in PLACES[path].items():
        if name in config and is_null(fields.get(own, _NULL)) and not (is_capped and name == "max_tokens"):
            fields[own] = _as_texts(config[name]) if own == "stop_sequences" else config[name]
    if preset.system_prompt is not None:
        _begin_with(path, fields, preset.system_prompt)
    return bytes(written(fields))


def _as_texts(stop: Raw) -> Raw:
    """One text as a list of it."""
    return Raw(b"[" + bytes(stop) + b"]") if bytes(stop).startswith(b'"') else stop


def _begin_with(path: str, fields: Fields, system_prompt: str) -> None:
    """Put a system prompt where an order has none."""
    text = Raw(msgspec.json.encode(system_prompt))
    if path != CHAT:
        own = "system" if path == MESSAGES else "instructions"
        if is_null(fields.get(own, _NULL)):
            fields[own] = text
        return
    messages = decoded_or(_decode_raws, fields.get("messages"), list[Raw]())
    roles = {each.role for each in decoded_or(_decode_messages, fields.get("messages"), list[_Message]())}
    if messages and roles.isdisjoint(_SYSTEM):
        first = Raw(b'{"role":"system","content":' + bytes(text) + b"}")
        fields["messages"] = Raw(b"[" + b",".join(bytes(each) for each in (first, *messages)) + b"]")
