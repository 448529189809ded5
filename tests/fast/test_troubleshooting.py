"""The page on errors quotes them as they are: each is in the code, and what everybody may meet is on the page."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "farebox"
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()

WHOLE = (
    "admission.py answers.py cli/opening.py core/idempotency.py core/intake.py core/keys.py core/repeats.py"
    " core/routing.py core/shortfall.py exchange.py guards/running.py http/server.py identity/guesses.py"
    " identity/keys.py store/postgres_fitness.py store/prepare.py web/access.py web/relay.py"
).split()
"""Files each of whose errors is on the page: what everybody may meet."""

RAISED = (
    "fail invalid unauthenticated unaffordable forbidden unknown too_slow conflict gone too_large wrong_type too_many"
    " CannotServe over_limit unreachable connect_timeout broken cost_unknown Refusal UnusableBooks Unfit"
    " BooksUnavailable UpstreamBroke"
).split()
"""What is called with the text of an error."""

SHORT = 12
"""A text that is no longer is a type's name."""


def template(node: ast.expr) -> str | None:
    """A text as it stands in the code, with `…` for what differs; None where it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(template(part) or "…" for part in node.values)
        case ast.BinOp(op=ast.Add()):
            return (template(node.left) or "…") + (template(node.right) or "…")
        case _:
            return None


def plain(text: str) -> str:
    """Without line ends, and with one `…` for several."""
    return re.sub("…+", "…", " ".join(text.split()))


def texts(path: Path) -> Iterator[str]:
    """Every text in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.expr) and (text := template(node)):
            yield plain(text)


def raised(path: Path) -> Iterator[str]:
    """The text of each error that a file raises."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED:
            found = [text for each in node.args if (text := template(each)) and len(text) > SHORT]
            yield from (plain(text) for text in found if not re.fullmatch("[a-z_]+", text))


def quoted() -> list[str]:
    """The errors on the page: the first cell of each line of a table that says `text` above it."""
    found: list[str] = []
    for table in re.findall(r"^\| text \|.*?\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        for line in table.splitlines():
            cell = line.strip("| ").split(" | ")[0].rstrip("|").strip()
            found += [plain(each[1].strip(" ")) for each in re.findall(r"(`+)(.+?)\1(?=$|, `)", cell)]
    return found


EVERY = "\n".join(text for path in sorted(PACKAGE.rglob("*.py")) for text in texts(path))
QUOTED = quoted()


def test_each_quoted_error_is_one_of_the_codes() -> None:
    assert len(QUOTED) > 90
    assert [text for text in QUOTED if text not in EVERY] == []


@pytest.mark.parametrize("file", WHOLE)
def test_each_error_that_everybody_may_meet_is_on_the_page(file: str) -> None:
    found = list(raised(PACKAGE / file))
    assert found
    assert [text for text in found if not any(each in text or text in each for each in QUOTED)] == []
