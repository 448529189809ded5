"""What the README shows, run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from farebox.settings import OTHER_VARIABLES, Settings
from tests.gateway import Gateway, clean_environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PRINTED_BASE = "http://127.0.0.1:8080/api"


def block(heading: str) -> str:
    """The first code block under a heading, for the gateway of the test instead of that of the reader."""
    found = re.search(rf"### {re.escape(heading)}\n.*?```\w+\n(.*?)```", README, re.DOTALL)
    assert found, heading
    assert PRINTED_BASE in found[1]
    return found[1]


@pytest.fixture
def environment(shared_gateway: Gateway) -> dict[str, str]:
    return {**os.environ, "FAREBOX_KEY": shared_gateway.key}


def run(command: list[str], environment: dict[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(shared_gateway: Gateway, environment: dict[str, str]) -> None:
    script = block("curl").replace(PRINTED_BASE, shared_gateway.base.removesuffix("/v1"))
    assert "You said: Hello" in run(["bash", "-c", script], environment)


def test_the_openai_sdk(shared_gateway: Gateway, environment: dict[str, str]) -> None:
    script = block("OpenAI SDK (Python)").replace(PRINTED_BASE, shared_gateway.base.removesuffix("/v1"))
    assert run([sys.executable, "-c", script], environment) == "You said: Hello\n"


def test_the_anthropic_sdk(shared_gateway: Gateway, environment: dict[str, str]) -> None:
    script = block("Anthropic SDK (Python)").replace(PRINTED_BASE, shared_gateway.base.removesuffix("/v1"))
    assert run([sys.executable, "-c", script], environment) == "You said: Hello\n"


def test_the_openrouter_sdk(shared_gateway: Gateway, environment: dict[str, str], node: Path, tmp_path: Path) -> None:
    script = block("OpenRouter SDK (TypeScript)").replace(PRINTED_BASE, shared_gateway.base.removesuffix("/v1"))
    (tmp_path / "readme.mjs").write_text(script)
    (tmp_path / "node_modules").symlink_to(node / "node_modules")
    assert run(["node", "readme.mjs"], environment, tmp_path) == "You said: Hello 0.00000255\n"


def test_its_statement_and_audit_are_what_is_printed(gateway: Gateway) -> None:
    for _ in range(3):
        gateway.chat()
    shown = re.search(r"```console\n(.*?)```", README, re.DOTALL)
    assert shown

    def shape(text: str) -> str:
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME-TIME-TIME-TIME-TIME", text)
        return re.sub(r"gen-[\w-]+", "GENERATION", text).strip()

    statement, audit = re.split(r"\$ \.venv/bin/farebox (?:statement demo|audit)\n", shown[1])[1:]
    assert shape(gateway.run("statement", "demo").stdout) == shape(statement)
    assert shape(gateway.run("audit").stdout) == shape(audit)


def test_its_commands_make_accounts_where_there_were_no_books(tmp_path: Path) -> None:
    section = README.partition("## Real models, accounts and plans")[2]
    shown = re.search(r"```sh\n(.*?)make serve\n```", section, re.DOTALL)
    assert shown
    script = "set -e\n" + shown[1].replace(".venv/bin/farebox", f"{sys.executable} -m farebox")
    said = run(["bash", "-c", script], clean_environment(), tmp_path)
    assert re.search(r"alice +paying +prepaid +20 ", said)
    assert re.search(r"^sk-fb-[\w-]{43}$", said, re.MULTILINE)
    assert [path.name for path in (tmp_path / "data").glob("*.db")] == ["real.db"]


def test_each_setting_that_a_page_names_is_one() -> None:
    known = {f"FAREBOX_{name.upper()}" for name in Settings.__struct_fields__} | {*OTHER_VARIABLES, "FAREBOX_EXAMPLES"}
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert len(pages) > 20
    for page in pages:
        named = set(re.findall(r"FAREBOX_[A-Z_]+[A-Z]", page.read_text()))
        assert named <= known, (page, named - known)


def test_each_test_that_a_page_names_is_there() -> None:
    there = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")]
    for page in ROOT.glob("docs/**/*.md"):
        for named in re.findall(r"`([\w/]*(?:test_\w+|gateway)\.py)`", page.read_text()):
            assert any(path.endswith(f"/{named}") or path == named for path in there), (page, named)
