"""The OpenAPI document is true, and the page that shows it shows all of it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from openapi_spec_validator import OpenAPIV30SpecValidator
from schemathesis import checks

from farebox.core.formats.table import FORMATS
from farebox.web.openapi import document
from tests.conftest import debian_install, missing
from tests.gateway import Gateway

SCHEMA = schemathesis.openapi.from_dict(document())

HOLDS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.positive_data_acceptance,
]


@SCHEMA.parametrize()
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_what_the_document_says_holds(case: Any, shared_gateway: Gateway) -> None:
    # Whatever else is sent along as `x-api-key`: one good credential is enough.
    case.headers["authorization"] = f"Bearer {shared_gateway.key}"
    response = case.call(base_url=shared_gateway.base)
    case.validate_response(response, checks=HOLDS)


def test_the_document_is_valid(shared_gateway: Gateway) -> None:
    served = shared_gateway.request("GET", "/openapi.json").json
    assert [error.message for error in OpenAPIV30SpecValidator(served).iter_errors()] == []


def test_the_document_has_every_path_and_no_other(shared_gateway: Gateway) -> None:
    served = shared_gateway.request("GET", "/openapi.json")
    assert served.json == document()
    assert served.json["openapi"].startswith("3.0.")
    paths = set(served.json["paths"])
    assert {path for path, methods in served.json["paths"].items() if "post" in methods} == set(FORMATS)
    assert len(paths) == 4 + 9 + 3
    for path in paths - set(FORMATS):
        real = path.replace("{author}/{slug}", "sim/echo").replace("{model}", "sim%2Fecho")
        assert shared_gateway.request("GET", f"/v1{real}").status != 404, path


def test_the_page_in_a_browser(shared_gateway: Gateway, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        debian_install("chromium")
        chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is not installed, so the page is not looked at")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()
    )
    url = f"http://127.0.0.1:{shared_gateway.port}/docs"
    seen = subprocess.run(
        [str(chromium), *flags, f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    for path in document()["paths"]:
        assert f"<b>{path}</b>" in seen.stdout
    for name in document()["components"]["schemas"]:
        assert f'id="{name}"' in seen.stdout
    assert "Content Security Policy" not in seen.stderr
    assert "src=" not in seen.stdout
