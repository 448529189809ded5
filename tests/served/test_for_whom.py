"""For whom an order is, at a running gateway: named in every format, kept as set, limited, filtered, summed; and never
changed on its way."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from secrets import token_hex
from typing import Any

import pytest

from farebox.core.attribution import Attribution, read_name, read_texts
from farebox.core.errors import Refusal
from farebox.testing import Playbook, Script
from tests.gateway import Gateway, Response
from tests.served.test_formats import ORDERS, error_type, order

NAMES: dict[str, Any] = {
    "/chat/completions": {"user": "ann", "metadata": {"team": "search", "run": "77"}},
    "/responses": {"safety_identifier": "ann", "metadata": {"team": "search"}},
    "/messages": {"metadata": {"user_id": "ann"}},
    "/embeddings": {"user": "ann"},
}


ANSWER = (
    b'{"id":"gen-1","object":"chat.completion","created":1,"model":"a/b","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,'
    b'"total_tokens":2,"cost":0.0001}}'
)


class Whose:
    """An account of one's own, with its key and a manager's."""

    def __init__(self, gateway: Gateway, prepaid: str = "5") -> None:
        self.gateway = gateway
        self.name = token_hex(6)
        self.key = gateway.new_key(self.name, "--plan", "paying", "--prepaid", prepaid)
        self.manager = gateway.cli("management-key", "create")["key"]

    def get(self, path: str, key: str = "") -> Any:
        answer = self.gateway.request("GET", path, headers={"authorization": f"Bearer {key or self.key}"})
        assert answer.status == 200, answer.body
        return answer.json if answer.headers["content-type"].startswith("application/json") else answer.body.decode()

    def patch(self, body: dict[str, Any]) -> Response:
        headers = {"authorization": f"Bearer {self.manager}", "content-type": "application/json"}
        return self.gateway.request("PATCH", f"/admin/accounts/{self.name}/end-users", body, headers)

    def kept(self, end_user: str) -> str:
        return str(self.gateway.cli("end-user", "limit", self.name, end_user)["end_user"])


@pytest.fixture
def whose(shared_gateway: Gateway) -> Whose:
    return Whose(shared_gateway)


def test_every_format_names_its_end_user_and_the_header_wins(whose: Whose) -> None:
    for path in ORDERS:
        assert order(whose.gateway, path, whose.key, **NAMES.get(path, {})).status == 200
    both = {"x-farebox-end-user": "bob", "x-farebox-tags": "team=ops, feature=chat"}
    for path in ORDERS:
        assert order(whose.gateway, path, whose.key, both, **NAMES.get(path, {})).status == 200
    rows = whose.get("/api/v1/orders")["data"][::-1]
    kept = whose.kept
    named = [kept("ann") if path in NAMES else None for path in ORDERS]
    assert [row["end_user"] for row in rows] == named + [kept("bob")] * len(ORDERS)
    assert [row["tags"] for row in rows] == [None] * len(ORDERS) + ["feature=chat, team=ops"] * len(ORDERS)


def test_filters_totals_and_statement_are_the_same_fares(whose: Whose) -> None:
    for who, team, cost in (("ann", "x", "0.01"), ("ann", "y", "0.02"), ("=bob", "x", "0.04"), ("", "", "0.08")):
        headers = {"x-openrouter-simulate": f"cost={cost}"}
        headers |= {"x-farebox-end-user": who, "x-farebox-tags": f"team={team}"} if who else {}
        assert order(whose.gateway, "/chat/completions", whose.key, headers).status == 200

    def fares(path: str, *columns: str, key: str = "") -> list[Any]:
        rows = whose.get(path, key)["data"]
        return sorted([tuple(row[name] for name in columns) for row in rows], key=str)

    ann, bob = whose.kept("ann"), whose.kept("=bob")
    by_user = fares("/api/v1/totals?by=end_user", "end_user", "fares_usd")
    assert by_user == sorted([(ann, "0.03"), (bob, "0.04"), (None, "0.08")], key=str)
    assert fares("/api/v1/totals?by=tag:team,end_user&tag=team=x", "tag:team", "end_user", "orders") == sorted(
        [("x", ann, 1), ("x", bob, 1)], key=str
    )
    assert fares("/api/v1/totals?by=day,tag:team", "tag:team", "fares_usd") == [
        ("x", "0.05"),
        ("y", "0.02"),
        (None, "0.08"),
    ]
    admin = f"/admin/accounts/{whose.name}"
    assert fares(f"{admin}/totals?end_user=ann&by=model", "fares_usd", key=whose.manager) == [("0.03",)]
    assert ("0.03",) in fares(f"/admin/totals?end_user={ann}&by=account", "fares_usd", key=whose.manager)
    for named in ("ann", ann):
        assert fares(f"/api/v1/orders?end_user={named}", "fare_usd") == [("0.01",), ("0.02",)]
    assert fares(f"{admin}/orders?tag=team%3Dx&end_user=ann", "fare_usd", key=whose.manager) == [("0.01",)]
    found = whose.get("/api/v1/statement?tag=team=x")
    assert [(row["amount_usd"], row["balance_usd"]) for row in found["data"]] == [
        ("-0.01", "4.99"),
        ("-0.04", "4.93"),
    ]
    assert (found["totals"]["fares_usd"], found["totals"]["orders"], found["next"]) == ("0.05", 2, None)
    first = whose.get("/api/v1/statement?tag=team=x&limit=1")
    assert len(first["data"]) == 1
    assert [row["id"] for row in whose.get(first["next"])["data"]] == [found["data"][1]["id"]]
    lines = list(csv.DictReader(whose.get("/api/v1/statement.csv?end_user=ann").splitlines()))
    assert sum(Decimal(line["amount_usd"]) for line in lines) == Decimal("-0.03")
    whole = list(csv.DictReader(whose.get("/api/v1/totals.csv?by=end_user,tag:team").splitlines()))
    assert sum(Decimal(line["fares_usd"]) for line in whole) == Decimal("0.15")
    # By commands, too.
    told = whose.gateway.cli("statement", whose.name, "--end-user", "ann", "--tag", "team=y")
    assert ([line["cost_usd"] for line in told["lines"]], told["spent_usd"]) == (["0.02"], "0.02")
    (day,) = whose.gateway.cli("activity", whose.name, "--end-user", "=bob")
    assert (day["requests"], day["fares_usd"]) == (1, "0.04")
    listed = whose.gateway.cli("end-user", "list", whose.name)
    assert [(row["end_user"], row["fares_usd"]) for row in listed] == sorted([(ann, "0.03"), (bob, "0.04")])
    # A fare that was given back stands in its end user's statement.
    whose.gateway.cli("refund", rows_of(whose, "ann")[0]["id"], "0.005", "--reason", "broken")
    assert whose.get("/api/v1/statement?end_user=ann")["totals"]["given_back_usd"] == "0.005"
    assert whose.get("/api/v1/statement?end_user=%3Dbob")["totals"]["given_back_usd"] == "0"
    whose.gateway.audit()


def rows_of(whose: Whose, end_user: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = whose.get(f"/api/v1/orders?end_user={end_user}")["data"]
    return rows


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("orders?tag=team", "tag:"),
        ("totals?by=tag:", "by:"),
        ("totals?by=tag:a,tag:b", "by:"),
        ("totals?by=user", "by:"),
        ("statement?end_user=ann&from=2026-11-28T10:00:00Z", "from, to:"),
    ],
)
def test_what_cannot_be_asked_is_said(whose: Whose, query: str, said: str) -> None:
    headers = {"authorization": f"Bearer {whose.key}"}
    answer = whose.gateway.request("GET", f"/api/v1/{query}", headers=headers)
    assert (answer.status, answer.error["message"].startswith(said)) == (400, True), answer.body


def test_a_limit_is_refused_in_the_callers_format_and_names_the_end_user(whose: Whose) -> None:
    kept = whose.kept
    set_ = whose.patch({"limits": {"usd_per_month": 0.0001}})
    assert (set_.status, set_.json["data"]["limits"]) == (200, {"usd_per_month": 0.0001})
    assert whose.patch({"end_user": "vip", "limits": {"usd_per_month": 1}}).json["data"]["end_user"] == kept("vip")
    costly = {"x-openrouter-simulate": "cost=0.01"}
    assert order(whose.gateway, "/chat/completions", whose.key, costly, user="ann", max_tokens=5).status == 200
    for path in NAMES:
        refused = order(whose.gateway, path, whose.key, **NAMES[path])
        assert (refused.status, error_type(path, refused)) == (402, "payment_required")
        assert "the end user's limit a month" in refused.json["error"]["message"]
        assert refused.json["error"]["metadata"]["limit_source"] == "end_user_usd_month"
    # Others, and those that are nobody's, go on.
    assert order(whose.gateway, "/chat/completions", whose.key, user="vip").status == 200
    assert order(whose.gateway, "/chat/completions", whose.key).status == 200
    admin = f"/admin/accounts/{whose.name}/end-users"
    ann = whose.get(f"{admin}?end_user=ann", whose.manager)
    assert ann["data"][0]["limits_in_force"] == {"usd_per_month": 0.0001}
    assert (ann["data"][0]["limits"], ann["data"][0]["fares_this_month_usd"]) == ({}, 0.01)
    both = whose.get(f"{admin}?limit=1", whose.manager)
    assert [row["end_user"] for row in both["data"] + whose.get(both["next"], whose.manager)["data"]] == sorted(
        [kept("ann"), kept("vip")]
    )
    assert [row["end_user"] for row in whose.get(f"{admin}?limited=true", whose.manager)["data"]] == [kept("vip")]
    # The rate is 429.
    shown = whose.gateway.cli("end-user", "limit", whose.name, "vip", "requests_per_minute=1")
    assert shown["limits_in_force"]["usd_per_month"] == "1"
    assert order(whose.gateway, "/messages", whose.key, {"x-farebox-end-user": "vip"}).status == 200
    shed = order(whose.gateway, "/messages", whose.key, {"x-farebox-end-user": kept("vip")})
    assert shed.status == 200, "what an order says is a name, and never taken as it is kept"
    shed = order(whose.gateway, "/messages", whose.key, {"x-farebox-end-user": "vip"})
    assert (shed.status, shed.json["error"]["metadata"]["limit_source"]) == (429, "end_user_requests_per_minute")
    assert whose.gateway.cli("end-user", "default", whose.name, "usd_per_month=none")["default_limits"] == {
        **dict.fromkeys(shown["limits"], None)
    }
    assert order(whose.gateway, "/chat/completions", whose.key, user="ann").status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"limits": {"models": ["sim/echo"]}},
        {"limits": {"usd_per_month": -1}},
        {"limits": {}},
        {"end_user": "ann"},
        {"end_user": 1, "limits": {"usd_total": 1}},
        {"user": "ann", "limits": {"usd_total": 1}},
    ],
)
def test_what_is_no_limit_of_an_end_user_is_400(whose: Whose, body: dict[str, Any]) -> None:
    assert whose.patch(body).status == 400


def test_twenty_orders_at_once_pass_no_limit(whose: Whose) -> None:
    headers = {"x-farebox-end-user": "ann"}
    assert order(whose.gateway, "/chat/completions", whose.key, headers, max_tokens=100).status == 200
    (first,) = rows_of(whose, "ann")
    most = 5 * Decimal(first["held_usd"])
    whose.gateway.cli("end-user", "default", whose.name, f"usd_total={most}")

    def one(_: int) -> int:
        return order(whose.gateway, "/chat/completions", whose.key, headers, max_tokens=100).status

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(one, range(20))) + [one(each) for each in range(20)]
    assert set(statuses) == {200, 402}
    (ann,) = whose.gateway.cli("end-user", "list", whose.name)
    assert most / 2 < Decimal(ann["fares_usd"]) <= most, "no order is above its hold"
    assert sum(Decimal(row["fare_usd"]) for row in rows_of(whose, "ann")) == Decimal(ann["fares_usd"])
    whose.gateway.audit()


ELEVEN = ",".join(f"t{i}=1" for i in range(11))

SILLY = [7, True, {"a": "b"}, ["x"], None, "", "x" * 10_000, "<script>alert(1)</script>", "a\x00b\x1b[31m", "\ud800"]


@pytest.mark.parametrize("user", SILLY, ids=lambda user: repr(user)[:20])
@pytest.mark.parametrize("mode", ["digest", "plain"])
def test_a_silly_user_fails_no_order_and_goes_on_as_it_is(mode: Any, user: object) -> None:
    book = Playbook(
        Script([ANSWER], content_type="application/json"),
        {"model": "a/b", "messages": [{"role": "user", "content": "Hello"}], "user": user, "metadata": user},
        paid_in=10**12,
        attribution=Attribution(mode, b"s", frozenset(["a"])),
    )
    played = book.play()
    assert played.refusal is None
    assert played.forwarded[0].body == json.dumps(book.order).encode()
    named = played.hold.end_user
    assert (named is None) == (user in (None, "")), named
    assert named is None or (len(named) <= 128 and named.isprintable())
    assert played.hold.tags == ('{"a":"b"}' if user == {"a": "b"} else None)


@pytest.mark.parametrize(
    "header",
    ["team", "=x", "1team=x", "team=", "team=" + "x" * 65, "a=b, a=c", "a b=c", "\xe9=1", ELEVEN],
    ids=range(9),
)
def test_tags_that_are_none_are_400(whose: Whose, header: str) -> None:
    for path in ("/chat/completions", "/messages", "/responses"):
        answer = order(whose.gateway, path, whose.key, {"x-farebox-tags": header})
        assert (answer.status, error_type(path, answer)) == (400, "invalid_request")
        assert answer.json["error"]["message"].startswith("X-Farebox-Tags:")
    assert whose.get("/api/v1/orders")["data"] == []


# How it is kept


def test_digests_need_the_secret_and_plain_names_are_names() -> None:
    digest, plain, off = (Attribution(mode, b"s") for mode in ("digest", "plain", "off"))
    assert digest.end_user("ann") == digest.end_user("ann") != Attribution("digest", b"t").end_user("ann")
    assert (digest.end_user(""), off.end_user("ann")) == (None, None)
    assert plain.end_user("Ann Müller") == "Ann Müller"
    for odd in ("x" * 129, "a\nb", "\ud800", "a\x00"):
        assert plain.end_user(odd) == digest.end_user(odd)
        assert str(plain.end_user(odd)).startswith("eu_")
    assert digest.sought(str(digest.end_user("ann"))) == digest.sought("ann")


def test_what_of_metadata_fits_is_kept_and_nothing_of_it_is_refused() -> None:
    keeping = Attribution("off", from_metadata=frozenset(["team", "long", *(f"m{i}" for i in range(12))]))
    assert keeping.tags(b"", {"team": "é", "long": "x" * 65, "other": "y"}) == '{"team":"é"}'
    assert keeping.tags(b"team=a", {"team": "b"}) == '{"team":"a"}'
    many = json.loads(str(keeping.tags(b"a=1", {f"m{i}": "\N{GRINNING FACE}" * 64 for i in range(12)})))
    assert set(many) == {"a", "m0"}, "five hundred bytes in all"
    assert keeping.tags(b"", {}) is None
    with pytest.raises(Refusal):
        keeping.tags(b"a=" + b"x" * 64 + b"," + b",".join(b"n%d=%s" % (i, b"x" * 64) for i in range(8)), {})


@pytest.mark.parametrize(
    ("raw", "name"), [(b'"ann"', "ann"), (b"null", ""), (b"7", "7"), (b'{"a":1}', '{"a":1}'), (b'"\\ud800"', "?")]
)
def test_what_names_an_end_user_is_read_whatever_it_is(raw: bytes, name: str) -> None:
    found = read_name(raw)  # type: ignore[arg-type]
    assert found == name or (name == "?" and found)
    assert read_texts(raw) == {}  # type: ignore[arg-type]
