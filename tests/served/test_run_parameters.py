"""What callers of the run API may say beside a path: each parameter of the platform's document is served, without
effect for a reason, or refused by its name; none is passed over."""

import base64
import json
import re
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import pytest

from farebox.core.errors import Refusal
from farebox.platform.items import CELLS_MAX, MADE_BYTES_MAX, RECORDS_MAX, VALUES_MAX, Wanted, render
from farebox.platform.parameters import PARAMETERS, Idle, Refused, Served
from tests.gateway import Gateway, Response, eventually
from tests.served.test_runs import ACTOR, CHAT, SLOW, ask, begin, error_of, run_of

DOCUMENT: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[1] / "reference" / "apify-parameters.json").read_text()
)
LATER = {"requestId"}
"""Newer than that document, and sent by the clients."""

ITEMS: list[dict[str, Any]] = [
    {"a": 1.50, "#h": 1, "list": [{"b": 1}, {"b": 2}], "deep": {"x": {"y": 1}, "z": []}},
    {},
    {"a": 2, "list": "none"},
]


def bare(line: str) -> str:
    """Without the names of what is filled in."""
    return re.sub(r"\{\w+\}", "{}", line.replace("/v2", ""))


def test_each_parameter_of_the_platforms_document_has_a_line() -> None:
    documented = {bare(line): set(names) for line, names in DOCUMENT.items()}
    assert {bare(line): set(fates) - LATER for line, fates in PARAMETERS.items()} == documented
    assert sum(len(names) for names in documented.values()) > 200


def test_each_reason_is_said() -> None:
    fates = [fate for line in PARAMETERS.values() for fate in line.values()]
    assert all(fate.why for fate in fates if isinstance(fate, Idle | Refused))
    assert any(isinstance(fate, Served) for fate in fates)


@pytest.fixture
def key(shared_gateway: Gateway, request: pytest.FixtureRequest) -> str:
    return shared_gateway.new_key(f"{request.function.__name__} {token_hex(4)}", "--plan", "paying", "--prepaid", "1")


@pytest.fixture
def run(shared_gateway: Gateway, key: str) -> dict[str, Any]:
    """A run that left the items."""
    begun = begin(shared_gateway, key, {})
    pushed = json.dumps(ITEMS).encode().replace(b"1.5,", b"1.50,")
    assert ask(shared_gateway, key, f"/v2/datasets/{begun['defaultDatasetId']}/items", pushed).status == 201
    return begun


def filled(line: str, run: dict[str, Any]) -> tuple[str, str]:
    """A line's method, and its path with what it needs."""
    method, path = line.split(" ")
    ids = {
        "/datasets/": "defaultDatasetId",
        "/key-value": "defaultKeyValueStoreId",
        "/request": "defaultRequestQueueId",
    }
    name = next((ids[start] for start in ids if path.startswith(start)), "id")
    name = {"/actor-builds/{id}": "buildId", "/users/{id}": "userId"}.get(path, name)
    return method, "/v2" + path.replace("{id}", run[name]).replace("{actor}", "openrouter").replace("{key}", "OUTPUT")


def call(gateway: Gateway, key: str, method: str, path: str, body: bytes | None = None) -> Response:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return gateway.request(method, path, body if body or method == "GET" else b"{}", headers)


def test_what_is_refused_is_refused_by_its_name_before_anything_is_begun(
    shared_gateway: Gateway, key: str, run: dict[str, Any]
) -> None:
    hook = [{"eventTypes": ["ACTOR.RUN.SUCCEEDED"], "requestUrl": "https://example.com/"}]
    values = {"webhooks": quote(base64.b64encode(json.dumps(hook).encode())), "simplified": "true"}
    tried = 0
    for line, fates in PARAMETERS.items():
        method, path = filled(line, run)
        for name in (name for name, fate in fates.items() if isinstance(fate, Refused)):
            refused = call(shared_gateway, key, method, f"{path}?{name}={values.get(name, '1')}")
            assert error_of(refused) == (400, "invalid-value"), (line, name)
            assert refused.json["error"]["message"].startswith(f"{name}: "), (line, name)
            tried += 1
    assert tried > 30
    assert ask(shared_gateway, key, "/v2/actor-runs").json["data"]["total"] == 1


def test_what_is_of_no_effect_changes_nothing(shared_gateway: Gateway, key: str, run: dict[str, Any]) -> None:
    values = {"memory": "2048", "waitForFinish": "1", "forcePermissionLevel": "LIMITED_PERMISSIONS"}
    for line, fates in PARAMETERS.items():
        method, path = filled(line, run)
        if "/charge" in line:
            continue  # it is a member of the body, and tried where charges are
        plain = call(shared_gateway, key, method, path)
        for name in (name for name, fate in fates.items() if isinstance(fate, Idle)):
            answer = call(shared_gateway, key, method, f"{path}?{name}={values.get(name, '1')}")
            assert (answer.status, len(answer.body) > 0) == (plain.status, len(plain.body) > 0), (line, name)
            assert answer.headers["content-type"] == plain.headers["content-type"]


@pytest.mark.parametrize(
    "query",
    [
        f"webhooks={quote('W10=')}",
        "webhooks=",
        "build=latest",
        "build=0.1.1",
        "maxItems=",
        "restartOnError=true",
        "method=POST",
        "somethingElse=1",
    ],
)
def test_what_asks_for_nothing_else_is_let_pass(shared_gateway: Gateway, key: str, query: str) -> None:
    assert ask(shared_gateway, key, f"{ACTOR}/runs?{query}", {}).status == 201


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("runs", "waitForFinish=x"),
        ("runs", "method=GET"),
        ("run-sync-get-dataset-items", "format=xlsx"),
        ("run-sync-get-dataset-items", "fields=a,b&outputFields=c"),
        ("run-sync-get-dataset-items", "outputFields=c"),
        ("run-sync-get-dataset-items", "delimiter=%3B%3B&format=csv"),
        ("run-sync-get-dataset-items", "delimiter=%22"),
        ("run-sync-get-dataset-items", "clean=perhaps"),
        ("run-sync-get-dataset-items", "offset=x"),
        ("run-sync-get-dataset-items", "limit=-1"),
        ("run-sync-get-dataset-items", "desc=perhaps"),
        ("run-sync-get-dataset-items", "attachment=perhaps"),
        ("run-sync-get-dataset-items", "format=json&format=csv"),
        ("run-sync", "build=beta"),
    ],
)
def test_what_is_wrong_is_said_before_an_order_is_paid_for(
    shared_gateway: Gateway, key: str, path: str, query: str
) -> None:
    refused = ask(shared_gateway, key, f"{ACTOR}/{path}?{query}", {"requests": [CHAT]})
    assert error_of(refused) == (400, "invalid-value")
    named = [part.partition("=")[0] for part in query.split("&")]
    assert refused.json["error"]["message"].partition(":")[0] in named
    assert ask(shared_gateway, key, "/v2/actor-runs").json["data"]["total"] == 0


WHOLE = '{"a": 1.50, "#h": 1, "list": [{"b": 1}, {"b": 2}], "deep": {"x": {"y": 1}, "z": []}}'
LAST = '{"a": 2, "list": "none"}'
SERVED_ITEMS = {
    "format=jsonl": f"{WHOLE}\n{{}}\n{LAST}\n",
    "offset=2": f"[{LAST}]",
    "limit=1": f"[{WHOLE}]",
    "limit=0": f"[{WHOLE},{{}},{LAST}]",
    "desc=1": f"[{LAST},{{}},{WHOLE}]",
    "desc=true&limit=1": f"[{LAST}]",
    "bom=1": f"\ufeff[{WHOLE},{{}},{LAST}]",
    "attachment=1&limit=1": f"[{WHOLE}]",
    "fields=list,a&offset=2": '[{"list":"none","a":2}]',
    "fields=list&fields=a&offset=2": '[{"list":"none","a":2}]',
    "fields=list,a&outputFields=l,x&offset=2": '[{"l":"none","x":2}]',
    "omit=list,deep,%23h": '[{"a":1.50},{},{"a":2}]',
    "omit=list,deep&skipHidden=1": '[{"a":1.50},{},{"a":2}]',
    "fields=a&skipEmpty=1": '[{"a":1.50},{"a":2}]',
    "omit=list,deep&clean=1": '[{"a":1.50},{"a":2}]',
    "fields=a,list&unwind=list": '[{"a":1.50,"b":1},{"a":1.50,"b":2},{},{"a":2,"list":"none"}]',
    "fields=deep&unwind=deep,x&limit=1": '[{"z":[],"y":1}]',
    "fields=deep&flatten=deep&limit=1": "[{}]",
    "flatten=deep&fields=deep.x.y,deep.z&limit=1": '[{"deep.x.y":1,"deep.z":[]}]',
    "flatten=deep,a,none&omit=list,%23h&limit=1": '[{"a":1.50,"deep.x.y":1,"deep.z":[]}]',
    "format=csv&fields=a,deep&bom=0": "a,deep/x/y\r\n1.50,1\r\n,\r\n2,\r\n",
    "format=csv&fields=deep,none,a": "\ufeffdeep/x/y,none,a\r\n1,,1.50\r\n,,\r\n,,2\r\n",
    "format=csv&fields=a,none&outputFields=x,y&bom=0&offset=2": "x,y\r\n2,\r\n",
    "format=csv&fields=a,list&unwind=list&bom=0&limit=1": "a,b\r\n1.50,1\r\n1.50,2\r\n",
    "format=csv&fields=a,list&delimiter=%3B&bom=0&offset=2": "a;list\r\n2;none\r\n",
    "format=csv&fields=a,list&skipHeaderRow=1&bom=0&offset=2": "2,none\r\n",
}


def test_items_are_shaped_as_the_platform_shapes_them(shared_gateway: Gateway, key: str, run: dict[str, Any]) -> None:
    paths = (
        f"/v2/datasets/{run['defaultDatasetId']}/items",
        f"/v2/actor-runs/{run['id']}/dataset/items",
        f"{ACTOR}/runs/last/dataset/items",
    )
    for query, expected in SERVED_ITEMS.items():
        for path in paths:
            answer = ask(shared_gateway, key, f"{path}?{query}")
            assert (answer.status, answer.body.decode()) == (200, expected), query
            assert answer.headers.get("content-disposition") == ("attachment" if "attachment" in query else None)
            assert answer.headers["x-apify-pagination-total"] == "3"
    tried = {part.partition("=")[0] for query in SERVED_ITEMS for part in query.split("&")}
    fates = PARAMETERS["GET /datasets/{id}/items"]
    assert tried == {name for name, fate in fates.items() if isinstance(fate, Served)}


def test_what_unwinding_and_flattening_make_is_bounded() -> None:
    many = b'{"list":[' + b",".join([b"0"] * (RECORDS_MAX + 1)) + b"]}"
    long = (
        b'{"' + b"n" * 20_000 + b'":{' + b",".join(b'"%d":1' % n for n in range(MADE_BYTES_MAX // 20_000 + 1)) + b"}}"
    )
    short = b"{" + b",".join(b'"%x":1' % n for n in range(VALUES_MAX + 1)) + b"}"
    wide = [b'{"%d":1}' % n for n in range(int(CELLS_MAX**0.5) + 1)]
    # A list of a few may be unwound; so may an empty one, of which nothing comes.
    assert render([b'{"list":[0,[]],"a":1}', b'{"list":[]}'], Wanted(unwind=("list",)))[0] == (
        b'[{"list":0,"a":1},{"list":[],"a":1}]'
    )
    for items, wanted, name in (
        ([many], Wanted(unwind=("list",)), "unwind"),
        ([b'{"a":{"b":' + b'{"b":' * 5000 + b"1" + b"}" * 5000 + b"}}"], Wanted(flatten=("a",)), "flatten"),
        ([long], Wanted(flatten=("n" * 20_000,)), "limit"),
        ([long], Wanted("csv"), "limit"),
        ([b'{"a":1}' for _ in range(3000)], Wanted(fields=("a",), output_fields=("x" * 100_000,)), "limit"),
        (wide, Wanted("csv"), "limit"),
        ([short], Wanted("csv"), "limit"),
        ([b'{"a":{' + short[1:] + b"}"], Wanted(flatten=("a",)), "limit"),
    ):
        with pytest.raises(Refusal, match=f" {name}: ") as refused:
            render(items, wanted)
        assert refused.value.status == 400


def test_runs_are_listed_by_status_and_start(shared_gateway: Gateway, key: str) -> None:
    done = [begin(shared_gateway, key, {"requests": [CHAT]}) for _ in range(2)]
    aborted = begin(shared_gateway, key, {"requests": [SLOW] * 40, "concurrency": 1}, "")
    ask(shared_gateway, key, f"/v2/actor-runs/{aborted['id']}/abort", b"")
    ended = ask(shared_gateway, key, f"{ACTOR}/runs/last?waitForFinish=60").json["data"]
    assert (ended["id"], ended["status"]) == (aborted["id"], "ABORTED")

    def listed(query: str, path: str = "/v2/actor-runs") -> list[str]:
        page = ask(shared_gateway, key, f"{path}?{query}").json["data"]
        assert page["total"] == page["count"]
        return [run["id"] for run in page["items"]]

    ids = [run["id"] for run in done]
    assert listed("status=SUCCEEDED") == listed("status=SUCCEEDED", f"{ACTOR}/runs") == ids
    assert listed("status=SUCCEEDED,ABORTED&desc=1") == [aborted["id"], *reversed(ids)]
    assert listed("status=SUCCEEDED&status=ABORTED") == [*ids, aborted["id"]]
    assert listed("status=READY") == []
    first, second = (quote(run["startedAt"]) for run in done)
    assert ids[0] in listed(f"startedBefore={first}")
    assert aborted["id"] not in listed(f"startedBefore={second}")
    assert aborted["id"] in listed(f"startedAfter={second}")
    assert listed("startedAfter=2999-01-01T00:00:00Z") == listed("startedBefore=2020-01-01") == []
    assert listed("limit=0") == [*ids, aborted["id"]]
    for query in ("status=DONE", "startedAfter=yesterday", "startedBefore=1", "desc=maybe"):
        refused = ask(shared_gateway, key, f"/v2/actor-runs?{query}")
        assert error_of(refused) == (400, "invalid-value")
        assert refused.json["error"]["message"].startswith(query.partition("=")[0])


def test_the_last_run_is_the_last_of_its_kind(shared_gateway: Gateway, key: str) -> None:
    begun = run_of(ask(shared_gateway, key, f"{ACTOR}/runs?waitForFinish=60", {}, x_apify_request_origin="CLI"))
    last = begin(shared_gateway, key, {"requests": [CHAT]})
    going = begin(shared_gateway, key, {"requests": [SLOW] * 40, "concurrency": 1}, "")
    paths = [line.partition("/runs/last")[2] for line in PARAMETERS if "/runs/last" in line]
    paths = [path.replace("{key}", "INPUT") for path in paths]
    assert len(paths) == 8
    for query, run in (("status=SUCCEEDED", last), ("origin=CLI", begun), ("status=RUNNING&origin=API", going)):
        found = ask(shared_gateway, key, f"{ACTOR}/runs/last?{query}").json["data"]
        assert found["id"] == run["id"], query
        for path in paths[1:]:
            answer = ask(shared_gateway, key, f"{ACTOR}/runs/last{path}?{query}")
            own = ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}{path}")
            assert answer.status == own.status == 200, path
            if run != going:
                assert answer.body == own.body, path
    for path in paths:
        refused = ask(shared_gateway, key, f"{ACTOR}/runs/last{path}?status=TIMED-OUT")
        assert error_of(refused) == (404, "record-not-found")
    ask(shared_gateway, key, f"/v2/actor-runs/{going['id']}/abort", b"")
    eventually(lambda: ask(shared_gateway, key, f"{ACTOR}/runs/last").json["data"]["status"] == "ABORTED")


def test_keys_are_listed_page_by_page_and_by_prefix(shared_gateway: Gateway, key: str, run: dict[str, Any]) -> None:
    store = f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}"
    headers = {"authorization": f"Bearer {key}", "content-type": "text/html"}
    for name in ("A'1", "A2", "B"):
        assert shared_gateway.request("PUT", f"{store}/records/{quote(name)}", b"<p>", headers).status == 201

    def listed(query: str) -> tuple[list[str], str | None]:
        page = ask(shared_gateway, key, f"{store}/keys?{query}").json["data"]
        assert page["isTruncated"] == (page["nextExclusiveStartKey"] is not None)
        return [each["key"] for each in page["items"]], page["nextExclusiveStartKey"]

    assert listed("") == listed("limit=0") == listed("limit=5000") == (["A'1", "A2", "B", "OUTPUT"], None)
    assert listed("prefix=A") == (["A'1", "A2"], None)
    assert listed("prefix=A&limit=1") == (["A'1"], "A'1")
    assert listed("prefix=A&exclusiveStartKey=A%271") == (["A2"], None)
    for each in ask(shared_gateway, key, f"{store}/keys").json["data"]["items"]:
        assert each["recordPublicUrl"].startswith(f"http://127.0.0.1:{shared_gateway.port}{store}/records/")
        path = each["recordPublicUrl"].removeprefix(f"http://127.0.0.1:{shared_gateway.port}")
        shown = ask(shared_gateway, key, path)
        assert (shown.status, "content-disposition" in shown.headers) == (200, False)
        assert ask(shared_gateway, key, f"{path}?attachment=1").headers["content-disposition"] == "attachment"


def test_a_log_is_text_or_as_it_was_written(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {"requests": [{**CHAT, "model": "sim/\x1b[31mnobody\x1b[0m\x07"}]})
    path = f"/v2/actor-runs/{run['id']}/log"
    plain, raw = (ask(shared_gateway, key, f"{path}{query}") for query in ("", "?raw=1"))
    assert "the model `sim/nobody`" in plain.body.decode()
    assert "the model `sim/\x1b[31mnobody\x1b[0m\x07`" in raw.body.decode()
    assert "content-disposition" not in plain.headers
    kept = ask(shared_gateway, key, f"/v2/logs/{run['id']}?download=1&stream=0")
    assert (kept.body, kept.headers["content-disposition"]) == (plain.body, "attachment")
    assert error_of(ask(shared_gateway, key, f"{path}?stream=perhaps")) == (400, "invalid-value")


def test_an_update_says_what_it_cannot_do(shared_gateway: Gateway, key: str, run: dict[str, Any]) -> None:
    going = begin(shared_gateway, key, {"requests": [SLOW] * 40, "concurrency": 1}, "")

    def update(of: dict[str, Any], **members: Any) -> Response:
        return call(shared_gateway, key, "PUT", f"/v2/actor-runs/{of['id']}", json.dumps(members).encode())

    for of, member, value in (
        (run, "runId", "another"),
        (run, "generalAccess", "ANYONE_WITH_ID_CAN_READ"),
        (going, "isStatusMessageTerminal", True),
    ):
        refused = update(of, statusMessage="x", **{member: value})
        assert error_of(refused) == (400, "invalid-value")
        assert refused.json["error"]["message"].startswith(f"{member}: ")
        assert ask(shared_gateway, key, f"/v2/actor-runs/{of['id']}").json["data"]["statusMessage"] != "x"
    told = {"runId": run["id"], "isStatusMessageTerminal": True, "generalAccess": "RESTRICTED"}
    answer = update(run, statusMessage="the last", **told).json["data"]
    assert (answer["statusMessage"], answer["isStatusMessageTerminal"]) == ("the last", True)
    assert update(going, statusMessage="so far", isStatusMessageTerminal=False).status == 200
    ask(shared_gateway, key, f"/v2/actor-runs/{going['id']}/abort", b"")
