"""Orders in another format than their upstream speaks: what both can say is the same there and back, what cannot be
said is refused by its name, or left out and named."""

import base64
import json
import re
from decimal import Decimal
from importlib import import_module
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openrouter.components import ChatRequest, MessagesRequest, ResponsesRequest

from farebox.core.errors import Refusal
from farebox.core.formats import Format, chat, messages, responses
from farebox.core.translate import TABLES, Translation, translation
from farebox.core.translate.members import LEFT_OUT_MAX
from farebox.core.translate.orders.to_messages import ANSWER_TOKENS

WAYS = list(permutations((chat, messages, responses), 2))
NAMES = {id(chat): "chat", id(messages): "messages", id(responses): "responses"}
HELLO = {"role": "user", "content": "Hello"}
PNG = base64.b64encode(b"\x89PNG").decode()
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "F", "parameters": {"type": "object"}, "strict": False},
}


def name(way: Any) -> str:
    return "-".join(NAMES[id(each)] for each in way) if isinstance(way, tuple) else str(way)


def between(source: Format, native: Format) -> Translation:
    found = translation(source, native)
    assert found is not None
    return found


def asked(source: Format, **members: Any) -> bytes:
    """The smallest order with these members."""
    least: dict[int, dict[str, Any]] = {
        id(chat): {"messages": [HELLO]},
        id(messages): {"messages": [HELLO], "max_tokens": 9},
        id(responses): {"input": "Hello"},
    }
    return json.dumps({"model": "m", **least[id(source)], **members}).encode()


def ordered(source: Format, native: Format, **members: Any) -> tuple[Any, tuple[str, ...]]:
    body, left_out = between(source, native).order(asked(source, **members))
    return json.loads(body), left_out


def refused(source: Format, native: Format, **members: Any) -> str:
    with pytest.raises(Refusal) as error:
        between(source, native).order(asked(source, **members))
    assert error.value.status == 400
    return error.value.message


# There and back

texts = st.text(min_size=1, max_size=20)
names = texts.filter(lambda text: "\0" not in text)
"""Of models: one with a NUL is refused."""
json_objects = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=3
)
pictures = st.sampled_from([f"data:image/png;base64,{PNG}", "https://a.test/a.png"]).map(
    lambda url: {"type": "image_url", "image_url": {"url": url}}
)
files = st.sampled_from(["application/pdf", "text/plain"]).map(
    lambda media: {"type": "file", "file": {"file_data": f"data:{media};base64,{PNG[:4]}", "filename": "a"}}
)
text_parts = texts.map(lambda text: {"type": "text", "text": text})
user_turns = st.fixed_dictionaries(
    {"role": st.just("user"), "content": texts | st.lists(text_parts | pictures, min_size=2, max_size=3)}
)
functions = st.fixed_dictionaries(
    {"name": st.sampled_from("fgh"), "parameters": json_objects, "strict": st.booleans()},
    optional={"description": texts},
)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation: perhaps instructions, then both sides in turn, with calls of tools and their results."""
    told: list[dict[str, Any]] = []
    if draw(st.booleans()):
        told.append({"role": "system", "content": draw(texts)})
    told.append(draw(user_turns))
    for _ in range(draw(st.integers(0, 3))):
        ids = draw(st.lists(st.uuids().map(str), max_size=2, unique=True))
        arguments = [json.dumps(draw(json_objects)) for _ in ids]
        said: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | texts) if ids else draw(texts)}
        if ids:
            said["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": "f", "arguments": given_}}
                for id_, given_ in zip(ids, arguments, strict=True)
            ]
        told.append(said)
        told += [{"role": "tool", "tool_call_id": id_, "content": draw(texts)} for id_ in ids]
        told.append(draw(user_turns))
    return told


@st.composite
def orders(draw: st.DrawFn) -> dict[str, Any]:
    """A chat completion's order of all that messages and responses can say, too."""
    order: dict[str, Any] = {
        "model": draw(names),
        "messages": draw(turns()),
        "max_tokens": draw(st.integers(1, 10**6)),
    }
    options: dict[str, st.SearchStrategy[Any]] = {
        "temperature": st.decimals(0, 1, places=3),
        "top_p": st.decimals(0, 1, places=3),
        "response_format": json_objects.map(
            lambda schema: {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        ),
        "reasoning_effort": st.sampled_from(["low", "medium", "high", "xhigh", "max", "none"]),
        "user": texts,
        "service_tier": st.sampled_from(["auto", "default"]),
    }
    for member, values in options.items():
        if draw(st.booleans()):
            order[member] = draw(values)
    if draw(st.booleans()):
        order |= {"stream": True, "stream_options": {"include_usage": True}}
    if draw(st.booleans()):
        tools = draw(st.lists(functions, min_size=1, max_size=3))
        order["tools"] = [{"type": "function", "function": function} for function in tools]
        named = {"type": "function", "function": {"name": tools[0]["name"]}}
        order["tool_choice"] = draw(st.sampled_from(["auto", "required", "none", named]))
        if order["tool_choice"] != "none" and draw(st.booleans()):
            order["parallel_tool_calls"] = draw(st.booleans())
    return order


def read(body: bytes) -> Any:
    return json.loads(body, parse_float=Decimal)


def written(order: dict[str, Any]) -> bytes:
    """The order as JSON, its decimals as the digits that they are."""
    decimals = {member: str(value) for member, value in order.items() if isinstance(value, Decimal)}
    text = json.dumps({**order, **{member: f"<{member}>" for member in decimals}})
    for member, digits in decimals.items():
        text = text.replace(f'"<{member}>"', digits)
    return text.encode()


@settings(max_examples=60)
@given(order=orders(), way=st.sampled_from(WAYS))
def test_there_and_back_is_the_same_for_all_that_both_can_say(
    order: dict[str, Any], way: tuple[Format, Format]
) -> None:
    source, native = way
    first = written(order)
    if source is not chat:
        first, left_out = between(chat, source).order(first)
        assert left_out == ()
    if way == (messages, responses):
        # A response's thoughts are shown where that is asked, a message's unless it is not.
        first = first.replace(b'{"type":"adaptive"}', b'{"type":"adaptive","display":"summarized"}')
    there, left_there = between(source, native).order(first)
    back, left_back = between(native, source).order(there)
    assert (left_there, left_back) == ((), ())
    assert read(back) == read(first)
    native.read(there)


@settings(max_examples=40)
@given(order=orders())
def test_the_upstreams_own_schema_takes_every_translated_order(order: dict[str, Any]) -> None:
    order["messages"] = [each for each in order["messages"] if not isinstance(each["content"], list)] or [HELLO]
    body = written(order)
    for native, form in ((messages, MessagesRequest), (responses, ResponsesRequest)):
        there, _ = between(chat, native).order(body)
        form.model_validate_json(there)
        back, _ = between(native, chat).order(there)
        ChatRequest.model_validate_json(back)


def test_numbers_schemas_and_texts_pass_to_the_digit() -> None:
    schema = '{"type":"object", "minimum": 1.50, "maximum":1e5,  "big":123456789012345678901234567890}'
    body = (
        '{"model":"m","temperature":0.70,"messages":[{"role":"user","content":"caf\\u00e9 \\/"}],'
        f'"tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]}}'
    ).encode()
    for native in (messages, responses):
        there, _ = between(chat, native).order(body)
        for told in (schema, '"temperature":0.70', "caf\\u00e9 \\/"):
            assert told.encode() in there
        back, _ = between(native, chat).order(there)
        assert schema.encode() in back


def test_arguments_pass_to_the_letter() -> None:
    arguments = '{"a": 1.50,  "b":[1e5]}'
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    said = [HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    there, _ = between(chat, messages).order(asked(chat, messages=said))
    assert b'"input":' + arguments.encode() in there
    back, _ = between(messages, responses).order(there)
    assert json.loads(back)["input"][1]["arguments"] == arguments


def test_half_of_a_character_passes() -> None:
    """Such a text is invalid JSON to strict parsers; callers have them in what a host once cut there."""
    body = asked(chat).replace(b"Hello", rb"x \ud83d")
    for native in (messages, responses):
        there, _ = between(chat, native).order(body)
        assert rb"x \ud83d" in there


# What becomes of single members


def test_instructions_of_a_system_and_of_a_developer() -> None:
    said = [{"role": "developer", "content": "D"}, HELLO, {"role": "system", "content": "later"}, HELLO]
    body, left_out = ordered(chat, messages, messages=said)
    assert body["system"] == "D"
    assert body["messages"] == [HELLO, {"role": "system", "content": "later"}, HELLO]
    assert left_out == ()
    assert ordered(chat, responses, messages=said)[0]["input"] == said
    later = [HELLO, {"role": "developer", "content": "later"}, HELLO]
    assert ordered(chat, messages, messages=later)[0]["messages"][1] == {"role": "system", "content": "later"}
    assert ordered(responses, chat, instructions="I")[0]["messages"] == [{"role": "system", "content": "I"}, HELLO]
    blocks = [{"type": "text", "text": "A"}, {"type": "text", "text": "B", "cache_control": {"type": "ephemeral"}}]
    body, left_out = ordered(messages, chat, system=blocks)
    assert body["messages"][0] == {"role": "system", "content": [{"type": "text", "text": each} for each in "AB"]}
    assert left_out == ("block[text].cache_control",)


@pytest.mark.parametrize("source", [chat, responses], ids=["chat", "responses"])
def test_before_an_assistant_who_speaks_first_stands_that_the_user_said_nothing(source: Format) -> None:
    """Messages begin with the user's; Open Responses takes conversations that do not."""
    said = [{"role": "system", "content": "S"}, {"role": "assistant", "content": "A"}, HELLO]
    turns = {"messages": said} if source is chat else {"input": said}
    body, left_out = ordered(source, messages, **turns)
    assert (body["system"], left_out) == ("S", ())
    assert body["messages"] == [{"role": "user", "content": "(no message)"}, said[1], HELLO]


def test_a_messages_phase_goes_no_further_than_responses_and_is_named() -> None:
    said = [HELLO, {"type": "message", "role": "assistant", "content": "A", "phase": "commentary"}, HELLO]
    for native in (chat, messages):
        body, left_out = ordered(responses, native, input=said)
        assert (len(body["messages"]), left_out) == (3, ("input[message].phase",))


def test_a_prompts_cache_marks_reach_anthropic() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    part = {"type": "text", "text": "long", "cache_control": mark}
    said = [{"role": "system", "content": [part]}, {"role": "user", "content": [part, part]}]
    body, left_out = ordered(chat, messages, messages=said, tools=[{**TOOL, "cache_control": mark}])
    assert body["system"] == [part]
    assert body["messages"][0]["content"] == [part, part]
    assert body["tools"][0]["cache_control"] == mark
    assert left_out == ()


def test_messages_demand_a_cap() -> None:
    assert ordered(chat, messages)[0]["max_tokens"] == ANSWER_TOKENS
    assert ordered(chat, messages, reasoning={"max_tokens": 2000})[0]["max_tokens"] == ANSWER_TOKENS + 2000
    # Its hold covers no more than the model's own maximum.
    for most, reasoning in ((4096, None), (9000, {"max_tokens": 2000})):
        body, _ = between(chat, messages).order(asked(chat, reasoning=reasoning), answer_tokens_max=most)
        assert json.loads(body)["max_tokens"] == most
    assert ordered(chat, messages, max_tokens=7)[0]["max_tokens"] == 7
    assert ordered(chat, messages, max_tokens=7, max_completion_tokens=5)[0]["max_tokens"] == 5
    assert ordered(messages, chat)[0]["max_tokens"] == 9, "the name that most hosts read"
    assert "max_output_tokens" not in ordered(chat, responses)[0]


def test_how_much_is_thought() -> None:
    """Words and budgets, in all formats."""

    def of(body: tuple[Any, tuple[str, ...]]) -> Any:
        members = ("thinking", "output_config", "reasoning_effort", "reasoning", "include")
        return {member: body[0][member] for member in members if member in body[0]}

    high = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    assert of(ordered(chat, messages, reasoning_effort="high")) == high
    assert of(ordered(chat, messages, reasoning_effort="minimal"))["output_config"] == {"effort": "low"}
    assert of(ordered(chat, messages, reasoning_effort="none")) == {"thinking": {"type": "disabled"}}
    shown = {"type": "enabled", "budget_tokens": 4000, "display": "summarized"}
    assert of(ordered(chat, messages, reasoning={"max_tokens": 4000})) == {"thinking": shown}
    hidden = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
    assert of(ordered(chat, messages, reasoning={"max_tokens": 10, "exclude": True})) == {"thinking": hidden}
    assert of(ordered(chat, messages, reasoning={"enabled": False})) == {"thinking": {"type": "disabled"}}
    off = {"enabled": False, "summary": "auto"}
    assert of(ordered(chat, responses, reasoning=off)) == {"reasoning": {"effort": "none"}}
    assert of(ordered(chat, responses, reasoning_effort="low")) == {
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
    }
    for budget, effort in ((1024, "low"), (8000, "medium"), (31_999, "high")):
        thinking = {"type": "enabled", "budget_tokens": budget}
        assert of(ordered(messages, chat, thinking=thinking)) == {"reasoning_effort": effort}
        assert of(ordered(messages, responses, thinking=thinking))["reasoning"] == {"effort": effort, "summary": "auto"}
    assert of(ordered(messages, chat, thinking={"type": "disabled"})) == {"reasoning_effort": "none"}
    assert of(ordered(messages, responses, thinking={"type": "disabled"})) == {"reasoning": {"effort": "none"}}
    adaptive = {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}}
    assert of(ordered(messages, responses, **adaptive))["reasoning"] == {"effort": "max"}
    asked_for = {"effort": "low", "summary": "auto"}
    assert of(ordered(responses, messages, reasoning=asked_for))["thinking"] == {
        "type": "adaptive",
        "display": "summarized",
    }


def test_a_picture_in_all_its_forms() -> None:
    url = f"data:image/png;base64,{PNG}"
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    body, left_out = ordered(chat, messages, messages=[{"role": "user", "content": [part]}])
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert body["messages"][0]["content"] == [{"type": "image", "source": source}]
    assert left_out == ("part[image_url].image_url.detail",)
    body, left_out = ordered(chat, responses, messages=[{"role": "user", "content": [part]}])
    assert body["input"][0]["content"] == [{"type": "input_image", "image_url": url, "detail": "low"}]
    assert left_out == ()
    escaped = asked(chat, messages=[{"role": "user", "content": [part]}]).replace(b"image/png", rb"image\/png")
    assert json.loads(between(chat, messages).order(escaped)[0])["messages"][0]["content"][0]["source"] == source
    kept = {"type": "input_image", "file_id": "file_1", "detail": "auto"}
    given_ = [{"role": "user", "content": [kept]}]
    body, _ = ordered(responses, messages, input=given_)
    assert body["messages"][0]["content"][0]["source"] == {"type": "file", "file_id": "file_1"}
    assert "file_id: send the picture itself" in refused(responses, chat, input=given_)
    svg = {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E"}}
    body, _ = ordered(chat, messages, messages=[{"role": "user", "content": [svg]}])
    assert body["messages"][0]["content"][0]["source"]["type"] == "url"


def test_a_file_in_all_its_forms() -> None:
    text = base64.b64encode("Žluť".encode()).decode()
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:text/plain;base64,{text}"}}
    body, _ = ordered(chat, messages, messages=[{"role": "user", "content": [part]}])
    block = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "Žluť"},
        "title": "a.txt",
    }
    assert body["messages"][0]["content"] == [block]
    assert ordered(messages, chat, messages=[{"role": "user", "content": [block]}])[0]["messages"][0]["content"] == [
        part
    ]
    linked = {**block, "source": {"type": "url", "url": "https://a.test/a.pdf"}}
    body, _ = ordered(messages, responses, messages=[{"role": "user", "content": [linked]}])
    file = {"type": "input_file", "file_url": "https://a.test/a.pdf", "filename": "a.txt"}
    assert body["input"][0]["content"] == [file]
    assert "send the file itself" in refused(messages, chat, messages=[{"role": "user", "content": [linked]}])
    assert "send the file itself" in refused(responses, chat, input=[{"role": "user", "content": [file]}])
    bad = {"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}
    assert "UTF-8" in refused(chat, messages, messages=[{"role": "user", "content": [bad]}])


CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_picture_that_a_tool_gave_back() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "see"}, picture]}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    said: list[Any] = [HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    body, _ = ordered(messages, responses, messages=said)
    url = f"data:image/png;base64,{PNG}"
    seen = {"type": "input_image", "image_url": url, "detail": "auto"}
    assert body["input"][2]["output"] == [{"type": "input_text", "text": "see"}, seen]
    back, _ = between(responses, messages).order(json.dumps(body).encode())
    assert json.loads(back)["messages"] == said
    body, _ = ordered(messages, chat, messages=said)
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "c", "content": "see"}
    about, image = body["messages"][3]["content"]
    assert about["text"] == "From the result of the call c:"
    assert image["image_url"] == {"url": url}
    del said[2]["content"][0]["content"][0]
    body, _ = ordered(messages, chat, messages=said)
    assert body["messages"][2]["content"] == "What it gave back follows the results."


def test_results_stand_together_before_what_the_user_says() -> None:
    said = [
        HELLO,
        {"role": "assistant", "tool_calls": [CALLED, {**CALLED, "id": "d"}]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": [{"type": "text", "text": "2"}]},
        HELLO,
    ]
    body, _ = ordered(chat, messages, messages=said)
    results = [{"type": "tool_result", "tool_use_id": id_, "content": n} for id_, n in (("c", "1"), ("d", "2"))]
    assert body["messages"][2] == {"role": "user", "content": [*results, {"type": "text", "text": "Hello"}]}
    failed = [{**results[0], "is_error": True}, {"type": "tool_result", "tool_use_id": "d"}]
    use = [{"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in "cd"]
    body, left_out = ordered(
        messages, chat, messages=[{"role": "assistant", "content": use}, {"role": "user", "content": failed}]
    )
    assert [each.get("content") for each in body["messages"]] == [None, "1", ""]
    assert left_out == ("block[tool_result].is_error",)


@pytest.mark.parametrize(
    ("in_chat", "in_messages", "in_responses"),
    [
        ("auto", {"type": "auto"}, "auto"),
        ("none", {"type": "none"}, "none"),
        ("required", {"type": "any"}, "required"),
        (
            {"type": "function", "function": {"name": "f"}},
            {"type": "tool", "name": "f"},
            {"type": "function", "name": "f"},
        ),
    ],
)
def test_which_tool_is_to_be_called(in_chat: Any, in_messages: Any, in_responses: Any) -> None:
    told = {id(chat): in_chat, id(messages): in_messages, id(responses): in_responses}
    for source, native in WAYS:
        assert ordered(source, native, tool_choice=told[id(source)])[0]["tool_choice"] == told[id(native)]


def test_whether_calls_may_be_parallel() -> None:
    body, _ = ordered(chat, messages, tools=[TOOL], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in ordered(chat, messages, parallel_tool_calls=False)[0]
    assert "tool_choice" not in ordered(chat, messages, tools=[TOOL])[0]
    body, _ = ordered(chat, messages, tools=[TOOL], tool_choice="none", parallel_tool_calls=True)
    assert body["tool_choice"] == {"type": "none"}
    body, _ = ordered(messages, responses, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)


def test_a_tool_is_as_strict_in_responses_as_it_was() -> None:
    """There it is strict where nothing is said, elsewhere it is not."""
    loose = {"type": "function", "function": {"name": "f"}}
    (tool,) = ordered(chat, responses, tools=[loose])[0]["tools"]
    assert tool == {"type": "function", "name": "f", "parameters": None, "strict": False}
    (tool,) = ordered(messages, responses, tools=[{"name": "f", "strict": True, "input_schema": {}}])[0]["tools"]
    assert tool["strict"] is True


def test_structured_answers() -> None:
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "description": "d", "schema": schema, "strict": True}}
    body, left_out = ordered(chat, messages, response_format=form)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert left_out == ("response_format.json_schema.description",)
    body, _ = ordered(chat, responses, response_format=form, verbosity="low")
    flat = {"type": "json_schema", "name": "a", "description": "d", "schema": schema, "strict": True}
    assert body["text"] == {"verbosity": "low", "format": flat}
    assert ordered(responses, chat, text=body["text"])[0]["response_format"] == form
    assert ordered(responses, chat, text={"format": {"type": "json_object"}})[0]["response_format"] == {
        "type": "json_object"
    }
    assert "send `json_schema`" in refused(chat, messages, response_format={"type": "json_object"})
    assert "response_format" not in ordered(chat, responses, response_format={"type": "text"})[0]
    effort = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    body, _ = ordered(messages, chat, output_config=effort)
    assert body["reasoning_effort"] == "low"
    assert body["response_format"]["json_schema"] == {"name": "answer", "schema": schema, "strict": True}


def test_whose_order_it_is_and_how_fast() -> None:
    assert ordered(chat, messages, user="u")[0]["metadata"] == {"user_id": "u"}
    assert ordered(messages, responses, metadata={"user_id": "u"})[0]["user"] == "u"
    for native in (chat, responses):
        assert ordered(messages, native, metadata={"user_id": "é" * 64})[0]["user"] == "é" * 64
        body, left_out = ordered(messages, native, metadata={"user_id": "u" * 65})
        assert ("user" in body, left_out) == (False, ("metadata.user_id",))
    body, left_out = ordered(messages, chat, metadata={"user_id": "u", "more": "x"}, service_tier="standard_only")
    assert (body["user"], body["service_tier"], left_out) == ("u", "default", ("metadata.more",))
    body, left_out = ordered(chat, messages, metadata={"a": "b"}, service_tier="priority")
    assert ("metadata" in body, "service_tier" in body, left_out) == (False, False, ("metadata", "service_tier"))
    assert ordered(responses, messages, stop="END")[0]["stop_sequences"] == ["END"]
    body, _ = ordered(chat, responses, metadata={"a": "b"}, service_tier="flex", prompt_cache_key="k")
    assert (body["metadata"], body["service_tier"], body["prompt_cache_key"]) == ({"a": "b"}, "flex", "k")


def test_nothing_is_stored_unless_asked() -> None:
    assert ordered(messages, responses)[0]["store"] is False
    assert ordered(chat, responses, store=True)[0]["store"] is True
    assert ordered(chat, messages, store=True)[1] == ("store",)
    assert ordered(chat, messages, store=False)[1] == ()


def test_a_stream_of_chat_completions_tells_its_usage() -> None:
    assert ordered(messages, chat, stream=True)[0]["stream_options"] == {"include_usage": True}
    assert ordered(chat, messages, stream=True, stream_options={"include_usage": True})[1] == ()


def test_the_odds_of_tokens() -> None:
    body, _ = ordered(chat, responses, logprobs=True, top_logprobs=3)
    assert (body["top_logprobs"], body["include"]) == (3, ["message.output_text.logprobs"])
    body, _ = ordered(responses, chat, include=["message.output_text.logprobs", "reasoning.encrypted_content"])
    assert (body["logprobs"], body["top_logprobs"]) == (True, 0)
    assert ordered(responses, chat, include=["file_search_call.results"])[1] == ("include",)
    assert "logprobs: messages tell no odds" in refused(chat, messages, logprobs=True)
    assert ordered(chat, messages, logprobs=False, top_logprobs=None)[1] == ()


def test_earlier_refusals() -> None:
    said = [HELLO, {"role": "assistant", "content": None, "refusal": "No."}, HELLO]
    assert ordered(chat, messages, messages=said)[0]["messages"][1]["content"] == [{"type": "text", "text": "No."}]
    item = ordered(chat, responses, messages=said)[0]["input"][1]
    assert item == {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert ordered(responses, chat, input=[HELLO, item, HELLO])[0]["messages"] == said


@pytest.mark.parametrize("native", [chat, messages, responses], ids=lambda each: NAMES[id(each)])
def test_a_turn_of_which_nothing_is_left_is_left_out(native: Format) -> None:
    """The answer before ended within its thoughts, which another host does not take; hosts refuse an empty turn."""
    nothing: list[tuple[Format, dict[str, Any]]] = [
        (chat, {"role": "assistant", "content": None, "reasoning": "Hm"}),
        (messages, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "c2VhbA=="}]}),
        (messages, {"role": "assistant", "content": []}),
        (responses, {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbA=="}),
    ]
    for source, turn in nothing:
        if source is not native:
            said = {"input" if source is responses else "messages": [HELLO, turn, HELLO]}
            body, _ = ordered(source, native, **said)
            assert body["input" if native is responses else "messages"] == [HELLO, HELLO]
    empty = {"role": "assistant", "content": ""}
    assert ordered(chat, messages, messages=[HELLO, empty, HELLO])[0]["messages"] == [HELLO, HELLO]
    assert ordered(responses, messages, input=[HELLO, empty, HELLO])[0]["messages"] == [HELLO, HELLO]


def test_a_calls_id_has_the_characters_that_anthropic_takes() -> None:
    """A conversation may begin at a host that has others, such as Kimi's."""
    ids = ["functions.f:0", "functions.f:1", "functions_f:0", "toolu_01-A", "\u00e9"]
    calls = [{**CALLED, "id": each} for each in ids]
    results = [{"role": "tool", "tool_call_id": each, "content": "x"} for each in ids]
    said = [HELLO, {"role": "assistant", "tool_calls": calls}, *results]
    _, called, given = ordered(chat, messages, messages=said)[0]["messages"]
    there = [block["id"] for block in called["content"]]
    assert there == [block["tool_use_id"] for block in given["content"]]
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", each) for each in there)
    assert len(set(there)) == len(ids)
    assert there[3] == ids[3]


# What cannot be said

REFUSED: list[tuple[Format, Format, dict[str, Any], str]] = [
    (chat, messages, {"n": 2}, "n: one answer is given"),
    (chat, responses, {"n": 2}, "n: one answer is given"),
    (chat, responses, {"stop": ["x"]}, "stop: responses have no stop sequences"),
    (messages, responses, {"stop_sequences": ["x"]}, "stop_sequences: responses have no stop sequences"),
    (chat, messages, {"logit_bias": {"1": 5}}, "logit_bias"),
    (chat, messages, {"temperature": 1.5}, "temperature: messages take 0 to 1"),
    (chat, messages, {"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    (chat, messages, {"modalities": ["image", "text"]}, "modalities"),
    (chat, responses, {"web_search_options": {}}, "web_search_options"),
    (chat, messages, {"plugins": [{"id": "web"}]}, "plugins: plugins are OpenRouter's own"),
    (chat, messages, {"functions": [{"name": "f"}]}, "functions: send `tools`"),
    (chat, messages, {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[custom]"),
    (chat, messages, {"tools": [{"type": "web"}]}, "tools: `web` cannot be put"),
    (messages, chat, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[host's]"),
    (responses, chat, {"tools": [{"type": "web_search"}]}, "tools[host's]"),
    (messages, chat, {"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
    (messages, chat, {"inference_geo": "eu"}, "inference_geo"),
    (messages, chat, {"compaction": {"type": "summarize"}}, "compaction: only Anthropic's host"),
    (responses, chat, {"previous_response_id": "r"}, "previous_response_id: Farebox continues"),
    (responses, chat, {"input": [{"type": "item_reference", "id": "i"}]}, "input[item_reference]"),
    (responses, chat, {"input": [{"type": "computer_call", "id": "i"}]}, "input[computer_call]"),
    (responses, chat, {"input": [{"type": "nobody_knows"}]}, "input: `nobody_knows` cannot be put"),
    (chat, messages, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "content[input_audio]"),
    (chat, messages, {"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[function]"),
    (messages, chat, {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]}, "container_upload"),
    (chat, messages, {"tool_choice": {"type": "allowed_tools"}}, "tool_choice: give"),
    (messages, chat, {"tool_choice": {"type": "some"}}, "tool_choice.type: give"),
    (
        chat,
        messages,
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "content[text].text: give a text",
    ),
    (chat, messages, {"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id: give a text"),
    (chat, messages, {"reasoning": {"max_tokens": "x"}}, "reasoning.max_tokens"),
    (chat, responses, {"reasoning": {"max_tokens": -1}}, "reasoning.max_tokens: -1 is not a whole number above zero"),
    (messages, chat, {"thinking": {"type": "enabled", "budget_tokens": 0.5}}, "thinking.budget_tokens: 0.5 is not"),
    (chat, messages, {"tools": 1}, "tools: "),
    (chat, messages, {"stop": 5}, "stop: give a text"),
    (responses, chat, {"stop": ["x", 1]}, "stop: give a text"),
    (responses, chat, {"instructions": ["Be brief."]}, "instructions: give a text"),
    (
        chat,
        responses,
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "JVBERg=="}}]}]},
        "file.file_data: give a `data:` URL",
    ),
]


@pytest.mark.parametrize(("source", "native", "members", "said"), REFUSED)
def test_what_cannot_be_said_is_refused_by_its_name(
    source: Format, native: Format, members: dict[str, Any], said: str
) -> None:
    assert said in refused(source, native, **members)


def test_arguments_that_are_no_object_are_refused() -> None:
    for arguments in ("[1]", "{nonsense", '"x"'):
        call = {**CALLED, "function": {"name": "f", "arguments": arguments}}
        said = [HELLO, {"role": "assistant", "tool_calls": [call]}]
        assert "the call `c`: its arguments" in refused(chat, messages, messages=said)


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_unknown_members_are_left_out_and_named_and_null_is_nothing(way: tuple[Format, Format]) -> None:
    source, native = way
    members = {row.path: None for row in TABLES[NAMES[id(source)]] if not re.search(r"[.\[]", row.path)}
    body, left_out = ordered(source, native, nobody_knows=1, nor_this=None, **{"odd\r\nname: x": 2}, **{"a b": 3})
    assert left_out == ("nobody_knows", "?", "?")
    assert "nobody_knows" not in body
    for required in ("model", "messages", "input", "max_tokens"):
        members.pop(required, None)
    assert ordered(source, native, **members) == ordered(source, native)
    many = {f"unknown_{number}": 1 for number in range(LEFT_OUT_MAX + 9)}
    assert len(ordered(source, native, **many)[1]) == LEFT_OUT_MAX


def test_what_routing_reads_goes_no_further_and_is_not_named() -> None:
    for source, native in WAYS:
        body, left_out = ordered(source, native, models=["a/b"], provider={"order": ["x"]}, route="fallback")
        assert (body, left_out) == ordered(source, native)


# The tables


TYPED = [
    ("chat", "", "openai.types.chat.completion_create_params", "CompletionCreateParamsBase"),
    ("chat", "messages[user]", "openai.types.chat", "ChatCompletionUserMessageParam"),
    ("chat", "messages[assistant]", "openai.types.chat", "ChatCompletionAssistantMessageParam"),
    ("chat", "messages[tool]", "openai.types.chat", "ChatCompletionToolMessageParam"),
    ("chat", "messages[system]", "openai.types.chat", "ChatCompletionSystemMessageParam"),
    ("chat", "part[text]", "openai.types.chat", "ChatCompletionContentPartTextParam"),
    ("chat", "part[image_url]", "openai.types.chat", "ChatCompletionContentPartImageParam"),
    ("chat", "tools[function].function", "openai.types.shared_params", "FunctionDefinition"),
    ("messages", "", "anthropic.types.message_create_params", "MessageCreateParamsBase"),
    ("messages", "", "anthropic.types.beta.message_create_params", "MessageCreateParamsBase"),
    ("messages", "block[text]", "anthropic.types", "TextBlockParam"),
    ("messages", "block[image]", "anthropic.types", "ImageBlockParam"),
    ("messages", "block[document]", "anthropic.types", "DocumentBlockParam"),
    ("messages", "block[tool_use]", "anthropic.types", "ToolUseBlockParam"),
    ("messages", "block[tool_result]", "anthropic.types", "ToolResultBlockParam"),
    ("messages", "block[thinking]", "anthropic.types", "ThinkingBlockParam"),
    ("messages", "tools[custom]", "anthropic.types", "ToolParam"),
    ("messages", "tool_choice", "anthropic.types", "ToolChoiceToolParam"),
    ("messages", "output_config", "anthropic.types", "OutputConfigParam"),
    ("messages", "thinking", "anthropic.types", "ThinkingConfigEnabledParam"),
    ("responses", "", "openai.types.responses.response_create_params", "ResponseCreateParamsBase"),
    ("responses", "input[function_call]", "openai.types.responses", "ResponseFunctionToolCallParam"),
    ("responses", "input[reasoning]", "openai.types.responses", "ResponseReasoningItemParam"),
    ("responses", "input[message]", "openai.types.responses", "ResponseOutputMessageParam"),
    ("responses", "part[input_image]", "openai.types.responses", "ResponseInputImageParam"),
    ("responses", "part[input_file]", "openai.types.responses", "ResponseInputFileParam"),
    ("responses", "part[output_text]", "openai.types.responses", "ResponseOutputTextParam"),
    ("responses", "tools[function]", "openai.types.responses", "FunctionToolParam"),
    ("responses", "text", "openai.types.responses", "ResponseTextConfigParam"),
    ("responses", "reasoning", "openai.types.shared_params", "Reasoning"),
]
"""Paths of the tables, and the SDKs' types of what stands there."""


@pytest.mark.parametrize(("source", "path", "module", "kind"), TYPED)
def test_every_member_that_the_sdks_have_stands_in_the_table(source: str, path: str, module: str, kind: str) -> None:
    known = set(getattr(import_module(module), kind).__annotations__)
    assert len(known) > 1
    dot = f"{path}." if path else ""
    told = {row.path for row in TABLES[source]}
    assert {f"{dot}{member}" for member in known} - told - {"betas"} == set(), "betas are a header"


@pytest.mark.parametrize(
    ("source", "request_"), [("chat", ChatRequest), ("messages", MessagesRequest), ("responses", ResponsesRequest)]
)
def test_every_member_that_openrouter_has_stands_in_the_table(source: str, request_: Any) -> None:
    known = {field.alias or member for member, field in request_.model_fields.items()}
    assert known - {row.path for row in TABLES[source]} == set()


@pytest.mark.parametrize("source", TABLES)
def test_a_table_tells_of_each_member_once_and_of_both_others(source: str) -> None:
    paths = [row.path for row in TABLES[source]]
    assert len(paths) == len(set(paths))
    for row in TABLES[source]:
        assert set(row.cells) == set(TABLES) - {source}
        for cell in row.cells.values():
            assert cell.text or cell.fate == "left"
