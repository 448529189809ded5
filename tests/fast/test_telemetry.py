"""What orders leave for an operator is told some at a time: the same as one by one, in time, and once."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import PIPE_BUF

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from farebox.core.attempts import Attempt, NotReached, Refused
from farebox.core.callers import Account, Caller, Key
from farebox.core.headers import RequestHead
from farebox.core.passage import Passage
from farebox.core.plans import BUILT_IN
from farebox.telemetry.logs import line_of
from farebox.telemetry.metrics import exposition
from farebox.telemetry.watch import TOGETHER_MAX, Watch

BEGAN_NS = 1_790_000_000_012_999_999

POSTED = Passage(
    path="/chat/completions",
    head=RequestHead(tokens=("sk-fb-a-secret-that-no-line-holds",)),
    began_ns=BEGAN_NS,
    held_ns=BEGAN_NS + 2_000_000,
    head_ns=BEGAN_NS + 45_678_901,
    given_ns=BEGAN_NS + 46_000_000,
    read_ns=BEGAN_NS + 50_000_000,
    ended_ns=BEGAN_NS + 1_234_567_890,
    caller=Caller(Account(1, "Zoë's", "paying", 0), Key(7, 1, "", b"", "", 0), BUILT_IN["paying"]),
    model="made/up:nitro",
    streamed=True,
    hold_id="a-hold",
    generation_id="gen-1",
    served_model="made/up-2026",
    prompt_tokens=12,
    answer_tokens=0,
    state="posted",
    events=100_003,
    fare_nanos=1_000_030_000,
)
REFUSED = Passage(
    path="/messages", head=RequestHead(), began_ns=BEGAN_NS, ended_ns=BEGAN_NS, status=401, error_type="authentication"
)
FALLEN_BACK = replace(
    REFUSED,
    upstream="b",
    attempts=(
        Attempt("a", "m", NotReached(timed_out=True), 0.3),
        Attempt("a", "n", Refused(529), 0.0123456),
        Attempt("b", "m", None, 1.5),
    ),
)
REPLAYED = replace(POSTED, is_replay=True, state=None, events=None, fare_nanos=None, streamed=False, given_ns=0)
ORDERS = [POSTED, REFUSED, replace(POSTED, given_ns=BEGAN_NS + 9_000_000_000), REPLAYED, POSTED]

LINES = (
    '{"time":"2026-09-21T14:13:20.012Z","level":"info","logger":"farebox.orders","message":"order","outcome":"posted",'
    '"format":"chat/completions","status":200,"account":"Zoë\'s","key":7,"model":"made/up:nitro",'
    '"served_model":"made/up-2026","streamed":true,"generation":"gen-1","hold":"a-hold","prompt_tokens":12,'
    '"answer_tokens":0,"fare_events":100003,"fare_usd":"1.00003","upstream_ms":43.679,"total_ms":1234.568}\n'
    '{"time":"2026-09-21T14:13:20.012Z","level":"info","logger":"farebox.orders","message":"order","outcome":"refused",'
    '"format":"messages","status":401,"model":"","streamed":false,"error":"authentication","total_ms":0.0}\n'
).encode()


@contextmanager
def standard_error(number: int) -> Iterator[None]:
    """Writes on standard error go to another file."""
    kept = os.dup(2)
    os.dup2(number, 2)
    os.close(number)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Log:
    """The file where standard error goes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        return self.path.read_bytes()

    @property
    def lines(self) -> int:
        return self.read().count(b"\n")

    async def has(self, lines: int) -> None:
        """Wait for so many."""
        for _ in range(1000):
            if self.lines >= lines:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.read())


@contextmanager
def logged(folder: Path) -> Iterator[Log]:
    log = Log(folder / "log")
    with standard_error(os.open(log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        yield log


def counted() -> dict[tuple[str, ...], float]:
    """Each sample's value, by its name and its labels' values, but for the times when they were made."""
    families = text_string_to_metric_families(exposition(None).decode())
    samples = [sample for each in families for sample in each.samples if not sample.name.endswith("_created")]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def more(before: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """What has been counted since."""
    added = {name: round(value - before.get(name, 0), 9) for name, value in counted().items()}
    return {name: value for name, value in added.items() if value}


def test_orders_told_together_are_told_as_one_by_one(tmp_path: Path) -> None:
    async def tell(log: Log) -> None:
        one_by_one, together = Watch(is_logged=True), Watch(is_logged=True)
        one_by_one.close()
        before = counted()
        for order in ORDERS:
            one_by_one.saw(order)
        alone, lines = more(before), log.read()
        assert lines.startswith(LINES)
        assert lines.count(b"\n") == len(ORDERS)
        before = counted()
        for order in ORDERS:
            together.saw(order)
        assert log.read() == lines
        await log.has(2 * len(ORDERS))
        assert log.read() == 2 * lines
        assert more(before) == alone
        assert alone["farebox_orders_total", "chat/completions", "made/up", "posted"] == 3
        assert alone["farebox_fares_usd_total", "made/up", "paying"] == 3.00009
        assert alone["farebox_first_byte_added_seconds_bucket", "chat/completions", "0.004"] == 2
        assert alone["farebox_first_byte_added_seconds_bucket", "chat/completions", "+Inf"] == 3
        together.close()

    with logged(tmp_path) as log:
        asyncio.run(tell(log))


def test_what_waits_is_told_where_metrics_are_read_and_only_once(tmp_path: Path) -> None:
    async def tell(log: Log) -> None:
        watch = Watch(is_logged=True)
        before = counted()
        watch.saw(REFUSED)
        watch.metrics.committed(3, 0.5)
        watch.metrics.committed(1, 9)
        watch.metrics.refresh()
        told, lines = more(before), log.read()
        assert lines.count(b"\n") == 1
        assert told["farebox_orders_total", "messages", "", "refused"] == 1
        assert (told["farebox_commands_total",], told["farebox_commit_seconds_sum",]) == (4, 9.5)
        watch.saw(REFUSED)
        await log.has(2)
        watch.metrics.refresh()
        watch.close()
        assert log.read() == 2 * lines

    with logged(tmp_path) as log:
        asyncio.run(tell(log))


def test_neither_a_close_nor_too_many_orders_lose_one(tmp_path: Path) -> None:
    async def tell(log: Log) -> None:
        watch = Watch(is_logged=True)
        for _ in range(TOGETHER_MAX):
            watch.saw(POSTED)
        assert log.lines == TOGETHER_MAX
        watch.saw(POSTED)
        watch.close()
        assert log.lines == TOGETHER_MAX + 1
        # What a stop broke off, and which ends after all else.
        watch.saw(POSTED)
        assert log.lines == TOGETHER_MAX + 2

    with logged(tmp_path) as log:
        asyncio.run(tell(log))


def test_a_pipe_gets_whole_lines_so_that_those_of_several_processes_do_not_mix() -> None:
    async def tell() -> None:
        watch = Watch(is_logged=True)
        for _ in range(30):
            watch.saw(POSTED)
        watch.close()

    reader, writer = os.pipe2(os.O_DIRECT)  # which keeps writes apart
    with standard_error(writer):
        asyncio.run(tell())
    pieces = list(iter(lambda: os.read(reader, 1 << 20), b""))
    os.close(reader)
    assert b"".join(pieces).count(b"\n") == 30
    assert all(piece.endswith(b"}\n") and len(piece) <= PIPE_BUF for piece in pieces)
    assert len(pieces) < 10


@pytest.mark.parametrize("broken", ["a full disk", "a pipe that nobody reads", "closed"])
def test_a_log_that_cannot_be_written_ends_neither_orders_nor_counting(broken: str) -> None:
    async def tell() -> None:
        watch = Watch(is_logged=True)
        before = counted()
        watch.saw(POSTED)
        await asyncio.sleep(0)
        if broken == "closed":
            os.close(2)
        watch.metrics.refresh()
        watch.saw(POSTED)
        watch.close()
        watch.saw(POSTED)
        assert more(before)["farebox_orders_total", "chat/completions", "made/up", "posted"] == 3

    if broken == "a pipe that nobody reads":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    with standard_error(writer):
        asyncio.run(tell())


def test_an_orders_line_says_who_served_it_and_what_went_wrong_before() -> None:
    def of(passage: Passage) -> dict[str, object]:
        line: dict[str, object] = json.loads(msgspec.json.encode(line_of(passage)))
        return {name: line[name] for name in ("upstream", "attempts") if name in line}

    assert of(FALLEN_BACK) == {
        "upstream": "b",
        "attempts": [
            {"upstream": "a", "model": "m", "ms": 300.0, "error": "connect_timeout"},
            {"upstream": "a", "model": "n", "ms": 12.346, "error": "status_529"},
            {"upstream": "b", "model": "m", "ms": 1500.0},
        ],
    }
    assert of(replace(FALLEN_BACK, attempts=FALLEN_BACK.attempts[2:])) == {"upstream": "b"}
    assert of(REFUSED) == {}
