"""The log: JSON objects, one a line, on standard error; one of them for each order.

No line holds a prompt, an answer or a key: accounts stand there by name, keys by number. What a foreign error quotes is
cleared of what looks like a secret.
"""

import logging
import os
import re

import msgspec

from farebox import clock
from farebox.core.money import format_usd
from farebox.core.passage import Passage
from farebox.telemetry.metrics import outcome_of

_STANDARD_ERROR = 2

_SECRET = re.compile(
    r"(?P<kept>://[^\s:/@]*:)[^\s/@]+(?=@)"  # a password in a URL
    r"|\b(?P<bearer>(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|\b(?:sk-|apify_)[\w-]{8,}",
    re.IGNORECASE,
)

_encode = msgspec.json.Encoder().encode


def start() -> None:
    """Log in this form from now on: warnings and worse."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def without_secrets(text: str) -> str:
    """The text with passwords in URLs, credentials of headers and keys replaced."""
    return _SECRET.sub(lambda found: f"{found['kept'] or found['bearer'] or ''}***", text)


class PlainLines(logging.Formatter):
    """Lines of text, cleared of secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": clock.iso(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return _encode(line).decode()


def log_order(passage: Passage) -> None:
    """Write a line for an order that is over."""
    # One write, so that lines of several processes do not mix. A line that cannot be written is lost.
    try:
        os.write(_STANDARD_ERROR, line_of(passage) + b"\n")
    except OSError:
        return


def line_of(passage: Passage) -> bytes:
    """An order's line, without its end. Durations in milliseconds, amounts as exact decimals; what is not known is left
    out."""
    caller = passage.caller
    line = {
        "time": clock.iso(passage.began_ns // 1000),
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
    return _encode({name: value for name, value in line.items() if value is not None})


def _milliseconds(since_ns: int, until_ns: int) -> float | None:
    return round((until_ns - since_ns) / 1e6, 3) if since_ns and until_ns else None
