"""The simulator's tool calls: valid under the tool's own schema, whatever it is, and none that goes on for ever."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from farebox.simulator import chat, messages, models, responses, talk
from farebox.simulator.arguments import fill
from farebox.simulator.faults import Faults
from farebox.simulator.patterns import NotUnderstood, fitting

ECHO = models.MODELS["sim/echo"]


def needs(**members: Any) -> dict[str, Any]:
    """A schema of an object that needs all of these."""
    return {"type": "object", "properties": members, "required": list(members)}


NODE = needs(v={"type": "integer"}, next={"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]})
TREE = needs(kids={"type": "array", "items": {"$ref": "#/definitions/Tree"}})
TERM = {
    "oneOf": [needs(op={"const": "not"}, of={"$ref": "#/$defs/Term"}), needs(op={"const": "is"}, v={"type": "null"})]
}

MEMBERS: list[Any] = [
    *({"type": kind} for kind in ("string", "boolean", "number", "integer", "null", "array", "object")),
    {},
    True,
    {"type": ["string", "null"]},
    {"type": ["null", "integer"]},
    # Values.
    {"enum": ["low", "high"]},
    {"type": "string", "enum": [1, "a"]},
    {"enum": [None]},
    {"const": 7},
    # Numbers.
    {"type": "integer", "minimum": 5},
    {"type": "integer", "maximum": -5},
    {"type": "integer", "minimum": 1.5},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "exclusiveMinimum": 7},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0, "exclusiveMinimum": 0},
    {"type": "number", "multipleOf": 0.25, "minimum": 3.1},
    {"type": "number", "maximum": 0.5},
    {"minimum": 4},
    # Texts.
    {"type": "string", "minLength": 30},
    {"type": "string", "maxLength": 3},
    {"type": "string", "minLength": 4, "maxLength": 4},
    *({"type": "string", "format": name} for name in ("date", "date-time", "email", "uri", "uuid", "ipv4", "ipv6")),
    *({"type": "string", "format": name} for name in ("hostname", "duration", "regex", "json-pointer", "unheard-of")),
    {"type": "string", "pattern": "^[a-z]+$", "minLength": 5},
    {"type": "string", "pattern": "^x[a-z]{0,9}$", "minLength": 5, "maxLength": 10},
    # Lists.
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "items": {"type": "string"}, "minItems": 3},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    {"items": {"type": "boolean"}},
    # Objects within.
    {**needs(a={"type": "integer"}), "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "integer"}, "required": ["z"]},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "minProperties": 2},
    # One or more of several.
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"anyOf": [False, {"type": "boolean"}]},
    {"anyOf": [{"allOf": [{"minimum": 5, "type": "integer"}, {"maximum": 4}]}, {"type": "boolean"}]},
    {"oneOf": [{"type": "string", "enum": ["all"]}, {"type": "string", "pattern": "^[1-9][0-9]*$"}]},
    {"oneOf": [needs(kind={"const": "x"}, n={"type": "integer"}), needs(kind={"const": "y"})]},
    {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["b"]}, {"required": ["a"]}],
    },
    {"allOf": [needs(a={"type": "integer", "minimum": 3}), {"properties": {"a": {"maximum": 3}}}]},
    {"allOf": [{"type": "number"}, {"type": "integer"}]},
    {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
    {"allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"anyOf": [{"minimum": 4}, {"type": "string"}]}]},
]

WHOLE: list[dict[str, Any]] = [
    {**needs(n={"$ref": "#/$defs/Node"}), "$defs": {"Node": NODE}},
    {**needs(n={"$ref": "#/definitions/Tree"}), "definitions": {"Tree": TREE}},
    {**needs(t={"$ref": "#/$defs/Term"}), "$defs": {"Term": TERM}},
    {"$ref": "#/$defs/A", "$defs": {"A": needs(x={"$ref": "#/$defs/B"}, y={"$ref": "#/$defs/B"}), "B": {"enum": [1]}}},
    {"type": "object", "properties": {"self": {"$ref": "#"}, "x": {"type": "integer"}}, "required": ["x"]},
    {"type": "object", "properties": {"self": {"$ref": "#"}}},
    {
        "type": "object",
        "properties": {"a/b": {"type": "integer"}, "c": {"$ref": "#/properties/a~1b"}},
        "required": ["c"],
    },
]


@pytest.mark.parametrize("schema", [*(needs(it=member) for member in MEMBERS), *WHOLE], ids=json.dumps)
@pytest.mark.parametrize("said", ["touch made.txt", ""])
def test_arguments_are_valid(schema: dict[str, Any], said: str) -> None:
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(fill(schema, said))


def test_only_what_is_required_is_filled_and_one_member_where_nothing_is() -> None:
    text = {"type": "string"}
    assert fill({**needs(a=text), "properties": {"b": text, "a": text}}, "Hi") == {"a": "Hi"}
    assert fill({"type": "object", "properties": {"b": text, "a": text}}, "Hi") == {"b": "Hi"}
    assert fill({"type": "object", "properties": {}}, "Hi") == {}


def test_what_refers_to_itself_is_filled_once() -> None:
    assert fill(WHOLE[0], "Hi") == {"n": {"v": 1, "next": None}}
    assert fill(WHOLE[1], "Hi") == {"n": {"kids": []}}


PATTERNS = r"""
^[1-9][0-9]*$  ^\S+$  ^[a-z0-9-]+$  ^[A-Za-z0-9_-]{1,64}$  ^#[0-9a-fA-F]{6}$  ^\d{4}-\d{2}-\d{2}$  ^(all|none)$
^(?:a|b)+c?$  ^v(?P<x>\d+)\.(\d+)$  ^[^/]+/[^/]+$  abc  ^$  ^/.*  \.ts$  ^[\w.+-]+@[\w-]+\.\w{2,}$  ^\u0041\x42$
^[^a-z]$  ^[\]x]{2}$  ^a{3}$  a|b  {}  [$]  ^\$\{x\}$  ^[\w-]{2}$  ^[^\d\s]$  ^[+-]$  ^[a-]$  ^[!-/]$  ^a+?b*?$
""".split()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [0, 3])
def test_a_text_fits_its_pattern(pattern: str, length: int) -> None:
    assert re.search(pattern, fitting(pattern, length))


@given(st.text(alphabet="^$()[]{}|?*+\\.,-a1dwsWbxu:<>P=", max_size=30))
def test_any_pattern_is_answered_or_refused(pattern: str) -> None:
    try:
        fitting(pattern)
    except NotUnderstood:
        return


NOTHING_FITS: list[Any] = [False, {"minimum": "x"}, {"type": []}, {"type": "file"}, {"maxLength": -1}]


def nested(leaf: Any, levels: int) -> Any:
    """A schema that no value fits, of a great many branches."""
    for _ in range(levels):
        leaf = {"anyOf": [{"allOf": [leaf, {"type": "string"}]}, {"allOf": [leaf, {"type": "boolean"}]}]}
    return leaf


@pytest.mark.parametrize(
    "schema",
    [
        *(5, None, [], {"type": 5}, {"properties": 3}, {"required": 3}, {"anyOf": 3}, {"anyOf": []}, {"enum": []}),
        *({"$ref": name} for name in ("#/no/where", "http://example.com/x", "#")),
        *(needs(a=member) for member in NOTHING_FITS),
        *(needs(a={"type": "string", "pattern": each}) for each in ("(", "[z-a]", "[", "(" * 500, "a{999999999}")),
        needs(a={"type": "string", "minLength": 10**9}),
        needs(a={"type": "array", "minItems": 10**9}),
        needs(a={"type": "array", "maxItems": -1}),
        *(needs(a={"type": "number", "multipleOf": step, "minimum": 1e308}) for step in (0, -1, 1e-300)),
        needs(a={"type": "integer", "multipleOf": 2.5, "maximum": 10**400}),
        pytest.param(needs(a=nested({"type": "integer"}, 20)), id="a million branches"),  # as many in its text
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_what_is_no_schema_or_fits_nothing_is_filled_as_far_as_it_goes(schema: object) -> None:
    assert len(json.dumps(fill(schema, "x"))) < 10_000


ONE = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
TWO = {**ONE, "required": ["what", "why"]}


def called(body: dict[str, Any], wire: Any = chat) -> str | None:
    """The name of the tool that is called."""
    said = talk.answer(wire.read(json.dumps({"model": "sim/echo", **body}).encode()), ECHO, Faults())
    return said.tool_calls[0][0] if said.tool_calls else None


def functions(**schemas: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": each}} for name, each in schemas.items()]


def test_the_tool_that_is_called() -> None:
    tools = functions(agent=TWO, shell=ONE, read=ONE)
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": "ls"}], "tools": tools}
    assert called(ask) == "shell"
    assert called({**ask, "tools": functions(agent=TWO, plan=TWO)}) == "agent"
    assert called({**ask, "messages": [{"role": "user", "content": "ls # read"}]}) == "read"
    assert called({**ask, "tool_choice": {"type": "function", "function": {"name": "agent"}}}) == "agent"
    assert called({**ask, "tool_choice": "required"}) == "shell"
    assert called({**ask, "tool_choice": "none"}) is None
    named = {"type": "function", "name": "read"}
    tools = [{"type": "function", **each["function"]} for each in tools]
    assert called({"input": "ls", "tools": tools, "tool_choice": named}, responses) == "read"
    tools = [{"name": each["name"], "input_schema": each["parameters"]} for each in tools]
    asks = {**ask, "tools": tools}
    assert called({**asks, "tool_choice": {"type": "tool", "name": "agent"}}, messages) == "agent"
    assert called({**asks, "tool_choice": {"type": "none"}}, messages) is None


def test_what_an_agent_puts_before_the_prompt_is_no_argument() -> None:
    parts = [{"type": "text", "text": "<reminder>read</reminder>"}, {"type": "text", "text": "ls"}]
    tools = [{"name": "shell", "input_schema": ONE}, {"name": "read", "input_schema": ONE}]
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": parts}], "tools": tools}
    said = talk.answer(messages.read(json.dumps(body).encode()), ECHO, Faults())
    assert said.tool_calls == (("shell", '{"what":"ls"}'),)


def test_a_talk_with_tools_comes_to_an_end() -> None:
    asked = {"role": "user", "content": "ls"}
    result = [{"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "made.txt"}]
    tools = functions(shell=ONE)
    assert called({"messages": [asked, *result], "tools": tools}) is None
    # Claude Code puts a message of the system's after a result; others put one of the user's.
    assert called({"messages": [asked, *result, {"role": "system", "content": "Note"}], "tools": tools}) is None
    assert called({"messages": [asked, *result, asked], "tools": tools}) == "shell"
    assert called({"messages": [asked, *result * talk.CALLS_MAX, asked], "tools": tools}) is None


def test_several_tools_are_called_at_once_where_that_is_asked_for_and_allowed() -> None:
    tools = functions(agent=TWO, shell=ONE, read=ONE)
    ask: dict[str, Any] = {"model": "sim/echo", "messages": [{"role": "user", "content": "ls # read"}], "tools": tools}

    def names(calls: int, **more: Any) -> list[str]:
        asked = chat.read(json.dumps({**ask, **more}).encode())
        return [name for name, _ in talk.answer(asked, ECHO, Faults(calls=calls)).tool_calls]

    assert names(2) == ["read", "shell"]
    assert names(4) == ["read", "shell", "agent", "read"]
    assert names(2, parallel_tool_calls=False) == ["read"]
    assert names(2, tool_choice={"type": "function", "function": {"name": "agent"}}) == ["agent", "agent"]


def test_an_answer_is_valid_under_the_schema_that_it_is_asked_for() -> None:
    said = {"messages": [{"role": "user", "content": "so"}]}
    asked: list[tuple[Any, dict[str, Any]]] = [
        (chat, {**said, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": ONE}}}),
        (messages, {**said, "output_config": {"format": {"type": "json_schema", "schema": ONE}}}),
        (responses, {"input": "so", "text": {"format": {"type": "json_schema", "name": "n", "schema": ONE}}}),
    ]
    for wire, body in asked:
        read = wire.read(json.dumps({"model": "sim/echo", **body}).encode())
        assert talk.answer(read, ECHO, Faults()).text == '{"what":"so"}'
