"""Reading requests: what several formats have in common."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from farebox.core.attribution import Said, read_name, read_texts
from farebox.core.errors import invalid, preset_named
from farebox.core.formats import Asked
from farebox.core.formats.bounds import NOTHING_ELSE, Bounds, Tool
from farebox.core.formats.thinking import Lower
from farebox.core.legible import decode_fields, decoded_or, leniently, written
from farebox.core.names import PRESET, variants
from farebox.core.reading import UNREADABLE, Many, Number, as_whole, is_null, json_path_error

T = TypeVar("T")

TOOL_PROMPT_TOKENS = 1_000
"""Set aside for the instructions that hosts add to a prompt with tools: an assumption, no list says how long they
are."""

MODEL_CHARS_MAX = 512
"""The longest name of a model: any variant of a listed one is served, and what is served is remembered by its name."""

_PREMIUM_TIERS = frozenset({"priority", "fast", "scale"})

_NOT_BY_PRICE = frozenset({"nitro", "exacto"})
"""Variants that pick the provider by its speed or quality; `:nitro` also admits priority tiers."""


class _SortedBy(Struct):
    by: str | None = None


class _Provider(Struct):
    sort: str | _SortedBy | None = None


_decode_text = msgspec.json.Decoder(str).decode
_decode_provider = msgspec.json.Decoder(_Provider).decode


class Attributing(Struct, kw_only=True):
    """The members that say for whom an order is. They go upstream as they are, whatever they are."""

    user: Raw | UnsetType = UNSET
    safety_identifier: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET


class Request(Attributing, kw_only=True):
    """The members that requests have in several formats."""

    model: str | None = None
    models: Many[str] | None = None
    stream: bool | None = None
    tools: Many[Tool] | None = None
    plugins: Many[Raw] | None = None
    provider: Raw | UnsetType = UNSET
    route: Raw | UnsetType = UNSET
    response_format: Raw | UnsetType = UNSET
    structured_outputs: Raw | UnsetType = UNSET
    verbosity: Raw | UnsetType = UNSET
    text: Raw | UnsetType = UNSET
    output_config: Raw | UnsetType = UNSET
    service_tier: str | None = None
    preset: Raw | UnsetType = UNSET


def models_of(request: Request, others: list[str] | None = None) -> tuple[str, ...]:
    """The models in the order in which they are tried; `others` in the place of the request's own list. Raises Refusal:
    PresetNamed, 404; 400, there is none, or one is no name."""
    model, models = request.model, others or request.models
    if request.preset is UNSET:
        return (_name(model),) if model and not models else named_models(model, models)
    if not is_null(request.preset):
        raise preset_named(decoded_or(_decode_text, request.preset, "preset"))
    return named_models(model, models)


def asked(request: Request, body: bytes, models: tuple[str, ...], bounds: Bounds, answer_tokens: int | None) -> Asked:
    """What a request asks, for one answer to one prompt. `bounds` are those of its messages; its tools, plugins and
    variants are added here."""
    if request.tools:
        bounds.add_tools(request.tools, body)
    if request.plugins:
        bounds.add_plugins(request.plugins)
    varied = [model for model in models if ":" in model]
    if varied:
        bounds.add_variants(varied)
    found = Asked(
        models=models,
        streamed=request.stream is True,
        answer_tokens=answer_tokens,
        prompt_bytes=bounds.prompt_bytes(body) + (TOOL_PROMPT_TOKENS if request.tools else 0),
        images=bounds.images,
        prompt_is_open=bounds.is_open,
        is_premium=is_premium(varied, request.service_tier, request.provider),
        searches=bounds.found_searches if bounds.searches else None,
        has_wishes=request.provider is not UNSET or request.models is not None or request.route is not UNSET,
        inputs=bounds.inputs if bounds.images or bounds.is_open else NOTHING_ELSE,
        has_soft=not (
            request.tools is None
            and request.response_format is UNSET
            and request.structured_outputs is UNSET
            and request.verbosity is UNSET
            and (request.text is UNSET or not _names_soft(request.text))
            and (request.output_config is UNSET or not _names_soft(request.output_config))
        ),
    )
    if request.user is UNSET and request.metadata is UNSET and request.safety_identifier is UNSET:
        return found
    return attributed(request, found)


def attributed(request: Attributing, found: Asked) -> Asked:
    """What a request asks, with what it says of whom it is for. Of the two names for an end user the older one
    counts."""
    members = (request.user, request.safety_identifier)
    named = next((name for each in members if each is not UNSET and (name := read_name(each))), "")
    texts = {} if request.metadata is UNSET else read_texts(request.metadata)
    return replace(found, said=Said(named, texts)) if named or texts else found


def _names_soft(member: Raw) -> bool:
    """Whether one of those parameters may stand within a member: `text` of responses, `output_config` of messages."""
    said = bytes(member)
    return b'"format"' in said or b'"verbosity"' in said


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode a request body. Raises Refusal 400, which names the field that is wrong."""
    try:
        return decode(body)
    except UNREADABLE:
        pass  # not valid JSON, perhaps, and legible all the same
    try:
        return leniently(decode, body)
    except UNREADABLE as error:
        raise invalid(json_path_error(error)) from error


def decoded_part(decode: Callable[[bytes], T], part: bytes, place: str) -> T:
    """Decode what stands at a place of the body. Raises Refusal 400, which names the place."""
    try:
        return decode(part)
    except UNREADABLE as error:
        raise invalid(f"{place}: {json_path_error(error).removeprefix('the body: ')}") from error


def named_models(model: str | None, models: Iterable[str] | None) -> tuple[str, ...]:
    """The models in the order in which they are tried. Raises Refusal: 400, there is none, or one is no name;
    PresetNamed, 404."""
    if model and not models:
        return (_name(model),)
    named = (*([model] if model else []), *(models or []))
    if not named or not all(named):
        raise invalid("model: name a model such as `openai/gpt-4o-mini`, or give a list of them in `models`")
    return tuple(map(_name, named))


def _name(model: str) -> str:
    if len(model) > MODEL_CHARS_MAX:
        raise invalid(f"model: a name has at most {MODEL_CHARS_MAX} characters; this one has {len(model)}")
    if PRESET in model:
        raise preset_named(model)
    if "\0" in model:
        raise invalid("model: write a name without NUL characters")
    return model


def count(name: str, number: Number) -> int:
    """A count, `name` in the request. Raises Refusal 400: it is below 1, or has a fraction."""
    value = as_whole(number)
    if value is None or value < 1:
        raise invalid(f"{name}: {number} is not a whole number above zero")
    return value


def is_premium(models: Iterable[str], tier: str | None, provider: Raw | UnsetType = UNSET) -> bool:
    """Whether the order may cost more than the listed price: by its service tier, or by a provider that is not picked
    by its price.

    OpenRouter's pages: `provider.sort` disables its balancing by price; `:nitro` is `sort: "throughput"` and admits
    priority tiers; `:floor` is `sort: "price"`.
    """
    for model in models:
        if ":" in model and not _NOT_BY_PRICE.isdisjoint(variants(model)):
            return True
    return tier in _PREMIUM_TIERS or (provider is not UNSET and _sorted_by(provider) not in (None, "price"))


def _sorted_by(provider: Raw) -> str | None:
    """What providers are sorted by; None where it cannot be read, which is the upstream's to refuse."""
    sort = decoded_or(_decode_provider, provider, _Provider()).sort
    return sort.by if isinstance(sort, _SortedBy) else sort


def with_caps(body: bytes, names: tuple[str, ...], answer_tokens: int, lower: Lower) -> bytes:
    """The body with each of the caps `names` that it has lowered to `answer_tokens`; where it has none, the first is
    set. `lower` fits the thinking budget to them.

    Raises:
        Refusal: 400, the body is not an object.
    """
    fields = decoded(decode_fields, body)
    cap = Raw(b"%d" % answer_tokens)
    present = [name for name in names if name in fields and not is_null(fields[name])]
    for name in present:
        if float(bytes(fields[name])) > answer_tokens:
            fields[name] = cap
    if not present:
        fields[names[0]] = cap
    lower(fields, answer_tokens)
    return bytes(written(fields))
