"""The crash points of `farebox.crash`, by name, and how a test arms one."""

from pathlib import Path

POINTS = (
    "PlaceHold:before",
    "PlaceHold:after",
    "forward:before",
    "forward:after",
    "NameGeneration:before",
    "NameGeneration:after",
    "send:before",
    "Settle:before",
    "Settle:after",
    "send:after",
    "ask:before",
    "ask:after",
    "AskLater:before",
    "AskLater:after",
)
"""Before and after every durable write and every network step: of an order, in sequence, then of a question about a
cost."""


def arm(file: Path, name: str) -> None:
    """Let the next process that reaches this point die there. As long as the file exists, none has."""
    assert name in POINTS, name
    draft = file.with_name(file.name + "-draft")
    draft.write_text(name)
    draft.rename(file)
