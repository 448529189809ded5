"""What is told beside orders: lists of models that make pictures and videos, what an upstream keeps of a prompt, how
many tokens a prompt has; and why the rest of OpenRouter's API is not here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import pytest
from openrouter import OpenRouter, errors

from farebox.simulator.server import embedded
from tests.gateway import Gateway, Response
from tests.upstreams import HttpUpstream

HELLO: Any = [{"role": "user", "content": "Hello there"}]

DECLARED = """
[upstreams.claude]
kind = "anthropic"
base_url = "{root}/anthropic"
key_variable = "LOCAL_KEY"
prices = "free"
names = {{ "my/claude" = "claude-sim" }}
models = ["my/claude"]
order = 0

[upstreams.router]
kind = "openrouter"
base_url = "{root}/api/v1"
key_variable = "LOCAL_KEY"
names = {{ "own/poster" = "sim/poster" }}
order = 1

[guards.codenames]
kind = "patterns"
settings.patterns = {{ "a code name" = "project falcon" }}
"""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("catalogue")
    with embedded() as url:
        (folder / "farebox.toml").write_text(DECLARED.format(root=url.removesuffix("/api/v1")))
        with Gateway(folder, LOCAL_KEY="sk-local") as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            yield gateway
            gateway.audit()


@pytest.fixture
def fake() -> Iterator[HttpUpstream]:
    with HttpUpstream().serving() as upstream:
        yield upstream


def before(upstream: HttpUpstream, folder: Path) -> Gateway:
    return Gateway(folder, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x")


@pytest.fixture
def router(shared_gateway: Gateway) -> Iterator[OpenRouter]:
    with OpenRouter(server_url=shared_gateway.base, api_key=shared_gateway.key) as client:
        yield client


@pytest.fixture(scope="module")
def claude_of(several: Gateway) -> Iterator[Callable[[str], anthropic.Anthropic]]:
    """A client for a key; all are closed at the end."""
    with ExitStack() as stack:
        root = several.base.removesuffix("/v1")
        yield lambda key: stack.enter_context(anthropic.Anthropic(base_url=root, api_key=key, max_retries=0))


@pytest.fixture
def claude(several: Gateway, claude_of: Callable[[str], anthropic.Anthropic]) -> anthropic.Anthropic:
    return claude_of(several.key)


def get(gateway: Gateway, path: str, key: str = "") -> Response:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    return gateway.request("GET", f"/api/v1{path}", headers=headers)


# Pictures and videos


def test_models_that_make_pictures_are_listed_and_where_they_are_served(router: OpenRouter) -> None:
    listed = router.images.list_models().data
    assert {"sim/illustrator", "sim/poster"} <= {each.id for each in listed}
    for each in listed:
        assert each.endpoints == f"/api/v1/images/models/{each.id}/endpoints"
        author, slug = each.id.split("/")
        served = router.images.list_model_endpoints(author=author, slug=slug)
        assert served.id == each.id
        assert served.endpoints[0].provider_name == "FakeProvider"
    assert router.video_generation.list_videos_models().data is not None
    with pytest.raises(errors.NotFoundResponseError, match="makes no pictures here"):
        router.images.list_model_endpoints(author="sim", slug="echo")
    with pytest.raises(errors.NotFoundResponseError, match="is not in the list"):
        router.images.list_model_endpoints(author="no", slug="body")


def test_they_have_our_names_where_they_have_others_upstream(several: Gateway) -> None:
    ids = [each["id"] for each in get(several, "/images/models").json["data"]]
    assert "own/poster" in ids
    assert "sim/poster" not in ids
    assert get(several, "/images/models/own/poster/endpoints").json["id"] == "own/poster"


def test_only_what_can_be_ordered_is_listed(tmp_path: Path, fake: HttpUpstream) -> None:
    (tmp_path / "farebox.toml").write_text('[plans.narrow]\nmodels = ["a/b"]\n')
    with before(fake, tmp_path) as gateway:
        narrow = gateway.new_key("narrow", "--plan", "narrow")
        for path in ("/images/models", "/videos/models"):
            fake.pages[path] = {"data": [{"id": "a/b", "1": 1.50}, {"id": "a/e"}, {"id": "no/price"}, 7]}
            assert [each["id"] for each in gateway.request("GET", f"/v1{path}").json["data"]] == ["a/b", "a/e"]
            assert [each["id"] for each in get(gateway, path, narrow).json["data"]] == ["a/b"]
        fake.pages["/images/models/a/e/endpoints"] = {"id": "a/e", "endpoints": []}
        assert get(gateway, "/images/models/a/e/endpoints", narrow).status == 404
        assert gateway.request("GET", "/v1/images/models/a/e/endpoints").json == {"id": "a/e", "endpoints": []}


def test_an_upstream_without_such_models_has_none(tmp_path: Path, fake: HttpUpstream) -> None:
    with before(fake, tmp_path) as gateway:
        for path in ("/images/models", "/videos/models"):
            assert gateway.request("GET", f"/api/v1{path}").json == {"data": []}


# What is kept of a prompt


def ordered(gateway: Gateway, model: str = "sim/echo", key: str = "") -> str:
    answer = gateway.chat(key or gateway.key, model=model, messages=HELLO)
    return answer.headers["x-generation-id"]


def test_a_prompt_is_read_by_its_own_account_alone(shared_gateway: Gateway, router: OpenRouter, key: str) -> None:
    generation_id = ordered(shared_gateway)
    told = router.generations.list_generation_content(id=generation_id).data
    assert told.output.completion == "You said: Hello there"
    for path in ("/generation/content", "/generation"):
        assert get(shared_gateway, f"{path}?id={generation_id}", key).status == 404
    assert get(shared_gateway, "/generation/content").status == 400
    unkept = ordered(shared_gateway, "sim/echo:no-content")
    assert "nothing of its prompt" in get(shared_gateway, f"/generation/content?id={unkept}").error["message"]


def test_no_words_about_the_operators_account_are_in_it(tmp_path: Path, fake: HttpUpstream) -> None:
    attempt = {"code": 429, "message": "no", "provider_name": "Google", "raw": "key sk-operator is out of money"}
    error = {
        "status": 504,
        "message": "late",
        "provider_name": "Vertex",
        "raw": "sk-operator",
        "previous_errors": [attempt],
    }
    content = {"input": {"messages": HELLO}, "output": {"completion": None, "reasoning": None}, "error": error}
    fake.content_type = "application/json"
    fake.answer = [b'{"id":"gen-1","model":"a/b","choices":[],"usage":{"cost":0.001}}']
    with before(fake, tmp_path) as gateway:
        key = gateway.new_key("reader", "--plan", "paying", "--prepaid", "5")
        assert gateway.chat(key, model="a/b", messages=HELLO).status == 200
        assert get(gateway, "/generation/content?id=gen-1", key).status == 404
        fake.pages["/generation/content"] = {"data": content}
        told = get(gateway, "/generation/content?id=gen-1", key).json["data"]
        assert told["error"] == {**error, "raw": None, "previous_errors": [{**attempt, "raw": None}]}
        assert (told["input"], told["output"]) == (content["input"], content["output"])
        fake.pages["/generation/content"] = {"data": None}
        assert get(gateway, "/generation/content?id=gen-1", key).status == 404
        fake.is_down = True
        assert get(gateway, "/generation/content?id=gen-1", key).status == 502


# How many tokens a prompt has


def test_tokens_are_counted_by_an_upstream_that_counts(several: Gateway, claude: anthropic.Anthropic) -> None:
    placed = several.orders()
    raw = claude.messages.with_raw_response.count_tokens(model="my/claude", messages=HELLO, system="Be brief.")
    assert raw.headers["x-farebox-tokens"] == "counted"
    whole = claude.messages.create(model="my/claude", messages=HELLO, system="Be brief.", max_tokens=9)
    assert raw.parse().input_tokens == whole.usage.input_tokens
    body = {"model": "my/claude", "messages": HELLO, "max_tokens": 9, "stream": True, "provider": None}
    answer = several.request(
        "POST", "/v1/messages/count_tokens", body, {"x-api-key": several.key, "content-type": "application/json"}
    )
    assert (answer.status, answer.headers["x-farebox-tokens"]) == (200, "counted")
    assert claude.beta.messages.count_tokens(model="my/claude", messages=HELLO).input_tokens > 0
    assert len(several.orders()) == len(placed) + 1


def test_elsewhere_they_have_a_bound_that_no_count_exceeds(claude: anthropic.Anthropic) -> None:
    for model in ("sim/echo", "my/claude"):
        # A call without its result is refused by the upstream's own count.
        use: Any = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        asked: Any = HELLO if model == "sim/echo" else [*HELLO, {"role": "assistant", "content": [use]}, *HELLO]
        raw = claude.messages.with_raw_response.count_tokens(model=model, messages=asked)
        assert raw.headers["x-farebox-tokens"] == "at-most"
        assert raw.parse().input_tokens > 4
    file: Any = [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "http://a.test"}}]}]
    assert claude.messages.count_tokens(model="sim/echo", messages=file).input_tokens == 32_768


def test_what_would_be_no_order_is_not_counted(
    several: Gateway, claude: anthropic.Anthropic, claude_of: Callable[[str], anthropic.Anthropic]
) -> None:
    falcon: Any = [{"role": "user", "content": "What of project falcon?"}]
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        claude.messages.count_tokens(model="sim/echo", messages=[])
    with pytest.raises(anthropic.NotFoundError, match="no/body"):
        claude.messages.count_tokens(model="no/body", messages=HELLO)
    with pytest.raises(anthropic.AuthenticationError):
        claude_of("sk-fb-nobody").messages.count_tokens(model="sim/echo", messages=HELLO)
    with pytest.raises(anthropic.PermissionDeniedError, match="codenames"):
        claude.messages.count_tokens(model="my/claude", messages=falcon)
    wrong = several.request("GET", "/v1/messages/count_tokens")
    assert (wrong.status, wrong.json["type"], wrong.headers["allow"]) == (405, "error", "POST")


# What is not here


@pytest.mark.parametrize("base", ["/api/v1", "/v1"])
def test_what_is_not_here_says_why(shared_gateway: Gateway, base: str) -> None:
    for path, why in (
        ("/byok", "/byok is not served here: keys for hosts are the operator's"),
        ("/byok/1", "/byok is not served here: "),
        ("/workspaces/1/budgets/day", "farebox account create"),
        ("/generation/feedback", "in the operator's name"),
        ("/presets/a/chat/completions", "not served here"),
        ("/bykok", "There is nothing at"),
        ("/byokk", "There is nothing at"),
    ):
        answer = shared_gateway.request("POST", base + path, {}, {"authorization": f"Bearer {shared_gateway.key}"})
        assert (answer.status, why in answer.error["message"]) == (404, True), (path, answer.body)
