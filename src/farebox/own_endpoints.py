"""Our own upstreams in the list of a model's endpoints: what each costs, and how it does, as measured here.

Shape: what the OpenRouter SDKs of both languages demand (1.3).
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from farebox.core.legible import decoded_or
from farebox.core.listed_prices import NOT_KNOWN
from farebox.core.reading import as_whole
from farebox.core.routing import Candidate
from farebox.core.wishes import Percentile
from farebox.upstream.running import RunningUpstreams
from farebox.upstream_health import Health

STATUS_WELL, STATUS_LEFT_ALONE = 0, -1
"""OpenRouter's `status` is 0 for an endpoint that gets orders, and below zero for one that is passed over."""

MS = 1000

_CHOICES = ("auto", "function", "none", "required")
"""OpenRouter's words for what an order's `tool_choice` can ask."""


class _Top(Struct):
    max_completion_tokens: float | None = None


class _Entry(Struct):
    name: str = ""
    context_length: float | None = None
    top_provider: Raw = Raw(b"null")
    pricing: Raw = Raw(msgspec.json.encode(dict(NOT_KNOWN)))
    supported_parameters: Raw = Raw(b"[]")


_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_top = msgspec.json.Decoder(_Top).decode
_decode_names = msgspec.json.Decoder(list[str]).decode


class OwnEndpoints:
    """Call it with a model, by our name."""

    def __init__(self, upstreams: RunningUpstreams, health: Health) -> None:
        self._upstreams = upstreams
        self._health = health

    def __call__(self, model: str) -> list[dict[str, object]]:
        """One for each upstream that serves it; none where there is one upstream for all, which is not measured: then
        its own list says more."""
        if self._upstreams.is_alone:
            return []
        return [self._endpoint(each) for each in self._upstreams.candidates(model)]

    def zdr(self) -> list[dict[str, object]]:
        """Those that are declared to keep nothing of an order."""
        return [self._endpoint(each) for each in self._upstreams.keeping_nothing()]

    def _endpoint(self, candidate: Candidate) -> dict[str, object]:
        entry = decoded_or(_decode_entry, self._upstreams.entry(candidate), _Entry())
        top = decoded_or(_decode_top, entry.top_provider, _Top())
        condition = self._health.condition(candidate)
        measured, traits = self._health.measured_of(candidate), candidate.traits
        parameters = decoded_or(_decode_names, entry.supported_parameters, list[str]())
        return {
            "name": f"{candidate.upstream} | {candidate.model}",
            "model_id": candidate.model,
            "model_name": entry.name or candidate.model,
            "context_length": as_whole(entry.context_length or 0) or 0,
            "pricing": entry.pricing,
            "provider_name": candidate.upstream,
            "tag": candidate.upstream.lower(),
            "quantization": traits.quantization,
            "max_completion_tokens": as_whole(top.max_completion_tokens or 0) or None,
            "max_prompt_tokens": None,
            "supported_parameters": parameters,
            "status": STATUS_LEFT_ALONE if condition.alone_until_us else STATUS_WELL,
            "uptime_last_30m": None if measured.uptime is None else round(measured.uptime * 100, 2),
            "uptime_last_5m": None,
            "uptime_last_1d": None,
            "supports_implicit_caching": False,
            "supports_tool_choice": dict.fromkeys(_CHOICES, candidate.routes or "tool_choice" in parameters),
            "latency_last_30m": _percentiles(measured.latency_seconds, MS),
            "throughput_last_30m": _percentiles(measured.throughput, 1),
            "native_tools": {},
            "service_tier": None,
            "supports_diarization": False,
            "supports_voice_cloning": False,
            # These OpenRouter has no names for; null is what is not declared.
            "collects_data": traits.collects,
            "zdr": traits.zdr,
            "distillable": traits.distillable,
        }


def _percentiles(values: Mapping[Percentile, float], times: float) -> dict[str, float] | None:
    return {name: round(value * times, 3) for name, value in values.items()} or None
