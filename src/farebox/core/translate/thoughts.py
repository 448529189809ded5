"""Thinking between hosts: how its seals travel in another format's members, and how much of it is asked for.

A host takes thoughts back on the next turn under its own seal only: Anthropic's signature, OpenAI's encrypted content.
In another format's place for a seal they are packed with whose they are, and unpacked on their way back.
"""

from collections.abc import Callable

from msgspec import Raw
from msgspec.json import Decoder

from farebox.core.formats.asking import count, decoded_part
from farebox.core.formats.thinking import BUDGET_MIN
from farebox.core.legible import Fields, decode_each, decode_fields, decoded_or, written
from farebox.core.reading import Number
from farebox.core.translate.neutral import EMPTY, Effort, Thinking
from farebox.core.translate.raw import is_text, quoted, said, word

ANTHROPIC = "anthropic-claude-v1"
OPENAI = "openai-responses-v1"
"""OpenRouter's names of the two, in `reasoning_details[].format`."""

CHAT = "chat"
"""Of whoever answered a chat completion. After a colon may stand the member in which it told its thoughts, or the
`format` of its details."""

MISTRAL = "mistral"
"""Of Mistral's models, which tell their thoughts in a content's list; they are not sent back."""

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


def without_others(path: str, body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """An order for a host that speaks its format, without thoughts under the seals of others, which it refuses; and the
    names of the members that were left out. They are in a conversation that another upstream served before."""
    if path == "/messages":
        return _without(body, "messages", lambda turns: [kept for turn in turns if (kept := _own_turn(turn))])
    if path == "/responses":
        return _without(body, "input", lambda items: [item for item in items if not _is_others(item)])
    return body, ()


def _without(body: bytes, member: str, keep: Callable[[list[Fields]], list[Fields]]) -> tuple[bytes, tuple[str, ...]]:
    fields = decode_fields(body)
    given = decoded_or(decode_each, fields.get(member), None)
    if given is None or (kept := keep(given)) == given:
        return body, ()
    left_out = "messages[assistant].reasoning" if member == "messages" else "input[reasoning]"
    return bytes(written({**fields, member: written(kept)})), (left_out,)


def _own_turn(turn: Fields) -> Fields | None:
    """A message without others' thoughts; None where that is all it has."""
    blocks = decoded_or(decode_each, turn.get("content"), None)
    if blocks is None:
        return turn
    kept = [block for block in blocks if not _is_others(block)]
    if len(kept) == len(blocks):
        return turn
    return {**turn, "content": written(kept)} if kept else None


_SEALED = {"thinking": "signature", "redacted_thinking": "data", "reasoning": "encrypted_content"}
"""Where the seal of a thought stands, by its type."""


def _is_others(thought: Fields) -> bool:
    name = _SEALED.get(word(thought.get("type")))
    origin, mark, _ = word(thought.get(name or "")).partition(_MARK)
    return bool(mark) and (origin in (ANTHROPIC, OPENAI) or origin.startswith(f"{CHAT}:"))


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
