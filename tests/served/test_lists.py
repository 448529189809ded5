"""The upstream's lists, less what a plan does not include, page by page, kept and renewed; a generation's record."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, Response, eventually
from tests.schemas import assert_accepted
from tests.served.test_formats import EVERY, ORDERS, STREAMS, order
from tests.served.test_odd_texts import WHOLE
from tests.upstreams import ENTRIES, HttpUpstream


def get(gateway: Gateway, path: str, key: str | None = None) -> Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return gateway.request("GET", f"/api/v1{path}", headers=headers)


def ids(answer: Response) -> list[str]:
    return [model["id"] for model in answer.json["data"]]


def test_every_list_is_as_the_sdks_demand(shared_gateway: Gateway) -> None:
    for path in ("/models", "/models/user", "/embeddings/models"):
        body = get(shared_gateway, path, shared_gateway.key).json
        assert_accepted("ModelsListResponse", body)
        assert body["object"] == "list"
        assert {model["object"] for model in body["data"]} == {"model"}
        assert body["total_count"] == len(body["data"])
    assert_accepted("ListProvidersResponse", get(shared_gateway, "/providers").json)
    assert_accepted("ListEndpointsZdrResponse", get(shared_gateway, "/endpoints/zdr").json)
    assert_accepted("ModelsCountResponse", get(shared_gateway, "/models/count").json)
    served = get(shared_gateway, "/models/sim/echo/endpoints").json["data"]
    assert_accepted("ListEndpointsZdrResponse", {"data": served["endpoints"]})


def test_an_entry_has_what_openais_clients_demand(shared_gateway: Gateway) -> None:
    for path in ("/models", "/models/user", "/embeddings/models"):
        for entry in get(shared_gateway, path, shared_gateway.key).json["data"]:
            assert [type(entry[name]) for name in ("id", "object", "created", "owned_by")] == [str, str, int, str]
            assert entry["owned_by"] == entry["id"].partition("/")[0]


def test_only_what_an_entry_lacks_is_added(tmp_path: Path, upstream: HttpUpstream) -> None:
    pricing = {"prompt": "0.10", "completion": "0"}
    own = {"object": "model", "created": 7, "owned_by": "somebody", "pricing": pricing, "1": [1.50, None]}
    upstream.models(
        {"id": "a/whole", **own},
        {"id": "~a/lacking", "pricing": pricing, "owned_by": None},
        {"id": "alone", "pricing": pricing, "created": None},
        {"name": "nothing that can be ordered"},
        [],  # type: ignore[arg-type]
    )
    with serve(tmp_path, upstream, 300) as gateway:
        whole, lacking, alone = get(gateway, "/models").json["data"]
        assert whole == {"id": "a/whole", **own}
        added = {"object": "model", "created": 0, "owned_by": "a"}
        assert lacking == {"id": "~a/lacking", "pricing": pricing, **added}
        assert alone == {"id": "alone", "pricing": pricing, **added, "owned_by": "unknown"}
        assert get(gateway, "/models").json["total_count"] == 3


# One model


NAMES = ("/models/{}/{}", "/models/{}%2F{}", "/models/{}%2f{}")
"""How clients name one: with its slash plain, or encoded as OpenAI's and Anthropic's SDKs do."""


@pytest.mark.parametrize("base", ["/api/v1", "/v1"])
@pytest.mark.parametrize("model", ["sim/echo", "sim/echo:free", "sim/embedder", "sim/painter", "openrouter/auto"])
def test_a_model_is_answered_from_the_list(shared_gateway: Gateway, base: str, model: str) -> None:
    author, slug = model.split("/")
    everything = get(shared_gateway, "/models?output_modalities=all").json["data"]
    (entry,) = [each for each in everything if each["id"] == model]
    for path in NAMES:
        assert shared_gateway.request("GET", base + path.format(author, slug)).json == entry
        assert shared_gateway.request("GET", base + path.format(author, slug.replace(":", "%3A"))).json == entry
    for path in ("/model/{}/{}", "/model/{}%2F{}"):
        body = shared_gateway.request("GET", base + path.format(author, slug)).json
        assert body == {"data": entry}
        assert_accepted("ModelResponse", body)


def test_no_name_of_a_model_goes_upstream(tmp_path: Path, upstream: HttpUpstream) -> None:
    upstream.models(*ENTRIES, {**ENTRIES[0], "id": "x/dated", "canonical_slug": "x/dated-2026-01-01"})
    upstream.pages["/embeddings/models"] = {"data": [{**ENTRIES[1], "id": "e/vectors"}, {**ENTRIES[1], "id": "alone"}]}
    upstream.pages["/embeddings/models"]["data"].append({**ENTRIES[1], "id": "hf.co/e/vectors:Q4"})
    with serve(tmp_path, upstream, 300) as gateway:
        for name, is_what in (
            ("a/b", "a/b"),
            ("a/b:nitro", "a/b"),
            ("a/b:nitro:online", "a/b"),
            ("x/dated-2026-01-01", "x/dated"),
            ("e/vectors", "e/vectors"),
            ("alone", "alone"),
            ("hf.co/e/vectors:Q4", "hf.co/e/vectors:Q4"),
        ):
            for path in (f"/models/{name}", f"/models/{name.replace('/', '%2F')}"):
                assert get(gateway, path).json["id"] == is_what
            assert get(gateway, f"/model/{name}").json["data"]["id"] == is_what
        upstream.asked.clear()
        for name in ("a/b:free", "no/body", "alone:free", "a%2F..%2Fkeys", "../keys", "a/b/c", "%2e%2e/x", "a%252Fb"):
            for path in (f"/models/{name}", f"/model/{name}"):
                assert get(gateway, path).status == 404
        assert upstream.asked == []
        del upstream.pages["/embeddings/models"]
        assert get(gateway, "/models/e/vectors").status == 200


def test_a_model_that_is_not_there_is_told_from_a_path_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "farebox.toml").write_text('[plans.narrow]\nmodels = ["sim/echo*"]\n')
    with Gateway(tmp_path) as gateway:
        narrow = gateway.new_key("narrow", "--plan", "narrow")
        for path in (*NAMES, "/model/{}/{}", "/models/{}/{}/endpoints"):
            outside, unlisted = (get(gateway, path.format("sim", slug), narrow) for slug in ("tiny", "nobody"))
            assert (outside.status, unlisted.status) == (404, 404)
            assert outside.error["message"].startswith("the plan `narrow` does not include the model `sim/tiny`;")
            assert unlisted.error["message"].startswith("the model `sim/nobody` is not in the list;")
            assert get(gateway, path.format("sim", "echo"), narrow).status == 200
            assert get(gateway, path.format("sim", "tiny")).status == 200
            assert get(gateway, path.format("sim", "echo"), "sk-fb-nobody").status == 401
        for path in (
            "/modles/sim/tiny",
            "/models/sim%2Ftiny/endpoints",
            "/models/sim%2Ftiny%2Fendpoints",
            "/model/sim/tiny/endpoints",
        ):
            assert get(gateway, path, narrow).error["message"].startswith("There is nothing at ")
        answer = gateway.request("POST", "/v1/models/sim%2Fecho", headers={"x-api-key": narrow})
        assert (answer.status, "GET" in answer.headers["allow"]) == (405, True)


# Anthropic's clients


def ask_as_anthropics(gateway: Gateway, path: str, key: str | None = None) -> Response:
    headers = {"anthropic-version": "2023-06-01", **({} if key is None else {"x-api-key": key})}
    return gateway.request("GET", f"/v1{path}", headers=headers)


def test_anthropics_clients_get_their_members_beside_the_others(tmp_path: Path, upstream: HttpUpstream) -> None:
    told = {**ENTRIES[0], "name": "B of A", "created": 1_767_225_600.0, "expiration_date": "2027-02-01"}
    bare = {"id": "a/bare", "created": 10**20, "expiration_date": "soon", "name": 5, "pricing": ENTRIES[0]["pricing"]}
    upstream.models({**told, "top_provider": {"max_completion_tokens": 500}}, bare)
    with serve(tmp_path, upstream, 300) as gateway:
        body = ask_as_anthropics(gateway, "/models").json
        first, second = body["data"]
        assert (first["type"], first["display_name"], first["created_at"]) == (
            "model",
            "B of A",
            "2026-01-01T00:00:00Z",
        )
        assert (first["max_input_tokens"], first["max_tokens"]) == (1000, 500)
        assert (first["lifecycle"], first["retires_at"]) == ("deprecated", "2027-02-01T00:00:00Z")
        assert (first["pricing"], first["owned_by"]) == (ENTRIES[0]["pricing"], "a")
        assert (second["display_name"], second["created_at"]) == ("a/bare", "1970-01-01T00:00:00Z")
        assert (second["max_input_tokens"], second["max_tokens"], second["lifecycle"]) == (None, None, "active")
        assert (body["has_more"], body["first_id"], body["last_id"]) == (False, "a/b", "a/bare")
        assert (body["object"], body["total_count"], body["links"]) == ("list", 2, {"next": None})
        assert ask_as_anthropics(gateway, "/models/a%2Fb").json == first
        others = get(gateway, "/models").json
        assert set(others) == {"object", "data", "links", "total_count"}
        assert "display_name" not in others["data"][0]
        assert "display_name" not in get(gateway, "/models/a%2Fb").json
        empty = ask_as_anthropics(gateway, "/models?offset=9").json
        assert (empty["has_more"], empty["first_id"], empty["last_id"]) == (False, None, None)


def test_cursors_lead_to_each_model_once_in_both_directions(shared_gateway: Gateway) -> None:
    everything = ids(get(shared_gateway, "/models"))
    for cursor, end in (("after_id", "last_id"), ("before_id", "first_id")):
        pages: list[list[str]] = []
        page = ask_as_anthropics(
            shared_gateway, f"/models?limit=4&{cursor}={everything[0 if end == 'last_id' else -1]}"
        )
        while True:
            pages.append(ids(page))
            if not page.json["has_more"]:
                break
            assert len(pages[-1]) == 4
            page = ask_as_anthropics(shared_gateway, f"/models?limit=4&{cursor}={page.json[end]}")
        in_order = pages if end == "last_id" else pages[::-1]
        rest = everything[1:] if end == "last_id" else everything[:-1]
        assert [model for each in in_order for model in each] == rest
    for query in (
        "after_id=no/body",
        "before_id=no/body",
        "after_id=",
        "after_id=sim/echo&before_id=sim/tiny",
        "limit=0",
    ):
        wrong = ask_as_anthropics(shared_gateway, f"/models?{query}")
        assert (wrong.status, wrong.json["error"]["type"]) == (400, "invalid_request_error"), query


def test_anthropics_clients_are_refused_in_their_own_words(shared_gateway: Gateway) -> None:
    for path, key, kind in (
        ("/models/no%2Fbody", None, "not_found_error"),
        ("/models/sim%2Fecho", "sk-fb-nobody", "authentication_error"),
        ("/models", "sk-fb-nobody", "authentication_error"),
    ):
        told = ask_as_anthropics(shared_gateway, path, key).json
        assert (told["type"], told["error"]["type"]) == ("error", kind)


def test_who_may_read_them(shared_gateway: Gateway) -> None:
    for path in ("/models", "/models/count", "/embeddings/models", "/providers", "/endpoints/zdr"):
        assert get(shared_gateway, path).status == 200
        assert get(shared_gateway, path, "sk-fb-nobody").status == 401
    for path in ("/models/user", "/generation?id=gen-1", "/key", "/credits"):
        assert get(shared_gateway, path).status == 401
        assert get(shared_gateway, f"{path}{'&' if '?' in path else '?'}token={shared_gateway.key}").status == 401


def test_filters_are_the_upstreams(shared_gateway: Gateway) -> None:
    assert ids(get(shared_gateway, "/models?q=pro")) == ["sim/echo-pro"]
    assert ids(get(shared_gateway, "/models?output_modalities=embeddings")) == ["sim/embedder"]
    assert "sim/embedder" not in ids(get(shared_gateway, "/models"))
    dear = ids(get(shared_gateway, "/models?sort=pricing-high-to-low&min_price=1&limit=2"))
    assert dear == ["sim/echo-pro", "sim/fine"]
    assert get(shared_gateway, "/models/count?output_modalities=image").json == {"data": {"count": 4}}
    wrong = get(shared_gateway, "/models?region=mars")
    assert (wrong.status, "region" in wrong.error["message"]) == (400, True)
    assert get(shared_gateway, "/models?q=" + "x" * 3000).status == 400


@pytest.mark.parametrize("path", ["/models?sort=newest", "/models/user", "/models?q=echo"])
def test_pages_hold_each_model_once_with_its_filter(shared_gateway: Gateway, path: str) -> None:
    everything = ids(get(shared_gateway, path, shared_gateway.key))
    paged: list[str] = []
    following: str | None = f"{path}{'&' if '?' in path else '?'}limit=2"
    while following:
        page = get(shared_gateway, following.removeprefix("/api/v1"), shared_gateway.key)
        assert page.json["total_count"] == len(everything)
        paged += ids(page)
        following = page.json["links"]["next"]
    assert paged == everything
    assert ids(get(shared_gateway, f"{path}{'&' if '?' in path else '?'}offset=1000", shared_gateway.key)) == []


def test_what_the_plan_does_not_include_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "farebox.toml").write_text('[plans.narrow]\nmodels = ["sim/echo*", "sim/embedder"]\n')
    with Gateway(tmp_path) as gateway:
        key = gateway.new_key("narrow", "--plan", "narrow", "--prepaid", "1")
        narrow = ["sim/echo", "sim/echo:free", "sim/echo-pro"]
        assert ids(get(gateway, "/models", key)) == ids(get(gateway, "/models/user", key)) == narrow
        assert ids(get(gateway, "/models?limit=2&offset=2", key)) == ["sim/echo-pro"]
        assert gateway.chat(key, model="sim/echo:nitro").status == 200
        assert gateway.chat(key, model="openrouter/auto").status == 403
        assert get(gateway, "/models?limit=2", key).json["total_count"] == 3
        assert get(gateway, "/models/count", key).json["data"]["count"] == 3
        assert ids(get(gateway, "/embeddings/models", key)) == ["sim/embedder"]
        assert get(gateway, "/models/sim/echo/endpoints", key).status == 200
        assert get(gateway, "/models/sim/tiny/endpoints", key).status == 404
        assert get(gateway, "/models/sim/tiny/endpoints").status == 200
        assert len(ids(get(gateway, "/models"))) > 3


# Kept and renewed


@pytest.fixture
def upstream() -> Iterator[HttpUpstream]:
    with HttpUpstream().serving() as serving:
        yield serving


def serve(tmp_path: Path, upstream: HttpUpstream, refresh_seconds: float, max_age_seconds: float = 3600) -> Gateway:
    settings = {
        "FAREBOX_PRICES_REFRESH_SECONDS": str(refresh_seconds),
        "FAREBOX_PRICES_MAX_AGE_SECONDS": str(max_age_seconds),
    }
    return Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x", **settings)


def test_a_list_is_asked_for_once_while_it_is_fresh(tmp_path: Path, upstream: HttpUpstream) -> None:
    with serve(tmp_path, upstream, 300) as gateway:
        upstream.asked.clear()
        for _ in range(3):
            assert ids(get(gateway, "/models?q=x&unknown=1&limit=1")) == ["a/b"]
            assert ids(get(gateway, "/models?offset=1&limit=1&q=x")) == ["a/e"]
        assert upstream.asked == ["/models?q=x"]
        upstream.pages["/models/a/b/endpoints"] = {"data": {"id": "a/b", "endpoints": []}}
        assert get(gateway, "/models/a/b/endpoints").json == {"data": {"id": "a/b", "endpoints": []}}
        assert get(gateway, "/models/a/e/endpoints").status == 404
        assert get(gateway, "/models/no/body/endpoints").status == 404
        assert "/models/no/body/endpoints" not in upstream.asked


def test_a_list_that_is_asked_for_is_renewed_and_one_that_cannot_be_is_marked(
    tmp_path: Path, upstream: HttpUpstream
) -> None:
    with serve(tmp_path, upstream, 0.3) as gateway:
        assert ids(get(gateway, "/models")) == ["a/b", "a/e"]
        upstream.models(*ENTRIES[:1])
        eventually(lambda: ids(get(gateway, "/models")) == ["a/b"])
        assert "x-farebox-stale" not in get(gateway, "/models").headers
        upstream.is_down = True
        eventually(lambda: get(gateway, "/models").headers.get("x-farebox-stale") == "true")
        assert ids(get(gateway, "/models")) == ["a/b"]
        missing = get(gateway, "/providers")
        assert (missing.status, missing.error["metadata"]["error_type"]) == (502, "provider_unavailable")
        upstream.is_down = False
        eventually(lambda: "x-farebox-stale" not in get(gateway, "/models").headers)


def test_a_list_that_is_no_longer_fresh_is_renewed_behind_its_answer(tmp_path: Path, upstream: HttpUpstream) -> None:
    with serve(tmp_path, upstream, 2) as gateway:
        get(gateway, "/models?q=x")
        upstream.models(*ENTRIES[:1])
        upstream.asked.clear()
        time.sleep(2.2)
        old = get(gateway, "/models?q=x")
        assert (ids(old), "x-farebox-stale" in old.headers) == (["a/b", "a/e"], False)
        eventually(lambda: "/models?q=x" in upstream.asked)
        eventually(lambda: ids(get(gateway, "/models?q=x")) == ["a/b"])


def test_a_list_is_not_served_for_ever(tmp_path: Path, upstream: HttpUpstream) -> None:
    with serve(tmp_path, upstream, 0.2, max_age_seconds=1) as gateway:
        assert get(gateway, "/models").status == 200
        upstream.is_down = True
        eventually(lambda: get(gateway, "/models").status == 502)


@pytest.mark.parametrize("page", [{"nothing": 1}, [], "text"])
def test_a_page_that_cannot_be_read_is_none(tmp_path: Path, upstream: HttpUpstream, page: Any) -> None:
    with serve(tmp_path, upstream, 300) as gateway:
        upstream.pages["/providers"] = page
        assert get(gateway, "/providers").status == 502


def test_a_model_that_cannot_be_priced_is_not_listed_and_one_that_is_listed_is_served(
    tmp_path: Path, upstream: HttpUpstream
) -> None:
    pricing = {"prompt": "0.000001", "completion": "0.00001"}
    lenient = {"id": "a/lenient", "pricing": {**pricing, "image": None}, "context_length": 200000.0}
    empty = {"id": "a/empty", "pricing": {**pricing, "image": ""}, "canonical_slug": "a/empty-2026-01-02"}
    unpriced = {"id": "a/unpriced", "pricing": {**pricing, "completion": None}, "context_length": 1000}
    odd = {"id": "a/odd", "pricing": pricing, "context_length": "long"}
    upstream.models(*ENTRIES, lenient, empty, unpriced, odd)
    with serve(tmp_path, upstream, 0.3) as gateway:
        listed = ids(get(gateway, "/models"))
        assert listed == ["a/b", "a/e", "a/lenient", "a/empty"]
        assert get(gateway, "/models/count").json == {"data": {"count": 4}}
        poor = gateway.new_key("poor", "--plan", "paying")
        for model in (*listed, "a/empty-2026-01-02", "a/b:nitro:online"):
            assert gateway.chat(poor, model=model).status == 402, model
        for model in ("a/unpriced", "a/odd"):
            assert gateway.chat(poor, model=model).status == 404, model
        upstream.pages["/models/a/empty-2026-01-02/endpoints"] = {"data": {"id": "a/empty", "endpoints": []}}
        assert get(gateway, "/models/a/empty-2026-01-02/endpoints").status == 200
        assert get(gateway, "/models/a/b:made-up/endpoints").status == 404
        upstream.asked.clear()
        eventually(lambda: sum(path.startswith("/models?output") for path in upstream.asked) > 2)
        told = gateway.stop()
    assert told.count("neither listed nor served, 2: a/odd, a/unpriced") == 1


# A generation's record


def generation_of(gateway: Gateway, key: str | None = None, simulate: str = "generation-ms=0") -> str:
    return str(gateway.chat(key, simulate).headers["x-generation-id"])


def test_a_generation_is_told_with_its_fare_to_its_own_account(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("author", "--plan", "free", "--prepaid", "1")
    other = shared_gateway.new_key("other", "--plan", "free", "--prepaid", "1")
    path = f"/generation?id={generation_of(shared_gateway, key)}"
    body = get(shared_gateway, path, key).json
    assert_accepted("GenerationResponse", body)
    record = body["data"]
    assert record["total_cost"] == record["usage"] == 2.55e-06
    assert (record["farebox_state"], record["farebox_fare_events"], record["farebox_fare_usd"]) == ("posted", 1, 0.0001)
    assert b'"total_cost":2.55e-06' in get(shared_gateway, path, key).body
    strangers = get(shared_gateway, path, other)
    nobodys = get(shared_gateway, "/generation?id=gen-nobody", key)
    for missing in (strangers, nobodys):
        assert missing.status == 404
        assert missing.error["message"].endswith("not found")
    second = shared_gateway.cli("key", "create", "author")["key"]
    assert get(shared_gateway, path, second).status == 200


@pytest.mark.parametrize(
    ("wire", "is_streamed"), [*((path, False) for path in WHOLE), *((path, True) for path in STREAMS)]
)
def test_a_generation_is_there_at_once(shared_gateway: Gateway, wire: str, is_streamed: bool) -> None:
    headers = {"x-openrouter-simulate": "generation-ms=600000"}
    generation_id = order(shared_gateway, wire, headers=headers, stream=is_streamed).headers["x-generation-id"]
    told = get(shared_gateway, f"/generation?id={generation_id}", shared_gateway.key)
    assert_accepted("GenerationResponse", told.json)
    record = told.json["data"]
    line = next(line for line in shared_gateway.orders() if line["generation_id"] == generation_id)
    assert f'"total_cost":{line["cost_usd"]},'.encode() in told.body
    assert record["usage"] == record["total_cost"] > 0
    assert (record["farebox_state"], record["farebox_fare_events"]) == ("posted", line["events"])
    assert (record["model"], record["streamed"], record["is_byok"]) == (EVERY[wire]["model"], is_streamed, False)
    assert (record["provider_name"], record["latency"]) == (None, None)


def test_what_only_the_upstream_knows_is_null_until_it_says_it(shared_gateway: Gateway) -> None:
    path = f"/generation?id={generation_of(shared_gateway, simulate='generation-ms=3000')}"
    at_once = get(shared_gateway, path, shared_gateway.key).json["data"]
    assert (at_once["provider_name"], at_once["finish_reason"]) == (None, None)
    time.sleep(3.1)
    later = get(shared_gateway, path, shared_gateway.key).json["data"]
    assert (later["provider_name"], later["finish_reason"]) == ("FakeProvider", "stop")
    known = ("id", "model", "streamed", "total_cost", "usage", "tokens_prompt", "tokens_completion", "farebox_fare_usd")
    assert [at_once[name] for name in known] == [later[name] for name in known]
    assert set(at_once) == set(later)


def test_a_stream_that_is_read_to_its_last_event_has_a_cost(shared_gateway: Gateway) -> None:
    """Its fare is booked a moment after its last event: a reader that does not wait for the body's end is answered."""
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", shared_gateway.port, timeout=10)
        headers = {"authorization": f"Bearer {shared_gateway.key}", "x-openrouter-simulate": "generation-ms=60000"}
        body = json.dumps({**ORDERS["/chat/completions"], "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {**headers, "content-type": "application/json"})
        answer = connection.getresponse()
        while answer.readline() != b"data: [DONE]\n":
            pass
        told = get(shared_gateway, f"/generation?id={answer.headers['x-generation-id']}", shared_gateway.key)
        assert (told.status, told.json["data"]["farebox_state"]) == (200, "posted")
        connection.close()


def test_an_order_on_the_operators_own_key_costs_its_whole_bill(shared_gateway: Gateway) -> None:
    path = f"/generation?id={generation_of(shared_gateway, simulate='byok=0.002,generation-ms=60000')}"
    record = get(shared_gateway, path, shared_gateway.key).json["data"]
    assert (record["total_cost"], record["is_byok"]) == (0.00200255, False)


def test_a_cost_that_nobody_knows_is_neither_a_guess_nor_zero(shared_gateway: Gateway) -> None:
    generation_id = generation_of(shared_gateway, simulate="usage=missing,generation-ms=2000")
    path = f"/generation?id={generation_id}"
    told = get(shared_gateway, path, shared_gateway.key)
    assert told.status == 404
    assert "what it cost is not known yet" in told.error["message"]
    known = told.error["metadata"]
    assert (known["generation_id"], known["farebox_state"], known["model"]) == (generation_id, "open", "sim/echo")
    assert float(known["farebox_held_usd"]) > 0
    time.sleep(2.1)
    record = get(shared_gateway, path, shared_gateway.key).json["data"]
    assert record["total_cost"] == 2.55e-06
    assert (record["farebox_state"], record["farebox_fare_usd"]) == ("open", None)


def test_a_record_lacks_no_member_and_tells_nothing_of_the_operator(tmp_path: Path, upstream: HttpUpstream) -> None:
    told = {"id": "gen-1", "total_cost": 0.0001, "usage": 0.0001, "is_byok": False, "app_id": 7, "workspace_id": "w"}
    upstream.pages["/generation"] = {"data": {**told, "user_agent": "farebox"}}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.0001}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    answer = {"id": "gen-1", "object": "chat.completion", "created": 1, "model": "a/b-served", "choices": [choice]}
    upstream.answer = [json.dumps({**answer, "system_fingerprint": None, "usage": usage}).encode()]
    upstream.content_type = "application/json"
    with serve(tmp_path, upstream, 300) as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        gateway.chat(key, model="a/b")
        body = get(gateway, "/generation?id=gen-1", key).json
        assert_accepted("GenerationResponse", body)
        record = body["data"]
        assert (record["model"], record["tokens_prompt"], record["tokens_completion"]) == ("a/b-served", 1, 2)
        assert (record["app_id"], record["workspace_id"], record["user_agent"]) == (None, None, None)
        assert get(gateway, "/generation?id=gen-2", key).status == 404
        for query in ("", "?id=", "?id=a&id=b"):
            assert get(gateway, f"/generation{query}", key).status == 400


def order_of(upstream: HttpUpstream, **usage: Any) -> None:
    """Let the upstream answer orders with such a usage."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    answer = {"id": "gen-1", "object": "chat.completion", "created": 1, "model": "a/b", "choices": [choice]}
    told = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, **usage}
    upstream.answer = [json.dumps({**answer, "usage": told}).encode()]
    upstream.content_type = "application/json"


@pytest.mark.parametrize("trouble", ["down", "silent", "nonsense", "nothing"])
def test_what_the_books_know_needs_no_upstream(tmp_path: Path, upstream: HttpUpstream, trouble: str) -> None:
    with serve(tmp_path, upstream, 300) as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        upstream.is_down = trouble == "down"
        upstream.silent = "/generation" if trouble == "silent" else ""
        if trouble == "nonsense":
            upstream.pages["/generation"] = {"data": "none"}
        upstream.generation_id = "gen-1"
        order_of(upstream, cost=0.000123)
        gateway.chat(key, model="a/b")
        # A reader that waits for less than an upstream's page may take.
        headers = {"authorization": f"Bearer {key}"}
        body = gateway.request("GET", "/v1/generation?id=gen-1", headers=headers, timeout=10).json
        assert_accepted("GenerationResponse", body)
        assert (body["data"]["total_cost"], body["data"]["farebox_fare_events"]) == (0.000123, 13)
        # Where the books do not know it either, it is the upstream's trouble that is told.
        upstream.generation_id = "gen-2"
        order_of(upstream)
        gateway.chat(key, model="a/b")
        expected = {"down": 502, "silent": 502, "nonsense": 424, "nothing": 404}[trouble]
        assert get(gateway, "/generation?id=gen-2", key).status == expected


def test_an_order_that_was_refused_cost_nothing(tmp_path: Path, upstream: HttpUpstream) -> None:
    with serve(tmp_path, upstream, 300) as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        upstream.status, upstream.content_type = 400, "application/json"
        upstream.answer = [b'{"error":{"code":400,"message":"no"}}']
        refused = gateway.chat(key, model="a/b")
        body = get(gateway, f"/generation?id={refused.headers['x-generation-id']}", key).json
        assert_accepted("GenerationResponse", body)
        assert (body["data"]["total_cost"], body["data"]["farebox_state"]) == (0, "voided")
        assert body["data"]["farebox_fare_usd"] is None
