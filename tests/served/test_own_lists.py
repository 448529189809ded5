"""What callers and operators see of several upstreams: lists, endpoints, providers, and who is left alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import openrouter
import pytest

from farebox.simulator.server import embedded
from tests.gateway import Gateway, Response, eventually
from tests.schemas import assert_accepted
from tests.upstreams import HttpUpstream

UPSTREAMS = """
[upstreams.direct]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "LOCAL_KEY"
prices = "file"
names = {{ "sim/echo" = "gpt-sim", "own" = "o-sim", "vectors" = "text-embedding-sim" }}
models = ["sim/echo", "own", "vectors"]
order = 0
orders_max = 7
zdr = true

[upstreams.direct.per_model.own]
quantization = "fp8"
context_tokens = 5000
answer_tokens_max = 700
supported_parameters = ["max_tokens", "min_p"]
input_modalities = ["text", "image"]
output_modalities = ["text", "image"]

[upstreams.direct.per_model."vec*"]
output_modalities = ["embeddings"]

[upstreams.claude]
kind = "anthropic"
base_url = "{root}/anthropic"
key_variable = "LOCAL_KEY"
prices = "free"
names = {{ "sim/echo" = "claude-sim" }}
models = ["sim/echo"]
order = 1

[upstreams.router]
kind = "openrouter"
base_url = "{root}/api/v1"
key_variable = "LOCAL_KEY"
order = 2
"""

PRICES = """
[[prices]]
upstream = "direct"
model = "*"
per = "million"
prompt = "1.5"
answer = "6"
cache_read = "0.15"

[[prices]]
upstream = "direct"
model = "*"
per = "million"
above_prompt_tokens = 200_000
prompt = "3"
answer = "12"
"""


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    with embedded() as url:
        yield url.removesuffix("/api/v1")


def serve(folder: Path, text: str, prices: str = PRICES, **environment: str) -> Gateway:
    (folder / "farebox.toml").write_text(text)
    (folder / "prices.toml").write_text(prices)
    return Gateway(folder, LOCAL_KEY="sk-local", FAREBOX_PRICES_FILE=str(folder / "prices.toml"), **environment)


@pytest.fixture(scope="module")
def three(root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serve(tmp_path_factory.mktemp("lists"), UPSTREAMS.format(root=root)) as gateway:
        gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
        yield gateway
        gateway.audit()


def get(gateway: Gateway, path: str) -> Response:
    return gateway.request("GET", f"/api/v1{path}", headers={"authorization": f"Bearer {gateway.key}"})


def test_a_model_of_several_upstreams_is_listed_once_at_the_price_of_the_first(three: Gateway) -> None:
    for path in ("/models", "/models/user", "/models?output_modalities=all", "/models?sort=newest"):
        body = get(three, path).json
        assert_accepted("ModelsListResponse", body)
        (echo,) = [each for each in body["data"] if each["id"] == "sim/echo"]
        assert echo["description"] == "Served by `direct`"
        longer = {"min_prompt_tokens": 200_000, "prompt": "0.000003", "completion": "0.000012"}
        assert echo["pricing"] == {
            "prompt": "0.0000015",
            "completion": "0.000006",
            "input_cache_read": "0.00000015",
            "overrides": [longer],
        }
        ids = [each["id"] for each in body["data"]]
        assert len(ids) == len(set(ids))
        assert {"own", "sim/tiny"} <= set(ids)
    count = get(three, "/models/count").json["data"]["count"]
    assert count == len(get(three, "/models").json["data"])


def test_endpoints_have_one_entry_for_each_upstream_then_those_that_openrouter_lists(three: Gateway) -> None:
    body = get(three, "/models/sim/echo/endpoints").json["data"]
    assert_accepted("ListEndpointsZdrResponse", {"data": body["endpoints"]})
    assert body["id"] == "sim/echo"
    assert [each["provider_name"] for each in body["endpoints"]] == [
        "direct",
        "claude",
        "router",
        "FakeProvider",
        "FakeProvider",
    ]
    direct, claude, router = body["endpoints"][:3]
    assert [each["pricing"]["prompt"] for each in (direct, claude)] == ["0.0000015", "0"]
    assert router["pricing"]["prompt"] == body["endpoints"][3]["pricing"]["prompt"]
    assert {each["model_id"] for each in body["endpoints"]} == {"sim/echo"}
    assert (claude["latency_last_30m"], claude["throughput_last_30m"], claude["uptime_last_30m"]) == (None, None, None)
    assert three.chat(simulate="head-ms=100").status == 200
    body = get(three, "/models/sim/echo/endpoints").json["data"]
    direct = body["endpoints"][0]
    assert direct["uptime_last_30m"] == 100
    assert set(direct["latency_last_30m"]) == {"p50", "p75", "p90", "p99"}
    assert 100 <= direct["latency_last_30m"]["p50"] < 60_000, "in milliseconds"
    own = get(three, "/models/own/endpoints").json["data"]
    assert (own["id"], [each["tag"] for each in own["endpoints"]]) == ("own", ["direct"])
    assert get(three, "/models/nobody/endpoints").status == 404


def test_lists_tell_what_is_declared_of_our_own_models(three: Gateway) -> None:
    def ids(query: str) -> set[str]:
        return {each["id"] for each in get(three, f"/models?{query}").json["data"]}

    (own,) = [each for each in get(three, "/models?output_modalities=image").json["data"] if each["id"] == "own"]
    assert (own["context_length"], own["top_provider"]["max_completion_tokens"]) == (5000, 700)
    assert own["supported_parameters"] == ["min_p", "max_tokens", "max_completion_tokens"]
    assert own["architecture"]["input_modalities"] == ["text", "image"]
    assert own["architecture"]["modality"] == "text+image->text+image"
    assert "vectors" not in ids("sort=newest"), "it puts out no text"
    assert "vectors" in {each["id"] for each in get(three, "/embeddings/models").json["data"]}
    assert {"own", "sim/echo"} & ids("output_modalities=all&zdr=true") == {"own", "sim/echo"}
    assert "own" not in ids("output_modalities=all&context=6000")
    assert get(three, "/models?context=many").status == 400
    (endpoint,) = get(three, "/models/own/endpoints").json["data"]["endpoints"]
    assert (endpoint["quantization"], endpoint["max_completion_tokens"], endpoint["context_length"]) == (
        "fp8",
        700,
        5000,
    )
    assert (endpoint["zdr"], endpoint["collects_data"], endpoint["distillable"]) == (True, False, None)
    assert not any(endpoint["supports_tool_choice"].values())
    zdr = get(three, "/endpoints/zdr").json
    assert_accepted("ListEndpointsZdrResponse", zdr)
    assert [(each["provider_name"], each["model_id"]) for each in zdr["data"]][:2] == [
        ("direct", "sim/echo"),
        ("direct", "own"),
    ]
    assert len(zdr["data"]) > 2


def test_orders_go_by_what_is_declared(three: Gateway) -> None:
    def order(model: str = "sim/echo", **members: Any) -> Response:
        return three.chat(model=model, **members)

    assert order(provider={"zdr": True, "only": ["direct", "claude"]}).status == 200
    told = order(provider={"zdr": True, "only": ["claude"]})
    assert (told.status, "`zdr = true`" in told.error["message"]) == (404, True)
    assert order("own", max_tokens=701).status == 404
    assert order("vectors").status == 404
    embedded = three.request(
        "POST", "/api/v1/embeddings", {"model": "vectors", "input": "Hi"}, {"authorization": f"Bearer {three.key}"}
    )
    assert embedded.status == 200
    refused = order(
        "own", tools=[{"type": "function", "function": {"name": "f"}}], provider={"require_parameters": True}
    )
    assert "it is not declared to support tools (`supported_parameters`)" in refused.error["message"]


def test_providers_are_ours_beside_openrouters(three: Gateway) -> None:
    body = get(three, "/providers").json
    assert_accepted("ListProvidersResponse", body)
    assert [each["slug"] for each in body["data"]] == ["direct", "claude", "router", "fakeprovider"]


def test_the_strict_sdks_read_them(three: Gateway) -> None:
    with openrouter.OpenRouter(server_url=three.base, api_key=three.key) as router:
        listed: Any = router.models.list(limit=500)
        assert {"own", "sim/echo"} <= {model.id for model in listed.result.data}
        served = router.endpoints.list(author="sim", slug="echo").data.endpoints
        assert [each.provider_name for each in served][:3] == ["direct", "claude", "router"]
        assert router.providers.list().data[0].name == "direct"
        assert router.models.count().data.count > 5
        assert router.models.get(author="sim", slug="echo").data.pricing.prompt == "0.0000015"
        mine: Any = router.models.list_for_user(security={"bearer": three.key}, limit=500)
        assert "own" in {model.id for model in mine.result.data}
    with openai.OpenAI(base_url=three.base, api_key=three.key, max_retries=0, _strict_response_validation=True) as gpt:
        assert "own" in [model.id for model in gpt.models.list()]
        assert gpt.models.retrieve("own").owned_by == "unknown"
    base = three.base.removesuffix("/v1")
    with anthropic.Anthropic(
        base_url=base, auth_token=three.key, max_retries=0, _strict_response_validation=True
    ) as claude:
        everything = [model.id for model in claude.models.list(limit=5)]
        assert len(everything) == len(set(everything))
        assert {"own", "sim/echo"} <= set(everything)
        assert claude.models.retrieve("own").type == "model"


ALONE = """[upstreams.one]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "LOCAL_KEY"
prices = "free"
"""


def test_local_models_alone_have_all_lists(root: str, tmp_path: Path) -> None:
    with serve(tmp_path, ALONE.format(root=root)) as gateway:
        gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
        assert [each["slug"] for each in get(gateway, "/providers").json["data"]] == ["one"]
        endpoints = get(gateway, "/models/gpt-sim/endpoints").json["data"]["endpoints"]
        assert [(each["tag"], each["pricing"]) for each in endpoints] == [("one", {"prompt": "0", "completion": "0"})]


def test_an_upstream_whose_list_does_not_come_is_listed_as_it_was(root: str, tmp_path: Path) -> None:
    with HttpUpstream(pages={"/models": {"data": [{"id": "there"}]}}).serving() as other:
        text = ALONE.format(root=root) + ALONE.replace("one", "two").format(root=other.url).replace("/openai/v1", "")
        with serve(tmp_path, text, FAREBOX_PRICES_REFRESH_SECONDS="1") as gateway:
            assert {"there", "gpt-sim"} <= {each["id"] for each in get(gateway, "/models").json["data"]}
            other.is_down = True
            eventually(lambda: "an upstream's models cannot be asked for: two" in gateway.log.read_text())
            assert {"there", "gpt-sim"} <= {each["id"] for each in get(gateway, "/models").json["data"]}


def test_who_is_left_alone_is_listed_with_the_reason(root: str, tmp_path: Path) -> None:
    own = {"/models": {"data": [{"id": "own"}]}}
    with HttpUpstream(pages=own, status=503, answer=[b"no"], headers={"retry-after": "60"}).serving() as bad:
        text = ALONE.format(root=bad.url).replace("/openai/v1", "") + "orders_max = 7\n"
        gateway = serve(tmp_path, text)
        (unknown,) = gateway.cli("upstream", "list")["upstreams"]
        assert unknown["left_alone"] is None
        assert "not known" in gateway.run("upstream", "list").stdout
        with gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            (well,) = gateway.cli("upstream", "list")["upstreams"]
            assert (well["left_alone"], well["orders_max"]) == ([], 7)
            assert gateway.chat(model="own").status == 503
            eventually(lambda: bool(gateway.cli("upstream", "list")["upstreams"][0]["left_alone"]))
            ((left,),) = [each["left_alone"] for each in gateway.cli("upstream", "list")["upstreams"]]
            assert (left["model"], "503" in left["reason"]) == ("own", True)
            assert "left alone: own until 20" in gateway.run("upstream", "list").stdout
            assert "farebox_upstream_left_alone{" in gateway.request("GET", "/metrics").body.decode()
            status = get(gateway, "/models/own/endpoints").json["data"]["endpoints"][0]
            assert (status["status"], status["uptime_last_30m"]) == (-1, 0)


FIRST = """
[upstreams.first]
kind = "anthropic"
base_url = "{url}"
key_variable = "LOCAL_KEY"
prices = "free"
models = ["gpt-sim"]
"""


def test_what_one_upstream_would_not_have_got_is_not_left_out_by_the_next(root: str, tmp_path: Path) -> None:
    with HttpUpstream(status=503, answer=[b"{}"]).serving() as bad:
        text = ALONE.format(root=root) + "order = 1\n" + FIRST.format(url=bad.url.removesuffix("/api/v1"))
        with serve(tmp_path, text) as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            answer = gateway.chat(model="gpt-sim", seed=7)
            assert (answer.status, b"seed" in bad.orders[0]) == (200, False)
            assert "x-farebox-left-out" not in answer.headers
