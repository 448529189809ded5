"""Locks on files, which the kernel lets go with their process however that ends: who holds one is alive."""

import fcntl
import os
from pathlib import Path


class LockedFile:
    """A file of a new name in a folder, private and locked. It is locked before it has its name, which begins with no
    dot: whoever finds it under that finds it locked."""

    def __init__(self, folder: Path, name: str, flags: int = os.O_RDWR) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / name
        unnamed = folder / f".{name}"
        self.descriptor = os.open(unnamed, os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            unnamed.rename(self._path)
        except OSError:
            os.close(self.descriptor)
            raise

    def renew(self) -> None:
        """The kernel lets go of it with the process, not before."""

    def release(self) -> None:
        """Remove it."""
        self._path.unlink(missing_ok=True)
        os.close(self.descriptor)


def is_free(path: Path) -> bool:
    """Whether nobody holds it; so it is where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
