"""Embeddings: reading requests, reading and repairing answers."""

import json
from decimal import Decimal
from io import BytesIO
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from farebox.core.errors import Refusal
from farebox.core.formats import embeddings
from farebox.core.formats.widening import widened_bytes
from farebox.core.intake import read_order
from farebox.core.plans import BUILT_IN
from farebox.core.pricing import ceiling
from farebox.core.usage import Cost, Unknown
from farebox.upstream.openrouter_pages import read_price_list
from tests.schemas import assert_accepted

ANSWER: dict[str, Any] = {
    "object": "list",
    "model": "a/b",
    "data": [{"object": "embedding", "embedding": [0.1, 1e-3], "index": 0}],
    "usage": {"prompt_tokens": 2, "total_tokens": 2, "cost": 4e-8},
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}


def request(**members: Any) -> bytes:
    return json.dumps({"model": "a/b", "input": "hi", **members}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b'{"model":"a/b"}', "input: give a text"),
        (request(input=[]), "input: it is empty"),
        (request(input=""), "input: it is empty"),
        (request(input=["a", ""]), "input: it is empty"),
        (request(input=[[]]), "input: it is empty"),
        (request(input=1), "input"),
        (request(input=[1.5]), "input"),
        (request(model=None), "model: name a model"),
    ],
)
def test_what_is_no_request_is_refused_and_the_field_named(body: bytes, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        embeddings.read(body)
    assert refused.value.status == 400
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("given", "prompts"), [("hi", 1), (["hi", "you"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([{"content": []}], 1)]
)
def test_every_kind_of_input(given: Any, prompts: int) -> None:
    read = embeddings.read(request(input=given))
    assert (read.prompts, read.answers, read.streamed) == (prompts, 0, False)


def test_pictures_and_what_is_open() -> None:
    body = request(input=[{"content": [PICTURE, {"type": "text", "text": "what?"}]}])
    read = embeddings.read(body)
    assert (read.images, read.prompt_is_open) == (1, False)
    assert read.prompt_bytes < len(body) - 5000
    assert embeddings.read(request(input=[{"content": [{"type": "input_file", "file": {}}]}])).prompt_is_open


def test_a_plans_answer_cap_does_not_touch_the_body() -> None:
    body = request()
    assert read_order(body, embeddings, BUILT_IN["free"]).body is body


def test_the_ceiling_bounds_every_prompt_and_no_answer() -> None:
    listed = {"id": "a/b", "pricing": {"prompt": "0.001", "completion": "9"}, "context_length": 10}
    prices = read_price_list(json.dumps({"data": [listed]}).encode())
    many = embeddings.read(request(input=["x" * 100] * 7))
    most = ceiling(many, None, prices)
    assert most.cost(most.tokens) == Decimal("0.070")


# Tokens: what a tokenizer makes of a text, and what is held for it


@pytest.fixture(scope="module", params=["nmt_nfkc", "nfkc", "identity"])
def tokenizer(request: pytest.FixtureRequest) -> SentencePieceProcessor:
    """The kind that T5 and XLM-R have, as small as one can be: whatever it has not learnt costs it most tokens."""
    trained = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a byte is at most a token", "the quick brown fox"] * 50),
        model_writer=trained,
        vocab_size=330,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name=request.param,
        minloglevel=2,
    )
    return SentencePieceProcessor(model_proto=trained.getvalue())


SPECIAL_TOKENS = 2
"""Those around each text."""

PARTS = [
    chr(0xFDFA),
    chr(0x3316),
    chr(0xBD),
    chr(0x0E33),
    chr(0x1D160),
    chr(0xFB2C),
    "a",
    " ",
    chr(0x65E5),
    chr(0xFF0C),
]


@given(st.lists(st.text() | st.text(PARTS, min_size=1), min_size=1, max_size=5), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_becomes_more_tokens_than_are_held_for(
    tokenizer: SentencePieceProcessor, texts: list[str], as_escapes: bool
) -> None:
    given_texts = [text or "x" for text in texts]
    body = json.dumps({"model": "a/b", "input": given_texts}, ensure_ascii=as_escapes).encode()
    tokens = sum(len(tokenizer.encode(text)) + SPECIAL_TOKENS for text in given_texts)
    assert tokens <= embeddings.read(body).prompt_bytes


def test_a_character_that_becomes_eighteen_is_held_for_as_what_it_becomes(tokenizer: SentencePieceProcessor) -> None:
    text = chr(0xFDFA) * 1000
    tokens = len(tokenizer.encode(text))
    for given_input in (text, [text], [{"content": [{"type": "text", "text": text}]}]):
        body = json.dumps({"model": "a/b", "input": given_input}, ensure_ascii=False).encode()
        read = embeddings.read(body)
        assert tokens <= read.prompt_bytes == len(body) + 30_000


def test_every_character_that_nfkc_makes_longer_is_known() -> None:
    for code in range(0x110000):
        more = len(normalize("NFKC", chr(code)).encode(errors="surrogatepass"))
        more -= len(chr(code).encode(errors="surrogatepass"))
        assert widened_bytes(chr(code)) == max(0, more), hex(code)


def test_an_answer_is_read_and_left_alone() -> None:
    for packed in ([0.1], "AACAPw=="):
        answer = {**ANSWER, "id": "gen-1", "data": [{"object": "embedding", "embedding": packed, "index": 0}]}
        seen = embeddings.see_answer(json.dumps(answer).encode())
        assert seen.repaired is None
        assert (seen.generation_id, seen.cost, seen.prompt_tokens) == ("gen-1", Cost(Decimal("4E-8")), 2)


def test_without_a_usage_the_cost_is_not_known() -> None:
    bare = {name: value for name, value in ANSWER.items() if name != "usage"}
    seen = embeddings.see_answer(json.dumps(bare).encode())
    assert (seen.cost, seen.repaired) == (None, None)


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": 1, "total_tokens": 1, "cost": None}, {"cost": 4e-8, "is_byok": None}]
)
def test_an_answer_that_breaks_the_sdk_is_mended(usage: Any) -> None:
    seen = embeddings.see_answer(json.dumps({**ANSWER, "usage": usage}).encode())
    assert seen.repaired is not None
    assert_accepted("CreateEmbeddingsResponse", json.loads(seen.repaired))
    if usage is None:
        assert seen.cost is None
    elif usage["cost"] is None:
        assert isinstance(seen.cost, Unknown)
    else:
        assert seen.cost == Cost(Decimal("4E-8"))


def test_a_cost_written_as_text_becomes_its_number() -> None:
    usage = {**ANSWER["usage"], "cost": "4.0E-8"}
    seen = embeddings.see_answer(json.dumps({**ANSWER, "usage": usage}).encode())
    assert seen.cost == Cost(Decimal("4E-8"))
    assert seen.repaired is not None
    assert b'"cost":4.0E-8' in seen.repaired
    assert_accepted("CreateEmbeddingsResponse", json.loads(seen.repaired))


def test_a_vector_without_its_kind_gets_it() -> None:
    seen = embeddings.see_answer(json.dumps({**ANSWER, "data": [{"embedding": [0.1]}]}).encode())
    assert seen.repaired is not None
    assert json.loads(seen.repaired)["data"][0] == {"embedding": [0.1], "object": "embedding", "index": 0}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error":{"message":"boom"}}', b"{}"])
def test_what_is_no_answer_fails(body: bytes) -> None:
    failure = embeddings.see_answer(body).failure
    assert failure is not None
    assert failure.status == 424
