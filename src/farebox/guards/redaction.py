"""The guard `redaction`: takes e-mail addresses and card numbers out of orders before they go upstream.

What looks like an address is one if `email-validator` says so (the syntax of RFC 5321 and 6531, international names,
too); what looks like a card's number, if its check digit is right (`python-stdnum`), which nine of ten other numbers of
that length fail.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from email_validator import EmailNotValidError, validate_email
from stdnum import luhn

from farebox.core.guards import Changed, Decision, OrderView, Pass
from farebox.guards.texts import with_texts

EMAIL, CARD = "emails", "cards"
EMAIL_MARK, CARD_MARK = "[e-mail address]", "[card number]"

LOCAL_LENGTH_MAX = 64
DOMAIN_LENGTH_MAX = 255
"""The parts of an address before and after the @ (RFC 5321, 4.5.3.1)."""

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+\Z")
_DOMAIN = re.compile(r"[\w.-]+")

_CARD = re.compile(r"(?<!\d)(?<!\d\.)(?=([2-6]\d{2,18}(?:[ \xa0-]\d{3,7}){0,5})(?!\d))")
"""Where a card's number may begin, and the groups of digits there, of three or more. Payment cards begin with 2 to
6."""

_GROUP_END = re.compile(r"(?<=\d)(?!\d)")

CARD_DIGITS = range(13, 20)
"""How long a card's number is (ISO/IEC 7812-1)."""


class Redaction:
    """`what` is taken out: `emails`, `cards`, or both."""

    def __init__(self, what: Sequence[str] = (EMAIL, CARD)) -> None:
        if isinstance(what, str) or not what or not set(what) <= {EMAIL, CARD}:
            raise ValueError(f"what: give a list of {EMAIL!r} and {CARD!r}, not {what!r}")
        self._what = frozenset(what)

    def before(self, order: OrderView) -> Decision:
        body = with_texts(order.body, self._redacted)
        return Pass() if body is order.body else Changed(body)

    def _redacted(self, text: str) -> str:
        if EMAIL in self._what and "@" in text:
            text = _replaced(text, _addresses(text), EMAIL_MARK)
        return _replaced(text, _cards(text), CARD_MARK) if CARD in self._what else text


def _replaced(text: str, places: Iterable[tuple[int, int]], mark: str) -> str:
    """The text with a mark in these places, which come in order."""
    parts: list[str] = []
    end = 0
    for start, stop in places:
        if start >= end:
            parts += [text[end:start], mark]
            end = stop
    return "".join([*parts, text[end:]]) if parts else text


def _cards(text: str) -> Iterator[tuple[int, int]]:
    """Where card numbers stand. What comes after one (a check code, say) may be digits, too."""
    for found in _CARD.finditer(text):
        for end in _GROUP_END.finditer(found[1]):
            digits = re.sub(r"\D", "", found[1][: end.start()])
            if len(digits) in CARD_DIGITS and luhn.is_valid(digits):
                yield found.start(), found.start() + end.start()
                break


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """Where addresses stand: looked for around each @, so that it takes time in proportion to the text."""
    at = -1
    while (at := text.find("@", at + 1)) >= 0:
        local = _LOCAL.search(text[max(0, at - LOCAL_LENGTH_MAX) : at])
        domain = _DOMAIN.match(text[at + 1 : at + 1 + DOMAIN_LENGTH_MAX])
        if local is None or domain is None:
            continue
        before, after = local[0].lstrip("'`./"), domain[0].rstrip("._-")
        if "." in after and _is_address(f"{before}@{after}"):
            yield at - len(before), at + 1 + len(after)


def _is_address(text: str) -> bool:
    """Whether this is an address, in whatever network: below `example` none is refused for being one of a place that
    the public name system does not have (`.local`)."""
    try:
        validate_email(f"{text}.example", check_deliverability=False, globally_deliverable=False)
    except (EmailNotValidError, UnicodeError):
        return False
    return True
