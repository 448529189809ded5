"""Open holds: orders whose cost nobody has said yet. Their money stays set aside, and is neither charged nor given back
until what they cost is known."""

from farebox.core.ledger import HoldRow
from farebox.ports import Books, Ledger


async def take_up_orphans(ledger: Ledger) -> list[HoldRow]:
    """Open the holds whose process died with them pending; to be done at every start."""
    return await ledger.open_orphans()


async def open_holds(books: Books) -> list[HoldRow]:
    """Every hold that waits for an answer, oldest first."""
    return await books.holds(("open",))
