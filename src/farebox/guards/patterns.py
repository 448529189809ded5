"""The guard `patterns`: refuses orders in which one of some regular expressions is found.

By RE2, which takes time in proportion to the text, whatever the expression, and lets other threads run meanwhile:
Python's own may take hours over a short one, and would hold up every order of the process.
"""

from collections.abc import Mapping
from typing import Any

import re2

from farebox.core.guards import Decision, OrderView, Pass, Refuse
from farebox.guards.texts import texts_in


class Patterns:
    """`patterns` are expressions by the names under which callers are told of them; in any case of letters where
    `ignore_case`."""

    def __init__(self, patterns: Mapping[str, str], *, ignore_case: bool = False) -> None:
        if not isinstance(patterns, Mapping) or not patterns:
            raise ValueError("patterns: give at least one, like patterns.codename = 'project \\\\w+'")
        self._patterns = {name: _compiled(name, text, ignore_case=ignore_case) for name, text in patterns.items()}

    def before(self, order: OrderView) -> Decision:
        for text in map(_readable, texts_in(order.body)):
            for name, pattern in self._patterns.items():
                if pattern.search(text):
                    return Refuse(f"it has `{name}` in it")
        return Pass()


def _readable(text: str) -> str:
    """Without halves of characters, which RE2 does not read."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _compiled(name: str, text: str, *, ignore_case: bool) -> Any:
    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise ValueError(f"patterns.{name}: {said.decode() if isinstance(said, bytes) else said}") from error
