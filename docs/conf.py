"""Sphinx configuration: `make docs` builds docs/_build/html, and every warning is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent / "ext"), str(Path(__file__).parents[1])]

from lpverify import __version__

project = "lpverify"
author = "lpverify authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_options"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
templates_path: list[str] = []

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Names in signatures that belong to other packages, or to modules that api.md does not list.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r".*")]

html_theme = "furo"
html_title = f"lpverify {release}"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

# Files of the repository that are pages here too: a link to one becomes a link to its page.
PAGES = {
    "benchmarks/README.md": "benchmarks.md",
    "figures/README.md": "figures.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}


def link_pages(app: Any, docname: str, source: list[str]) -> None:
    """Point links to files of the repository at the pages that show them."""
    up = "../" * (docname.count("/") + 1)
    for path, page in PAGES.items():
        source[0] = re.sub(rf"\]\({re.escape(up + path)}(?=[)#])", f"](/{page}", source[0])


def setup(app: Any) -> None:
    """Register the link rewriting."""
    app.connect("source-read", link_pages)
