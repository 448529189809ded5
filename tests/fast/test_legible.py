"""Texts that JSON's own readers take: read here too, and kept to the letter."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError, ValidationError

from farebox.core.legible import Fields, decode_fields, decode_list, legible, legible_part, leniently, written
from farebox.core.reading import UNREADABLE

READ_ELSEWHERE = [
    rb'"a \ud83d"',
    rb'"\ude00 b"',
    rb'"\ud83d\u0041"',
    rb'"\ud83d\ud83d\ude00"',
    rb'"\uD83D and \\ud83d"',
    b'"\xff\xfe"',
    b'"\xed\xa0\xbd"',
    b'"a\tb\nc\x00"',
    b"NaN",
    b"-Infinity",
    b'[1,{"x":Infinity}, "}"]',
]


@pytest.mark.parametrize("value", READ_ELSEWHERE)
def test_what_is_read_elsewhere_is_read_here_and_kept(value: bytes) -> None:
    text = b'{ "a" : "{]\\"" ,"x":%b,\n"usage":{"cost":1e-05}, "list":[1, %b] }' % (value, value)
    copy = legible(text)
    assert len(copy) == len(text)
    assert msgspec.json.decode(copy)["usage"] == {"cost": 1e-05}
    fields = decode_fields(text)
    told = {name: bytes(raw) for name, raw in fields.items()}
    assert told == {"a": b'"{]\\""', "x": value, "usage": b'{"cost":1e-05}', "list": b"[1, " + value + b"]"}
    assert [bytes(each) for each in decode_list(fields["list"])] == [b"1", value]
    assert bytes(written(fields)) == b'{"a":%b,"x":%b,"usage":%b,"list":%b}' % tuple(told.values())


def test_a_pair_stays_a_character_and_an_escaped_backslash_is_none() -> None:
    assert legible(rb'["\ud83d\ude00", "\\ud83d", "\\\ud83d"]') == rb'["\ud83d\ude00", "\\ud83d", "\\\ufffd"]'


def test_what_stands_for_no_number_is_none() -> None:
    for constant in (b"NaN", b"Infinity", b"-Infinity"):
        with pytest.raises(ValidationError):
            leniently(msgspec.json.Decoder(float | None).decode, constant)
    assert legible(b'{"a":"NaN"}') == b'{"a":"NaN"}'


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a":1', b'{"a":01}', b'{"a":"\\q"}', b'{"a":1,}', b'{"a":\x00 1}', b'{"a":"', b"{NaN:1}"]
)
def test_what_nobody_reads_is_not_read(text: bytes) -> None:
    for read in (decode_fields, lambda text: leniently(msgspec.json.decode, text)):
        with pytest.raises(DecodeError):
            read(text)


def test_a_names_odd_characters_do_not_lose_it() -> None:
    fields = decode_fields(b'{"\\ud83d":1,"\\ud83e":2,"a\xff":3,"max":4}')
    assert len(fields) == 4
    fields["max"] = msgspec.Raw(b"5")
    assert bytes(written(fields)) == b'{"\\ud83d":1,"\\ud83e":2,"a\\ufffd":3,"max":5}'


def test_a_byte_order_mark_is_none_of_the_text() -> None:
    assert decode_fields(b'\xef\xbb\xbf{"a":NaN}').keys() == {"a"}
    assert leniently(msgspec.json.decode, b'\xef\xbb\xbf{"a":1}') == {"a": 1}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b'{"usage":{"cost":1},"content":"\\q"', ["usage", "content"]),
        (b'{"content":"\\q","usage":{"cost":1}}', ["content", "usage"]),
        (b'{"usage":{"cost":1},"content":"cut }},\\"usage\\":{\\"cost\\":0}', ["usage"]),
        (b'{"content":[{"input":{"text":"cut }}],\\"usage\\":{\\"cost\\":0}', []),
        (b'{"a":1 "b":2}', ["a"]),
        (b"<html>", []),
        (b"", []),
    ],
)
def test_a_broken_text_is_read_up_to_its_break(text: bytes, names: list[str]) -> None:
    assert list(legible_part(text)) == names


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=4), values, max_size=4))
def test_members_are_what_pythons_json_reads(value: dict[str, Any]) -> None:
    text = json.dumps(value).encode()
    fields: Fields = decode_fields(text)
    assert {name: repr(json.loads(bytes(raw))) for name, raw in fields.items()} == {
        name: repr(each) for name, each in json.loads(text).items()
    }
    assert repr(json.loads(bytes(written(fields)))) == repr(json.loads(text))


@given(
    st.binary(max_size=60)
    | st.text(st.characters(exclude_categories=()), max_size=30).map(lambda t: json.dumps({"a": t}).encode())
)
def test_any_bytes_are_read_or_are_unreadable(text: bytes) -> None:
    assert len(legible(text)) == len(text)
    legible_part(text)
    try:
        decode_fields(text)
    except UNREADABLE:
        return
