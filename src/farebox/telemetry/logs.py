"""The log: JSON objects, one a line, on standard error; one of them for each order.

No line holds a prompt, an answer or a key: accounts stand there by name, keys by number.
"""

import logging
import os

import msgspec
from msgspec import Struct

from farebox import clock
from farebox.core.money import format_usd
from farebox.core.passage import Passage
from farebox.telemetry.metrics import outcome_of

_STANDARD_ERROR = 2

_encode = msgspec.json.Encoder().encode


def start() -> None:
    """Log in this form from now on: warnings and worse."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": clock.iso(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class OrderLog:
    """Writes a line for each order, when it is over."""

    def began_stream(self) -> None: ...

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None:
        # One write, so that lines of several processes do not mix. A line that cannot be written is lost.
        try:
            os.write(_STANDARD_ERROR, line_of(passage) + b"\n")
        except OSError:
            return


class _OrderLine(Struct, kw_only=True, omit_defaults=True):
    """Durations in milliseconds, amounts as exact decimals. Members whose value is not known are left out."""

    time: str
    level: str
    logger: str
    message: str
    outcome: str
    format: str
    status: int
    account: str | None = None
    key: int | None = None
    model: str
    served_model: str | None = None
    streamed: bool
    generation: str | None = None
    hold: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    fare_events: int | None = None
    fare_usd: str | None = None
    error: str | None = None
    upstream_ms: float | None = None
    total_ms: float | None = None


def line_of(passage: Passage) -> bytes:
    """An order's line, without its end."""
    caller = passage.caller
    line = _OrderLine(
        time=clock.iso(passage.began_ns // 1000),
        level="info",
        logger="farebox.orders",
        message="order",
        outcome=outcome_of(passage),
        format=passage.path.strip("/"),
        status=passage.status,
        account=caller.account.name if caller is not None else None,
        key=caller.key.id if caller is not None else None,
        model=passage.model,
        served_model=passage.served_model,
        streamed=passage.streamed,
        generation=passage.generation_id or None,
        hold=passage.hold_id or None,
        prompt_tokens=passage.prompt_tokens,
        answer_tokens=passage.answer_tokens,
        fare_events=passage.events,
        fare_usd=None if passage.fare_nanos is None else format_usd(passage.fare_nanos),
        error=passage.error_type or None,
        upstream_ms=_milliseconds(passage.held_ns, passage.head_ns),
        total_ms=_milliseconds(passage.began_ns, passage.ended_ns),
    )
    return _encode(line)


def _milliseconds(since_ns: int, until_ns: int) -> float | None:
    return round((until_ns - since_ns) / 1e6, 3) if since_ns and until_ns else None
