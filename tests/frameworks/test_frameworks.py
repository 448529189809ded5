"""Frameworks that people build on, as they call: each script says what it tries, and prints a line for each check.

Run by `make test-frameworks`, which installs them apart: they bring a hundred packages along.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import npm_install
from tests.gateway import Gateway
from tests.pages import CLIENTS, assert_prints, examples

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PYTHON = ROOT / ".venv-frameworks" / "bin" / "python"
PLATFORM = HERE / "platform"


def run(gateway: Gateway, command: list[str], folder: Path) -> int:
    """Run a script on the gateway; gives how many checks held."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "BASE": gateway.base, "KEY": gateway.key},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.count("ok ")


@pytest.mark.parametrize(
    ("script", "checks"), [("langchain", 3), ("llamaindex", 1), ("pydantic_ai", 4), ("litellm", 3)]
)
def test_python(shared_gateway: Gateway, script: str, checks: int) -> None:
    assert run(shared_gateway, [str(PYTHON), f"use_{script}.py"], HERE) == checks


def test_vercels_ai_sdk(shared_gateway: Gateway, node: Path) -> None:
    npm_install(HERE / "node")
    assert run(shared_gateway, ["node", "ai-sdk.mjs"], HERE / "node") == 8


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_platforms_python_client(shared_gateway: Gateway, version: int) -> None:
    # The third is in the tests' own environment.
    python = ROOT / (".venv" if version == 3 else f".venv-apify{version}") / "bin" / "python"
    which = [str(python), "-c", "from importlib.metadata import version; print(version('apify-client'))"]
    assert subprocess.run(which, capture_output=True, text=True).stdout.startswith(f"{version}.")
    assert run(shared_gateway, [str(python), "use_apify.py"], HERE) == 3


def test_the_platforms_javascript_client(shared_gateway: Gateway, node: Path) -> None:
    npm_install(PLATFORM)
    assert run(shared_gateway, ["node", "apify.mjs"], PLATFORM) == 7


def test_the_bridge_to_mcp(shared_gateway: Gateway, node: Path) -> None:
    npm_install(PLATFORM)
    assert run(shared_gateway, ["node", "mcp-remote.mjs"], PLATFORM) == 2


def test_the_platforms_command(shared_gateway: Gateway, node: Path, tmp_path: Path) -> None:
    npm_install(PLATFORM)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "APIFY_CLIENT_BASE_URL": f"http://127.0.0.1:{shared_gateway.port}",
        "APIFY_DISABLE_KEYRING": "1",
        "APIFY_CLI_DISABLE_TELEMETRY": "1",
    }
    apify = PLATFORM / "node_modules" / ".bin" / "apify"

    def shell(line: str) -> str:
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shell(f"{apify} login --token {shared_gateway.key}")
    assert json.loads(shell(f"echo '{{}}' | {apify} call apify/openrouter --silent --output-dataset")) == []
    order = json.dumps({"requests": [{"model": "sim/echo", "messages": [{"role": "user", "content": "Hi"}]}]})
    (item,) = json.loads(shell(f"echo '{order}' | {apify} call apify/openrouter --silent --output-dataset"))
    assert (item["status"], item["fare_usd"]) == (200, "0.00001")


@pytest.mark.parametrize(("page", "blocks"), [("frameworks.md", 4), ("ai-sdk.md", 1)])
def test_the_pages_are_right(shared_gateway: Gateway, node: Path, tmp_path: Path, page: str, blocks: int) -> None:
    npm_install(HERE / "node")
    shown = list(examples(CLIENTS / page))
    assert len(shown) == blocks
    for example in shown:
        assert_prints(example, shared_gateway, tmp_path, str(PYTHON), HERE / "node" / "node_modules")
