"""Arguments of a tool's call: a value that is valid under the tool's JSON schema, with the prompt where text is wanted.

Kept are types, `enum`, `const`, bounds, lengths, patterns and formats, what is required, and `$ref`, `allOf`, `anyOf`
and `oneOf`; `not`, `if` and what depends on other members are not looked at.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from farebox.simulator import patterns

STEPS_MAX = 2000
DEPTH_MAX = 32
ITEMS_MAX = 64

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uri-reference": "https://example.com/",
    "iri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "json-pointer": "/a",
    "regex": "a",
    "byte": "YQ==",
}

_HINTS = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""Which type a schema means that names none."""

_CHOICES = "choices"
"""Where a flattened schema keeps its `anyOf` and `oneOf`: a list of lists, of each of which one must hold."""

_Schema = Mapping[str, Any]


class _Rules(Struct):
    """The types of the rules that are looked at; what else a schema says is not held to any."""

    type: str | list[str] | None = None
    enum: list[Any] = []
    properties: dict[str, Any] = {}
    required: list[str] | bool = []
    prefixItems: list[Any] = []  # noqa: N815 - JSON Schema's names
    minimum: float | None = None
    maximum: float | None = None
    exclusiveMinimum: float | bool | None = None  # noqa: N815
    exclusiveMaximum: float | bool | None = None  # noqa: N815
    multipleOf: float | None = None  # noqa: N815
    minLength: int | None = None  # noqa: N815
    maxLength: int | None = None  # noqa: N815
    minItems: int | None = None  # noqa: N815
    maxItems: int | None = None  # noqa: N815
    minProperties: int | None = None  # noqa: N815


class _NoValue(Exception):  # noqa: N818 - a branch that leads nowhere: the next is tried
    """No value was found that is valid here, or it would have no end."""


def fill(schema: object, text: str) -> dict[str, Any]:
    """The arguments of a call under the schema of a tool's parameters; none where there are no valid ones, or where it
    is no schema."""
    try:
        filled = _Filling(schema, text).value(schema, ())
    except (_NoValue, msgspec.ValidationError):
        return {}
    return filled if isinstance(filled, dict) else {}


class _Filling:
    """One schema, and the text that stands in its strings. A path is the references that are being followed."""

    def __init__(self, root: object, text: str) -> None:
        self._root = root
        self._text = text
        self._steps = 0

    def value(self, schema: object, path: tuple[str, ...], depth: int = 0) -> Any:
        """A valid value. Raises _NoValue."""
        self._steps += 1
        if self._steps > STEPS_MAX or depth > DEPTH_MAX or schema is False:
            raise _NoValue
        flat, path = self._flat(schema, path, depth)
        if flat.get(_CHOICES):
            return self._chosen(flat, path, depth)
        kinds = _kinds(flat)
        if "const" in flat:
            return flat["const"]
        if "enum" in flat:
            return _first(each for each in flat["enum"] if "type" not in flat or _is_a(each, kinds))
        match kinds[0]:
            case "object":
                return self._object(flat, path, depth)
            case "array":
                return self._array(flat, path, depth)
            case "integer" | "number" as kind:
                return _number(flat, is_whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(flat)

    def _flat(self, schema: object, path: tuple[str, ...], depth: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The schema with its `$ref` and `allOf` merged into it. Raises _NoValue: a reference leads back to itself."""
        if not isinstance(schema, dict):
            return {}, path
        self._steps += 1
        if depth > DEPTH_MAX or self._steps > STEPS_MAX:
            raise _NoValue
        msgspec.convert(schema, _Rules)
        flat = {name: rule for name, rule in schema.items() if name not in ("$ref", "allOf", "anyOf", "oneOf")}
        flat[_CHOICES] = [schema[name] for name in ("anyOf", "oneOf") if _is_schemas(schema.get(name))]
        parts: list[object] = list(schema["allOf"]) if _is_schemas(schema.get("allOf")) else []
        if isinstance(reference := schema.get("$ref"), str):
            if reference in path:
                raise _NoValue
            path = (*path, reference)
            parts.append(self._referred(reference))
        for part in parts:
            more, path = self._flat(part, path, depth + 1)
            flat = _merged(flat, more)
        return flat, path

    def _referred(self, reference: str) -> object:
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found

    def _chosen(self, flat: dict[str, Any], path: tuple[str, ...], depth: int) -> Any:
        first, *others = flat[_CHOICES]
        base = {**flat, _CHOICES: others}
        for branch in first:
            with suppress(_NoValue):
                if branch is not False:
                    # What is chosen by is in the path already; a branch's own references are followed from there.
                    more, deeper = self._flat(branch, path, depth + 1)
                    return self._merged_value(_merged(base, more), deeper, depth + 1)
        raise _NoValue

    def _merged_value(self, flat: dict[str, Any], path: tuple[str, ...], depth: int) -> Any:
        choices = flat.pop(_CHOICES)
        return self.value({**flat, "allOf": [{"anyOf": each} for each in choices]} if choices else flat, path, depth)

    def _object(self, schema: _Schema, path: tuple[str, ...], depth: int) -> dict[str, Any]:
        """What is required; one member more where that is nothing, or as many as there must be."""
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        others = schema.get("additionalProperties", True)
        filled = {name: self.value(properties.get(name, others), path, depth + 1) for name in required}
        wanted = max(_count(schema, "minProperties"), 1)
        for name in properties:
            if len(filled) >= wanted:
                break
            with suppress(_NoValue):
                filled.setdefault(name, self.value(properties[name], path, depth + 1))
        return filled

    def _array(self, schema: _Schema, path: tuple[str, ...], depth: int) -> list[Any]:
        """The items that have schemas of their own, and one; as many as there must be."""
        items = schema.get("items", True)
        own = items if isinstance(items, list) else schema.get("prefixItems") or []
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        least, most = _count(schema, "minItems"), schema.get("maxItems", ITEMS_MAX)
        wanted = min(max(least, len(own), 0 if own else 1), most)
        filled: list[Any] = []
        try:
            while len(filled) < min(wanted, ITEMS_MAX):
                filled.append(self.value(own[len(filled)] if len(filled) < len(own) else rest, path, depth + 1))
        except _NoValue:
            if len(filled) < least:
                raise
        return filled

    def _string(self, schema: _Schema) -> str:
        least, most = _count(schema, "minLength"), schema.get("maxLength", patterns.LENGTH_MAX)
        if isinstance(pattern := schema.get("pattern"), str):
            with suppress(patterns.NotUnderstood):
                return patterns.fitting(pattern, least)
        if sample := _FORMATS.get(str(schema.get("format"))):
            return sample
        return self._text[: int(most)].ljust(min(least, patterns.LENGTH_MAX), ".")


def _is_schemas(rule: object) -> bool:
    return isinstance(rule, list) and bool(rule)


def _kinds(schema: _Schema) -> list[str]:
    """The types that are allowed, `null` last."""
    named = schema.get("type")
    kinds = [named] if isinstance(named, str) else named
    if named == []:
        raise _NoValue
    if not kinds:
        return [next((kind for rule, kind in _HINTS.items() if rule in schema), "string")]
    return sorted(kinds, key=lambda kind: kind == "null")


def _is_a(value: object, kinds: list[str]) -> bool:
    match value:
        case None:
            return "null" in kinds
        case bool():
            return "boolean" in kinds
        case int():
            return "integer" in kinds or "number" in kinds
        case float():
            return "number" in kinds or ("integer" in kinds and value.is_integer())
        case str():
            return "string" in kinds
        case list():
            return "array" in kinds
        case _:
            return "object" in kinds


def _first(values: Iterator[Any]) -> Any:
    for value in values:
        return value
    raise _NoValue


def _count(schema: _Schema, rule: str) -> int:
    count = schema.get(rule)
    return int(count) if isinstance(count, int | float) else 0


def _number(schema: _Schema, *, is_whole: bool) -> int | float:
    """1 where it is allowed, else what is nearest to a bound. Raises _NoValue: the bounds leave nothing."""
    low, low_is_out = _bound(schema, "minimum", "exclusiveMinimum", -math.inf)
    high, high_is_out = _bound(schema, "maximum", "exclusiveMaximum", math.inf)
    step = max(schema.get("multipleOf") or 0, 0) or int(is_whole)
    if step:
        first, last = _multiple(low, step, math.ceil), _multiple(high, step, math.floor)
        tries = [_multiple(1, step, math.ceil), first, last, first + step, last - step]
    else:
        tries = [1, low, high, (low + high) / 2, low + 1, high - 1]
    for each in tries:
        is_above = low < each if low_is_out else low <= each
        is_below = each < high if high_is_out else each <= high
        if math.isfinite(each) and is_above and is_below and (not is_whole or each == int(each)):
            return int(each) if each == int(each) else each
    raise _NoValue


def _multiple(of: float, step: float, rounded: Callable[[float], int]) -> float:
    """The multiple of a step that is next to a bound."""
    return step * rounded(of / step) if math.isfinite(of / step) else of


def _bound(schema: _Schema, inclusive: str, exclusive: str, none: float) -> tuple[float, bool]:
    """The nearer of the two bounds, and whether it is out itself: of old, `exclusiveMinimum` was true or false."""
    bound, out = schema.get(inclusive, none), schema.get(exclusive)
    if isinstance(out, bool) or out is None:
        return bound, out is True
    is_nearer = out >= bound if none < 0 else out <= bound
    return (out, True) if is_nearer else (bound, False)


_LARGER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_SMALLER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two flattened schemas as one, under which both hold."""
    merged = {**one}
    for name, rule in other.items():
        merged[name] = _both(name, merged[name], rule) if name in merged else rule
    return merged


def _both(name: str, one: Any, other: Any) -> Any:
    if name == _CHOICES:
        return [*one, *other]
    if name in _LARGER:
        return max(one, other)
    if name in _SMALLER:
        return min(one, other)
    match name:
        case "type":
            kinds, others = ([each] if isinstance(each, str) else each for each in (one, other))
            narrow = [kind for kind in kinds if kind in others]
            if "integer" in (*kinds, *others) and "number" in (*kinds, *others) and "integer" not in narrow:
                narrow.append("integer")
            return narrow
        case "enum":
            return [each for each in one if each in other]
        case "required":
            return [*one, *(each for each in other if each not in one)]
        case "properties":
            joined = dict(one)
            for member, rule in other.items():
                joined[member] = {"allOf": [joined[member], rule]} if member in joined else rule
            return joined
        case _:
            return other
