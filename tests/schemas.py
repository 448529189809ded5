"""Checking bodies against what OpenRouter documents, and against what its TypeScript SDK demands."""

import json
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
