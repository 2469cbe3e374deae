"""Reading the repository's Markdown: code fences with their lines, links, and the anchors of headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts))
DOCUMENTS = (*sorted(ROOT.glob("*.md")), *PAGES, ROOT / "benchmarks" / "README.md", ROOT / "figures" / "README.md",
             ROOT / "tests" / "faults" / "README.md")  # fmt: skip

FENCE = re.compile(r"^(`{3,}|:{3,})\s*(.*)$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+)\)")
COMMAND = re.compile(r"^(?:\$ |    )(lpverify [a-z](?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language (or ``{directive} argument``), its text, and the line where the text begins."""

    language: str
    text: str
    line: int


def fences(path: Path) -> Iterator[Fence]:
    """The fenced blocks of a file, in order."""
    opened: tuple[str, str, int] | None = None
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if opened is None and match:
            opened = match[1], match[2].strip(), number + 1
        elif opened is not None and line.strip() == opened[0]:
            yield Fence(opened[1], "\n".join(lines[opened[2] : number]) + "\n", opened[2])
            opened = None


def without_fences(path: Path) -> str:
    """A file's text without its fenced blocks."""
    kept, inside = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        match = FENCE.match(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif match:
            inside = match[1]
        else:
            kept.append(line)
    return "\n".join(kept)


def links(path: Path) -> list[str]:
    """The targets of a file's links that are not on the web."""
    targets = LINK.findall(re.sub(r"`[^`\n]*`", "", without_fences(path)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """The names that GitHub and MyST give the headings of a file."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", without_fences(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def command_lines(path: Path) -> list[str]:
    """The ``lpverify`` command lines that a file shows, continued lines joined."""
    text = path.read_text(encoding="utf-8")
    return [re.sub(r"\\\n\s*", "", line).rstrip("`").split("    #")[0].strip() for line in COMMAND.findall(text)]
