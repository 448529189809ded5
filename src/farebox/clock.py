"""The time of day, in microseconds since 1970, and as text in ISO 8601."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """Microseconds since 1970, by the machine's clock, which may be set back."""
    return time.time_ns() // 1000


def iso(us: int, timespec: str = "milliseconds") -> str:
    """Microseconds since 1970 as `2026-08-24T12:00:00.000Z`. `timespec`: see datetime.isoformat."""
    # Not by way of a float, which rounds the last moment of 9999 up.
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec=timespec).replace("+00:00", "Z")


def us_of(at: datetime) -> int:
    """Microseconds since 1970 of a moment; one that names no zone is in UTC. Raises ValueError: in UTC it is of no year
    from 1 to 9999, and `iso` cannot tell it."""
    try:
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(f"{at} is in UTC of no year from 1 to 9999") from error
    return (at - _EPOCH) // timedelta(microseconds=1)


def read_iso(text: str) -> int:
    """Microseconds since 1970 of a moment in ISO 8601, in UTC where it names no zone. Raises ValueError."""
    return us_of(datetime.fromisoformat(text))
