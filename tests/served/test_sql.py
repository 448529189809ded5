"""The statements, each as its engine reads it."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec import Struct

from farebox.core.alerts import Delivery, Raised, Receiver
from farebox.core.allowances import DAY_US, Allowance
from farebox.core.books import (
    CASH,
    FARES,
    FIRST_CALLER_ACCOUNT,
    Balance,
    ChargedFare,
    HoldRow,
    KeptAnswer,
    KeyUse,
    Transfer,
)
from farebox.core.charges import Charge
from farebox.core.presets import PresetVersion
from farebox.core.runs import BilledEvents, Run
from farebox.store import rows, sql
from farebox.store.postgres import Postgres
from farebox.store.prepare import prepare
from farebox.store.sqlite import Sqlite
from tools.postgres import Cluster

NAMES = tuple(vars(Sqlite.sql))
OWN = ("shared.sql", "sqlite.sql", "postgres.sql")


def _in_line(name: str) -> str:
    return " ".join(getattr(Sqlite.sql, name).split())


_VALUE = re.compile(r"(?<!:):([a-z_]+)")


def test_the_statements_are_those_that_the_files_have_and_each_stands_in_one_place() -> None:
    texts = {name: files(sql).joinpath(name).read_text() for name in OWN}
    stands = {name: re.findall(r"^-- (\w+)(?: \(rows?\))? --$", text, re.MULTILINE) for name, text in texts.items()}
    assert [*stands["shared.sql"], *stands["sqlite.sql"]] == list(NAMES)
    assert stands["sqlite.sql"] == stands["postgres.sql"]


def test_sqlite_can_carry_out_every_statement(tmp_path: Path) -> None:
    prepare(f"sqlite:///{tmp_path}/books.db")
    db = sqlite3.connect(tmp_path / "books.db")
    for name in NAMES:
        statement = getattr(Sqlite.sql, name)
        by_name = dict.fromkeys(re.findall(r":(\w+)", statement))
        assert not (by_name and "?" in statement), name
        given: Any = by_name or [None] * statement.count("?")
        assert db.execute(f"EXPLAIN {statement}", given).fetchall(), name
    db.close()


def test_a_row_that_is_not_there_is_not_left_out_in_silence(tmp_path: Path) -> None:
    prepare(f"sqlite:///{tmp_path}/books.db")
    with closing(Sqlite(tmp_path / "books.db").connect_to_write()) as db:
        for rows in ([("gen-1", "h1")], [("gen-1", "h1"), ("gen-2", "h2")]):
            with pytest.raises(AssertionError):
                db.put_each(Sqlite.sql.name_generation, rows)
            with pytest.raises(AssertionError):
                db.put_rows(Sqlite.sql.name_generations, rows)


def test_postgresql_can_carry_out_every_statement(postgres: Cluster) -> None:
    with psycopg.connect(postgres.new_books()) as db:
        for name in NAMES:
            statement = getattr(Postgres.sql, name)
            by_name = dict.fromkeys(re.findall(r"%\((\w+)\)s", statement))
            assert not (by_name and "%s" in statement), name
            given: Any = by_name or [None] * statement.count("%s")
            if statement.startswith("LOCK"):  # which cannot be explained
                db.execute(statement.encode())
            else:
                assert db.execute(f"EXPLAIN {statement}".encode(), given).fetchall(), name


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            HoldRow,
            tuple(name for name in NAMES if re.search(r"(SELECT|RETURNING) id, .* worker, state,", _in_line(name))),
        ),
        (Balance, ("balance", "all_balances", "lock_balances", "insert_balance")),
        (Allowance, ("allowance", "all_allowances", "allowances_behind", "lock_allowances", "insert_allowance")),
        (KeyUse, ("key_use", "put_key_use")),
        (KeptAnswer, ("kept_answer", "put_answer")),
        (ChargedFare, ("all_charged_fares", "insert_charged_fare")),
        (Charge, ("due_charges", "all_charges", "insert_charge", "adopt_charge")),
        (Run, ("run_named", "take_up_runs", "runs_forward", "runs_backward", "insert_run")),
        (BilledEvents, ("note_bill",)),
        (Receiver, ("receivers",)),
        (Raised, ("raised", "raise_trouble", "note_raised")),
        (Delivery, ("deliveries", "claim_deliveries", "put_delivery")),
        (PresetVersion, ("latest_preset", "preset_version", "preset_versions", "latest_presets", "insert_preset")),
    ],
)
def test_columns_stand_in_the_order_of_the_fields(kind: type[Struct], names: tuple[str, ...]) -> None:
    columns = ", ".join(kind.__struct_fields__)
    for engine in (Sqlite, Postgres):
        for name in names:
            assert columns in re.sub(r"\s+", " ", getattr(engine.sql, name)), name


_STREAMED = 1
_NOT_MARKED_UP = 0
_DIGEST = b"digest"


@pytest.mark.parametrize(
    ("kind", "row", "names"),
    [
        (HoldRow, rows.hold_row, ("insert_holds",)),
        (HoldRow, rows.hold_changes, ("update_hold",)),
        (HoldRow, rows.hold_end, ("end_hold", "end_holds")),
        (HoldRow, rows.named_hold_end, ("end_named_hold", "end_named_holds")),
        (Transfer, rows.hold_transfer, ("insert_hold_transfers",)),
        (Transfer, rows.end_transfer, ("insert_end_transfers",)),
        (Transfer, rows.transfer_row, ("insert_transfer",)),
    ],
)
def test_a_rows_values_stand_in_the_order_of_its_statement(
    kind: type[Struct], row: Callable[[Any], tuple[object, ...]], names: tuple[str, ...]
) -> None:
    fields = [f"{name}_id" if name.endswith("_account") else name for name in kind.__struct_fields__]
    # What goes into SQLite as something else: a bool as a number, bytes as a bytearray.
    sent = {"streamed": _STREAMED, "marked_up": _NOT_MARKED_UP, "order_digest": _DIGEST}
    known = {value: name for name, value in sent.items()}
    given_back = (
        bytes(value) if isinstance(value, bytearray) else value
        for value in row(kind(*[sent.get(each, each) for each in fields]))
    )
    stands = [known.get(value, value) for value in given_back]
    for name in names:
        for own in OWN[1:]:
            text = "".join(files(sql).joinpath(file).read_text() for file in ("shared.sql", own))
            statement = text.partition(f"-- {name} (row")[2].partition(";")[0]
            as_json = re.search(r":rows::json\) AS \w+ \(([^)]*)\)", statement)
            given = [column.split()[0] for column in as_json[1].split(",")] if as_json else _VALUE.findall(statement)
            assert given == stands, (name, own)


def test_the_numbers_in_the_statements_are_the_ledgers() -> None:
    assert (CASH, FARES, FIRST_CALLER_ACCOUNT, DAY_US) == (0, 1, 2, 86_400_000_000)


def _doubled(own: str) -> str:
    return own + "\n-- transfer --\nSELECT 1;\n"


def _unknown(own: str) -> str:
    return own + "\n-- transefr --\nSELECT 1;\n"


def _missing(own: str) -> str:
    return own.replace("-- lock_holds --", "-- lock_hold --")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_doubled, ValueError, "transfer stands twice"),
        (_unknown, TypeError, "transefr"),
        (_missing, TypeError, "lock_hold"),
    ],
)
def test_statements_that_are_not_whole_are_not_loaded(
    tmp_path: Path, change: Callable[[str], str], error: type[Exception], said: str
) -> None:
    own = tmp_path / "own.sql"
    own.write_text(change(files(sql).joinpath("sqlite.sql").read_text()))
    with pytest.raises(error, match=said):
        sql.load(str(own), r":\1", "?")
