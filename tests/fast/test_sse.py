"""Server-sent events, cut at any place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.errors import Refusal
from farebox.core.sse import EVENT_BYTES_MAX, EventSplitter, data_event, ended, event_data, named_event

ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.sampled_from(
    [b"data: {}", b"data:x", b": comment", b"event: ping", b"id: 1", b"data: \xc3\xa9", b"retry: 3"]
)
events = st.tuples(st.lists(lines, min_size=1, max_size=4), ends).map(lambda e: e[1].join(e[0]) + e[1] + e[1])
streams = st.lists(events, max_size=6).map(b"".join)


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


def split(parts: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    found = [event for part in parts for event in splitter.feed(part)]
    return found, splitter.rest()


@given(streams, st.lists(st.integers(min_value=0), max_size=12))
def test_no_byte_is_lost_or_changed_however_a_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    found, rest = split(pieces(stream, cuts))
    assert b"".join(found) + rest == stream


@given(streams, st.lists(st.integers(min_value=0), max_size=12))
def test_the_same_data_is_read_however_a_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    whole, whole_rest = split([stream])
    found, rest = split(pieces(stream, cuts))
    assert rest.strip() == whole_rest.strip() == b""
    data = [event_data(event) for event in found]
    assert [d for d in data if d is not None] == [d for event in whole if (d := event_data(event)) is not None]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_goes_on_with_its_last_byte_and_not_before(end: bytes) -> None:
    splitter = EventSplitter()
    event = b"data: 1" + end + end
    found = [splitter.feed(event[at : at + 1]) for at in range(len(event))]
    # A CRLF's empty line is there with its CR: the LF leads what follows.
    last = len(event) - (2 if end == b"\r\n" else 1)
    assert [at for at, events_found in enumerate(found) if events_found] == [last]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: 1\n\n", b"1"),
        (b"data:1\n\n", b"1"),
        (b"data:  1\n\n", b" 1"),
        (b"data: 1\r\ndata: 2\r\n\r\n", b"1\n2"),
        (b"data\n\n", b""),
        (b": c\ndata: 1\nevent: x\n\n", b"1"),
        (b"\ndata: 1\n\n", b"1"),
        (b": comment\n\n", None),
        (b"database: 1\n\n", None),
        (b"\n", None),
    ],
)
def test_an_events_data(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data


@pytest.mark.parametrize("rest", [b"data: 1", b"data: 1\n", b"data: 1\r\n", b"data: 1\r"])
def test_a_missing_empty_line_is_supplied(rest: bytes) -> None:
    found, left = split([ended(rest)])
    assert len(found) == 1
    assert not left.strip()


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    splitter = EventSplitter()
    splitter.feed(b"x" * EVENT_BYTES_MAX)
    with pytest.raises(Refusal, match="without end"):
        splitter.feed(b"x")


def test_data_of_several_lines_stays_the_same_data() -> None:
    for event in (data_event(b'{"a":\n1}'), named_event(b"n", b'\n{"a":1}'), data_event(b"x")):
        assert EventSplitter().feed(event) == [event]
    assert event_data(data_event(b'{"a":\n1}')) == b'{"a":\n1}'
    assert event_data(named_event(b"n", b'\n{"a":1}')) == b'\n{"a":1}'
