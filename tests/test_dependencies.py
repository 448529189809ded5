"""What is installed with Farebox is what the page about it says, to the version."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_names_each_dependency_with_its_oldest_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {(each, "") for each in project["dependencies"]}
    asked |= {(each, extra) for extra, several in project["optional-dependencies"].items() for each in several}
    told: set[tuple[str, str]] = set()
    for line in (ROOT / "docs/decisions/dependencies.md").read_text().splitlines()[7:]:
        named, why, cost = [part.strip() for part in line.strip("|").split(" | ")]
        assert why
        assert cost
        extra = re.search(r" \(extra `(\w+)`\)$", named)
        for each in named.removesuffix(extra[0] if extra else "").split(", "):
            told.add((each, extra[1] if extra else ""))
    assert told == {(re.sub(r"\[.*\]", "", each), extra) for each, extra in asked}
