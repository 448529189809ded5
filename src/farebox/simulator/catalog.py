"""The simulator's lists: its models filtered and sorted as OpenRouter does, where they are served, and by whom."""

import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from operator import ge, le

import msgspec

from farebox.core.errors import invalid, unknown
from farebox.simulator.models import MODELS, PROVIDER, Model

LIMIT_DEFAULT = 500
LIMIT_MAX = 1000

_PER_MILLION = 1_000_000


def page(path: str, query: dict[str, str]) -> bytes:
    """The body of a list. Raises Refusal 400 and 404."""
    match path.strip("/").split("/"):
        case ["models"]:
            return _model_page(listed(query), query)
        case ["models", "user"]:
            return _model_page(listed({}), query)
        case ["embeddings", "models"]:
            return _model_page(listed({"output_modalities": "embeddings"}), query)
        case ["models", "count"]:
            wanted = {name: query[name] for name in ("output_modalities",) if name in query}
            return msgspec.json.encode({"data": {"count": len(listed(wanted))}})
        case ["models", author, slug, "endpoints"]:
            model = MODELS.get(f"{author}/{slug}")
            if model is None:
                raise unknown(f"Model {author}/{slug} not found")
            return msgspec.json.encode({"data": _served(model)})
        case ["images", "models"]:
            return msgspec.json.encode({"data": [_image_entry(model) for model in _that_make("image")]})
        case ["images", "models", author, slug, "endpoints"]:
            model = MODELS.get(f"{author}/{slug}")
            if model is None or "image" not in model.outputs:
                raise unknown(f"Image model {author}/{slug} not found")
            return msgspec.json.encode({"id": model.id, "endpoints": [_image_endpoint(model)]})
        case ["videos", "models"]:
            return msgspec.json.encode({"data": [_video_entry(model) for model in _that_make("video")]})
        case ["endpoints", "zdr"]:
            endpoints = [_endpoint(model, _EU_TAG) for model in MODELS.values() if model.in_eu]
            return msgspec.json.encode({"data": endpoints})
        case ["providers"]:
            return msgspec.json.encode({"data": [_PROVIDER_ENTRY]})
        case _:
            raise unknown("Not Found")


def listed(query: dict[str, str]) -> list[Model]:
    """The models that every filter lets through, in the order asked for. Raises Refusal 400."""
    wanted = {"output_modalities": "text", **query}
    models = list(MODELS.values())
    for name, value in wanted.items():
        if name in _FILTERS:
            try:
                if value not in _CHOICES.get(name, value):
                    raise ValueError(value)
                lets_through = _FILTERS[name](value)
            except (ValueError, InvalidOperation) as error:
                raise invalid(f"{name}: Invalid input: {value[:40]!r}") from error
            models = [model for model in models if lets_through(model)]
    if "sort" not in wanted:
        return models
    key = _SORTS.get(wanted["sort"])
    if key is None:
        raise invalid(f"sort: Invalid option: expected one of {', '.join(_SORTS)}")
    return sorted(models, key=key)


Check = Callable[[Model], bool]


def _words(value: str) -> set[str]:
    return {word.strip() for word in value.split(",") if word.strip()}


def _amount(value: str, most: Decimal = Decimal("Infinity")) -> Decimal:
    amount = Decimal(value)
    if not amount.is_finite() or not 0 <= amount <= most:
        raise ValueError(value)
    return amount


def _whole_number(value: str, least: int = 0) -> Decimal:
    if int(value) < least:
        raise ValueError(value)
    return Decimal(int(value))


def _prompt(model: Model) -> Decimal:
    return Decimal(model.prompt) * _PER_MILLION


def _completion(model: Model) -> Decimal:
    return Decimal(model.completion) * _PER_MILLION


def _index(model: Model) -> Decimal | None:
    return None if model.index is None else Decimal(model.index)


Measure = Callable[[Model], Decimal | None]
Reader = Callable[[str], Decimal]


def _bounded(compare: Callable[[Decimal, Decimal], bool], measure: Measure, read: Reader) -> Callable[[str], Check]:
    def filtered(value: str) -> Check:
        bound = read(value)
        return lambda model: (found := measure(model)) is not None and compare(found, bound)

    return filtered


_MEASURES: dict[str, tuple[Measure, Reader]] = {
    "price": (_prompt, _amount),
    "output_price": (_completion, _amount),
    "age_days": (lambda model: Decimal(int(time.time()) - model.created) / 86_400, _whole_number),
    "tool_success_rate": (
        lambda model: Decimal("0.9") if "tools" in model.parameters else None,
        lambda value: _amount(value, Decimal(1)),
    ),
    **dict.fromkeys(("intelligence_index", "coding_index", "agentic_index"), (_index, _amount)),
}
"""What models are filtered by from `min_` to `max_`."""

_CHOICES = {
    "category": (
        "programming roleplay marketing marketing/seo technology science translation legal finance health trivia"
        " academia"
    ).split(),
    "distillable": ["true", "false"],
    "zdr": ["true"],
    "region": ["eu", "us"],
}
"""The values of filters that take no others."""

_FILTERS: dict[str, Callable[[str], Check]] = {
    "output_modalities": lambda value: lambda model: value == "all" or bool(_words(value) & set(model.outputs)),
    "input_modalities": lambda value: lambda model: _words(value) <= set(model.inputs),
    "supported_parameters": lambda value: lambda model: _words(value) <= set(model.parameters),
    "category": lambda value: lambda model: value in model.categories,
    "q": lambda value: lambda model: value.lower() in f"{model.id} {model.name}".lower(),
    "context": _bounded(ge, lambda model: Decimal(model.context_tokens), lambda value: _whole_number(value, 1)),
    "arch": lambda value: lambda model: value == "Other",
    "model_authors": lambda value: lambda model: model.id.partition("/")[0] in _words(value),
    "providers": lambda value: lambda model: PROVIDER in _words(value),
    "distillable": lambda value: lambda model: model.reasons is (value == "false"),
    "zdr": lambda value: lambda model: model.in_eu,
    "region": lambda value: lambda model: model.in_eu or value == "us",
    **{f"min_{name}": _bounded(ge, *measured) for name, measured in _MEASURES.items()},
    **{f"max_{name}": _bounded(le, *measured) for name, measured in _MEASURES.items()},
}

_SORTS: dict[str, Callable[[Model], Decimal]] = {
    "pricing-low-to-high": lambda model: _prompt(model) + _completion(model),
    "pricing-high-to-low": lambda model: -(_prompt(model) + _completion(model)),
    "context-high-to-low": lambda model: Decimal(-model.context_tokens),
    "newest": lambda model: Decimal(-model.created),
    **dict.fromkeys(
        ("intelligence-high-to-low", "coding-high-to-low", "agentic-high-to-low", "design-arena-elo-high-to-low"),
        lambda model: -(_index(model) or Decimal(-1)),
    ),
    **dict.fromkeys(
        ("most-popular", "top-weekly", "throughput-high-to-low", "latency-low-to-high"), lambda model: Decimal(0)
    ),
}


def _model_page(models: list[Model], query: dict[str, str]) -> bytes:
    offset, limit = _whole(query, "offset", 0, 0), _whole(query, "limit", LIMIT_DEFAULT, 1)
    if limit > LIMIT_MAX:
        raise invalid(f"limit: Number must be less than or equal to {LIMIT_MAX}")
    is_paged = "offset" in query or "limit" in query
    shown = models[offset : offset + limit] if is_paged else models
    following = offset + len(shown)
    more = f"/api/v1/models?offset={following}&limit={limit}" if following < len(models) else None
    data = [_entry(model) for model in shown]
    return msgspec.json.encode({"data": data, "links": {"next": more}, "total_count": len(models)})


def _whole(query: dict[str, str], name: str, otherwise: int, least: int) -> int:
    text = query.get(name, str(otherwise))
    if not text.isdigit() or int(text) < least:
        raise invalid(f"{name}: Expected number, received {text[:40]!r}")
    return int(text)


def _pricing(model: Model) -> dict[str, object]:
    pricing: dict[str, object] = {"prompt": model.prompt, "completion": model.completion}
    if model.request != "0":
        pricing["request"] = model.request
    if model.image_output != "0":
        pricing["image_output"] = model.image_output
    if model.overrides:
        pricing["overrides"] = list(model.overrides)
    return pricing


def _architecture(model: Model) -> dict[str, object]:
    return {
        "modality": f"{'+'.join(model.inputs)}->{'+'.join(model.outputs)}",
        "input_modalities": list(model.inputs),
        "output_modalities": list(model.outputs),
        "tokenizer": "Other",
        "instruct_type": None,
    }


def _entry(model: Model) -> dict[str, object]:
    entry: dict[str, object] = {
        "id": model.id,
        "canonical_slug": model.id,
        "name": f"Simulated: {model.name}",
        "created": model.created,
        "description": model.description,
        "pricing": _pricing(model),
        "context_length": model.context_tokens,
        "architecture": _architecture(model),
        "top_provider": {
            "context_length": model.context_tokens,
            "max_completion_tokens": model.answer_tokens_max,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": list(model.parameters),
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
    }
    if model.reasons:
        entry["reasoning"] = {"mandatory": False, "default_enabled": True}
    return entry


def _served(model: Model) -> dict[str, object]:
    return {
        "id": model.id,
        "name": f"Simulated: {model.name}",
        "created": model.created,
        "description": model.description,
        "architecture": _architecture(model),
        "endpoints": [_endpoint(model, tag) for tag in ((_TAG, _EU_TAG) if model.in_eu else (_TAG,))],
    }


def _endpoint(model: Model, tag: str) -> dict[str, object]:
    """The superset of what the SDKs of both languages demand."""
    return {
        "name": f"{PROVIDER} | {model.id}",
        "model_id": model.id,
        "model_name": f"Simulated: {model.name}",
        "context_length": model.context_tokens,
        "pricing": _pricing(model),
        "provider_name": PROVIDER,
        "tag": tag,
        "quantization": None,
        "max_completion_tokens": model.answer_tokens_max,
        "max_prompt_tokens": None,
        "supported_parameters": list(model.parameters),
        "status": 0,
        "uptime_last_30m": 100,
        "uptime_last_5m": None,
        "uptime_last_1d": None,
        "supports_implicit_caching": False,
        "supports_tool_choice": {"auto": True, "function": True, "none": True, "required": True},
        "latency_last_30m": {"p50": 3, "p75": 4, "p90": 5, "p99": 6},
        "throughput_last_30m": None,
        "native_tools": {},
        "service_tier": None,
        "supports_diarization": False,
        "supports_voice_cloning": False,
    }


# Pictures and videos


def _that_make(modality: str) -> list[Model]:
    return [model for model in MODELS.values() if modality in model.outputs]


_OF_PICTURES: dict[str, object] = {
    "n": {"type": "range", "min": 1, "max": 10},
    "resolution": {"type": "enum", "values": ["1K", "2K"]},
    "seed": {"type": "boolean"},
}
"""What pictures can be asked with, of each of the three types that descriptors have."""


def _image_entry(model: Model) -> dict[str, object]:
    """OpenRouter's link has its own base, whatever that of who asks."""
    return {
        "id": model.id,
        "name": f"Simulated: {model.name}",
        "description": model.description,
        "created": model.created,
        "architecture": {"input_modalities": list(model.inputs), "output_modalities": list(model.outputs)},
        "supported_parameters": _OF_PICTURES,
        "supports_streaming": True,
        "endpoints": f"/api/v1/images/models/{model.id}/endpoints",
    }


def _image_endpoint(model: Model) -> dict[str, object]:
    """Prices are numbers here, by the picture or by the token."""
    priced = [
        {"billable": billable, "unit": unit, "cost_usd": float(price)}
        for billable, unit, price in (
            ("output_image", "image", model.unit),
            ("output_image", "token", model.image_output),
            ("input_text", "token", model.prompt),
        )
        if Decimal(price)
    ]
    return {
        "provider_name": PROVIDER,
        "provider_slug": _TAG,
        "provider_tag": None,
        "supported_parameters": _OF_PICTURES,
        "allowed_passthrough_parameters": [],
        "supports_streaming": True,
        "pricing": priced,
    }


def _video_entry(model: Model) -> dict[str, object]:
    """`pricing_skus` are texts, under names that each provider makes up."""
    return {
        "id": model.id,
        "canonical_slug": model.id,
        "name": f"Simulated: {model.name}",
        "description": model.description,
        "created": model.created,
        "allowed_passthrough_parameters": [],
        "creativity": None,
        "generate_audio": False,
        "hugging_face_id": None,
        "pricing_skus": {"generate": model.unit} if Decimal(model.unit) else None,
        "seed": None,
        "supported_aspect_ratios": ["16:9", "9:16"],
        "supported_durations": [4, 8],
        "supported_frame_images": ["first_frame"],
        "supported_resolutions": ["720p"],
        "supported_sizes": None,
        "upscale_factor": None,
    }


_TAG = "fakeprovider"
_EU_TAG = "fakeprovider/eu"

_PROVIDER_ENTRY = {
    "name": PROVIDER,
    "slug": _TAG,
    "privacy_policy_url": None,
    "terms_of_service_url": None,
    "status_page_url": None,
    "headquarters": "DE",
    "datacenters": ["DE", "US"],
}
