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
from openrouter import OpenRouter

from farebox.core.formats import Format, chat, messages, responses
from farebox.core.money import events_ceil
from farebox.core.pricing import ANSWER_TOKENS_MAX
from farebox.simulator import anthropic as claude
from farebox.simulator import openai as gpt
from tests import hosts
from tests.asking import PNG, Answered, Asking, Got, Result, Said, Talk, Tool, asking, simulating
from tests.gateway import Gateway, Response, eventually
from tests.programs import simulator
from tests.upstreams import HttpUpstream

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
capped_by = "max_completion_tokens"

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
capped_by = "max_completion_tokens"

[upstreams.azure]
kind = "openai"
base_url = "{root}/openai/v1"
formats = ["responses"]
prices = "file"
key_variable = "HOST_KEY"
names = {{ "azure/*" = "*" }}

[upstreams.ollama]
kind = "openai"
base_url = "{root}/openai/v1"
formats = ["chat"]
prices = "file"
key_variable = "HOST_KEY"
names = {{ "ollama/*" = "*" }}
capped_by = "max_tokens"

[upstreams.undeclared]
kind = "openai"
base_url = "{root}/openai/v1"
formats = ["chat"]
prices = "file"
key_variable = "HOST_KEY"
names = {{ "undeclared/*" = "*" }}
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
    gpts = ("openai", "vllm", "azure", "ollama", "undeclared")
    models = {**dict.fromkeys(gpts, gpt.MODELS), "anthropic": claude.MODELS}
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
        self.others_key = ""
        """That of an account whose orders do not all end well."""
        self.fares: dict[tuple[str, str, int], tuple[Decimal, int]] = {}
        """What an order costs, by its upstream and what it is; whichever format it came in first."""

    def others(self) -> list[dict[str, Any]]:
        """The orders of the other account, all of them ended, or open for good."""
        eventually(lambda: "held" not in [each["what"] for each in self.gateway.orders("others")])
        return self.gateway.orders("others")

    def model(self, upstream: str, feature: str) -> str:
        models = MODELS[upstream]
        name = models.get(feature, models[""])
        return name if upstream == "openrouter" else f"{upstream}/{name}"

    def books(self) -> dict[str, dict[str, Any]]:
        """What the upstreams charged, by generation; embeddings by their request, since they have no id at OpenAI."""
        with urllib.request.urlopen(f"{self.root}/books/usage", timeout=10) as answer:
            return {name.replace("embd_", "req_"): charged for name, charged in json.load(answer).items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with simulator() as port:
        world = World(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("cells"))
        with world.gateway as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            world.others_key = gateway.new_key("others", "--plan", "paying", "--prepaid", "5")
            yield world
            held_to_the_books(world)


def held_to_the_books(world: World) -> None:
    """Every order costs what the upstream says, to the last digit, and becomes as many events; no upstream has charged
    for what is not in ours."""
    eventually(lambda: {line["what"] for line in world.gateway.orders()} <= {"fare", "not served"})
    books, orders = world.books(), [*world.gateway.orders(), *world.others()]
    assert {line["generation_id"] for line in orders if line["generation_id"]} == set(books)
    for line in [each for each in orders if each["what"] == "fare"]:
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
    """An order without an SDK, by the other account."""
    body: dict[str, Any] = {"model": world.model(upstream, "text"), "messages": HELLO, **more}
    if wire == "responses":
        body["input"] = body.pop("messages")
    if wire == "messages":
        body.setdefault("max_tokens", 999)
    headers = {"authorization": f"Bearer {world.others_key}", "content-type": "application/json"}
    return world.gateway.request("POST", f"/api/v1{PATHS[wire]}", body, {**headers, **simulating(simulate)})


REFUSALS = {
    400: ("invalid_request_error", "Simulated refusal"),
    401: ("api_error", "nothing is wrong with your key"),
    402: ("api_error", "nothing is wrong with your key"),
    429: ("rate_limit_error", "Rate limit exceeded"),
    500: ("api_error", "Internal Server Error"),
    529: ("overloaded_error", "Overloaded"),
}
"""What the simulator is asked to refuse with, by status: the type that messages have for it, and its words. What it
refuses for the operator's own account is 502."""


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
            failure: Any = refused.value
            passed_on = 502 if status in (401, 402) else status
            assert failure.status_code == passed_on
            told = failure.body
            if wire == "messages":
                assert told["error"]["type"] == kind
            elif GOES_AS[wire, upstream] != "it is":
                assert told["code"] == passed_on
    assert world.books() == before


@pytest.mark.parametrize("fault", ["error-at-event=4", "cut-at-event=4"])
@pytest.mark.parametrize(("wire", "upstream"), TABLE)
def test_a_stream_that_goes_wrong_says_so_in_the_callers_format(
    world: World, wire: str, upstream: str, fault: str
) -> None:
    with (
        asking(world.gateway.base, world.others_key) as formats,
        pytest.raises(
            (openai.APIError, anthropic.APIStatusError), match=r"broke off|failure|had an error|Overloaded"
        ) as refused,
    ):
        formats[wire].streamed(world.model(upstream, "text"), Talk((Said(ASKED),)), fault)
    failure: Any = refused.value
    told = failure.body
    if wire == "messages":
        assert told["type"] == "error"
    assert "invalid_request'" not in str(told).replace("invalid_request_error", ""), "the order was well"
    assert world.others()[-1]["what"].startswith("held" if upstream != "openrouter" else ("held", "fare"))


def test_what_keeps_a_stream_alive_is_the_callers_own_kind(world: World) -> None:
    slow = "first-token-ms=350"
    for wire in ("chat", "responses"):
        body = raw(world, wire, "anthropic", slow, stream=True).body
        assert b"\n\n:" in b"\n\n" + body, body
        assert b"ping" not in body
    body = raw(world, "messages", "anthropic", slow, stream=True).body
    assert body.count(b"event: ping") > 2
    assert b"\n:" not in b"\n" + body


def test_what_is_left_out_is_named(world: World) -> None:
    more: Any = {"seed": 1, "presence_penalty": 0.5, "frequency_penalty": 0, "provider": {"order": ["anthropic"]}}
    answer = raw(world, "chat", "anthropic", **more)
    assert answer.status == 200, answer.body
    assert sorted(answer.headers["x-farebox-left-out"].split(", ")) == ["presence_penalty", "seed"]
    answer = raw(world, "messages", "openai", stream=True, top_k=4, thinking={"type": "disabled"})
    assert answer.headers["x-farebox-left-out"] == "top_k"


CANNOT: list[tuple[str, str, dict[str, Any], str]] = [
    ("chat", "anthropic", {"n": 2}, "n"),
    ("chat", "anthropic", {"logprobs": True}, "logprobs"),
    ("chat", "anthropic", {"modalities": ["text", "image"]}, "modalities"),
    ("chat", "azure", {"stop": ["."]}, "stop"),
    ("messages", "openai", {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]}, "mcp_servers"),
    ("messages", "azure", {"stop_sequences": ["."]}, "stop_sequences"),
    ("responses", "anthropic", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    ("responses", "vllm", {"tools": [{"type": "web_search"}]}, "tools"),
]


@pytest.mark.parametrize(("wire", "upstream", "more", "member"), CANNOT)
def test_what_cannot_be_said_there_is_refused_by_its_name_and_costs_nothing(
    world: World, wire: str, upstream: str, more: dict[str, Any], member: str
) -> None:
    before = world.books()
    refused = raw(world, wire, upstream, **more)
    assert refused.status == 400, refused.body
    assert member in refused.json["error"]["message"]
    assert world.books() == before
    assert world.others()[-1]["what"] == "not served"


CAPS = {"chat": "max_completion_tokens", "messages": "max_tokens", "responses": "max_output_tokens"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("wire", "upstream"),
    [*((wire, "ollama") for wire in FORMATS), ("messages", "undeclared"), ("responses", "undeclared")],
)
def test_the_cap_holds_at_a_host_that_reads_only_the_older_one(
    world: World, wire: str, upstream: str, streamed: bool
) -> None:
    """Its fare is within what was set aside, through every format."""
    more = {"model": f"{upstream}/gpt-sim", CAPS[wire]: 9, "stream": streamed}
    answer = raw(world, wire, "vllm", "older-cap,tokens=60", **more)
    assert answer.status == 200, answer.body
    line = world.others()[-1]
    assert (line["what"], line["answer_tokens"]) == ("fare", 9)


def test_openrouters_own_sdk_reads_what_was_translated(world: World) -> None:
    with OpenRouter(server_url=world.gateway.base, api_key=world.others_key) as router:
        for upstream in MODELS:
            model = world.model(upstream, "text")
            answer = router.chat.send(model=model, messages=HELLO)
            assert answer.choices[0].message.content == f"You said: {ASKED}"
            with router.chat.send(model=model, messages=HELLO, stream=True) as stream:
                said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            assert said == f"You said: {ASKED}"


def test_embeddings_go_where_they_are_served(world: World) -> None:
    with openai.OpenAI(base_url=world.gateway.base, api_key=world.others_key, max_retries=0) as client:
        for model in ("openai/text-embedding-sim", "sim/embedder"):
            answer = client.embeddings.with_raw_response.create(model=model, input=[ASKED, "And this"])
            told = world.books()[answer.headers["x-generation-id"]]
            assert answer.parse().usage.prompt_tokens == told["prompt_tokens"]
            assert answer.headers["x-farebox-fare-events"] == str(events_ceil(Decimal(told["cost"])))
        with pytest.raises(openai.NotFoundError, match="serves no embeddings"):
            client.embeddings.create(model="anthropic/claude-sim", input="x")


# The same bytes

SAME = """
[upstreams.router]
kind = "openrouter"
base_url = "{url}"
key_variable = "HOST_KEY"
models = ["a/*"]

[upstreams.local]
kind = "openai"
base_url = "{url}"
key_variable = "HOST_KEY"
prices = "free"
names = {{ "local/*" = "*" }}

[upstreams.claude]
kind = "anthropic"
base_url = "{url}"
key_variable = "HOST_KEY"
prices = "free"
names = {{ "claude/*" = "*" }}
"""
NATIVE = [("a/b", wire) for wire in FORMATS] + [
    ("local/a/b", "chat"),
    ("local/a/b", "responses"),
    ("claude/a/b", "messages"),
]
WIRES: dict[str, Format] = {"chat": chat, "messages": messages, "responses": responses}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, HttpUpstream]]:
    """A gateway before a host that answers to the letter what it is told to, by three kinds."""
    folder = tmp_path_factory.mktemp("recorded")
    with HttpUpstream(generation_id=None).serving() as upstream:
        (folder / "farebox.toml").write_text(SAME.format(url=upstream.url))
        with Gateway(folder, HOST_KEY="k") as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            yield gateway, upstream
            gateway.audit()


REQUIRED: dict[str, Any] = {
    "completed_at": None,
    "previous_response_id": None,
    "truncation": "disabled",
    "text": {"format": {"type": "text"}},
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "reasoning": None,
    "max_output_tokens": 50,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "object": "response",
}


def demanded(body: bytes) -> bytes:
    """What strict SDKs demand, and Open Responses requires, beyond what hosts say: it would be added to it."""
    body = body.replace(b'"object": "response"', json.dumps(REQUIRED).encode()[1:-1])
    body = body.replace(b'}], "usage": null', b"}]")
    called = b'"type": "response.function_call_arguments.done"'
    return body.replace(called, called + b', "name": "f"')


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("model", "wire"), NATIVE)
def test_what_a_host_says_in_the_callers_format_comes_byte_for_byte(
    recorded: tuple[Gateway, HttpUpstream], model: str, wire: str, streamed: bool
) -> None:
    gateway, upstream = recorded
    said: hosts.Said = [hosts.Thought("Let me see."), hosts.Words("Hé \u2028"), hosts.Called("c1", "f", {"a": [1.50]})]
    native = WIRES[wire]
    pieces = list(hosts.stream(native, said)) if streamed else [hosts.whole(native, said)]
    upstream.answer = [demanded(piece) for piece in pieces]
    upstream.content_type = "text/event-stream" if streamed else "application/json"
    body: dict[str, Any] = {"model": model, "stream": streamed, "max_tokens": 50}
    body |= (
        {"input": ASKED, "max_output_tokens": body.pop("max_tokens"), "store": False}
        if wire == "responses"
        else {"messages": HELLO}
    )
    if streamed and wire == "chat":
        body["stream_options"] = {"include_usage": True}
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    answer = gateway.request("POST", f"/api/v1{PATHS[wire]}", body, headers)
    assert answer.body == b"".join(upstream.answer)
    assert answer.headers["x-generation-id"] == {"chat": "chatcmpl-1", "messages": "msg_1", "responses": "resp_1"}[wire]
    assert json.loads(upstream.orders[-1]) == {**body, "model": "a/b"}
    if streamed and wire == "chat" and model.startswith("local"):
        del body["stream_options"]
        answer = gateway.request("POST", f"/api/v1{PATHS[wire]}", body, headers)
        # Farebox asked for the usage: the chunk that tells it is not the caller's.
        assert answer.body == b"".join(upstream.answer[:-2]) + upstream.answer[-1]


def test_a_cap_that_messages_demand_is_no_more_than_the_hold_covers(recorded: tuple[Gateway, HttpUpstream]) -> None:
    gateway, upstream = recorded
    upstream.answer, upstream.content_type = [hosts.messages_whole([hosts.Words("Hi")])], "application/json"
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    body = {"model": "claude/a/b", "messages": HELLO, "reasoning": {"max_tokens": 1_000_000}}
    assert gateway.request("POST", "/api/v1/chat/completions", body, headers).status == 200
    sent = json.loads(upstream.orders[-1])
    assert (sent["max_tokens"], sent["thinking"]["budget_tokens"]) == (ANSWER_TOKENS_MAX, 1_000_000)


def test_a_thought_that_another_upstream_sealed_is_left_out_and_named(recorded: tuple[Gateway, HttpUpstream]) -> None:
    gateway, upstream = recorded
    upstream.answer, upstream.content_type = [hosts.messages_whole([hosts.Words("Hi")])], "application/json"
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    thought = {"type": "thinking", "thinking": "So.", "signature": "openai-responses-v1|rs_1|c2VhbA=="}
    said: dict[str, Any] = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes"}]}
    body: dict[str, Any] = {"model": "claude/a/b", "max_tokens": 50, "messages": [*HELLO, said, *HELLO]}
    answer = gateway.request("POST", "/api/v1/messages", body, headers)
    assert answer.headers["x-farebox-left-out"] == "messages[assistant].reasoning"
    del said["content"][0]
    assert json.loads(upstream.orders[-1]) == {**body, "model": "a/b"}
