"""What an order wishes of the upstreams that may serve it: OpenRouter's members `provider`, `models` and `route`, and
its variants `:nitro` and `:floor`.

Source: OpenRouter's OpenAPI document (ProviderPreferences), and its pages on routing. Prices are written there in USD
per million tokens, as numbers or as texts.
"""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Asked
from farebox.core.legible import Fields, decode_fields, decoded_or
from farebox.core.names import variants
from farebox.core.reading import UNREADABLE, is_null, json_path_error
from farebox.core.traits import ANSWERED_WITH, PARAMETERS, Quantization

Sort = Literal["price", "throughput", "latency", "exacto"]
Percentile = Literal["p50", "p75", "p90", "p99"]
PERCENTILES: Mapping[Percentile, float] = MappingProxyType({"p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99})

NAMES_MAX = 200
"""How many providers a list may name: OpenRouter has some 100."""

MILLION = 1_000_000

DIGITS_MAX = 20
"""The most digits before or after the point of a price: more than any has, and few enough to write out."""

ANSWER_TOKENS_GUESSED = 1_000
"""How long an answer without a cap is taken to be where prices are compared."""

PROMPT_BYTES_A_TOKEN = 4
"""The same for a prompt. Nothing is charged by it."""

NAMED: Mapping[str, str] = MappingProxyType(
    {
        **{name: name for name in PARAMETERS if name != "response_format"},
        "max_output_tokens": "max_tokens",
        "stop_sequences": "stop",
        "thinking": "reasoning",
    }
)
"""The members of orders, in all formats, that not every host supports; each with its name in `supported_parameters`.
What is nested within a member is read by itself."""

SOFT = frozenset({"tools", "response_format", "structured_outputs", "verbosity"})
"""Who supports these comes first, where an order has them, even if it does not require that."""


class MaxPrice(Struct, frozen=True):
    """The most that may be paid in USD: for a token of the prompt and of the answer, a request, a picture, a unit of
    audio. None: no bound."""

    prompt: Decimal | None = None
    completion: Decimal | None = None
    request: Decimal | None = None
    image: Decimal | None = None
    audio: Decimal | None = None


NO_MAX = MaxPrice()


class Wishes(Struct, frozen=True):
    """What an order wishes. `models` stand in the order in which they are tried; `sort_of` says by what the
    upstreams of one of them are sorted. Names of upstreams are in lower case.

    `prompt_tokens`, `answer_tokens` and `images` are about what the order comes to, to compare prices by. `answer_cap`
    is its own, in tokens; `inputs` and `outputs` are the modalities, beside text, of what it brings along and of what
    it wants. Preferred latencies are in seconds, throughputs in tokens a second.
    """

    path: str
    models: tuple[str, ...]
    order: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    sort: Sort | None = None
    sorts_all_models: bool = False
    allow_fallbacks: bool = True
    require_parameters: bool = False
    parameters: frozenset[str] = frozenset()
    quantizations: frozenset[str] | None = None
    denies_data_collection: bool = False
    zdr: bool = False
    distillable: bool = False
    max_price: MaxPrice = NO_MAX
    preferred_max_latency: Mapping[Percentile, float] = MappingProxyType({})
    preferred_min_throughput: Mapping[Percentile, float] = MappingProxyType({})
    prompt_tokens: int = 0
    answer_tokens: int = 0
    images: int = 0
    answer_cap: int | None = None
    inputs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()

    def sort_of(self, model: str) -> Sort | None:
        """A variant's way to sort holds where the order names none."""
        return self.sort or next((_SORTS[each] for each in variants(model) if each in _SORTS), None)


_SORTS: Mapping[str, Sort] = MappingProxyType({"nitro": "throughput", "floor": "price"})


class _Sorted(Struct):
    by: Sort | None = None
    partition: Literal["model", "none"] | None = None


class _Cutoffs(Struct):
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


class _MaxPrice(Struct):
    prompt: Decimal | None = None
    completion: Decimal | None = None
    request: Decimal | None = None
    image: Decimal | None = None
    audio: Decimal | None = None


class _Provider(Struct):
    order: list[str] | None = None
    only: list[str] | None = None
    ignore: list[str] | None = None
    sort: Sort | _Sorted | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    quantizations: list[Quantization] | None = None
    data_collection: Literal["allow", "deny"] | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    max_price: _MaxPrice | None = None
    preferred_max_latency: float | _Cutoffs | None = None
    preferred_min_throughput: float | _Cutoffs | None = None


_decode_provider = msgspec.json.Decoder(_Provider).decode
_decode_text = msgspec.json.Decoder(str).decode
_NOTHING = _Provider()


def read_wishes(path: str, body: bytes, asked: Asked) -> Wishes:
    """What an order wishes, from its body and what was read of it before.

    Raises:
        Refusal: 400, `provider` is not what OpenRouter's document says; it names the member.
    """
    fields = decode_fields(body)
    provider = _provider_of(fields)
    sort = provider.sort
    by, partition = (sort.by, sort.partition) if isinstance(sort, _Sorted) else (sort, None)
    route = decoded_or(_decode_text, fields.get("route"), "")
    return Wishes(
        path=path,
        models=asked.models,
        order=_names("order", provider.order),
        only=None if provider.only is None else _names("only", provider.only),
        ignore=_names("ignore", provider.ignore),
        sort=by,
        sorts_all_models=partition == "none" or (partition is None and route == "sort"),
        allow_fallbacks=provider.allow_fallbacks is not False,
        require_parameters=provider.require_parameters is True,
        parameters=_parameters(fields),
        answer_cap=asked.answer_tokens,
        inputs=asked.inputs,
        outputs=_outputs(path, fields),
        quantizations=None if provider.quantizations is None else frozenset(provider.quantizations),
        denies_data_collection=provider.data_collection == "deny",
        zdr=provider.zdr is True,
        distillable=provider.enforce_distillable_text is True,
        max_price=_max_price(provider.max_price),
        preferred_max_latency=_cutoffs("preferred_max_latency", provider.preferred_max_latency),
        preferred_min_throughput=_cutoffs("preferred_min_throughput", provider.preferred_min_throughput),
        prompt_tokens=asked.prompt_bytes // PROMPT_BYTES_A_TOKEN,
        answer_tokens=(asked.answer_tokens or ANSWER_TOKENS_GUESSED) * asked.answers,
        images=asked.images,
    )


def _provider_of(fields: Fields) -> _Provider:
    raw = fields.get("provider")
    if raw is None or is_null(raw):
        return _NOTHING
    try:
        return _decode_provider(raw)
    except UNREADABLE as error:
        raise _wrong(error) from error


def _wrong(error: Exception) -> Refusal:
    said = json_path_error(error)
    return invalid(said.replace("the body", "provider", 1) if said.startswith("the body") else f"provider.{said}")


def _names(member: str, names: list[str] | None) -> tuple[str, ...]:
    if names is not None and len(names) > NAMES_MAX:
        raise invalid(f"provider.{member}: at most {NAMES_MAX} names, not {len(names)}")
    return tuple(name.strip().lower() for name in names or ())


class _Form(Struct):
    type: str = "text"


class _Said(Struct):
    """`text` of responses, `output_config` of messages."""

    format: _Form | None = None
    verbosity: str | None = None
    effort: str | None = None


_decode_form = msgspec.json.Decoder(_Form).decode
_decode_said = msgspec.json.Decoder(_Said).decode
_decode_modalities = msgspec.json.Decoder(list[str]).decode

_FORMS = {"text": (), "json_schema": ("response_format", "structured_outputs")}


def _parameters(fields: Mapping[str, Raw]) -> frozenset[str]:
    found = {NAMED[name] for name, value in fields.items() if name in NAMED and not is_null(value)}
    form = decoded_or(_decode_form, fields.get("response_format"), _Form())
    for member in ("text", "output_config"):
        if member in fields:
            said = decoded_or(_decode_said, fields[member], _Said())
            form = said.format or form
            found.update(["verbosity"] if said.verbosity else [], ["reasoning_effort"] if said.effort else [])
    found.update(_FORMS.get(form.type, ("response_format",)))
    return frozenset(found)


def _outputs(path: str, fields: Mapping[str, Raw]) -> frozenset[str]:
    if (answered_with := ANSWERED_WITH.get(path)) is not None:
        return frozenset((answered_with,))
    wanted = decoded_or(_decode_modalities, fields.get("modalities"), list[str]())
    return frozenset(wanted) - {"text"}


def _max_price(given: _MaxPrice | None) -> MaxPrice:
    if given is None:
        return NO_MAX
    for name in _MaxPrice.__struct_fields__:
        price = getattr(given, name)
        if price is not None and not (price.is_finite() and price >= 0 and abs(price.adjusted()) < DIGITS_MAX):
            raise invalid(f"provider.max_price.{name}: write an amount in USD that is not below zero")
    return MaxPrice(
        None if given.prompt is None else given.prompt / MILLION,
        None if given.completion is None else given.completion / MILLION,
        given.request,
        given.image,
        given.audio,
    )


def _cutoffs(member: str, given: float | _Cutoffs | None) -> Mapping[Percentile, float]:
    if given is None:
        return MappingProxyType({})
    found: dict[Percentile, float] = {}
    for name in PERCENTILES:
        value = getattr(given, name) if isinstance(given, _Cutoffs) else given if name == "p50" else None
        if value is None:
            continue
        if value < 0:
            raise invalid(f"provider.{member}: {value:g} is below zero")
        found[name] = value
    return MappingProxyType(found)
