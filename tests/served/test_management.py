"""Managing accounts and keys over HTTP: in OpenRouter's shapes, with its SDK, and in Farebox's own."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from openrouter import OpenRouter, errors

from tests.gateway import Gateway, Response, eventually


class Manager:
    """Who holds a management key, of one account or of all."""

    def __init__(self, gateway: Gateway, *account: str) -> None:
        self.gateway = gateway
        self.key = str(gateway.cli("management-key", "create", "--label", "tests", *account)["key"])

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Response:
        sent = {"authorization": f"Bearer {key or self.key}", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        return self.gateway.request(method, path, data, sent)

    def account(self, **terms: Any) -> dict[str, Any]:
        answer = self.ask("POST", "/admin/accounts", {"name": token_hex(6), "plan": "paying", **terms})
        assert answer.status == 201, answer.body
        data: dict[str, Any] = answer.json["data"]
        return data


@pytest.fixture
def manager(shared_gateway: Gateway) -> Iterator[Manager]:
    yield Manager(shared_gateway)
    shared_gateway.audit()


@pytest.fixture
def sdk(manager: Manager) -> Iterator[OpenRouter]:
    with OpenRouter(server_url=manager.gateway.base, api_key=manager.key) as client:
        yield client


# Keys


def test_a_key_lives_through_openrouters_sdk(manager: Manager, sdk: OpenRouter) -> None:
    account = manager.account(prepaid_usd=1)
    made = sdk.api_keys.create(
        name="production",
        limit=0.5,
        limit_reset="monthly",
        expires_at=datetime(2099, 1, 1, tzinfo=UTC),
        workspace_id=account["id"],
    )
    assert made.key.startswith("sk-fb-")
    assert (made.data.name, made.data.limit, made.data.limit_reset) == ("production", 0.5, "monthly")
    assert made.data.workspace_id == account["id"]
    assert manager.gateway.chat(made.key).status == 200
    read = sdk.api_keys.get(hash=made.data.hash)
    assert (read.data.usage, read.data.usage_monthly, read.data.limit_remaining) == (0.00001, 0.00001, 0.49999)
    assert read.data.expires_at
    listed = sdk.api_keys.list(workspace_id=account["id"]).data
    assert [each.hash for each in listed] == [made.data.hash]
    assert listed[0].last_used_at
    changed = sdk.api_keys.update(hash=made.data.hash, name="staging", limit=0.00002, limit_reset="daily")
    assert (changed.data.name, changed.data.limit, changed.data.limit_reset) == ("staging", 0.00002, "daily")
    assert changed.data.updated_at
    statuses = [manager.gateway.chat(made.key, max_tokens=20).status for _ in range(3)]
    assert statuses[-1] == 402
    assert sdk.api_keys.update(hash=made.data.hash, disabled=True).data.disabled
    eventually(lambda: manager.gateway.chat(made.key).status == 401, 2)
    assert sdk.api_keys.update(hash=made.data.hash, disabled=False, limit=None).data.limit is None
    eventually(lambda: manager.gateway.chat(made.key).status == 200, 2)
    sdk.api_keys.delete(hash=made.data.hash)
    with pytest.raises(errors.NotFoundResponseError):
        sdk.api_keys.get(hash=made.data.hash)
    eventually(lambda: manager.gateway.chat(made.key).status == 401, 2)


def test_a_key_that_names_no_account_is_the_only_ones_or_the_one_called_default(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        manager = Manager(gateway)
        with OpenRouter(server_url=gateway.base, api_key=manager.key) as client:
            made = client.api_keys.create(name="first")
            assert gateway.chat(made.key).status == 200
            assert len(gateway.orders("demo")) == 1
            manager.account(name="other")
            with pytest.raises(errors.BadRequestResponseError, match="there are 2 accounts, and none is called `def"):
                client.api_keys.create(name="second")
            account = manager.account(name="default", prepaid_usd=1)
            assert client.api_keys.create(name="third").data.workspace_id == account["id"]
            owners = [each.workspace_id for each in client.api_keys.list().data if each.name in ("first", "third")]
            assert sorted(owners) == sorted((made.data.workspace_id, account["id"]))


def test_every_answer_is_as_documented(manager: Manager) -> None:
    account = manager.account(prepaid_usd=1)
    made = manager.ask("POST", "/api/v1/keys", {"name": "a", "workspace_id": account["id"]})
    assert made.status == 201
    listed = manager.ask("GET", f"/v1/keys?workspace_id={account['id']}").json["data"]
    assert listed == [made.json["data"]]
    for body in (made.json["data"], manager.ask("GET", f"/v1/keys/{made.json['data']['hash']}").json["data"]):
        for name in (
            "hash name label disabled limit limit_remaining limit_reset include_byok_in_limit usage usage_daily"
            " usage_weekly usage_monthly byok_usage byok_usage_daily byok_usage_weekly byok_usage_monthly created_at"
            " updated_at creator_user_id workspace_id"
        ).split():
            assert name in body


def test_keys_are_listed_page_by_page_and_disabled_ones_only_when_asked(manager: Manager) -> None:
    account = manager.account()
    keys = f"/api/v1/keys?workspace_id={account['id']}"
    hashes = [
        manager.ask("POST", "/api/v1/keys", {"name": str(number), "workspace_id": account["id"]}).json["data"]["hash"]
        for number in range(103)
    ]
    assert [each["hash"] for each in manager.ask("GET", keys).json["data"]] == hashes[:100]
    assert [each["hash"] for each in manager.ask("GET", f"{keys}&offset=100").json["data"]] == hashes[100:]
    manager.ask("PATCH", f"/api/v1/keys/{hashes[0]}", {"disabled": True})
    manager.ask("DELETE", f"/api/v1/keys/{hashes[1]}")
    assert [each["hash"] for each in manager.ask("GET", keys).json["data"]] == hashes[2:102]
    assert manager.ask("GET", f"{keys}&include_disabled=true").json["data"][0]["hash"] == hashes[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "name:"),
        ({"name": ""}, "name:"),
        ({"name": "x" * 201}, "name"),
        ({"name": 5}, "name:"),
        ({"name": "a", "limit": -1}, "usd_total:"),
        ({"name": "a", "limit": 1e30}, "limit:"),
        ({"name": "a", "limit": 1e-300}, "limit:"),
        ({"name": "a", "limit": "many"}, "limit:"),
        ({"name": "a", "limit_reset": "yearly"}, "limit_reset:"),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expiry must lie in the future"),
        ({"name": "a", "expires_at": "2099-01-01T00:00:00+02:00"}, "expires_at:"),
        ({"name": "a", "expires_at": "soon"}, "expires_at:"),
        ({"name": "a", "farebox_cache_seconds": -1}, "farebox_cache_seconds:"),
        ({"name": "a", "farebox_cache_seconds": 1.5}, "farebox_cache_seconds:"),
        ({"name": "a", "farebox_cache_seconds": 10**9}, "farebox_cache_seconds:"),
        ({"name": "a", "workspace_id": "not-one"}, "workspace_id:"),
        ({"name": "a", "farebox_limits": {"requests_per_minute": 0}}, "requests_per_minute:"),
        ({"name": "a", "farebox_limits": {"requests": 1}}, "farebox_limits.requests:"),
        ({"name": "a", "farebox_limits": {"models": "x"}}, "models:"),
        ({"name": "a", "farebox_limits": 1}, "farebox_limits:"),
        ([], ""),
    ],
)
def test_what_is_wrong_with_a_key_is_named_and_none_is_made(manager: Manager, body: Any, said: str) -> None:
    account = manager.account()
    sent = {"workspace_id": account["id"], **body} if isinstance(body, dict) else body
    answer = manager.ask("POST", "/api/v1/keys", sent)
    assert answer.status == 400, answer.body
    assert said in answer.error["message"]
    assert manager.ask("GET", f"/api/v1/keys?workspace_id={account['id']}").json["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 500, "name": "x" * 300},
        {"limit": 500, "farebox_cache_seconds": -1},
        {"limit": 500, "farebox_limits": {"requests_per_minute": 0}},
        {"name": "renamed", "limit_reset": "yearly"},
        {"disabled": True, "limit": -1},
    ],
)
def test_a_change_of_a_key_that_is_refused_changes_nothing(manager: Manager, body: Any) -> None:
    sent = {"workspace_id": manager.account()["id"], "name": "a", "limit": 5}
    path = f"/api/v1/keys/{manager.ask('POST', '/api/v1/keys', sent).json['data']['hash']}"
    before = manager.ask("GET", path).json
    assert manager.ask("PATCH", path, body).status == 400
    assert manager.ask("GET", path).json == before


def test_what_is_made_with_limits_is_never_there_without_them(gateway: Gateway) -> None:
    gateway.cli("account", "create", "a", "--plan", "paying")
    manager = Manager(gateway)
    cut = "CREATE TRIGGER cut BEFORE INSERT ON allowance BEGIN SELECT RAISE(ABORT, 'cut'); END"
    with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db")) as file:
        # As where the process is killed there.
        file.execute(cut)
    before = gateway.cli("account", "list"), gateway.cli("key", "list")
    key = {"name": "k", "limit": 1, "workspace_id": manager.ask("GET", "/admin/accounts").json["data"][0]["id"]}
    assert manager.ask("POST", "/api/v1/keys", key).status == 424
    opened = {"name": "b", "plan": "paying", "limits": {"usd_per_day": 1}}
    assert manager.ask("POST", "/admin/accounts", opened).status == 424
    assert gateway.run("key", "create", "a", "usd_per_day=1").returncode != 0
    assert (gateway.cli("account", "list"), gateway.cli("key", "list")) == before


def test_a_change_of_an_account_that_is_refused_changes_nothing(manager: Manager) -> None:
    path, other = f"/admin/accounts/{manager.account(prepaid_usd=1)['id']}", manager.account()
    before = manager.ask("GET", path).json
    for method, where, body in (
        ("PATCH", path, {"plan": "free", "limits": {"usd_per_day": 1}, "low_balance_usd": 3, "name": other["name"]}),
        ("PATCH", path, {"plan": "free", "low_balance_usd": 3, "limits": {"usd_per_day": -1}}),
        ("PATCH", path, {"plan": "free", "low_balance_usd": 3, "name": "-"}),
        ("POST", f"{path}/close", {"reason": "x" * 501}),
        ("POST", f"{path}/close", {"reason": " "}),
    ):
        answer = manager.ask(method, where, body)
        assert (answer.status, manager.ask("GET", path).json) == (400, before), answer.body


def test_answers_to_a_keys_orders_are_kept_as_its_manager_says(manager: Manager) -> None:
    account = manager.account(prepaid_usd=1)
    given = {"name": "a", "workspace_id": account["id"], "farebox_cache_seconds": 60}
    made = manager.ask("POST", "/api/v1/keys", given).json["data"]
    assert made["farebox_cache_seconds"] == 60
    path = f"/api/v1/keys/{made['hash']}"
    for change, found in (
        ({"name": "b"}, 60),
        ({"farebox_cache_seconds": 5}, 5),
        ({"farebox_cache_seconds": None}, None),
    ):
        assert manager.ask("PATCH", path, change).json["data"]["farebox_cache_seconds"] == found
        assert manager.ask("GET", path).json["data"]["farebox_cache_seconds"] == found


def test_limits_beside_openrouters_one(manager: Manager) -> None:
    account = manager.account(prepaid_usd=1, limits={"models": ["sim/*"], "usd_per_month": 0.5})
    assert account["limits"] == {"models": ["sim/*"], "usd_per_month": "0.5"}
    body = {"name": "a", "workspace_id": account["id"], "limit": 0.25, "farebox_limits": {"requests_per_minute": 1}}
    made = manager.ask("POST", "/api/v1/keys", body).json
    assert made["data"]["farebox_limits"] == {"requests_per_minute": 1, "usd_total": 0.25}
    assert manager.gateway.chat(made["key"]).status == 200
    assert manager.gateway.chat(made["key"]).status == 429
    own = manager.ask("GET", "/api/v1/key", key=made["key"]).json["data"]
    assert (own["limit"], own["limit_remaining"], own["limit_reset"]) == (0.25, 0.24999, None)
    assert own["rate_limit"]["requests"] == 1
    path = f"/api/v1/keys/{made['data']['hash']}"
    daily = manager.ask("PATCH", path, {"farebox_limits": {"usd_per_day": 0.5}, "limit": 0.2}).json["data"]
    assert daily["farebox_limits"] == {"requests_per_minute": 1, "usd_total": 0.2, "usd_per_day": 0.5}
    again = manager.ask("PATCH", path, {"limit": 0.25, "farebox_limits": {"usd_per_day": None}}).json["data"]
    assert again["farebox_limits"] == made["data"]["farebox_limits"]
    path = f"/admin/accounts/{account['name']}"
    lowered = manager.ask("PATCH", path, {"limits": {"usd_per_month": 0.1, "models": None}}).json["data"]
    assert lowered["limits"] == {"usd_per_month": "0.1"}
    own = manager.ask("GET", "/api/v1/key", key=made["key"]).json["data"]
    assert (own["limit"], own["limit_remaining"], own["limit_reset"]) == (0.1, 0.09999, "monthly")
    read = manager.ask("GET", f"/admin/accounts/{account['id']}").json["data"]
    assert (read["used"]["usd_per_month"], read["usage_daily"]) == ("0.00001", "0.00001")
    assert read["balance_usd"] == "0.99999"


# Who may


def test_a_callers_key_manages_nothing_and_a_managers_orders_nothing(manager: Manager) -> None:
    key = manager.gateway.new_key(token_hex(6), "--plan", "paying", "--prepaid", "1")
    digest = "0" * 64
    asked = [
        ("GET", "/api/v1/keys"),
        ("POST", "/v1/keys"),
        ("GET", f"/api/v1/keys/{digest}"),
        ("PATCH", f"/api/v1/keys/{digest}"),
        ("DELETE", f"/api/v1/keys/{digest}"),
        ("GET", "/api/v1/activity"),
        ("GET", "/admin/accounts"),
        ("POST", "/admin/accounts"),
        ("GET", "/admin/accounts/demo"),
        ("PATCH", "/admin/accounts/demo"),
        ("POST", "/admin/top-ups"),
    ]
    for method, path in asked:
        assert manager.ask(method, path, {}, key=key).status == 403
        for nobody in ("sk-fb-nobody", "sk-fb-management-nobody", manager.key[:-1], "sk-or-x"):
            assert manager.ask(method, path, {}, key=nobody).status == 401
    refused = manager.gateway.chat(manager.key)
    assert refused.status == 401
    assert "manages" in refused.error["message"]
    manager.gateway.cli("management-key", "revoke", manager.key)
    assert manager.ask("GET", "/admin/accounts").status == 401


def test_a_managers_key_of_one_account_sees_no_other(manager: Manager) -> None:
    own, other = manager.account(prepaid_usd=1), manager.account(prepaid_usd=1)
    limited = Manager(manager.gateway, "--account", own["name"])
    made = limited.ask("POST", "/api/v1/keys", {"name": "own"}).json
    assert made["data"]["workspace_id"] == own["id"]
    foreign = manager.ask("POST", "/api/v1/keys", {"name": "other", "workspace_id": other["id"]}).json
    assert [each["name"] for each in limited.ask("GET", "/api/v1/keys").json["data"]] == ["own"]
    assert limited.ask("GET", f"/api/v1/keys?workspace_id={other['id']}").status == 403
    assert limited.ask("POST", "/api/v1/keys", {"name": "a", "workspace_id": other["id"]}).status == 403
    for method in ("GET", "PATCH", "DELETE"):
        assert limited.ask(method, f"/api/v1/keys/{foreign['data']['hash']}", {}).status == 404
    assert limited.ask("GET", f"/api/v1/activity?api_key_hash={foreign['data']['hash']}").status == 404
    assert limited.ask("GET", f"/admin/accounts/{own['name']}").status == 200
    assert limited.ask("GET", f"/admin/accounts/{other['name']}").status == 403
    for method, path in (("GET", "/admin/accounts"), ("POST", "/admin/accounts"), ("POST", "/admin/top-ups")):
        assert limited.ask(method, path, {}, idempotency_key="k").status == 403
    assert limited.ask("PATCH", f"/admin/accounts/{own['name']}", {"limits": {}}).status == 403


# Accounts and top-ups


def test_accounts_are_what_the_commands_see(manager: Manager) -> None:
    made = manager.account(postpaid=True, limit_usd=2.5)
    (seen,) = [each for each in manager.gateway.cli("account", "list") if each["name"] == made["name"]]
    assert (seen["terms"], seen["limit_usd"], made["limit_usd"]) == ("postpaid", "2.5", "2.5")
    assert made in manager.ask("GET", "/admin/accounts").json["data"]
    for body, said in (
        ({"name": made["name"], "plan": "paying"}, "already"),
        ({"name": "a", "plan": "gold"}, "gold"),
        ({"plan": "paying"}, "name, plan:"),
        ({"name": "(a", "plan": "paying"}, "(a"),
        ({"name": "b", "plan": "paying", "prepaid_usd": -1}, "prepaid_usd:"),
        ({"name": "b", "plan": "paying", "prepaid_usd": 1, "postpaid": True}, "exclude"),
        ({"name": "b", "plan": "paying", "limit_usd": 1}, "limit_usd:"),
        ({"name": "b", "plan": "paying", "limits": {"usd_total": -5}}, "usd_total:"),
        ({"name": "b", "plan": "paying", "colour": "red"}, "colour:"),
    ):
        answer = manager.ask("POST", "/admin/accounts", body)
        assert answer.status in (400, 404), body
        assert said in answer.error["message"]
    assert manager.ask("GET", "/admin/accounts/nobody").status == 404
    assert manager.ask("PATCH", f"/admin/accounts/{made['name']}", {"colour": "red"}).status == 400


def test_a_top_up_is_booked_once_under_its_key(manager: Manager) -> None:
    account, other = manager.account(), manager.account()
    key = token_hex(8)
    body = {"account": account["name"], "amount_usd": 2.5, "note": "invoice 7"}
    first, again = (manager.ask("POST", "/admin/top-ups", body, idempotency_key=key) for _ in range(2))
    assert (first.status, again.status) == (201, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert first.json["data"]["balance_usd"] == again.json["data"]["balance_usd"] == "2.5"
    for change in ({"amount_usd": 2.51}, {"account": other["name"]}):
        refused = manager.ask("POST", "/admin/top-ups", {**body, **change}, idempotency_key=key)
        assert refused.status == 409
        assert "stands for a top-up of $2.5" in refused.error["message"]
    done = manager.gateway.run("account", "top-up", account["name"], "3", "--idempotency-key", key)
    assert done.returncode == 1
    assert "stands for a top-up of $2.5" in done.stderr
    repeated = manager.gateway.cli("account", "top-up", account["name"], "2.5", "--idempotency-key", key)
    assert repeated["balance_usd"] == "2.5"
    for headers, changed in (
        ({}, {}),
        ({"idempotency_key": key * 99}, {}),
        ({"idempotency_key": "k"}, {"amount_usd": 0}),
    ):
        assert manager.ask("POST", "/admin/top-ups", {**body, **changed}, **headers).status == 400
    missing = manager.ask("POST", "/admin/top-ups", {**body, "account": "nobody"}, idempotency_key="k")
    assert missing.status == 404
    assert [line["amount_usd"] for line in manager.gateway.statement(account["name"])["lines"]] == ["2.5"]


# Activity


def test_activity_by_day_and_model(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway, ExitStack() as stack:
        manager = Manager(gateway)
        for model in ("sim/echo", "sim/echo", "sim/penny"):
            assert gateway.chat(model=model).status == 200
        today = datetime.now(UTC).date()
        client = stack.enter_context(OpenRouter(server_url=gateway.base, api_key=manager.key))
        assert client.analytics.get_user_activity().data == [], "OpenRouter shows whole days"
        rows = client.analytics.get_user_activity(request={"date_": today.isoformat()}).data
        assert [(row.model, row.requests) for row in rows] == [("sim/echo", 2), ("sim/penny", 1)]
        assert rows[0].usage == 0.00002
        assert rows[0].prompt_tokens > 0
        assert rows[0].completion_tokens > 0
        body = manager.ask("GET", f"/api/v1/activity?date={today}").json
        for name in (
            "date model model_permaslug endpoint_id provider_name usage byok_usage_inference requests prompt_tokens"
            " completion_tokens reasoning_tokens"
        ).split():
            assert name in body["data"][0]
        (key,) = manager.ask("GET", "/api/v1/keys").json["data"]
        own = f"/api/v1/activity?date={today}&api_key_hash={key['hash']}"
        assert manager.ask("GET", own).json == body
        assert manager.ask("GET", f"{own}&workspace_id={key['workspace_id']}").json == body
        for wrong in (f"{today - timedelta(days=31)}", f"{today + timedelta(days=1)}", "yesterday"):
            assert manager.ask("GET", f"/api/v1/activity?date={wrong}").status == 400
        told = gateway.cli("activity")
        assert [(row["model"], row["requests"], row["fares_usd"]) for row in told] == [
            ("sim/echo", 2, "0.00002"),
            ("sim/penny", 1, told[1]["fares_usd"]),
        ]
        assert gateway.cli("activity", "demo") == told


# Changes


def test_a_key_is_rotated_and_stays_the_same_key(manager: Manager) -> None:
    account = manager.account(prepaid_usd=1)
    made = manager.ask("POST", "/api/v1/keys", {"name": "a", "workspace_id": account["id"], "limit": 1}).json
    assert manager.gateway.chat(made["key"]).status == 200
    answer = manager.ask("POST", f"/api/v1/keys/{made['data']['hash']}/rotate", {"overlap_seconds": 600})
    assert answer.status == 201, answer.body
    rotated = answer.json
    assert (rotated["data"]["name"], rotated["data"]["limit"], rotated["data"]["usage"]) == ("a", 1, 0.00001)
    assert rotated["data"]["hash"] != made["data"]["hash"]
    assert {manager.gateway.chat(key).status for key in (made["key"], rotated["key"])} == {200}
    assert manager.ask("GET", f"/api/v1/keys/{made['data']['hash']}").status == 404
    wrong = manager.ask("POST", f"/api/v1/keys/{rotated['data']['hash']}/rotate", {"overlap_seconds": 10**9})
    assert (wrong.status, "an overlap is 0 seconds to 90 days" in wrong.error["message"]) == (400, True)


def test_keys_are_brought_along_by_their_digests(manager: Manager) -> None:
    account, other = manager.account(prepaid_usd=1), manager.account()
    key = f"sk-elsewhere-{token_hex(8)}"
    row = {"digest": sha256(key.encode()).hexdigest(), "label": "laptop", "requests_per_minute": 60}
    taken = manager.ask("POST", "/admin/keys/import", {"account": account["name"], "keys": [row]}).json["data"]
    assert taken == [{"hash": row["digest"], "name": "laptop", "account": account["name"], "was_there": False}]
    eventually(lambda: manager.gateway.chat(key).status == 200)
    again = manager.ask("POST", "/admin/keys/import", {"keys": [{**row, "account": account["name"]}]})
    assert again.json["data"][0]["was_there"]
    of_other = Manager(manager.gateway, "--account", other["name"])
    for who, body, status, said in (
        (of_other, {"account": account["name"], "keys": [row]}, 403, "for another account"),
        (of_other, {"account": other["name"], "keys": [row]}, 400, "another account's already"),
        (manager, {"keys": [row]}, 400, "row 1: account: missing"),
        (manager, {"account": other["name"], "keys": [{"digest": "sk-x"}]}, 400, "row 1: digest: this is a key itself"),
        (manager, {"account": other["name"]}, 400, "keys: a list of objects"),
    ):
        answer = who.ask("POST", "/admin/keys/import", body)
        assert (answer.status, said in answer.error["message"]) == (status, True), answer.body


def test_of_keys_that_are_brought_along_none_is_where_one_is_refused(manager: Manager) -> None:
    account, closed = manager.account(), manager.account()
    manager.ask("POST", f"/admin/accounts/{closed['id']}/close", {})
    for wrong in ({"label": "x" * 300}, {"account": closed["name"]}, {"requests_per_minute": 0}):
        rows = [{"digest": token_hex(32), "account": account["name"], **more} for more in ({}, wrong)]
        answer = manager.ask("POST", "/admin/keys/import", {"keys": rows})
        assert (answer.status, "row 2: " in answer.error["message"]) == (400, True), answer.body
        assert manager.ask("GET", f"/api/v1/keys?workspace_id={account['id']}").json["data"] == []


def test_an_account_is_changed_closed_and_opened_again(manager: Manager) -> None:
    account = manager.account(prepaid_usd=2)
    changed = manager.ask("PATCH", f"/admin/accounts/{account['id']}", {"plan": "free", "name": token_hex(6)}).json
    assert (changed["data"]["plan"], changed["data"]["closed_at"]) == ("free", None)
    path = f"/admin/accounts/{account['id']}"
    closed = manager.ask("POST", f"{path}/close", {"reason": "it left"}).json["data"]
    assert (closed["paid_out_usd"], closed["balance_usd"], bool(closed["closed_at"])) == ("2", "0", True)
    assert manager.ask("POST", "/api/v1/keys", {"name": "a", "workspace_id": account["id"]}).status == 400
    assert manager.ask("POST", f"{path}/reopen", {}).json["data"]["closed_at"] is None
    assert manager.ask("PATCH", path, {"plan": "gold"}).status == 404
    of_one = Manager(manager.gateway, "--account", changed["data"]["name"])
    for method, where, body in (
        ("POST", f"{path}/close", {}),
        ("POST", f"{path}/reopen", {}),
        ("POST", "/admin/corrections", {"order": "x", "reason": "y"}),
    ):
        assert of_one.ask(method, where, body).status == 403


def test_a_fare_is_given_back_and_corrected(manager: Manager) -> None:
    account = manager.account(prepaid_usd=1)
    key = manager.ask("POST", "/api/v1/keys", {"name": "a", "workspace_id": account["id"]}).json["key"]
    generation = manager.gateway.chat(key, "cost=0.002").headers["x-generation-id"]
    body = {"order": generation, "reason": "cut short", "amount_usd": 0.0005}
    booked, repeated = (manager.ask("POST", "/admin/corrections", body) for _ in range(2))
    assert (booked.status, repeated.status, repeated.headers["idempotency-replayed"]) == (201, 200, "true")
    assert (booked.json["data"]["given_back_usd"], repeated.json["data"]["given_back_usd"]) == ("0.0005", "0")
    corrected = manager.ask("POST", "/admin/corrections", {"order": generation, "reason": "late", "cost_usd": 1e-3})
    assert (corrected.json["data"]["fare_usd"], corrected.json["data"]["given_back_usd"]) == ("0.001", "0.0005")
    for wrong, said in (
        ({"order": generation}, "order, reason: give both"),
        ({"order": generation, "reason": "x", "amount_usd": 1}, "$0.001 of this fare is left"),
        ({"order": generation, "reason": "x", "amount_usd": 1, "cost_usd": 1}, "they exclude each other"),
        ({"order": generation, "reason": "x", "cost_usd": -1}, "cost_usd: an amount in USD"),
        ({"order": "gen-x", "reason": "x"}, "there is no order `gen-x`"),
    ):
        refused = manager.ask("POST", "/admin/corrections", wrong)
        assert (refused.status, said in refused.error["message"]) == (400, True), refused.body
