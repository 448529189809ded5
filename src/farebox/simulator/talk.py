"""What a simulated model answers, before it is put into a format: always the same, in pieces that stand for tokens."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import invalid
from farebox.core.reading import Number, as_whole
from farebox.simulator.arguments import fill
from farebox.simulator.faults import Faults
from farebox.simulator.models import Model

IMAGE_TOKENS = 1290
TOOL_CALL_TOKENS = 8
CALLS_MAX = 16
"""After so many results in one talk no tool is called in it any more: an agent that adds words of its own to each
result would go on for ever."""

BUDGET_MIN = 1024
CREATED = 1_767_225_600

# A red pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the prompt: its role, and its text in parts. Agents put parts of their own before what their user
    asked."""

    role: str
    parts: tuple[str, ...]
    images: int = 0

    @property
    def text(self) -> str:
        return " ".join(self.parts)

    @property
    def tokens(self) -> int:
        """None where nothing is said: some formats have no turn there."""
        text = self.text
        return 3 + tokens_of(text) + 258 * self.images if text or self.images else 0


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called: its name, and the JSON schema of its parameters."""

    name: str
    schema: object = None

    @property
    def takes_one(self) -> bool:
        """Whether it needs one argument and no more."""
        required = self.schema.get("required") if isinstance(self.schema, dict) else None
        return isinstance(required, list) and len(required) == 1


Functions = Sequence[tuple[str, object]]
"""The names and the parameters' schemas of functions that may be called."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What an order asks for, in whatever format it came. `cap` is the longest answer that it allows, in tokens."""

    models: tuple[str, ...]
    turns: tuple[Turn, ...]
    streamed: bool = False
    cap: int | None = None
    older_cap: int | None = None
    """The cap that is called `max_tokens` in chat completions."""
    tools: tuple[Tool, ...] = ()
    wants_picture: bool = False
    wants_usage: bool = False
    """Whether a stream is to tell its usage, where it does not by itself."""
    thinks: bool | None = None
    """Whether to think before the answer; None: as the model does."""
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    """How many tokens of the prompt are read from a cache, or written to one."""
    wants_seal: bool = False
    """Whether its thoughts are to be sealed, so that they can be sent back."""
    one_call: bool = False
    """Whether no two tools may be called at once."""
    form: object = None
    """The JSON schema that the answer is to be valid under."""
    echoed: Mapping[str, object] = field(default_factory=dict)
    """What its answer repeats of it, by the names of the answer's members."""

    @property
    def prompt_tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Said:
    """A model's answer. Each piece is a token; `image` is a PNG in base64; `tool_calls` are functions' names and their
    arguments as JSON."""

    model: Model
    prompt_tokens: int
    reasoning: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    image: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str = "stop"
    wants_usage: bool = False
    wants_seal: bool = False
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    vectors: tuple[list[float], ...] = field(default=())
    echoed: Mapping[str, object] = field(default_factory=dict)

    @property
    def answer_tokens(self) -> int:
        calls = TOOL_CALL_TOKENS * len(self.tool_calls)
        return len(self.reasoning) + len(self.pieces) + self.image_tokens + calls

    @property
    def image_tokens(self) -> int:
        return IMAGE_TOKENS if self.image else 0

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def cost(self, answer_tokens: int | None = None) -> Decimal:
        """What the answer costs in USD, whole or broken off after so many tokens."""
        tokens = self.answer_tokens if answer_tokens is None else min(answer_tokens, self.answer_tokens)
        pictures = min(self.image_tokens, tokens)
        answer = self.model.cost(self.prompt_tokens, tokens - pictures, pictures)
        if not (self.cached_tokens or self.cache_write_tokens):
            return answer
        return answer + self.model.cache_cost(self.cached_tokens, self.cache_write_tokens)


def tokens_of(text: str) -> int:
    return (len(text.encode()) + 3) // 4


def answer(talk: Talk, model: Model, faults: Faults) -> Said:
    """What the model answers."""
    said = _said(talk, model, faults)
    calls = said.tool_calls
    if faults.broken_arguments:
        calls = tuple((name, arguments[: max(1, len(arguments) // 2)]) for name, arguments in calls)
    cached = min(faults.cached_tokens or talk.cached_tokens, talk.prompt_tokens)
    written = min(faults.cache_write_tokens or talk.cache_write_tokens, talk.prompt_tokens - cached)
    told = replace(said, wants_usage=talk.wants_usage, wants_seal=talk.wants_seal, tool_calls=calls)
    return replace(told, cached_tokens=cached, cache_write_tokens=written, echoed=talk.echoed)


def _said(talk: Talk, model: Model, faults: Faults) -> Said:
    asked = next((turn.parts[-1] for turn in reversed(talk.turns) if turn.role == "user" and turn.parts), "")
    image = PNG if talk.wants_picture and "image" in model.outputs else None
    thinks = model.reasons if talk.thinks is None else talk.thinks
    reasoning = _words(f"The last message has {len(asked)} characters. I shall say it back.") if thinks else []
    if due := _due(talk, asked):
        called = itertools.islice(itertools.cycle(due), 1 if talk.one_call else max(1, faults.calls))
        calls = tuple((tool.name, _filled(tool.schema, asked)) for tool in called)
        told = Said(model, talk.prompt_tokens, tuple(reasoning), image=image, finish_reason="tool_calls")
        return replace(told, tool_calls=calls)
    if faults.tokens is not None:
        words = [f"word{i} " for i in range(faults.tokens)]
    else:
        words = _words(f"You said: {asked}" if talk.form is None else _filled(talk.form, asked))
    asked_cap = talk.older_cap if faults.older_cap else talk.cap
    caps = [cap for cap in (asked_cap, model.answer_tokens_max) if cap]
    room = min(caps) if caps else len(words)
    thought, said = reasoning[:room], words[: max(0, room - len(reasoning))]
    finish = "stop" if len(thought) + len(said) == len(reasoning) + len(words) else "length"
    return Said(model, talk.prompt_tokens, tuple(thought), tuple(said), image, finish_reason=finish)


def _filled(schema: object, asked: str) -> str:
    return msgspec.json.encode(fill(schema, asked)).decode()


def _due(talk: Talk, asked: str) -> list[Tool]:
    """The tools, the one that is called first; none where what was asked has its result already. It is the first whose
    name stands in what was asked, else the first that needs one argument, else the first. What needs more is likely to
    start another agent, which would ask here again, and so on."""
    said = [turn.role for turn in talk.turns if turn.role in ("user", "tool")]
    if not talk.tools or said[-1:] == ["tool"] or said.count("tool") >= CALLS_MAX:
        return []
    words = set(re.findall(r"[\w-]+", asked))
    return sorted(talk.tools, key=lambda tool: (tool.name not in words, not tool.takes_one))


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)


def cost_members(said: Said, faults: Faults, prompt: str, completions: str) -> dict[str, object]:
    """The members of a usage that hold the cost. Without BYOK the cost is repeated as the upstream's. `prompt` and
    `completions` are the format's names for the cost's two parts."""
    number = Raw(cost_number(said, faults))
    prompt_cost = said.cost(0)
    return {
        "cost": number,
        "is_byok": faults.byok is not None,
        "cost_details": {
            "upstream_inference_cost": Raw(faults.byok.encode()) if faults.byok else number,
            f"upstream_inference_{prompt}_cost": Raw(number_of(prompt_cost).encode()),
            f"upstream_inference_{completions}_cost": Raw(number_of(said.cost() - prompt_cost).encode()),
        },
    }


def cost_number(said: Said, faults: Faults) -> bytes:
    """The cost as it is told: a JSON number, or null."""
    return b"null" if faults.cost == "is-null" else (faults.cost or number_of(said.cost())).encode()


class Part(Struct):
    """A part of a message in OpenAI's formats."""

    type: str
    text: str = ""


class Reasoning(Struct):
    max_tokens: Number | None = None


class Request(Struct):
    """The members that orders have in both of OpenAI's formats; any other is accepted, as OpenRouter does."""

    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    modalities: list[str] | None = None
    tool_choice: Raw = Raw(b"null")
    parallel_tool_calls: Any = None
    reasoning: Reasoning | None = None


def talk_of(request: Request, turns: Iterable[Turn], functions: Functions, form: object, **caps: Number | None) -> Talk:
    """What an order in one of OpenAI's formats asks for. Raises Refusal 400."""
    cap = least_cap(**caps)
    if request.reasoning is not None and request.reasoning.max_tokens is not None:
        check_budget("reasoning.max_tokens", max(BUDGET_MIN, request.reasoning.max_tokens), cap)
    return Talk(
        (*([request.model] if request.model else []), *(request.models or [])),
        tuple(turns),
        streamed=request.stream is True,
        cap=cap,
        tools=callable_tools(functions, request.tool_choice),
        wants_picture="image" in (request.modalities or ()),
        one_call=request.parallel_tool_calls is False,
        form=form,
    )


def member(value: object, *path: str) -> Any:
    """What stands in an object at the end of a path; None where it is not there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_in(content: object) -> str:
    """The text of a tool's result, which is one or has parts."""
    if isinstance(content, list):
        return " ".join(str(member(part, "text") or "") for part in content)
    return str(content or "")


def turn_of(role: str, content: str | list[Part] | None, picture: str) -> Turn:
    """A message; `picture` is the type of its parts that are pictures."""
    if not isinstance(content, list):
        return Turn(role, (content or "",))
    texts = tuple(part.text for part in content if part.text)
    return Turn(role, texts, sum(part.type == picture for part in content))


def least_cap(**caps: Number | None) -> int | None:
    """The least of the caps that an order gives; None where it gives none. Raises Refusal: one has a fraction."""
    found: list[int] = []
    for name, number in caps.items():
        if number:
            cap = as_whole(number)
            if cap is None:
                raise invalid(f"{name}: Expected integer, received float")
            found.append(cap)
    return min(found, default=None)


def check_budget(name: str, budget: Number | None, cap: int | None) -> None:
    """Raises Refusal: the budget for thinking leaves no token for the answer."""
    if budget is not None and cap is not None and budget >= cap:
        raise invalid(f"`max_tokens` must be greater than `{name}`")


def number_of(amount: Decimal) -> str:
    """An amount as the JSON numbers that upstreams make from floats: `7.1e-05`, `3E-7`, `0.00015472`."""
    if amount == 0:
        return "0"
    plain = amount.normalize()
    if plain < Decimal("0.000001"):
        return f"{plain:E}"
    return repr(float(plain)) if Decimal(repr(float(plain))) == plain else f"{plain:f}"


class _Named(Struct, frozen=True):
    name: str = ""


class _Choice(Struct):
    type: str = ""
    name: str = ""
    function: _Named = _Named()


def callable_tools(functions: Functions, choice: Raw) -> tuple[Tool, ...]:
    """The tools that an order lets the model call: all of them, none, or the one that its `tool_choice` names."""
    wanted = msgspec.json.decode(choice, type=str | _Choice | None)
    kind = wanted if isinstance(wanted, str) else wanted.type if wanted else "auto"
    name = (wanted.name or wanted.function.name) if isinstance(wanted, _Choice) else ""
    return () if kind == "none" else tuple(Tool(*each) for each in functions if name in ("", each[0]))


def seal(thought: str) -> str:
    """What proves that a thought is the model's own."""
    return hashlib.sha256(f"simulated {thought}".encode()).hexdigest()


def numbered(generation_id: str, index: int) -> str:
    """What ends the id of one of an answer's calls."""
    return generation_id[-8:] + (f"{index}" if index else "")


def usage_member(usage: dict[str, object], faults: Faults) -> dict[str, object]:
    """The member `usage` of an answer: as it is, null, or left out."""
    if faults.usage == "missing":
        return {}
    return {"usage": None if faults.usage == "is-null" else usage}


def broken_off(stream: list[dict[str, Any]], faults: Faults, error: dict[str, Any]) -> list[dict[str, Any]]:
    """A stream, ended where that was asked for by an `error` in the format's own shape, or by a bare one."""
    if faults.error_at_event is not None:
        return [*stream[: faults.error_at_event], error]
    if faults.bare_error_at_event is not None:
        bare = {"code": 402, "message": "Simulated: out of credits", "metadata": {}}
        return [*stream[: faults.bare_error_at_event], {"error": bare, "user_id": "user_sim"}]
    return stream


def data(body: object) -> bytes:
    """A server-sent event without a name; the sender adds the empty line that ends it."""
    return b"data: " + msgspec.json.encode(body)


DONE = b"data: [DONE]"


def written(
    stream: list[dict[str, Any]], faults: Faults, write: Callable[[dict[str, Any]], bytes] = data, done: bytes = DONE
) -> list[bytes]:
    """The server-sent events of a stream, without the empty lines at their ends; `[DONE]` is the last, but after an
    error."""
    is_error = "error" in stream[-1] or stream[-1].get("type") == "error"
    return [*map(write, stream), *([] if faults.no_done or is_error else [done])]
