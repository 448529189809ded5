"""What a server runs beside its own code: what the lock names, whole and unchanged, and nothing that runs by itself.

Known weaknesses are looked up where there is a network: `pip-audit -r requirements/run.txt`.
"""

import re
import subprocess
import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

TOOLS = {"pip", "setuptools", "farebox"}
"""In every environment, and in no lock."""


def everywhere(lock: Path) -> set[str]:
    """The packages that every system has: those without a marker."""
    return {match[1].lower() for match in re.finditer(r"^([\w.-]+)==[\w.!+-]+ \\$", lock.read_text(), re.MULTILINE)}


def locked(lock: Path) -> dict[str, str]:
    """Each package's version."""
    return {
        match[1].lower(): match[2] for match in re.finditer(r"^([\w.-]+)==([\w.!+-]+)", lock.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.stem for lock in LOCKS])
def test_each_package_is_pinned_by_hashes_and_comes_from_wherever_pip_looks(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) >= len(locked(lock)) > 3  # one may be there twice, for two systems
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ; [^\n]+)? \\\n", entry), entry
        assert "--hash=sha256:" in entry
    assert "://" not in text
    assert "--index" not in text


def test_what_is_installed_is_what_the_locks_name() -> None:
    named = locked(ROOT / "requirements" / "dev.txt")
    found = {each.metadata["Name"].lower().replace("_", "-"): each.version for each in distributions()}
    assert {name: version for name, version in found.items() if name not in TOOLS} == {
        name: version for name, version in named.items() if name in found
    }
    assert len(everywhere(ROOT / "requirements" / "run.txt")) > 10
    assert everywhere(ROOT / "requirements" / "run.txt") <= set(found)
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_package_brings_code_that_runs_without_being_imported() -> None:
    """A `.pth` file, or a module that Python loads at every start, is how stolen packages have stolen keys."""
    by_itself = re.compile(r"\.pth$|(^|/)(sitecustomize|usercustomize)\b")
    for name in locked(ROOT / "requirements" / "run.txt"):
        try:
            package: Distribution = distribution(name)
        except ModuleNotFoundError:
            continue  # for another system
        assert package.files, name
        assert not [file for file in package.files if by_itself.search(str(file))], name
