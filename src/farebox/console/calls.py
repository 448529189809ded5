"""One order as the playground's form has it: its body in each of the three formats, and what a whole answer says."""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from farebox.core.errors import invalid

Spoken = Literal["chat", "messages", "responses"]

PATHS: Mapping[str, str] = {"chat": "/chat/completions", "messages": "/messages", "responses": "/responses"}
"""Below a base, by the format's name."""


class TextOrder(Struct, frozen=True):
    """A prompt and what is asked with it; without a `cap`, an answer is as long as the model makes it."""

    spoken: Spoken
    model: str
    text: str
    system: str = ""
    cap: int | None = None
    streamed: bool = False

    @property
    def path(self) -> str:
        return PATHS[self.spoken]

    @property
    def members(self) -> dict[str, object]:
        """Its body, as its format names the members. An answer of `/responses` is not kept."""
        user: dict[str, object] = {"role": "user", "content": self.text}
        members: dict[str, object] = {"model": self.model}
        match self.spoken:
            case "chat":
                members["messages"] = [{"role": "system", "content": self.system}, user] if self.system else [user]
                cap = "max_tokens"
            case "messages":
                members |= {"system": self.system} if self.system else {}
                members["messages"] = [user]
                cap = "max_tokens"
            case "responses":
                members |= {"instructions": self.system} if self.system else {}
                members["input"] = self.text
                cap = "max_output_tokens"
        members |= {} if self.cap is None else {cap: self.cap}
        members |= {"store": False} if self.spoken == "responses" else {}
        return members | ({"stream": True} if self.streamed else {})

    def check(self) -> None:
        """Raises Refusal 400: something is missing."""
        if not self.model:
            raise invalid("Which model is to answer? Choose one")
        if not self.text:
            raise invalid("There is nothing to answer: write something")
        if self.cap is None and self.spoken == "messages":
            raise invalid("Messages needs to be told how long its answer may be: say how many tokens at most")


def said_in(spoken: Spoken, answer: bytes) -> str:
    """The text of a whole answer; empty where it has none."""
    try:
        whole = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return ""
    return "".join(_texts(spoken, whole))


def _texts(spoken: Spoken, whole: object) -> Iterator[str]:
    match spoken:
        case "chat":
            message = _member(next(_each(_member(whole, "choices")), None), "message")
            found = [_member(message, "content"), _member(message, "refusal")]
        case "messages":
            found = [_member(part, "text") for part in _each(_member(whole, "content"))]
        case "responses":
            parts = [part for item in _each(_member(whole, "output")) for part in _each(_member(item, "content"))]
            found = [_member(part, name) for part in parts for name in ("text", "refusal")]
    yield from (text for text in found if isinstance(text, str))


def _member(of: object, name: str) -> object:
    return of.get(name) if isinstance(of, dict) else None


def _each(of: object) -> Iterator[object]:
    yield from of if isinstance(of, list) else []
