"""What an operator can mend: said in a line, without a traceback, and the status that a command then ends with."""

from farebox.accounts import BadTerms, NotFound, OtherTopUpBefore
from farebox.corrections import NotClosed, NotCorrectable
from farebox.ports import BooksUnavailable, NameTaken
from farebox.reconcile import NotOpen
from farebox.settings import BadSettings
from farebox.store.prepare import UnusableBooks


class CannotServe(Exception):  # noqa: N818
    """Why a server is not started."""


_TYPED_WRONG = (BadSettings, BadTerms, CannotServe)
"""Status 2: a bad setting or argument; 1: all else."""

MENDABLE = (
    *_TYPED_WRONG,
    NameTaken,
    NotFound,
    NotOpen,
    NotClosed,
    NotCorrectable,
    OtherTopUpBefore,
    UnusableBooks,
    BooksUnavailable,
)


def worded(error: Exception) -> tuple[str, int]:
    """Words for one that is mendable, each line after the program's name, and the status."""
    said = f"there is an account `{error}` already" if isinstance(error, NameTaken) else str(error)
    if isinstance(error, BooksUnavailable) and error.is_in_doubt:
        said += "; whether it was done is not known: look before you do it again"
    return lines(said), 2 if isinstance(error, _TYPED_WRONG) else 1


def lines(message: str) -> str:
    return "\n".join(f"farebox: {line}" for line in message.splitlines())
