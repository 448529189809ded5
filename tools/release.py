"""What must be so before a release: `make release-check`. Says what is not, and ends with 1."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from farebox import __version__

ROOT = Path(__file__).parents[1]


def faults(version: str, pyproject: str, changelog: str) -> list[str]:
    """What the version, `pyproject.toml` and `CHANGELOG.md` do not agree on; nothing where they do."""
    found = []
    if f'version = "{version}"' not in pyproject.splitlines():
        found.append(f"pyproject.toml does not say version {version}, as farebox.__version__ does")
    first = re.search(r"^## (.+)$", changelog, re.MULTILINE)
    if first is None or not re.fullmatch(rf"{re.escape(version)}, \d{{4}}-\d\d-\d\d", first[1]):
        said = f"`## {first[1]}`" if first else "nothing"
        found.append(f"CHANGELOG.md begins with {said}, not with `## {version}, YEAR-MONTH-DAY`")
    return found


def wheel_faults(version: str, folder: Path) -> list[str]:
    """Build the wheel from what is committed, and nothing else; what is wrong with it."""
    tree = folder / "tree"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    subprocess.run(["tar", "-x"], cwd=tree, input=archive, check=True)  # noqa: S607
    build = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    name = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    packed = set(zipfile.ZipFile(folder / name).namelist())
    named = {path.relative_to(tree / "src").as_posix() for path in (tree / "src").rglob("*") if path.is_file()}
    found = [f"{name} lacks {path}" for path in sorted(named - packed)]
    return found + ([] if name.startswith(f"farebox-{version}-") else [f"{name} is not version {version}"])


def main() -> None:
    """Print each fault; exit with 1 where there is one."""
    status = ["git", "status", "--porcelain"]
    dirty = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = [f"not committed: {line}" for line in dirty.splitlines()]
    found += faults(__version__, (ROOT / "pyproject.toml").read_text(), (ROOT / "CHANGELOG.md").read_text())
    with tempfile.TemporaryDirectory() as folder:
        found += wheel_faults(__version__, Path(folder))
    for fault in found:
        print(fault)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
