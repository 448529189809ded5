"""When to ask the upstream what an open hold cost, or how its job stands: soon at first, since most records are there
within a second, then less and less often. And what the end of a job settles."""

from farebox.core.books import HoldRow, Settle
from farebox.core.formats.videos import Job

FIRST_US = 200_000
"""When the first question comes: OpenRouter writes most records within half a second."""

_SOON_US = 60 * 1_000_000
_SOON_ENDS_US = 600 * 1_000_000
_RARELY_US = 900 * 1_000_000
_DOUBLINGS_MAX = 20

ASKS_MIN = 10
"""Questions before a hold is given up, however old it seems: a clock may have jumped ahead."""

FURTHEST_US = 1_200 * 1_000_000
"""No question waits longer: a due time further off was set by a clock that ran ahead, so ask now."""


def next_ask_us(asks: int, age_us: int) -> int:
    """Microseconds until the next question, after `asks` of them. In the first ten minutes of a hold's life they double
    up to a minute; later they are a tenth of its age, up to a quarter of an hour."""
    if age_us < _SOON_ENDS_US:
        return int(min(FIRST_US << min(asks, _DOUBLINGS_MAX), _SOON_US))
    return min(max(age_us // 10, _SOON_US), _RARELY_US)


def settlement_of(hold: HoldRow, job: Job, now_us: int) -> Settle:
    """What a job that has ended, and says what it cost, settles. Whoever sees its end may carry this out: the second
    time, and whatever the job says then, it changes nothing."""
    return Settle(hold_id=hold.id, verdict=job.verdict, created_us=now_us, generation_id=job.generation_id)
