"""Crash points: places where tests kill the process, to see what it leaves behind.

Nothing happens unless FAREBOX_CRASH_FILE names a file. A point's name in that file arms the point: the first process
that reaches it deletes the file and dies by SIGKILL.
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
"""Before and after every durable write and every network step: of an order, in sequence, then of a question about a
cost."""

_FILE = os.environ.get(CRASH_VARIABLE, "")


def arm(file: Path, name: str) -> None:
    """Let the next process that reaches this point die there. As long as the file exists, none has."""
    assert name in POINTS, name
    draft = file.with_name(file.name + "-draft")
    draft.write_text(name)
    draft.rename(file)


def crash_point(name: str) -> None:
    """Die here, if this point is armed."""
    if _FILE and _is_taken(name):
        os.kill(os.getpid(), signal.SIGKILL)


def crash_points(commands: Iterable[object], when: str) -> None:
    """`crash_point` for each of several commands; `when` is `before` or `after`."""
    if _FILE:
        for command in commands:
            crash_point(f"{type(command).__name__}:{when}")


def _is_taken(name: str) -> bool:
    """Whether this point is armed, and this is the first process to reach it."""
    file = Path(_FILE)
    try:
        if file.read_text() != name:
            return False
        file.unlink()
    except FileNotFoundError:
        return False
    return True
