"""Alembic's entry: one connection, one transaction, forward only; of two processes that upgrade, one waits."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event

UPGRADING = 7_023_412_904
"""Any number that no worker's lock has."""

url = context.config.attributes["url"]
is_sqlite = url.startswith("sqlite")
if is_sqlite:
    engine = create_engine(url, connect_args={"timeout": 60})
else:
    from farebox.store.postgres import Postgres

    engine = create_engine("postgresql+psycopg://", creator=Postgres(url).to_migrate)

if is_sqlite:

    @event.listens_for(engine, "connect")
    def _leave_transactions_to_us(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        # Holds only where the file is empty yet. Half of SQLite's own: an order changes a few rows in each of some
        # trees, so what is written of it is mostly rows that stay as they are.
        connection.execute("PRAGMA page_size = 2048")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Python's driver would commit before every CREATE.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


with engine.begin() as connection:
    if not is_sqlite:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADING})")
    context.configure(connection=connection, transactional_ddl=True)
    context.run_migrations()
engine.dispose()
