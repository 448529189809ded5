"""Metrics, the log of orders and spans, behind one `Telemetry`."""

from collections.abc import Callable
from importlib.util import find_spec

from farebox.core.passage import Passage
from farebox.telemetry.logs import log_order
from farebox.telemetry.metrics import Metrics
from farebox.telemetry.traces import ENDPOINT_VARIABLES, Traces, is_traced


def what_is_missing() -> str | None:
    """Why spans that are asked for cannot be sent, in words; to be asked before serving."""
    if not is_traced() or find_spec("opentelemetry.sdk") is not None:
        return None
    return f"{ENDPOINT_VARIABLES[0]} is set, and spans need an extra: pip install 'farebox[otel]'"


class Watch:
    """The `Telemetry` of one process: metrics always, a log of orders and spans where they are wanted."""

    def __init__(self, *, is_logged: bool, ca_file: str | None = None) -> None:
        self.metrics = Metrics()
        self._traces = Traces(ca_file) if is_traced() else None
        self._observers: list[Callable[[Passage], None]] = [self.metrics.saw]
        self._observers += [log_order] if is_logged else []
        self._observers += [self._traces.saw] if self._traces is not None else []

    def close(self) -> None:
        if self._traces is not None:
            self._traces.close()

    def began_stream(self) -> None:
        self.metrics.began_stream()

    def ended_stream(self) -> None:
        self.metrics.ended_stream()

    def saw(self, passage: Passage) -> None:
        for observe in self._observers:
            observe(passage)
