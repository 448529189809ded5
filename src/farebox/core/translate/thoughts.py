"""Thinking between hosts: how its seals travel in another format's members, and how much of it is asked for.

A host takes thoughts back on the next turn under its own seal only: Anthropic's signature, OpenAI's encrypted content.
In another format's place for a seal they are packed with whose they are, and unpacked on their way back.
"""

from msgspec import Raw
from msgspec.json import Decoder

from farebox.core.formats.asking import count, decoded_part
from farebox.core.formats.thinking import BUDGET_MIN
from farebox.core.legible import Fields
from farebox.core.reading import Number
from farebox.core.translate.neutral import EMPTY, Effort, Thinking
from farebox.core.translate.raw import is_text, quoted, said, word

ANTHROPIC = "anthropic-claude-v1"
OPENAI = "openai-responses-v1"
"""OpenRouter's names of the two, in `reasoning_details[].format`."""

CHAT = "chat"
"""Of whoever answered a chat completion. After a colon may stand the member in which it told its thoughts, or the
`format` of its details."""

_MARK = "|"
"""Stands in no seal of its own: those are base64."""


def packed(thinking: Thinking) -> Raw:
    """Whose it is, what it is called there, and its seal, as one JSON string."""
    fields = (thinking.origin, word(thinking.id), word(thinking.seal))
    return quoted(_MARK.join((*(each.replace(_MARK, "_") for each in fields[:2]), fields[2])))


def unpacked(text: Raw | None, seal: Raw, otherwise: str) -> Thinking:
    """The thinking under a seal: one that was packed, or one of the format's own host (`otherwise`)."""
    if _MARK.encode() in bytes(seal):
        origin, _, rest = word(seal).partition(_MARK)
        id_, _, inner = rest.partition(_MARK)
        return Thinking(origin, text, quoted(inner) if inner else None, quoted(id_) if id_ else None)
    return Thinking(otherwise, text, seal if is_text(seal) else None)


def sealed_for(host: str, thinking: Thinking) -> Raw:
    """The seal of a thought in the format of `host`: its own as it is, another's packed. Empty where there is none, and
    nothing to know of it."""
    if thinking.origin == host and thinking.id is None:
        return thinking.seal or EMPTY
    return packed(thinking)


# How much

_decode_number = Decoder(Number).decode

_LEAST = (("low", 0), ("medium", 4_096), ("high", 16_384))
"""From how many tokens a budget counts as an effort."""

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def level_of(effort: Effort) -> str | None:
    """The word for an effort: its own, or the nearest to its budget."""
    if effort.level is not None or effort.budget is None:
        return effort.level
    return [name for name, least in _LEAST if effort.budget >= least][-1]


def budget_in(fields: Fields, name: str, path: str) -> int | None:
    """The budget in an order's object at this path, in tokens; None where it has none. Raises Refusal 400: it is no
    whole number above zero."""
    told = said(fields.get(name))
    place = f"{path}.{name}"
    return None if told is None else count(place, decoded_part(_decode_number, told, place))


def budget_of(effort: Effort) -> int | None:
    """A budget that Anthropic takes."""
    return None if effort.budget is None else max(effort.budget, BUDGET_MIN)
