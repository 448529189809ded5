"""What a model's name says: `author/slug`, then variants such as `:nitro` or `:free:online`."""

from collections.abc import Iterator

FREE = "free"
"""The one variant that is a model of its own, with a price of its own."""

VARIANTS_MAX = 3
"""Most variants read of one name: OpenRouter has seven, of which few go together."""

PRESET = "@preset/"
"""In a name, it points to a preset: models and settings kept in the upstream's account."""


def variants(model: str) -> tuple[str, ...]:
    """`("nitro", "online")` of `a/b:nitro:online`."""
    return tuple(model.split(":")[1:]) if ":" in model else ()


def with_fewer_variants(model: str) -> Iterator[str]:
    """The name, and the name less its last variant, its last two, ...; `:free` is never taken off."""
    yield model
    for _ in range(VARIANTS_MAX):
        model, colon, variant = model.rpartition(":")
        if not colon or variant == FREE:
            return
        yield model


def without_variants(model: str) -> str:
    """The shortest of these: `a/b` of `a/b:nitro`, `a/b:free` of `a/b:free:online`."""
    if ":" not in model:
        return model
    *_, shortest = with_fewer_variants(model)
    return shortest
