"""Statements as ledgers, read by the programs that bookkeepers have: beancount, and Debian's hledger."""

import csv
import io
import os
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from farebox.core import beancount, hledger
from farebox.core.chart import Chart, Moved, Side, Spent
from tests.conftest import debian_extract, missing
from tests.gateway import Gateway

Balances = dict[str, Decimal]

BIN = Path(os.environ.get("LEDGERS_BIN", Path(__file__).parents[2] / ".venv-ledgers" / "bin"))

PLANS = '[plans.fine]\nmultiplier = "1.2347"\n'
"""An event at $0.000012347: whole nano-dollars, and no rounder."""

NASTY = (
    'acme "x"; |\\ co',
    "a.b",
    "a-b",
    "a b",
    "A-b",
    "=cmd|' /C calc'!A0",
    "* ! (code) | = note",
    "  two  spaces  ",
    "ünïcode 名前 🦆",
    "USD 1,000.00 @@ {1}",
    "#tag ^link",
    "1",
    "\\",
    '"',
    ";",
    "%%%",
    "a-b-3fa2b1",
    "x" * 300,
)


@pytest.fixture(scope="session")
def programs() -> Path:
    """hledger, by its path; beancount's are in BIN."""
    if not (BIN / "bean-check").exists():
        missing("beancount is not installed, so it reads no ledger")
    found = shutil.which("hledger")
    path = Path(found) if found else debian_extract("hledger") / "usr" / "bin" / "hledger"
    if not path.exists():
        missing("hledger is not installed, so it reads no ledger")
    return path


def said(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def by_beancount(path: Path) -> Balances:
    said(BIN / "bean-check", path)
    query = "SELECT account, sum(number) AS total GROUP BY account"  # sum(position) would be rounded
    rows = csv.DictReader(io.StringIO(said(BIN / "bean-query", "-f", "csv", path, query)))
    return {row["account"]: Decimal(row["total"].strip()) for row in rows if Decimal(row["total"].strip())}


def by_hledger(hledger: Path, path: Path) -> Balances:
    said(hledger, "-f", path, "check", "--strict")
    # As JSON it rounds to ten decimals; in tables to those of the commodity.
    style = ("--commodity-style", f"1.{'0' * 24} USD")
    printed = said(hledger, "-f", path, "balance", "--flat", "--no-total", "-O", "csv", *style)
    rows = csv.DictReader(io.StringIO(printed))
    return {row["account"]: Decimal(row["balance"].removesuffix(" USD")) for row in rows}


def below(balances: Balances, account: str) -> Decimal:
    return sum((amount for name, amount in balances.items() if f"{name}:".startswith(f"{account}:")), Decimal(0))


def test_bookkeepers_programs_come_to_what_the_statement_says(tmp_path: Path, programs: Path) -> None:
    (tmp_path / "farebox.toml").write_text(PLANS)
    with Gateway(tmp_path) as gateway:
        names = [NASTY[0], "second"]
        keys = [gateway.new_key(name, "--plan", "fine", "--prepaid", "5") for name in names]
        more = str(gateway.cli("key", "create", names[0], "--label", NASTY[5])["key"])
        for number in range(4):
            assert gateway.chat(keys[0], f"cost=0.0000{number}1234567890123").status == 200
        assert gateway.chat(more).status == gateway.chat(keys[1], "cost=0").status == 200
        caller = {"authorization": f"Bearer {keys[0]}"}
        orders = gateway.request("GET", "/api/v1/orders", headers=caller).json["data"]
        gateway.cli("refund", orders[0]["id"], "--reason", 'bad; "quotes" | \\ and\ttabs')
        gateway.cli("correct", orders[1]["id"], "--cost", "0.5", "--reason", "its cost came late")
        gateway.cli("account", "close", names[1])
        statement = gateway.request("GET", "/api/v1/statement", headers=caller).json
        money = {name: Decimal(value) for name, value in statement["totals"].items() if name.endswith("_usd")}
        closing = Decimal(statement["closing_balance_usd"])
        assert (closing * 10**9) % 10, "no amount of this test needs nano-dollars"
        for by in ("day", "order"):
            for ending in (".beancount", ".journal"):
                sent = gateway.request("GET", f"/api/v1/statement{ending}?by={by}", headers=caller)
                path = tmp_path / f"caller-{by}{ending}"
                path.write_bytes(sent.body)
                found = by_beancount(path) if ending == ".beancount" else by_hledger(programs, path)
                assert below(found, "Assets:Farebox") == closing
                assert below(found, "Expenses:Farebox:Fares") == money["fares_usd"]
                assert below(found, "Expenses:Farebox:Corrections") == -money["given_back_usd"]
                assert below(found, "Assets:Clearing") == money["paid_out_usd"] - money["paid_in_usd"]
                assert len([name for name in found if name.startswith("Expenses:Farebox:Fares")]) == 2
        audit = gateway.audit()
        (kind,) = audit["kinds"]
        for by, flag in (("day", "--beancount"), ("order", "--hledger")):
            printed = gateway.run("statement", flag, "--by", by)
            path = tmp_path / f"operator-{by}{flag}"
            path.write_text(printed.stdout)
            found = by_beancount(path) if flag == "--beancount" else by_hledger(programs, path)
            assert below(found, "Income:Farebox:Fares") == -Decimal(audit["fares_usd"])
            assert below(found, "Expenses:Farebox:Upstream") == Decimal(kind["cost_usd"])
            assert below(found, "Liabilities:Farebox:Upstream") == -Decimal(kind["cost_usd"])
            assert below(found, "Liabilities:Farebox:Callers:Acme-x-co-891398") == -closing
            assert sum(found.values()) == 0


@pytest.mark.parametrize("side", ["caller", "operator"])
def test_no_name_spoils_a_ledger(side: Side, tmp_path: Path, programs: Path) -> None:
    """Of models, keys, accounts and reasons: each is an account of its own, and what an amount is stays what it was."""
    total = 0
    pieces: dict[str, list[str]] = {"beancount": [beancount.head(NASTY[0])], "hledger": [hledger.head(NASTY[0])]}
    chart = Chart(side)
    for number, name in enumerate(NASTY):
        fares = 1_234_567_891 * (number + 1)
        total += fares
        spent = Spent(20_000, 0, name, name, number, "ab", "chat", 1, 7, None, fares, Decimal(fares) / 7, 1, 2)
        paid = Moved(20_000, 0, "top-up", name, 3 * fares, name, name, name)
        lines = [
            *chart.begin(name, 20_000, -fares),
            *chart.entries(name, [paid, spent]),
            *chart.end(name, 20_001, fares),
        ]
        pieces["beancount"] += map(beancount.written, lines)
        pieces["hledger"] += map(hledger.written, lines)
    for form, written in pieces.items():
        path = tmp_path / form
        path.write_text("".join(written))
        found = by_beancount(path) if form == "beancount" else by_hledger(programs, path)
        own, fares_of, sign = "Assets:Farebox", "Expenses:Farebox:Fares", 1
        if side == "operator":
            own, fares_of, sign = "Liabilities:Farebox:Callers", "Income:Farebox:Fares", -1
        assert below(found, own) == below(found, fares_of) == sign * Decimal(total).scaleb(-9)
        assert len([name for name in found if name.startswith(f"{fares_of}:")]) == len(NASTY)


def test_a_ledger_that_is_off_by_a_nano_dollar_is_refused(tmp_path: Path, programs: Path) -> None:
    """Programs allow for what is smaller than what is written: it must be small enough."""
    chart = Chart("caller")
    lines = [*chart.begin("a", 20_000, 5_000_000_000), *chart.end("a", 20_000, 5_000_000_001)]
    (tmp_path / "a.beancount").write_text("".join([beancount.head("a"), *map(beancount.written, lines)]))
    (tmp_path / "a.journal").write_text("".join([hledger.head("a"), *map(hledger.written, lines)]))
    for command in ([BIN / "bean-check"], [programs, "check", "-f"]):
        ending = ".beancount" if len(command) == 1 else ".journal"
        done = subprocess.run([*map(str, command), str(tmp_path / f"a{ending}")], capture_output=True, text=True)
        assert done.returncode == 1
        assert "balance" in (done.stdout + done.stderr).lower()
