"""The Actor's files: what they say of the code is so."""

import json
import re
from pathlib import Path
from typing import Any

from openapi_spec_validator import OpenAPIV30SpecValidator

from farebox import __version__
from farebox.batch.entries import BatchResult
from farebox.batch.result_forms import ResultForm
from farebox.batch.running import CONCURRENCY, CONCURRENCY_MAX
from farebox.platform.priced_events import PRICED_EVENT
from farebox.settings import OPENROUTER_KEY_VARIABLE

ROOT = Path(__file__).parents[2]
ACTOR = ROOT / ".actor"


def read(name: str) -> Any:
    return json.loads((ACTOR / name).read_bytes())


def test_each_file_that_is_named_is_there() -> None:
    actor = read("actor.json")
    named = [actor[name] for name in ("dockerfile", "readme", "changelog", "input", "output", "webServerSchema")]
    for path in [*named, actor["storages"]["dataset"]]:
        assert (ACTOR / path).is_file(), path
    assert actor["version"] == ".".join(__version__.split(".")[:2])
    assert actor["environmentVariables"] == {OPENROUTER_KEY_VARIABLE: "@openRouterKey"}
    assert actor["usesStandbyMode"] is True
    assert actor["webServerMcpPath"] == "/mcp"


def test_the_servers_description_is_one_that_a_build_takes() -> None:
    document = read("openapi.json")
    assert document["openapi"].startswith("3.0.")
    assert [error.message for error in OpenAPIV30SpecValidator(document).iter_errors()] == []
    assert "/chat/completions" in document["paths"]
    text = json.dumps(document)
    assert not re.search(r'"type": \[', text), "a list of types is OpenAPI 3.1"
    assert '"const"' not in text


def test_an_empty_input_is_valid_and_the_bounds_are_the_codes() -> None:
    schema = read("input_schema.json")
    assert schema["required"] == []
    assert set(schema["properties"]) == {"requests", "concurrency", "results", "maxTotalChargeUsd"}
    results = schema["properties"]["results"]
    assert (results["enum"], results["default"]) == (list(ResultForm), ResultForm.FAREBOX)
    concurrency = schema["properties"]["concurrency"]
    assert (concurrency["default"], concurrency["minimum"], concurrency["maximum"]) == (CONCURRENCY, 1, CONCURRENCY_MAX)


def test_an_items_members_are_described() -> None:
    schema = read("dataset_schema.json")
    assert list(schema["fields"]["properties"]) == list(BatchResult.__struct_fields__)
    view = schema["views"]["overview"]
    assert set(view["transformation"]["fields"]) == set(view["display"]["properties"])
    assert set(view["display"]["properties"]) <= set(schema["fields"]["properties"])


def test_the_event_is_the_one_that_is_charged() -> None:
    assert list(read("pay_per_event.json")) == [PRICED_EVENT]
    assert read("pay_per_event.json")[PRICED_EVENT]["eventPriceUsd"] == 0.00001
