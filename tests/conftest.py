"""What tests share. A tool that is missing is installed; where that cannot be, its tests are skipped, loudly."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from secrets import token_hex

import pytest
from hypothesis import settings

from tests.apify_platform import Platform
from tests.gateway import Gateway
from tests.programs import simulator
from tools.postgres import Cluster
from tools.postgres import find as find_postgres

# More of them for a long run: FAREBOX_EXAMPLES=200000 make test
settings.register_profile("farebox", deadline=None, max_examples=int(os.environ.get("FAREBOX_EXAMPLES", "100")))
settings.load_profile("farebox")

NODE = Path(__file__).with_name("node")
NODE_MAJOR_MIN = 18


LONG = ("test_chaos.py", "test_platform_and_actor.py", "test_crash_points.py", "test_postgres.py", "test_actor.py")
"""Files whose tests take long and mostly wait: the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones, at each worker with some of them: each begins with an equal part of the list, and takes
    tests from others later (`--dist worksteal`). So none of them is the last, with nothing beside it. Files of
    frameworks stay whole, since what their tests share takes long to start."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = sorted((item for item in items if item.path.name in LONG), key=lambda item: LONG.index(item.path.name))
    of_frameworks: dict[Path, list[pytest.Item]] = {}
    rest: list[pytest.Item] = []
    for item in items:
        if item.path.parent.name == "frameworks":
            of_frameworks.setdefault(item.path, []).append(item)
        elif item.path.name not in LONG:
            rest.append(item)
    whole = list(of_frameworks.values())
    ends = [len(items) * (worker + 1) // workers for worker in range(workers)]
    items.clear()
    for worker, end in enumerate(ends):
        items += long[worker::workers]
        items += chain.from_iterable(whole[worker::workers])
        taken = end - len(items)
        items += rest[:taken]
        del rest[:taken]


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


@pytest.fixture(scope="session")
def upstream() -> Iterator[int]:
    with simulator() as port:
        yield port


@pytest.fixture
def key(shared_gateway: Gateway, request: pytest.FixtureRequest) -> str:
    """The token of a user of the platform."""
    name = f"{request.function.__name__} {token_hex(4)}"
    return shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "5")


@pytest.fixture
def platform(shared_gateway: Gateway) -> Iterator[Platform]:
    with Platform(shared_gateway.port) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server for the session."""
    if find_postgres() is None:
        debian_install("postgresql")
    programs = find_postgres()
    if programs is None:
        missing("PostgreSQL is not installed, so the books are not tried in it")
        raise AssertionError
    cluster = Cluster(programs)
    yield cluster
    cluster.remove()


def missing(reason: str) -> None:
    """Skip; under CI fail: there, a skip would hide a missing set-up step."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def installing() -> Iterator[None]:
    """One process of the tests at a time installs something."""
    with (Path(tempfile.gettempdir()) / f"farebox-installing-{os.getuid()}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def debian_install(*packages: str) -> None:
    """Install Debian packages, where that can be done."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        with installing():
            command = f"apt-get update -qq && apt-get install -y -qq {' '.join(packages)}"
            subprocess.run(command, shell=True, capture_output=True)


def debian_extract(package: str) -> Path:
    """A Debian package's files, in a folder: nothing is installed, and nothing is started."""
    folder = Path(tempfile.gettempdir()) / f"farebox-{package}-{os.getuid()}"
    with installing():
        if not folder.exists() and shutil.which("apt-get"):
            with tempfile.TemporaryDirectory(dir="/tmp") as download:
                Path(download).chmod(0o777)
                update = "apt-get update -qq; " if os.geteuid() == 0 else ""
                command = f"{update}apt-get download -qq {package} && dpkg -x {package}_*.deb {folder}"
                subprocess.run(command, shell=True, cwd=download, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def node() -> Path:
    """The folder with the npm packages, installed."""
    if not _has_node():
        debian_install("nodejs", "npm")
    if not _has_node():
        missing(f"Node {NODE_MAJOR_MIN} or newer is not installed, so the TypeScript SDKs are not tried")
    npm_install(NODE)
    return NODE


def npm_install(folder: Path) -> None:
    """Install what the folder's lock names, if that has not been done."""
    stamp = folder / "node_modules" / ".package-lock.json"
    with installing():
        if stamp.exists() and stamp.stat().st_mtime >= (folder / "package-lock.json").stat().st_mtime:
            return
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        missing(f"the npm packages could not be installed: {done.stderr[-500:]}")


def _has_node() -> bool:
    if not shutil.which("npm") or not (node := shutil.which("node")):
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    return int(version.strip().lstrip("v").split(".")[0]) >= NODE_MAJOR_MIN
