"""Farebox under a steady mixed load for a long time: does it grow?

`python -m tools.soak` (or `make soak`) serves what `tools.chaos` orders, hang-ups and faults included and kills left out,
at a steady pace; it looks at the server's memory and open files every few seconds, and prints how they lean.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tools.chaos import CALLERS, Chaos

SAMPLE_SECONDS = 5.0
WARM_SHARE = 0.2
"""The first part of a run, in which caches and pools fill: it is left out of the slope."""

Sample = tuple[float, float, float]
"""Seconds since the start, memory in MiB, open files."""


class Soak(Chaos):
    """One run. Its samples are of the server's process, one worker."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, workers=1, seed=seed)
        self.samples: list[Sample] = []

    async def load(self, seconds: float, orders_a_second: float) -> None:
        """Order at that pace."""
        self._until = sys.maxsize
        callers = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        began = time.monotonic()
        sample_at = 0.0
        while (passed := time.monotonic() - began) < seconds:
            self._due = int(passed * orders_a_second)
            if passed >= sample_at:
                sample_at += SAMPLE_SECONDS
                self.samples.append((passed, *self._look()))
            await asyncio.sleep(0.1)
        self._until = 0
        self._has_killed = True
        await asyncio.gather(*callers)

    def _look(self) -> tuple[float, float]:
        (server,) = self._servers.values()
        process = Path("/proc") / str(server.pid)
        rss = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return int(rss.split()[1]) / 1024, sum(1 for _ in (process / "fd").iterdir())


def slope(points: list[tuple[float, float]]) -> float:
    """The least-squares line's, in units a second."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def told(samples: list[Sample]) -> str:
    """The run in two lines."""
    warm = samples[int(len(samples) * WARM_SHARE) :]
    lines = []
    for name, column in (("memory in MiB", 1), ("open files", 2)):
        values = [sample[column] for sample in warm]
        an_hour = slope([(sample[0], sample[column]) for sample in warm]) * 3600
        lines.append(
            f"{name}: {values[0]:.4g} at first, {values[-1]:.4g} at last, {min(values):.4g} to {max(values):.4g};"
            f" slope {an_hour:+.3g} an hour"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=60, help="orders a second")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="farebox-soak-") as folder:
        soak = Soak(Path(folder), asked.seed)
        outcome = soak.under(soak.load(asked.minutes * 60, asked.rate))
    for difference in outcome.differences[:50]:
        print(difference)
    print(outcome.line())
    print(told(soak.samples))
    sys.exit(bool(outcome.differences))


if __name__ == "__main__":
    main()
