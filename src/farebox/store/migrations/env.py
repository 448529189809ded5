"""Alembic's entry: one connection, one transaction, forward only."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event

engine = create_engine(context.config.attributes["url"], connect_args={"timeout": 60})


@event.listens_for(engine, "connect")
def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


@event.listens_for(engine, "begin")
def _begin(connection: Connection) -> None:
    # Python's driver would commit before every CREATE; and of two processes that upgrade, one must wait.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


with engine.begin() as connection:
    context.configure(connection=connection, transactional_ddl=True)
    context.run_migrations()
engine.dispose()
