"""The simulator's lists: its models filtered and sorted as OpenRouter does, where they are served, and by whom."""

import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

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


def _one_of(value: str, *allowed: str) -> str:
    if value not in allowed:
        raise ValueError(value)
    return value


def _outputs(value: str) -> Check:
    return lambda model: value == "all" or bool(_words(value) & set(model.outputs))


def _search(value: str) -> Check:
    return lambda model: value.lower() in f"{model.id} {model.name}".lower()


def _bound(value: str, most: int | None) -> Decimal:
    bound = Decimal(value)
    if not bound.is_finite() or bound < 0 or (most is not None and bound > most):
        raise ValueError(value)
    return bound


def _whole_number(value: str, least: int) -> str:
    if int(value) < least:
        raise ValueError(value)
    return value


def _at_least(value: str, of: Callable[[Model], Decimal | None], most: int | None = None) -> Check:
    bound = _bound(value, most)
    return lambda model: (found := of(model)) is not None and found >= bound


def _at_most(value: str, of: Callable[[Model], Decimal | None], most: int | None = None) -> Check:
    bound = _bound(value, most)
    return lambda model: (found := of(model)) is not None and found <= bound


def _prompt(model: Model) -> Decimal:
    return Decimal(model.prompt) * _PER_MILLION


def _completion(model: Model) -> Decimal:
    return Decimal(model.completion) * _PER_MILLION


def _age_days(model: Model) -> Decimal:
    return Decimal(int(time.time()) - model.created) / 86_400


def _index(model: Model) -> Decimal | None:
    return None if model.index is None else Decimal(model.index)


def _tool_success(model: Model) -> Decimal | None:
    return Decimal("0.9") if "tools" in model.parameters else None


def _region(value: str) -> Check:
    is_eu = _one_of(value, "eu", "us") == "eu"
    return lambda model: model.in_eu or not is_eu


def _zdr(value: str) -> Check:
    _one_of(value, "true")
    return lambda model: model.in_eu


def _distillable(value: str) -> Check:
    is_wanted = _one_of(value, "true", "false") == "true"
    return lambda model: model.reasons is not is_wanted


def _category(value: str) -> Check:
    _one_of(value, *_CATEGORIES)
    return lambda model: value in model.categories


_CATEGORIES = (
    "programming roleplay marketing marketing/seo technology science translation legal finance health trivia academia"
).split()

_FILTERS: dict[str, Callable[[str], Check]] = {
    "output_modalities": _outputs,
    "input_modalities": lambda value: lambda model: _words(value) <= set(model.inputs),
    "supported_parameters": lambda value: lambda model: _words(value) <= set(model.parameters),
    "category": _category,
    "q": _search,
    "context": lambda value: _at_least(_whole_number(value, 1), lambda model: Decimal(model.context_tokens)),
    "min_price": lambda value: _at_least(value, _prompt),
    "max_price": lambda value: _at_most(value, _prompt),
    "min_output_price": lambda value: _at_least(value, _completion),
    "max_output_price": lambda value: _at_most(value, _completion),
    "arch": lambda value: lambda model: value == "Other",
    "model_authors": lambda value: lambda model: model.id.partition("/")[0] in _words(value),
    "providers": lambda value: lambda model: PROVIDER in _words(value),
    "distillable": _distillable,
    "zdr": _zdr,
    "region": _region,
    "min_age_days": lambda value: _at_least(_whole_number(value, 0), _age_days),
    "max_age_days": lambda value: _at_most(_whole_number(value, 0), _age_days),
    "min_tool_success_rate": lambda value: _at_least(value, _tool_success, 1),
    "max_tool_success_rate": lambda value: _at_most(value, _tool_success, 1),
    **dict.fromkeys(
        ("min_intelligence_index", "min_coding_index", "min_agentic_index"), lambda value: _at_least(value, _index)
    ),
    **dict.fromkeys(
        ("max_intelligence_index", "max_coding_index", "max_agentic_index"), lambda value: _at_most(value, _index)
    ),
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
