"""What the pages say of this repository is so: files, links, commands; and the tests that one of them shows pass."""

import re
from collections.abc import Callable, Iterator
from inspect import isfunction
from pathlib import Path

import pytest

from farebox.batch.entries import ORDERS_MAX
from farebox.batch.placing import RETRY_FIRST_SECONDS, TRIES_MAX
from farebox.batch.running import CONCURRENCY_MAX
from farebox.core.books import NotEnded
from farebox.core.formats import Format
from farebox.core.questions import FIRST_US
from farebox.platform.runs import RUNS_MAX
from farebox.settings import Settings
from farebox.telemetry.metrics import exposition

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for folder in ("*.md", "docs/**/*.md", "findings/*.md", ".actor/*.md", ".github/**/*.md")
    for page in ROOT.glob(folder)
    if page.name != "CHANGELOG.md"
)
NOT_HERE = {
    "docs/actor.md": {"storage/datasets/charging-log", "data/farebox.db"},
    "docs/clients/codex.md": {"~/.codex/config.toml"},
    "docs/clients/llm.md": {"extra-openai-models.yaml"},
    "docs/clients/opencode.md": {"~/.config/opencode/opencode.json"},
    "docs/installing.md": {"data/farebox.db"},
    "docs/extending.md": {"src/farebox/core/formats/completions.py", "src/farebox/upstream/echo.py"},
    "docs/keys-and-people.md": {"people.csv", "keys.csv", "keys.json"},
    "docs/moving-from-otari.md": {"config.yml"},
    "docs/moving-from-litellm.md": {"config.yaml", "model_prices_and_context_window.json"},
    "findings/README.md": {"what-is-odd.sh"},
}
"""Files that pages speak of and that are not this repository's: they are made by a reader, or by what runs."""

READERS_OWN = {"farebox.toml", "prices.toml", "orders.results.jsonl"}

FILE = re.compile(r"`([~\w.][\w./-]*\w\.(?:py|sql|sh|ya?ml|toml|json|md|txt|service|jsonl|db))`|`([\w.]+/[\w./-]+)`")
FOLDERS = "bench core deploy docs findings requirements src tests tools .actor .ci .github".split()
"""What is quoted with a slash is a path where it begins with one of these; else it is a model, a URL, a media type."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def named_files(page: str) -> Iterator[str]:
    for file, path in FILE.findall(text_of(page)):
        if file or path.split("/")[0] in FOLDERS:
            yield file or path


def files() -> Iterator[str]:
    """Every file and folder of the repository, each with a slash before it."""
    for folder in ROOT.iterdir():
        if folder.name.startswith(".") and folder.name not in FOLDERS:
            continue
        yield f"/{folder.relative_to(ROOT).as_posix()}"
        yield from (f"/{path.relative_to(ROOT).as_posix()}" for path in folder.rglob("*"))


THERE = "\n".join(each for each in files() if "/node_modules/" not in each) + "\n"


@pytest.mark.parametrize("page", PAGES)
def test_each_file_that_a_page_names_is_there(page: str) -> None:
    """By its whole path, or by the end of it: `core/books.py`, `books.py`."""
    for name in set(named_files(page)) - NOT_HERE.get(page, set()) - READERS_OWN:
        assert f"/{name.rstrip('/')}\n" in THERE, name


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(page: str) -> Iterator[tuple[str, Path, str]]:
    """Each link of a page into this repository: as it is written, the file, and the anchor in it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            yield link, (ROOT / page).parent / name if name else ROOT / page, anchor


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: str) -> None:
    for link, target, anchor in links(page):
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    reached, ahead = set[str](), ["README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            found = (target.resolve().relative_to(ROOT).as_posix() for _, target, _ in links(page))
            ahead += [target for target in found if target in PAGES]
    assert [page for page in PAGES if page.startswith("docs/") and page not in reached] == []


def test_each_command_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", text_of(page), re.MULTILINE):
            assert target in targets, (page, target)
        for module in re.findall(r"python -m ((?:tools|bench|farebox)[\w.]*)", text_of(page)):
            path = ROOT / ("src" if module.startswith("farebox") else "") / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), (page, module)


def test_contributors_are_told_of_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    told = set(re.findall(r"make ([a-z-]+)", text_of("CONTRIBUTING.md")))
    assert set(phony[1].split()) - told == {"serve", "clean"}


def test_each_page_that_the_code_names_is_there() -> None:
    for folder in ("src", "tests", "tools", "bench"):
        for module in (ROOT / folder).rglob("*.py"):
            for page in re.findall(r"\bdocs/[\w/-]+\.md\b", module.read_text()):
                assert (ROOT / page).is_file(), (module, page)


def shown_tests() -> dict[str, Callable[[], None]]:
    """The test functions that docs/testing.md shows, from all its blocks together."""
    shown: dict[str, Callable[[], None]] = {}
    code = "\n".join(re.findall(r"```python\n(.*?)```", text_of("docs/testing.md"), re.DOTALL))
    exec(compile(code, "docs/testing.md", "exec"), shown)
    return {name: found for name, found in shown.items() if name.startswith("test_")}


def test_what_the_page_on_testing_shows_passes() -> None:
    tests = shown_tests()
    assert len(tests) == 3
    for test in tests.values():
        test()


DEFAULT = re.compile(r"([\d,]+)(?: (s|MiB)\b[^`|;,]*)?, `FAREBOX_([A-Z_]+)`|`FAREBOX_([A-Z_]+)` \(([\d,]+)\)")


def test_each_default_that_a_page_tells_is_the_settings_own() -> None:
    """As `32 MiB, FAREBOX_BODY_BYTES_MAX`, or `FAREBOX_GRACE_SECONDS (30)`."""
    told = [(page, *found) for page in PAGES for found in DEFAULT.findall(text_of(page))]
    assert len(told) > 12
    for page, before, unit, name, name_first, after in told:
        number = int((before or after).replace(",", "")) * (2**20 if unit == "MiB" else 1)
        assert number == getattr(Settings(), (name or name_first).lower()), (page, name or name_first)


def test_each_metric_that_a_page_tells_of_is_counted() -> None:
    counted = re.findall(r"^# TYPE (\w+)", exposition(NotEnded(0, 0, 0)).decode(), re.MULTILINE)
    table = text_of("docs/deploy.md").split("| metric |")[1].split("\n\n")[0]
    told = re.findall(r"`(farebox_\w+)", table)
    assert {name for name in counted if name.startswith("farebox_") and not name.endswith("_created")} == set(told)


FUNCTIONS = "none one two three four five six seven eight nine".split()[
    sum(isfunction(each) for name, each in vars(Format).items() if not name.startswith("_"))
]
WAITS = [int(RETRY_FIRST_SECONDS * 2**number) for number in range(TRIES_MAX - 1)]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("docs/batch.md", f"after {', '.join(map(str, WAITS[:-1]))} and {WAITS[-1]} seconds"),
        ("docs/batch.md", f"at most {ORDERS_MAX:,} orders"),
        ("docs/explain/bounds.md", f"{ORDERS_MAX:,} orders, {CONCURRENCY_MAX} at once; {RUNS_MAX} runs at once"),
        ("docs/explain/money.md", f"after {FIRST_US / 1_000_000:g} s, then at doubling intervals up to a minute"),
        ("docs/decisions/README.md", f"a module of {FUNCTIONS} functions"),
        ("docs/decisions/formats.md", f"of {FUNCTIONS} functions"),
    ],
)
def test_a_number_that_was_once_told_wrong_is_the_codes_own(page: str, told: str) -> None:
    assert told in " ".join(text_of(page).split())
