"""The simulated models: what each costs, and what it can do."""

from dataclasses import dataclass, field, replace
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Model:
    """One model. Prices are USD per token (`request`: per order), as decimal strings like OpenRouter's; that of a
    `unit` stands in no list."""

    id: str
    name: str
    prompt: str
    completion: str
    description: str
    request: str = "0"
    image_output: str = "0"
    unit: str = "0"
    context_tokens: int = 32_768
    answer_tokens_max: int | None = 8_192
    inputs: tuple[str, ...] = ("text",)
    outputs: tuple[str, ...] = ("text",)
    parameters: tuple[str, ...] = ("max_tokens", "temperature", "top_p", "stop", "seed", "tools", "tool_choice")
    reasons: bool = False
    usage_shape: str = "separate"
    overrides: tuple[dict[str, object], ...] = field(default_factory=tuple)
    categories: tuple[str, ...] = ()
    index: str | None = None
    in_eu: bool = False
    created: int = 1_767_225_600

    def cache_cost(self, cached_tokens: int, cache_write_tokens: int) -> Decimal:
        """What tokens of the prompt cost beyond their usual price, that were read from a cache (a tenth of it) or
        written to one (a quarter more)."""
        prompt = Decimal(self.prompt)
        return prompt * cache_write_tokens / 4 - prompt * cached_tokens * 9 / 10

    def cost(self, prompt_tokens: int, answer_tokens: int, image_tokens: int = 0) -> Decimal:
        """What an answer costs."""
        return (
            Decimal(self.request)
            + Decimal(self.prompt) * prompt_tokens
            + Decimal(self.completion) * answer_tokens
            + Decimal(self.image_output) * image_tokens
        )


_PAINTER = Model(
    "sim/painter",
    "Painter",
    "0.0000003",
    "0.0000025",
    "Paints one small picture when asked with `modalities`.",
    image_output="0.00003",
    inputs=("text", "image"),
    outputs=("image", "text"),
    usage_shape="merged",
)
_PICKS = "A router: it picks `sim/echo`, and its price is its pick's."
_ROUTER = Model("sim/auto", "Auto", "-1", "-1", _PICKS, context_tokens=200_000)

MODELS: dict[str, Model] = {
    model.id: model
    for model in (
        Model(
            "sim/echo",
            "Echo",
            "0.00000015",
            "0.0000006",
            "Says back what you said. The everyday model.",
            categories=("programming", "translation"),
            index="20",
            in_eu=True,
        ),
        Model("sim/echo:free", "Echo (free)", "0", "0", "The same, at no cost."),
        Model(
            "sim/echo-pro",
            "Echo Pro",
            "0.000003",
            "0.000015",
            "The same, at a large model's price.",
            context_tokens=200_000,
            categories=("programming", "legal"),
            index="55.5",
            created=1_769_904_000,
        ),
        Model("sim/reasoner", "Reasoner", "0.0000005", "0.000002", "Thinks aloud before it answers.", reasons=True),
        _PAINTER,
        Model(
            "sim/seer",
            "Seer",
            "0.000001",
            "0.000004",
            "Takes pictures in.",
            inputs=("text", "image"),
            usage_shape="delta",
        ),
        Model("sim/tiny", "Tiny", "0.00000003", "0.00000003", "So cheap that ten tokens cost 3E-7."),
        Model("sim/fine", "Fine", "0.0000071", "0.0000071", "Costs with an exponent in them, such as 7.1e-05."),
        Model("sim/penny", "Penny", "0", "0", "A thousandth of a dollar an order, whatever it says.", request="0.001"),
        Model(
            "sim/long",
            "Long",
            "0.00000125",
            "0.00001",
            "A million tokens of context, dearer beyond 200,000.",
            context_tokens=1_048_576,
            answer_tokens_max=65_536,
            overrides=({"min_prompt_tokens": 200_000, "prompt": "0.0000025", "completion": "0.000015"},),
        ),
        Model(
            "sim/terse",
            "Terse",
            "0.0000002",
            "0.0000008",
            "A tenth of a page at most.",
            answer_tokens_max=128,
            context_tokens=4_096,
        ),
        _ROUTER,
        replace(_ROUTER, id="openrouter/auto", name="Auto Router", description="As `sim/auto`, by OpenRouter's name."),
        replace(
            _PAINTER,
            id="google/gemini-2.5-flash-image",
            name="Gemini 2.5 Flash Image",
            description="As `sim/painter`, under the name that examples ask for.",
        ),
        Model(
            "sim/embedder",
            "Embedder",
            "0.00000002",
            "0",
            "Vectors.",
            outputs=("embeddings",),
            answer_tokens_max=None,
            parameters=(),
        ),
        Model(
            "sim/reranker",
            "Reranker",
            "0",
            "0",
            "Puts documents in order. A search unit is up to a hundred of them.",
            request="0.002",
            outputs=("rerank",),
            answer_tokens_max=None,
            parameters=(),
        ),
        Model(
            "sim/illustrator",
            "Illustrator",
            "0.000005",
            "0",
            "Pictures, at a price for each of their tokens: $0.04175 a picture.",
            image_output="0.00001",
            inputs=("text", "image"),
            outputs=("image",),
            answer_tokens_max=None,
            parameters=(),
        ),
        Model(
            "sim/poster",
            "Poster",
            "0",
            "0",
            "Pictures at $0.04, which no list tells.",
            unit="0.04",
            outputs=("image",),
            answer_tokens_max=None,
            parameters=(),
        ),
        Model(
            "sim/voice",
            "Voice",
            "0.000015",
            "0",
            "Speaks, at a price for each character.",
            outputs=("speech",),
            answer_tokens_max=None,
            parameters=(),
        ),
        Model(
            "sim/scribe",
            "Scribe",
            "0.0001",
            "0",
            "Writes speech down, at a price for each second.",
            inputs=("audio",),
            outputs=("transcription",),
            answer_tokens_max=None,
            parameters=(),
        ),
        Model(
            "sim/filmer",
            "Filmer",
            "0",
            "0",
            "Videos of up to eight seconds, at $0.10 a second, which the list of videos tells.",
            unit="0.10",
            inputs=("text", "image"),
            outputs=("video",),
            answer_tokens_max=None,
            parameters=(),
        ),
    )
}

PROVIDER = "FakeProvider"
"""Who serves every model: the name that OpenRouter's document keeps for this."""

ROUTED = {"sim/auto": "sim/echo", "openrouter/auto": "sim/echo"}
"""Which model a router picks."""


def find(model_id: str) -> Model | None:
    """The model that serves an id; a variant that is not listed itself (`:nitro`, a fault) is its base model's."""
    listed = model_id if model_id in MODELS else model_id.partition(":")[0]
    return MODELS.get(ROUTED.get(listed, listed))
