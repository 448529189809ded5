"""Frameworks that people build on, as they call: each script says what it tries, and prints a line for each check.

Run by `make test-frameworks`, which installs them apart: they bring a hundred packages along.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import npm_install
from tests.gateway import Gateway
from tests.pages import CLIENTS, assert_prints, examples

HERE = Path(__file__).parent
PYTHON = HERE.parent.parent / ".venv-frameworks" / "bin" / "python"


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
    assert run(shared_gateway, ["node", "ai-sdk.mjs"], HERE / "node") == 7


@pytest.mark.parametrize(("page", "blocks"), [("frameworks.md", 4), ("ai-sdk.md", 1)])
def test_the_pages_are_right(shared_gateway: Gateway, node: Path, tmp_path: Path, page: str, blocks: int) -> None:
    npm_install(HERE / "node")
    shown = list(examples(CLIENTS / page))
    assert len(shown) == blocks
    for example in shown:
        assert_prints(example, shared_gateway, tmp_path, str(PYTHON), HERE / "node" / "node_modules")
