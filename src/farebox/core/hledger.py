"""A ledger as hledger reads it (its manual's Journal: transactions, tags, directives)."""

from collections.abc import Iterator

from farebox.core.allowances import date_of
from farebox.core.entries import Asserted, Entry, Facts, Line, Opened, amount_text, one_line


def head(title: str) -> str:
    # hledger lets an entry be off by what is not shown of its commodity: so nano-dollars are shown.
    return f"; {one_line(title)}\ndecimal-mark .\ncommodity 1.000000000 USD\n\n"


def written(line: Line) -> str:
    match line:
        case Opened():
            return f"account {line.account}{_facts((('name', line.name),) if line.name else ())}\n"
        case Entry():
            return "".join(_entry(line))
        case Asserted():
            said = f"  {line.account}  0.000000000 USD = {amount_text(line.amount)} USD\n\n"
            return f"{date_of(line.day)} * Balance\n{said}"


def _entry(entry: Entry) -> Iterator[str]:
    payee, narration = _text(entry.payee).replace("|", "/"), _text(entry.narration)
    yield f"{date_of(entry.day)} * {payee} | {narration}{_facts(entry.facts)}\n"
    for posting in entry.postings:
        yield f"  {posting.account}  {amount_text(posting.amount)} USD{_facts(posting.facts)}\n"
    yield "\n"


def _facts(facts: Facts) -> str:
    """Tags, which end at a comma."""
    tags = ", ".join(f"{name}:{one_line(value).replace(',', ' ')}" for name, value in facts)
    return f"  ; {tags}" if tags else ""


def _text(text: str) -> str:
    """A description, which ends where a comment begins. What stands first in it must be no mark and no code."""
    plain = one_line(text).replace(";", ",")
    return f"-{plain}" if plain[:1] in ("*", "!", "(", "|", "=") else plain
