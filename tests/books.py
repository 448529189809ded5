"""New books for tests: migrated once by each process of the tests, and copied from then on."""

import os
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from farebox.store import migrate


def new_books(path: Path) -> None:
    """Empty books of the newest schema in a file, as `prepare` makes them; books that are there stay as they are."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    shutil.copyfile(Path(_folder().name) / "books.db", path)


@cache
def _folder() -> "TemporaryDirectory[str]":
    """Where the books lie that are copied; removed when this process ends."""
    folder = TemporaryDirectory(prefix="farebox-books-", ignore_cleanup_errors=True)
    migrate.upgrade(f"sqlite:///{folder.name}/books.db")
    return folder
