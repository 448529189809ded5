"""The price file of a running server: in the books before it counts, read again when it changes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from farebox.core.tariffs import KeptTariffs, read_kept
from farebox.core.usage import Cost, Usage
from tests.gateway import Gateway, eventually

FILE = """
[[prices]]
upstream = "u"
model = "own"
prompt = "{}"
answer = "0.002"

[[prices]]
upstream = "u"
model = "borrowed"
openrouter = "sim/echo"
"""


@pytest.fixture
def served(tmp_path: Path, upstream: int) -> Iterator[Gateway]:
    """With an OpenRouter that is the simulator, standing alone."""
    (tmp_path / "prices.toml").write_text(FILE.format("0.001"))
    url = f"http://127.0.0.1:{upstream}/api/v1"
    with Gateway(tmp_path, FAREBOX_PRICES_FILE="prices.toml", FAREBOX_UPSTREAM_URL=url) as gateway:
        yield gateway


def lists(gateway: Gateway) -> list[KeptTariffs]:
    with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db")) as db:
        rows = db.execute("SELECT version, content, first_used_us FROM tariffs ORDER BY first_used_us").fetchall()
    return [KeptTariffs(*row) for row in rows]


def cost_of_a_token(kept: KeptTariffs, model: str) -> Decimal:
    read = read_kept(kept)
    assert read is not None
    found = read.find("u", model, kept.first_used_us)
    assert found is not None
    cost = found.cost(Usage(prompt=1))
    assert isinstance(cost, Cost), cost
    return cost.amount


def test_each_list_that_was_in_force_is_in_the_books(served: Gateway) -> None:
    (first,) = lists(served)
    file = served.folder / "prices.toml"
    listed = served.cli("prices", "check", str(file))
    assert listed["version"] == first.version
    prompt = next(each["usd"]["prompt"] for each in listed["prices"] if each["model"] == "borrowed")
    assert cost_of_a_token(first, "own") == Decimal("0.001")
    assert cost_of_a_token(first, "borrowed") == Decimal(prompt)
    file.write_text(FILE.format("-1"))
    eventually(
        lambda: "the price file changes nothing: prices.toml: [[prices]] 1 (u, own): prompt" in served.log.read_text()
    )
    file.write_text(FILE.format("0.0015"))
    eventually(lambda: len(lists(served)) == 2)
    assert cost_of_a_token(lists(served)[1], "own") == Decimal("0.0015")
    assert served.cli("audit")["differences"] == []
