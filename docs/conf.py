"""Sphinx configuration: `make docs` builds docs/_build/html, and every warning is an error."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs" / "ext"), str(ROOT)]

from lpverify import __version__  # noqa: E402  (the path is set above)

project = "lpverify"
author = "lpverify authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "command_options", "docstrings"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
templates_path: list[str] = []

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
# Options begin with two hyphens, which are no dash.
smartquotes = False

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
maximum_signature_line_length = 80

# Names in signatures that belong to other packages have no page here, nor have the checkers' own.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!lpverify\.).*"), (r"py:.*", r"lpverify\.(certificate|linear)\..*")]

html_theme = "furo"
html_title = f"lpverify {release}"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

# Files of the repository that are pages here too. The page in docs/ is a stub with a link to the file.
PAGES = {
    "benchmarks/README.md": "benchmarks",
    "figures/README.md": "figures",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "CHANGELOG.md": "changelog",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)")


def use_pages(app: Any, docname: str, source: list[str]) -> None:
    """Replace a stub by its file's text, and point links to files of the repository at the pages that show them."""
    path = Path(app.srcdir, docname + ".md")
    for file, page in PAGES.items():
        if page == docname:
            path = ROOT / file
            app.env.note_dependency(str(path))
            source[0] = path.read_text(encoding="utf-8")

    def page_of(link: re.Match[str]) -> str:
        target = os.path.relpath(path.parent / link[1], ROOT)
        if target in PAGES:
            return f"/{PAGES[target]}.md"
        return "/" + target.removeprefix("docs/") if target.startswith("docs/") else link[1]

    source[0] = LINK.sub(page_of, source[0])


def setup(app: Any) -> None:
    """Register it."""
    app.connect("source-read", use_pages)
