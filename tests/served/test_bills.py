"""Orders, statements and totals over HTTP: whose they are, that they agree with each other, and how they are paged."""

import csv
import io
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest

from farebox.core.entries import component
from tests.gateway import Gateway, Response
from tests.served.test_console import Browser


class Books:
    """An account of the test's own, and who may look at it."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway = gateway
        self.name = name
        self.key = gateway.new_key(name, "--plan", "paying", "--prepaid", "5")
        self.manager = str(gateway.cli("management-key", "create", "--label", "bills")["key"])

    def get(self, path: str, key: str = "", **headers: str) -> Response:
        sent = {"authorization": f"Bearer {key or self.key}", **headers}
        return self.gateway.request("GET", path if path.startswith("/admin") else f"/api/v1{path}", headers=sent)

    def read(self, path: str, key: str = "") -> Any:
        answer = self.get(path, key)
        assert answer.status == 200, (path, answer.body)
        return answer.json

    def pages(self, path: str) -> list[dict[str, Any]]:
        """All rows, page by page."""
        rows: list[dict[str, Any]] = []
        answer = self.read(path)
        while True:
            rows += answer["data"]
            if answer["next"] is None:
                return rows
            answer = self.read(answer["next"].removeprefix("/api/v1"))


@pytest.fixture
def books(shared_gateway: Gateway, request: pytest.FixtureRequest) -> Books:
    return Books(shared_gateway, request.node.name)


def table(answer: Response) -> list[dict[str, str]]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.body.decode())))


def test_a_bill_is_the_same_from_every_side(books: Books) -> None:
    gateway = books.gateway
    for number in range(5):
        assert gateway.chat(books.key, max_tokens=20 + number).status == 200
    assert gateway.chat(books.key, "status=503").status >= 500
    assert gateway.chat(books.key, model="sim/unknown").status == 404
    other = str(gateway.cli("key", "create", books.name, "--label", "=other,\n one".replace("\n", ""))["key"])
    assert gateway.chat(other).status == 200

    orders = books.pages("/orders?limit=2")
    posted = [row for row in orders if row["state"] == "posted"]
    assert (len(posted), {row["kind"] for row in orders}) == (6, {"chat"})
    assert [row["ended_at"] for row in orders] == sorted((row["ended_at"] for row in orders), reverse=True)
    statement = books.read("/statement")
    assert books.pages("/statement?limit=3") == statement["data"]
    fares = [row for row in statement["data"] if row["what"] == "fare"]
    assert {row["order_id"] for row in fares} == {row["id"] for row in posted}
    balance = Decimal(statement["opening_balance_usd"])
    for row in statement["data"]:
        balance += Decimal(row["amount_usd"])
        assert Decimal(row["balance_usd"]) == balance
    assert Decimal(statement["closing_balance_usd"]) == balance
    (total,) = books.read("/totals?by=kind")["data"]
    for sums in (total, statement["totals"]):
        assert Decimal(sums["fares_usd"]) == sum(Decimal(row["fare_usd"]) for row in posted)
        assert Decimal(sums["cost_usd"]) == sum(Decimal(row["cost_usd"]) for row in posted)
        assert (sums["orders"], sums["events"]) == (6, sum(row["events"] for row in posted))
    by_key = books.read("/totals?by=key,model")["data"]
    assert sorted(row["orders"] for row in by_key) == [1, 5]
    (labelled,) = books.read("/orders?key=%3Dother,+one")["data"]
    assert [row["id"] for row in books.read(f"/orders?key={labelled['key_hash']}")["data"]] == [labelled["id"]]
    assert books.read("/orders?model=sim/none&state=posted")["data"] == []

    for path, rows in (("/orders", orders), ("/statement", statement["data"]), ("/totals?by=kind", [total])):
        name, _, query = path.partition("?")
        downloaded = table(books.get(f"{name}.csv?{query}"))
        assert downloaded == table(books.get(path, accept="text/csv"))
        for row, line in zip(rows, downloaded, strict=True):
            said = {each: "" if value is None else str(value) for each, value in row.items()}
            if "streamed" in said:
                said["streamed"] = said["streamed"].lower()
            # What a spreadsheet would take for a formula has a mark before it.
            said = {each: f"'{value}" if value == "=other, one" else value for each, value in said.items()}
            assert line == said
    assert books.read("/orders.json?limit=9")["data"] == orders
    page = books.get("/orders.csv?limit=2")
    assert len(table(page)) == 2
    assert page.headers["link"].endswith('rel="next"')


def test_what_was_corrected_and_paid_out_stands_in_the_statement(books: Books) -> None:
    gateway = books.gateway
    for _ in range(2):
        assert gateway.chat(books.key).status == 200
    first, second = (row["id"] for row in books.read("/orders")["data"])
    gateway.cli("refund", first, "--reason", "it was no answer")
    gateway.cli("correct", second, "--cost", "0.5", "--reason", "its cost came late")
    gateway.cli("account", "close", books.name)

    statement = books.read(f"/admin/accounts/{books.name}/statement", books.manager)
    moved = {row["what"]: Decimal(row["amount_usd"]) for row in statement["data"] if row["what"] != "correction"}
    corrected = [Decimal(row["amount_usd"]) for row in statement["data"] if row["what"] == "correction"]
    assert [amount > 0 for amount in corrected] == [True, False]
    totals = {name: Decimal(value) for name, value in statement["totals"].items() if name.endswith("_usd")}
    assert totals["paid_in_usd"] == 5
    assert totals["given_back_usd"] == sum(corrected)
    assert totals["paid_out_usd"] == -moved["paid out"] == 5 - totals["fares_usd"] + totals["given_back_usd"]
    assert Decimal(statement["closing_balance_usd"]) == Decimal(statement["data"][-1]["balance_usd"]) == 0
    order = books.read(f"/admin/orders/{first}", books.manager)["data"]
    assert [each["what"] for each in order["transfers"]] == ["held", "fare", "correction"]
    assert sum(Decimal(each["amount_usd"]) for each in order["transfers"]) == 0


def test_an_order_is_its_accounts_alone(books: Books) -> None:
    gateway = books.gateway
    generation = gateway.chat(books.key).headers["x-generation-id"]
    (order,) = books.read("/orders")["data"]
    for named in (order["id"], generation):
        found = books.read(f"/orders/{named}")["data"]
        assert {name: found[name] for name in order} == order
        held, fare = found["transfers"]
        assert (held["what"], held["set_aside_usd"], fare["what"]) == ("held", order["held_usd"], "fare")
        assert Decimal(fare["amount_usd"]) == -Decimal(order["fare_usd"])
        assert Decimal(fare["event_price_usd"]) * fare["events"] == Decimal(order["fare_usd"])
        for key in (gateway.key, gateway.new_key(f"{books.name} not {named[:3]}", "--plan", "paying")):
            assert books.get(f"/orders/{named}", key).status == 404
    assert order["id"] not in [row["id"] for row in books.read("/orders", gateway.key)["data"]]
    assert books.get("/orders", "sk-fb-nobody").status == 401
    assert books.get("/orders", books.manager).status == 401


def test_managers_see_all_accounts_or_their_own(books: Books) -> None:
    gateway, own = books.gateway, f"/admin/accounts/{books.name}"
    gateway.chat(books.key)
    for path in ("/orders", "/statement", "/totals"):
        theirs = books.read(own + path, books.manager)
        assert theirs["data"] == books.read(path)["data"]
        assert (theirs["zone"], bool(theirs["as_of"])) == ("UTC", True)
    (order,) = books.read("/orders")["data"]
    assert order["id"] in [row["id"] for row in books.read("/admin/orders?limit=1000", books.manager)["data"]]
    assert books.read(f"/admin/orders/{order['id']}", books.manager)["data"]["account"] == books.name
    assert books.name in [row["account"] for row in books.read("/admin/totals?by=account", books.manager)["data"]]
    assert table(books.get("/admin/totals.csv?by=account", books.manager))
    limited = str(gateway.cli("management-key", "create", "--account", books.name, "--label", "one")["key"])
    assert {row["account"] for row in books.read("/admin/orders", limited)["data"]} == {books.name}
    assert books.get("/admin/accounts/demo/orders", limited).status == 403
    assert books.get("/admin/accounts/nobody-at-all/orders", books.manager).status == 404
    assert books.get(f"{own}/orders").status in (401, 403)


WRONG = [
    ("orders?from=yesterday", "2026-11-28"),
    ("orders?to=2026-13", "2026-11"),
    ("statement?month=november", "2026-11"),
    ("statement?day=2026-11", "2026-11-28"),
    ("statement?month=2026-11&from=2026-11-01", "alone"),
    ("orders?from=2026-11-02&to=2026-11-01", "before it begins"),
    ("orders?from=0001-01-01", "1970"),
    ("orders?state=paid", "pending, open, posted, voided"),
    ("orders?kind=poems", "chat"),
    ("orders?key=nobody", "its hash"),
    ("orders?key=sk-fb-0123456789012345678901234567890123456789", "never the key itself"),
    ("orders?limit=0", "limit"),
    ("orders?limit=1001", "1000"),
    ("orders?cursor=x", "`next`"),
    ("statement?cursor=W10x", "`next`"),
    ("orders?limit=1&limit=2", "twice"),
    ("orders?colour=red", "there are from, to"),
    ("totals?by=hour", "account, day, key"),
    ("totals?from=2026-11-28T10:00:00Z", "whole UTC days"),
]


def test_what_is_wrong_is_said(books: Books) -> None:
    for query, words in WRONG:
        answer = books.get(f"/{query}")
        assert answer.status == 400, query
        assert words in answer.error["message"]


def test_a_text_that_no_database_takes_is_refused_for_good(books: Books) -> None:
    """A NUL character: of PostgreSQL's texts none has one, and to try again would not help."""
    for path in ("orders?model=%00", "statement?end_user=a%00", "totals?tag=a=%00", "generation?id=%00"):
        assert books.get(f"/{path}").status == 400, path
    assert books.get("/orders/%00").status == 404
    assert books.get("/admin/accounts/%00", books.manager).status == 404
    assert books.get("/admin/trail?who=%00", books.manager).status == 400
    headers = {"authorization": f"Bearer {books.manager}", "content-type": "application/json", "idempotency-key": "nul"}
    paid = {"account": books.name, "amount_usd": "1", "note": "a\0b"}
    assert books.gateway.request("POST", "/admin/top-ups", paid, headers).status == 400
    browser = Browser(books.gateway, books.manager)
    for path, status in (("/orders?model=%00", 400), ("/orders/%00", 404), ("/trail?who=%00", 400)):
        assert browser.get(path).status == status, path
    assert browser.post("/accounts", {"name": "a\0"}).status == 400


DAYS = ("9999-12-31", "9999-12-31T23:59:59.999999", "0001-01-01", "1969-12-31", "10000-01-01")
PLACES = tuple(
    urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")
    for place in (
        [2**70],
        [2**63, True, 2**63, "x"],
        [-(2**70), False, -(2**70), "x"],
        [1, True, 2**70, "x"],
        [1, True, 1, "a\0b"],
        [1, "x", 2**70],
        [2**70, "x", 1],
        [1, "a\0b", 1],
    )
)


def refused_at(books: Books, path: str, key: str = "") -> None:
    answer = books.get(path, key)
    assert answer.status == 400, (path, answer.status)
    assert answer.error["message"]


def test_what_no_calendar_and_no_database_has_is_refused(books: Books) -> None:
    """Days behind which there is none, and cursors with numbers of more than 64 bits."""
    ledgers = ("statement.beancount", "statement.journal", "statement.focus.csv")
    for base, key, lists in (
        ("", books.key, ("orders", "statement", "totals", *ledgers)),
        ("/admin", books.manager, ("orders", "totals", "trail", *ledgers)),
        (f"/admin/accounts/{books.name}", books.manager, ("orders", "statement", "totals", "trail", *ledgers)),
    ):
        for day in DAYS:
            for name in ("from", "to", "day"):
                for path in lists:
                    refused_at(books, f"{base}/{path}?{name}={day}", key)
        for path in lists:
            refused_at(books, f"{base}/{path}?month=9999-12", key)
            assert books.get(f"{base}/{path}?month=9998-12", key).status == 200
            assert books.get(f"{base}/{path}?day=9998-12-31", key).status == 200
    for cursor in PLACES:
        for path in ("/orders", "/statement"):
            refused_at(books, f"{path}?cursor={cursor}")
        for path in ("/admin/orders", f"/admin/accounts/{books.name}/statement"):
            refused_at(books, f"{path}?cursor={cursor}", books.manager)
    refused_at(books, f"/admin/trail?cursor={PLACES[0]}", books.manager)
    refused_at(books, "/activity?date=9999-12-31", books.manager)


def test_pages_refuse_what_no_calendar_and_no_database_has(books: Books) -> None:
    browser = Browser(books.gateway, books.manager)
    rows = browser.rows(f"/accounts.json?search={books.name}")
    own = f"account_id={next(row['id'] for row in rows if row['account'] == books.name)}"
    key = next(row["id"] for row in browser.rows(f"/keys.json?{own}"))
    pages = ("/statement", "/statement/books/focus", "/statement/books/beancount", "/statement/books/hledger")
    for path in (*pages, "/invoice"):
        assert browser.get(f"{path}?{own}&month=9999-12").status == 400, path
        assert browser.get(f"{path}?{own}&month=9998-12").status == 200, path
    for path in (*pages, "/orders", "/spent", "/trail"):
        for day in DAYS:
            assert browser.get(f"{path}?{own}&until={day}").status == 400, (path, day)
            assert browser.get(f"{path}?{own}&since={day}&until={day}").status == 400, (path, day)
    for path in ("/statement", "/orders"):
        for cursor in PLACES:
            assert browser.get(f"{path}?{own}&after={cursor}").status == 400, (path, cursor)
    rotate = {"do": "rotate", "overlap_seconds": str(2**53)}
    assert browser.get(f"/keys/{key}/change?{urlencode(rotate)}").status == 400
    assert browser.post(f"/keys/{key}", rotate).status == 400
    for day in (*DAYS, "soon"):
        new = {"account": books.name, "label": "x", "expires": day}
        asked = browser.get(f"/keys/new?{urlencode(new)}").status
        assert (asked, browser.post("/keys", new).status) in ((200, 400), (400, 400)), day


def test_what_people_write_is_no_formula_no_markup_and_no_line_of_its_own(books: Books) -> None:
    """Names, labels, tags and reasons, in every table, page and ledger that has them."""
    gateway, label, said = books.gateway, "@label<i>", '=HYPERLINK("x")\n\x1b[31m<i>'
    key = str(gateway.cli("key", "create", books.name, "--label", label)["key"])
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    for_whom = {"x-farebox-end-user": "=SUM(1)<i>", "x-farebox-tags": "team==cmd<i>"}
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
    order = gateway.request("POST", "/api/v1/chat/completions", body, {**headers, **for_whom})
    gateway.cli("refund", order.headers["x-generation-id"], "--reason", said)
    gateway.cli("account", "top-up", books.name, "1", "--note", said)
    admin, browser = f"/admin/accounts/{books.name}", Browser(gateway, books.manager)
    number = next(row["id"] for row in browser.rows("/accounts.json?search=formula") if row["account"] == books.name)
    lists = ["orders.csv", "statement.csv", "trail.csv", "totals.csv?by=end_user,key", "totals.csv?by=tag:team"]
    answers = [books.get(f"{admin}/{path}", books.manager) for path in (*lists, "statement.focus.csv?by=order")]
    for path in ("orders", "statement", "trail", "end-users", "spent"):
        query = f"?account_id={number}" + ("&by=tag:team" if path == "spent" else "")
        assert "<i>" not in browser.page(f"/{path}{query}"), path
        answers.append(browser.get(f"/{path}.csv{query}"))
    for answer in answers:
        for row in csv.reader(io.StringIO(answer.body.decode())):
            assert not [cell for cell in row if cell.startswith(("=", "+", "@", "\t", "\r"))], row
    for path in ("statement.beancount?by=order", "statement.journal?by=order"):
        ledger = books.get(f"{admin}/{path}", books.manager).body.decode()
        assert "\x1b" not in ledger
        assert not [line for line in ledger.splitlines() if line.lstrip().startswith("[31m")]


def test_a_range_is_said_and_kept(books: Books) -> None:
    books.gateway.chat(books.key)
    (order,) = books.read("/orders")["data"]
    day = order["ended_at"][:10]
    for query in (f"day={day}", f"month={day[:7]}", f"from={day}", f"from={day}T00:00:00%2B00:00", f"from={day[:7]}"):
        found = books.read(f"/orders?{query}")
        assert [row["id"] for row in found["data"]] == [order["id"]]
        assert found["from"].startswith(day[:7])
    ended = order["ended_at"]
    assert books.read(f"/orders?to={day}")["data"] == []
    assert books.read(f"/statement?from={ended}&to={ended}")["data"] == []
    early = books.read("/statement?to=2020-01-01")
    assert (early["closing_balance_usd"], early["data"]) == ("0", [])
    assert books.read("/totals?month=2020-01")["data"] == []


NOT_NULL = (
    "BilledCost BillingAccountId BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory ChargePeriodEnd"
    " ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost ProviderName PublisherName"
    " ServiceCategory ServiceName ChargeFrequency"
).split()
"""Of FOCUS 1.0."""
ALLOWED = {
    "ChargeCategory": {"Usage", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"Usage-Based", "One-Time"},
    "PricingCategory": {"Standard", ""},
    "ServiceCategory": {"AI and Machine Learning"},
    "BillingCurrency": {"USD"},
    "Tags": {"{}"},
}


def check_charge(row: dict[str, str]) -> None:
    """What FOCUS 1.0 demands of a row."""
    assert all(row[name] for name in NOT_NULL), row
    assert all(row[name] in allowed for name, allowed in ALLOWED.items()), row
    start, end, first, behind = (
        datetime.fromisoformat(row[f"{what}Period{edge}"])
        for what, edge in (("Charge", "Start"), ("Charge", "End"), ("Billing", "Start"), ("Billing", "End"))
    )
    assert first <= start < end <= behind
    assert (first.day, behind.day) == (1, 1)
    if row["ChargeCategory"] == "Usage":
        for price, cost in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
            assert Decimal(row[price]) * Decimal(row["PricingQuantity"]) == Decimal(row[cost])
        assert row["SkuId"]
        assert row["SkuPriceId"]
        assert (row["ConsumedQuantity"] != "") == (row["ConsumedUnit"] != "")


def test_charges_are_as_focus_has_them_and_come_to_the_statement(books: Books) -> None:
    gateway = books.gateway
    for number in range(3):
        assert gateway.chat(books.key, f"cost=0.000{number}1").status == 200
    rerank = {"model": "sim/reranker", "query": "a", "documents": ["a", "b"]}
    headers = {"authorization": f"Bearer {books.key}"}
    assert gateway.request("POST", "/api/v1/rerank", rerank, headers).status == 200
    first = books.read("/orders?kind=chat")["data"][0]["id"]
    gateway.cli("refund", first, "--reason", "=it was no answer")
    totals = books.read("/statement")["totals"]
    charged = Decimal(totals["fares_usd"]) - Decimal(totals["given_back_usd"])
    for by, usages in (("day", 2), ("order", 4)):
        rows = table(books.get(f"/statement.focus.csv?by={by}"))
        for row in rows:
            check_charge(row)
        assert sum(row["ChargeCategory"] == "Usage" for row in rows) == usages
        assert len(rows) == usages + 1
        assert sum(Decimal(row["BilledCost"]) for row in rows) == charged
        assert {row["BillingAccountName"] for row in rows} == {books.name}
        assert [row["ConsumedUnit"] for row in rows if row["x_Kind"] == "rerank"] == ["Searches"]
        assert "x_UpstreamCost" not in rows[0]
        managers = table(books.get(f"/admin/accounts/{books.name}/statement.focus.csv?by={by}", books.manager))
        cost = sum(Decimal(row["x_UpstreamCost"] or "0") for row in managers)
        assert cost == Decimal(totals["cost_usd"])
        assert [{name: row[name] for name in rows[0]} for row in managers] == rows


def test_a_ledger_is_of_a_time_and_for_whoever_asks(books: Books) -> None:
    gateway = books.gateway
    assert gateway.chat(books.key).status == 200
    own = f"/admin/accounts/{books.name}"
    answer = books.get("/statement.beancount")
    assert answer.headers["content-disposition"] == 'attachment; filename="statement.beancount"'
    assert "Upstream" not in answer.body.decode()
    assert answer.body.decode().count('Fares of 1 order"') == 1
    assert "Balance before" not in answer.body.decode()
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    later = books.get(f"/statement.journal?from={tomorrow}").body.decode()
    assert "Balance before" in later
    assert "Fare" not in later.replace("Farebox", "")
    one = str(gateway.cli("management-key", "create", "--label", "one", "--account", books.name)["key"])
    assert "Assets:Farebox:" in books.get("/admin/statement.beancount", one).body.decode()
    assert "Assets:Farebox:" in books.get(f"{own}/statement.beancount?books=caller", books.manager).body.decode()
    operators = books.get(f"{own}/statement.beancount", books.manager).body.decode()
    assert "Expenses:Farebox:Upstream:" in operators
    every = books.get("/admin/statement.journal", books.manager).body.decode()
    assert "Liabilities:Farebox:Callers:Demo" in every
    assert component(books.name) in every
    for wrong in ("by=week", "books=operator", "limit=3", "from=2026-11-28T12:00:00Z", "month=2026-13"):
        assert books.get(f"/statement.beancount?{wrong}").status == 400, wrong
    assert books.get("/statement.beancount?by=order&from=2026-11-28T12:00:00Z").status == 200
    assert books.get("/statement.ods").status == 404
    assert books.get("/admin/statement.json", books.manager).status == 404
    assert books.get("/statement.journal", "sk-fb-nobody").status == 401
    assert books.get("/admin/accounts/demo/statement.journal", one).status == 403
