"""What the code imports is declared, and has its sentence."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
NAMES = {re.split(r"[ \[<>=!~]", each)[0] for each in DECLARED}


def imported() -> Iterator[tuple[Path, str]]:
    """Each module that a file imports from outside, by its first name."""
    for path in ROOT.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "farebox":
                    yield path, top


def test_each_package_that_is_imported_is_declared() -> None:
    providers = packages_distributions()
    found = list(imported())
    assert len({top for _, top in found}) > 10
    for path, top in found:
        given = {name.lower().replace("_", "-") for name in providers[top]}
        assert given & NAMES, (path, top, given)


def test_the_page_names_each_dependency_with_its_oldest_version() -> None:
    asked = {(each, "") for each in PROJECT["dependencies"]}
    asked |= {(each, extra) for extra, several in PROJECT["optional-dependencies"].items() for each in several}
    told: set[tuple[str, str]] = set()
    for line in (ROOT / "docs/decisions/dependencies.md").read_text().splitlines()[7:]:
        named, why, cost = [part.strip() for part in line.strip("|").split(" | ")]
        assert why
        assert cost
        extra = re.search(r" \(extra `(\w+)`\)$", named)
        for each in named.removesuffix(extra[0] if extra else "").split(", "):
            told.add((each, extra[1] if extra else ""))
    assert told == {(re.sub(r"\[.*\]", "", each), extra) for each, extra in asked}
