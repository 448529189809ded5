"""Price files: what is right is read to the last digit, what is wrong is named."""

import json
import random
import tomllib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.price_files import BadPrices, read_price_file
from farebox.core.tariffs import FREE, Borrowed, Declared, Entry, TokenPrices

GOOD = b"""
[[prices]]
upstream = "anthropic"
model = "claude-*"
from = 2026-01-31
per = "million"
prompt = "3"
cache_read = 0.30
cache_write = "3.75"
cache_write_1h = 6
answer = "15"
search = "0.01"

[[prices]]
upstream = "anthropic"
model = "claude-*"
from = 2026-01-31
above_prompt_tokens = 200_000
per = "million"
prompt = "6"
answer = "22.5"

[[prices]]
upstream = "openai"
model = "gpt-5"
terms = "priority"
from = "2026-01-31T12:00:00+02:00"
prompt = "0.00000125"
answer = "1e-5"

[[prices]]
upstream = "openai"
model = "gpt-5-mini"
openrouter = "openai/gpt-5-mini"

[[prices]]
upstream = "local"
model = "*"
free = true
"""

JANUARY_31_US = 1_769_817_600_000_000


def entry(*lines: str, **members: str) -> bytes:
    """An entry with these members in place of what is right."""
    right = {"upstream": '"u"', "model": '"m"', "prompt": '"0.001"', "answer": '"0.002"', **members}
    return "\n".join(["[[prices]]", *(f"{k} = {v}" for k, v in right.items() if v), *lines]).encode()


def mistakes(text: bytes) -> list[str]:
    with pytest.raises(BadPrices) as refused:
        read_price_file(text, "prices.toml")
    return str(refused.value).splitlines()


def read_or_said(text: bytes) -> tuple[Declared, ...] | str:
    """What a file says, or what is said of it."""
    try:
        return read_price_file(text, "prices.toml")
    except BadPrices as refused:
        return str(refused)


def test_a_good_file_is_read_to_the_last_digit() -> None:
    claude, longer, gpt, mini, local = read_price_file(GOOD, "prices.toml")
    assert claude == Entry(
        upstream="anthropic",
        model="claude-*",
        since_us=JANUARY_31_US,
        prices=TokenPrices(
            prompt=Decimal("0.000003"),
            cache_read=Decimal("0.0000003"),
            cache_write=Decimal("0.00000375"),
            cache_write_1h=Decimal("0.000006"),
            answer=Decimal("0.000015"),
            search=Decimal("0.01"),
        ),
    )
    assert isinstance(longer, Entry)
    assert longer.above_prompt_tokens == 200_000
    assert isinstance(gpt, Entry)
    assert (gpt.terms, gpt.since_us) == ("priority", JANUARY_31_US + 10 * 3600 * 1_000_000)
    assert gpt.prices == TokenPrices(prompt=Decimal("0.00000125"), answer=Decimal("0.00001"))
    assert mini == Borrowed(upstream="openai", model="gpt-5-mini", listed="openai/gpt-5-mini")
    assert local == Entry(upstream="local", model="*", prices=FREE, is_free=True)
    assert read_price_file(b"", "prices.toml") == ()


@given(st.integers(0, 10**16), st.integers(0, 18), st.booleans(), st.booleans())
def test_numbers_are_as_exact_as_texts(digits: int, places: int, is_text: bool, is_per_million: bool) -> None:
    written = f"{Decimal(digits).scaleb(-places):f}"
    due = Decimal(digits).scaleb(-places - (6 if is_per_million else 0))
    given = f'"{written}"' if is_text else written
    text = entry('per = "million"' if is_per_million else "", prompt=given)
    if due <= Decimal("0.01") and len(f"{due:f}".rstrip("0").partition(".")[2]) <= 20:
        (read,) = read_price_file(text, "prices.toml")
        assert isinstance(read, Entry)
        assert read.prices.prompt == due
    else:
        assert len(mistakes(text)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (entry(prompt='"-0.001"'), "(u, m): prompt: -0.001 is below zero; a price is 0 or more"),
        (entry(prompt=""), "(u, m): prompt: missing, and nothing is free by omission: give a price"),
        (entry(answer=""), "(u, m): answer: missing"),
        (entry(prompt='"0.' + "1" * 30 + '"'), "prompt: 0." + "1" * 30 + " has more than 20 digits"),
        (entry(prompt="0." + "0" * 20 + "1"), "has more than 20 digits"),
        (entry(prompt='"' + "1" * 50 + '"'), "has 50 characters"),
        (
            entry(prompt='"3"'),
            'prompt: 3 comes to more than $0.01 for one; is it for a million? Then write per = "million"',
        ),
        (entry('per = "million"', prompt='"30000"'), "prompt: 30000 comes to more than $0.01 for one"),
        (entry(request='"101"'), "request: 101 comes to more than $100 for one"),
        (entry(prompt='"free"'), "prompt: 'free' is no number; write a price in USD like"),
        (entry(prompt='"$0.001"'), "is no number"),
        (entry(prompt="nan"), "prompt: 'NaN' is no amount"),
        (entry(prompt="inf"), "is no amount"),
        (entry(prompt="true"), "prompt: write a price in USD like \"0.000003\", not 'True'"),
        (entry(prompt="[1]"), "write a price in USD"),
        (entry(prompt='"1e-999999"'), "is no price that anybody asks"),
        (entry(prompt='"1e999999"'), "is no price that anybody asks"),
        (entry('per = "thousand"'), 'per: write "token" (as where it is absent) or "million", not \'thousand\''),
        (entry("per = {}"), "per: write"),
        (entry(upstream=""), '[[prices]] 1 (m): upstream: missing; write upstream = "anthropic"'),
        (entry(model='""'), 'model: write a name like "claude-*"'),
        (entry(model="3"), "model: write a name like"),
        (entry('cached = "0"'), "cached: there is no such member"),
        (entry('answr = "0"'), "answr: there is no such member; did you mean `answer`?"),
        (entry("free = true"), "free: it costs nothing, and has `prompt`; keep one of them"),
        (entry('free = "yes"'), "free: write `free = true`"),
        (entry('openrouter = "a/b"'), "openrouter: its prices are OpenRouter's, and it has `prompt`; keep one of them"),
        (entry('openrouter = ""', prompt="", answer=""), "openrouter: write a name like"),
        (entry('openrouter = "a/b"', 'terms = "flex"', prompt="", answer=""), "openrouter: its list says itself"),
        (entry('from = "soon"'), "from: 'soon' is no date; write a day like 2026-01-31"),
        (entry('from = "2026-02-30"'), "from: '2026-02-30' is no date"),
        (entry("from = 2026-01-31T00:00:00"), "does not say in which time zone"),
        (entry('from = "2026-01-31T10:00:00"'), "does not say in which time zone"),
        (entry("from = 10:00:00"), "is no date"),
        (entry("from = 20260131"), "is no date"),
        (entry("from = 1969-12-31"), "is before 1970"),
        (entry("above_prompt_tokens = -1"), "above_prompt_tokens: write a number of tokens like 200000"),
        (entry("above_prompt_tokens = 2.5"), "above_prompt_tokens: write a number of tokens"),
        (entry("above_prompt_tokens = 5"), "no entry from the same moment on says what shorter prompts cost"),
        (
            entry() + b"\n" + entry(),
            "prices.toml: [[prices]] 2 (u, m): from: another entry has prices of the same from the same",
        ),
        (entry() + b"\n" + entry('openrouter = "a/b"', prompt="", answer=""), "keep one of them"),
        (b"from = 2026-02-30", "it is no TOML"),
        (b"[prices]", "prices: write each entry under a heading [[prices]], with two brackets"),
        (b"[[price]]", "`price`: not known here"),
        (b"\xff", "it is not UTF-8"),
        (b"a = " + b"[" * 100_000, "it is no TOML"),
        (b"a = " + b"1" * 10_000, "it is no TOML"),
        (b"#" * (4 * 2**20 + 1), "it is longer than"),
    ],
)
def test_each_mistake_is_named_with_what_would_be_right(text: bytes, said: str) -> None:
    (line,) = mistakes(text)
    assert line.startswith("prices.toml: ")
    assert said in line


def test_all_mistakes_are_named_at_once() -> None:
    said = mistakes(entry(prompt='"-1"', model="3") + b"\n" + entry() + b"\n" + entry(upstream='"v"', answer='"x"'))
    assert [line.split(" (")[0] for line in said] == ["prices.toml: [[prices]] 1"] * 2 + ["prices.toml: [[prices]] 3"]


@pytest.mark.parametrize("price", ["0", "0.000", "0e5", '"0E-999999999"', '"-0"', '"+0.0"'])
def test_zero_is_said_and_is_zero(price: str) -> None:
    (read,) = read_price_file(entry(prompt=price), "prices.toml")
    assert isinstance(read, Entry)
    assert str(read.prices.prompt) == "0"


def test_mutated_files_are_read_or_refused_in_words() -> None:
    chance = random.Random(17)
    read = 0
    for _ in range(1_500):
        text = bytearray(GOOD)
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(text))
            text[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b"9", b"-", b'"', b"\n", b"[", b"e", b"0", b"\xc3"]
            )
        found = read_or_said(bytes(text))
        if isinstance(found, str):
            assert all(line.startswith("prices.toml: ") for line in found.splitlines())
            continue
        read += 1
        tables = tomllib.loads(text.decode(), parse_float=Decimal)["prices"]
        assert len(found) == len(tables)
        for entry_read, table in zip(found, tables, strict=True):
            if isinstance(entry_read, Entry) and not entry_read.is_free:
                scale = Decimal(1_000_000) if table.get("per") == "million" else Decimal(1)
                assert entry_read.prices.prompt == Decimal(table["prompt"]) / scale, json.dumps(str(table))
    assert read > 50
