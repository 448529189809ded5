"""A short text that fits a regular expression: by building one, as to match a caller's expression could take for ever.

Understood is what JSON schemas use: literals, escapes, classes, groups, alternatives, repeats and anchors.
"""

import re
from dataclasses import dataclass

LENGTH_MAX = 4096
DEPTH_MAX = 16

_ESCAPED = {"d": "1", "D": "a", "w": "a", "W": "-", "s": " ", "S": "a", "n": "\n", "t": "\t", "r": "\r"}
_NOTHING = frozenset("bBAZz")
_REPEAT = re.compile(r"\{(\d{1,9})(,?)(\d{0,9})\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z]\w*>)")
_PRINTABLE = "a1A-_ " + "".join(map(chr, range(33, 127)))
_KINDS = {
    kind: "".join(each for each in _PRINTABLE if re.fullmatch(f"\\{kind}", each)) + ("\t\n" if kind in "sDW" else "")
    for kind in "dDwWsS"
}


class NotUnderstood(ValueError):  # noqa: N818 - the expression is no error, it is only beyond this module
    """The expression asks for more than is built here, or is none."""


def fitting(pattern: str, length_min: int = 0) -> str:
    """A text that fits `pattern`, of at least so many characters where its repeats allow that. Raises
    NotUnderstood."""
    text = _Building(pattern).text()
    if len(text) < length_min:
        text = _Building(pattern, more=length_min - len(text)).text()
    return text


@dataclass(slots=True)
class _Building:
    """One pass over an expression, which says the least of it; the first open repeat gets `more` turns."""

    pattern: str
    at: int = 0
    more: int = 0

    def text(self) -> str:
        text = self._alternatives(0)
        if self.at < len(self.pattern):
            raise NotUnderstood(self.pattern)
        return text

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _take(self) -> str:
        self.at += 1
        if self.at > len(self.pattern):
            raise NotUnderstood(self.pattern)
        return self.pattern[self.at - 1]

    def _alternatives(self, depth: int) -> str:
        """The first of them; the others are read over."""
        if depth > DEPTH_MAX:
            raise NotUnderstood(self.pattern)
        first = self._sequence(depth)
        while self._peek() == "|":
            self.at += 1
            self._sequence(depth)
        return first

    def _sequence(self, depth: int) -> str:
        parts: list[str] = []
        while self._peek() not in ("", "|", ")"):
            before = self.more
            part = self._atom(depth)
            least, most = self._repeats()
            if self.more and before == self.more and part and most > least:
                turns = min(most - least, -(-self.more // len(part)))
                least, self.more = least + turns, 0
            if least * len(part) > LENGTH_MAX:
                raise NotUnderstood(self.pattern)
            parts.append(part * least)
        return "".join(parts)

    def _repeats(self) -> tuple[int, int]:
        """How often the atom before stands, at least and at most."""
        found = _REPEAT.match(self.pattern, self.at)
        if found:
            self.at = found.end()
            least = int(found[1])
            times = (least, int(found[3]) if found[3] else LENGTH_MAX if found[2] else least)
        elif (sign := self._peek()) and sign in "*+?":
            self.at += 1
            times = {"*": (0, LENGTH_MAX), "+": (1, LENGTH_MAX), "?": (0, 1)}[sign]
        else:
            return 1, 1
        if self._peek() == "?":
            self.at += 1
        return times

    def _atom(self, depth: int) -> str:
        match self._take():
            case "^" | "$":
                return ""
            case ".":
                return "a"
            case "\\":
                return self._escape()
            case "[":
                return self._one_of_class()
            case "(":
                if self._peek() == "?":
                    group = _GROUP.match(self.pattern, self.at)
                    if group is None:
                        raise NotUnderstood(self.pattern)
                    self.at = group.end()
                inner = self._alternatives(depth + 1)
                if self._take() != ")":
                    raise NotUnderstood(self.pattern)
                return inner
            case sign if sign in "*+?":
                raise NotUnderstood(self.pattern)
            case literal:
                return literal

    def _escape(self) -> str:
        sign = self._take()
        if sign in _NOTHING:
            return ""
        if sign in "xu":
            digits = self.pattern[self.at : self.at + (2 if sign == "x" else 4)]
            self.at += len(digits)
            if not re.fullmatch("[0-9a-fA-F]+", digits):
                raise NotUnderstood(self.pattern)
            return chr(int(digits, 16))
        if sign.isalnum() and sign not in _ESCAPED:
            raise NotUnderstood(self.pattern)
        return _ESCAPED.get(sign, sign)

    def _one_of_class(self) -> str:
        """The first printable character of a class."""
        if is_other := self._peek() == "^":
            self.at += 1
        members: list[str] = []
        while not members or self._peek() != "]":
            members.append(self._members())
        self.at += 1
        inside = "".join(members)
        fitting = (each for each in _PRINTABLE if each not in inside) if is_other else iter(inside)
        found = next(fitting, None)
        if found is None:
            raise NotUnderstood(self.pattern)
        return found

    def _members(self) -> str:
        """A character of a class, or those of a range or a kind."""
        sign = self._take()
        if sign == "\\" and (kind := self._peek()) and kind in _KINDS:
            self.at += 1
            return _KINDS[kind]
        first = self._escape() if sign == "\\" else sign
        if self._peek() != "-" or self.pattern[self.at + 1 : self.at + 2] in ("", "]"):
            return first
        self.at += 1
        sign = self._take()
        last = self._escape() if sign == "\\" else sign
        if len(first) != 1 or len(last) != 1 or last < first:
            raise NotUnderstood(self.pattern)
        return first + "".join(each for each in _PRINTABLE if first < each <= last)
