"""Crash points: places where a test kills the process, to see what it leaves behind.

Nothing happens unless FAREBOX_CRASH_AT names one; then the process that comes to it dies by SIGKILL.
"""

import os
import signal
from collections.abc import Iterable

CRASH_VARIABLE = "FAREBOX_CRASH_AT"

POINTS = (
    "PlaceHold:before",
    "PlaceHold:after",
    "forward:before",
    "forward:after",
    "NameGeneration:before",
    "NameGeneration:after",
    "send:before",
    "Settle:before",
    "Settle:after",
    "send:after",
    "ask:before",
    "ask:after",
    "AskLater:before",
    "AskLater:after",
)
"""Before and after every durable write and every network step of an order, in its order; then of a question."""

_AT = os.environ.get(CRASH_VARIABLE, "")


def crash_point(name: str) -> None:
    """Die here, if this is the place."""
    if name == _AT:
        os.kill(os.getpid(), signal.SIGKILL)


def crash_points(commands: Iterable[object], when: str) -> None:
    """The same for several commands at once, named by their kinds."""
    if _AT:
        for command in commands:
            crash_point(f"{type(command).__name__}:{when}")
