"""docs/extending.md, done step by step: an upstream and a format that are added to a copy of the package serve."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import farebox
from farebox.upstream.table import KINDS
from tests.gateway import Gateway
from tests.pages import assert_prints, examples

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
STEP = re.compile(r"`src/(farebox/[\w/]+\.py)`[^\n]*:\n\n```(python|diff)\n(.*?)```", re.DOTALL)
SETTINGS = re.compile(r"(FAREBOX_\w+)=(\S+)")


def follow(page: str, source: Path) -> None:
    """Make the files that the page makes, and the changes that it shows."""
    for name, language, code in STEP.findall(page):
        file = source / name
        if language == "python":
            assert not file.exists(), name
            file.write_text(code)
            continue
        lines = code.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        text = file.read_text()
        assert text.count(before) == 1, (name, before)
        file.write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of a package that was extended as the page says; its key is of the account `me`."""
    source = tmp_path_factory.mktemp("src")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(farebox.__file__).parent, source / "farebox", ignore=ignored)
    page = PAGE.read_text()
    follow(page, source)
    settings = dict(SETTINGS.findall(page))
    gateway = Gateway(tmp_path_factory.mktemp("serve"), PYTHONPATH=str(source), **settings)
    gateway.python = sys.executable
    with gateway:
        gateway.key = gateway.new_key("me", "--plan", "paying", "--prepaid", "5")
        yield gateway


def test_orders_are_served_and_charged_as_the_page_says(extended: Gateway, tmp_path: Path) -> None:
    for example in examples(PAGE):
        assert_prints(example, extended, tmp_path, "", tmp_path)
    orders = extended.orders("me")
    assert [(order["events"], order["cost_usd"]) for order in orders] == [(2, "0.00002"), (4, "0.00004")]
    extended.audit()


def test_lists_and_records_are_the_added_upstreams(extended: Gateway) -> None:
    answer = extended.chat(model="echo/echo", messages=[{"role": "user", "content": "one two three"}])
    headers = {"authorization": f"Bearer {extended.key}"}
    record = extended.request("GET", f"/api/v1/generation?id={answer.headers['x-generation-id']}", headers=headers)
    assert (record.json["data"]["model"], record.json["data"]["farebox_fare_events"]) == ("echo/echo", 3)
    models = extended.request("GET", "/api/v1/models", headers=headers).json["data"]
    assert [(model["id"], model["owned_by"]) for model in models] == [("echo/echo", "echo")]
    assert extended.request("GET", "/api/v1/providers", headers=headers).status == 404


def test_the_added_format_is_described_and_its_refusals_are_worded(extended: Gateway) -> None:
    paths = extended.request("GET", "/openapi.json").json["paths"]
    assert paths["/completions"]["post"]["summary"] == "Completions"
    headers = {"authorization": f"Bearer {extended.key}", "content-type": "application/json"}
    refused = extended.request("POST", "/v1/completions", {"model": "echo/echo"}, headers)
    assert "prompt" in refused.error["message"]


def test_what_the_added_upstream_refuses_costs_nothing(extended: Gateway) -> None:
    assert extended.chat(model="echo/echo", stream=True).status == 400
    order = extended.orders("me")[-1]
    assert order["what"] == "not served"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"FAREBOX_UPSTREAM_KIND": "ehco"}, "FAREBOX_UPSTREAM_KIND: there is no kind `ehco`, only 'openrouter'"),
        ({"FAREBOX_UPSTREAM_KIND": "echo"}, "FAREBOX_UPSTREAM_URL: not set, and the kind `echo` has no URL of its own"),
    ],
)
def test_a_kind_that_cannot_be_made_is_refused_at_the_start(
    extended: Gateway, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    other = Gateway(tmp_path, PYTHONPATH=extended.environment["PYTHONPATH"], **settings)
    other.python = extended.python
    done = other.run("serve", "--port", "0")
    assert done.returncode == 2
    assert said in done.stderr


def test_the_package_itself_has_three_kinds() -> None:
    assert list(KINDS) == ["openrouter", "openai", "anthropic"]
