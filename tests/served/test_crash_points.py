"""A process that dies at any step of an order leaves books that agree with the upstream's, or say what is not known."""

import http.client
import json
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.crash import CRASH_VARIABLE
from tests.gateway import Gateway, eventually
from tests.programs import simulator
from tests.served.test_formats import order
from tools.chaos_upstreams import get
from tools.crash_points import POINTS, arm

SLOW = {"x-openrouter-simulate": "first-token-ms=50,token-ms=5,generation-ms=0"}
ASKED = {"x-openrouter-simulate": "usage=missing,generation-ms=1200"}

NOTHING, NAMELESS, POSTED = "nothing", "open without a name", "posted"
LEFT = {
    "PlaceHold:before": NOTHING,
    "PlaceHold:after": NAMELESS,
    "forward:before": NAMELESS,
    "forward:after": NAMELESS,
    "NameGeneration:before": NAMELESS,
}
"""What is left of an order whose process dies at a point; at any other, and after a restart, its fare is posted."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    with simulator() as port:
        yield port


def charged(port: int) -> dict[str, str]:
    books: dict[str, str] = json.loads(get(port, "/books"))
    return books


QUESTIONS = ("ask:before", "ask:after", "AskLater:before", "AskLater:after")
CASES = [(point, streamed) for point in POINTS for streamed in (False, True) if not (streamed and point in QUESTIONS)]


@pytest.mark.parametrize(("point", "streamed"), CASES)
def test_a_death_at_any_point(tmp_path: Path, upstream: int, point: str, streamed: bool) -> None:
    settings: dict[str, str] = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "86400"}
    url = f"http://127.0.0.1:{upstream}/api/v1"
    known = charged(upstream)
    gateway = Gateway(tmp_path, "--upstream", url, **settings, **{CRASH_VARIABLE: str(tmp_path / "crash")})
    with gateway:
        gateway.key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        arm(tmp_path / "crash", point)
        with suppress(OSError, http.client.HTTPException):
            order(gateway, "/messages", headers=ASKED if point in QUESTIONS else SLOW, stream=streamed)
        gateway.process.wait(timeout=10)
        assert gateway.process.returncode == -9, "it did not come to that point"
    key = gateway.key
    with gateway:
        gateway.key = key
        expected = LEFT.get(point, POSTED)
        eventually(lambda: _left(gateway) == expected, seconds=60)
        new = {name: cost for name, cost in charged(upstream).items() if name not in known}
        assert len(new) == (0 if point in ("PlaceHold:before", "PlaceHold:after", "forward:before") else 1)
        if expected == POSTED:
            (line,) = gateway.orders("a")
            assert Decimal(line["cost_usd"]) == Decimal(new[line["generation_id"]])
        found = gateway.audit()
        assert found["unresolved"] == (1 if expected == NAMELESS else 0)
        assert order(gateway, "/responses").status == 200


def _left(gateway: Gateway) -> str:
    lines: list[dict[str, Any]] = gateway.orders("a")
    if not lines:
        return NOTHING
    (line,) = lines
    if line["what"] == "fare":
        return POSTED
    return NAMELESS if "open" in line["what"] and line["generation_id"] is None else "to be answered"
