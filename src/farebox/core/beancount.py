"""A ledger as beancount reads it (its Language Syntax: directives, strings, metadata)."""

from collections.abc import Iterator

from farebox.core.allowances import date_of
from farebox.core.entries import Asserted, Entry, Facts, Line, Opened, amount_text, one_line

OPENED_ON = "1970-01-01"
"""An account can be posted to from this day on."""


def head(title: str) -> str:
    return f'option "title" {_text(title)}\noption "operating_currency" "USD"\n\n'


def written(line: Line) -> str:
    match line:
        case Opened():
            return f"{OPENED_ON} open {line.account} USD\n{_facts((('name', line.name),) if line.name else (), 2)}"
        case Entry():
            return "".join(_entry(line))
        case Asserted():
            # A balance is that of a day's beginning. Without `~ 0`, one more or less in the last digit passes.
            return f"{date_of(line.day + 1)} balance {line.account} {amount_text(line.amount)} ~ 0 USD\n\n"


def _entry(entry: Entry) -> Iterator[str]:
    yield f"{date_of(entry.day)} * {_text(entry.payee)} {_text(entry.narration)}\n"
    yield _facts(entry.facts, 2)
    for posting in entry.postings:
        yield f"  {posting.account}  {amount_text(posting.amount)} USD\n"
        yield _facts(posting.facts, 4)
    yield "\n"


def _facts(facts: Facts, indent: int) -> str:
    return "".join(f"{' ' * indent}{name}: {_text(value)}\n" for name, value in facts)


def _text(text: str) -> str:
    escaped = one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
