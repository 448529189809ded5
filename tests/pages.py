"""Running the code that a page of the documentation shows, as it stands but for the port."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.gateway import Gateway

CLIENTS = Path(__file__).parent.parent / "docs" / "clients"
PRINTED_HOST = "http://127.0.0.1:8080"

_BLOCKS = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of code, and what the page says that it prints."""

    language: str
    code: str
    prints: str


def examples(page: Path) -> Iterator[Example]:
    """The blocks that the page shows with what they print."""
    blocks = _BLOCKS.findall(page.read_text())
    for (language, code), (kind, prints) in pairwise(blocks):
        if kind == "text" and language in ("python", "ts", "sh"):
            yield Example(language, code, prints)


def assert_prints(example: Example, gateway: Gateway, folder: Path, python: str, node_modules: Path) -> None:
    code = example.code.replace(PRINTED_HOST, f"http://127.0.0.1:{gateway.port}")
    assert code != example.code
    match example.language:
        case "python":
            command = [python, "-c", code]
        case "sh":
            command = ["bash", "-c", code]
        case _:
            (folder / "page.mjs").write_text(code)
            if not (folder / "node_modules").exists():
                (folder / "node_modules").symlink_to(node_modules)
            command = ["node", "page.mjs"]
    environment = {**os.environ, "FAREBOX_KEY": gateway.key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n") == example.prints.rstrip("\n")
