"""Taking up a changed `farebox.toml` without a restart: on a SIGHUP, and within two seconds of its being written.

Only what it says of upstreams is taken up. A file that is wrong changes nothing, and is told in the log.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from farebox.catalog import Catalog
from farebox.core.declared import Declared, prices_source
from farebox.price_lists import PriceLists
from farebox.settings import BadSettings, config_file
from farebox.upstream.running import RunningUpstreams

log = logging.getLogger("farebox")

LOOK_SECONDS = 0.5
"""How often the file is looked at. It is read once it has not changed from one look to the next: an editor may write it
bit by bit."""

Stamp = tuple[int, int, int]
"""What changes with a file."""

NO_FILE: Stamp | None = None

Declare = Callable[[], Sequence[Declared]]


class Reloading:
    """Watches the file for as long as it `run`s. `declare` reads the settings anew, and raises BadSettings."""

    def __init__(
        self, upstreams: RunningUpstreams, catalog: Catalog, price_lists: PriceLists, declare: Declare
    ) -> None:
        self._upstreams = upstreams
        self._price_lists = price_lists
        self._catalog = catalog
        self._declare = declare
        # Not how it is now: it may have changed since the settings were read for this start.
        self._read = self._seen = NO_FILE
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Look at the file, and close upstreams that are left, until cancelled."""
        with _on_hang_up(self._wanted.set):
            while True:
                await self._until_looked_at()
                before, self._seen = self._seen, _stamp()
                if self._wanted.is_set() or self._read != self._seen == before:
                    self._read = self._seen
                    self._wanted.clear()
                    await self.take_up()
                await self._upstreams.close_left()

    async def _until_looked_at(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def take_up(self) -> None:
        """Read the settings, and change the upstreams to what they say."""
        try:
            declared = self._declare()
        except BadSettings as error:
            log.error("%s is wrong, and nothing is changed: %s", config_file(), " / ".join(str(error).splitlines()))
            return
        changes = str(self._upstreams.change(declared))
        if not changes:
            return
        # What is free is, before anybody is asked for models; prices from OpenRouter's list need to know them.
        await self._price_lists.renew()
        await self._catalog.change(prices_source(declared), partial(self._upstreams.prices, only_new=True))
        await self._price_lists.renew()
        log.warning("the upstreams have changed: %s", changes)


def _stamp() -> Stamp | None:
    """The file's; NO_FILE where there is none."""
    try:
        found = config_file().stat()
    except OSError:
        return NO_FILE
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextmanager
def _on_hang_up(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on each SIGHUP, in a server: it ignored them until now. Other programs end on it."""
    loop = asyncio.get_running_loop()
    if (
        signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    loop.add_signal_handler(signal.SIGHUP, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
