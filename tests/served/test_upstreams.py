"""Declared upstreams of the kinds `openai` and `anthropic`, behind a real gateway: orders in their own formats, what is
booked of them, hang-ups, bounds, circles, and changes of the file while orders run."""

import http.client
import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import openrouter
import pytest

from farebox.simulator.server import embedded
from tests import sdks
from tests.gateway import Gateway, Response, events_of, eventually
from tests.schemas import assert_accepted, assert_specified
from tests.upstreams import HttpUpstream

HELLO: Any = [{"role": "user", "content": "Hello there"}]
ANY_ID = re.compile(rb"(chatcmpl-|resp_|msg_01|msg_|rs_|call_)[0-9a-f]+")

LOCAL = """
[upstreams.local]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "LOCAL_KEY"
prices = "free"
names = {{"my/*" = "*"}}

[upstreams.claude]
kind = "anthropic"
base_url = "{root}/anthropic"
key_variable = "LOCAL_KEY"
prices = "free"
at_hang_up = "drain"

[upstreams.router]
kind = "openrouter"
base_url = "{root}/api/v1"
key_variable = "LOCAL_KEY"
models = ["sim/*", "zz/*"]
"""


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    with embedded() as url:
        yield url.removesuffix("/api/v1")


def declared(folder: Path, text: str, *arguments: str, **environment: str) -> Gateway:
    """A gateway with this file of settings."""
    folder.mkdir(exist_ok=True)
    (folder / "farebox.toml").write_text(text)
    return Gateway(folder, *arguments, LOCAL_KEY="sk-local", **environment)


def with_account(gateway: Gateway) -> Gateway:
    gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
    return gateway


@pytest.fixture(scope="module")
def three(root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Upstreams of three kinds."""
    with declared(tmp_path_factory.mktemp("three"), LOCAL.format(root=root)) as gateway:
        yield with_account(gateway)
        gateway.audit()


def ask(url: str, body: dict[str, Any], **headers: str) -> bytes:
    """What the upstream itself answers."""
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(url, json.dumps(body).encode(), sent)
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: bytes = answer.read()
        return found


def order(gateway: Gateway, path: str, body: dict[str, Any], **headers: str) -> Response:
    sent = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request("POST", f"/api/v1{path}", body, sent)


def anonymous(body: bytes) -> bytes:
    return ANY_ID.sub(b"ID", body)


ORDERS: dict[str, dict[str, Any]] = {
    "/chat/completions": {"model": "gpt-sim", "messages": HELLO},
    "/responses": {"model": "o-sim", "input": "Hello there", "store": False},
    "/messages": {"model": "claude-sim", "messages": HELLO, "max_tokens": 99},
}
STREAMS = [(path, streamed) for path in ORDERS for streamed in (False, True)]


@pytest.mark.parametrize(("path", "streamed"), STREAMS)
def test_an_order_in_the_upstreams_own_format_passes_as_it_is(
    three: Gateway, root: str, path: str, streamed: bool
) -> None:
    body = {**ORDERS[path], **({"stream": True} if streamed else {})}
    is_claude = path == "/messages"
    ours = {**body, "model": body["model"] if is_claude else f"my/{body['model']}"}
    answer = order(three, path, ours)
    assert answer.status == 200, answer.body
    url = f"{root}/anthropic/v1{path}" if is_claude else f"{root}/openai/v1{path}"
    native = ask(url, body, authorization="Bearer k", x_api_key="k", anthropic_version="2023-06-01")
    if path == "/responses":
        assert responses_alike(answer.body, native, streamed=streamed)
    else:
        assert anonymous(answer.body) == anonymous(native)
    generation_id = answer.headers["x-generation-id"]
    assert generation_id.startswith(
        {"/chat/completions": "chatcmpl-", "/responses": "resp_", "/messages": "msg_"}[path]
    )
    eventually(lambda: three.orders()[-1]["what"] == "fare")
    line = three.orders()[-1]
    assert (line["generation_id"], line["cost_usd"], line["events"]) == (generation_id, "0", 0)


def responses_alike(ours: bytes, native: bytes, *, streamed: bool) -> bool:
    """A response gets the members that OpenRouter's SDKs demand; all others are the native one's."""

    def body_of(text: bytes) -> dict[str, Any]:
        text = anonymous(text)
        if not streamed:
            found: dict[str, Any] = json.loads(text)
            return found
        return dict(json.loads(text.rpartition(b"data: ")[2])["response"])

    return body_of(native).items() <= body_of(ours).items()


LOOK_UP = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
ASKED: list[dict[str, Any]] = [
    {"input": "Hello there", "temperature": 0.5, "max_output_tokens": 99, "safety_identifier": "s"},
    {"input": "look_up", "tools": [LOOK_UP], "instructions": "Be brief.", "metadata": {"trip": "7"}},
    {"input": "Hello there", "reasoning": {"effort": "low", "summary": "auto"}, "truncation": "disabled"},
    {"input": "Say much: " + "word " * 90, "max_output_tokens": 16},
]


@pytest.mark.parametrize("model", ["sim/reasoner", "my/o-sim", "claude-sim"])
def test_what_open_responses_requires_is_told_over_all_kinds(three: Gateway, model: str) -> None:
    client = openai.OpenAI(
        base_url=f"{three.base}/v1", api_key=three.key, max_retries=0, _strict_response_validation=True
    )
    for members in ASKED:
        asked: dict[str, Any] = {"model": model, "store": False, **members}
        whole = order(three, "/responses", asked)
        assert whole.status == 200, whole.body
        left_out = whole.headers.get("x-farebox-left-out", "").split(", ")
        streamed = order(three, "/responses", {**asked, "stream": True}).body
        events = [json.loads(data) for data in sdks.datas(streamed)]
        for event in events:
            assert_specified("StreamingEvent", event)
        for response in (whole.json, *(event["response"] for event in events if "response" in event)):
            assert_specified("ResponseResource", response)
            assert_accepted("OpenResponsesResult", response)
            for name in members.keys() - {"input", "tools"}:
                is_told = name not in left_out or name == "metadata"
                assert response[name] == (members[name] if is_told else None)
            says_tools = "tools" in members and model != "sim/reasoner"  # it says itself that there were none
            assert [tool["name"] for tool in response["tools"]] == (["look_up"] if says_tools else [])
        is_cut = whole.json["status"] == "incomplete"
        assert is_cut == (members is ASKED[-1])
        assert client.responses.create(**asked).to_dict()["temperature"] == members.get("temperature", 1)
        with client.responses.stream(model=model, **members) as told:
            assert [each.type for each in told] == [each["type"] for each in events]


def test_embeddings_are_named_by_the_requests_id(three: Gateway) -> None:
    answer = order(three, "/embeddings", {"model": "my/text-embedding-sim", "input": "Hello there"})
    assert answer.status == 200
    assert answer.headers["x-generation-id"].startswith("req_")
    assert "id" not in answer.json
    assert three.orders()[-1]["generation_id"] == answer.headers["x-generation-id"]


def test_the_usage_of_a_stream_comes_to_who_asked_for_it(three: Gateway) -> None:
    body = {"model": "my/gpt-sim", "messages": HELLO, "stream": True}
    silent = events_of(order(three, "/chat/completions", body).body)
    assert not any("usage" in event for event in silent[:-1])
    told = events_of(order(three, "/chat/completions", {**body, "stream_options": {"include_usage": True}}).body)
    assert [event["usage"]["total_tokens"] for event in told[:-1] if "usage" in event] == [10]
    assert len(told) == len(silent) + 1
    line = three.orders()[-2]
    assert (line["prompt_tokens"], line["answer_tokens"]) == (6, 4)


def test_what_only_openrouter_knows_is_left_out_and_named(three: Gateway) -> None:
    more = {"provider": {"order": ["x"]}, "usage": {"include": True}, "models": None, "reasoning": {"effort": "low"}}
    answer = order(three, "/chat/completions", {"model": "my/gpt-sim", "messages": HELLO, **more})
    assert answer.status == 200, answer.body
    assert answer.headers["x-farebox-left-out"] == "provider, usage"
    assert (
        "x-farebox-left-out"
        not in order(three, "/chat/completions", {"model": "my/gpt-sim", "messages": HELLO}).headers
    )


def test_generation_answers_from_our_own_record(three: Gateway) -> None:
    answer = order(three, "/messages", {"model": "claude-sim", "messages": HELLO, "max_tokens": 99})
    headers = {"authorization": f"Bearer {three.key}"}
    found = three.request("GET", f"/api/v1/generation?id={answer.headers['x-generation-id']}", headers=headers)
    assert found.status == 200
    data = found.json["data"]
    assert (data["model"], data["total_cost"], data["tokens_prompt"], data["farebox_state"]) == (
        "claude-sim",
        0,
        6,
        "posted",
    )


def test_each_model_goes_to_the_upstream_that_has_it(three: Gateway) -> None:
    headers = {"authorization": f"Bearer {three.key}"}
    listed = [each["id"] for each in three.request("GET", "/api/v1/models", headers=headers).json["data"]]
    assert {"my/gpt-sim", "claude-sim", "sim/echo"} <= set(listed)
    assert "openrouter/auto" not in listed
    assert three.chat(model="sim/echo").headers["x-generation-id"].startswith("gen-")
    assert three.chat(model="gpt-sim").error["code"] == 404
    translated = order(three, "/messages", {"model": "my/gpt-sim", "messages": HELLO, "max_tokens": 99})
    assert (translated.status, translated.json["content"][0]["text"]) == (200, "You said: Hello there")
    refused = order(three, "/embeddings", {"model": "claude-sim", "input": "Hello there"})
    assert refused.status == 404
    assert "serves no embeddings" in refused.json["error"]["message"]


def test_a_pattern_that_matches_nothing_is_told(three: Gateway) -> None:
    assert "upstream `router`: the pattern `zz/*` matches none of its models" in three.log.read_text()
    assert three.cli("upstream", "check", "router", code=1)["checks"][0]["said"].startswith("nothing matches zz/*;")


def test_models_without_a_price_are_neither_listed_nor_served(root: str, tmp_path: Path) -> None:
    free = LOCAL.format(root=root)
    with declared(tmp_path, free.replace('prices = "free"', 'prices = "file"', 1)) as gateway:
        with_account(gateway)
        headers = {"authorization": f"Bearer {gateway.key}"}
        listed = {each["id"] for each in gateway.request("GET", "/api/v1/models", headers=headers).json["data"]}
        assert "claude-sim" in listed
        assert "my/gpt-sim" not in listed
        assert gateway.chat(model="my/gpt-sim").status == 404


def test_the_strict_sdks_take_all_three(three: Gateway) -> None:
    base = three.base.removesuffix("/v1")
    with openrouter.OpenRouter(server_url=three.base, api_key=three.key) as router:
        every: Any = router.models.list(limit=500)
        assert {"my/gpt-sim", "claude-sim", "sim/echo"} <= {model.id for model in every.result.data}
    with openai.OpenAI(base_url=three.base, api_key=three.key, max_retries=0) as gpt:
        with gpt.chat.completions.stream(model="my/gpt-sim", messages=HELLO) as stream:
            assert stream.get_final_completion().choices[0].message.content == "You said: Hello there"
        with gpt.responses.stream(model="my/o-sim", input="Hello there") as responses:
            assert responses.get_final_response().output_text == "You said: Hello there"
        with pytest.raises(openai.BadRequestError, match="max_completion_tokens"):
            gpt.chat.completions.create(model="my/o-sim", messages=HELLO, max_tokens=9)
    with (
        anthropic.Anthropic(base_url=base, auth_token=three.key, max_retries=0) as claude,
        claude.messages.stream(model="claude-sim", max_tokens=99, messages=HELLO) as message,
    ):
        assert message.get_final_text() == "You said: Hello there"


SLOW = "tokens=30,token-ms=20"


def hang_up(gateway: Gateway, path: str, body: dict[str, Any]) -> str:
    """Order a slow stream, and go after its first piece. Returns the generation's id."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    headers["x-openrouter-simulate"] = SLOW
    connection.request("POST", f"/api/v1{path}", json.dumps({**body, "stream": True}), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read1(100)
    connection.close()
    return answer.headers["x-generation-id"]


def usage_book(root: str, generation_id: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{root}/books/usage", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer).get(generation_id, {})
        return found


def test_after_a_hang_up_a_stream_is_drained_or_cancelled_as_declared(three: Gateway, root: str) -> None:
    drained = hang_up(three, "/messages", {**ORDERS["/messages"], "max_tokens": 500})
    cancelled = hang_up(three, "/chat/completions", {"model": "my/gpt-sim", "messages": HELLO})
    eventually(lambda: bool(usage_book(root, drained)) and bool(usage_book(root, cancelled)))
    assert usage_book(root, drained)["is_cancelled"] is False
    assert usage_book(root, cancelled)["is_cancelled"] is True
    eventually(lambda: [line["what"] for line in three.orders()[-2:]] == ["fare", "fare"])
    assert {line["generation_id"]: line["answer_tokens"] for line in three.orders()[-2:]}[drained] == 30


def test_check_and_list_say_what_came(three: Gateway) -> None:
    listed = three.cli("upstream", "list")["upstreams"]
    assert [(each["name"], each["prices"], each["at_hang_up"]) for each in listed] == [
        ("local", "free", "cancel"),
        ("claude", "free", "drain"),
        ("router", "itself", "cancel"),
    ]
    checks = three.cli("upstream", "check", "local")["checks"]
    assert [(each["asked_for"], each["is_well"]) for each in checks] == [
        ("models", True),
        ("chat", True),
        ("answer cap", True),
        ("responses", True),
        ("embeddings", True),
    ]
    assert checks[1]["said"] == "You said: Say ok."
    assert checks[1]["answer_tokens"] == 4
    older = three.cli("upstream", "check", "local", "--model", "my/gpt-sim:older-cap,tokens=99", code=1)["checks"]
    assert [each["asked_for"] for each in older if not each["is_well"]] == ["answer cap"]
    said = "99 tokens came, and at most 64 were asked for by `max_completion_tokens`"
    assert older[2]["said"] == f'{said}; try capped_by = "max_tokens" for it'
    newer = three.cli("upstream", "check", "local", "--model", "my/o-sim", code=1)["checks"]
    assert newer[1]["said"].endswith('try capped_by = "max_completion_tokens" for it')
    failed = three.cli("upstream", "check", "claude", "--model", "claude-5150", code=1)["checks"]
    assert (failed[1]["came"], failed[1]["is_well"]) == ("404", False)
    assert "there is no upstream `x`" in three.run("upstream", "check", "x").stderr


# Bounds, and circles

ONE = """[upstreams.one]
kind = "openai"
base_url = "{root}/openai/v1"
prices = "free"
key_variable = "LOCAL_KEY"
"""


def slowly(gateway: Gateway, simulate: str) -> http.client.HTTPResponse:
    """A stream that has begun."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"authorization": f"Bearer {gateway.key}", "x-openrouter-simulate": simulate, "connection": "close"}
    body = {"model": "gpt-sim", "messages": HELLO, "stream": True}
    connection.request("POST", "/api/v1/chat/completions", json.dumps(body), headers)
    return connection.getresponse()


def test_an_upstream_gets_no_more_orders_at_once_than_declared(root: str, tmp_path: Path) -> None:
    with declared(tmp_path, ONE.format(root=root) + "orders_max = 1\n") as gateway:
        with_account(gateway)
        answer = slowly(gateway, "tokens=9,token-ms=100")
        refused = gateway.chat(model="gpt-sim")
        assert refused.status == 429
        assert "`one` serves as many orders at once as it may" in refused.error["message"]
        answer.read()
        eventually(lambda: gateway.chat(model="gpt-sim").status == 200)
        assert sorted(line["what"] for line in gateway.orders()[:2]) == ["fare", "fare"]
        gateway.audit()


def test_an_order_says_through_how_many_gateways_it_came_and_ends_in_a_circle(tmp_path: Path) -> None:
    with (
        HttpUpstream(answer=[b"{}"], content_type="application/json").serving() as upstream,
        Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway,
    ):
        with_account(gateway)
        body = {"model": "a/b", "messages": HELLO, "max_tokens": 5}
        order(gateway, "/chat/completions", body)
        order(gateway, "/chat/completions", body, x_farebox_hops="2")
        refused = order(gateway, "/chat/completions", body, x_farebox_hops="4")
        assert refused.status == 400
        assert "the order came through 4 gateways like this one" in refused.error["message"]
        assert [head["x-farebox-hops"] for head in upstream.heads] == ["1", "1, 3"]


OWN = '[upstreams.me]\nkind = "openai"\nbase_url = "http://{host}:{port}/v1"\nprices = "free"\nmodels = ["x"]\n'


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"])
def test_a_gateway_that_is_its_own_upstream_does_not_start(tmp_path: Path, host: str) -> None:
    done = declared(tmp_path, OWN.format(host=host, port=8999), FAREBOX_PORT="8999").run("upstream", "list")
    assert done.returncode == 2
    assert "is this gateway itself; orders would go in circles" in done.stderr


def test_a_circle_that_cannot_be_seen_is_ended_in_words_and_costs_nothing(root: str, tmp_path: Path) -> None:
    gateway = declared(tmp_path, ONE.format(root=root))
    gateway.copy_books()
    with_account(gateway)
    text = OWN + 'key_variable = "OWN_KEY"\n'
    with declared(tmp_path, ONE.format(root=root), OWN_KEY=gateway.key) as running:
        running.key = gateway.key
        (tmp_path / "farebox.toml").write_text(text.format(host="127.1", port=running.port))
        eventually(lambda: "the upstreams have changed: added me; removed one" in running.log.read_text())
        refused = running.chat(model="x")
        assert refused.status == 400
        assert "the order came through 4 gateways like this one" in refused.error["message"]
        assert [line["what"] for line in running.orders()] == ["not served"] * 4
        running.audit()


# Changes


def told(gateway: Gateway, words: str) -> bool:
    return words in gateway.log.read_text()


def workers_that_hear(gateway: Gateway) -> int:
    """How many of a server's workers listen to SIGHUP by now."""
    found = 0
    for task in Path(f"/proc/{gateway.process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
            found += caught is not None and int(caught[1], 16) >> (signal.SIGHUP - 1) & 1
    return found


@pytest.mark.parametrize("how", ["written", "SIGHUP"])
def test_a_changed_file_is_taken_up_by_every_worker_and_a_broken_one_changes_nothing(
    root: str, tmp_path: Path, how: str
) -> None:
    first = ONE.format(root=root)
    second = first.replace("one", "two").replace("openai", "anthropic").replace("/v1", "")

    def write(text: str) -> None:
        before = (tmp_path / "farebox.toml").stat()
        (tmp_path / "farebox.toml").write_text(text)
        if how == "SIGHUP":
            os.utime(tmp_path / "farebox.toml", ns=(before.st_atime_ns, before.st_mtime_ns))
            os.kill(gateway.process.pid, signal.SIGHUP)

    with declared(tmp_path, first, "--workers", "2") as gateway:
        with_account(gateway)
        running = slowly(gateway, "tokens=60,token-ms=100")
        assert gateway.chat(model="gpt-sim").status == 200
        eventually(lambda: workers_that_hear(gateway) == 2, 20)

        write(first.replace('"openai"', '"opneai"'))
        eventually(lambda: gateway.log.read_text().count("is wrong, and nothing is changed") >= 2, 20)
        assert told(gateway, "there is no kind `opneai`")
        assert gateway.chat(model="gpt-sim").status == 200

        write(second)
        eventually(lambda: gateway.log.read_text().count("the upstreams have changed: added two; removed one") == 2, 20)
        for _ in range(6):
            claude = order(gateway, "/messages", {"model": "claude-sim", "messages": HELLO, "max_tokens": 99})
            assert claude.status == 200, claude.body
            assert gateway.chat(model="gpt-sim").status in (400, 404)
        assert running.read().count(b"word") == 60
        gateway.audit()
