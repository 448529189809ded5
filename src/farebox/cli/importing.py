"""`farebox import litellm`: another gateway's configuration as Farebox's."""

import json
import os
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from farebox.cli.session import AsJson, fail, print_json
from farebox.core.moving.litellm import BadConfig, Imported, import_config

FILE_BYTES_MAX = 4 * 2**20
"""A configuration of thousands of models is a tenth of it."""

PRICES_BYTES_MAX = 64 * 2**20
"""LiteLLM's own list has some megabytes."""

INCLUDES_MAX = 100

import_app = typer.Typer(no_args_is_help=True, help="Make farebox.toml of another gateway's configuration.")


@import_app.callback()
def _only_named() -> None:
    """Make farebox.toml of another gateway's configuration."""


@import_app.command("litellm")
def import_litellm(
    config: Annotated[Path, typer.Argument(help="The config.yaml of LiteLLM's proxy.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it; prices.toml goes beside it.")] = (
        Path("farebox.toml")
    ),
    model_prices: Annotated[
        Path | None,
        typer.Option(help="LiteLLM's model_prices_and_context_window.json, for models whose prices are not set."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write farebox.toml, and prices.toml where prices are wanted, from a LiteLLM configuration; say on standard error
    what is not carried over, and which variables to set."""
    prices_path = output.with_name("prices.toml")
    try:
        found = import_config(read_config(config), os.environ, str(prices_path), _read_model_prices(model_prices))
    except BadConfig as error:
        fail("\n".join(f"{config}: {line}" for line in str(error).splitlines()), 2)
    written = {output: found.settings, prices_path: found.prices}
    files = [path for path, text in written.items() if text]
    for path in files:
        if path.exists() and not force:
            fail(f"{path} is there already; name another with --output, or replace it with --force", 2)
    for path in files:
        try:
            path.write_text(written[path], encoding="utf-8")
        except OSError as error:
            fail(f"{path}: it cannot be written: {error.strerror or error}")
    if as_json:
        print_json(_as_json(found, files))
    else:
        for line in _report(found, files):
            typer.echo(line, err=True)


def _report(found: Imported, files: list[Path]) -> Iterator[str]:
    yield from map(str, found.notes)
    if found.variables:
        yield "Set before `farebox serve`:"
        yield from (f"  {name}: {words}" for name, words in found.variables.items())
    yield f"{len(found.upstreams)} upstreams: {', '.join(found.upstreams)}"
    yield f"Written: {', '.join(map(str, files))}"


def _as_json(found: Imported, files: list[Path]) -> dict[str, Any]:
    return {
        "files": list(map(str, files)),
        "upstreams": list(found.upstreams),
        "variables": dict(found.variables),
        "notes": [{"where": note.where, "words": note.words} for note in found.notes],
    }


def read_config(path: Path) -> Mapping[str, Any]:
    """A configuration with all that it includes, as LiteLLM puts them together: lists one behind the other, of all else
    the last.

    Raises:
        BadConfig: a file of them cannot be read.
    """
    config = _read_yaml(path, "")
    pending = [(each, path) for each in _included(config)]
    read = {path.resolve()}
    while pending:
        name, by = pending.pop(0)
        place = next((each for each in (by.parent / name, path.parent / name) if each.exists()), by.parent / name)
        if place.resolve() in read:
            continue
        read.add(place.resolve())
        if len(read) > INCLUDES_MAX:
            raise BadConfig(f"include: more than {INCLUDES_MAX} files")
        more = _read_yaml(place, f"include: {place}: ")
        pending += [(each, place) for each in _included(more)]
        for member, value in more.items():
            both = isinstance(value, list) and isinstance(config.get(member), list)
            config[member] = [*config[member], *value] if both else value
    config.pop("include", None)
    return config


def _included(config: Mapping[str, Any]) -> list[str]:
    names = config.get("include") or []
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise BadConfig("include: it should be a list of files")
    return names


def _read_yaml(path: Path, where: str) -> dict[str, Any]:
    """Raises BadConfig."""
    try:
        import yaml
    except ImportError:
        fail('reading YAML takes another package: pip install "farebox[import]"')

    class Loader(yaml.SafeLoader):
        """Safe, and exact: numbers with a point are Decimal, and no member is written twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for name, _ in node.value:
                if isinstance(name, yaml.ScalarNode) and name.value != "<<" and name.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"`{name.value[:60]}` is written twice", name.start_mark
                    )
                seen.add(str(name.value))
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

        def exact_number(self, node: Any) -> Decimal:
            try:
                return Decimal(
                    str(self.construct_scalar(node))
                    .replace("_", "")
                    .lower()
                    .replace(".inf", "inf")
                    .replace(".nan", "nan")
                )
            except InvalidOperation as error:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{node.value[:60]!r} is no number", node.start_mark
                ) from error

    Loader.add_constructor("tag:yaml.org,2002:float", Loader.exact_number)
    try:
        found = yaml.load(_read_bytes(path, where, FILE_BYTES_MAX), Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise BadConfig(f"{where}it is no YAML: {error.problem or error.context}{place}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, TypeError, RecursionError) as error:
        words = " ".join(str(error).split())[:200] or "it is nested too deeply"
        raise BadConfig(f"{where}it is no YAML: {words}") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{where}it should be a table with model_list in it")
    return {str(name): value for name, value in found.items()}


def _read_model_prices(path: Path | None) -> Mapping[str, Mapping[str, Any]] | None:
    """Raises BadConfig."""
    if path is None:
        return None
    text = _read_bytes(path, f"--model-prices {path}: ", PRICES_BYTES_MAX)
    try:
        found = json.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise BadConfig(f"--model-prices {path}: it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadConfig(f"--model-prices {path}: it should have a member for each model")
    return found


def _read_bytes(path: Path, where: str, most: int) -> bytes:
    """Raises BadConfig."""
    try:
        with path.open("rb") as file:
            text = file.read(most + 1)
    except OSError as error:
        raise BadConfig(f"{where}it cannot be read: {error.strerror or error}") from error
    if len(text) > most:
        raise BadConfig(f"{where}it is longer than {most} bytes")
    return text
