"""The console, as a browser asks for it: what it shows is what the books say, and what it must refuse."""

import http.client
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import pytest

from tests.gateway import Gateway, Response
from tests.served.test_formats import order
from tools.postgres import Cluster

SCRIPT = "<script>alert(1)</script>"


class Browser:
    """Somebody at the console: keeps its cookie, and sends forms as a page of the console does."""

    def __init__(self, gateway: Gateway, key: str | None = None) -> None:
        self.gateway = gateway
        self.cookie = ""
        if key is not None:
            assert self.sign_in(key).status == 303

    def ask(self, method: str, path: str, form: dict[str, str] | None = None, **headers: str) -> Response:
        """One request, without following where it leads."""
        own = {"host": f"127.0.0.1:{self.gateway.port}", "cookie": self.cookie}
        if form is not None:
            own |= {"origin": f"http://127.0.0.1:{self.gateway.port}", "sec-fetch-site": "same-origin"}
            own["content-type"] = "application/x-www-form-urlencoded"
        sent = {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        try:
            body = None if form is None else urlencode(form)
            connection.request(method, path, body, {name: value for name, value in sent.items() if value})
            answer = connection.getresponse()
            found = Response(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()
        if "set-cookie" in found.headers:
            self.cookie = found.headers["set-cookie"].partition(";")[0]
        return found

    def sign_in(self, key: str) -> Response:
        return self.ask("POST", "/console/sign-in", {"key": key})

    def get(self, path: str) -> Response:
        return self.ask("GET", f"/console{path}")

    def page(self, path: str) -> str:
        found = self.get(path)
        assert found.status == 200, found.body
        return found.body.decode()

    def rows(self, path: str) -> list[dict[str, str | int | None]]:
        """A list's rows, as JSON at the same address."""
        rows: list[dict[str, str | int | None]] = self.get(path).json["data"]
        return rows

    def token(self) -> str:
        """What this session's forms carry."""
        return hidden(self.page("/keys"), "form")

    def post(self, path: str, form: dict[str, str], **headers: str) -> Response:
        return self.ask("POST", f"/console{path}", {"form": self.token(), **form}, **headers)


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return unescape(found[1])


def found_in(page: str, pattern: str) -> str:
    found = re.search(pattern, page)
    assert found is not None, page
    return found[1]


def text(page: str) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


class House:
    """A gateway with two accounts that have ordered, and who may look at it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.manager_key = str(gateway.cli("management-key", "create", "--label", "Operations")["key"])
        self.one_key = gateway.new_key("one", "--plan", "paying", "--prepaid", "5")
        self.other_key = gateway.new_key("other", "--plan", "free", "--prepaid", "0.5")
        for key in (self.one_key, self.one_key, self.other_key):
            assert gateway.chat(key).status == 200
        assert gateway.chat(self.one_key, simulate="usage=missing").status == 200
        self.operator = Browser(gateway, self.manager_key)
        self.one = Browser(gateway, self.one_key)
        self.other = Browser(gateway, self.other_key)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Gateway(tmp_path_factory.mktemp("console")) as gateway:
        yield House(gateway)
        gateway.audit()


# What is shown


def test_every_sum_is_that_of_its_rows(house: House) -> None:
    key = house.gateway.new_key("summed", "--plan", "paying", "--prepaid", "5")
    for _ in range(2):
        assert house.gateway.chat(key).status == 200
    assert house.gateway.chat(key, simulate="usage=missing").status == 200
    rows = house.operator.rows("/spent.json")
    assert [row["fares_usd"] for row in rows if row["account"] == "summed"] == ["0.00002"]
    page = text(Browser(house.gateway, key).page(""))
    assert "Spent today $0.00002 2 orders" in page
    assert "Balance $4.99998" in page
    assert "sim/echo 2 $0.00002" in page
    statement = house.gateway.statement("summed")
    assert (statement["spent_usd"], statement["balance_usd"]) == ("0.00002", "4.99998")
    assert f"Held for orders under way ${statement['held_usd']}" in page


def test_each_line_of_what_was_spent_leads_to_its_orders(house: House) -> None:
    key = house.gateway.new_key("led", "--plan", "paying", "--prepaid", "5")
    tags = {"x-farebox-tags": "squad=search"}
    assert order(house.gateway, "/chat/completions", key, tags, user="zoe").status == 200
    for path in ("/spent", "/spent?by=end_user", "/spent?by=tag:squad"):
        lines = re.findall(r'"/console/orders\?([^"]*)">(\d+)</a>', house.operator.page(path))
        assert lines
        for asked, number in lines:
            assert len(house.operator.rows(f"/orders.json?{unescape(asked)}")) == int(number), asked


def test_what_is_going_on_is_told_with_what_it_is_a_count_of(house: House) -> None:
    house.gateway.chat(house.one_key, simulate="status=500")
    house.gateway.chat(house.one_key, model="sim/unknown")
    page = text(house.one.page(""))
    found = re.search(r"Orders in the last hour (\d+) (\d+) not charged", page)
    assert found is not None, page
    rows = house.one.rows("/orders.json")
    ended = [row["state"] for row in rows if row["state"] in ("posted", "voided")]
    assert (int(found[1]), int(found[2])) == (len(ended), ended.count("voided"))
    assert ended.count("voided") == len(house.one.rows("/orders.json?state=voided")) > 0
    assert "Orders that ended in each of the last 60 minutes, on all nodes" in page
    assert "Answers of this machine" not in page
    page = text(house.operator.page(""))
    assert re.search(r"Answers of this machine, since 20\d\d-\d\d-\d\d ", page)
    assert re.search(r"the upstream's \d+ [\d.e-]+ m?s [\d.e-]+ m?s added by Farebox \d+ [\d.e-]+ m?s", page)
    assert re.search(r"Errors that callers were told Kind Status Answers .*not found 404 \d+", page), page


def test_a_statement_runs_from_the_balance_before_to_the_balance_after(house: House) -> None:
    rows = house.other.rows("/statement.json")
    assert [(row["what"], row["amount_usd"], row["balance_usd"]) for row in rows] == [
        ("paid in", "0.5", "0.5"),
        ("fare", "-0.0001", "0.4999"),
    ]
    page = text(house.other.page("/statement"))
    assert "Balance before $0.00 Paid in $0.50 Fares $0.0001 1 order, 1 event," in page
    assert "Balance after $0.4999" in page
    assert "Paid in $0.00 Fares $0.00 0 orders" in text(house.other.page("/statement?month=2026-02"))
    for wrong in ("month=2026-13", "month=x", "since=2026-02-30", "since=2026-02-02&until=2026-02-01", "after=x"):
        assert house.other.get(f"/statement?{wrong}").status == 400, wrong
    (account,) = [row for row in house.operator.rows("/accounts.json") if row["account"] == "other"]
    assert house.operator.rows(f"/statement.json?account_id={account['id']}") == rows
    assert house.one.get(f"/statement?account_id={account['id']}").status == 404


def test_what_was_given_back_and_paid_out_is_in_a_statements_sums(house: House) -> None:
    key = house.gateway.new_key("corrected", "--plan", "paying", "--prepaid", "1")
    generation = house.gateway.chat(key, "cost=0.002").headers["x-generation-id"]
    house.gateway.cli("refund", generation, "0.0005", "--reason", "cut short")
    house.gateway.cli("account", "close", "corrected")
    (account,) = [row for row in house.operator.rows("/accounts.json") if row["account"] == "corrected"]
    path = f"?account_id={account['id']}"
    rows = house.operator.rows(f"/statement.json{path}")
    assert [(row["what"], row["amount_usd"]) for row in rows] == [
        ("paid in", "1"),
        ("fare", "-0.002"),
        ("refund (cut short)", "0.0005"),
        ("paid out (the account is closed)", "-0.9985"),
    ]
    page = text(house.operator.page(f"/statement{path}"))
    assert "Given back $0.0005 by corrections of fares Paid out $0.9985 Balance after $0.00" in page
    assert "All of these days 200 $0.0000 $0.0000" in page
    order = text(house.operator.page(f"/orders/{rows[1]['order']}"))
    assert "cut short" in order


def test_an_invoice_comes_to_what_the_statement_says(house: House) -> None:
    key = house.gateway.new_key("invoiced <b>", "--plan", "paying", "--prepaid", "1")
    browser = Browser(house.gateway, key)
    generation = house.gateway.chat(key, "cost=0.002").headers["x-generation-id"]
    assert house.gateway.chat(key, "cost=0.0001", model="sim/echo-pro").status == 200
    house.gateway.cli("refund", generation, "0.0005", "--reason", "cut <short>")
    page = text(browser.page("/invoice"))
    assert "For invoiced <b> Period" in page
    assert "Not yet: the month goes on" in page
    assert "All use 2 $0.0021" in page
    assert "Refund cut <short> order" in page
    assert "Together $0.0005" in page
    assert (
        "Use \N{MINUS SIGN}$0.0021 Refunds and corrections $0.0005 Paid in and out $1.0000 Balance now $0.9984" in page
    )
    rows = browser.rows("/invoice.json")
    assert [(row["model"], row["kind"], row["orders"], row["fares_usd"]) for row in rows] == [
        ("sim/echo", "chat", 1, "0.002"),
        ("sim/echo-pro", "chat", 1, "0.0001"),
    ]
    assert "Balance after $0.9984" in text(browser.page("/statement"))
    (account,) = [row for row in house.operator.rows("/accounts.json") if row["account"] == "invoiced <b>"]
    named = f"?account_id={account['id']}"
    assert f"Invoice {rows_month(page)}-{account['id']}" in page
    assert text(house.operator.page(f"/invoice{named}")).count("seller_name") == 1
    assert "Which account" in text(house.operator.page("/invoice")).replace("Of which", "Which")
    assert house.one.get(f"/invoice{named}").status == 404
    before = text(house.operator.page(f"/invoice{named}&month=2026-02"))
    assert "Issued 2026-03-01" in before
    assert "Nothing was used." in before
    for wrong in ("month=x", "since=2026-11-01"):
        assert browser.get(f"/invoice?{wrong}").status == 400, wrong


def rows_month(page: str) -> str:
    """The month of the invoice on a page, as its number has it."""
    found = re.search(r"Period (\d{4})-(\d\d)-01 to", page)
    assert found is not None, page
    return "".join(found.groups())


def test_a_statement_is_taken_away_as_a_ledger_in_the_viewers_books(house: House) -> None:
    (account,) = [row for row in house.operator.rows("/accounts.json") if row["account"] == "one"]
    named = f"?account_id={account['id']}"
    own = house.one.get("/statement/books/beancount")
    assert own.status == 200
    assert own.headers["content-disposition"].endswith('.beancount"')
    assert own.headers["content-security-policy"]
    assert "Assets:Farebox:One" in own.body.decode()
    assert "Upstream" not in own.body.decode()
    operators = house.operator.get(f"/statement/books/hledger{named}").body.decode()
    assert "Expenses:Farebox:Upstream:" in operators
    assert "Assets:Farebox:One" in house.operator.get(f"/statement/books/hledger{named}&books=caller").body.decode()
    assert "x_UpstreamCost" not in house.one.get("/statement/books/focus?books=operator").body.decode()
    assert house.other.get(f"/statement/books/focus{named}").status == 404
    assert house.one.get("/statement/books/ledger").status == 404
    assert house.operator.get("/statement/books/focus").status == 400
    links = house.operator.page(f"/statement{named}")
    for form in ("beancount", "hledger", "focus"):
        assert f"/console/statement/books/{form}?month=" in links


def test_a_list_goes_on_where_it_ended_and_stays_as_it_was(house: House) -> None:
    first = house.operator.get("/orders.json").json
    assert first["next"] is None
    states = {str(row["state"]) for row in house.operator.rows("/orders.json?state=open")}
    assert states == {"open"}
    assert house.one.rows("/orders.json?model=sim/none") == []
    for wrong in ("state=lost", "after=x", "key_id=x", "since=yesterday"):
        assert house.one.get(f"/orders?{wrong}").status == 400, wrong


def test_an_account_sees_what_is_its_own_and_nothing_else(house: House) -> None:
    own = house.one.rows("/orders.json")
    assert {row["account"] for row in own} == {"one"}
    assert len(own) >= 3
    others = house.other.rows("/orders.json")[0]["order"]
    (account,) = [row for row in house.operator.rows("/accounts.json") if row["account"] == "other"]
    key = [row for row in house.operator.rows("/keys.json") if row["account"] == "other"][-1]
    for path in (
        f"/orders/{others}",
        f"/accounts/{account['id']}",
        f"/keys/{key['id']}",
        f"/orders?account_id={account['id']}",
        f"/orders.csv?account_id={account['id']}",
        f"/spent.json?account_id={account['id']}",
        f"/statement.csv?account_id={account['id']}",
        f"/orders?key_id={key['id']}",
        f"/spent?key_id={key['id']}",
        f"/live?key_id={key['id']}",
    ):
        found = house.one.get(path)
        assert found.status == 404, path
        assert b"free" not in found.body
        assert house.operator.get(path).status == 200, path
    for path in ("/keys.json", "/accounts.json", "/reconcile.json", "/spent.json"):
        assert {row["account"] for row in house.one.rows(path)} == {"one"}


def test_a_key_of_an_account_changes_nothing(house: House) -> None:
    key = house.one.rows("/keys.json")[0]["id"]
    account = house.one.rows("/accounts.json")[0]["id"]
    order = house.one.rows("/reconcile.json")[0]["order"]
    token = house.one.token()
    for path, form in (
        ("/keys", {"label": "mine", "once": "x"}),
        (f"/keys/{key}", {"do": "limit"}),
        (f"/keys/{key}", {"do": "revoke"}),
        ("/accounts", {"name": "mine", "plan": "paying", "terms": "postpaid"}),
        (f"/accounts/{account}", {}),
        (f"/accounts/{account}/top-up", {"amount": "5", "once": "x"}),
        (f"/reconcile/{order}", {"verdict": "void", "reason": "mine"}),
    ):
        assert house.one.ask("POST", f"/console{path}", {"form": token, **form}).status == 403, path
    assert house.gateway.request("GET", "/v1/key", headers={"x-api-key": house.one_key}).status == 200


def test_a_manager_of_one_account_has_its_keys_and_no_other(house: House) -> None:
    manager = Browser(house.gateway, house.gateway.cli("management-key", "create", "--account", "other")["key"])
    assert {row["account"] for row in manager.rows("/keys.json")} == {"other"}
    theirs = house.one.rows("/keys.json")[0]["id"]
    assert manager.post(f"/keys/{theirs}", {"do": "revoke"}).status == 404
    form = hidden(manager.page("/keys/new?account=one&label=mine"), "once")
    made = manager.post("/keys", {"account": "one", "label": "mine", "once": form})
    assert made.status == 201
    assert manager.rows("/keys.json")[0]["account"] == "other"
    assert manager.post("/accounts", {"name": "x", "plan": "paying"}).status == 403


def test_the_life_of_an_order_says_how_its_fare_came_of_its_cost(house: House) -> None:
    order = [row for row in house.other.rows("/orders.json") if row["state"] == "posted"][-1]
    page = text(house.other.page(f"/orders/{order['order']}"))
    assert "is 1 event of $0.00001, rounded up" in page
    assert "By the plan free an event is charged $0.0001: 1 × $0.0001 = $0.0001" in page
    assert re.search("Placed .* Sent .* First byte .* Answer ended .* Settled", page)


def test_lists_are_given_as_csv_and_page_on(house: House) -> None:
    answer = house.one.get("/orders.csv")
    head, *lines = answer.body.decode().splitlines()
    assert head.startswith("placed,account,key,model")
    assert len(lines) == len(house.one.rows("/orders.json"))
    assert answer.headers["content-disposition"] == 'attachment; filename="farebox-orders.csv"'
    assert house.one.get("/orders/x.csv").status == 404
    models = house.one.get("/models.json?search=sim+echo").json
    assert models["next"] is None
    assert {"sim/echo", "sim/echo-pro"} <= {row["model"] for row in models["data"]}


def test_what_an_order_may_cost_is_told_by_the_accounts_plan(house: House) -> None:
    asked = "/models.json?search=sim/echo-pro&prompt_tokens=1000&answer_tokens=500"
    assert [row["order_fare_usd"] for row in house.one.rows(asked)] == ["0.0105"]
    assert [row["order_fare_usd"] for row in house.other.rows(asked)] == ["0.105"]


# What is done


def test_a_key_is_made_once_and_shown_once(house: House) -> None:
    asked = {"account": "one", "label": "Build server", "limit": "5", "expires": "2099-12-31"}
    before = house.operator.page(f"/keys/new?{urlencode(asked)}")
    assert "This makes the key Build server " in text(before)
    assert "at most $5 a calendar month" in text(before)
    once = hidden(before, "once")
    made = house.operator.post("/keys", {**asked, "once": once})
    (key,) = set(re.findall(r"sk-fb-[\w-]{43}", made.body.decode()))
    assert house.gateway.chat(key).status == 200
    assert house.operator.post("/keys", {**asked, "once": once}).status == 409
    (row,) = [row for row in house.operator.rows("/keys.json") if row["key"] == "Build server"]
    assert (row["limits"], row["expires"]) == ("$5 a month", "2100-01-01T00:00:00Z")
    assert key not in house.operator.page(f"/keys/{row['id']}")
    assert house.operator.post(f"/keys/{row['id']}", {"do": "limit", "usd_per_day": "0.5"}).status == 303
    assert "$0.5 a day" in text(house.operator.page(f"/keys/{row['id']}"))
    assert house.operator.post(f"/keys/{row['id']}", {"do": "disable"}).status == 303
    assert "disabled" in house.operator.page(f"/keys/{row['id']}")


def test_what_a_change_will_do_is_said_from_what_to_what_before_it_is_done(house: House) -> None:
    house.gateway.new_key("changed", "--plan", "paying", "--prepaid", "2")
    (key,) = [row["id"] for row in house.operator.rows("/keys.json") if row["account"] == "changed"]
    (account,) = [row["id"] for row in house.operator.rows("/accounts.json") if row["account"] == "changed"]
    for path, form, said in (
        (f"/keys/{key}", {"do": "limit", "usd_per_day": "0.5"}, "US dollars a day no limit $0.5"),
        (f"/accounts/{account}", {"do": "limit", "orders_at_once": "2"}, "Orders at once no limit 2"),
        (f"/accounts/{account}", {"do": "limit", "orders_at_once": "3"}, "Orders at once 2 3"),
        (f"/accounts/{account}", {"do": "terms", "plan": "free", "name": "other name"}, "Name changed other name Plan"),
        (f"/accounts/{account}", {"do": "terms", "plan": "paying", "name": "changed"}, "is charged $0.0001 $0.00001"),
        (f"/keys/{key}", {"do": "rotate", "overlap_seconds": "0"}, "The key as it is now works never again."),
        (f"/accounts/{account}", {"do": "close", "reason": "moved"}, "Balance $2.00 $0.00"),
    ):
        before = house.operator.page(path).partition("<footer")[0]
        page = house.operator.page(f"{path}/change?{urlencode(form)}")
        assert said in text(page), path
        assert house.operator.page(path).startswith(before), "looking at it changes nothing"
        sent = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.partition("<main")[2]))
        assert form.items() <= {**sent, "overlap_seconds": sent.get("overlap_seconds", "0")}.items()
        if form["do"] == "close":
            assert house.operator.post(path, {**sent, "reason": "x" * 501}).status == 400
            assert "Closed" not in text(house.operator.page(f"/accounts/{account}"))
        assert house.operator.post(path, sent).status in (201, 303)
    assert "Closed" in text(house.operator.page(f"/accounts/{account}"))
    assert house.gateway.statement("changed")["balance_usd"] == "0"
    assert "Nothing would change" in text(house.operator.page(f"/accounts/{account}/change?do=close"))
    assert house.operator.get(f"/keys/{key}/change?do=limit&usd_per_day=x").status == 400
    assert house.operator.get(f"/keys/{key}/change?do=sell").status == 400
    assert house.one.get(f"/keys/{key}/change?do=limit").status == 403
    assert house.one.get(f"/accounts/{account}/change?do=close").status == 403


def test_a_limit_that_is_used_up_already_says_so(house: House) -> None:
    (key,) = [row["id"] for row in house.operator.rows("/keys.json") if row["account"] == "other"][-1:]
    page = text(house.operator.page(f"/keys/{key}/change?do=limit&usd_per_month=0.00005"))
    assert "$0.0001 is spent this month: orders are answered 402 at once" in page


def test_money_is_paid_in_once_however_often_its_form_is_sent(house: House) -> None:
    opened = house.operator.post("/accounts", {"name": "paid in", "plan": "paying", "terms": "prepaid", "prepaid": "1"})
    path = opened.headers["location"].removeprefix("/console")
    before = house.operator.page(f"{path}/top-up?amount=2.5&note=Invoice+7")
    assert "Balance afterwards $3.50" in text(before)
    form = {"amount": "2.5", "note": "Invoice 7", "once": hidden(before, "once")}
    sent = {"form": house.operator.token(), **form}
    with ThreadPoolExecutor(4) as clicks:  # at once, as a double click sends it
        answers = clicks.map(lambda _: house.operator.ask("POST", f"/console{path}/top-up", sent).status, range(4))
        assert set(answers) == {303}
    assert house.operator.post(f"{path}/top-up", {**form, "amount": "3"}).status == 400
    assert house.gateway.statement("paid in")["balance_usd"] == "3.5"
    assert house.operator.get(f"{path}/top-up?amount=0").status == 400


def test_end_users_are_limited_and_seen_by_their_own(house: House) -> None:
    account = house.operator.rows("/accounts.json")[0]
    for user, cost in (("ann", "0.01"), ("bob", "0.02")):
        headers = {"x-openrouter-simulate": f"cost={cost}", "x-farebox-tags": "team=sales"}
        assert order(house.gateway, "/chat/completions", house.one_key, headers, user=user).status == 200
    one = next(each for each in house.operator.rows("/accounts.json") if each["account"] == "one")
    here = f"account_id={one['id']}"
    spent = [Decimal(str(row["fares_this_month_usd"])) for row in house.one.rows("/end-users.json")]
    assert sum(spent) == Decimal("0.03")
    for query, fares in (("end_user=bob", "0.02"), ("tag=team%3Dsales", "0.03"), ("end_user=ann&tag=team%3Dx", "0")):
        for path, column in (("/spent", "fares_usd"), ("/orders", "fare_usd"), ("/statement", "amount_usd")):
            rows = house.operator.rows(f"{path}.json?{here}&{query}")
            assert abs(sum(Decimal(str(row[column])) for row in rows)) == Decimal(fares), (path, query)
    said = text(house.one.page("/statement?end_user=bob"))
    assert "Fares $0.02" in said
    by = house.operator.rows(f"/spent.json?{here}&by=tag:team")
    assert {str(row["for"]) for row in by} == {"sales", "None"}
    assert house.one.post("/end-users", {"usd_per_month": "1"}).status == 403
    assert house.operator.post(f"/end-users?{here}", {"usd_per_month": "0.01"}).status == 303
    assert house.operator.post(f"/end-users?{here}&end_user=bob", {"usd_per_month": "5"}).status == 303
    assert order(house.gateway, "/chat/completions", house.one_key, user="ann").status == 402
    assert order(house.gateway, "/chat/completions", house.one_key, user="bob").status == 200
    (bob,) = house.one.rows("/end-users.json?which=limited")
    assert bob["limits"] == "$5 a month"
    assert house.one.get(f"/end-users?account_id={account['id']}").status in (200, 404)
    assert house.other.get(f"/end-users?{here}").status == 404
    assert house.operator.post(f"/end-users?{here}", {}).status == 303
    assert "none" in text(house.operator.page(f"/end-users?{here}"))


def test_an_open_order_is_decided_with_a_reason(house: House) -> None:
    key = house.gateway.new_key("decided", "--plan", "paying", "--prepaid", "1")
    house.gateway.chat(key, simulate="usage=missing")
    (row,) = [row for row in house.operator.rows("/reconcile.json") if row["account"] == "decided"]
    path = f"/reconcile/{row['order']}"
    assert "Say why" in text(house.operator.page(f"{path}?verdict=cost&cost=0.00123"))
    asked = {"verdict": "cost", "cost": "0.00123", "reason": "They told us"}
    assert "which is 123 events, the account is charged $0.00123" in text(
        house.operator.page(f"{path}?{urlencode(asked)}")
    )
    assert house.operator.post(path, {**asked, "reason": ""}).status == 400
    assert house.operator.post(path, asked).headers["location"] == f"/console/orders/{row['order']}"
    assert "by an operator: They told us" in text(house.operator.page(f"/orders/{row['order']}"))
    assert house.operator.post(path, asked).status == 400
    assert house.gateway.statement("decided")["spent_usd"] == "0.00123"


# Who is signed in


def test_a_receiver_of_alerts_is_added_once_tested_and_removed(house: House) -> None:
    operator, url = house.operator, "https://localhost/hooks/s3cret"
    form = {"url": url, "label": SCRIPT, "as": "webhook", "kind_low_balance": "on"}
    asked = operator.post("/alerts/new", form)
    assert (asked.status, SCRIPT in asked.body.decode()) == (200, False)
    assert "an account has little left" in text(asked.body.decode())
    once = {"once": hidden(asked.body.decode(), "once")}
    made, again = (operator.post("/alerts", {**form, **once}) for _ in range(2))
    assert (made.status, again.status) == (201, 409)
    assert re.search(r"whsec_[\w+/=]{44}<", made.body.decode())
    page = operator.page("/alerts")
    assert "https://localhost/..." in page
    number = found_in(page, r"/alerts/(\d+)")
    tested = operator.post(f"/alerts/{number}", {"do": "test"})
    assert "It did not arrive" in text(tested.body.decode())
    assert "an address within the gateway's own network" in text(tested.body.decode())
    (row,) = operator.rows("/alerts.json")
    assert (row["kind"], row["state"], row["attempts"], row["receiver"]) == ("test", "given_up", 1, SCRIPT)
    for told in (page, operator.page("/alerts"), operator.get("/alerts.csv").body.decode()):
        assert "s3cret" not in told
        assert "whsec" not in told
    assert SCRIPT not in operator.page("/alerts")
    of_one = Browser(
        house.gateway, str(house.gateway.cli("management-key", "create", "--account", "one", "--label", "x")["key"])
    )
    assert of_one.rows("/alerts.json") == []
    for browser in (of_one, house.one):
        assert browser.post(f"/alerts/{number}", {"do": "remove"}).status == (404 if browser is of_one else 403)
    assert of_one.post("/alerts/new", {**form, "kind_failing_task": "on"}).status == 400
    assert house.one.get("/alerts").status == 403
    assert "/console/alerts" not in house.one.page("")
    assert operator.post("/alerts/new", {"url": "https://127.0.0.1/", "as": "webhook"}).status == 400
    assert operator.post(f"/alerts/{number}", {"do": "remove"}).status == 303
    assert operator.rows("/alerts.json") == []


def test_below_what_an_account_is_low_is_set_on_its_page(house: House) -> None:
    (account,) = [row for row in house.operator.rows("/accounts.json") if row["account"] == "one"]
    path = f"/accounts/{account['id']}"
    assert "Told as low below $1.00 left" in text(house.operator.page(path))
    assert "less than $20" not in text(house.operator.page(""))
    assert house.operator.post(path, {"do": "low_balance", "below": "20"}).status == 303
    assert "left, less than $20" in text(house.operator.page(""))
    assert "left, less than $20" in text(house.one.page(""))
    assert house.one.post(path, {"do": "low_balance", "below": "1"}).status == 403
    assert house.operator.post(path, {"do": "low_balance", "below": "-1"}).status == 400
    assert house.operator.post(path, {"do": "low_balance", "below": ""}).status == 303
    assert "Told as low never" in text(house.operator.page(path))


def test_whoever_is_not_signed_in_sees_nothing(house: House) -> None:
    stranger = Browser(house.gateway)
    for path in ("", "/orders", "/keys/2", "/accounts"):
        found = stranger.get(path)
        assert (found.status, found.headers["location"]) == (303, "/console/sign-in")
    assert stranger.get("/orders.json").status == 401
    for wrong in ("", "sk-fb-wrong", "sk-fb-management-wrong", "é", "x" * 5000):
        assert stranger.sign_in(wrong).status == 401
        assert not stranger.cookie
    stranger.cookie = "farebox_console=" + "x" * 43
    assert stranger.get("").status == 303


def test_a_session_ends_with_its_key_and_when_somebody_signs_out(house: House) -> None:
    key = house.gateway.cli("key", "create", "one", "--label", "short")
    short, again = Browser(house.gateway, key["key"]), Browser(house.gateway, key["key"])
    assert short.get("").status == 200
    kept = short.cookie
    assert short.post("/sign-out", {}).status == 303
    short.cookie = kept
    assert short.get("").status == 303
    assert again.get("").status == 200
    house.gateway.cli("key", "revoke", key["key"])
    assert again.get("").status == 303
    rotated = house.gateway.cli("key", "create", "one", "--label", "rotated")["key"]
    old = Browser(house.gateway, rotated)
    house.gateway.cli("key", "rotate", rotated, "--overlap", "0")
    assert old.get("").status == 303
    closed = Browser(house.gateway, house.gateway.new_key("closed", "--plan", "paying", "--prepaid", "1"))
    assert closed.get("").status == 200
    house.gateway.cli("account", "close", "closed")
    assert closed.get("").status == 303
    manager = house.gateway.cli("management-key", "create", "--label", "short")
    managing = Browser(house.gateway, manager["key"])
    assert managing.get("").status == 200
    house.gateway.cli("management-key", "revoke", manager["key"])
    assert managing.get("").status == 303


def test_the_link_that_is_printed_signs_in_once(house: House) -> None:
    (path,) = re.findall(r"http://[^/]+(/console/enter/\S+)", house.gateway.banner)
    guest = Browser(house.gateway)
    assert guest.ask("GET", path).status == 200
    assert guest.ask("GET", path, host="farebox.example").status == 403
    assert guest.get("").status == 303
    assert guest.ask("POST", path, {}).status == 303
    assert "demo" in text(guest.page(""))
    assert Browser(house.gateway).ask("POST", path, {}).status == 403


# Live


class Live:
    """A page that follows orders: reads server-sent events as they come."""

    def __init__(self, browser: Browser, query: str = "", **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", browser.gateway.port, timeout=30)
        sent = {"cookie": browser.cookie, "sec-fetch-site": "same-origin", **headers}
        self._connection.request("GET", f"/console/live/events{query}", headers={n: v for n, v in sent.items() if v})
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def event(self) -> tuple[str, str]:
        """The next one, and what it says; both empty at the stream's end."""
        fields: dict[str, list[str]] = {}
        while line := self._answer.readline().decode().rstrip("\n"):
            assert "\r" not in line  # it would end a line, too
            name, _, value = line.partition(": ")
            fields.setdefault(name, []).append(value)
        return fields.get("event", [""])[0], text("\n".join(fields.get("data", [])))

    def until(self, said: str) -> str:
        """What it shows as soon as that stands there."""
        while True:
            name, shown = self.event()
            assert self._answer.isclosed() is False, f"{said} never came"
            if name == "orders" and said in shown:
                return shown


def test_live_tells_of_orders_as_they_go_and_of_ones_own_alone(house: House) -> None:
    key = house.gateway.new_key("live", "--plan", "paying", "--prepaid", "5")
    others_key = house.gateway.new_key("beside", "--plan", "free", "--prepaid", "0.5")
    own, other = Browser(house.gateway, key), Browser(house.gateway, others_key)
    assert "None is under way, and none ended" in text(own.page("/live"))
    with Live(own) as live, Live(other) as others, Live(house.operator, "?account=live") as all_of_them:
        assert (live.status, live.headers["content-type"]) == (200, "text/event-stream")
        assert live.headers["content-security-policy"].startswith("default-src 'none'")
        assert "0 under way" in live.until("none ended")
        theirs = others.until("under way")
        assert "live" not in theirs
        assert house.gateway.chat(key, simulate="usage=missing").status == 200
        assert "1 of the last hour whose cost is not known yet" in live.until("open whole")
        (row,) = own.rows("/reconcile.json")
        form = {"verdict": "cost", "cost": "0.00123", "reason": "They told us"}
        assert house.operator.post(f"/reconcile/{row['order']}", form).status == 303
        assert "posted whole" in live.until("$0.00123")
        assert "1 ended within the last minute" in all_of_them.until("$0.00123")
        house.gateway.chat(others_key, simulate="cost=0.00777")
        shown = others.until("$0.0777")
        assert "sim/echo" in shown
        assert "$0.00123" not in shown
        house.gateway.chat(key, simulate="cost=0.00321")
        assert "$0.0777" not in live.until("$0.00321")
    (one, two) = own.rows("/live.json?model=sim/echo")
    assert (one["fare_usd"], two["fare_usd"], one["streamed"]) == ("0.00321", "0.00123", 0)
    assert own.rows("/live.json?model=sim/none") == []
    assert house.operator.get("/live?account=nobody").status == 404
    assert house.operator.get(f"/live.csv?key_id={own.rows('/keys.json')[0]['id']}").body.count(b"\n") == 3


def test_live_ends_with_its_session(house: House) -> None:
    made = house.gateway.cli("key", "create", "one", "--label", "watching")
    with Live(Browser(house.gateway, made["key"])) as live:
        live.until("under way")
        house.gateway.cli("key", "revoke", made["key"])
        told = next(event for event in (live.event() for _ in range(5)) if event[0] == "ended")
        assert told[1] == "Nobody is signed in here any more"
        assert live.event() == ("", "")


def test_live_is_for_the_consoles_own_page(house: House) -> None:
    key = next(row for row in house.operator.rows("/keys.json") if row["account"] == "other")
    evil = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    nobody = Browser(house.gateway)
    for status, asked in (
        (401, Live(nobody)),
        (403, Live(house.one, "", **evil)),
        (403, Live(house.one, "", **{"sec-fetch-site": "same-site"})),
        (403, Live(house.one, "", host="evil.example")),
        (404, Live(house.one, f"?key_id={key['id']}")),
        (400, Live(house.one, "?key_id=x")),
    ):
        with asked:
            assert asked.status == status
            assert "access-control-allow-origin" not in asked.headers
    with Live(house.one, "?account=other") as live:
        assert "0.0001" not in live.until("under way")
    at_once = [Live(house.one) for _ in range(9)]
    assert [each.status for each in at_once] == [*(200 for _ in range(8)), 429]
    with Live(house.operator) as another:
        assert another.status == 200
    for each in at_once:
        each.__exit__()


# Attacks


def test_a_form_of_another_page_does_nothing(house: House) -> None:
    """CSRF: a page elsewhere, with the victim's cookie, in every way that its browser would send it."""
    token, key = house.operator.token(), house.operator.rows("/keys.json")[0]["id"]
    revoke = {"do": "rename", "label": "taken over"}
    for form, headers in (
        ({"form": token, **revoke}, {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}),
        ({"form": token, **revoke}, {"origin": "https://evil.example", "sec_fetch_site": ""}),
        ({"form": token, **revoke}, {"origin": "null", "sec_fetch_site": ""}),
        ({"form": token, **revoke}, {"origin": "", "sec_fetch_site": ""}),
        ({"form": token, **revoke}, {"sec_fetch_site": "same-site"}),
        ({"form": token, **revoke}, {"content_type": "text/plain"}),
        (revoke, {}),
        ({"form": house.one.token(), **revoke}, {}),
        ({"form": "é", **revoke}, {}),
    ):
        found = house.operator.ask("POST", f"/console/keys/{key}", form, **headers)
        assert found.status in (400, 403), (form, headers)
    # A page that signs its visitor in as somebody else learns what the visitor does.
    evil = {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}
    stranger = Browser(house.gateway)
    assert stranger.ask("POST", "/console/sign-in", {"key": house.one_key}, **evil).status == 403
    assert not stranger.cookie
    assert "taken over" not in house.operator.page("/keys")


def test_a_session_that_somebody_else_chose_is_not_used(house: House) -> None:
    """Session fixation: signing in makes a new session, and ends the one that was there."""
    victim = Browser(house.gateway)
    victim.cookie = "farebox_console=chosen-by-somebody-else"
    assert victim.sign_in(house.one_key).status == 303
    assert victim.cookie != "farebox_console=chosen-by-somebody-else"
    attacker = Browser(house.gateway, house.other_key)
    victim.cookie = planted = attacker.cookie
    victim.sign_in(house.one_key)
    assert victim.cookie != planted
    assert attacker.get("").status == 303


def test_names_that_are_markup_are_shown_as_text(house: House) -> None:
    """XSS: by an account's name, a key's, a model's, a note, a reason, an address."""
    name = f"evil {SCRIPT}"
    key = house.gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    house.gateway.cli("key", "create", name, "--label", f'"><img src=x onerror=alert(1)>{SCRIPT}')
    tagged = {"authorization": f"Bearer {key}", "x-farebox-tags": f"team={SCRIPT}", "x-farebox-end-user": SCRIPT}
    order(house.gateway, "/chat/completions", key, tagged)
    house.gateway.chat(key, simulate="usage=missing")
    (row,) = [row for row in house.operator.rows("/reconcile.json") if row["account"] == name]
    asked = {"verdict": "void", "reason": SCRIPT}
    house.operator.post(f"/reconcile/{row['order']}", asked)
    account = next(each["id"] for each in house.operator.rows("/accounts.json") if each["account"] == name)
    for path in (
        "",
        "/spent",
        "/orders",
        f"/orders/{row['order']}",
        "/keys",
        "/accounts",
        f"/accounts/{account}",
        f"/accounts/{account}/top-up?amount=1&note={SCRIPT}",
        f"/accounts?search={SCRIPT}",
        f"/models?search={SCRIPT}",
        f"/keys/new?account=one&label={SCRIPT}",
        f"/spent?model={SCRIPT}",
        "/spent?by=tag:team",
        f"/spent?end_user={SCRIPT}&tag=team={SCRIPT}",
        f"/orders?end_user={SCRIPT}&tag=team={SCRIPT}",
        f"/statement?account_id={account}&end_user={SCRIPT}&tag=team={SCRIPT}",
        f"/end-users?account_id={account}",
        f"/end-users?account_id={account}&end_user={SCRIPT}",
        f"/live?model={SCRIPT}",
        f"/orders/{SCRIPT}",
        f"/reconcile/{row['order']}?verdict=void&reason={SCRIPT}",
    ):
        found = house.operator.get(path.replace("<", "%3C").replace(">", "%3E"))
        assert b"<script>" not in found.body, path
        assert b"<img" not in found.body, path
        assert b"onerror" not in found.body or b"&gt;&lt;img" in found.body, path


def test_what_a_spreadsheet_would_take_for_a_formula_is_text(house: House) -> None:
    house.gateway.cli("key", "create", "one", "--label", '=HYPERLINK("https://evil.example")')
    assert "\"'=HYPERLINK(" in house.operator.get("/keys.csv").body.decode()


def test_what_every_answer_says_to_a_browser(house: House) -> None:
    """Clickjacking, sniffing, caches, what leaves by a referrer, scripts and styles from elsewhere."""
    for who, path in (
        (house.one, ""),
        (house.one, "/orders.json"),
        (house.one, "/nowhere"),
        (Browser(house.gateway), "/sign-in"),
    ):
        headers = who.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert (headers["referrer-policy"], headers["x-frame-options"]) == ("same-origin", "DENY")
    cookie = house.one.sign_in(house.one_key).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    behind = {"origin": f"https://127.0.0.1:{house.gateway.port}"}
    assert (
        "; Secure" in house.one.ask("POST", "/console/sign-in", {"key": house.one_key}, **behind).headers["set-cookie"]
    )


def test_no_key_stands_in_an_address_and_nothing_leads_elsewhere(house: House) -> None:
    stranger = Browser(house.gateway)
    assert stranger.ask("GET", f"/console/sign-in?key={house.one_key}").status == 200
    assert not stranger.cookie
    for path in ("//evil.example", "/https:%2F%2Fevil.example", "/sign-in?next=https://evil.example"):
        found = stranger.sign_in(house.one_key) if "next" in path else house.one.get(path)
        assert "evil" not in found.headers.get("location", "")
    assert (
        stranger.ask("POST", "/console/sign-in?next=//evil.example", {"key": house.one_key}).headers["location"]
        == "/console"
    )


def test_a_name_that_points_here_is_no_name_of_this_gateway(house: House) -> None:
    """DNS rebinding."""
    found = house.one.ask("GET", "/console", host="evil.example")
    assert found.status == 403
    assert b"evil.example" in found.body


def test_a_first_visit_is_small(house: House) -> None:
    page = house.operator.get("")
    files = re.findall(r'(?:href|src)="(/console/static/[^"]+)"', page.body.decode())
    assert len(files) == 3
    loaded = [house.operator.ask("GET", each) for each in files]
    assert all("immutable" in each.headers["cache-control"] for each in loaded)
    assert len(page.body) + sum(len(each.body) for each in loaded) < 60_000


def test_the_console_can_be_left_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Gateway(tmp_path_factory.mktemp("without"), FAREBOX_CONSOLE="false") as gateway:
        assert "console" not in gateway.banner
        assert gateway.request("GET", "/console").status == 404
        assert json.loads(gateway.request("GET", "/console/keys").body)["error"]["code"] == 404


def test_several_processes_on_postgresql_serve_it_as_one(tmp_path: Path, postgres: Cluster) -> None:
    with Gateway(tmp_path, "--workers", "2", FAREBOX_DATABASE_URL=postgres.new_books()) as gateway:
        key = gateway.new_key("acme", "--plan", "paying", "--prepaid", "0.5")
        assert gateway.chat(key).status == 200
        gateway.chat(key, simulate="usage=missing")
        operator = Browser(gateway, gateway.cli("management-key", "create", "--label", "ops")["key"])
        account = next(row for row in operator.rows("/accounts.json?search=AC") if row["account"] == "acme")
        order = operator.rows("/reconcile.json")[0]["order"]
        places = (
            "",
            "/spent",
            "/orders",
            f"/orders/{order}",
            f"/statement?account_id={account['id']}",
            "/keys",
            "/keys/1",
            f"/accounts/{account['id']}",
            "/models",
            "/playground",
            f"/reconcile/{order}",
        )
        # Each is a new connection, which any of the processes may get.
        for path in (*places, *places):
            assert "Sign out" in operator.page(path)
        form = {
            "account": "acme",
            "label": "made here",
            "once": hidden(operator.page("/keys/new?account=acme&label=x"), "once"),
        }
        assert sorted(operator.post("/keys", form).status for _ in range(3)) == [201, 409, 409]
        assert f"acme has ${account['balance_usd']} left, less than $1" in text(operator.page(""))
        left = operator.cookie
        assert operator.post("/sign-out", {}).status == 303
        operator.cookie = left
        assert {operator.get("").status for _ in range(4)} == {303}
        gateway.audit()
