"""Coding agents, as people run them: each in an empty home does what it was asked with a tool of its own, is charged
for it, and says why at 402.

The prompt is a shell command, because the simulated model hands it to the first tool that needs one argument. The
versions are pinned by locks: `agents/package-lock.json`, `requirements/aider.txt` and `requirements/llm.txt`.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

import pytest

from tests.conftest import missing, npm_install
from tests.gateway import Gateway, eventually
from tests.pages import CLIENTS, PRINTED_HOST

ROOT = Path(__file__).parents[2]
AGENTS = Path(__file__).with_name("agents")
NODE_MAJOR_MIN = 22
PROMPT = "touch made.txt"
ANSWER = f"You said: {PROMPT}"


def shown(page: str, language: str) -> str:
    """The configuration that a page shows, with the simulator's model, and the gateway's address left open."""
    block = re.search(rf"```{language}\n(.*?)```", (CLIENTS / page).read_text(), re.DOTALL)
    assert block
    text = block[1].replace("{", "{{").replace("}", "}}").replace(PRINTED_HOST, "{host}")
    return re.sub("(openai|anthropic)/(gpt|claude)[-.\\w]*", "sim/echo", text)


LLM_TOOL = '''
def run(command: str) -> str:
    """Run a command in a shell."""
    import subprocess
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout or "done"
'''


@dataclass(frozen=True)
class Agent:
    """A command line for a prompt; what must be there first: files in the home, by their path, and the environment,
    both with `{host}` and `{key}` to be filled in."""

    command: Callable[[str], list[str]]
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    orders: int = 2
    refused: int = 1
    """How many orders it tries at 402."""


AGENT = {
    # All leave is given: in its own sandbox a command would need rights that containers have not.
    "codex": Agent(
        lambda prompt: ["codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", prompt],
        files={".codex/config.toml": shown("codex.md", "toml")},
        refused=6,
    ),
    "claude": Agent(
        lambda prompt: ["claude", "--model", "sim/echo", "--dangerously-skip-permissions", "-p", prompt],
        environment={
            "ANTHROPIC_BASE_URL": "{host}/api",
            "ANTHROPIC_AUTH_TOKEN": "{key}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",  # else it gives no such leave to root
        },
    ),
    "opencode": Agent(
        # A single argument would be quoted: `"touch made.txt"`.
        lambda prompt: ["opencode", "run", *prompt.split()],
        files={".config/opencode/opencode.json": shown("opencode.md", "json")},
        orders=3,
        refused=2,  # it asks for a title, too
    ),
    "qwen": Agent(
        lambda prompt: ["qwen", "--auth-type", "openai", "--yolo", "-p", f"{prompt} # run_shell_command"],
        environment={"OPENAI_API_KEY": "{key}", "OPENAI_BASE_URL": "{host}/api/v1", "OPENAI_MODEL": "sim/echo"},
    ),
    "llm": Agent(
        lambda prompt: ["llm", "-m", "farebox", "--functions", LLM_TOOL, prompt],
        files={
            ".config/io.datasette.llm/extra-openai-models.yaml": shown("llm.md", "yaml"),
            ".config/io.datasette.llm/keys.json": '{{"farebox": "{key}"}}',
        },
    ),
}

AIDER = Agent(
    lambda prompt: [
        *(
            "aider",
            "--model",
            "openai/sim/echo",
            "--no-git",
            "--yes-always",
            "--no-check-update",
            "--analytics-disable",
        ),
        *("--no-show-model-warnings", "--no-pretty", "--message", prompt, "made.txt"),
    ],
    environment={
        "OPENAI_API_KEY": "{key}",
        "OPENAI_API_BASE": "{host}/api/v1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
    },
    orders=1,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty home with a folder to work in."""
    (tmp_path / "work").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def programs(node: Path) -> str:
    """The folders with the agents' programs, as a PATH."""
    npm_install(AGENTS)
    modules = AGENTS / "node_modules"
    folders = [modules / ".bin", *modules.glob("@anthropic-ai/claude-code-linux-*"), *modules.glob("opencode-*/bin")]
    return os.pathsep.join(map(str, [*folders, *(ROOT / f".venv-{name}" / "bin" for name in ("aider", "llm"))]))


def node_major(path: str) -> int:
    version = subprocess.run([str(shutil.which("node", path=path)), "--version"], capture_output=True, text=True).stdout
    return int(version.strip().lstrip("v").split(".")[0])


def run(name: str, agent: Agent, prompt: str, gateway: Gateway, key: str, place: Path, programs: str) -> str:
    """Run an agent to its end; what it printed."""
    if shutil.which(name, path=programs) is None:
        missing(f"{name} is not tried: its package is none for this machine, or needs an older Python")
    path = os.pathsep.join([programs, os.environ["PATH"]])
    if name == "qwen" and (version := node_major(path)) < NODE_MAJOR_MIN:
        missing(f"Qwen Code is not tried: it needs Node {NODE_MAJOR_MIN}, and here is {version}")
    known = {"host": f"http://127.0.0.1:{gateway.port}", "key": key}
    for file, text in agent.files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text.format(**known))
    environment = {
        "HOME": str(place),
        "PATH": path,
        "FAREBOX_KEY": key,
        **{variable: value.format(**known) for variable, value in agent.environment.items()},
    }
    done = subprocess.run(
        agent.command(prompt),
        cwd=place / "work",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", AGENT)
def test_a_task_is_done_with_a_tool(shared_gateway: Gateway, programs: str, place: Path, name: str) -> None:
    account = f"{name} {token_hex(4)}"
    key = shared_gateway.new_key(account, "--plan", "paying", "--prepaid", "1")
    printed = run(name, AGENT[name], PROMPT, shared_gateway, key, place, programs)
    assert (place / "work" / "made.txt").exists(), printed
    assert ANSWER in printed
    assert [order["what"] for order in shared_gateway.orders(account)].count("fare") == AGENT[name].orders


def test_codex_does_it_on_a_websocket(shared_gateway: Gateway, programs: str, place: Path) -> None:
    account = f"codex on a websocket {token_hex(4)}"
    key = shared_gateway.new_key(account, "--plan", "paying", "--prepaid", "1")
    codex = AGENT["codex"]
    config = {name: f"{text}\nsupports_websockets = true\n" for name, text in codex.files.items()}
    on_it = replace(codex, files=config, environment={"RUST_LOG": "codex_api=info"})
    printed = run("codex", on_it, PROMPT, shared_gateway, key, place, programs)
    assert (place / "work" / "made.txt").exists(), printed
    # All of it: it would go on over HTTP by itself where it cannot connect.
    assert "successfully connected to Responses WebSocket" in printed
    assert [order["what"] for order in shared_gateway.orders(account)].count("fare") == codex.orders


def test_aider_edits_a_file(shared_gateway: Gateway, programs: str, place: Path) -> None:
    account = f"aider {token_hex(4)}"
    key = shared_gateway.new_key(account, "--plan", "paying", "--prepaid", "1")
    prompt = "made.txt\n```\nHello from aider\n```\n"
    printed = run("aider", AIDER, f"Write:\n\n{prompt}", shared_gateway, key, place, programs)
    assert (place / "work" / "made.txt").read_text() == "Hello from aider\n", printed
    assert [order["what"] for order in shared_gateway.orders(account)].count("fare") == AIDER.orders


@pytest.mark.parametrize("name", [*AGENT, "aider"])
def test_what_cannot_be_paid_is_shown_and_not_asked_for_again(
    shared_gateway: Gateway, programs: str, place: Path, name: str
) -> None:
    """As the agents' pages say. Codex repeats whatever its server says."""
    agent = {**AGENT, "aider": AIDER}[name]
    account = f"poor {name} {token_hex(4)}"
    key = shared_gateway.new_key(account, "--plan", "paying", "--prepaid", "0.00001")
    printed = run(name, agent, PROMPT, shared_gateway, key, place, programs)
    assert "Insufficient credits" in printed

    def refused() -> list[int]:
        lines = [line for line in shared_gateway.log.read_text().splitlines() if account in line]
        return [json.loads(line)["status"] for line in lines]

    # An order's line comes a moment after its answer.
    eventually(lambda: len(refused()) >= agent.refused)
    assert refused() == [402] * agent.refused, printed
