"""What is one account's is no other's: each endpoint that takes the id of something an account owns."""

import getpass
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from farebox.bookkeeping import FORMS as LEDGERS
from farebox.console.site import PLACES
from farebox.core.formats.table import FORMATS, with_aliases
from farebox.web.openapi import document
from tests.gateway import Gateway, Response
from tests.served.test_console import Browser, Live
from tests.served.test_formats import EVERY, order

IDS = {
    ("/generation", "id"),
    *((name, "idempotency-key") for name, _ in with_aliases(FORMATS)),
    ("/responses/compact", "idempotency-key"),
    ("/keys/{hash}", "hash"),
    ("/admin/accounts/{account}", "account"),
    *((f"/admin/accounts/{{account}}/{of}", "account") for of in ("end-users", "trail", "trail{ending}")),
    ("/admin/accounts/{account}/statement{ledger}", "account"),
    *((f"/admin/alerts/{{alert}}{of}", "alert") for of in ("", "/test", "/deliveries")),
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

NO_IDS = {"author", "slug", "version", "model", "offset", "limit", "format", "ending", "ledger"}
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


MANAGED = [
    (path, method)
    for path, methods in document()["paths"].items()
    for method in methods
    if path.startswith("/admin/") and method != "servers" and ("{account}" in path or "{alert}" in path)
]


def test_a_manager_of_one_account_learns_nothing_of_another(
    shared_gateway: Gateway, strangers: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    """By whatever path names an account or a receiver: it is refused another's as if there were none."""
    gateway, name = shared_gateway, request.node.name
    managers = [
        str(gateway.cli("management-key", "create", "--label", "x", "--account", f"{name} {who}")["key"])
        for who in ("mine", "others")
    ]

    def ask(method: str, path: str, key: str, body: object = None) -> Response:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        return gateway.request(method.upper(), quote(path, safe="/?=&"), json.dumps(body or {}).encode(), headers)

    mine, others = managers
    receiver = ask("post", "/admin/alerts", mine, {"url": "https://hooks.example/x", "label": "mine"}).json["data"][
        "id"
    ]
    order = gateway.chat(strangers[0]).headers["x-generation-id"]
    for path, method in MANAGED:
        values = {"ending": ".csv", "ledger": ".journal", "id": order}
        own, nobodys = (
            path.format(**values, account=account, alert=alert)
            for account, alert in ((f"{name} mine", receiver), ("nobody at all", 9_999_999))
        )
        refused, unknown = (ask(method, each, others) for each in (own, nobodys))
        assert refused.status in (403, 404), (method, path, refused.body)
        assert refused.body == unknown.body.replace(b"9999999", str(receiver).encode()), (method, path)
        if method == "get":
            assert ask(method, own, mine).status == 200, path
    foreign = [{"digest": "0" * 64, "label": "x"}]
    for path, body in (
        ("/admin/alerts", {"url": "https://hooks.example/y"}),
        ("/admin/keys/import", {"keys": foreign}),
    ):
        answers = [ask("post", path, others, {**body, "account": of}) for of in (f"{name} mine", "nobody at all")]
        assert [each.status for each in answers] == [403, 403]
        assert answers[0].body == answers[1].body
    assert ask("delete", f"/admin/alerts/{receiver}", mine).status == 200
    # The lists of everything are of one's own alone; and nobody is found by a name that is not told.
    for path in ("trail", "trail.csv", "orders", "totals?by=account", "statement.beancount", "alerts"):
        assert f"{name} mine" not in ask("get", f"/admin/{path}", others).body.decode().replace("_", " "), path
    (made,) = ask("get", "/admin/trail?what=account.opened", mine).json["data"]
    assert made["who"] == "the operator"
    for who, found in ((getpass.getuser(), []), ("operator", [made])):
        assert ask("get", f"/admin/trail?what=account.opened&who={who}", mine).json["data"] == found


def test_the_console_shows_nothing_of_another_account(
    shared_gateway: Gateway, strangers: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    gateway, name = shared_gateway, request.node.name
    headers = {"x-farebox-end-user": "ann-of-mine", "x-farebox-tags": "team=of-mine"}
    generation = order(gateway, "/chat/completions", strangers[0], headers).headers["x-generation-id"]
    manager = str(gateway.cli("management-key", "create", "--label", "x", "--account", f"{name} others")["key"])
    own = Browser(gateway, strangers[0])
    (placed,), (key,) = own.rows("/orders.json"), own.rows("/keys.json")
    operator = Browser(gateway, str(gateway.cli("management-key", "create", "--label", "all")["key"]))
    (account,) = [
        row["id"] for row in operator.rows(f"/accounts.json?search={name}") if row["account"] == f"{name} mine"
    ]
    values = {"key": key["id"], "account": account, "order": placed["order"], "generation": generation}
    queries = [
        f"?account_id={account}",
        f"?key_id={key['id']}",
        "?end_user=ann-of-mine&by=end_user",
        "?tag=team=of-mine",
    ]
    for signed_in in (strangers[1], manager):
        browser = Browser(gateway, signed_in)
        for place in (each for each in PLACES if each.show is not None):
            for form in LEDGERS.values() if "{form}" in place.path else [""]:
                path = place.path.format(**values, form=form)
                for query in ["", *queries] if "{form}" in place.path or "{" not in place.path else [""]:
                    shown = browser.get(f"{path}{query}")
                    told = shown.body.decode().replace("ann-of-mine", "", query.count("ann-of-mine") * 2)
                    assert f"{name} mine" not in told, (path, query, told)
                    assert "{" not in place.path or "{form}" in place.path or shown.status in (403, 404), path
        for query in queries[:2]:
            for path in ("/statement", "/invoice", "/statement/books/hledger", "/end-users", "/orders", "/spent"):
                if "key_id" not in query or path in ("/orders", "/spent"):
                    assert browser.get(path + query).status == 404, (path, query)
        with Live(browser, queries[1]) as live:
            assert live.status == 404
        for each in ("/end-users.json", "/orders.json", "/live.json", "/spent.json?by=tag:team", "/reconcile.json"):
            assert browser.rows(each) == [], each
