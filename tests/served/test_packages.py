"""What a server runs beside its own code: what the lock names, whole and unchanged, and nothing that runs by itself.

Known weaknesses are looked up where there is a network: `pip-audit -r requirements/run.txt`.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest

from farebox import __version__
from tests.gateway import Gateway, clean_environment

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
    assert len(entries) >= len(locked(lock)) > 1  # one may be there twice, for two systems
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ; [^\n]+)? \\\n", entry), entry
        assert "--hash=sha256:" in entry
    assert "://" not in text
    assert "--index" not in text


def test_a_package_has_one_version_in_what_is_run_and_what_is_tested() -> None:
    run, dev = (locked(ROOT / "requirements" / f"{name}.txt") for name in ("run", "dev"))
    shared = run.keys() & dev.keys()
    assert len(shared) > 10
    assert {name: run[name] for name in shared} == {name: dev[name] for name in shared}


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


def run(command: list[str | Path], folder: Path) -> str:
    """Run it away from this tree; what it printed."""
    environment = clean_environment()
    for name in ("PYTHONPATH", "MYPYPATH"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a clean copy of what it is made of."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"
    folder = tmp_path_factory.mktemp("wheel")
    return folder / run([sys.executable, "-c", build, folder], tree).strip()


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python elsewhere that has the wheel, and beside it the packages of this one, but not this tree."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    run([sys.executable, "-m", "venv", folder], folder.parent)
    python = folder / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], folder.parent)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run([python, "-c", "import farebox; print(farebox.__file__)"], folder.parent).startswith(str(own))
    return python


def test_the_wheel_has_all_that_a_server_reads_and_says_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {"farebox/py.typed", "farebox/testing/__init__.py", "farebox/store/migrations/env.py"} <= names
    tree = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert {name for name in tree if "__pycache__" not in name} == {n for n in names if ".dist-info/" not in n}


def test_the_package_index_would_say_what_it_is(python: Path) -> None:
    show = "from importlib.metadata import metadata as m; x = m('farebox'); print(*x.items(), sep='\\n')"
    said = run([python, "-c", show], python.parent)
    assert "('License-Expression', 'Apache-2.0')" in said
    assert "('Requires-Python', '>=3.11')" in said
    assert "('Classifier', 'Typing :: Typed')" in said
    assert run([python.with_name("farebox"), "--version"], python.parent) == f"farebox {__version__}\n"


def test_what_is_installed_elsewhere_serves(python: Path, tmp_path: Path) -> None:
    """From an empty folder, with an empty home."""
    gateway = Gateway(tmp_path, HOME=str(tmp_path / "nobody"))
    gateway.makes_books = True
    gateway.python = str(python)
    gateway.environment.pop("PYTHONPATH", None)
    with gateway:
        assert gateway.chat().status == 200
        assert len(gateway.orders()) == 1
        assert f"Books: sqlite:///data/farebox.db in {tmp_path}\n" in gateway.banner
        assert "`farebox doctor`" in gateway.banner
        assert f"\n  alias farebox='{python.with_name('farebox')}'\n" in gateway.banner
    gateway.audit()


def test_a_users_test_is_typed_and_passes(python: Path, tmp_path: Path) -> None:
    """The page's own, against what is installed."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "test_use.py").write_text("\n".join(blocks))
    check: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    assert "no issues found" in run([*check, "test_use.py"], tmp_path)
    wrong = '\nPlaybook(Script(["text, not bytes"]), ORDER).play().fares.nothing\n'
    (tmp_path / "wrong.py").write_text("\n".join(blocks) + wrong)
    said = subprocess.run([*check, "wrong.py"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert "Found 2 errors" in said, said
    assert "3 passed" in run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_use.py"], tmp_path)
