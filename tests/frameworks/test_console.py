"""The console as people have it: in Debian's Chromium, driven by Playwright, looked at by axe."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import debian_install, missing, npm_install
from tests.gateway import Gateway

HERE = Path(__file__).parent
PYTHON = HERE.parent.parent / ".venv-browser" / "bin" / "python"


@pytest.mark.parametrize(("part", "tried"), [("light", 2), ("dark", 2), ("uses", 10)])
def test_every_page_in_a_browser(part: str, tried: int, gateway: Gateway, node: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        debian_install("chromium")
        chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is not installed, so nobody looks at the console")
    npm_install(HERE / "browser")
    manager = gateway.cli("management-key", "create", "--label", "Operations")["key"]
    gateway.chat(user="ann", metadata={"team": "search"})
    gateway.chat(simulate="usage=missing")
    done = subprocess.run(
        [os.environ.get("BROWSER_PYTHON", str(PYTHON)), "use_console.py", part],
        cwd=HERE,
        env={**os.environ, "BASE": gateway.base, "KEY": gateway.key, "MANAGER": manager, "CHROMIUM": str(chromium)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == tried
    gateway.audit()
