"""Videos, as OpenRouter has them: an order begins a job, which goes on after its answer. What it cost stands in the job
once that has ended, so the order's hold is open until then.

Sources: OpenRouter's OpenAPI document (`/videos`, `/videos/{jobId}`) and its Python SDK, which knows some members more.
"""

import re

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen, Units
from farebox.core.formats.asking import count, decoded, is_premium, named_models
from farebox.core.formats.chat_usage import counting
from farebox.core.formats.describing import CAP, USAGE, Described
from farebox.core.formats.envelope import ERROR, error_in_band, failure, read_error, refusal_body, typed_refusal
from farebox.core.formats.mending import NULL, cost_before_the_break, cost_in, drop_nulls, encode, mend_amounts
from farebox.core.kinds import thousandths
from farebox.core.legible import Fields, decode_fields, decode_list, decoded_or, text_of, written
from farebox.core.reading import UNREADABLE, Number, as_kept, is_null, skip_to_json
from farebox.core.schemas import NAME, TEXT, object_of, one_of
from farebox.core.sse import KEEP_ALIVE, data_event
from farebox.core.usage import Nothing, Unknown, Verdict

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS", "counting"]
__all__ += ["capped", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

CAPS: tuple[str, ...] = ()

TEXT_BEGINS = b""

PATH = "/api/v1/videos"
"""Under which jobs are asked for, at this gateway."""


class _Request(Struct):
    prompt: str | None = None
    model: str | None = None
    duration: Number | None = None
    frame_images: list[Raw] | None = None
    input_references: list[Raw] | None = None
    callback_url: str | None = None
    previous_job_id: str | None = None
    provider: Raw | UnsetType = UNSET
    service_tier: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = named_models(request.model, None)
    given = [*(request.frame_images or []), *(request.input_references or [])]
    if not request.prompt and not given:
        raise invalid("prompt: say what is to be seen in the video, or give pictures that it is made of")
    if request.callback_url:
        raise invalid(
            "callback_url: this gateway calls nobody back, and the upstream would with its own names; leave it out,"
            " and ask for the job's `polling_url`"
        )
    if request.previous_job_id:
        raise invalid("previous_job_id: a job cannot be continued here; leave it out")
    seconds = 0 if request.duration is None else count("duration", request.duration)
    return Asked(
        models=models,
        answers=0,
        prompt_bytes=len(body) - sum(len(bytes(each)) for each in given),
        images=len(given),
        is_premium=is_premium(models, request.service_tier, request.provider),
        units=Units(video_seconds=seconds, videos=0 if seconds else 1),
        used=thousandths(seconds) if seconds else None,
    )


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body as it is: there is no cap to set."""
    return body


# A job

RUNNING = ("pending", "in_progress")
FAILED = ("failed", "cancelled", "expired")
COMPLETED = "completed"

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:=@-]{0,199}")
"""What a job's id is made of, so that it can stand in a path as it is."""


class Job(Struct, frozen=True):
    """A job as its upstream tells of it. `verdict` says what it cost; of one that still runs that is Unknown. `members`
    are those that its caller sees, with paths in the place of the upstream's addresses."""

    id: str
    status: str
    has_ended: bool
    verdict: Verdict
    generation_id: str | None
    members: Fields


def read_job(body: bytes, asked_for: str | None = None) -> Job:
    """Read the answer to an order of a video, or the job of an id that was `asked_for`. Of what it has, only the
    members that are documented go on: no others are known to hold no address of the upstream's.

    Raises:
        Refusal: 424, it is no job.
    """
    try:
        fields = decode_fields(skip_to_json(body))
    except UNREADABLE:
        raise failure(None, "the upstream answered with something that is not JSON") from None
    job_id = asked_for or _text(fields, "id")
    status = _text(fields, "status")
    if not ID.fullmatch(job_id) or (asked_for and not status):
        raise failure(fields.get("error"), "the upstream's answer is no job")
    status = status or RUNNING[0]
    generation_id = _text(fields, "generation_id") or None
    members = Fields(id=encode(job_id), polling_url=encode(f"{PATH}/{job_id}"), status=encode(status))
    if generation_id is not None:
        members["generation_id"] = encode(generation_id)
    if not is_null(fields.get("error", NULL)):
        members["error"] = encode(_error_text(fields))
    if videos := max(_length(fields, "unsigned_urls"), _length(fields, "urls")):
        members["unsigned_urls"] = encode([f"{PATH}/{job_id}/content?index={number}" for number in range(videos)])
    if (usage := _usage(fields)) is not None:
        members["usage"] = usage
    has_ended = status == COMPLETED or status in FAILED
    return Job(job_id, status, has_ended, _verdict(job_id, status, fields), generation_id, members)


def _verdict(job_id: str, status: str, fields: Fields) -> Verdict:
    if status == COMPLETED:
        return cost_in(fields) or Unknown(f"the job {job_id} has ended, and does not say yet what it cost")
    if status not in FAILED:
        return Unknown(f"the job {job_id} runs")
    told = cost_in(fields)
    usage = decoded_or(decode_fields, fields.get("usage"), Fields())
    return Nothing() if told is None or is_null(usage.get("cost", NULL)) else told


def _text(fields: Fields, name: str) -> str:
    """A text, without halves of characters and NUL; "" where there is none."""
    try:
        return as_kept(text_of(fields.get(name, NULL)).encode("utf-8", "replace").decode())
    except UNREADABLE:
        return ""


def _error_text(fields: Fields) -> str:
    return _text(fields, "error") or read_error(fields["error"]).message or "the job failed"


def _length(fields: Fields, name: str) -> int:
    return len(decoded_or(decode_list, fields.get(name), list[Raw]()))


def _usage(fields: Fields) -> Raw | None:
    """As SDKs take it; None where there is none."""
    usage = decoded_or(decode_fields, fields.get("usage"), Fields())
    drop_nulls(usage, "is_byok")
    mend_amounts(usage)
    return written(usage) if usage else None


def shown(job: Job, base: str = "") -> bytes:
    """A job as its caller sees it; `base` is the caller's address of this gateway."""
    return below(bytes(written(job.members)), base)


def below(body: bytes, base: str) -> bytes:
    """What a caller sees of a job, with `base` before its paths."""
    fields = decoded_or(decode_fields, body, Fields())
    if base and "polling_url" in fields:
        fields["polling_url"] = encode(base + _text(fields, "polling_url"))
    if base and "unsigned_urls" in fields:
        fields["unsigned_urls"] = encode([base + each for each in _decode_texts(fields["unsigned_urls"])])
    return bytes(written(fields))


def begun(job_id: str) -> bytes:
    """What the order of a job was answered, as far as that is known from the job's name."""
    members = {"id": job_id, "polling_url": f"{PATH}/{job_id}", "status": RUNNING[0]}
    return msgspec.json.encode(members)


def see_answer(body: bytes) -> Seen:
    try:
        job = read_job(body)
    except Refusal as refusal:
        return Seen(cost=cost_before_the_break(skip_to_json(body)), failure=refusal)
    return Seen(
        generation_id=job.generation_id,
        # A job that failed at once is asked for once more, which settles it.
        cost=Unknown(f"the job {job.id} has failed") if isinstance(job.verdict, Nothing) else job.verdict,
        repaired=shown(job),
        job_id=job.id,
    )


def see_event(event: bytes, progress: Progress) -> Seen:
    """Jobs are never streamed."""
    return PASS


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    return data_event(msgspec.json.encode({"error": error_in_band(refusal)}))


STATUSES = " ".join((*RUNNING, COMPLETED, *FAILED))

DESCRIBED = Described(
    "Videos",
    request=("VideoRequest", object_of({"model": NAME, "prompt": NAME}, {"duration": CAP})),
    answer=("VideoJob", object_of({"id": TEXT, "polling_url": TEXT, "status": one_of(STATUSES)}, USAGE)),
    refusal=ERROR,
    example={"model": "sim/filmer", "prompt": "Hello", "duration": 2},
    is_streamed=False,
    operation="video_generation",
    answered_with="video",
    below=below,
)
