"""What mkdocs is told to do otherwise: bring in pages from outside docs/, fill pages from the code, set equations.

Everything it needs is found on this machine; the pages it makes load nothing from another host.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.site import commands, http_api, job_file
from tools.site.equations import with_equations
from tools.site.links import ROOT, links, replaced

OUTSIDE = ("services/README.md", "helm/concord/README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that lie elsewhere in the repository, by their place in it, which is also their place on the site."""
FILLED = {"http-api": http_api.markdown, "job-file": job_file.markdown, "commands": commands.markdown}
"""What stands for a line `<!-- made at build: NAME -->` of a page."""
_MADE = re.compile(r"^<!-- made at build: (?P<name>[\w-]+) -->$", re.M)
_DRAWING = re.compile(r'<img (?=[^>]*src="(?P<src>[^"]+\.svg)")(?=[^>]*alt="(?P<alt>[^"]*)")[^>]*>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that a pattern finds in its place in the navigation."""
    config.nav = _expanded(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in the pages from outside."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where things are on the site, and fill in what is made at build."""
    source = Path(str(page.file.abs_src_path))
    change = {
        link.target: _on_site(link.file, link.anchor, page, files) for link in links(source) if not link.is_foreign
    }
    return _MADE.sub(lambda match: FILLED[match["name"]](), replaced(markdown, change))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set equations, and put drawings into the page itself, so that they take its colours."""
    return with_equations(_DRAWING.sub(lambda match: _inline(match, page, files), html))


def _expanded(entries: list[Any], docs: Path) -> list[Any]:
    found: list[Any] = []
    for entry in entries:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, list):
            found.append({title: _expanded(target, docs)})
        elif "*" in target:
            pages = sorted(path.relative_to(docs).as_posix() for path in docs.glob(target))
            found += [{title: pages}] if pages else []
        elif (docs / target).exists() or target in OUTSIDE:
            found.append(entry)
        else:
            raise PluginError(f"mkdocs.yml: nav: {target} is not there")
    return found


def _on_site(target: Path, anchor: str, page: Page, files: Files) -> str | None:
    """Where a file of the repository is on the site, as seen from a page; None if it is not part of the site."""
    docs = ROOT / "docs"
    inside = target.is_relative_to(docs)
    name = target.relative_to(docs if inside else ROOT).as_posix()
    if name == "decisions":
        name = "decisions/0001-local-fleets-are-forked.md"
    if files.get_file_from_path(name) is None:
        return None
    path = relpath(name, PurePosixPath(page.file.src_uri).parent.as_posix())
    return f"{path}#{anchor}" if anchor else path


def _inline(match: re.Match[str], page: Page, files: Files) -> str:
    """A drawing as part of the page, with its description for whoever does not see it."""
    path = (Path(page.file.abs_dest_path).parent / match["src"]).resolve()
    name = path.relative_to(Path(page.file.dest_dir).resolve()).as_posix()
    drawing = files.get_file_from_path(name)
    if drawing is None or drawing.abs_src_path is None:
        return match[0]
    text = Path(drawing.abs_src_path).read_text()
    if 'class="drawing"' not in text:
        return match[0]
    return text.replace("<svg ", f'<svg role="img" aria-label="{match["alt"]}" ', 1)
