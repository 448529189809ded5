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


# Presets


def post(gateway: Gateway, path: str, body: dict[str, Any], key: str) -> Response:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return gateway.request("POST", f"/api/v1{path}", body, headers)


def test_a_preset_is_its_accounts_and_is_ordered_in_every_format(shared_gateway: Gateway, key: str) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "messages": [{"role": "system", "content": "Be brief."}, *HELLO]}
    with OpenRouter(server_url=shared_gateway.base, api_key=key) as sdk:
        made = sdk.presets.create_presets_chat_completions(slug="mine", **order, max_tokens=2, temperature=0.5).data
        assert (made.slug, made.status) == ("mine", "active")
        assert made.designated_version is not None
        assert (made.designated_version.version, made.designated_version.system_prompt) == (1, "Be brief.")
        assert made.designated_version.config == {"model": "sim/echo", "temperature": 0.5, "max_tokens": 2}
        again = sdk.presets.create_presets_messages(slug="mine", model="sim/echo", messages=HELLO, max_tokens=1).data
        assert again.designated_version is not None
        assert (again.id, again.created_at, again.designated_version.version) == (made.id, made.created_at, 2)
        assert sdk.presets.get_version(slug="mine", version="1").data == made.designated_version
        versions: Any = sdk.presets.list_versions(slug="mine")
        assert [each.version for each in versions.result.data] == [1, 2]
        sdk.presets.create_presets_responses(slug="other", model="sim/echo", input="Hello", instructions="Hi.")
        listed: Any = sdk.presets.list()
        assert [each.slug for each in listed.result.data] == ["other", "mine"]
    for path, more in (
        ("/chat/completions", {"model": "@preset/mine", "messages": HELLO}),
        ("/chat/completions", {"preset": "mine", "messages": HELLO}),
        ("/messages", {"model": "sim/tiny@preset/mine", "messages": HELLO}),
        ("/responses", {"model": "@preset/mine", "input": "Hello there"}),
    ):
        answer = post(shared_gateway, path, more, key)
        assert (answer.status, answer.headers["x-farebox-fare-events"]) == (200, "1")
        # Of three words it is one: the preset's cap.
        assert (b"You" in answer.body, b"said" in answer.body) == (True, False)
        streamed = post(shared_gateway, path, {**more, "stream": True}, key)
        assert (streamed.status, b"You" in streamed.body) == (200, True)
        nobody = post(shared_gateway, path, more, shared_gateway.key)
        assert (nobody.status, b"no preset `mine`" in nobody.body) == (404, True)
    counted = post(shared_gateway, "/messages/count_tokens", {"model": "@preset/mine", "messages": HELLO}, key)
    assert (counted.status, counted.json["input_tokens"] > 4) == (200, True)
    for path in ("/presets/mine", "/presets/mine/versions", "/presets/mine/versions/1"):
        assert get(shared_gateway, path).status == 404
        assert get(shared_gateway, path, key).status == 200


def test_a_preset_that_is_dropped_is_gone(shared_gateway: Gateway, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    assert get(shared_gateway, "/presets", key).json == {"data": [], "total_count": 0}
    assert post(shared_gateway, "/presets/brief/chat/completions", {"model": "sim/echo"}, key).status == 200
    assert get(shared_gateway, "/presets?limit=1", key).json["total_count"] == 1
    assert shared_gateway.request("DELETE", "/v1/presets/brief", headers=headers).json == {"deleted": True}
    assert shared_gateway.request("DELETE", "/v1/presets/brief", headers=headers).status == 404
    assert post(shared_gateway, "/chat/completions", {"preset": "brief", "messages": HELLO}, key).status == 404


def test_what_is_no_preset_is_refused(shared_gateway: Gateway, key: str) -> None:
    for path, body, status in (
        ("/presets/-/messages", {}, 400),
        ("/presets/a%20b/messages", {}, 400),
        ("/presets/a/messages", {"model": "@preset/b"}, 400),
        ("/presets/a/embeddings", {}, 404),
        ("/embeddings", {"model": "@preset/a", "input": "Hello"}, 404),
        ("/chat/completions", {"models": ["sim/echo", "@preset/a"], "messages": HELLO}, 404),
        ("/chat/completions", {"model": "@preset/a\0", "messages": HELLO}, 404),
    ):
        assert post(shared_gateway, path, body, key).status == status, path
    for path in ("/presets?limit=101", "/presets/a/versions/0", "/presets/a/versions/b"):
        assert get(shared_gateway, path, key).status == 400, path
    for path in ("/presets/a/versions/7", "/presets/a%00", "/presets/a%20b/versions"):
        assert get(shared_gateway, path, key).status == 404, path
    assert shared_gateway.request("GET", "/api/v1/presets").status == 401


def test_guards_see_what_a_preset_puts_into_an_order(several: Gateway) -> None:
    said = {"model": "sim/echo", "messages": [{"role": "system", "content": "You are of project falcon."}]}
    assert post(several, "/presets/falcon/chat/completions", said, several.key).status == 200
    placed = len(several.orders())
    refused = post(several, "/chat/completions", {"preset": "falcon", "messages": HELLO}, several.key)
    assert (refused.status, refused.error["metadata"]["guard"]) == (403, "codenames")
    assert len(several.orders()) == placed


# What is not here


@pytest.mark.parametrize("base", ["/api/v1", "/v1"])
def test_what_is_not_here_says_why(shared_gateway: Gateway, base: str) -> None:
    for path, why in (
        ("/byok", "/byok is not served here: keys for hosts are the operator's"),
        ("/byok/1", "/byok is not served here: "),
        ("/workspaces/1/budgets/day", "farebox account create"),
        ("/generation/feedback", "in the operator's name"),
        ("/bykok", "There is nothing at"),
        ("/byokk", "There is nothing at"),
    ):
        answer = shared_gateway.request("POST", base + path, {}, {"authorization": f"Bearer {shared_gateway.key}"})
        assert (answer.status, why in answer.error["message"]) == (404, True), (path, answer.body)
