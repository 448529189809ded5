"""Simulated videos: an order begins a job, which runs for so long or for so many looks at it, and then says what it
cost, by the second. What it made is a hum of bytes as long as the video."""

import time
from dataclasses import dataclass
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal, conflict, invalid, unknown
from farebox.core.formats.envelope import refusal_body as refused
from farebox.simulator.faults import Faults
from farebox.simulator.generations import Generations
from farebox.simulator.made import Made
from farebox.simulator.models import Model
from farebox.simulator.talk import number_of

__all__ = ["MAKES", "Jobs", "Request", "make", "read", "refused", "whole"]

MAKES = "video"

SECONDS = 5
"""How long a video is where the order does not say it."""

SECOND_BYTES = 4096

HOME = "https://openrouter.ai/api/v1/videos"
"""Where its answers say that jobs are to be asked for: not where it is, as is so behind any gateway."""

KEPT_MAX = 10_000

LATE_ASKS = 2
"""How many times a job that has ended does not say what it cost, where it says it late."""


Content = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers and bytes of what a job made."""


class Request(Struct):
    """What the simulator reads."""

    model: str
    prompt: str | None = None
    duration: int | None = None
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Filmed(Made):
    """A video, of so many seconds."""

    seconds: int = 0


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Request:
    request = _decode(body)
    if request.duration is not None and request.duration < 1:
        raise invalid("duration: must be at least 1")
    return request


def make(request: Request, model: Model, faults: Faults) -> Filmed:
    seconds = request.duration or SECONDS
    return Filmed(model, 0, price=Decimal(model.unit) * seconds, api_type="video", seconds=seconds)


def whole(request: Request, made: Filmed, generation_id: str, faults: Faults) -> bytes:
    """What is answered to the order: the generation is not told before the job has ended."""
    job_id = _job_id(generation_id)
    return msgspec.json.encode({"id": job_id, "polling_url": f"{HOME}/{job_id}", "status": "pending"})


def _job_id(generation_id: str) -> str:
    return generation_id.replace("gen-", "job-", 1)


@dataclass(slots=True)
class _Job:
    key: bytes
    generation_id: str
    made: Filmed
    asked: Faults
    began: float
    looks: int = 0
    looks_after: int = 0

    @property
    def has_ended(self) -> bool:
        if self.asked.job == "never-ends":
            return False
        return self.looks > self.asked.job_polls and time.monotonic() >= self.began + self.asked.job_ms / 1000

    @property
    def status(self) -> str:
        if not self.has_ended:
            return "in_progress" if self.looks > 1 else "pending"
        failing = {"fails": "failed", "fails-at-a-cost": "failed", "cancelled": "cancelled", "expires": "expired"}
        return failing.get(self.asked.job or "", "completed")


class Jobs:
    """The jobs of one simulator, the oldest dropped beyond KEPT_MAX; what they cost is written into its books when they
    end."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._kept: dict[str, _Job] = {}

    def begin(self, generation_id: str, key: bytes, made: Filmed, asked: Faults) -> None:
        self._kept[_job_id(generation_id)] = _Job(key, generation_id, made, asked, time.monotonic())
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]

    def look(self, job_id: str, key: bytes) -> bytes:
        """The body of `GET /videos/{job}`. Raises Refusal 404: not there, not any more, or another key's."""
        job = self._find(job_id, key)
        job.looks += 1
        if job.asked.job == "vanishes" and job.looks > job.asked.job_polls:
            raise unknown(f"Job {job_id} not found")
        told: dict[str, object] = {"id": job_id, "polling_url": f"{HOME}/{job_id}", "status": job.status}
        if not job.has_ended:
            return msgspec.json.encode(told)
        job.looks_after += 1
        cost = self._cost(job)
        if job.looks_after == 1:
            self._generations.add(job.generation_id, key, job.made, cost, streamed=False, sent_tokens=None)
        told |= {"generation_id": job.generation_id}
        if job.status != "completed":
            told |= {"error": f"Simulated: the job is {job.status}"}
        else:
            told |= {"unsigned_urls": [f"{HOME}/{job_id}/content?index=0"]}
        if job.status == "completed" or job.asked.job == "fails-at-a-cost":
            told |= {"usage": {"cost": Raw(self._told(job, cost).encode()), "is_byok": False}}
        return msgspec.json.encode(told)

    def _cost(self, job: _Job) -> Faults:
        """The faults by which the books are written: with the cost that the job comes to."""
        if job.asked.cost is not None and job.asked.cost != "is-null":
            return job.asked
        is_charged = job.status == "completed" or job.asked.job == "fails-at-a-cost"
        return msgspec.structs.replace(job.asked, cost=number_of(job.made.cost()) if is_charged else "0")

    def _told(self, job: _Job, cost: Faults) -> str:
        late = job.asked.job == "costs-late" and job.looks_after <= LATE_ASKS
        if late or job.asked.cost == "is-null":
            return "null"
        assert cost.cost is not None
        twice = job.asked.job == "ends-twice" and job.looks_after > 1
        return number_of(Decimal(cost.cost) * 2) if twice else cost.cost

    def content(self, job_id: str, key: bytes, index: str, wanted: bytes) -> Content:
        """What `GET /videos/{job}/content` gives; `wanted` is the `Range` that was asked for. Raises Refusal: 404, as
        for the job, or it made no other; 409, it has not ended; 410, it failed; 416."""
        job = self._find(job_id, key)
        if not job.has_ended:
            raise conflict("Simulated: the video is not ready")
        if job.status != "completed":
            raise Refusal(410, "invalid_request", "Simulated: the job made no video")
        if index not in ("", "0"):
            raise unknown(f"Simulated: there is no video {index}")
        video = bytes(number % 251 for number in range(SECOND_BYTES)) * job.made.seconds
        head = [(b"content-type", b"video/mp4"), (b"accept-ranges", b"bytes")]
        if not wanted:
            return 200, head, video
        first, _, last = wanted.removeprefix(b"bytes=").partition(b"-")
        start, stop = int(first or 0), min(int(last or len(video) - 1), len(video) - 1)
        if start > stop:
            raise Refusal(416, "invalid_request", "Simulated: there is no such range")
        said = b"bytes %d-%d/%d" % (start, stop, len(video))
        return 206, [*head, (b"content-range", said)], video[start : stop + 1]

    def _find(self, job_id: str, key: bytes) -> _Job:
        job = self._kept.get(job_id)
        if job is None or job.key != key:
            raise unknown(f"Job {job_id} not found")
        return job
