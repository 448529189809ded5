"""What is kept of an order as a preset, and what an order gets of one."""

import json
from typing import Any

import pytest

from farebox.core.errors import PresetNamed, Refusal
from farebox.core.formats import chat, embeddings, messages, responses
from farebox.core.presets import (
    CHAT,
    MESSAGES,
    PRESET_CHARACTERS_MAX,
    RESPONSES,
    Named,
    PresetVersion,
    named_in,
    preset_of,
    with_preset,
)

HELLO: Any = [{"role": "user", "content": "Hello"}]


def saved(path: str, body: Any) -> tuple[str | None, Any]:
    system_prompt, config = preset_of(path, json.dumps(body).encode())
    return system_prompt, json.loads(config)


def preset(config: Any, system_prompt: str | None = None) -> PresetVersion:
    return PresetVersion(1, "mine", 1, 0, 0, system_prompt, json.dumps(config))


def ordered(path: str, body: Any, config: Any, system_prompt: str | None = None, model: str | None = None) -> Any:
    of = preset(config, system_prompt)
    return json.loads(with_preset(path, json.dumps(body).encode(), Named("mine", model), of))


@pytest.mark.parametrize(
    ("path", "body", "kept"),
    [
        (
            CHAT,
            {
                "model": "a/b",
                "temperature": 0.7,
                "stream": True,
                "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
                "max_completion_tokens": 9,
                "seed": None,
                "stop": "x",
            },
            ("Be brief.", {"model": "a/b", "temperature": 0.7, "max_tokens": 9, "stop": "x"}),
        ),
        (
            MESSAGES,
            {
                "model": "a/b",
                "max_tokens": 9,
                "messages": HELLO,
                "system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
                "stop_sequences": ["x"],
                "thinking": {"type": "adaptive"},
            },
            ("Be\n\nbrief.", {"model": "a/b", "max_tokens": 9, "stop": ["x"]}),
        ),
        (
            RESPONSES,
            {"models": ["a/b", "a/c"], "input": "Hello", "instructions": "Be brief.", "max_output_tokens": 9},
            ("Be brief.", {"models": ["a/b", "a/c"], "max_tokens": 9}),
        ),
        (CHAT, {"messages": HELLO}, (None, {})),
        (RESPONSES, {"instructions": "a\0b"}, ("ab", {})),
    ],
)
def test_of_an_order_its_models_settings_and_system_prompt_are_kept(path: str, body: Any, kept: Any) -> None:
    assert saved(path, body) == kept


def test_numbers_are_kept_to_the_letter() -> None:
    assert preset_of(CHAT, b'{"temperature": 1.50}') == (None, '{"temperature":1.50}')


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b"no", 400),
        (b'{"model": "@preset/other"}', 400),
        (b'{"model": "a/b", "preset": "other"}', 400),
        (b'{"messages": [{"role": "system", "content": "%b"}]}' % (b"x" * PRESET_CHARACTERS_MAX), 413),
    ],
)
def test_what_is_no_preset_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as refused:
        preset_of(CHAT, body)
    assert refused.value.status == status


def test_an_order_names_one_in_its_model_or_beside_it() -> None:
    assert named_in(b'{"model": "@preset/mine"}') == Named("mine")
    assert named_in(b'{"model": "a/b@preset/mine"}') == Named("mine", "a/b")
    assert named_in(b'{"preset": "mine"}') == Named("mine")
    assert named_in(b'{"preset": "mine", "model": "a/b"}') == Named("mine", "a/b")
    assert named_in(b'{"models": ["@preset/mine"]}') is None
    with pytest.raises(Refusal, match="name one of them"):
        named_in(b'{"preset": "mine", "model": "@preset/other"}')


@pytest.mark.parametrize(("wire", "said"), [(chat, "messages"), (messages, "messages"), (responses, "input")])
def test_every_format_tells_that_a_preset_is_named(wire: Any, said: str) -> None:
    for named in ({"model": "@preset/a"}, {"model": "a/b@preset/a"}, {"models": ["@preset/a"]}, {"preset": "a"}):
        with pytest.raises(PresetNamed, match="names a preset"):
            wire.read(json.dumps({**named, said: HELLO}).encode())
    assert wire.read(json.dumps({"model": "a/b", "preset": None, said: HELLO}).encode()).models == ("a/b",)
    with pytest.raises(PresetNamed):
        embeddings.read(b'{"model": "@preset/a", "input": "Hello"}')


def test_an_order_gets_what_it_does_not_say_itself() -> None:
    config = {"model": "a/b", "temperature": 0.7, "max_tokens": 9, "seed": 1, "reasoning": {"effort": "low"}}
    order = {"model": "@preset/mine", "preset": None, "temperature": 0.1, "messages": HELLO}
    assert ordered(CHAT, order, config) == {**config, "temperature": 0.1, "messages": HELLO}
    assert ordered(MESSAGES, order, config) == {
        "model": "a/b",
        "temperature": 0.1,
        "max_tokens": 9,
        "messages": HELLO,
    }
    asked = {"preset": "mine", "input": "Hello", "max_output_tokens": 5}
    told = {"model": "a/b", "temperature": 0.7, "reasoning": {"effort": "low"}, "input": "Hello"}
    assert ordered(RESPONSES, asked, config) == {**told, "max_output_tokens": 5}
    capped = ordered(CHAT, {"messages": HELLO, "max_completion_tokens": 5}, config)
    assert (capped["max_completion_tokens"], "max_tokens" in capped) == (5, False)


def test_its_own_models_go_before_those_of_the_preset() -> None:
    config = {"model": "a/b", "models": ["a/c", "a/d"]}
    assert ordered(CHAT, {"messages": HELLO}, config) == {**config, "messages": HELLO}
    assert ordered(CHAT, {"messages": HELLO}, config, model="x/y") == {"model": "x/y", "messages": HELLO}
    own = {"models": ["x/y"], "messages": HELLO}
    assert ordered(CHAT, own, config) == own
    fallbacks = {"fallbacks": [{"model": "x/y"}], "messages": HELLO}
    assert ordered(MESSAGES, fallbacks, config) == fallbacks
    with pytest.raises(Refusal, match="names none"):
        ordered(CHAT, {"messages": HELLO}, {})


def test_a_system_prompt_is_put_where_there_is_none() -> None:
    config = {"model": "a/b"}
    first = {"role": "system", "content": "Be brief."}
    assert ordered(CHAT, {"messages": HELLO}, config, "Be brief.")["messages"] == [first, *HELLO]
    own = [{"role": "developer", "content": "Be long."}, *HELLO]
    assert ordered(CHAT, {"messages": own}, config, "Be brief.")["messages"] == own
    assert ordered(MESSAGES, {"messages": HELLO}, config, "Be brief.")["system"] == "Be brief."
    assert ordered(MESSAGES, {"system": "x"}, config, "Be brief.")["system"] == "x"
    assert ordered(RESPONSES, {"input": "Hello"}, config, "Be brief.")["instructions"] == "Be brief."


def test_stop_sequences_are_a_list_in_messages() -> None:
    for stop in ("x", ["x"]):
        assert ordered(MESSAGES, {"messages": HELLO}, {"model": "a/b", "stop": stop})["stop_sequences"] == ["x"]
