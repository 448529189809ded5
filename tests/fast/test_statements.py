"""The statements that the code names are those that the files have."""

import ast
from pathlib import Path

from farebox.store.sqlite import Sqlite

SOURCES = Path(__file__).parents[2] / "src" / "farebox"


def _is_called_sql(node: ast.expr) -> bool:
    match node:
        case ast.Name(id="sql") | ast.Attribute(attr="sql" | "_sql"):
            return True
        case _:
            return False


def test_code_names_every_statement_and_no_other() -> None:
    trees = [ast.parse(path.read_text()) for path in SOURCES.rglob("*.py")]
    attributes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert {node.attr for node in attributes if _is_called_sql(node.value)} == set(vars(Sqlite.sql))
