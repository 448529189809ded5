"""The log: JSON objects, one a line, on standard error; one of them for each order.

No line holds a prompt, an answer or a key: accounts stand there by name, keys by number. What a foreign error quotes is
cleared of what looks like a secret.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from select import PIPE_BUF

import msgspec
from msgspec import Struct

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

_encoder = msgspec.json.Encoder()
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines


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


class _AttemptLine(Struct, omit_defaults=True):
    """One attempt: `error` is what went wrong, left out where it was served."""

    upstream: str
    model: str
    ms: float
    error: str | None = None


class _OrderLine(Struct, kw_only=True, omit_defaults=True):
    """An order's line: what is not known is None, and left out."""

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
    upstream: str | None = None
    attempts: list[_AttemptLine] | None = None
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


def log_orders(passages: Sequence[Passage]) -> None:
    """Write a line for each of these orders, which are over. A line that cannot be written is lost."""
    for piece in _pieces(_encode_lines([line_of(passage) for passage in passages])):
        with suppress(OSError):
            os.write(_STANDARD_ERROR, piece)


def line_of(passage: Passage) -> _OrderLine:
    """Durations in milliseconds, amounts as exact decimals. The time is that of the order's begin. Attempts stand there
    where one went wrong."""
    # In two steps: for more than fifteen names Python makes a dict, which costs a microsecond.
    line = _OrderLine(
        time=_moment(passage.began_ns),
        level="info",
        logger="farebox.orders",
        message="order",
        outcome=outcome_of(passage),
        format=passage.path.strip("/"),
        status=passage.status,
        model=passage.model,
        served_model=passage.served_model,
        attempts=_attempts(passage),
        streamed=passage.streamed,
        prompt_tokens=passage.prompt_tokens,
        answer_tokens=passage.answer_tokens,
        fare_events=passage.events,
    )
    if (caller := passage.caller) is not None:
        line.account, line.key = caller.account.name, caller.key.id
    line.upstream = passage.upstream or None
    line.generation = passage.generation_id or None
    line.hold = passage.hold_id or None
    line.fare_usd = None if passage.fare_nanos is None else format_usd(passage.fare_nanos)
    line.error = passage.error_type or None
    line.upstream_ms = _milliseconds(passage.held_ns, passage.head_ns)
    line.total_ms = _milliseconds(passage.began_ns, passage.ended_ns)
    return line


def _attempts(passage: Passage) -> list[_AttemptLine] | None:
    """None where the first upstream served the order."""
    made = passage.attempts
    if not made or (len(made) == 1 and made[0].went is None):
        return None
    return [
        _AttemptLine(each.upstream, each.model, round(each.seconds * 1000, 3), each.went.reason if each.went else None)
        for each in made
    ]


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Lines in pieces that a pipe takes whole, so that those of several processes do not mix."""
    since = 0
    while since < len(lines):
        last = lines.rfind(b"\n", since, since + PIPE_BUF)
        until = 1 + (last if last >= 0 else lines.index(b"\n", since))
        yield lines[since:until]
        since = until


def _moment(at_ns: int) -> str:
    """As `clock.iso`; orders of one second share most of it."""
    seconds, rest_ns = divmod(at_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest_ns // 1_000_000:03d}Z"


@lru_cache
def _second(seconds: int) -> str:
    return clock.iso(seconds * 1_000_000, "seconds").removesuffix("Z")


def _milliseconds(since_ns: int, until_ns: int) -> float | None:
    """To three places, rounded as an integer: rounding a float takes six times as long."""
    return (until_ns - since_ns + 500) // 1000 / 1000 if since_ns and until_ns else None
