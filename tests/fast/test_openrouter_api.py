"""What becomes of each method of OpenRouter's SDKs: the table in docs/api.md is whole, and true."""

from importlib.metadata import version

from farebox.web.not_here import AREAS, area_of, not_here
from tools.openrouter_api import PYPI, fate_of, known, pypi_methods

NOT_YET: frozenset[str] = frozenset({"POST /videos", "GET /videos/{jobId}", "GET /videos/{jobId}/content"})
"""Methods that are neither served nor refused with a reason. This is the one place that allows for them: one that is
served goes from here."""

OF_NO_SDK = {"/credits/coinbase"}
"""What OpenRouter has, or had, beside what its SDKs call."""


def test_the_methods_are_those_of_the_installed_sdk() -> None:
    versions, methods = known()
    assert versions[PYPI] == version(PYPI)
    told = {key: {PYPI: names[PYPI]} for key, names in methods.items() if PYPI in names}
    assert told == pypi_methods(), "make the list anew: python -m tools.openrouter_api tests/node/node_modules"


def test_every_method_is_served_or_refused_with_a_reason() -> None:
    absent = {key for key in known()[1] if fate_of(key) == "absent"}
    assert absent == {key for key in NOT_YET if fate_of(key) != "served"}


def test_every_reason_is_of_something_that_is_not_served() -> None:
    refused = {area_of(key.partition(" ")[2]) for key in known()[1] if fate_of(key) == "refused"}
    assert refused == AREAS.keys() - OF_NO_SDK


def test_a_reason_is_told_at_each_base_and_of_whole_parts_of_a_path() -> None:
    for path in ("/api/v1/byok", "/v1/byok/1", "/api/v1/workspaces/a/budgets", "/api/alpha/decisions"):
        assert not_here(path) is not None, path
    for path in ("/api/v1/byokk", "/v1/models", "/", "/api/v1/x/byok", "/v2/files", "/tools" + "x" * 9_000):
        assert not_here(path) is None, path
