"""What is not counted in tokens: how rerank, images, speech and transcriptions are read, and how their answers are
mended."""

import base64
import io
import json
import wave
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.batch.entries import read_entry
from farebox.core.errors import Refusal
from farebox.core.formats import PASS, Asked, Format, Progress, Seen, Units, images, rerank, speech, transcriptions
from farebox.core.formats.audio import BYTES_PER_SECOND_MIN, UNKNOWN_SECONDS, seconds_ceil
from farebox.core.formats.forms import parts_of
from farebox.core.formats.table import FORMATS
from farebox.core.sse import event_data
from farebox.core.usage import Cost, Unknown


def read(wire: Format, **body: Any) -> Asked:
    return wire.read(json.dumps({"model": "a/b", **body}).encode())


def wav(seconds: float, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(bytes(int(seconds * rate) * channels * width))
    return written.getvalue()


def packed(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


# Orders


@pytest.mark.parametrize(
    ("wire", "body", "units"),
    [
        (rerank, {"query": "q", "documents": ["a"]}, Units(search_units=1)),
        (rerank, {"query": "q", "documents": ["a"] * 101}, Units(search_units=2)),
        (rerank, {"query": "q" * 400, "documents": ["a" * 200] * 60}, Units(search_units=2)),
        (rerank, {"query": "q", "documents": [{"text": "a" * 60_000}, {"image": "data:,x"}]}, Units(search_units=2)),
        (images, {"prompt": "p"}, Units(pictures=1)),
        (images, {"prompt": "p", "n": 3.0}, Units(pictures=3)),
        (speech, {"input": "hé"}, Units(characters=3)),
        (speech, {"input": "hey", "speed": 0.5}, Units(characters=6)),
        (speech, {"input": "hey", "speed": 2}, Units(characters=3)),
        (speech, {"input": [{"text": "a", "voice": "x"}, {"text": "bc"}]}, Units(characters=3)),
    ],
)
def test_what_an_order_comes_to(wire: Format, body: dict[str, Any], units: Units) -> None:
    asked = read(wire, **body)
    assert (asked.units, asked.answers) == (units, 0)


def test_pictures_are_bounded_apart_from_the_bytes() -> None:
    reference = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    asked = read(images, prompt="p", input_references=[reference])
    assert (asked.images, asked.prompt_bytes < 100) == (1, True)
    asked = read(rerank, query="q", documents=[{"image": "data:," + "A" * 9000}])
    assert (asked.images, asked.prompt_bytes < 100) == (1, True)
    sample = {"type": "input_audio", "input_audio": {"data": "A" * 9000}}
    asked = read(speech, input="hey", input_references=[sample])
    assert asked.units == Units(characters=3, audio_seconds=9)
    assert asked.prompt_bytes < 200


def test_a_query_is_read_with_each_document() -> None:
    asked = read(rerank, query="q" * 1000, documents=["a", "b", "c"])
    assert (asked.prompts, asked.prompt_bytes) == (3, 3003)


@pytest.mark.parametrize(
    ("wire", "body", "message"),
    [
        (rerank, {"query": "", "documents": ["a"]}, "query: "),
        (rerank, {"query": "q", "documents": []}, "documents: "),
        (rerank, {"query": "q", "documents": [1]}, "documents"),
        (rerank, {"query": "q", "documents": ["a"], "top_n": 0}, "top_n: "),
        (images, {}, "prompt: "),
        (images, {"prompt": "p", "n": 0}, "n: "),
        (images, {"prompt": "p", "n": 1.5}, "n: 1.5 is not a whole number"),
        (speech, {}, "input: "),
        (speech, {"input": []}, "input: "),
        (speech, {"input": "x", "speed": 0}, "speed: "),
        (transcriptions, {}, "input_audio: "),
        (transcriptions, {"input_audio": {"data": "", "format": "mp3"}}, "input_audio: "),
        (transcriptions, {"input_audio": {"data": "AAAA"}}, "input_audio.format: "),
        (transcriptions, {"input_audio": {"data": "AAAA", "format": "mp3"}, "stream": True}, "stream: "),
        (transcriptions, {"input_audio": {"data": "AA", "format": "mp3"}, "response_format": "srt"}, "response_format"),
        *((wire, {"model": None}, "model: ") for wire in (rerank, images, speech, transcriptions)),
    ],
)
def test_what_is_wrong_is_named(wire: Format, body: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        read(wire, **body)
    assert refused.value.status == 400


def test_speech_is_for_no_batch_and_openais_names_are_taken() -> None:
    entries = {
        "/v1/audio/speech": {"model": "a/b", "input": "x"},
        "/v1/images/generations": {"model": "a/b", "prompt": "x"},
    }
    spoken, painted = (
        read_entry(1, json.dumps({"url": url, "body": body}).encode(), FORMATS) for url, body in entries.items()
    )
    assert spoken.refusal is not None
    assert "no line of a batch can hold it" in spoken.refusal.message
    assert (painted.refusal, painted.path) == (None, "/images")


# How long audio is


@given(
    st.floats(0.1, 2), st.sampled_from((8_000, 16_000, 48_000)), st.sampled_from((1, 2)), st.sampled_from((1, 2, 3, 4))
)
def test_a_wav_is_as_long_as_its_head_says(seconds: float, rate: int, channels: int, width: int) -> None:
    audio = wav(seconds, rate, channels, width)
    length = int(seconds * rate) / rate
    assert length <= seconds_ceil(packed(audio), "wav") <= length + 1.02


def test_what_audio_weighs_bounds_it_where_its_head_does_not() -> None:
    audio = wav(10)
    longest = -(-len(audio) // BYTES_PER_SECOND_MIN)
    for kind in ("mp3", "ogg", "", "flac"):
        assert seconds_ceil(packed(audio), kind) == longest
    # Some of a WAV's head is as a cheat would write it; and another kind is no WAV.
    for at, lie in ((20, b"\x11"), (22, b"\x00\x00"), (24, b"\xff\xff\xff\xff"), (34, b"\x01\x00"), (8, b"AVI ")):
        assert seconds_ceil(packed(audio[:at] + lie + audio[at + len(lie) :]), "wav") == longest
    assert seconds_ceil("not base64!", "wav") == 1
    assert seconds_ceil(packed(bytes(64_000)), "pcm") == 2


def test_other_chunks_may_stand_before_a_wavs_head() -> None:
    audio = wav(10)
    assert seconds_ceil(packed(audio[:12] + b"JUNK\x03\x00\x00\x00abc\x00" + audio[12:]), "wav") == 11


def test_audio_at_a_url_is_taken_for_an_hours() -> None:
    asked = read(transcriptions, input_audio={"url": "https://example.com/a.mp3"})
    assert asked.units == Units(audio_seconds=UNKNOWN_SECONDS)


# Forms


def form(*parts: tuple[str, bytes], boundary: bytes = b"b") -> bytes:
    """A form: of each part its headers behind `form-data`, and its data."""
    written = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary, head.encode(), data)
        for head, data in parts
    ]
    return b"".join([*written, b"--%b--\r\n" % boundary])


TYPE = b"multipart/form-data; boundary=b"
FILE = ('name="file"; filename="a.mp3"', b"\x00\xff\r\n--x\r\n")
MODEL = ('name="model"', b"a/b")


def order(*parts: tuple[str, bytes]) -> Any:
    return json.loads(transcriptions.from_form(form(*parts), TYPE))


def test_a_form_becomes_the_json_that_means_the_same() -> None:
    told = order(
        FILE,
        MODEL,
        ('name="language"', b"en"),
        ('name="temperature"', b"0.25"),
        ('name="timestamp_granularities[]"', b"word"),
        ('name="timestamp_granularities[]"', b"segment"),
        ('name="provider"', b'{"zdr": true}'),
        ('name="diarize"', b"true"),
        ('name=""', b"nobody's"),
        ('name="odd"', b"1"),
        ('name="odd"', b"2"),
    )
    assert told == {
        "model": "a/b",
        "language": "en",
        "temperature": 0.25,
        "timestamp_granularities": ["word", "segment"],
        "provider": {"zdr": True},
        "diarize": True,
        "odd": "2",
        "input_audio": {"data": packed(FILE[1]), "format": "mp3"},
    }


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ('name="file"; filename="A.MP3"', "mp3"),
        ('name="file"; filename="a.b.m4a"', "m4a"),
        ('name="file"; filename="a.oga"', "ogg"),
        ('name="file"; filename="a"\r\nContent-Type: audio/x-wav', "wav"),
        ('name="file"\r\nContent-Type: audio/mpeg; x=1', "mp3"),
    ],
)
def test_what_a_file_is_stands_in_its_name_or_its_type(head: str, kind: str) -> None:
    assert order((head, b"a"), MODEL)["input_audio"]["format"] == kind


def test_two_tries_are_the_same_bytes_whatever_their_boundaries() -> None:
    one = transcriptions.from_form(form(FILE, MODEL), TYPE)
    assert transcriptions.from_form(form(FILE, MODEL, boundary=b"other"), TYPE.replace(b"=b", b'="other"')) == one


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (form(MODEL), TYPE, "file: .* there is none"),
        (form(FILE, FILE, MODEL), TYPE, "file: .* there are 2"),
        (form(FILE, MODEL, ('name="source_url"', b"https://x")), TYPE, "file: "),
        (form(FILE, MODEL, MODEL), TYPE, "model: it stands twice"),
        (form(('name="file"; filename="a.mp3"', b""), MODEL), TYPE, "file: it is empty"),
        (form(('name="file"', b"a"), MODEL), TYPE, "file: say what it is"),
        (form(FILE, ('name="model"', b"\xff")), TYPE, "model: it is not UTF-8"),
        (form(FILE, ('name="temperature"', b"warm")), TYPE, "temperature: 'warm'"),
        (form(FILE, ('name="provider"', b"{")), TYPE, "provider: "),
        (form(*[FILE] * 70), TYPE, "more than 64 parts"),
        (form(FILE, MODEL)[:-6], TYPE, "cut off"),
        (b"", TYPE, "cut off"),
        (b"nothing of the kind", TYPE, "cannot be read"),
        (form(FILE, MODEL), b"multipart/form-data", "no boundary"),
    ],
)
def test_a_form_that_is_none_is_told_what_is_wrong(body: bytes, content_type: bytes, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        transcriptions.from_form(body, content_type)
    assert refused.value.status == 400


@given(st.lists(st.tuples(st.sampled_from(("a", "file")), st.binary(max_size=50)), max_size=4))
def test_a_forms_parts_are_its_own_bytes(parts: list[tuple[str, bytes]]) -> None:
    body = form(*((f'name="{name}"; filename="f"', data) for name, data in parts), boundary=b"never-in-it")
    if parts:
        found = parts_of(body, b"multipart/form-data; boundary=never-in-it")
        assert [(part.name, part.data) for part in found] == parts


# Answers

COMPLETED: dict[str, Any] = {"type": "image_generation.completed", "b64_json": "aGk=", "created": 1}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.04}


def see(event: object) -> Any:
    return images.see_event(b"data: " + json.dumps(event).encode() + b"\n\n", Progress("gen-1", "a/b", 1))


def test_only_a_whole_picture_tells_its_cost() -> None:
    assert see({"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0}) is PASS
    assert see({"type": "image_generation.text_chunk", "text": "<svg>", "phase": "content"}) is PASS
    assert see(COMPLETED) == Seen(units=1)
    seen = see({**COMPLETED, "usage": USAGE})
    assert (seen.cost, seen.prompt_tokens, seen.answer_tokens) == (Cost(Decimal("0.04")), 1, 2)
    assert seen.repaired is None
    assert isinstance(see({**COMPLETED, "usage": {**USAGE, "cost": None}}).cost, Unknown)


@pytest.mark.parametrize(
    ("event", "mended"),
    [
        ({**COMPLETED, "usage": None}, COMPLETED),
        ({**COMPLETED, "media_type": None}, COMPLETED),
        ({**COMPLETED, "created": 1.5}, COMPLETED),
        ({**COMPLETED, "usage": {**USAGE, "cost": "0.04", "is_byok": None}}, {**COMPLETED, "usage": USAGE}),
        (
            {"error": {"code": 402, "message": "no money"}, "user_id": "u"},
            {"type": "error", "error": {"code": "402", "message": "no money", "type": None}},
        ),
        (
            {"type": "error", "error": {"code": 500}},
            {"type": "error", "error": {"code": "500", "message": "the upstream reported an error", "type": None}},
        ),
    ],
)
def test_an_event_that_an_sdk_would_choke_on_is_mended(event: object, mended: object) -> None:
    repaired = see(event).repaired
    assert repaired is not None
    assert json.loads(event_data(repaired) or b"") == mended


def test_an_error_of_ours_is_one_of_the_formats() -> None:
    event = images.error_event(Refusal(424, "provider_unavailable", "It broke"), Progress("", "", 1))
    assert see(json.loads(event_data(event) or b"")) is PASS


def test_a_whole_answer_is_a_stream_where_that_was_asked_for() -> None:
    answer = {"created": 1, "data": [{"b64_json": "YQ=="}, {"b64_json": "Yg=="}], "usage": USAGE}
    *events, done = images.as_stream(json.dumps(answer).encode()).split(b"\n\n")[:-1]
    assert done == b"data: [DONE]"
    told = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert told == [{**COMPLETED, "b64_json": "YQ=="}, {**COMPLETED, "b64_json": "Yg==", "usage": USAGE}]


@pytest.mark.parametrize(
    ("wire", "answer", "mended"),
    [
        (
            rerank,
            {"results": [{"index": 0, "relevance_score": 1}], "model": "a", "usage": {"cost": None}, "id": None},
            {"results": [{"index": 0, "relevance_score": 1, "document": {}}], "model": "a", "usage": {}},
        ),
        (images, {"created": None, "data": [{"b64_json": "YQ==", "media_type": None}]}, None),
        (transcriptions, {"text": "a", "words": None, "usage": {"cost": "0.1", "seconds": None}}, None),
    ],
)
def test_an_answer_that_an_sdk_would_choke_on_is_mended(wire: Format, answer: Any, mended: Any) -> None:
    repaired = wire.see_answer(json.dumps(answer).encode()).repaired
    assert repaired is not None
    if mended is not None:
        assert json.loads(repaired) == mended
    assert b"null" not in repaired


def test_json_in_the_place_of_audio_is_an_error() -> None:
    failed = speech.see_answer(b'{"error": {"code": 502, "message": "no voice"}}').failure
    assert failed is not None
    assert (failed.status, "no voice" in failed.message) == (424, True)
    for body in (b"{}", b"\x00", b""):
        assert speech.see_answer(body).failure is not None
