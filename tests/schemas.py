"""Checking bodies against what OpenRouter documents, against what its TypeScript SDK demands, and against what Open
Responses specifies."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

REFERENCE = Path(__file__).with_name("reference")


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((REFERENCE / "openapi.json").read_text())
    return document


def assert_documented(name: str, body: Any) -> None:
    """The body is one of the OpenAPI document's schema `name`."""
    schema = {**_document(), "$ref": f"#/components/schemas/{name}"}
    jsonschema.Draft202012Validator(schema).validate(body)


def assert_accepted(name: str, body: Any) -> None:
    """The SDK's schema `name` takes the body."""
    faults = list(_faults(_tree(name), body, name))
    assert not faults, faults


@dataclass
class _Node:
    name: str
    required: bool
    nullable: bool
    kind: str
    children: list["_Node"] = field(default_factory=list)


@cache
def _tree(name: str) -> _Node:
    lines = (REFERENCE / "trees" / f"{name}.txt").read_text().splitlines()[1:]
    stack: list[tuple[int, _Node]] = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        member, flags, kind = line.split(maxsplit=2)
        node = _Node(member, flags[0] == "!", flags.endswith("|null"), kind)
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            stack[-1][1].children.append(node)
        else:
            root = node
        stack.append((depth, node))
    return root


def _faults(node: _Node, value: Any, path: str) -> Iterator[str]:
    if value is None:
        if not node.nullable and node.kind not in ("any", "unknown"):
            yield f"{path} is null"
        return
    kind, _, words = node.kind.rstrip(")").partition("(")
    match kind:
        case "object":
            if not isinstance(value, dict):
                yield f"{path} is no object"
                return
            for child in node.children:
                if child.name in value:
                    yield from _faults(child, value[child.name], f"{path}.{child.name}")
                elif child.required:
                    yield f"{path}.{child.name} is missing"
        case "array":
            if not isinstance(value, list):
                yield f"{path} is no array"
                return
            for number, member in enumerate(value):
                yield from _faults(node.children[0], member, f"{path}[{number}]")
        case "union":
            if all(list(_faults(child, value, path)) for child in node.children):
                yield f"{path} is none of its alternatives"
        case "CLOSEDenum":
            if value not in words.split("|"):
                yield f"{path} is {value!r}"
        case _:
            types = {"string": str, "int": int, "number": (int, float), "boolean": bool, "openenum": str}.get(
                kind, object
            )
            if not isinstance(value, types) or (kind == "int" and isinstance(value, bool)):  # type: ignore[arg-type]
                yield f"{path} is {value!r}, no {kind}"


def assert_specified(name: str, body: Any) -> None:
    """The body is what Open Responses' schema has under this name: nothing that it requires is missing, and nothing is
    of another kind."""
    faults = list(_unspecified(name, body, name))
    assert not faults, faults


@cache
def _specified() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REFERENCE / "open-responses.json").read_text())
    return found


_KINDS: dict[str, Any] = {"string": str, "int": int, "number": (int, float), "boolean": bool, "record": dict}


def _alternatives(kinds: str) -> Iterator[Any]:
    """The kinds that are set apart by `|`: an object's members, or a word."""
    for each in re.findall(r"\[.*\]|[^|]+", kinds):
        named = _specified().get(each, each)
        if isinstance(named, str) and named != each:
            yield from _alternatives(named)
        else:
            yield named


def _unspecified(kinds: str, value: Any, path: str) -> Iterator[str]:
    """What is wrong with a value that is to be of one of these kinds."""
    alternatives = list(_alternatives(kinds))
    objects = [each for each in alternatives if isinstance(each, dict)]
    of_each = next((each[1:-1] for each in alternatives if isinstance(each, str) and each.startswith("[")), None)
    if isinstance(value, dict) and objects:
        kind = f"'{value.get('type')}'"
        fitting = [each for each in objects if each.get("type", "string") in (kind, "string")]
        if not fitting:
            yield f"{path} is of type {kind}"
        for name, kinds_there in fitting[0].items() if fitting else ():
            if (member := name.removesuffix("?")) in value:
                yield from _unspecified(kinds_there, value[member], f"{path}.{member}")
            elif member == name:
                yield f"{path}.{member} is missing"
    elif isinstance(value, list) and of_each is not None:
        for number, each in enumerate(value):
            yield from _unspecified(of_each, each, f"{path}[{number}]")
    elif not any(_is_of(each, value) for each in alternatives if isinstance(each, str)):
        yield f"{path} is {value!r}, no {kinds}"


def _is_of(kind: str, value: Any) -> bool:
    if kind == "any" or (kind == "null" and value is None) or kind == f"'{value}'":
        return True
    is_flag = isinstance(value, bool)
    return kind in _KINDS and isinstance(value, _KINDS[kind]) and is_flag == (kind == "boolean")
