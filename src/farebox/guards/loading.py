"""Finding guards by their names: those that are shipped, and those that other packages bring (entry points in the group
`farebox.guards`). What a name stands for is called with the guard's settings, and returns the guard."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from farebox.core.guards import Guard

GROUP = "farebox.guards"

SHIPPED: Mapping[str, str] = MappingProxyType(
    {"patterns": "farebox.guards.patterns:Patterns", "redaction": "farebox.guards.redaction:Redaction"}
)


class BadGuard(Exception):  # noqa: N818 - the word of the house
    """A guard cannot be used; the message says why."""


def make_guard(kind: str, settings: Mapping[str, Any]) -> Guard:
    """Make a guard of a kind. Raises BadGuard."""
    try:
        guard: Guard = _find(kind)(**settings)
    except BadGuard:
        raise
    except ModuleNotFoundError as error:
        hint = ": pip install 'farebox[guards]'" if kind in SHIPPED else ""
        raise BadGuard(f"the kind `{kind}` needs the package {error.name}{hint}") from error
    except Exception as error:
        # Somebody else's code, at the start: whatever it says is told to the operator.
        raise BadGuard(f"the kind `{kind}` cannot be used with these settings: {error}") from error
    if not any(callable(getattr(guard, method, None)) for method in ("before", "after")):
        raise BadGuard(f"the kind `{kind}` has neither a method `before` nor a method `after`")
    return guard


def _find(kind: str) -> Any:
    """What makes guards of a kind."""
    if kind in SHIPPED:
        module, _, name = SHIPPED[kind].partition(":")
        return getattr(import_module(module), name)
    found = {each.name: each for each in entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join(sorted({*SHIPPED, *found}))
        raise BadGuard(f"there is no kind of guard `{kind}`; there are {known}")
    return found[kind].load()
