"""The statements as SQL: `shared.sql` has what both engines read, `sqlite.sql` and `postgres.sql` what each reads in
its own way. Each is the text that the engine's driver is given. A test holds the code that uses them to the files.

A file has each under its heading, `-- name --`, with comments that say why below it. A value stands as `:name`, as
`sqlite3` and `psql` have it, so that a statement can be pasted into either. Each driver has its own mark for a value;
it is put there once, when the engine's module is loaded, and nothing else is changed.

Those marked `(rows)` write many rows at once, each engine in its own way. SQLite's stand there with one row behind
VALUES, which is repeated for as many as there are; PostgreSQL's have one value, a JSON list of objects.
"""

import re
from collections.abc import Mapping
from importlib.resources import files

_STATEMENT = re.compile(r"^-- (\w+)( \(rows?\))? --\n(.*?);$", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r"(?<!:):([a-z_]+)")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


class Statements:
    """An engine's statements, each an attribute under its name. Values are given by their names; to those marked
    `(row)` as a row, in the order in which they stand there, and to those marked `(rows)` as many such rows."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        vars(self).update(texts)

    def __getattr__(self, name: str) -> str:
        raise AttributeError(f"there is no statement {name}")


def load(own: str, value: str, value_of_row: str) -> Statements:
    """The statements of the engine whose own ones are in the file `own`.

    `value` is how its driver marks a value, with `\\1` where the name stands; `value_of_row`, the next value of a row.

    Raises:
        ValueError: a name stands twice.
        TypeError: they are not the same ones as SQLite's own.
    """
    found: dict[str, str] = {}
    for file in ("shared.sql", own):
        for name, mark, body in _read(file):
            if name in found:
                raise ValueError(f"the statement {name} stands twice")
            found[name] = _VALUE.sub(value_of_row if mark else value, _COMMENT.sub("", body))
    if other := {name for name, *_ in _read(own)} ^ {name for name, *_ in _read("sqlite.sql")}:
        raise TypeError(f"each engine has the same statements; {own} differs in {', '.join(sorted(other))}")
    return Statements(found)


def _read(file: str) -> list[tuple[str, str, str]]:
    """Each statement of a file: its name, its mark, its text."""
    return _STATEMENT.findall(files(__name__).joinpath(file).read_text(encoding="utf-8"))
