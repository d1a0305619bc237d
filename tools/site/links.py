"""Links of the project's Markdown: which there are, where they lead, and which lead nowhere. Must not know mkdocs.

Pages link as they lie in the repository, so that they can be read there; the site turns such links into its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from os.path import relpath
from pathlib import Path
from urllib.parse import unquote

from markdown.extensions.toc import slugify, unique

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.M | re.S)
_LINK = re.compile(r"(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<target>[^()\s]+)(?P<after>(?:\s+\"[^\"]*\")?\))")
_HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*$", re.M)
_ANCHOR = re.compile(r"<a (?:id|name)=\"(?P<id>[^\"]+)\"|\{[^}]*#(?P<own>[\w-]+)[^}]*\}\s*$", re.M)


@dataclass(frozen=True, slots=True)
class Link:
    """A link as written in `page`; `target` is a path beside the page, with an anchor perhaps."""

    page: Path
    line: int
    target: str

    @property
    def is_foreign(self) -> bool:
        """Whether it leads to another host."""
        return re.match(r"[a-z][a-z0-9+.-]*:", self.target) is not None

    @property
    def file(self) -> Path:
        """The file it leads to."""
        path, _, _ = self.target.partition("#")
        return (self.page.parent / unquote(path)).resolve() if path else self.page

    @property
    def anchor(self) -> str:
        """The heading in it, or nothing."""
        return self.target.partition("#")[2]


def without_code(text: str) -> str:
    """The text with code blanked out, line by line as long as before: what is in code is no link."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def links(page: Path) -> Iterator[Link]:
    """All links and pictures of a page."""
    text = without_code(page.read_text())
    for match in _LINK.finditer(text):
        yield Link(page, text.count("\n", 0, match.start()) + 1, match["target"])


def replaced(text: str, change: dict[str, str | None]) -> str:
    """The text with each target in `change` replaced; a link to None becomes its bare text."""
    blank = without_code(text)
    parts, end = [], 0
    for match in _LINK.finditer(blank):
        target = match["target"]
        if target not in change:
            continue
        parts.append(text[end : match.start()])
        before, after = text[match.start("before") : match.end("before")], match["after"]
        new = change[target]
        parts.append(before[1:-2] if new is None else f"{before}{new}{after}")
        end = match.end()
    return "".join([*parts, text[end:]])


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names under which a page's parts can be linked to, as mkdocs and code hosts make them."""
    text = without_fences(page.read_text())
    taken: set[str] = set()
    for match in _HEADING.finditer(text):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"]).replace("`", "")
        taken.add(unique(slugify(heading, "-"), taken))
    own = {found for match in _ANCHOR.finditer(text) for found in match.groups() if found}
    return frozenset(taken | own)


def without_fences(text: str) -> str:
    """The text without its blocks of code, in which a # begins no heading."""
    return re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.M | re.S)


def broken(page: Path, made_at_build: frozenset[str] = frozenset()) -> Iterator[str]:
    """What is wrong with the links of a page, a sentence each; anchors into pages `made_at_build` are not looked at."""
    for link in links(page):
        where = f"{relpath(page, ROOT)}:{link.line}: {link.target}"
        if link.is_foreign:
            continue
        if not link.file.exists():
            yield f"{where} leads to no file"
        elif link.file.name not in made_at_build and not _has(link.file, link.anchor):
            yield f"{where}: {link.file.name} has no such heading"


def _has(file: Path, anchor: str) -> bool:
    return not anchor or file.suffix != ".md" or anchor in anchors(file)


def pages() -> list[Path]:
    """All Markdown files that are part of the documentation, in the repository and in docs/."""
    others = [ROOT / name for name in ("services/README.md", "helm/concord/README.md", "k8s/rendered/README.md")]
    return [*sorted(ROOT.glob("*.md")), *others, *sorted((ROOT / "docs").rglob("*.md"))]
