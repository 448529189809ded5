"""Locks on files, which the kernel lets go with their process however that ends: who holds one is alive."""

import fcntl
import os
from pathlib import Path


def take(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file, made and private where it was not there, and lock it; its descriptor. Raises BlockingIOError."""
    descriptor = os.open(path, os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


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
