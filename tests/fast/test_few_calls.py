"""docs/decisions/few-calls.md: no call on every order's way has more arguments than Python keeps on its stack."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "farebox"
WAY = [
    PACKAGE / "exchange.py",
    PACKAGE / "answers.py",
    PACKAGE / "joining.py",
    PACKAGE / "watching.py",
    *(PACKAGE / "core").glob("[!w]*.py"),  # who has wishes pays for reading them
    *(PACKAGE / "http").glob("*.py"),
    *(PACKAGE / "store").glob("*.py"),
    *(PACKAGE / "telemetry").glob("*.py"),
    *(PACKAGE / "upstream").glob("*.py"),
]

PLACES = 30
"""A named argument takes two. Beyond that CPython makes a dict of the names (`STACK_USE_GUIDELINE` in its compile.c, in
3.11 to 3.13): a microsecond for each call."""


def places(call: ast.Call) -> int:
    return len(call.args) + 2 * len(call.keywords)


@pytest.mark.parametrize("path", WAY, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_an_orders_way_makes_no_dict_of_arguments(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [f"line {call.lineno}: {ast.unparse(call.func)}" for call in calls if places(call) > PLACES] == []
