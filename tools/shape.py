"""The tail of the code's shape, in one line a measure: what to look at before it grows.

`python -m tools.shape [FOLDER]`. Code lines are those that are neither blank, comment nor docstring.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LONG_FUNCTION_LINES = 50
MANY_PARAMETERS = 6


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "src/farebox")
    trees = {path: ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}
    lines = {path: len(path.read_text().splitlines()) for path in trees}
    functions = [each for tree in trees.values() for each in ast.walk(tree) if isinstance(each, _FUNCTIONS)]
    long = [each for each in functions if _code_lines(each) > LONG_FUNCTION_LINES]
    many = [each for each in functions if _parameters(each) > MANY_PARAMETERS]
    catch_alls = [each for tree in trees.values() for each in ast.walk(tree) if _catches_all(each)]
    largest = max(lines, key=lambda path: lines[path])
    total = sum(lines.values())
    print(f"modules: {len(trees)}, of them at top level: {len(list(folder.glob('[!_]*.py')))}")
    print(f"lines: {total}")
    print(f"largest module: {lines[largest]} ({largest.relative_to(folder)})")
    print(f"functions over {LONG_FUNCTION_LINES} code lines: {len(long)} of {len(functions)}", *_named(long))
    print(f"functions with over {MANY_PARAMETERS} parameters: {len(many)}", *_named(many))
    print(f"catch-alls a 1,000 lines: {1000 * len(catch_alls) / total:.2f}")
    print(f"modules in import rings: {len(_in_rings(folder, trees))}")


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _named(functions: list[_Function]) -> list[str]:
    return sorted(each.name for each in functions)


def _code_lines(function: _Function) -> int:
    """Lines on which something other than a docstring stands."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return len({line for part in body for each in ast.walk(part) for line in _lines_of(each)})


def _lines_of(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.expr | ast.stmt):
        yield node.lineno
        yield node.end_lineno or node.lineno


def _parameters(function: _Function) -> int:
    given = function.args
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")])


def _catches_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def _in_rings(folder: Path, trees: dict[Path, ast.Module]) -> set[str]:
    """The modules that import themselves, over others. Imports for types alone count, too."""
    names = {_name(folder, path): tree for path, tree in trees.items()}
    imports = {name: set(_imported(tree)) & names.keys() - {name} for name, tree in names.items()}
    return {name for name in names if name in _reached(name, imports)}


def _name(folder: Path, path: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module) -> Iterator[str]:
    for each in ast.walk(tree):
        if isinstance(each, ast.Import):
            yield from (alias.name for alias in each.names)
        elif isinstance(each, ast.ImportFrom) and each.module:
            yield each.module
            yield from (f"{each.module}.{alias.name}" for alias in each.names)


def _reached(start: str, imports: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imports[name]
    return reached


if __name__ == "__main__":
    main()
