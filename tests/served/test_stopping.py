"""A server that is told to stop: no order is lost, cut off without a word, or taken too late."""

import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path

import pytest

from farebox.core.formats.table import FORMATS
from tests.gateway import Gateway, Response, eventually
from tests.served.test_formats import ORDERS, STREAMED, order
from tests.served.test_server import raw_order
from tests.served.test_trouble import locked
from tests.served.test_waiting import Asked, in_band


def test_a_stop_ends_cleanly(gateway: Gateway) -> None:
    gateway.chat()
    said = gateway.stop()
    assert gateway.process.returncode == 0
    assert not re.search(r"error|traceback", said, re.IGNORECASE)
    gateway.audit()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("grace", "signals"), [("1", 1), ("30", 2)])
def test_a_stop_ends_running_streams_in_words_and_loses_nothing(
    tmp_path: Path, grace: str, signals: int, workers: str
) -> None:
    with Gateway(tmp_path, FAREBOX_GRACE_SECONDS=grace, FAREBOX_WORKERS=workers) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            connection.sendall(raw_order(gateway, "tokens=500,token-ms=100", stream=True))
            got = b""
            while b"data: " not in got:
                got += connection.recv(65536)
            for _ in range(signals):
                gateway.process.send_signal(signal.SIGTERM)
                time.sleep(1.6)
            while part := connection.recv(65536):
                got += part
        assert gateway.process.wait(timeout=10) == 0
        assert b'"the gateway is stopping' in got.lower().replace(b'"message":', b"").replace(b"'", b'"')
        assert got.count(b"data: ") < 90  # it was not the server underneath that ended it, ten seconds later
        (order,) = gateway.orders()
        assert "the gateway is stopping" in order["what"]
        assert order["generation_id"]
        gateway.audit()


@pytest.mark.parametrize("path", STREAMED)
def test_a_stop_does_not_call_a_cost_unknown_that_came(tmp_path: Path, path: str) -> None:
    with Gateway(tmp_path, FAREBOX_GRACE_SECONDS="0") as gateway:
        # The last event of a stream is behind its usage in each format.
        events = len(re.findall(rb"data: ", order(gateway, path, stream=True).body))
        asked = Asked(gateway, path, gateway.key, f"stall-at-event={events - 1}", streamed=True)
        asked.head()
        time.sleep(1)
        gateway.process.send_signal(signal.SIGTERM)
        with pytest.raises(IncompleteRead) as cut:  # it was not booked before, so its body has no end
            asked.answer()
        last = cut.value.partial.split(b"data: ")[-1]
        assert b"The gateway is stopping" in last
        assert b"not known" not in last
        assert gateway.process.wait(timeout=20) == 0
        assert [line["what"] for line in gateway.orders()] == ["fare", "fare"]


@pytest.mark.parametrize(("simulate", "status"), [("head-ms=20000", 424), ("first-token-ms=20000", 200)])
def test_a_stop_ends_orders_that_wait_for_their_answer_in_words_that_nobody_repeats(
    tmp_path: Path, simulate: str, status: int
) -> None:
    places = [*((path, False) for path in ORDERS), *((path, True) for path in ORDERS if status == 424)]
    with Gateway(tmp_path, FAREBOX_GRACE_SECONDS="0") as gateway:
        asked = [
            Asked(gateway, path, gateway.key, simulate, streamed=streamed and path in STREAMED)
            for path, streamed in places
        ]
        if status == 200:
            assert [order.head().status for order in asked] == [200] * len(asked)
        else:
            eventually(lambda: gateway.cli("audit")["orders"]["pending"] == len(asked))
        gateway.process.send_signal(signal.SIGTERM)
        for (path, _), order in zip(places, asked, strict=True):
            answer = order.answer()
            assert answer.status == status
            assert "stopping" in in_band(path, answer.body)["message"]
        assert gateway.process.wait(timeout=20) == 0
        assert {line["what"][:12] for line in gateway.orders()} == {"held (open: "}
        gateway.audit()


def test_a_stop_tells_orders_that_wait_for_the_books_to_come_back(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_GRACE_SECONDS="0") as gateway:
        with locked(gateway, 2):
            asked = Asked(gateway, "/responses", gateway.key, "", streamed=False)
            time.sleep(0.5)  # it waits for the books now
            gateway.process.send_signal(signal.SIGTERM)
            refused = asked.answer()
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert gateway.process.wait(timeout=20) == 0
        assert [line["what"] for line in gateway.orders()] in ([], ["not served"])
        gateway.audit()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_stops_takes_no_more_orders_and_says_so(tmp_path: Path, workers: str) -> None:
    with Gateway(tmp_path, FAREBOX_WORKERS=workers) as gateway:
        answers: list[Response] = []
        slow = "tokens=30,token-ms=100"
        asking = threading.Thread(target=lambda: answers.append(gateway.chat(simulate=slow, stream=True)))
        asking.start()
        eventually(lambda: len(gateway.orders()) == 1)
        # As systemd does it: every process of the group hears it, and the workers again from their parent.
        os.killpg(gateway.process.pid, signal.SIGTERM)
        if workers == "1":  # of several, those without an order have gone
            eventually(lambda: gateway.request("GET", "/readyz").status == 503)
            for path in FORMATS:
                refused = order(gateway, path)
                assert (refused.status, refused.headers["retry-after"]) == (429, "1")
                assert "stopping" in refused.body.decode()
            assert gateway.request("GET", "/v1/models").status == 200
        asking.join()
        assert gateway.process.wait(timeout=10) == 0
        assert answers[0].body.endswith(b"data: [DONE]\n\n")
        assert [line["what"] for line in gateway.orders()] == ["fare"]


def test_workers_whose_parent_was_killed_end_their_orders_and_leave(tmp_path: Path, upstream: int) -> None:
    """Nobody else would stop them, and no other server can listen where they do."""
    url = f"http://127.0.0.1:{upstream}/api/v1"
    with Gateway(tmp_path, "--upstream", url, "--workers", "2", OPENROUTER_API_KEY="sk-or-x") as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        answers: list[Response] = []
        slow = "tokens=20,token-ms=100"
        asking = threading.Thread(target=lambda: answers.append(gateway.chat(key, slow, stream=True)))
        asking.start()
        eventually(lambda: len(gateway.orders("a")) == 1)
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait(timeout=10)
        asking.join()
        assert answers[0].body.endswith(b"data: [DONE]\n\n")
        assert [line["what"] for line in gateway.orders("a")] == ["fare"]

        def is_free() -> bool:
            with suppress(OSError):
                socket.create_server(("127.0.0.1", gateway.port)).close()
                return True
            return False

        try:
            eventually(is_free)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(gateway.process.pid, signal.SIGKILL)


def test_a_stop_lets_running_answers_end(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        answers: list[Response] = []
        asking = [
            threading.Thread(
                target=lambda s=s: answers.append(gateway.chat(simulate="tokens=10,token-ms=100", stream=s))
            )
            for s in (False, True)
        ]
        for each in asking:
            each.start()
        until = time.monotonic() + 10
        while time.monotonic() < until and len(gateway.orders()) < 2:
            time.sleep(0.05)
        gateway.stop()
        for each in asking:
            each.join()
        assert gateway.process.returncode == 0
        assert [answer.status for answer in answers] == [200, 200]
        assert [line["what"] for line in gateway.orders()] == ["fare", "fare"]
