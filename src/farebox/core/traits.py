"""What is declared of an upstream's models beside their prices: what they can, and how their orders are treated there.

OpenRouter knows this of its hosts, and orders ask for it in `provider`. Of our own upstreams nobody knows what is not
declared: it is no promise. Only what an order may say is known without that, by the formats that an upstream speaks.

Sources: OpenRouter's OpenAPI document (Parameter, Quantization, InputModality, OutputModality); OpenAI's and
Anthropic's SDKs (the types of their requests).
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import asdict, replace

from farebox.core.formats.describing import OutputModality
from farebox.core.formats.table import FORMATS

Quantization = Literal[
    "int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32", "unknown"
]
InputModality = Literal["text", "image", "file", "audio", "video"]

ANSWERED_WITH: Mapping[str, OutputModality] = MappingProxyType(
    {path: made for path, wire in FORMATS.items() if (made := wire.DESCRIBED.answered_with) is not None}
)
"""What an order at these paths is answered with, whatever it says."""

OF_CHATS: frozenset[OutputModality] = frozenset(("text", "image", "audio", "video"))
"""What orders at all other paths may be answered with."""

Parameter = Literal[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "max_tokens",
    "max_completion_tokens",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "prediction",
    "seed",
    "response_format",
    "structured_outputs",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "include_reasoning",
    "reasoning",
    "reasoning_effort",
    "web_search_options",
    "verbosity",
]
PARAMETERS: tuple[str, ...] = get_args(Parameter)

CAPS = frozenset({"max_tokens", "max_completion_tokens"})
"""Two names of one parameter: who supports either supports both."""

USUAL: Literal["usual"] = "usual"
"""Among declared parameters it stands for all that the upstream's formats can say."""

_IN_ALL = frozenset(
    "max_tokens max_completion_tokens parallel_tool_calls reasoning reasoning_effort response_format structured_outputs"
    " tool_choice tools".split()
)
SAYABLE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "/chat/completions": _IN_ALL
        | frozenset(
            "frequency_penalty logit_bias logprobs prediction presence_penalty seed stop temperature top_logprobs top_p"
            " verbosity web_search_options".split()
        ),
        "/responses": _IN_ALL | {"logprobs", "temperature", "top_logprobs", "top_p", "verbosity"},
        "/messages": _IN_ALL | {"stop"},
    }
)
"""The parameters that an order can say in each format, as the newest SDKs of OpenAI and Anthropic write it, be it
translated into that. Who takes more is declared so: many servers `min_p`, Anthropic's older models `temperature`."""


class Traits(Struct, frozen=True):
    """None is not declared. `collects_data`: it keeps for longer, or trains on, what it is sent; `zdr`: it keeps
    nothing of it; `distillable`: its answers may train other models."""

    supported_parameters: frozenset[str] | None = None
    quantization: Quantization | None = None
    collects_data: bool | None = None
    zdr: bool | None = None
    distillable: bool | None = None
    context_tokens: int | None = None
    answer_tokens_max: int | None = None
    input_modalities: tuple[InputModality, ...] | None = None
    output_modalities: tuple[OutputModality, ...] | None = None

    @property
    def collects(self) -> bool | None:
        """Whether it collects data: not where it keeps nothing."""
        return False if self.zdr else self.collects_data

    @property
    def longest_answer(self) -> int | None:
        """In tokens; None where that is not declared."""
        longest, context = self.answer_tokens_max, self.context_tokens
        return context if longest is None else longest if context is None else min(longest, context)

    @property
    def take_any_order(self) -> bool:
        """Whether nothing is declared that could keep an order away which wishes nothing."""
        return (
            self.answer_tokens_max is None
            and self.context_tokens is None
            and self.input_modalities is None
            and self.output_modalities is None
        )

    def supports(self, native: str) -> frozenset[str]:
        """The parameters of an order that it gets in this format."""
        sayable = SAYABLE.get(native, _NONE)
        declared = self.supported_parameters
        if declared is None:
            return sayable
        found = declared | sayable if USUAL in declared else declared
        return found | CAPS if found & CAPS else found

    def listed_parameters(self, formats: Iterable[str]) -> list[str]:
        """Those of all its formats, in OpenRouter's order."""
        found = _NONE.union(*map(self.supports, formats))
        return [name for name in PARAMETERS if name in found]


_NONE: frozenset[str] = frozenset()

UNSAID = Traits()


def over(upstreams: Traits, own: Traits) -> Traits:
    """A model's own traits, over those of all its upstream's models."""
    said = {name: value for name, value in asdict(own).items() if value is not None}
    return replace(upstreams, **said) if said else upstreams
