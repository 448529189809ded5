"""What a killed process leaves behind: nothing lost, nothing doubled."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.gateway import Gateway, eventually


def load(gateway: Gateway, key: str, stop: threading.Event, told: list[int]) -> None:
    """Order after order until told to stop or cut off; keeps the fares that whole answers told."""
    number = 0
    while not stop.is_set():
        number += 1
        try:
            answer = gateway.chat(
                key, f"token-ms={number % 4},cost=0.000{number % 7}1,head-ms={number % 3}", stream=number % 2 == 0
            )
        except OSError:
            return
        except Exception:  # noqa: BLE001 - http.client has many words for a server that died
            return
        if answer.status == 200 and number % 2:
            told.append(int(answer.headers["x-farebox-fare-events"]))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_9_under_load_leaves_books_that_balance(tmp_path: Path, workers: str) -> None:
    gateway = Gateway(tmp_path, "--workers", workers)
    told: list[int] = []
    key = ""
    for _ in range(3):
        gateway.start()
        key = key or gateway.key
        stop = threading.Event()
        callers = [threading.Thread(target=load, args=(gateway, key, stop, told)) for _ in range(16)]
        for each in callers:
            each.start()
        _await_orders(told, at_least=len(told) + 20)
        gateway.kill()
        stop.set()
        for each in callers:
            each.join(timeout=30)
    left = gateway.cli("audit")
    assert left["differences"] == []
    with gateway:
        found = gateway.audit()
        assert found["orders"]["pending"] == 0
        assert found["orders"]["open"] == len(gateway.cli("reconcile", "--list")) > 0
        assert "farebox reconcile --list" in gateway.banner or left["orders"]["pending"] == 0
        lines = gateway.orders()
        fares = [line["events"] for line in lines if line["what"] == "fare"]
        # Each whole answer that arrived was booked before it was sent.
        booked = sorted(fares)
        for events in sorted(told):
            booked.remove(events)
        assert len(told) > 50
        assert gateway.chat(key).status == 200


def test_a_start_says_how_many_orders_a_death_cut_off(gateway: Gateway) -> None:
    key = gateway.key
    caller = threading.Thread(target=lambda: _ignore_death(gateway, key))
    caller.start()
    _await_generation(gateway)
    gateway.kill()
    caller.join(timeout=10)
    gateway.start()
    assert "1 orders were cut off" in gateway.banner
    (found,) = gateway.cli("reconcile", "--list")
    assert "gone" in found["reason"]
    assert found["generation_id"]
    (order,) = gateway.orders()
    assert order["what"].startswith("held (open")


def test_a_worker_that_dies_is_replaced_and_its_orders_are_open(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--workers", "2") as gateway:
        caller = threading.Thread(target=_ignore_death, args=(gateway, gateway.key))
        caller.start()
        _await_generation(gateway)
        for worker in _workers(gateway.process.pid):
            os.kill(worker, signal.SIGKILL)
        caller.join(timeout=10)
        until = time.monotonic() + 20
        while time.monotonic() < until and not (found := gateway.cli("reconcile", "--list")):
            time.sleep(0.2)
        assert [hold["reason"] for hold in found] == ["the process that served it has gone"]
        assert gateway.chat().status == 200
        gateway.audit()
    assert gateway.process.returncode == 0


def _await_orders(told: list[int], at_least: int) -> None:
    """Until so many whole answers have arrived: under load, however fast the machine is."""
    until = time.monotonic() + 60
    while len(told) < at_least:
        assert time.monotonic() < until, f"{len(told)} answers in a minute"
        time.sleep(0.05)


def _await_generation(gateway: Gateway) -> None:
    """Until the order in flight has its generation in the books."""
    until = time.monotonic() + 15
    while not any(order["generation_id"] for order in gateway.orders()):
        assert time.monotonic() < until


def _workers(supervisor: int) -> list[int]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _ignore_death(gateway: Gateway, key: str) -> None:
    try:
        gateway.chat(key, "token-ms=300,tokens=100", stream=True)
    except Exception:  # noqa: BLE001 - it is about to be killed
        return


def test_a_process_that_comes_by_a_link_to_the_books_takes_no_living_one_for_dead(gateway: Gateway) -> None:
    link = gateway.folder / "link.db"
    link.symlink_to(gateway.folder / "data" / "farebox.db")
    url = f"sqlite:///{link}"
    gateway.cli("backup", str(gateway.folder / "kept.db"), "--database-url", url)
    waiting = threading.Thread(target=lambda: gateway.chat(simulate="head-ms=1500"))
    waiting.start()
    eventually(lambda: gateway.audit()["orders"]["pending"] == 1)
    assert gateway.cli("reconcile", "--database-url", url) == []
    refused = gateway.run("restore", "kept.db", "--overwrite", "--database-url", url)
    assert f"is in use (process {gateway.process.pid})" in refused.stderr
    waiting.join()
    gateway.stop()
    gateway.cli("restore", str(gateway.folder / "kept.db"), "--overwrite", "--database-url", url)
    assert link.is_symlink()
    assert gateway.audit()["orders"] == {"pending": 0, "open": 0, "posted": 0, "voided": 0}


_LOOKING = """
import asyncio, sys
from pathlib import Path
from farebox.core.books import Settle
from farebox.core.usage import Nothing
from farebox.store.spool import Spool

looking, other, found = [], Spool(Path(sys.argv[1]), "two"), []

def look(event, given):
    if event in ("fcntl.flock", "os.rename") and not looking:
        looking.append(event)
        found.extend(other.left_behind())
        looking.clear()

sys.addaudithook(look)
asyncio.run(Spool(Path(sys.argv[1]), "one").add(Settle(hold_id="h", verdict=Nothing(), created_us=1)))
sys.exit(str(found) if found else 0)
"""


def test_a_living_process_is_never_taken_for_dead_while_it_begins_its_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _LOOKING, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one").stat().st_size
