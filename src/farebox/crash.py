"""Crash points: places where a test kills the process, to see what it leaves behind.

Nothing happens unless FAREBOX_CRASH_FILE names a file. Writing a point's name into it arms the point: the first process
that comes to it takes the file away and dies by SIGKILL.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

CRASH_VARIABLE = "FAREBOX_CRASH_FILE"

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

_FILE = os.environ.get(CRASH_VARIABLE, "")


def arm(file: Path, name: str) -> None:
    """Let the next process that comes to this point die there. While the file exists, none has."""
    assert name in POINTS, name
    draft = file.with_name(file.name + "-draft")
    draft.write_text(name)
    draft.rename(file)


def crash_point(name: str) -> None:
    """Die here, if this is the place."""
    if _FILE and _is_taken(name):
        os.kill(os.getpid(), signal.SIGKILL)


def crash_points(commands: Iterable[object], when: str) -> None:
    """The same for several commands at once, named by their kinds."""
    if _FILE:
        for command in commands:
            crash_point(f"{type(command).__name__}:{when}")


def _is_taken(name: str) -> bool:
    """Whether this point is armed, and no other process was here before."""
    file = Path(_FILE)
    try:
        if file.read_text() != name:
            return False
        file.unlink()
    except FileNotFoundError:
        return False
    return True
