"""A batch: every order answered or told why not, none paid twice, none beyond what the batch may cost."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.batch.entries import answered, read_entry
from farebox.core.formats.table import FORMATS
from farebox.platform.store import SqlRuns
from farebox.store.sqlite import Sqlite
from tests.gateway import Gateway, eventually
from tests.programs import simulator
from tests.served.test_crash_points import charged

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "sim/echo", "messages": HELLO, "max_tokens": 20}
FILE = {"type": "file", "file": {"file_id": "f"}}
"""What may fill the whole context: of a dear model, more than the account has."""

LINES: list[Any] = [
    CHAT,
    {"custom_id": "m", "url": "/v1/messages", "body": CHAT},
    {"custom_id": "e", "method": "POST", "url": "/api/v1/embeddings", "body": {"model": "sim/embedder", "input": "Hi"}},
    {"model": "sim/echo", "input": "Hello", "max_output_tokens": 20},
    {"custom_id": "n", "url": "/chat/completions", "body": {**CHAT, "model": "sim/nobody"}},
    {**CHAT, "stream": True},
    {"custom_id": "u", "url": "/v1/keys", "body": CHAT},
    {"custom_id": "b", "body": CHAT},
    {"custom_id": "d", "method": "DELETE", "url": "/v1/messages", "body": CHAT},
    {**CHAT, "model": "sim/echo-pro:nitro", "messages": [{"role": "user", "content": [FILE]}]},
    "no order",
]
STATUSES = [200, 200, 200, 200, 404, 400, 400, 400, 400, 402, 400]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[tuple[Gateway, int]]:
    """Books without a server, on an upstream of their own, and its port."""
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        shell = Gateway(tmp_path, OPENROUTER_API_KEY="sk-or-x", FAREBOX_UPSTREAM_URL=url)
        shell.copy_books()
        shell.key = shell.new_key("a", "--plan", "paying", "--prepaid", "1")
        yield shell, port
        shell.audit()


def write(folder: Path, lines: list[Any]) -> Path:
    path = folder / "orders.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n\n")
    return path


def begin(shell: Gateway, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "farebox", "batch", "orders.jsonl", "--json", *arguments]
    environment = {**shell.environment, "FAREBOX_KEY": shell.key}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=shell.folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: "subprocess.Popen[str]", code: int) -> Any:
    said, wrong = process.communicate(timeout=120)
    assert process.returncode == code, wrong
    return json.loads(said)


def results(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "orders.results.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda result: result["number"])


def test_each_order_is_answered_or_told_why_not(books: tuple[Gateway, int]) -> None:
    shell, port = books
    write(shell.folder, LINES)
    totals = ended(begin(shell), code=1)
    found = results(shell.folder)
    assert [result["status"] for result in found] == STATUSES
    assert [result["number"] for result in found] == list(range(1, len(LINES) + 1))
    assert [result["custom_id"] for result in found] == [None, "m", "e", None, "n", None, "u", "b", "d", None, None]
    assert [result["url"].removeprefix("/v1") for result in found[:9]] == [
        *("/chat/completions", "/messages", "/embeddings", "/responses", "/chat/completions", "/chat/completions"),
        *("/keys", "", "/messages"),
    ]
    for result, status in zip(found, STATUSES, strict=True):
        if status == 200:
            assert result["error"] is None
            assert Decimal(result["cost_usd"]) == Decimal(charged(port)[result["generation_id"]])
            assert (result["fare_events"], result["fare_usd"]) == (1, "0.00001")
            assert result["usage"] == result["answer"]["usage"]
        else:
            assert (result["answer"], result["fare_usd"]) == (None, None)
            assert result["error"]["code"] == status
            assert result["error"]["message"]
    assert found[1]["answer"]["type"] == "message"
    assert found[3]["answer"]["object"] == "response"
    assert (totals["served"], totals["failed"], totals["fare_usd"]) == (4, 7, "0.00004")
    assert Decimal(totals["cost_usd"]) == sum(map(Decimal, charged(port).values()))
    assert [line["what"] for line in shell.orders("a")].count("fare") == 4
    # Begun again it asks once more for what was not taken up, and for nothing else.
    again = ended(begin(shell), code=1)
    assert (again["before"], again["orders"], again["served"]) == (10, 11, 4)


def test_a_batch_that_dies_goes_on_and_pays_for_nothing_twice(books: tuple[Gateway, int]) -> None:
    shell, port = books
    slow = {**CHAT, "model": "sim/echo:token-ms=30"}
    write(shell.folder, [{"custom_id": str(number), "url": "/v1/messages", "body": slow} for number in range(30)])
    out = shell.folder / "orders.results.jsonl"
    for at_least in (3, 9):
        process = begin(shell, "--concurrency", "4")
        eventually(lambda n=at_least: out.exists() and out.read_bytes().count(b"\n") >= n, seconds=30)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with out.open("ab") as torn:
        torn.write(b'{"number":30,"custom_id":"29","st')
    # An order that was on its way when the process died is open; a server asks what it cost, then the batch goes on.
    with Gateway(shell.folder, OPENROUTER_API_KEY="sk-or-x", FAREBOX_RECONCILE_SECONDS="60", **_upstream(shell)):
        eventually(lambda: _unasked(shell) == 0, seconds=60)
    process = begin(shell)
    process.communicate(timeout=120)
    found = results(shell.folder)
    assert [result["custom_id"] for result in found] == [str(number) for number in range(30)]
    # 410: its answer was lost with the process. It names its generation, and is charged once.
    assert set(Counter(result["status"] for result in found)) <= {200, 410}
    # Or it does not, and nobody knows whether it was sent: then an operator decides.
    assert_paid_once([result["generation_id"] for result in found], charged(port))
    assert all(result["status"] == 410 for result in found if not result["generation_id"])
    assert not (shell.folder / "orders.results.jsonl.batch").exists()


def assert_paid_once(named: list[str | None], charged: dict[str, str]) -> None:
    """Each order is a generation of its own; what the upstream charged beside is of orders that never got a name."""
    known = [name for name in named if name]
    assert len(known) == len(set(known))
    assert set(known) <= set(charged)
    assert len(set(charged) - set(known)) <= named.count(None)


def _upstream(shell: Gateway) -> dict[str, str]:
    return {"FAREBOX_UPSTREAM_URL": shell.environment["FAREBOX_UPSTREAM_URL"]}


def _unasked(shell: Gateway) -> int:
    listed = shell.cli("reconcile", "--list")
    pending: int = shell.cli("audit")["orders"]["pending"]
    return sum(not each["unresolved"] for each in listed) + pending


def test_a_batch_that_is_told_to_stop_ends_what_it_began(books: tuple[Gateway, int]) -> None:
    shell, port = books
    write(shell.folder, [{**CHAT, "model": "sim/echo:token-ms=30"}] * 40)
    process = begin(shell, "--concurrency", "4")
    out = shell.folder / "orders.results.jsonl"
    eventually(lambda: out.exists() and out.read_bytes().count(b"\n") >= 2, seconds=30)
    process.send_signal(signal.SIGINT)
    first = ended(process, code=0)
    assert 2 <= first["orders"] < 40
    assert first["served"] == first["orders"] == len(charged(port))
    second = ended(begin(shell), code=0)
    assert (second["before"], second["orders"], second["served"]) == (first["orders"], 40, 40)
    assert len(charged(port)) == len({result["generation_id"] for result in results(shell.folder)}) == 40


def test_a_batch_costs_no_more_than_it_may(books: tuple[Gateway, int]) -> None:
    shell, port = books
    write(shell.folder, [CHAT] * 12)
    # An order can cost $0.00006 and costs $0.00001: the last ones could pass the limit, though they would not.
    totals = ended(begin(shell, "--limit", "0.0001"), code=1)
    assert Decimal(totals["fare_usd"]) <= Decimal("0.0001")
    refused = [result["error"] for result in results(shell.folder) if result["status"] == 402]
    ceiling = Decimal(refused[0]["metadata"]["ceiling_usd"])
    # Orders wait for those on their way, which cost less than they could: as many are served as one after the other.
    assert totals["served"] == (Decimal("0.0001") - ceiling) // Decimal("0.00001") + 1
    assert 1 < totals["served"] < 12
    assert len(charged(port)) == totals["served"]
    assert len(refused) == totals["failed"]
    assert all("of what the batch may cost ($0.0001) is left" in error["message"] for error in refused)
    # With more to spend it goes on with those, and counts what it has cost before.
    more = ended(begin(shell, "--limit", "0.00012"), code=1)
    assert more["before"] == totals["served"]
    assert Decimal(totals["fare_usd"]) < Decimal(more["fare_usd"]) <= Decimal("0.00012")


def test_a_batch_begun_again_counts_orders_of_unknown_cost_as_their_ceilings(books: tuple[Gateway, int]) -> None:
    shell, port = books
    write(shell.folder, [{**CHAT, "model": "sim/echo:usage=missing"}] * 5 + [{**CHAT, "model": "sim/nobody"}])
    assert ended(begin(shell, "--limit", "0"), code=1)["served"] == 0
    ceiling = Decimal(results(shell.folder)[0]["error"]["metadata"]["ceiling_usd"])
    for _ in range(3):
        assert ended(begin(shell, "--limit", f"{2 * ceiling:f}", "--concurrency", "1"), code=1)["served"] == 2
        assert [result["status"] for result in results(shell.folder)] == [200, 200, 402, 402, 402, 404]
    assert len(charged(port)) == 2
    # Whatever an order was that is no longer in the file, it may have cost all that there was.
    write(shell.folder, ["no order", "no order", *([CHAT] * 4)])
    assert ended(begin(shell, "--limit", f"{4 * ceiling:f}"), code=1)["served"] == 2
    # The one that was refused cost nothing.
    write(shell.folder, [CHAT] * 6)
    assert ended(begin(shell, "--limit", f"{3 * ceiling:f}", "--concurrency", "1"), code=1)["served"] == 3
    assert len(charged(port)) == 3


def test_an_order_that_is_not_taken_up_is_sent_again_a_little_later(books: tuple[Gateway, int]) -> None:
    shell, port = books
    shell.environment["FAREBOX_ACCOUNT_ORDERS_MAX"] = "1"
    write(shell.folder, [{**CHAT, "model": "sim/echo:token-ms=20"}] * 4)
    assert ended(begin(shell, "--concurrency", "4"), code=0)["served"] == 4
    assert len(charged(port)) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--limit", "much"), "--limit"),
        (("--key", ""), "--key"),
        (("--key", "sk-fb-nobody"), "not known here"),
        (("--concurrency", "0"), "concurrency"),
        (("--out", "orders.jsonl"), "the file of the orders"),
        (("--out", "data"), "--out"),
        (("--out", "nowhere/results"), "--out"),
    ],
)
def test_what_is_wrong_is_said(books: tuple[Gateway, int], arguments: tuple[str, str], said: str) -> None:
    shell, port = books
    write(shell.folder, [CHAT])
    process = begin(shell, *arguments)
    _, wrong = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert said in wrong
    assert "Traceback" not in wrong
    assert charged(port) == {}
    assert json.loads((shell.folder / "orders.jsonl").read_text()) == CHAT


def test_results_that_cannot_be_written_end_a_batch_and_nothing_that_is_paid_for(books: tuple[Gateway, int]) -> None:
    """The file may have a megabyte, and has nearly that."""
    shell, port = books
    write(shell.folder, [CHAT] * 5)
    done = json.dumps({"number": 1, "status": 200, "fare_usd": "0", "answer": "x" * (2**20 - 200)})
    (shell.folder / "orders.results.jsonl").write_text(done + "\n")
    command = f"ulimit -f 1024; exec {sys.executable} -m farebox batch orders.jsonl --concurrency 2"
    environment = {**shell.environment, "FAREBOX_KEY": shell.key}
    cut = subprocess.run(
        ["bash", "-c", command], cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (cut.returncode, "Traceback" in cut.stderr) == (1, False), cut.stderr
    assert "orders.results.jsonl cannot be written" in cut.stderr
    assert len(charged(port)) == 2, "no further one was begun, and those that were came to their ends"
    assert ended(begin(shell), code=0)["served"] == 5
    assert [result["status"] for result in results(shell.folder)] == [200] * 5
    assert len(charged(port)) == 4


def test_a_name_that_a_full_disk_lost_is_none(books: tuple[Gateway, int]) -> None:
    """Two batches of one name would take each other's answers, or be refused."""
    shell, _ = books
    for number in range(2):
        write(shell.folder, [{**CHAT, "max_tokens": 20 + number}])
        (shell.folder / f"{number}.batch").touch()
        assert ended(begin(shell, "--out", str(number)), code=0)["served"] == 1


def test_an_answer_over_several_lines_is_one_line_of_results() -> None:
    order = read_entry(1, json.dumps(CHAT).encode(), FORMATS)
    result = answered(order, "gen-1", b'{\n "usage": {\n"cost": 7.10e-05},\r\n "text": "a\\nb" }\n', None)
    assert result.answer is not None
    assert bytes(result.answer) == b'{"usage":{"cost":7.10e-05},"text":"a\\nb"}'
    assert bytes(result.usage or b"") == b'{"cost":7.10e-05}'


def test_a_batch_leaves_the_runs_of_servers_alone(books: tuple[Gateway, int]) -> None:
    shell, _ = books
    with Gateway(shell.folder, OPENROUTER_API_KEY="sk-or-x", **_upstream(shell)) as server:
        slow = {"requests": [{**CHAT, "model": "sim/echo:token-ms=100"}] * 30}
        headers = {"authorization": f"Bearer {shell.key}", "content-type": "application/json"}
        begun = server.request("POST", "/v2/acts/apify~openrouter/runs", slow, headers)
        run_id = begun.json["data"]["id"]
        eventually(lambda: b"begins" in server.request("GET", f"/v2/logs/{run_id}", headers=headers).body)
        server.kill()
    write(shell.folder, [CHAT])
    assert ended(begin(shell), code=0)["served"] == 1

    async def lines() -> list[str]:
        runs = SqlRuns(Sqlite(shell.folder / "data" / "farebox.db"), "another")
        try:
            return [line.text for line in await runs.lines(run_id, 0)]
        finally:
            await runs.close()

    assert len([line for line in asyncio.run(lines()) if "begins" in line]) == 1


def test_a_progress_bar_for_people(books: tuple[Gateway, int]) -> None:
    shell, _ = books
    write(shell.folder, [CHAT, CHAT])
    environment = {**shell.environment, "FAREBOX_KEY": shell.key}
    command = [sys.executable, "-m", "farebox", "batch", "orders.jsonl"]
    done = subprocess.run(command, cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "2/2" in done.stderr
    assert done.stdout.startswith("2 orders served, 0 failed; cost $0.00000510, fares $0.00002 (2 events). Results: ")
