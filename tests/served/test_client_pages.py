"""The pages of docs/clients: their code runs as it stands and prints what they say."""

import sys
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.pages import CLIENTS, assert_prints, examples

ELSEWHERE = {"README.md", "frameworks.md", "ai-sdk.md", "opencode.md", "qwen-code.md", "aider.md", "llm.md"}
"""Run by `make test-frameworks`, but for the index."""

PAGES = sorted(page.name for page in CLIENTS.glob("*.md") if page.name not in ELSEWHERE)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_right(shared_gateway: Gateway, node: Path, tmp_path: Path, name: str) -> None:
    shown = list(examples(CLIENTS / name))
    assert shown
    # A client of its own account: what a page does once must work for the next reader too.
    key, shared_gateway.key = shared_gateway.key, shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    try:
        for example in shown:
            assert_prints(example, shared_gateway, tmp_path, sys.executable, node / "node_modules")
    finally:
        shared_gateway.key = key


def test_the_index_names_every_page() -> None:
    index = (CLIENTS / "README.md").read_text()
    for page in CLIENTS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
