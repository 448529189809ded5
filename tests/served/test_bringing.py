"""Keys and people brought along from a file; keys rotated; accounts changed and closed; fares given back."""

import csv
import io
import json
from hashlib import sha256
from pathlib import Path

import pytest

from tests.gateway import Gateway

FOREIGN = "sk-litellm-a-callers-own-key"


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


@pytest.fixture
def shell(tmp_path: Path) -> Gateway:
    shell = Gateway(tmp_path)
    shell.copy_books()
    return shell


def test_callers_keep_the_keys_that_they_have(gateway: Gateway) -> None:
    gateway.cli("account", "create", "team", "--plan", "paying", "--prepaid", "5")
    assert gateway.chat(FOREIGN).status == 401
    litellms = [
        {
            "token": digest(FOREIGN),
            "key_alias": "laptop",
            "key_name": "sk-...-key",
            "max_budget": 20.0,
            "budget_duration": "30d",
            "rpm_limit": 600,
            "spend": 3.5,
            "models": ["all-team-models"],
            "blocked": None,
            "expires": None,
        },
        {"token": digest("sk-blocked"), "blocked": True, "models": ["sim/penny"], "max_budget": None},
    ]
    file = gateway.folder / "keys.json"
    file.write_text(json.dumps(litellms))
    first, blocked = gateway.cli("key", "import", str(file), "--account", "team")
    assert (first["label"], first["hint"], first["was_there"]) == ("laptop", "sk-...-key", False)
    assert first["limits"] == {"requests_per_minute": 600, "usd_per_month": "20"}
    assert (blocked["state"], blocked["limits"]) == ("disabled", {"models": ["sim/penny"]})
    answer = gateway.chat(FOREIGN)
    while answer.status == 401:  # until the server has seen it
        answer = gateway.chat(FOREIGN)
    assert answer.status == 200
    dummy = {"authorization": f"Bearer {gateway.key}", "x-api-key": "dummy"}
    assert gateway.request("GET", "/api/v1/key", headers=dummy).status == 200
    assert gateway.chat("sk-blocked").status == gateway.chat("sk-litellm-another").status == 401
    assert [each["was_there"] for each in gateway.cli("key", "import", str(file), "--account", "team")] == [True, True]
    assert len(gateway.cli("key", "list", "team")) == 2
    assert "not carried over: spend" in gateway.run("key", "import", "keys.json", "--account", "team").stderr
    gateway.cli("account", "create", "other", "--plan", "paying")
    assert (
        "this key is another account's already"
        in gateway.run("key", "import", "keys.json", "--account", "other").stderr
    )


def test_a_rotated_key_works_beside_the_new_one_and_is_the_same_key(gateway: Gateway) -> None:
    assert gateway.chat().status == 200
    number = gateway.cli("key", "list", "demo")[0]["id"]
    gateway.cli("key", "limit", str(number), "usd_total=1")
    rotated = gateway.cli("key", "rotate", str(number), "--overlap", "1h")
    assert rotated["state"].startswith("good, the old one until ")
    new = rotated["key"]
    assert gateway.chat(new).status == gateway.chat().status == 200
    assert gateway.cli("key", "limit", str(number))["used"]["usd_total"] == "0.00003"
    assert gateway.cli("key", "revoke", gateway.key)["id"] == number
    assert gateway.chat(new).status in (200, 401)
    again = gateway.run("key", "rotate", str(number))
    assert (again.returncode, "is not good any more" in again.stderr) == (1, True)


def test_without_an_overlap_the_old_key_stops(gateway: Gateway) -> None:
    new = gateway.cli("key", "rotate", gateway.key, "--overlap", "0")["key"]
    answer = gateway.chat()
    while answer.status == 200:  # until the server has seen it
        answer = gateway.chat()
    assert (answer.status, gateway.chat(new).status) == (401, 200)
    assert gateway.run("key", "rotate", new, "--overlap", "soon").stderr.startswith("farebox: --overlap: 'soon'")


PEOPLE = """name,plan,prepaid_usd,postpaid,limit_usd,usd_per_month,label,expires
ann@team.example,paying,5,,,20,laptop,2099-01-31
bob@team.example,,0.25,,,,,
carol@team.example,free,,true,3,,-,
"""


def test_people_from_a_file_are_not_doubled(shell: Gateway) -> None:
    (shell.folder / "people.csv").write_text(PEOPLE)
    done = shell.run("account", "import", "people.csv", "--plan", "paying")
    assert done.returncode == 0, done.stderr
    first = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["name"], row["account"], row["paid_in_usd"], row["key"][:6]) for row in first] == [
        ("ann@team.example", "new", "5", "sk-fb-"),
        ("bob@team.example", "new", "0.25", "sk-fb-"),
        ("carol@team.example", "new", "0", ""),
    ]
    assert "3 accounts opened, 0 were there; 2 keys made: keep them" in done.stderr
    again = shell.cli("account", "import", str(shell.folder / "people.csv"), "--plan", "free")
    assert [(row["account"], row["paid_in_usd"], row["key"]) for row in again] == [("there", "0", None)] * 3
    more = shell.cli("account", "import", str(shell.folder / "people.csv"), "--plan", "free", "--batch", "december")
    assert [(row["paid_in_usd"], bool(row["key"])) for row in more] == [("5", False), ("0.25", True), ("0", False)]
    accounts = {each["name"]: each for each in shell.cli("account", "list")}
    assert [(each["plan"], each["balance_usd"], each["available_usd"]) for each in accounts.values()] == [
        ("paying", "10", "10"),
        ("free", "0.5", "0.5"),
        ("free", "0", "3"),
    ]
    (key,) = shell.cli("key", "list", "ann@team.example")
    assert (key["label"], key["expires"]) == ("laptop", "2099-01-31T00:00:00.000Z")
    assert shell.cli("account", "limit", "ann@team.example")["limits"]["usd_per_month"] == "20"
    shell.audit()


def test_two_hundred_people_come_at_once(shell: Gateway) -> None:
    rows = [f"p{number}@team.example,paying,1,5" for number in range(200)]
    file = shell.folder / "people.csv"
    file.write_text("\n".join(["name,plan,prepaid_usd,usd_per_month", *rows]))
    assert len({row["key"] for row in shell.cli("account", "import", str(file))}) == 200
    assert shell.audit()["paid_in_usd"] == "200"


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("key", "digest,account\nsk-plain,team\n", "row 1: digest: this is a key itself"),
        ("key", f"digest,acount\n{'0' * 64},team\n", "row 1: there is no column 'acount'; did you mean account?"),
        ("key", f"digest,account\n{'0' * 64},nobody\n", "row 1: there is no account `nobody`"),
        ("key", f"digest\n{'0' * 64}\n", "row 1: account: missing"),
        ("key", f"digest,account\n{'0' * 64},team\n{'0' * 64},team\n", "row 2: the same digest stands in row 1"),
        ("key", f"digest,account,rpm_limit\n{'0' * 64},team,many\n", "row 1: requests_per_minute: 'many' is no limit"),
        ("key", f"digest,account,expires\n{'0' * 64},team,soon\n", "row 1: expires: 'soon' is no moment; write 2026"),
        ("key", "[1, 2]", "a JSON list of objects is wanted"),
        ("key", "", "there are no rows in it"),
        ("key", f"digest,account\n{'0' * 64},team\n{'1' * 64},closed\n", "row 2: the account `closed` is closed"),
        ("key", f"digest,account,label\n{'0' * 64},team,\n{'1' * 64},team,{'x' * 201}\n", "row 2: a key's name has"),
        ("account", f"name,plan,label\nteam,free,\nx,paying,{'x' * 201}\n", "row 2: a key's name has at most 200"),
        ("account", "name,plan,expires\nteam,free,\nx,paying,2020-01-01\n", "row 2: a key's expiry must lie in the"),
        ("account", "name,plan\nteam,free\nclosed,free\n", "row 2: the account `closed` is closed"),
        ("account", "name,plan\nteam,paying\nx,gold\n", "row 2: there is no plan `gold`"),
        ("account", "name\nx\n", "row 1: plan: missing"),
        ("account", "name,plan,prepaid_usd\nx,paying,much\n", "row 1: prepaid_usd: 'much' is not an amount"),
        ("account", "name,plan\nx,paying\nx,free\n", "row 2: the name `x` stands in row 1, too"),
        ("account", "name,plan,limit_usd\nx,paying,1\n", "row 1: limit_usd: goes with postpaid"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(shell: Gateway, command: str, text: str, said: str) -> None:
    shell.cli("account", "create", "team", "--plan", "paying")
    shell.cli("account", "create", "closed", "--plan", "paying")
    shell.cli("account", "close", "closed")
    before = (shell.cli("account", "list"), shell.cli("key", "list"))
    (shell.folder / "file").write_text(text)
    done = shell.run(command, "import", "file")
    assert (done.returncode, said in done.stderr, done.stdout) == (2, True, ""), done.stderr
    assert (shell.cli("account", "list"), shell.cli("key", "list")) == before


def test_who_was_paid_in_otherwise_under_this_name_keeps_plan_and_limits(shell: Gateway) -> None:
    file = shell.folder / "people.csv"
    file.write_text("name,plan,prepaid_usd,usd_per_day\nann,paying,5,1\n")
    shell.cli("account", "import", str(file))
    before = shell.cli("account", "list"), shell.cli("account", "limit", "ann")
    file.write_text("name,plan,prepaid_usd,usd_per_day\nann,free,6,2\n")
    assert "row 1: this key stands for a top-up of $5" in shell.run("account", "import", "people.csv").stderr
    assert (shell.cli("account", "list"), shell.cli("account", "limit", "ann")) == before


def test_an_account_is_not_closed_for_a_reason_that_is_none(shell: Gateway) -> None:
    shell.cli("account", "create", "a", "--plan", "paying", "--prepaid", "1")
    before = shell.cli("account", "list")
    for reason in (" ", "x" * 501):
        assert "say why" in shell.run("account", "close", "a", "--reason", reason).stderr
    assert shell.cli("account", "list") == before


def test_a_closed_account_orders_nothing_and_what_is_left_is_paid_out(gateway: Gateway) -> None:
    key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
    assert gateway.chat(key).status == 200
    changed = gateway.cli("account", "change", "a", "--plan", "free", "--name", "b")
    assert (changed["name"], changed["plan"]) == ("b", "free")
    assert gateway.cli("account", "close", "b")["paid_out_usd"] == "0.99999"
    refused = gateway.chat(key)
    assert (refused.status, "closed" in refused.error["message"]) == (403, True)
    assert gateway.cli("account", "close", "b")["paid_out_usd"] == "0"
    assert "is closed" in gateway.run("key", "create", "b").stderr
    assert gateway.statement("b")["lines"][-1]["what"] == "paid out (the account is closed)"
    gateway.cli("account", "reopen", "b")
    gateway.cli("account", "top-up", "b", "1")
    answer = gateway.chat(key)
    while answer.status == 403:  # until the server has seen it
        answer = gateway.chat(key)
    assert (answer.status, answer.headers["x-farebox-fare-usd"]) == (200, "0.0001")
    assert gateway.audit()["adjustments"] == 1


def test_a_fare_is_given_back_once_with_a_reason(gateway: Gateway) -> None:
    generation = gateway.chat(simulate="cost=0.002").headers["x-generation-id"]
    refund = ("refund", generation, "0.0005", "--reason", "it was cut short")
    done = gateway.cli(*refund)
    assert (done["given_back_usd"], done["fare_usd"], done["is_repeat"]) == ("0.0005", "0.0015", False)
    assert gateway.cli(*refund)["is_repeat"]
    corrected = gateway.cli("correct", generation, "--cost", "0.003", "--reason", "the invoice")
    assert (corrected["given_back_usd"], corrected["fare_usd"]) == ("-0.0015", "0.003")
    assert gateway.cli("refund", corrected["hold_id"], "--reason", "all of it")["fare_usd"] == "0"
    found = gateway.statement()
    assert [(line["what"], line["amount_usd"]) for line in found["lines"][1:]] == [
        ("fare", "-0.002"),
        ("refund (it was cut short)", "0.0005"),
        ("correction (the invoice)", "-0.0015"),
        ("refund (all of it)", "0.003"),
    ]
    assert (found["paid_in_usd"], found["given_back_usd"], found["balance_usd"]) == ("5", "0.0035", "5")
    assert "spent $0.002 (200 events), given back $0.0035, balance $5" in gateway.run("statement", "demo").stdout
    for arguments, code, said in (
        (("refund", generation, "1", "--reason", "more than it was"), 1, "$0 of this fare is left"),
        (("refund", generation), 2, "--reason: say why"),
        (("refund", "gen-nothing", "--reason", "x"), 1, "there is no order `gen-nothing`"),
        (("correct", generation, "--cost", "much", "--reason", "x"), 2, "--cost: an amount in USD"),
        (("account", "change", "demo"), 2, "say what to change"),
    ):
        refused = gateway.run(*arguments)
        assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    assert gateway.audit()["adjustments"] == 3
