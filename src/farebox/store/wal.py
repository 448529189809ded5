"""SQLite's write-ahead log: what was committed and is not yet in the file of the books. It can only begin anew when
nobody reads what was before it, so a reader that keeps a transaction open makes it grow, order by order.

Here it is watched, and made small again as soon as it can be, without an order that waits for that.
"""

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from farebox.store.engine import Engine
from farebox.store.sqlite import CHECKPOINT_PAGES, Sqlite
from farebox.store.threads import Worker

log = logging.getLogger("farebox")

LOOK_SECONDS = 1.0

LARGE_PART = 4
"""From a quarter of the size that is warned of, the log is copied into the books from here, and not by whoever commits
next, who would wait for all of it."""

TRIES = 20
PAUSE_SECONDS = 0.01
"""How often the log is asked to begin anew in one go, and how long it waits between: a commit may be under way."""

_FIRST_READER, _LAST_READER = 123, 127
"""The bytes of the `-shm` file that readers lock (sqlite.org/walformat.html, 2.3.1)."""

_LOCKS = Path("/proc/locks")
SAMPLES = 10
"""Looks at who reads, some milliseconds apart: who holds a transaction is seen in each, who only reads is not."""


class WalKeeper:
    """Looks after the log of one file of books. Several processes may, each for itself. Other books have none."""

    def __init__(self, engine: Engine, warn_bytes: int) -> None:
        self._engine = engine if isinstance(engine, Sqlite) else None
        self._warn_bytes = warn_bytes
        self._thread = Worker("farebox-wal")
        self._is_warned = False

    @property
    def size_bytes(self) -> int:
        return 0 if self._engine is None else _size(self._engine)

    async def run(self) -> None:
        """Look again and again. Runs until cancelled; may be begun again after a failure."""
        self._thread = Worker("farebox-wal")
        try:
            while True:
                if self._engine is not None:
                    await self._look(self._engine)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._thread.close()

    async def _look(self, engine: Sqlite) -> None:
        """Make the log small where it is large, and say so where that has not helped, or has helped again."""
        is_large = self.size_bytes > self._warn_bytes // LARGE_PART
        engine.checkpoints_on_commit = not is_large
        if is_large:
            await self._thread.do(lambda: _shrink(engine))
        size = self.size_bytes
        if size > self._warn_bytes and not self._is_warned:
            self._is_warned = True
            who = await self._thread.do(lambda: _readers(engine))
            log.warning(
                "%s is %d MB and grows with every order: %s. Orders go on; it shrinks by itself when that has ended",
                engine.beside("-wal"),
                size // 1_000_000,
                who,
            )
        elif self._is_warned and size <= self._warn_bytes // LARGE_PART:
            self._is_warned = False
            log.warning("%s is small again: %d MB", engine.beside("-wal"), size // 1_000_000)


def _size(engine: Sqlite) -> int:
    try:
        return engine.beside("-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _shrink(engine: Sqlite) -> None:
    """Copy what no reader needs any more, while others commit; then, where little is left, cut the file off."""
    try:
        with closing(engine.connect()) as db:
            # A busy reader or writer is not waited for: meanwhile this would keep others from writing.
            db.execute("PRAGMA busy_timeout = 0")
            for _ in range(TRIES):
                _, frames, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if frames - copied > CHECKPOINT_PAGES:
                    return
                is_busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not is_busy:
                    return
                time.sleep(PAUSE_SECONDS)
    except sqlite3.OperationalError as error:
        log.warning("the write-ahead log of the books could not be made smaller: %s", error)


def _readers(engine: Sqlite) -> str:
    """Who keeps a transaction open, as far as this machine tells. Servers on the books are left out: they read and
    write all the time, and each of their transactions is short."""
    try:
        held = readers(engine.beside("-shm")) - engine.worker_pids()
        for _ in range(SAMPLES - 1):
            time.sleep(PAUSE_SECONDS)
            held &= readers(engine.beside("-shm"))
    except OSError:
        return f"a program that reads the books keeps a transaction open (`fuser {engine.path}` may tell which)"
    if not held:
        return "a program that cannot be seen from here keeps a transaction open, or many take turns at reading"
    named = ", ".join(f"process {pid} ({_command(pid)})" for pid in sorted(held))
    return f"a transaction that reads the books is kept open by {named}"


def readers(shm: Path) -> set[int]:
    """The processes that hold a reader's lock on the log's index now, by Linux's list of locks. Raises OSError."""
    file = str(shm.stat().st_ino)
    found: set[int] = set()
    for line in _LOCKS.read_text().splitlines():
        match line.replace("->", "").split():
            # 7: POSIX  ADVISORY  READ 4711 fe:00:4058858 124 124
            case [_, "POSIX", _, "READ", pid, place, first, last] if place.rpartition(":")[2] == file and last != "EOF":
                if int(first) <= _LAST_READER and int(last) >= _FIRST_READER:
                    found.add(int(pid))
            case _:
                continue
    return found


def _command(pid: int) -> str:
    """What a process is called: not its arguments, which may have secrets in them."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "its name cannot be read"
