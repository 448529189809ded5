"""What `make site` lays out: every page in its place, every link written anew for it, nothing from another host."""

import re
from pathlib import Path, PurePosixPath

import pytest

from tools.site import BESIDE, FENCE, FROM_ELSEWHERE, LINK, PICTURES_HERE, ROOT, laid, lay_out, loaded_from_elsewhere


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    lay_out(folder, "![The console](pictures/overview-light.png)")
    return folder


def test_each_link_of_a_page_that_is_laid_out_leads_somewhere(pages: Path) -> None:
    seen = 0
    for page in pages.rglob("*.md"):
        text = "".join(part for part in FENCE.split(page.read_text()) if not part.startswith("```"))
        for found in LINK.finditer(text):
            if "://" not in found[1] and not found[1].startswith("pictures/"):
                assert (page.parent / found[1]).is_file(), (page, found[1])
                seen += 1
    assert seen > 400
    assert (pages / "project" / "deploy" / "proxies" / "nginx.conf").is_file()


def test_every_page_stands_in_the_navigation_once(pages: Path) -> None:
    """MkDocs takes one that does not for a fault; this says so in a second."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"[\w./-]+\.md$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(page.relative_to(pages).as_posix() for page in pages.rglob("*.md"))
    assert {laid(PurePosixPath(path)).as_posix() for path in BESIDE} <= set(named)


def test_the_first_page_has_a_place_for_pictures(pages: Path) -> None:
    assert PICTURES_HERE in (ROOT / "docs" / "index.md").read_text()
    assert "pictures/overview-light.png" in (pages / "index.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/a.js"></script>',
        "<link rel=stylesheet href=//fonts.example/css>",
        '<link rel="preconnect" href="https://fonts.example" crossorigin>',
        '<img alt="" src="https://elsewhere.example/x.png">',
        "a { background: url(https://elsewhere.example/x.png) }",
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text)
    assert len(list(loaded_from_elsewhere(tmp_path))) == 1


def test_a_link_to_elsewhere_is_none(tmp_path: Path) -> None:
    assert FROM_ELSEWHERE.search('<a href="https://apify.com">x</a><script src="assets/a.js"></script>') is None
