"""The documentation: it builds without a warning, its links lead somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tools.error_docs import PAGE as ERROR_PAGE
from tools.error_docs import page as error_page
from tools.site.links import ROOT, broken, pages
from tools.site.pictures import IMAGES, drawings

_MADE_AT_BUILD = frozenset({"job-file.md", "commands.md", "http-api.md", "python-api.md"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


class _Loads(HTMLParser):
    """The addresses that a browser would fetch by itself for a page; links to follow are not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [str(given[key]) for key in ("src", "srcset", "data", "poster") if given.get(key)]
        if tag == "link":
            self.found.append(str(given["href"]))


def test_every_page_is_on_the_site(site: Path) -> None:
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        assert (site / page.relative_to(docs).with_suffix(".html")).exists(), page


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = _Loads()
        loads.feed(page.read_text())
        assert loads.found, page
        assert not [address for address in loads.found if re.match(r"(https?:)?//", address)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_equations_and_drawings_are_set_in_the_page(site: Path) -> None:
    idea, algorithms = ((site / name).read_text() for name in ("idea.html", "algorithms.html"))
    assert "<math" in idea
    assert "<math" in algorithms
    assert "arithmatex" not in idea + algorithms
    assert idea.count('<svg role="img"') == idea.count('class="drawing"') == len(drawings())


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("http-api.html", "/v2/models/{name}/infer"),
        ("http-api.html", "/v1/inbox/{sender}"),
        ("commands.html", "--until-finished"),
        ("job-file.html", "penalty_scale"),
        ("python-api.html", "SiteData"),
        ("errors.html", 'id="ce-104"'),
        ("services/index.html", "CONCORD_REDIS_URL"),
    ],
)
def test_references_are_made_from_the_code(site: Path, page: str, told: str) -> None:
    assert told in (site / page).read_text()


def test_all_links_lead_somewhere() -> None:
    assert [problem for page in pages() for problem in broken(page, _MADE_AT_BUILD)] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other\n## `make` it\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text("# A\n[1](other.md#make-it) [2](nowhere.md)\n[3](#b) `[4](nowhere.md)` [5](other.md#no-heading)\n")
    assert [problem.rpartition("page.md:")[2] for problem in broken(page)] == [
        "2: nowhere.md leads to no file",
        "3: #b: page.md has no such heading",
        "3: other.md#no-heading: other.md has no such heading",
    ]


def test_the_page_of_errors_is_fresh() -> None:
    assert ERROR_PAGE.read_text() == error_page(), "run make error-docs"


def test_the_drawings_are_fresh() -> None:
    for name, drawing in drawings().items():
        assert (IMAGES / f"{name}.svg").read_text() == drawing.svg(), "run make pictures"
