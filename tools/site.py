"""The docs as a site, in .site/html: `make site`.

The pages are laid out in .site/pages first, those of docs/ and what stands beside it: what a page links to outside docs/ comes
along, below project/, and each link is written anew for where its page lies. Then MkDocs builds them, and any link or anchor that
leads nowhere fails the build. So does a page that would load something from another host.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
SITE = ROOT / ".site"
PAGES, HTML = SITE / "pages", SITE / "html"
DOCS = PurePosixPath("docs")

BESIDE = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "findings/README.md")
"""Pages outside docs/ that stand in the navigation; folders and files that any page links to come along by themselves."""

FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")

FIRST_FOUND = "---\nsearch:\n  boost: 300\n---\n\n"
"""Before a page that a search shall show first: who looks for an error's text wants what to do."""

PICTURES_HERE = "<!-- The site has pictures of the console here. -->"
PICTURES = {"overview": "The overview", "orders": "Orders", "order": "One order", "statement": "A statement"}
"""What pictures are taken of, each in light and dark, and what they show."""

FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\ssrc=[\"']?(?:https?:)?//|<link\b[^>]*(?:stylesheet|icon|preload|preconnect)[^>]*"
    r"href=[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//|@import[^;]*//"
)
"""What makes a browser load something from another host, in HTML and CSS."""


def laid(path: PurePosixPath) -> PurePosixPath:
    """Where a file or folder of the repository lies in the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS)
    return "project" / path if (ROOT / path).is_file() else "project" / path / "README.md"


def _normal(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(path))


def rewritten(text: str, page: PurePosixPath) -> tuple[str, set[PurePosixPath]]:
    """A page's text with its links as they are in the site, and what it links to outside docs/."""
    outside: set[PurePosixPath] = set()
    here = laid(page).parent

    def link(found: re.Match[str]) -> str:
        if "://" in found[1] or found[1].startswith("mailto:"):
            return found[0]
        target = _normal(page.parent / found[1])
        if not target.is_relative_to(DOCS):
            outside.add(target)
        return f"]({os.path.relpath(laid(target), here)}{found[2] or ''})"

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts), outside


def lay_out(pages: Path, pictures: str) -> None:
    """Write every page of the site into an empty folder. `pictures` is what stands for them on the first page."""
    ahead = [PurePosixPath(path.relative_to(ROOT).as_posix()) for path in sorted((ROOT / "docs").rglob("*.md"))]
    ahead += map(PurePosixPath, BESIDE)
    there = set(ahead)
    while ahead:
        path = ahead.pop()
        text, outside = _text(path)
        to = pages / laid(path)
        to.parent.mkdir(parents=True, exist_ok=True)
        boost = FIRST_FOUND if path.name == "troubleshooting.md" else ""
        to.write_text(boost + text.replace(PICTURES_HERE, pictures))
        ahead += outside - there
        there |= outside


def _text(path: PurePosixPath) -> tuple[str, set[PurePosixPath]]:
    """What stands at a place in the site: a page; of a folder what is in it; of another file its text."""
    source = ROOT / path
    if source.is_dir():
        inside = sorted(each for each in source.iterdir() if each.is_file() and each.suffix != ".md")
        outside = {path / each.name for each in inside}
        return f"# {path}\n\n" + "".join(f"- [{each.name}]({each.name})\n" for each in inside), outside
    text = source.read_text()
    return rewritten(text, path) if path.suffix == ".md" else (text, set())


def loaded_from_elsewhere(html: Path) -> Iterator[str]:
    """Each place in the built site that loads something from another host."""
    for path in sorted(html.rglob("*")):
        if path.suffix in (".html", ".css"):
            for found in FROM_ELSEWHERE.finditer(path.read_text()):
                yield f"{path.relative_to(html)}: {found[0][:120]}"


def _pictures(folder: Path) -> str:
    """Take the pictures into a folder; what shows them on the first page, nothing where there are none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    browser = ROOT / ".venv-browser" / "bin" / "python"
    if chromium is None or not browser.is_file():
        return _without("there is no " + ("chromium" if chromium is None else ".venv-browser"))
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as empty:
        command = [str(browser), str(Path(__file__).with_name("use_console.py")), str(folder), chromium, sys.executable]
        done = subprocess.run(command, check=False, cwd=empty, capture_output=True, text=True, timeout=600)  # noqa: S603
    if done.returncode:
        shutil.rmtree(folder)
        return _without(done.stderr.strip()[-600:])
    return "\n\n".join(
        f"![{what} of the console](pictures/{name}-light.png#only-light)"
        f"![{what} of the console, dark](pictures/{name}-dark.png#only-dark)"
        for name, what in PICTURES.items()
    )


def _without(why: str) -> str:
    print(f"\n  THE SITE HAS NO PICTURES OF THE CONSOLE: {why}\n", file=sys.stderr)
    return ""


def main() -> int:
    """Build the site; 1 where it cannot be shown as it is."""
    parser = argparse.ArgumentParser(description="Build the docs as a site.")
    parser.add_argument("--pictures", action="store_true", help="of the console, by Debian's Chromium")
    pictures = parser.parse_args().pictures
    shutil.rmtree(SITE, ignore_errors=True)
    lay_out(PAGES, _pictures(PAGES / "pictures") if pictures else _without("it was asked for without"))
    mkdocs = ROOT / ".venv-site" / "bin" / "mkdocs"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    # Not with --quiet: then MkDocs does not count its warnings, and builds with broken links.
    build = [str(mkdocs), "build", "--strict"]
    built = subprocess.run(build, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)  # noqa: S603
    if built.returncode:
        print(built.stderr, file=sys.stderr)
        return 1
    if foreign := list(loaded_from_elsewhere(HTML)):
        print(*["Loaded from another host:", *foreign], sep="\n  ", file=sys.stderr)
        return 1
    print(f"The site is in {HTML.relative_to(ROOT)}: python3 -m http.server -d {HTML.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
