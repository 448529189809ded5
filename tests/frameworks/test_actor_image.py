"""The Actor's files under the platform's own command, and its image's commands in a clean environment."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.actor import Actor
from tests.conftest import npm_install
from tests.gateway import clean_environment
from tools.postgres import free_port

ROOT = Path(__file__).parent.parent.parent
PLATFORM = Path(__file__).parent / "platform"
APIFY = PLATFORM / "node_modules" / ".bin" / "apify"
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".bench", ".site", "node_modules", ".*_cache", ".hypothesis", "data", "storage"
)
ENTRYPOINT = ("--entrypoint", "src/farebox/actor/__main__.py", "--allow-missing-secrets")


@pytest.fixture
def checkout(tmp_path: Path, node: Path) -> Path:
    """A copy of the repository, with the tests' environment."""
    npm_install(PLATFORM)
    copy = tmp_path / "farebox"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in clean_environment().items() if not name.startswith(("APIFY_", "ACTOR_"))}
    own = {"HOME": str(home), "APIFY_DISABLE_KEYRING": "1", "APIFY_CLI_DISABLE_TELEMETRY": "1"}
    return {**kept, **own, **more}


def apify(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(APIFY), *arguments],
        cwd=checkout,
        env=environment(checkout.parent),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_schemas_are_valid(checkout: Path) -> None:
    told = apify(checkout, "validate-schema")
    for kind in ("Input", "Dataset", "Output"):
        assert f"{kind} schema is valid" in told


def test_the_command_runs_orders(checkout: Path) -> None:
    order = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
    apify(checkout, "run", *ENTRYPOINT, "--input", "{}")
    outputs = checkout / "storage" / "key_value_stores" / "default"
    assert json.loads((outputs / "OUTPUT.json").read_bytes())["endpoint"]
    assert not (checkout / "storage" / "datasets" / "default").exists()
    apify(checkout, "run", *ENTRYPOINT, "--purge", "--input", json.dumps({"requests": [order, order]}))
    assert json.loads((outputs / "OUTPUT.json").read_bytes())["served"] == 2
    items = sorted((checkout / "storage" / "datasets" / "default").glob("0*.json"))
    assert [json.loads(item.read_bytes())["status"] for item in items] == [200, 200]


def test_the_command_serves_standby(checkout: Path) -> None:
    port = free_port()
    more = {"APIFY_META_ORIGIN": "STANDBY", "ACTOR_WEB_SERVER_PORT": str(port)}
    command = [str(APIFY), "run", *ENTRYPOINT]
    with serving(command, checkout, environment(checkout.parent, **more), port) as actor:
        assert actor.chat("anything").status == 200


@contextmanager
def serving(command: list[str], folder: Path, variables: dict[str, str], port: int) -> Iterator[Actor]:
    """A command that serves, once it answers the platform's probe."""
    actor = Actor(folder)
    actor.port = port
    log = folder / "serving.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=file, stderr=file, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not actor.is_ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield actor
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = re.sub(r"\\\n", " ", dockerfile).splitlines()
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in found]


def is_ignored(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore keeps a file from the image: its last rule that matches says."""
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if any(fnmatch.fnmatch(each, pattern) or fnmatch.fnmatch(each, pattern.replace("**/", "*")) for each in above):
            ignored = not rule.startswith("!")
    return ignored


def test_the_images_commands_make_an_actor_that_serves(tmp_path: Path) -> None:
    """Each instruction of the Dockerfile, in an empty folder and a clean environment for the image."""
    image = tmp_path / "image"
    image.mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    context = [path for path in tracked.splitlines() if not is_ignored(path, rules)]
    assert "src/farebox/actor/__main__.py" in context
    assert not [path for path in context if path.startswith(("tests/", "bench/", "docs/", ".git"))]
    subprocess.run([sys.executable, "-m", "venv", image / ".python"], check=True)
    variables = environment(tmp_path, PATH=f"{image / '.python' / 'bin'}:{os.environ['PATH']}")
    variables.pop("PYTHONPATH", None)
    command: list[str] = []
    for name, rest in instructions((ROOT / ".actor" / "Dockerfile").read_text()):
        if name == "COPY":
            *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
            for source in sources:
                copied = [path for path in context if path == source or path.startswith(f"{source}/")]
                assert copied, f"{source} does not come into the image"
                for path in copied:
                    inner = path.removeprefix(source).lstrip("/") or Path(source).name
                    destination = image / target / inner
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / path, destination)
        elif name == "RUN":
            done = subprocess.run(["sh", "-c", rest], cwd=image, env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        elif name == "CMD":
            command = json.loads(rest)
        else:
            assert (name, rest) == ("FROM", "apify/actor-python:3.13")
    assert command == ["python", "-m", "farebox.actor"]
    port = free_port()
    more = {"APIFY_META_ORIGIN": "STANDBY", "ACTOR_WEB_SERVER_PORT": str(port)}
    with serving(command, image, {**variables, **more}, port) as actor:
        assert actor.chat("anything").status == 200
        tools = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        headers["authorization"] = "Bearer anything"
        assert "list_models" in actor.request("POST", "/mcp", tools, headers).body.decode()
