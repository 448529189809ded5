"""What tests share. A tool that is missing is installed; where that cannot be, its tests are skipped, loudly."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.gateway import Gateway

# More of them for a long run: FAREBOX_EXAMPLES=200000 make test
settings.register_profile("farebox", deadline=None, max_examples=int(os.environ.get("FAREBOX_EXAMPLES", "100")))
settings.load_profile("farebox")

NODE = Path(__file__).with_name("node")
NODE_MAJOR_MIN = 18


@pytest.fixture(scope="session")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for every test that only adds accounts of its own."""
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running
        running.audit()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of the test's own, started for it."""
    with Gateway(tmp_path) as running:
        yield running


def missing(reason: str) -> None:
    """Skip; under CI fail: there, a skip would hide a missing set-up step."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node() -> Path:
    """The folder with the npm packages, installed."""
    if not _has_node() and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run("apt-get update -qq && apt-get install -y -qq nodejs npm", shell=True, capture_output=True)
    if not _has_node():
        missing(f"Node {NODE_MAJOR_MIN} or newer is not installed, so the TypeScript SDKs are not tried")
    npm_install(NODE)
    return NODE


def npm_install(folder: Path) -> None:
    """Install what the folder's lock names, if that has not been done."""
    stamp = folder / "node_modules" / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            missing(f"the npm packages could not be installed: {done.stderr[-500:]}")


def _has_node() -> bool:
    if not shutil.which("npm") or not (node := shutil.which("node")):
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    return int(version.strip().lstrip("v").split(".")[0]) >= NODE_MAJOR_MIN
