"""Trouble with the disk: nothing is ordered that cannot be booked; what was ordered is booked when there is room."""

import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.gateway import Gateway, Response, eventually
from tests.programs import simulator
from tests.served.test_crash_points import charged
from tests.served.test_server import raw_order


@contextmanager
def full_disk(gateway: Gateway) -> Iterator[None]:
    """No file of the gateway's grows any more: its writes fail as on a full disk."""
    biggest = max(path.stat().st_size for path in (gateway.folder / "data").iterdir() if path.is_file())
    pid = gateway.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    wal = gateway.folder / "data" / "farebox.db-wal"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (min(biggest, wal.stat().st_size), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_nothing_is_ordered(gateway: Gateway) -> None:
    assert gateway.chat().status == 200
    with full_disk(gateway):
        for _ in range(3):
            refused = gateway.chat()
            assert (refused.status, "retry-after" in refused.headers) == (429, True)
            assert "could not be written" in refused.error["message"]
        assert gateway.request("GET", "/v1/models").status == 200
    eventually(lambda: gateway.chat().status == 200)
    assert [line["what"] for line in gateway.orders()].count("fare") == len(gateway.orders())
    gateway.audit()


def test_books_that_refuse_a_row_begin_no_order(gateway: Gateway) -> None:
    """Whatever they say of it."""
    with sqlite3.connect(gateway.folder / "data" / "farebox.db") as db:
        db.execute("CREATE TRIGGER refuses BEFORE INSERT ON hold BEGIN SELECT RAISE(ABORT, 'no such row'); END")
        refused = gateway.chat()
        assert (refused.status, refused.headers.get("retry-after")) == (429, "5"), refused.body
        db.execute("DROP TRIGGER refuses")
    db.close()
    assert gateway.chat().status == 200
    assert len(gateway.orders()) == 1


def test_what_could_not_be_settled_is_settled_when_the_disk_has_room_again(gateway: Gateway) -> None:
    assert gateway.chat().status == 200
    answers: list[Response] = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat(simulate="first-token-ms=1500")))
    asking.start()
    eventually(lambda: len(gateway.orders()) == 2 and gateway.orders()[1]["generation_id"] is not None)
    with full_disk(gateway):
        asking.join()
        # The upstream has served it, and the answer's head is out: no answer that a client would repeat.
        assert answers[0].status == 200
        assert "could not be booked" in answers[0].json["error"]["message"]
        assert gateway.orders()[1]["what"] == "held"
    eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare", "fare"])
    assert gateway.orders()[1]["cost_usd"] == "0.00000255"
    assert gateway.audit()["orders"]["pending"] == 0


LOCKED = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
db.execute("ROLLBACK")
"""


@contextmanager
def locked(gateway: Gateway, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Another process holds the books' one write lock, for so long at most."""
    path = gateway.folder / "data" / "farebox.db"
    command = [sys.executable, "-c", LOCKED, str(path), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        yield other


def test_books_that_another_process_locks_for_seconds_are_waited_for(gateway: Gateway) -> None:
    answers: list[Response] = []
    slow = "first-token-ms=500,token-ms=20"
    asking = [
        threading.Thread(target=lambda s=s: answers.append(gateway.chat(simulate=slow, stream=s)))
        for s in (True, False)
    ]
    for each in asking:
        each.start()
    eventually(lambda: len(gateway.orders()) == 2)
    with locked(gateway, 3):
        assert gateway.chat().status == 200
    for each in asking:
        each.join()
    assert [answer.status for answer in answers] == [200, 200]
    assert [line["what"] for line in gateway.orders()] == ["fare"] * 3
    gateway.audit()


def test_books_that_stay_locked_take_no_order_and_lose_none(gateway: Gateway) -> None:
    answers: list[Response] = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat(simulate="first-token-ms=1500")))
    asking.start()
    eventually(lambda: len(gateway.orders()) == 1 and gateway.orders()[0]["generation_id"] is not None)
    with locked(gateway, 14):
        refused = gateway.chat()
        assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        assert "locked" in refused.error["message"]
        assert gateway.request("GET", "/readyz").status == 503
        asking.join()
    # The one that was under way waited for its place.
    assert answers[0].status == 200
    assert [line["what"] for line in gateway.orders()] == ["fare"]
    assert gateway.chat().status == 200
    assert gateway.request("GET", "/readyz").status == 200
    gateway.audit()


def test_a_stream_that_cannot_be_booked_gets_no_end_and_the_log_a_line(gateway: Gateway) -> None:
    order = raw_order(gateway, "first-token-ms=500,token-ms=20", stream=True)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as caller:
        caller.sendall(order)
        eventually(lambda: bool(gateway.orders()) and gateway.orders()[0]["generation_id"] is not None)
        with locked(gateway, 20) as other:
            told = b"".join(iter(lambda: caller.recv(65536), b""))
            other.kill()
    assert told.endswith(b"data: [DONE]\n\n\r\n")  # and no last chunk
    eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare"], 20)
    (line,) = [line for line in gateway.log.read_text().splitlines() if "without its end" in line]
    assert json.loads(line)["level"] == "error"
    assert "locked" in json.loads(line)["message"]
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert "ASGI" not in log


def test_books_that_may_not_be_written_are_said_to_be_so_at_the_start(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.chat()
    plainly = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if plainly and not shutil.which("setpriv"):
        missing("setpriv is not installed, and root may write to every file")
    data = tmp_path / "data"
    for path in (data / "farebox.db", data):
        path.chmod(0o555 if path.is_dir() else 0o444)
        for words in (("serve", "--port", "0"), ("audit",), ("account", "list")):
            command = [*plainly, sys.executable, "-m", "farebox", *words]
            done = subprocess.run(command, cwd=tmp_path, env=gateway.environment, capture_output=True, text=True)
            assert done.returncode == 1, done
            assert done.stderr.startswith("farebox: "), done.stderr
            assert "farebox.db" in done.stderr
            assert "Traceback" not in done.stderr
    data.chmod(0o700)
    (data / "farebox.db").chmod(0o600)
    with gateway:
        assert gateway.cli("audit")["orders"]["posted"] == 1


def _torn(wal: bytes) -> bytes:
    """Half a frame that was not committed yet."""
    return wal + wal[32 : 32 + 2000]


def _cut(wal: bytes) -> bytes:
    return wal[:-1000]


def _flipped(wal: bytes) -> bytes:
    return wal[:-100] + bytes(byte ^ 0xFF for byte in wal[-100:])


@pytest.mark.parametrize(("damage", "loses"), [(_torn, 0), (_cut, 1), (_flipped, 1)])
def test_a_damaged_end_of_the_journal_costs_no_fare(
    tmp_path: Path, damage: Callable[[bytes], bytes], loses: int
) -> None:
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        settings = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "86400"}
        gateway = Gateway(tmp_path, "--upstream", url, **settings)
        with gateway:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
            for _ in range(5):
                assert gateway.chat(key, "generation-ms=0", stream=True).status == 200
            gateway.kill()
        wal = tmp_path / "data" / "farebox.db-wal"
        wal.write_bytes(damage(wal.read_bytes()))
        with gateway:
            # What its end said is asked of the upstream again.
            assert gateway.banner.count("cut off by a process that died") == loses
            eventually(lambda: [line["what"] for line in gateway.orders("a")] == ["fare"] * 5)
            upstream = {name: Decimal(cost) for name, cost in charged(port).items()}
            assert {line["generation_id"]: Decimal(line["cost_usd"]) for line in gateway.orders("a")} == upstream
            gateway.audit()
            assert gateway.chat(key).status == 200
