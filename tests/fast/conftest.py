"""Fast tests start nothing: what would start a process, or listen, is refused here and belongs into tests/served/."""

import sys
from collections.abc import Iterator

import pytest

STARTS = {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "socket.bind"}
"""What Python says to audit hooks when something is started."""

_is_on = False


def _refuse(event: str, _: object) -> None:
    if _is_on and event in STARTS:
        raise AssertionError(f"a fast test starts something ({event}): it belongs into tests/served/")


# A hook stays for as long as the process lives, and so refuses only while a fast test runs.
sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def starts_nothing() -> Iterator[None]:
    global _is_on
    _is_on = True
    yield
    _is_on = False
