"""Metrics, the log of orders and spans, behind one `Telemetry`."""

import asyncio
import sys
from importlib.util import find_spec

from farebox.core.passage import Passage
from farebox.telemetry.logs import log_orders
from farebox.telemetry.metrics import Metrics
from farebox.telemetry.traces import ENDPOINT_VARIABLES, Traces, is_traced

TELL_SECONDS = 0.05
"""How long what an order leaves may wait to be counted and logged: a killed process loses no more lines than that."""

TOGETHER_MAX = 1000
"""Orders that wait to be counted and logged at most: telling them takes some milliseconds, in which nothing else goes
on."""


def what_is_missing() -> str | None:
    """Why spans that are asked for cannot be sent, in words; to be asked before serving."""
    if not is_traced() or find_spec("opentelemetry.sdk") is not None:
        return None
    return f"{ENDPOINT_VARIABLES[0]} is set, and spans need an extra: pip install 'farebox[otel]'"


class Watch:
    """The `Telemetry` of one process: metrics always, a log of orders and spans where they are wanted.

    Orders are counted and logged some at a time, a moment after they are over: that costs a third of doing it for each
    alone, and no answer waits for it.
    """

    def __init__(self, *, is_logged: bool, ca_file: str | None = None) -> None:
        self.metrics = Metrics(self._tell)
        # Where there is no standard error, its number is that of another file.
        self._is_logged = is_logged and sys.stderr is not None
        self._traces = Traces(ca_file) if is_traced() else None
        self._untold: list[Passage] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Tell what waits; what comes later is told at once."""
        self._is_closed = True
        self._tell()
        if self._traces is not None:
            self._traces.close()

    def began_stream(self) -> None:
        self.metrics.streams += 1

    def ended_stream(self) -> None:
        self.metrics.streams -= 1

    def saw(self, passage: Passage) -> None:
        if self._traces is not None:
            self._traces.saw(passage)
        self._untold.append(passage)
        if self._is_closed or len(self._untold) >= TOGETHER_MAX:
            self._tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        told, self._untold = self._untold, []
        self.metrics.count(told)
        if self._is_logged:
            log_orders(told)
