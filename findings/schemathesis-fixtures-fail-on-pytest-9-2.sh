#!/usr/bin/env bash
# schemathesis 4.32.5 (PyPI), which tests a server by its OpenAPI document, with pytest 9.2.0 (PyPI), which it says it
# takes (`pytest<10,>=8.4`).
# Should: run a test for each operation of a schema that a fixture gives (`schemathesis.pytest.from_fixture`).
# Guessed: each operation is tested within the one test, as a subtest.
# Seen: no operation is tested. Every such test fails before its own code runs: AttributeError: 'Function' object has no
#   attribute '_nodeid', which pytest 9.2 does not keep any more. With pytest 9.1.1 the same passes, and so do, with
#   both, tests of a schema that is there when they are collected (`schema.parametrize`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
cat > test_operations.py <<'PYTHON'
import pytest
import schemathesis

found = schemathesis.openapi.from_dict({
    "openapi": "3.0.3",
    "info": {"title": "fares", "version": "1"},
    "paths": {"/fares": {"get": {"responses": {"200": {"description": "all of them"}}}}},
})


@pytest.fixture
def given():
    return found


@schemathesis.pytest.from_fixture("given").parametrize()
def test_given(case):
    print("asked for", case.method, case.path)


@found.parametrize()
def test_found(case):
    print("asked for", case.method, case.path)
PYTHON
for pytest in 9.1.1 9.2.0; do
  venv/bin/pip install -q --disable-pip-version-check schemathesis==4.32.5 "pytest==$pytest"
  venv/bin/python -m pytest -q -p no:cacheprovider test_operations.py > said || true
  echo "pytest $pytest: $(tail -1 said | sed 's/ in .*//')"
  grep -h '^E  ' said | sort -u || true
  tail -1 said >> ends
done
sed 's/ in .*//' ends | tr '\n' ';' | grep -qx '2 passed, 1 subtests passed;1 failed, 1 passed;'
grep -q "no attribute '_nodeid'" said
