"""The Node SDKs and plain fetch: each script says what it tries, and prints a line for each check that held."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.gateway import Gateway


@pytest.mark.parametrize(("script", "checks"), [("openrouter", 70), ("openai", 34), ("anthropic", 37), ("fetch", 37)])
def test_node(shared_gateway: Gateway, node: Path, script: str, checks: int) -> None:
    poor = shared_gateway.new_key(f"poor {script}", "--plan", "paying")
    done = subprocess.run(
        ["node", f"{script}.mjs"],
        cwd=node,
        env={**os.environ, "BASE": shared_gateway.base, "KEY": shared_gateway.key, "POOR_KEY": poor},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") >= checks
