"""TOML as people write it: a heading, its members a line each, comments above what they are about."""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal

Value = str | int | bool | Decimal | list[str] | dict[str, str]

LINE_CHARS_MAX = 110


def table(heading: str, members: Mapping[str, Value], comments: Iterable[str] = ()) -> str:
    """A table with its comments between its heading and its members."""
    lines = [heading, *(line for each in comments for line in comment(each)), *map(member, members, members.values())]
    return "\n".join(lines)


def member(name: str, value: Value) -> str:
    line = f"{name} = {text(value)}"
    if len(line) <= LINE_CHARS_MAX or not isinstance(value, list):
        return line
    return "\n".join((f"{name} = [", *(f"    {text(each)}," for each in value), "]"))


def text(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Decimal():
            return f"{value:f}"
        case str():
            # JSON's escapes are TOML's, and its strings are TOML's but for one character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(text, value))}]"
        case dict():
            return "{ " + ", ".join(f"{text(name)} = {text(each)}" for name, each in value.items()) + " }"


def comment(words: str) -> list[str]:
    """Words as comment lines, none long; what would end a comment is shown as a blank."""
    plain = "".join(each if each.isprintable() else " " for each in words)
    lines, line = [], "#"
    for word in plain.split():
        if len(line) + 1 + len(word) > LINE_CHARS_MAX and line != "#":
            lines.append(line)
            line = "#  "
        line += f" {word}"
    return [*lines, line]


def commented_out(block: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in block.splitlines())
