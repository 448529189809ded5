"""ARCHITECTURE.md names what is there: every module in its room, and the answer to each question a newcomer asks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "farebox"
PAGE = (ROOT / "ARCHITECTURE.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def rooms() -> dict[str, list[str]]:
    return {room.strip("`"): re.findall(r"`([a-z_.]+)`", modules) for room, modules in rows("The house")}


def test_every_module_stands_in_its_room() -> None:
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*"):
        room = path.parent.relative_to(PACKAGE.parent).as_posix() + "/"
        if path.suffix == ".py" and not path.name.startswith("_") and room != "farebox/store/migrations/versions/":
            found.setdefault(room, []).append(path.stem)
        elif path.suffix == ".sql":
            found.setdefault(room, []).append(path.name)
    named = rooms()
    assert {room: sorted(modules) for room, modules in named.items()} == {
        room: sorted(modules) for room, modules in found.items()
    }


def test_the_drawing_has_the_layers_that_lint_holds() -> None:
    drawing = PAGE.split("## The house\n")[1].split("```")[1]
    drawn = [re.match(r"\S+(?:  ?\S+/?)*?(?=   |$)", line) for line in drawing.strip().splitlines()]
    layers = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert layers is not None
    held = [set(re.findall(r"\w+", line)) for line in layers[1].splitlines()]
    assert [set(re.findall(r"\w+", line[0])) for line in drawn if line] == held


def names(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{name}" for name in names(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize(("file", "name"), [(row[1].strip("`"), row[2].strip("`")) for row in rows("Where is it?")])
def test_the_answer_to_a_newcomers_question_stands_there(file: str, name: str) -> None:
    text = (PACKAGE / file).read_text()
    assert f"-- {name} " in text if file.endswith(".sql") else name in names(ast.parse(text))


def test_there_are_twenty_questions_and_more() -> None:
    assert len(rows("Where is it?")) >= 20
