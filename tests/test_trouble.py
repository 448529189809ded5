"""Trouble with the disk: nothing is ordered that cannot be booked; what was ordered is booked when there is room."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gateway import Gateway, Response, eventually


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


def test_what_could_not_be_settled_is_settled_when_the_disk_has_room_again(gateway: Gateway) -> None:
    assert gateway.chat().status == 200
    answers: list[Response] = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat(simulate="first-token-ms=1500")))
    asking.start()
    eventually(lambda: len(gateway.orders()) == 2 and gateway.orders()[1]["generation_id"] is not None)
    with full_disk(gateway):
        asking.join()
        # The upstream has served it: no answer that a client would repeat.
        assert answers[0].status == 424
        assert "could not be booked" in answers[0].error["message"]
        assert gateway.orders()[1]["what"] == "held"
    eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare", "fare"])
    assert gateway.orders()[1]["cost_usd"] == "0.00000255"
    assert gateway.audit()["orders"]["pending"] == 0
