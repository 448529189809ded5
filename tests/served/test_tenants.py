"""What is one account's is no other's: each endpoint that takes the id of something an account owns."""

from pathlib import Path

import pytest

from farebox.core.formats.table import FORMATS, with_aliases
from farebox.web.openapi import document
from tests.gateway import Gateway, Response
from tests.served.test_formats import EVERY, order

IDS = {
    ("/generation", "id"),
    *((name, "idempotency-key") for name, _ in with_aliases(FORMATS)),
    ("/responses/compact", "idempotency-key"),
    ("/keys/{hash}", "hash"),
    ("/admin/accounts/{account}", "account"),
    ("/admin/top-ups", "idempotency-key"),
}
"""The names of what accounts own, wherever a request can say one. Each has a test below, but top-ups, which are for who
manages all accounts, and the key of a compaction, which is an order for a response; what stands below `/v2` has one
test for all."""

TESTED = {
    "test_videos.py": {("/videos/{job}", "job"), ("/videos/{job}/content", "job")},
    "test_stored_responses.py": {(f"/responses/{{id}}{of}", "id") for of in ("", "/cancel", "/input_items")},
    "test_bills.py": {
        ("/orders/{id}", "id"),
        ("/admin/orders/{id}", "id"),
        ("/admin/accounts/{account}/orders/{id}", "id"),
        *((f"/admin/accounts/{{account}}/{of}", "account") for of in ("orders", "statement", "totals", "orders/{id}")),
        *((f"/admin/accounts/{{account}}/{of}{{ending}}", "account") for of in ("orders", "statement", "totals")),
    },
    "test_bringing.py": {
        ("/keys/{hash}/rotate", "hash"),
        ("/admin/accounts/{account}/close", "account"),
        ("/admin/accounts/{account}/reopen", "account"),
    },
}
"""Those that are tested with what they are of."""

NO_IDS = {"author", "slug", "version", "model", "offset", "limit", "format", "ending"}
"""Parameters of lists that are the same for everybody, and of what is looked for among an account's own: presets."""


def test_no_endpoint_takes_an_id_without_a_test_here() -> None:
    taken = {
        (path, parameter["name"].lower())
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        if method != "servers" and not path.startswith("/v2/")
        for parameter in operation.get("parameters", [])
        if parameter["in"] != "query" or path == "/generation"
    }
    assert {each for each in taken if each[1] not in NO_IDS and not each[1].startswith("x-")} == IDS.union(
        *TESTED.values()
    )
    assert all((Path(__file__).parent / name).exists() for name in TESTED)


@pytest.fixture
def strangers(shared_gateway: Gateway, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The keys of two accounts."""
    name = request.node.name
    mine, others = (
        shared_gateway.new_key(f"{name} {who}", "--plan", "paying", "--prepaid", "1") for who in ("mine", "others")
    )
    return mine, others


@pytest.mark.parametrize("simulate", ["generation-ms=0", "generation-ms=60000", "usage=missing,generation-ms=60000"])
def test_a_generation_is_found_by_its_own_account_alone(
    shared_gateway: Gateway, strangers: tuple[str, str], request: pytest.FixtureRequest, simulate: str
) -> None:
    """When the upstream has its record, when only the books know of it, and when nobody knows what it cost."""
    mine, others = strangers
    answer = shared_gateway.chat(mine, simulate)
    path = f"/v1/generation?id={answer.headers['x-generation-id']}"
    own = shared_gateway.request("GET", path, headers={"x-api-key": mine})
    assert own.status == (404 if "missing" in simulate else 200)
    assert answer.headers["x-generation-id"] in own.body.decode()
    refused = shared_gateway.request("GET", path, headers={"x-api-key": others})
    nobodys = shared_gateway.request("GET", "/v1/generation?id=gen-0", headers={"x-api-key": others})
    # Nor does the refusal tell that there is one.
    assert refused.body.replace(answer.headers["x-generation-id"].encode(), b"gen-0") == nobodys.body
    assert (refused.status, nobodys.status) == (404, 404)
    # Another key of the same account is no stranger.
    second = shared_gateway.cli("key", "create", f"{request.node.name} mine")["key"]
    assert shared_gateway.request("GET", path, headers={"x-api-key": second}).status == own.status


@pytest.mark.parametrize("path", FORMATS)
def test_an_idempotency_key_stands_for_its_own_accounts_order_alone(
    shared_gateway: Gateway, strangers: tuple[str, str], path: str
) -> None:
    headers = {"idempotency-key": f"the same {path}"}
    first, other, again = (order(shared_gateway, path, key, headers) for key in (*strangers, strangers[0]))
    assert {answer.status for answer in (first, other, again)} == {202 if FORMATS[path].DESCRIBED.begins_job else 200}
    names = [answer.headers.get("x-generation-id") or answer.json["id"] for answer in (first, other, again)]
    assert names[0] == names[2] != names[1]
    assert "idempotency-replayed" not in other.headers
    assert len(EVERY) == len(FORMATS)


def test_what_an_account_has_and_spent_is_told_to_it_alone(shared_gateway: Gateway, strangers: tuple[str, str]) -> None:
    mine, others = strangers
    shared_gateway.chat(mine)
    for path, member in (("/v1/credits", "total_usage"), ("/v1/key", "usage")):
        told = [
            shared_gateway.request("GET", path, headers={"x-api-key": key}).json["data"][member]
            for key in (mine, others)
        ]
        assert told == [0.00001, 0]


RUNS = [
    (path, method)
    for path, methods in document()["paths"].items()
    for method in methods
    if path.startswith("/v2/") and "{id}" in path and method != "servers"
]


def test_a_run_and_what_it_left_are_its_own_accounts_alone(shared_gateway: Gateway, strangers: tuple[str, str]) -> None:
    """Whatever is asked under its id: to another account it is as unknown as one that never was."""

    def ask(method: str, path: str, key: str) -> Response:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        return shared_gateway.request(method.upper(), path, b"{}" if method in ("post", "put") else None, headers)

    mine, others = strangers
    run = ask("post", "/v2/actors/openrouter/runs?waitForFinish=60", mine).json["data"]
    ids = {"builds": run["buildId"], "users": run["userId"]}
    for path, method in RUNS:
        if path == "/v2/actor-builds/{id}":
            continue  # the one build is everybody's
        whole = path.replace("{id}", next((each for name, each in ids.items() if name in path), run["id"]))
        whole = whole.replace("{key}", "OUTPUT")
        refused = ask(method, whole, others)
        assert (refused.status, refused.json["error"]["type"]) == (404, "record-not-found"), (method, path)
        if method == "get":
            assert ask(method, whole, mine).status == 200, path


def test_a_key_and_an_account_are_managed_by_their_own_managers_alone(
    shared_gateway: Gateway, strangers: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    mine, others = (
        str(shared_gateway.cli("management-key", "create", "--label", "x", "--account", f"{name} {who}")["key"])
        for who in ("mine", "others")
    )
    (key,) = shared_gateway.request("GET", "/v1/keys", headers={"x-api-key": mine}).json["data"]
    workspace = f"/admin/accounts/{key['workspace_id']}"
    for path, status in (
        (f"/v1/keys/{key['hash']}", 404),
        (f"/v1/activity?api_key_hash={key['hash']}", 404),
        (workspace, 403),
    ):
        assert shared_gateway.request("GET", path, headers={"x-api-key": mine}).status == 200, path
        assert shared_gateway.request("GET", path, headers={"x-api-key": others}).status == status, path
