"""Which models of our own upstreams a caller's filters of a list let through: OpenRouter's filters, as far as anything
is known of these models.

Source: OpenRouter's OpenAPI document (GET /models). A comma stands for "or" among what comes out, else for "and".
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import Struct

from farebox.core.upstream import Filters


class Filtered(Struct, frozen=True):
    """What a filter can be about."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    context_tokens: int | None = None
    zdr: bool | None = None
    distillable: bool | None = None


class NoSuchFilter(Exception):  # noqa: N818 - the word of the house
    """A filter's value is not as it must be; the message names it."""


Test = Callable[[Filtered], bool]


def filter_of(filters: Filters, *, lists_texts: bool) -> Test:
    """Whether a model passes them all. `lists_texts`: without a filter of what comes out, only texts do.

    Raises:
        NoSuchFilter: one has a value that it cannot have.
    """
    tests = [_TESTS[name](value) if name in _TESTS else _unknown for name, value in filters if name not in _ORDERINGS]
    if lists_texts and not any(name == "output_modalities" for name, _ in filters):
        tests.append(_outputs("text"))
    return lambda model: all(test(model) for test in tests)


_ORDERINGS = frozenset({"sort"})
"""They say nothing of what is in a list."""


def _unknown(model: Filtered) -> bool:
    """What nobody has measured or declared of our own models: by what they cost elsewhere, say, or in benchmarks."""
    return False


def _words(text: str) -> frozenset[str]:
    return frozenset(each.strip() for each in text.split(","))


def _inputs(value: str) -> Test:
    wanted = _words(value)
    return lambda model: wanted.issubset(model.inputs)


def _outputs(value: str) -> Test:
    wanted = _words(value)
    return lambda model: "all" in wanted or not wanted.isdisjoint(model.outputs)


def _parameters(value: str) -> Test:
    wanted = _words(value)
    return lambda model: wanted.issubset(model.parameters)


def _context(value: str) -> Test:
    if not (value.isascii() and value.isdigit() and 0 < len(value) < 16 and int(value)):
        raise NoSuchFilter(f"context: {value[:40]!r} is not a whole number above zero")
    return lambda model: model.context_tokens is not None and model.context_tokens >= int(value)


def _zdr(value: str) -> Test:
    if value != "true":
        raise NoSuchFilter(f"zdr: {value[:40]!r} is not `true`")
    return lambda model: model.zdr is True


def _distillable(value: str) -> Test:
    if value not in ("true", "false"):
        raise NoSuchFilter(f"distillable: {value[:40]!r} is neither `true` nor `false`")
    return lambda model: (model.distillable is True) is (value == "true")


_TESTS: Mapping[str, Callable[[str], Test]] = MappingProxyType(
    {
        "input_modalities": _inputs,
        "output_modalities": _outputs,
        "supported_parameters": _parameters,
        "context": _context,
        "zdr": _zdr,
        "distillable": _distillable,
    }
)
