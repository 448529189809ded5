"""The OpenAPI document is true, and the page that shows it shows all of it."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator
from schemathesis import checks
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from starlette.routing import Route

from farebox.app import Host, Hosted, stand_alone
from farebox.core.formats.table import ALIASES
from farebox.identity.keys import PlansInForce
from farebox.platform.priced_events import PRICED_EVENT
from farebox.ports import Upstreams
from farebox.store.books import SqlStore
from farebox.web import routes
from farebox.web.openapi import document
from tests.conftest import debian_install, missing
from tests.gateway import Gateway
from tests.in_process import ask, services
from tests.upstreams import HttpUpstream

DOCUMENT = document()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
# A NUL character is 400 wherever it stands in a query or a member (`test_bills`).
SCHEMA.config.generation.update(allow_x00=False)

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


OF_DATA = (checks.negative_data_rejection, checks.positive_data_acceptance)

OWN = SCHEMA.include(tag=["Orders", "Lists", "Account"]).exclude(path=[*ALIASES])
OTHERS = SCHEMA.exclude(tag=["Orders", "Lists", "Account"])


HOLDS_ELSEWHERE = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


def operations(schema: Any) -> list[str]:
    return [found.ok().label for found in schema.get_all_operations()]


def ask_all_there_is(operation: str, ask: Callable[[Any], None], examples: int) -> None:
    """Ask an operation all that the document lets one think of. It is thought of here, and not as `parametrize` has it,
    while tests are collected: that takes ten seconds, and each worker collects all tests. `from_fixture` would do so,
    and fails (findings/schemathesis-fixtures-fail-on-pytest-9-2.sh)."""
    told = settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    (built,) = get_all_tests(schema=SCHEMA.include(name=operation), test_func=ask, settings=told, given_kwargs=None)
    assert isinstance(built, Ok)
    _, test = built.ok()
    test()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Keeps its connections, and does not look for proxies with each request."""
    with requests.Session() as kept:
        kept.trust_env = False
        yield kept


@pytest.mark.parametrize("operation", operations(OWN))
def test_what_the_document_says_holds(operation: str, shared_gateway: Gateway, session: requests.Session) -> None:
    def ask(case: Any) -> None:
        # Whatever else is sent along as `x-api-key`: one good credential is enough.
        case.headers["authorization"] = f"Bearer {shared_gateway.key}"
        response = case.call(base_url=shared_gateway.base, session=session)
        # The names of a form's parts that mean something stand in the source, where it finds them.
        is_form = case.media_type == "multipart/form-data"
        case.validate_response(response, checks=[each for each in HOLDS if not (is_form and each in OF_DATA)])

    ask_all_there_is(operation, ask, examples=40)


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway in which anything may be made, and a management key of it."""
    with Gateway(tmp_path_factory.mktemp("visited")) as gateway:
        yield gateway, gateway.cli("management-key", "create", "--label", "tests")["key"]


@pytest.mark.parametrize("operation", operations(OTHERS))
def test_what_the_document_says_of_everything_else_holds(
    operation: str, visited: tuple[Gateway, str], session: requests.Session
) -> None:
    gateway, manager = visited

    def ask(case: Any) -> None:
        tag, under_root = case.operation.definition.raw["tags"][0], "servers" in DOCUMENT["paths"][case.path]
        case.headers["authorization"] = f"Bearer {manager if tag in ('Keys', 'Accounts', 'Alerts') else gateway.key}"
        base = f"http://127.0.0.1:{gateway.port}" if under_root else gateway.base
        response = case.call(base_url=base, session=session)
        if response.status_code not in (404, 405) or case.path_parameters:
            case.validate_response(response, checks=HOLDS_ELSEWHERE)

    ask_all_there_is(operation, ask, examples=5)


def test_the_document_is_valid(shared_gateway: Gateway) -> None:
    served = shared_gateway.request("GET", "/openapi.json").json
    assert [error.message for error in OpenAPIV30SpecValidator(served).iter_errors()] == []


@asynccontextmanager
async def as_an_actor(store: SqlStore, upstreams: Upstreams, plans: PlansInForce) -> AsyncIterator[Hosted]:
    """As where the platform is another."""
    async with stand_alone(store, upstreams, plans) as hosted:
        yield replace(hosted, has_run_api=False)


@pytest.mark.parametrize("host", [stand_alone, as_an_actor])
def test_the_document_has_every_path_with_its_methods_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-x")

    async def main(upstream_url: str) -> tuple[list[Route], Any]:
        async with services(tmp_path, upstream_url, host) as found:
            return routes.every_route(found), (await ask(routes.app(found), "GET", "/openapi.json")).json

    with HttpUpstream().serving() as upstream:
        table, served = asyncio.run(main(upstream.url))
    assert served == document(has_run_api=host is stand_alone)
    answered: dict[str, set[str]] = {}
    for route in table:
        path = re.sub(r":\w+}", "}", route.path)
        answered.setdefault(path, set()).update({method.lower() for method in route.methods or ()} - {"head"})
    # The second spelling of the Actor's paths is told of in words.
    for path in [path for path in answered if path.startswith("/v2/acts/")]:
        assert answered.pop(path) == answered[path.replace("/acts/", "/actors/")]
    told: dict[str, set[str]] = {}
    for path, methods in served["paths"].items():
        bases = [""] if methods.get("servers") == [{"url": "/"}] else [each["url"] for each in served["servers"]]
        told |= {base + path: set(methods) - {"servers"} for base in bases}
    assert told == answered


def test_every_parameter_in_a_path_is_described_and_every_credential_is_there() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if method == "servers":
                continue
            in_path = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
            named = {name for each in operation.get("security", []) for name in each}
            assert named <= set(DOCUMENT["components"]["securitySchemes"])
            assert all(each["description"] for each in operation.get("parameters", []))


class Documented:
    """Requests whose answers must be the documented ones."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway = gateway
        self.key = key

    def __call__(self, method: str, path: str, body: Any = None, *, of: str, status: int = 200) -> Any:
        """The answer to a request; `of` is the path that it is documented under."""
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json", "idempotency-key": "k"}
        base = "" if "servers" in DOCUMENT["paths"][of] else self.gateway.base.partition(str(self.gateway.port))[2]
        got = self.gateway.request(method, base + path, None if body is None else json.dumps(body).encode(), headers)
        assert got.status == status, (path, got.body)
        documented = DOCUMENT["paths"][of][method.lower()]["responses"][str(status)]["content"]
        media_type = got.headers["content-type"].partition(";")[0]
        schema = (documented.get(media_type) or documented["*/*"])["schema"]
        if media_type != "application/json":
            return got.body
        OAS30Validator({**schema, "components": DOCUMENT["components"]}).validate(got.json)
        return got.json


def test_answers_of_management_are_as_documented(visited: tuple[Gateway, str]) -> None:
    gateway, manager = visited
    ask = Documented(gateway, manager)
    terms = {"name": "documented", "plan": "paying", "prepaid_usd": 1, "limits": {"usd_per_day": 0.5}}
    account = ask("POST", "/admin/accounts", terms, of="/admin/accounts", status=201)["data"]
    ask("GET", "/admin/accounts", of="/admin/accounts")
    one = "/admin/accounts/{account}"
    ask("PATCH", f"/admin/accounts/{account['id']}", {"limits": {"usd_per_day": None}}, of=one)
    top_up = {"account": "documented", "amount_usd": 2}
    ask("POST", "/admin/top-ups", top_up, of="/admin/top-ups", status=201)
    ask("POST", "/admin/top-ups", top_up, of="/admin/top-ups")
    new = {"name": "first", "workspace_id": account["id"], "limit": 1, "limit_reset": "daily"}
    made = ask("POST", "/keys", new, of="/keys", status=201)
    path, key = f"/keys/{made['data']['hash']}", made["key"]
    assert gateway.chat(key).status == 200
    for method, body in (("GET", None), ("PATCH", {"name": "second", "expires_at": None})):
        ask(method, path, body, of="/keys/{hash}")
    ask("GET", "/keys", of="/keys")
    today = datetime.now(UTC).date()
    assert ask("GET", f"/activity?date={today}", of="/activity")["data"]
    ask("GET", f"/admin/accounts/{account['name']}", of=one)
    ask("DELETE", path, of="/keys/{hash}")
    alert, of = {"url": "https://localhost/x", "kinds": ["low_balance"]}, "/admin/alerts/{alert}"
    number = ask("POST", "/admin/alerts", alert, of="/admin/alerts", status=201)["data"]["id"]
    ask("GET", "/admin/alerts", of="/admin/alerts")
    ask("GET", f"/admin/alerts/{number}", of=of)
    ask("POST", f"/admin/alerts/{number}/test", {}, of=f"{of}/test")
    assert ask("GET", f"/admin/alerts/{number}/deliveries", of=f"{of}/deliveries")["data"]
    ask("DELETE", f"/admin/alerts/{number}", of=of)


def test_answers_of_runs_are_as_documented(visited: tuple[Gateway, str]) -> None:
    gateway, _ = visited
    ask = Documented(gateway, gateway.new_key("documented-runs", "--plan", "paying", "--prepaid", "2"))
    requests = {"requests": [{"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}]}
    begun = "/v2/actors/{actor}/runs"
    run = ask("POST", "/v2/actors/openrouter/runs?waitForFinish=60", requests, of=begun, status=201)["data"]
    ask("POST", "/v2/actors/openrouter/run-sync", {}, of="/v2/actors/{actor}/run-sync", status=201)
    charge = {"eventName": PRICED_EVENT, "count": 1}
    calls: list[tuple[str, Any, int]] = [
        ("POST /v2/actor-runs/{id}/charge", charge, 201),
        ("POST /v2/datasets/{id}/items", [{"a": 1}], 201),
        ("PUT /v2/key-value-stores/{id}/records/{key}", {"a": 1}, 201),
        ("PUT /v2/actor-runs/{id}", {"statusMessage": "well"}, 200),
        ("POST /v2/actor-runs/{id}/abort", None, 200),
    ]
    calls += [
        (f"GET {path}", None, 200)
        for path, methods in DOCUMENT["paths"].items()
        if path.startswith("/v2") and "get" in methods and "/run-sync" not in path
    ]
    names = {"{actor}": "openrouter", "{key}": "OUTPUT"}
    ids = {"builds": run["buildId"], "users": "documented-runs"}
    for line, body, status in calls:
        method, of = line.split(" ")
        path = of.replace("{id}", next((each for name, each in ids.items() if name in of), run["id"]))
        for name, value in names.items():
            path = path.replace(name, value)
        ask(method, path, body, of=of, status=status)
    gateway.audit()


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
    for path in DOCUMENT["paths"]:
        assert f"<b>{path}</b>" in seen.stdout
    for name in DOCUMENT["components"]["schemas"]:
        assert f'id="{name}"' in seen.stdout
    assert "Content Security Policy" not in seen.stderr
    assert "src=" not in seen.stdout
