"""An outside biller that counts, and fails when it is told to."""

from typing import Literal

from farebox.ports import BillerUnreachable, NotCounted

Fault = Literal["before", "after"]


class CountingBiller:
    """An outside biller that counts each key once, as the platform does, and keeps what it was told.

    `faults` are played in turn: a call fails before it is counted, after it, or is refused in words.
    """

    def __init__(self, *faults: Fault | str | None) -> None:
        self.faults: list[Fault | str | None] = list(faults)
        self.calls: list[tuple[str, int, str]] = []
        self._counts: dict[str, int] = {}
        self.is_reachable = True

    @property
    def events(self) -> int:
        return sum(self._counts.values())

    def forget(self) -> None:
        """Forget the idempotency keys: a charge that is repeated now is counted anew."""
        self._counts = {f"forgotten {number}": count for number, count in enumerate(self._counts.values())}

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        self.calls.append((key, count, charge_to))
        fault = self.faults.pop(0) if self.faults else None
        if not self.is_reachable or fault == "before":
            raise BillerUnreachable("nobody there")
        if fault not in (None, "after"):
            raise NotCounted(fault)
        self._counts.setdefault(key, count)
        if fault == "after":
            raise BillerUnreachable("it broke off")

    async def counted(self) -> int:
        if not self.is_reachable:
            raise BillerUnreachable("nobody there")
        return self.events
