"""The log: one JSON object a line on standard error, and of each order one line.

A line has no prompt, no answer and no key: accounts by name, keys by number.
"""

import logging
import os
from datetime import UTC, datetime

import msgspec

from farebox.core.money import format_usd
from farebox.ports import Passage
from farebox.telemetry.metrics import outcome_of

_STANDARD_ERROR = 2


def start() -> None:
    """Log so from now on, warnings and worse."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _iso(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class OrderLog:
    """A line for each order."""

    def began_stream(self) -> None: ...

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None:
        # One write, so that no two processes' lines mix. What cannot be written is not waited for.
        try:
            os.write(_STANDARD_ERROR, line_of(passage) + b"\n")
        except OSError:
            return


def line_of(passage: Passage) -> bytes:
    """An order in a line. Times in milliseconds; amounts are exact decimals."""
    caller = passage.caller
    line: dict[str, object] = {
        "time": _iso(passage.began_ns // 1_000_000),
        "level": "info",
        "logger": "farebox.orders",
        "message": "order",
        "outcome": outcome_of(passage),
        "format": passage.path.strip("/"),
        "status": passage.status,
        "account": caller.account.name if caller is not None else None,
        "key": caller.key.id if caller is not None else None,
        "model": passage.model,
        "served_model": passage.served_model,
        "streamed": passage.streamed,
        "generation": passage.generation_id or None,
        "hold": passage.hold_id or None,
        "prompt_tokens": passage.prompt_tokens,
        "answer_tokens": passage.answer_tokens,
        "fare_events": passage.events,
        "fare_usd": None if passage.fare_nanos is None else format_usd(passage.fare_nanos),
        "error": passage.error_type or None,
        "upstream_ms": _milliseconds(passage.held_ns, passage.head_ns),
        "total_ms": _milliseconds(passage.began_ns, passage.ended_ns),
    }
    return msgspec.json.encode({name: value for name, value in line.items() if value is not None})


def _milliseconds(since_ns: int, until_ns: int) -> float | None:
    return round((until_ns - since_ns) / 1e6, 3) if since_ns and until_ns else None


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
