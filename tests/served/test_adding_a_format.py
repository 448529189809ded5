"""Adding a wire format is a module and a line in the table: nothing else names the formats."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from farebox.batch.entries import read_entry
from farebox.core.errors import Refusal
from farebox.core.formats.envelope import ERROR
from farebox.core.formats.table import BASES, FORMATS, format_at
from farebox.simulator.table import AT
from farebox.web import routes
from tests import tiny_format
from tests.in_process import ask, services
from tests.served.test_formats import EVENTS, STREAMS
from tests.served.test_odd_texts import WHOLE
from tests.upstreams import HttpUpstream
from tools import fuzz
from tools.chaos_upstreams import OneSimulator

ROOT = Path(__file__).parents[2]
WITH_TINY = {**FORMATS, "/tiny": tiny_format}


def test_a_format_in_the_table_is_served_billed_and_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-x")
    said = {"model": "a/b", "said": "hello", "usage": {"cost": 0.0001}}
    upstream = HttpUpstream(answer=[json.dumps(said).encode()], content_type="application/json")

    async def main() -> None:
        async with services(tmp_path, upstream.url, formats=WITH_TINY) as found:
            app = routes.app(found)
            account = await found.accounts.create("a", "paying", 0, 10**9)
            key, _, _ = await found.accounts.create_key("a", "")
            for base in BASES:
                answer = await ask(app, "POST", f"{base}/tiny", key, tiny_format.DESCRIBED.example)
                assert (answer.status, answer.json) == (200, said)
                assert answer.headers["x-farebox-fare-events"] == "10"
            assert (await found.accounts.balance(account)).debits_nanos == 2 * 100_000
            refused = await ask(app, "POST", "/v1/tiny", key, {"model": "a/b"})
            assert (refused.status, refused.error["metadata"]["error_type"]) == (400, "invalid_request")
            wrong = await ask(app, "GET", "/v1/tiny", key)
            assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
            document = (await ask(app, "GET", "/openapi.json")).json
            assert document["paths"]["/tiny"]["post"]["summary"] == "Tiny talk"
            assert [error.message for error in OpenAPIV30SpecValidator(document).iter_errors()] == []
            assert "<b>/tiny</b>" in (await ask(app, "GET", "/docs")).body.decode()

    with upstream.serving():
        asyncio.run(main())
    assert [json.loads(order) for order in upstream.orders] == [tiny_format.DESCRIBED.example] * 2


def test_a_format_in_the_table_can_be_ordered_in_a_batch() -> None:
    entry = json.dumps({"custom_id": "a", "url": "/v1/tiny", "body": tiny_format.DESCRIBED.example}).encode()
    assert (read_entry(1, entry, WITH_TINY).path, read_entry(1, entry, WITH_TINY).refusal) == ("/tiny", None)
    elsewhere = read_entry(1, entry, FORMATS).refusal
    assert isinstance(elsewhere, Refusal)
    assert ", ".join(f"/v1{path}" for path in FORMATS) in elsewhere.message


def test_what_is_spoken_at_a_path() -> None:
    for path, wire in WITH_TINY.items():
        assert {format_at(base + path, WITH_TINY) for base in BASES} == {wire}
    for path in ("/tiny", "/v2/tiny", "/v1/tiny/more", "/v1tiny", "/", ""):
        assert format_at(path, WITH_TINY) is FORMATS["/chat/completions"]


@pytest.mark.parametrize("path", FORMATS)
def test_what_a_format_says_of_itself_is_so(path: str) -> None:
    wire = FORMATS[path]
    example = dict(wire.DESCRIBED.example)
    asked = wire.read(json.dumps(example).encode())
    assert asked.models == (example["model"],)
    assert (asked.answers > 0) == bool(wire.CAPS)
    if wire.DESCRIBED.is_streamed:
        assert wire.read(json.dumps({**example, "stream": True}).encode()).streamed
    members = wire.DESCRIBED.request[1]["properties"]
    assert set(example) <= set(members)
    assert set(wire.CAPS) <= set(members)
    assert ("stream" in members) == wire.DESCRIBED.is_streamed
    error = json.loads(wire.refusal_body(Refusal(404, "not_found", "no")))
    named = set(wire.DESCRIBED.refusal[1]["properties"])
    assert set(error) <= named
    assert (named == {"error"}) == (wire.DESCRIBED.refusal is ERROR)


def test_every_place_that_has_something_for_each_format_has_it_for_all() -> None:
    """What only a format's own authors can write: its counterpart in the simulator, streams and answers to try, and
    orders for the tests of strength."""
    assert set(AT) == set(FORMATS)
    # What a job costs is known days later, and of its answer only what is known goes on.
    at_once = {path: wire for path, wire in FORMATS.items() if not wire.DESCRIBED.begins_job}
    assert {path for path, _ in OneSimulator.bodies} == set(at_once)
    assert set(WHOLE) == {path for path, wire in at_once.items() if not wire.DESCRIBED.gives_bytes}
    assert list(EVENTS) == STREAMS
    assert {wire for wire, _ in fuzz.REQUESTS} == set(FORMATS.values())
    # A batch's entry that names no path is of the format whose member it has.
    for member, path in {"params": "/messages", "messages": "/chat/completions", "input": "/responses"}.items():
        assert read_entry(1, json.dumps({member: {}}).encode(), FORMATS).path == path in FORMATS


@pytest.mark.parametrize("page", ["docs/api.md", "tests/node/fetch.mjs"])
def test_every_page_that_lists_the_formats_lists_all(page: str) -> None:
    assert [path for path in FORMATS if not re.search(rf"{path}\b", (ROOT / page).read_text())] == []


def test_no_module_but_the_table_names_every_format() -> None:
    listed = [
        module.relative_to(ROOT / "src/farebox").as_posix()
        for module in (ROOT / "src/farebox").rglob("*.py")
        if all(f'"{path}"' in module.read_text() for path in FORMATS)
    ]
    assert listed == ["core/formats/table.py"]
