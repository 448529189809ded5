"""Crash points: places where tests kill the process, to see what it leaves behind.

Nothing happens unless FAREBOX_CRASH_FILE names a file. A point's name in that file arms the point: the first process
that reaches it deletes the file and dies by SIGKILL.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

CRASH_VARIABLE = "FAREBOX_CRASH_FILE"

_FILE = os.environ.get(CRASH_VARIABLE, "")


def crash_point(name: str) -> None:
    """Die here, if this point is armed, and this is the first process to reach it."""
    if _FILE:
        with suppress(FileNotFoundError):
            if Path(_FILE).read_text() == name:
                Path(_FILE).unlink()
                os.kill(os.getpid(), signal.SIGKILL)


def crash_points(commands: Iterable[object], when: str) -> None:
    """`crash_point` for each of several commands; `when` is `before` or `after`."""
    if _FILE:
        for command in commands:
            crash_point(f"{type(command).__name__}:{when}")
