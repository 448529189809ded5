"""The parts of a model's name: `author/slug`, then variants such as `:nitro` or `:free:online`."""

from collections.abc import Iterator

FREE = "free"
"""The one variant that is a model of its own, with its own price."""

VARIANTS_MAX = 3
"""Most variants read from one name: OpenRouter has seven, and few of them can be combined."""

PRESET = "@preset/"
"""Marks a preset in a name (see `core.presets`)."""


def variants(model: str) -> tuple[str, ...]:
    """`("nitro", "online")` of `a/b:nitro:online`."""
    return tuple(model.split(":")[1:]) if ":" in model else ()


def with_fewer_variants(model: str) -> Iterator[str]:
    """The name, then the name without its last variant, without its last two, ...; `:free` is never removed."""
    yield model
    for _ in range(VARIANTS_MAX):
        model, colon, variant = model.rpartition(":")
        if not colon or variant == FREE:
            return
        yield model


def without_variants(model: str) -> str:
    """The name without variants but `:free`: `a/b` of `a/b:nitro`, `a/b:free` of `a/b:free:online`."""
    if ":" not in model:
        return model
    *_, shortest = with_fewer_variants(model)
    return shortest
