"""Every format at every kind of upstream, whole and streamed, by the callers' own strict SDKs: texts, tools, pictures,
thinking, answers under a schema. What each costs is what the upstream's books say, through every format.

The table of docs/upstreams.md says what becomes of each; it is read here, and held.
"""

import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from farebox.core.money import events_ceil
from farebox.simulator import anthropic as claude
from farebox.simulator import openai as gpt
from tests.asking import PNG, Answered, Asking, Got, Result, Said, Talk, Tool, asking, simulating
from tests.gateway import Gateway, Response, eventually
from tests.programs import simulator

SETTINGS = """
[upstreams.openrouter]
kind = "openrouter"
base_url = "{root}/api/v1"
models = ["sim/*"]
key_variable = "HOST_KEY"

[upstreams.openai]
kind = "openai"
base_url = "{root}/openai/v1"
prices = "file"
key_variable = "HOST_KEY"
names = {{ "openai/*" = "*" }}

[upstreams.anthropic]
kind = "anthropic"
base_url = "{root}/anthropic"
prices = "file"
key_variable = "HOST_KEY"
names = {{ "anthropic/*" = "*" }}

[upstreams.vllm]
kind = "openai"
base_url = "{root}/openai/v1"
formats = ["chat"]
prices = "file"
key_variable = "HOST_KEY"
names = {{ "vllm/*" = "*" }}

[upstreams.azure]
kind = "openai"
base_url = "{root}/openai/v1"
formats = ["responses"]
prices = "file"
key_variable = "HOST_KEY"
names = {{ "azure/*" = "*" }}
"""
PRICE = """
[[prices]]
upstream = "{upstream}"
model = "{model}"
prompt = "{prompt}"
answer = "{answer}"
"""

NAMES = {
    "openrouter": "openrouter",
    "openai": "openai",
    "anthropic": "anthropic",
    "vllm": 'openai, `formats = ["chat"]`',
    "azure": 'openai, `formats = ["responses"]`',
}
"""What the upstreams are called in the table."""

_GPTS = {"": "gpt-sim", "pictures": "gpt-sim-vision", "thinking": "o-sim"}
_CLAUDES = {"": "claude-sim", "pictures": "claude-sim-vision"}
_SIMS = {"": "sim/echo", "pictures": "sim/seer", "thinking": "sim/reasoner"}
MODELS: Mapping[str, Mapping[str, str]] = {
    "openrouter": _SIMS,
    "openai": _GPTS,
    "anthropic": _CLAUDES,
    "vllm": _GPTS,
    "azure": _GPTS,
}

FORMATS = ("chat", "messages", "responses")
FEATURES = ("text", "tools", "pictures", "thinking", "structured")


def price_file() -> str:
    models = {"openai": gpt.MODELS, "vllm": gpt.MODELS, "azure": gpt.MODELS, "anthropic": claude.MODELS}
    return "".join(
        PRICE.format(upstream=upstream, model=model.id, prompt=model.prompt, answer=model.completion)
        for upstream, sold in models.items()
        for model in sold.values()
    )


class World:
    """A gateway before upstreams of all kinds, and their books."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root = root
        (folder / "farebox.toml").write_text(SETTINGS.format(root=root))
        (folder / "prices.toml").write_text(price_file())
        self.gateway = Gateway(folder, FAREBOX_PRICES_FILE="prices.toml", HOST_KEY="sk-host")
        self.fares: dict[tuple[str, str, int], tuple[Decimal, int]] = {}
        """What an order costs, by its upstream and what it is; whichever format it came in first."""

    def model(self, upstream: str, feature: str) -> str:
        models = MODELS[upstream]
        name = models.get(feature, models[""])
        return name if upstream == "openrouter" else f"{upstream}/{name}"

    def books(self) -> dict[str, dict[str, Any]]:
        with urllib.request.urlopen(f"{self.root}/books/usage", timeout=10) as answer:
            found: dict[str, dict[str, Any]] = json.load(answer)
            return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with simulator() as port:
        world = World(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("cells"))
        with world.gateway as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            yield world
            held_to_the_books(world)


def held_to_the_books(world: World) -> None:
    """Every order costs what the upstream says, to the last digit, and becomes as many events; no upstream has charged
    for what is not in ours."""
    eventually(lambda: not [line for line in world.gateway.orders() if line["what"].startswith("held")])
    books, orders = world.books(), [line for line in world.gateway.orders() if line["what"] == "fare"]
    assert {line["generation_id"] for line in orders} == set(books)
    for line in orders:
        cost = Decimal(books[line["generation_id"]]["cost"])
        assert (Decimal(line["cost_usd"]), line["events"]) == (cost, events_ceil(cost)), line
    world.gateway.audit()


@pytest.fixture(scope="module")
def formats(world: World) -> Iterator[Mapping[str, Asking]]:
    with ExitStack() as stack:
        yield stack.enter_context(asking(world.gateway.base, world.gateway.key))


# The table


def table() -> dict[tuple[str, str], dict[str, str]]:
    """What docs/upstreams.md says of each format at each kind: by what it is in the table's head."""
    text = Path("docs/upstreams.md").read_text().partition("\n## Every format at every kind\n")[2]
    rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    head, _, *rest = rows
    of_names = {name: upstream for upstream, name in NAMES.items()}
    return {(row[0], of_names[row[1]]): dict(zip(head[2:], row[2:], strict=True)) for row in rest}


TABLE = table()


def test_the_table_has_every_cell() -> None:
    assert sorted(TABLE) == sorted((wire, upstream) for wire in FORMATS for upstream in MODELS)
    assert {tuple(cells) for cells in TABLE.values()} == {("goes as", *FEATURES)}


# The cells

ASKED = "Name me a number please"
LOOK_UP = Tool("look_up", "Looks something up.")
WEIGH = Tool("weigh", "Weighs something.")


class Cell:
    """One feature in one format at one upstream: its orders are placed by `ask`, which looks at what each costs."""

    def __init__(self, world: World, wire: Asking, name: str, upstream: str, feature: str, *, streamed: bool) -> None:
        self._world, self._wire, self._streamed = world, wire, streamed
        self._upstream, self._feature = upstream, feature
        self._orders = 0
        self.said = TABLE[name, upstream][feature]
        """What the table says of it."""

    def ask(self, *turns: Said | list[Result] | Got, simulate: str = "", **more: Any) -> Got:
        model = self._world.model(self._upstream, self._feature)
        ask = self._wire.streamed if self._streamed else self._wire.whole
        got = ask(model, Talk(turns, **more), simulate)
        self._check(got)
        return got

    def _check(self, got: Got) -> None:
        """The order costs the same through every format, and what its upstream says; whole answers tell it at once."""
        world = self._world
        if got.headers:
            assert got.headers["x-generation-id"] == got.id
            assert "x-farebox-left-out" not in got.headers, got.headers["x-farebox-left-out"]
        told = world.books()[got.id]
        assert got.tokens == (told["prompt_tokens"], told["answer_tokens"])
        fare = (Decimal(told["cost"]), events_ceil(Decimal(told["cost"])))
        assert fare[1] > 0
        if got.headers and not self._streamed:
            assert got.headers["x-farebox-fare-events"] == str(fare[1])
            assert Decimal(got.headers["x-farebox-fare-usd"]) == Decimal(fare[1]) / 100_000
        self._orders += 1
        assert world.fares.setdefault((self._upstream, self._feature, self._orders), fare) == fare


def text(cell: Cell) -> None:
    got = cell.ask(Said(ASKED))
    assert got.text == f"You said: {ASKED}"
    assert got.finish in ("stop", "end_turn", "completed")
    more = cell.ask(Said(ASKED), got, Said("And another"))
    assert more.text == "You said: And another"


def tools(cell: Cell) -> None:
    asked = Said(ASKED)
    (call,) = (got := cell.ask(asked, tools=(LOOK_UP, WEIGH))).calls
    assert (call.name, call.arguments) == ("look_up", {"what": ASKED})
    assert got.finish in ("tool_calls", "tool_use", "completed")
    answered = cell.ask(asked, got, [Result(call, "It is 7.")], tools=(LOOK_UP, WEIGH))
    assert (answered.text, answered.calls) == (f"You said: {ASKED}", [])
    both = cell.ask(asked, tools=(LOOK_UP, WEIGH), simulate="calls=2")
    assert [each.name for each in both.calls] == ["look_up", "weigh"]
    assert len({each.id for each in both.calls}) == 2
    results = [Result(each, f"{each.name} says 7.") for each in both.calls]
    answered = cell.ask(asked, both, results, tools=(LOOK_UP, WEIGH))
    assert answered.text == f"You said: {ASKED}"


def pictures(cell: Cell) -> None:
    got = cell.ask(Said(ASKED, PNG))
    assert got.text == f"You said: {ASKED}"
    assert got.tokens[0] > 258, "the picture did not come"


def thinking(cell: Cell) -> None:
    """The thoughts are sent back with the next turn, under their seals; also between a tool's call and its result."""
    got = cell.ask(Said(ASKED), thinks=True)
    assert got.text == f"You said: {ASKED}"
    is_told = cell.said != "counted"
    assert ("The last message has" in got.thoughts) is is_told
    assert cell.ask(Said(ASKED), got, Said("Sure?"), thinks=True).text == "You said: Sure?"
    called = cell.ask(Said(ASKED), thinks=True, tools=(LOOK_UP,))
    assert ("The last message has" in called.thoughts) is is_told
    result = [Result(called.calls[0], "It is 7.")]
    assert cell.ask(Said(ASKED), called, result, thinks=True, tools=(LOOK_UP,)).text == f"You said: {ASKED}"


def structured(cell: Cell) -> None:
    assert cell.ask(Said(ASKED), form=Answered).parsed == Answered(word=ASKED, number=1)


DO: Mapping[str, Callable[[Cell], None]] = {
    each.__name__: each for each in (text, tools, pictures, thinking, structured)
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("upstream", MODELS)
@pytest.mark.parametrize("feature", FEATURES)
def test_cell(
    world: World, formats: Mapping[str, Asking], feature: str, upstream: str, wire: str, streamed: bool
) -> None:
    DO[feature](Cell(world, formats[wire], wire, upstream, feature, streamed=streamed))


# What goes wrong, and what is beside the answer

GOES_AS = {cell: cells["goes as"] for cell, cells in TABLE.items()}
TRANSLATED = [cell for cell, native in GOES_AS.items() if native != "it is"]
PATHS = {"chat": "/chat/completions", "messages": "/messages", "responses": "/responses"}
HELLO: Any = [{"role": "user", "content": ASKED}]


def raw(world: World, wire: str, upstream: str, simulate: str = "", **more: Any) -> Response:
    """An order without an SDK."""
    body: dict[str, Any] = {"model": world.model(upstream, "text"), "messages": HELLO, **more}
    if wire == "responses":
        body["input"] = body.pop("messages")
    if wire == "messages":
        body.setdefault("max_tokens", 999)
    headers = {"authorization": f"Bearer {world.gateway.key}", "content-type": "application/json"}
    return world.gateway.request("POST", f"/api/v1{PATHS[wire]}", body, {**headers, **simulating(simulate)})


REFUSALS = {
    400: ("invalid_request_error", "Simulated refusal"),
    401: ("authentication_error", "Simulated refusal"),
    402: ("billing_error", "Insufficient credits"),
    429: ("rate_limit_error", "Rate limit exceeded"),
    500: ("api_error", "Internal Server Error"),
    529: ("overloaded_error", "Overloaded"),
}
"""What the simulator is asked to refuse with, by status: the type that messages have for it, and its words."""


@pytest.mark.parametrize("upstream", ["openrouter", "openai", "anthropic"])
@pytest.mark.parametrize("wire", FORMATS)
def test_an_upstreams_refusal_is_one_in_the_callers_format(
    world: World, formats: Mapping[str, Asking], wire: str, upstream: str
) -> None:
    before = world.books()
    for status, (kind, words) in REFUSALS.items():
        for ask in (formats[wire].whole, formats[wire].streamed):
            with pytest.raises((openai.APIStatusError, anthropic.APIStatusError), match=words) as refused:
                ask(world.model(upstream, "text"), Talk((Said(ASKED),)), f"status={status}")
            assert refused.value.status_code == status
            told: Any = refused.value.body
            if wire == "messages":
                assert told["error"]["type"] == kind
            elif GOES_AS[wire, upstream] != "it is":
                assert told["code"] == status
    assert world.books() == before


@pytest.mark.parametrize(("wire", "upstream"), TABLE)
@pytest.mark.parametrize("fault", ["error-at-event=4", "cut-at-event=4", "no-done,usage=missing"])
def test_a_stream_that_goes_wrong_says_so_in_the_callers_format(
    world: World, formats: Mapping[str, Asking], wire: str, upstream: str, fault: str
) -> None:
    if fault.startswith("no-done"):
        raw_answer = raw(world, wire, upstream, fault, stream=True)
        print(raw_answer.body[-600:])
        return
    with pytest.raises((openai.OpenAIError, anthropic.AnthropicError, RuntimeError, AssertionError)) as refused:
        print(formats[wire].streamed(world.model(upstream, "text"), Talk((Said(ASKED),)), fault))
    print(repr(refused.value))
