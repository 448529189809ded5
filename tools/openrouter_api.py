"""OpenRouter's API as its SDKs know it, and what this gateway does with each of its methods: the table in docs/api.md.

`openrouter_methods.json` has every method of the SDKs that the tests are run with. It is made anew from the installed
packages by `python -m tools.openrouter_api tests/node/node_modules`, when those are new ones.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from farebox.web import openapi
from farebox.web.not_here import AREAS, area_of
from farebox.web.openapi.operations import AT_ROOT

METHODS_FILE = Path(__file__).with_name("openrouter_methods.json")
NPM, PYPI = "@openrouter/sdk", "openrouter"

BEGINS, ENDS = "<!-- Made from the routes by `make docs`, to the next such line. -->", "<!-- Until here. -->"

Names = dict[str, list[str]]
"""By the package's: what its SDK calls a method."""

Methods = dict[str, Names]
"""By HTTP method and path, such as `GET /models`."""


# What the SDKs have


def npm_methods(modules: Path) -> Methods:
    """The methods of the package in a folder of npm's."""
    folder = modules / NPM / "esm"
    inside = {name: _class(path.read_text()) for path in (folder / "sdk").glob("*.js") for name in [path.stem]}
    found: Methods = {}
    for dotted, function in _named(inside, "sdk", ""):
        text = (folder / "funcs" / f"{function}.js").read_text()
        paths, methods = re.findall(r'pathToFunc\("([^"]+)"\)', text), re.findall(r'method: "([A-Z]+)"', text)
        if paths:
            found.setdefault(f"{methods[0]} {paths[-1]}", {}).setdefault(NPM, []).append(dotted)
    return found


class _Class(NamedTuple):
    """What a class of the npm package has: others by the names of their getters, and its methods with the functions
    that they call."""

    parts: list[tuple[str, str]]
    methods: list[tuple[str, str]]


def _class(text: str) -> _Class:
    parts = re.findall(r"get (\w+)\(\) \{\s+return \(this\.\w+ \?\? \(this\.\w+ = new (\w+)\(", text)
    return _Class(parts, re.findall(r"async (\w+)\([^)]*\) \{\s+return unwrap\w+\((\w+)\(this", text))


def _named(inside: Mapping[str, _Class], stem: str, prefix: str) -> Iterator[tuple[str, str]]:
    for name, function in inside[stem].methods:
        yield f"{prefix}{name}", function
    for getter, name in inside[stem].parts:
        yield from _named(inside, name.lower(), f"{prefix}{getter}.")


def pypi_methods() -> Methods:
    """The methods of the installed package. Those that end in `_async` are the same once more."""
    spec = importlib.util.find_spec(PYPI)
    assert spec is not None, "openrouter is not installed"
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    found: Methods = {}
    for path in sorted(folder.glob("*.py")):
        for name, body in re.findall(
            r"\n    def (\w+)\((.*?)(?=\n    (?:async )?def |\Z)", path.read_text(), re.DOTALL
        ):
            if told := re.search(r'method="([A-Z]+)",\s+path="([^"]+)"', body):
                named = f"{path.stem.rstrip('_')}.{name}"
                found.setdefault(f"{told[1]} {told[2]}", {}).setdefault(PYPI, []).append(named)
    return found


def write_down(modules: Path) -> None:
    """Make the file anew."""
    package = json.loads((modules / NPM / "package.json").read_text())
    found = npm_methods(modules)
    for key, names in pypi_methods().items():
        found.setdefault(key, {}).update(names)
    lines = [f"  {json.dumps(key)}: {json.dumps(found[key], sort_keys=True)}" for key in sorted(found, key=_by_path)]
    versions = json.dumps({NPM: package["version"], PYPI: version(PYPI)})
    rows = ",\n".join(lines)
    METHODS_FILE.write_text(f'{{"versions": {versions}, "methods": {{\n{rows}\n}}}}\n')


def _by_path(key: str) -> tuple[str, str]:
    method, _, path = key.partition(" ")
    return path, method


def known() -> tuple[dict[str, str], Methods]:
    """The versions of the packages, and their methods, as they were written down."""
    told: dict[str, Any] = json.loads(METHODS_FILE.read_text())
    return told["versions"], told["methods"]


# What becomes of them here

Fate = Literal["served", "managed", "refused", "absent"]
"""`managed`: with a management key; `refused` with a reason; `absent`: neither served nor refused with a reason."""

MANAGED = frozenset({"Keys", "Accounts"})


def fate_of(key: str) -> Fate:
    """What becomes of a method here."""
    method, _, path = key.partition(" ")
    tag = next((tag for each, tag in _routes(method) if each.fullmatch(re.sub(r"{\w+}", "x", path))), None)
    if tag is not None:
        return "managed" if tag in MANAGED else "served"
    return "absent" if area_of(path) is None else "refused"


@cache
def _routes(method: str) -> list[tuple[re.Pattern[str], str]]:
    """The paths under a base that are answered, and the tag of each."""
    return [
        (re.compile(re.sub(r"{(\w+)}", lambda name: ".+" if name[1] == "model" else "[^/]+", path)), tag)
        for path, tag in _answered(method)
    ]


def _answered(method: str) -> list[tuple[str, str]]:
    told = openapi.document()["paths"].items()
    return [
        (path, each[method.lower()]["tags"][0])
        for path, each in told
        if method.lower() in each and AT_ROOT.keys().isdisjoint(each)
    ]


def table() -> str:
    """The table in docs/api.md."""
    versions, methods = known()
    fates = {key: fate_of(key) for key in methods}
    answered = [f"{method} {path}" for method in ("POST", "GET") for path, _ in _answered(method) if "{" not in path]
    own = [f"`{key}`" for key in answered if key not in methods]
    rows = [f"| `{key}` | {_names(methods[key])} | {_SAID[fates[key]]} |" for key in methods if fates[key] in _SAID]
    for area, why in AREAS.items():
        inside = [methods[key] for key in methods if fates[key] == "refused" and area_of(key.partition(" ")[2]) == area]
        names = {name: None for each in inside for name in _all_names(each)}
        rows.append(f"| `{area}` | {_shortly(names)} | 404: {why} |")
    sources = " and ".join(f"`{name}` {number}" for name, number in versions.items())
    return f"""Every method of {sources}: those that are served, those that managers have, and all others by where they stand,
with what the 404 says. Served beside them, for OpenAI's and Anthropic's clients: {", ".join(own)}.

| | in the SDKs | here |
|---|---|---|
{chr(10).join(rows)}"""


def with_table(page: str) -> str:
    """The page with the table in its place."""
    before, begins, rest = page.partition(BEGINS)
    _, ends, after = rest.partition(ENDS)
    assert begins, "the page has no place for it"
    assert ends, "its place has no end"
    return f"{before}{begins}\n\n{table()}\n\n{ends}{after}"


_SAID: Mapping[Fate, str] = {
    "served": "served",
    "managed": "with a [management key](management.md)",
    "absent": "404: not served",
}


def _all_names(names: Names) -> list[str]:
    """Those of npm's, or else Python's."""
    return names.get(NPM) or names.get(PYPI) or []


def _names(names: Names) -> str:
    return ", ".join(f"`{name}`" for name in _all_names(names))


def _shortly(names: Mapping[str, None]) -> str:
    """`byok.*`, where there are several of one part."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.rpartition(".")[0], []).append(name)
    return ", ".join(f"`{part}.*`" if len(every) > 1 else f"`{every[0]}`" for part, every in parts.items())


if __name__ == "__main__":
    write_down(Path(sys.argv[1]))
