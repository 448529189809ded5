"""Who changed what, as commands, HTTP and the console make changes and show them: each way leaves an entry."""

import json
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest

from farebox.console.site import PLACES
from tests.gateway import Gateway, Response
from tests.served.test_console import Browser, hidden, text


class Desk:
    """A gateway with an account, an operator, a manager of that account, and what each may do."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.operator = str(gateway.cli("management-key", "create", "--label", "Operations")["key"])
        self.key = gateway.new_key("one", "--plan", "paying", "--prepaid", "5")
        self.manager = str(gateway.cli("management-key", "create", "--label", "Lead", "--account", "one")["key"])
        self.browser = Browser(gateway, self.operator)
        (self.account,) = [row["id"] for row in self.browser.rows("/accounts.json") if row["account"] == "one"]

    def ask(self, method: str, path: str, body: Any = None, key: str = "", **headers: str) -> Response:
        head = {"authorization": f"Bearer {key or self.operator}", "content-type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        return self.gateway.request(method, path, sent, {**head, **headers})

    def trail(self, query: str = "", key: str = "") -> list[dict[str, Any]]:
        found = self.ask("GET", f"/admin/trail?{query}", key=key)
        assert found.status == 200, found.body
        rows: list[dict[str, Any]] = found.json["data"]
        return rows

    def last(self) -> int:
        (row,) = self.trail("limit=1")
        return int(row["id"])

    def since(self, number: int) -> list[dict[str, Any]]:
        """The entries after one, the oldest first."""
        return [row for row in reversed(self.trail()) if row["id"] > number]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Gateway(tmp_path_factory.mktemp("trail")) as gateway:
        yield Desk(gateway)
        gateway.audit()


def test_every_change_over_http_says_which_management_key_made_it(desk: Desk) -> None:
    generation = desk.gateway.chat(desk.key, "cost=0.002").headers["x-generation-id"]
    made = desk.ask("POST", "/api/v1/keys", {"name": "made", "farebox_limits": {"usd_per_day": 1}}, desk.manager).json
    digest, owner = made["data"]["hash"], made["data"]["workspace_id"]
    foreign = {"digest": sha256(b"sk-of-another-gateway").hexdigest(), "label": "old"}
    imported = {"account": "opened", "keys": [foreign]}
    opened = {"name": "opened", "plan": "free", "prepaid_usd": 1}
    for_ann = {"end_user": "ann", "limits": {"usd_per_day": 1}}
    changed = {"plan": "paying", "limits": {"orders_at_once": 2}, "low_balance_usd": "3"}
    told = {"url": "https://alerts.example/T0/secret", "label": "Night shift", "account": "opened"}
    new_key = {"name": "k", "workspace_id": owner, "expires_at": "2099-01-01T00:00:00Z"}
    once = {"idempotency-key": "invoice 7"}
    paid_in = {"account": "opened", "amount_usd": 2, "note": "invoice 7"}
    expected: list[tuple[str, str, Any, list[str]]] = [
        ("POST", "/api/v1/keys", new_key, ["key.made"]),
        ("PATCH", f"/api/v1/keys/{digest}", {"disabled": True}, ["key.disabled"]),
        ("PATCH", f"/api/v1/keys/{digest}", {"disabled": False, "limit": 3}, ["key.limited", "key.enabled"]),
        ("POST", f"/api/v1/keys/{digest}/rotate", {}, ["key.rotated"]),
        ("DELETE", "/api/v1/keys/{rotated}", None, ["key.revoked"]),
        ("POST", "/admin/accounts", opened, ["account.opened", "money.paid_in"]),
        ("PATCH", "/admin/accounts/opened", changed, ["account.changed", "account.limited", "alert.low_balance"]),
        ("PATCH", "/admin/accounts/opened/end-users", for_ann, ["end_user.limited"]),
        ("POST", "/admin/alerts", told, ["alert.added"]),
        ("DELETE", "/admin/alerts/1", None, ["alert.removed"]),
        ("POST", "/admin/top-ups", paid_in, ["money.paid_in"]),
        ("POST", "/admin/top-ups", paid_in, []),
        ("POST", "/admin/keys/import", imported, ["key.imported"]),
        ("POST", "/admin/keys/import", imported, []),
        ("POST", "/admin/accounts/opened/close", {"reason": "moved"}, ["account.closed", "money.paid_out"]),
        ("POST", "/admin/accounts/opened/reopen", {}, ["account.reopened"]),
        ("POST", "/admin/corrections", {"order": generation, "reason": "cut short"}, ["money.given_back"]),
        ("POST", "/admin/corrections", {"order": generation, "reason": "cut short"}, []),
    ]
    before = desk.last()
    for method, path, body, whats in expected:
        answer = desk.ask(method, path.replace("{rotated}", digest), body, **(once if "top-ups" in path else {}))
        assert answer.status < 300, (path, answer.body)
        if path.endswith("/rotate"):
            digest = answer.json["data"]["hash"]
            assert answer.json["key"] not in json.dumps(desk.trail())
        new = desk.since(before)
        assert [row["what"] for row in new] == whats, path
        assert {(row["who"], row["way"], row["session"]) for row in new} <= {
            ("Operations (management key 1)", "api", None)
        }
        before = desk.last()
    paid = desk.trail("what=money.paid_in&limit=1")[0]
    assert (paid["reason"], paid["changes"]) == ("invoice 7", {"balance_usd": ["1", "3"]})
    given = desk.trail("what=money.given_back")[0]
    assert given["changes"] == {"balance_usd": ["4.998", "5"], "fare_usd": ["0.002", "0"]}
    assert desk.trail("what=account.closed")[0]["changes"]["closed"][0] is None
    assert "secret" not in json.dumps(desk.trail("what=alert"))
    covered = {re.sub(r"[0-9a-f]{64}|\{rotated\}|opened|(?<=alerts/)1", "{}", path) for _, path, *_ in expected}
    served = {
        re.sub(r"\{\w+\}", "{}", path)
        for path, methods in desk.gateway.request("GET", "/openapi.json").json["paths"].items()
        if methods.keys() & {"post", "patch", "delete", "put"}
        and any(path.startswith(base) for base in ("/admin", "/keys"))
    }
    assert {f"/api/v1{path}" if path.startswith("/keys") else path for path in served} == covered | {
        "/admin/alerts/{}/test"
    }


def test_every_form_of_the_console_says_who_sent_it(desk: Desk) -> None:
    key = desk.gateway.new_key("forms", "--plan", "paying", "--prepaid", "1")
    desk.gateway.chat(key, simulate="usage=missing")
    operator = Browser(desk.gateway, desk.operator)
    (order,) = [row["order"] for row in operator.rows("/reconcile.json") if row["account"] == "forms"]
    (account,) = [row["id"] for row in operator.rows("/accounts.json") if row["account"] == "forms"]
    (key_number,) = [row["id"] for row in operator.rows("/keys.json") if row["account"] == "forms"]
    new_key = {"account": "forms", "label": "formed", "limit": "5"}
    once = hidden(operator.page(f"/keys/new?{urlencode(new_key)}"), "once")
    rotated = hidden(operator.page(f"/keys/{key_number}/change?do=rotate&overlap_seconds=0"), "once")
    told = {"url": "https://alerts.example/hook", "label": "", "as": "webhook"}
    confirmed = operator.post("/alerts/new", told).body.decode()
    receiver = {**told, "once": hidden(confirmed, "once")}
    terms = {"do": "terms", "plan": "free", "name": "of forms"}
    paid = {"amount": "2", "note": "in cash", "once": "twice"}
    expected: list[tuple[str, str, dict[str, str], list[str]]] = [
        ("/keys", "/keys", {**new_key, "once": once}, ["key.made", "key.limited"]),
        ("/keys/{key}", f"/keys/{key_number}", {"do": "rename", "label": "renamed"}, ["key.changed"]),
        ("/keys/{key}", f"/keys/{key_number}", {"do": "limit", "usd_per_day": "1"}, ["key.limited"]),
        ("/keys/{key}", f"/keys/{key_number}", {"do": "limit", "usd_per_day": "1"}, []),
        (
            "/keys/{key}",
            f"/keys/{key_number}",
            {"do": "rotate", "overlap_seconds": "0", "once": rotated},
            ["key.rotated"],
        ),
        ("/keys/{key}", f"/keys/{key_number}", {"do": "disable"}, ["key.disabled"]),
        ("/keys/{key}", f"/keys/{key_number}", {"do": "enable"}, ["key.enabled"]),
        ("/keys/{key}", f"/keys/{key_number}", {"do": "revoke"}, ["key.revoked"]),
        ("/end-users", "/end-users", {"account_id": str(account), "usd_per_day": "1"}, ["end_user.limited"]),
        ("/accounts", "/accounts", {"name": "formed", "plan": "free", "terms": "prepaid"}, ["account.opened"]),
        ("/accounts/{account}", f"/accounts/{account}", {"orders_at_once": "2"}, ["account.limited"]),
        ("/accounts/{account}", f"/accounts/{account}", {"do": "low_balance", "below": "3"}, ["alert.low_balance"]),
        ("/accounts/{account}/top-up", f"/accounts/{account}/top-up", paid, ["money.paid_in"]),
        ("/accounts/{account}/top-up", f"/accounts/{account}/top-up", paid, []),
        ("/accounts/{account}", f"/accounts/{account}", terms, ["account.changed"]),
        ("/alerts", "/alerts", receiver, ["alert.added"]),
        ("/alerts/{alert}", "/alerts/{number}", {"do": "remove"}, ["alert.removed"]),
        ("/reconcile/{order}", f"/reconcile/{order}", {"verdict": "void", "reason": "asked"}, ["order.decided"]),
        ("/accounts/{account}", f"/accounts/{account}", {"do": "close"}, ["account.closed", "money.paid_out"]),
        ("/accounts/{account}", f"/accounts/{account}", {"do": "reopen"}, ["account.reopened"]),
    ]
    before, number = desk.last(), 0
    sessions = set()
    for _, path, form, whats in expected:
        answer = operator.post(path.format(number=number), form)
        assert answer.status < 400, path
        if path == "/alerts":
            number = int(re.search(r"/alerts/(\d+)", answer.body.decode())[1])  # type: ignore[index]
        new = desk.since(before)
        assert [row["what"] for row in new] == whats, path
        assert {(row["who"], row["way"]) for row in new} <= {("Operations (management key 1)", "console")}
        sessions |= {row["session"] for row in new}
        before = desk.last()
    assert len(sessions) == 1
    assert sessions.isdisjoint({operator.cookie, None})
    changing_nothing = {"/alerts/new", "/playground", "/playground/code", "/playground/answer"}
    assert {place.path for place in PLACES if place.do is not None} - changing_nothing == {one for one, *_ in expected}
    decided = desk.trail("what=order")[0]
    assert (decided["reason"], decided["order_id"]) == ("asked", order)
    page = operator.page("/trail?what=money")
    assert "in cash" in text(page)
    assert "balance_usd: 1 → 3" in text(page)
    assert f'href="/console/accounts/{account}"' in page
    assert "name: forms → of forms plan: paying → free" in text(operator.page(f"/accounts/{account}"))
    assert "label: nothing → formed" not in text(operator.page(f"/keys/{key_number}"))
    assert "key.revoked" in text(operator.page(f"/keys/{key_number}"))


def test_a_command_is_entered_as_its_systems_user(desk: Desk) -> None:
    before = desk.last()
    cli = desk.gateway.cli
    cli("account", "create", "by-command", "--plan", "free")
    cli("account", "change", "by-command", "--plan", "paying", "--name", "by command")
    cli("account", "limit", "by command", "usd_per_month=5", "models=sim/*,a/*")
    key = cli("key", "create", "by command", "--label", "first", "--expires", "2099-01-01", "--cache-seconds", "60")
    cli("key", "rotate", str(key["id"]), "--overlap", "0")
    cli("key", "store", str(key["id"]), "off")
    cli("management-key", "revoke", str(cli("management-key", "create", "--label", "short")["id"]))
    found = [row for row in desk.gateway.cli("trail", "--limit", "50") if row["id"] > before]
    assert [row["what"] for row in reversed(found)] == [
        "account.opened",
        "account.changed",
        "account.limited",
        "key.made",
        "key.rotated",
        "key.changed",
        "management_key.made",
        "management_key.revoked",
    ]
    assert {row["way"] for row in found} == {"cli"}
    assert all(re.fullmatch(r".+@.+", row["who"]) for row in found)
    changes = {row["what"]: row["changes"] for row in found}
    assert changes["account.changed"] == {"name": ["by-command", "by command"], "plan": ["free", "paying"]}
    assert changes["account.limited"] == {"usd_per_month": [None, "5"], "models": [None, "sim/*, a/*"]}
    assert changes["key.made"] == {
        "label": [None, "first"],
        "expires": [None, "2099-01-01T00:00:00Z"],
        "cache_seconds": [None, "60"],
    }
    assert changes["key.changed"] == {"may_store": ["yes", "no"]}
    assert [row["what"] for row in cli("trail", "--account", "by command", "--what", "key.changed")] == ["key.changed"]
    assert cli("trail", "--who", "Operations", "--key", str(key["id"])) == []
    assert cli("trail", "--until", "2020-01-01") == []
    assert key["key"] not in json.dumps(found)
    assert key["hint"] not in json.dumps([row["changes"] for row in found])


def test_a_preset_is_entered_as_its_callers(desk: Desk) -> None:
    order = {"model": "sim/echo", "messages": [{"role": "system", "content": "Be brief."}]}
    before = desk.last()
    for _ in range(2):
        assert desk.ask("POST", "/api/v1/presets/short/chat/completions", order, desk.key).status == 200
    assert desk.ask("DELETE", "/api/v1/presets/short", key=desk.key).status == 200
    new = desk.since(before)
    assert [(row["what"], row["changes"]) for row in new] == [
        ("preset.saved", {"version": [None, "1"]}),
        ("preset.saved", {"version": ["1", "2"]}),
        ("preset.dropped", {"version": ["2", None]}),
    ]
    assert {(row["way"], row["about"], row["account"]) for row in new} == {("api", "preset short", "one")}
    assert "Be brief" not in json.dumps(new)


def test_the_trail_is_for_managers_each_of_what_it_manages(desk: Desk) -> None:
    assert desk.ask("GET", "/admin/trail", key=desk.key).status == 403
    assert Browser(desk.gateway, desk.key).get("/trail").status == 403
    own = desk.trail(key=desk.manager)
    assert {row["account"] for row in own} == {"one"}
    assert {row["who"] for row in own if row["way"] == "cli"} == {"the operator"}
    assert "Operations" not in json.dumps(own)
    assert desk.ask("GET", "/admin/accounts/one/trail", key=desk.manager).json["data"] == own
    lead = Browser(desk.gateway, desk.manager)
    assert {row["account"] for row in lead.rows("/trail.json")} == {"one"}
    others = next(row["id"] for row in desk.browser.rows("/accounts.json") if row["account"] != "one")
    assert lead.get(f"/trail?account_id={others}").status == 404
    assert "Operations" not in text(lead.page(f"/accounts/{desk.account}")).partition("Its latest changes")[2]


def test_a_list_of_changes_pages_and_is_csv_at_the_same_address(desk: Desk) -> None:
    every = desk.trail("limit=1000")
    first = desk.ask("GET", "/admin/trail?limit=2").json
    following = desk.ask("GET", first["next"]).json
    assert first["data"] + following["data"] == every[:4]
    head, *lines = desk.ask("GET", "/admin/trail.csv").body.decode().splitlines()
    assert head.startswith("id,time,who,way,session,what,account,key,")
    assert len(lines) == len(every)
    for wrong in ("cursor=x", "what=a&what=b", "from=yesterday", "whom=x"):
        assert desk.ask("GET", f"/admin/trail?{wrong}").status == 400, wrong
    assert len(desk.browser.rows("/trail.json")) == len(every)
    assert desk.browser.get("/trail.csv").body.decode().startswith("time,who,way,session,what,")
    assert desk.browser.get("/trail?before=x").status == 400
    assert desk.browser.rows("/trail.json?since=2020-01-01&until=2020-01-02") == []
