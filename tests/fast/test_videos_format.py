"""Videos: what an order of one sets aside, and what its caller sees of the job."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.batch.entries import read_entry
from farebox.core.errors import Refusal
from farebox.core.formats import Units, videos
from farebox.core.formats.table import FORMATS
from farebox.core.formats.videos import Job, below, read_job, see_answer, shown
from farebox.core.plans import BUILT_IN
from farebox.core.pricing import ASSUMED, VIDEO_SECONDS_MAX, ceiling
from farebox.core.usage import Cost, Nothing, Unknown, Verdict
from farebox.upstream.openrouter_pages import read_price_list
from farebox.web.own_address import OwnAddress


def job(**members: Any) -> Job:
    return read_job(json.dumps({"id": "job-1", **members}).encode())


# Orders


@pytest.mark.parametrize(
    ("body", "units", "images"),
    [
        ({"duration": 4}, Units(video_seconds=4), 0),
        ({"duration": 4.0}, Units(video_seconds=4), 0),
        ({"duration": None, "callback_url": "", "previous_job_id": None}, Units(videos=1), 0),
        ({"prompt": None, "frame_images": [{"image_url": {"url": "data:,x"}}]}, Units(videos=1), 1),
        ({"input_references": [{}, {}], "frame_images": [{}]}, Units(videos=1), 3),
    ],
)
def test_what_an_order_comes_to(body: dict[str, Any], units: Units, images: int) -> None:
    asked = videos.read(json.dumps({"model": "a/b", "prompt": "p", **body}).encode())
    assert (asked.units, asked.images, asked.answers, asked.streamed) == (units, images, 0, False)


def test_no_line_of_a_batch_waits_for_a_job() -> None:
    entry = read_entry(1, json.dumps({"url": "/v1/videos", "body": {"model": "a/b", "prompt": "p"}}).encode(), FORMATS)
    assert entry.refusal is not None
    assert "begins a job" in entry.refusal.message


LISTED: dict[str, Any] = {"id": "a/b", "pricing": {"prompt": "0", "completion": "0"}}


@pytest.mark.parametrize(
    ("listed", "second", "longest"),
    [
        ({"pricing_skus": {"generate": "0.50"}, "supported_durations": [5, 8]}, "0.50", 8),
        ({"pricing_skus": {"duration_seconds": "0.1", "duration_seconds_4k": "0.2"}}, "0.2", 0),
        ({"pricing_skus": {"cents_per_second_output": "12"}}, "0.12", 0),
        ({"pricing_skus": {"video_tokens": "0.000001"}, "supported_sizes": ["1024x1024", "640x480"]}, "0.03072", 0),
        ({"pricing_skus": {"video_tokens": "0.000001"}, "supported_resolutions": ["1080p", "720p"]}, "0.079734375", 0),
        ({"pricing_skus": {"cents_per_megapixel_second": "1"}, "supported_sizes": ["1000x1000"]}, "0.01", 0),
        ({"pricing_skus": {"generate": "0"}, "supported_durations": [8]}, None, 8),
        ({"pricing_skus": {"generate": "-1"}}, None, 0),
        ({"pricing_skus": {"generate": "NaN"}}, None, 0),
        ({"pricing_skus": {"generate": "much"}}, None, 0),
        ({"pricing_skus": None, "supported_durations": None}, None, 0),
        ({"pricing_skus": [], "supported_durations": "long"}, None, 0),
    ],
)
def test_a_seconds_price_is_the_dearest_listed_and_never_nothing(
    listed: dict[str, Any], second: str | None, longest: int
) -> None:
    of_videos = json.dumps({"data": [{"id": "a/b", **listed}, {"id": "x/y", **listed}, 7]}).encode()
    prices = read_price_list(json.dumps({"data": [LISTED]}).encode(), of_videos)
    price = ASSUMED.video_second if second is None else Decimal(second)
    for duration, seconds in ((3, 3), (None, longest or VIDEO_SECONDS_MAX)):
        asked = videos.read(json.dumps({"model": "a/b", "prompt": "p", "duration": duration}).encode())
        assert ceiling(asked, 0, prices, BUILT_IN["paying"]).cost(0) == price * seconds
    assert prices.find("x/y") is None


# Jobs


@pytest.mark.parametrize(
    ("members", "verdict"),
    [
        ({}, Unknown("the job job-1 runs")),
        ({"status": "in_progress", "usage": {"cost": 1}}, Unknown("the job job-1 runs")),
        ({"status": "a word of its own", "usage": {"cost": 1}}, Unknown("the job job-1 runs")),
        ({"status": "completed", "usage": {"cost": 0.1}}, Cost(Decimal("0.1"))),
        ({"status": "completed", "usage": {"cost": "3E-7"}}, Cost(Decimal("3E-7"))),
        ({"status": "completed", "usage": {"cost": 0}}, Cost(Decimal(0))),
        ({"status": "failed"}, Nothing()),
        ({"status": "cancelled", "usage": None}, Nothing()),
        ({"status": "expired", "usage": {"cost": None}}, Nothing()),
        ({"status": "failed", "usage": {"cost": 0.1}}, Cost(Decimal("0.1"))),
    ],
)
def test_what_a_job_says_of_its_cost(members: dict[str, Any], verdict: Verdict) -> None:
    assert job(**members).verdict == verdict


@pytest.mark.parametrize(
    "members",
    [
        {"status": "completed"},
        {"status": "completed", "usage": {"cost": None}},
        {"status": "completed", "usage": {"cost": -1}},
        {"status": "completed", "usage": {"cost": 1, "is_byok": True}},
        {"status": "failed", "usage": {"cost": -1}},
    ],
)
def test_what_it_cost_is_not_known(members: dict[str, Any]) -> None:
    found = job(**members)
    assert found.has_ended
    assert isinstance(found.verdict, Unknown)


def test_an_order_that_failed_at_once_is_asked_about_and_not_given_back_unseen() -> None:
    seen = see_answer(b'{"id": "job-1", "status": "failed", "error": "full"}')
    assert isinstance(seen.cost, Unknown)
    assert seen.job_id == "job-1"


@pytest.mark.parametrize("job_id", ["", ".", "../keys", "a/b", "a?b", "a b", "a%2fb", "é", "x" * 201, None, 7])
def test_a_name_that_is_none_is_not_taken(job_id: Any) -> None:
    seen = see_answer(json.dumps({"id": job_id, "usage": {"cost": 1}}).encode())
    assert seen.failure is not None
    assert (seen.failure.status, seen.job_id, seen.cost) == (424, None, Cost(Decimal(1)))


def test_what_is_asked_for_must_be_a_job() -> None:
    for body in (b"{}", b"[]", b"no", b'{"error": {"message": "x"}}', b'{"status": 1}'):
        with pytest.raises(Refusal):
            read_job(body, "job-1")
    assert read_job(b'{"status": "pending"}', "job-1").id == "job-1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["http://secret/x", "completed", "failed", "0.1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = "status polling_url unsigned_urls urls usage generation_id expires_at provider content".split()


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6))
def test_no_address_of_the_upstreams_goes_on(members: dict[str, Any]) -> None:
    """But in what is no place for one: a status, an id, a usage."""
    told = json.loads(shown(job(**members), "https://films.example"))
    assert set(told) <= {"id", "polling_url", "status", "generation_id", "error", "unsigned_urls", "usage"}
    assert told["polling_url"] == "https://films.example/api/v1/videos/job-1"
    assert all(url.startswith(f"{told['polling_url']}/content?index=") for url in told.get("unsigned_urls", []))


def test_what_sdks_choke_on_is_mended() -> None:
    found = job(status="failed", error={"message": "full"}, generation_id=None, usage={"cost": "0.10", "is_byok": None})
    told = json.loads(shown(found))
    assert (told["error"], told["usage"]) == ("full", {"cost": 0.1})
    assert "generation_id" not in told
    assert job(generation_id="gen-\0").generation_id == "gen-\ufffd", "no books keep a NUL"
    assert below(b"no", "https://films.example") == b"{}"


@pytest.mark.parametrize("odd", [rb'"\ud83d"', b'"\xff\xfe"', b"NaN", b'"\x01"'])
@pytest.mark.parametrize("name", ["error", "generation_id", "status", "usage", "unsigned_urls", "polling_url", "other"])
def test_odd_texts_lose_no_job(name: str, odd: bytes) -> None:
    body = b'{"id": "job-1", "%b": %b}' % (name.encode(), odd)
    seen = see_answer(body)
    assert seen.job_id == "job-1"
    assert json.loads(below(seen.repaired or b"", "http://films.example"))["id"] == "job-1"
    if name != "status":
        assert read_job(b'{"status": "failed", "%b": %b}' % (name.encode(), odd), "job-1").id == "job-1"


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([(b"host", b"films.example:8443")], "http://films.example:8443"),
        ([(b"host", b"[::1]:8080")], "http://[::1]:8080"),
        ([(b"host", b"inside"), (b"x-forwarded-host", b"films.example, inside")], "http://films.example"),
        ([(b"host", b"films.example"), (b"x-forwarded-proto", b"HTTPS,http")], "https://films.example"),
        ([(b"host", b"public.example")], "https://public.example/below"),
        ([(b"host", b'"><script>')], "https://public.example/below"),
        ([], "https://public.example/below"),
    ],
)
def test_the_address_that_a_caller_asked_at(headers: list[tuple[bytes, bytes]], address: str) -> None:
    assert OwnAddress("https://public.example/below/").told_by(headers) == address
    assert OwnAddress(None).told_by([]) == ""
