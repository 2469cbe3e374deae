"""The documentation: its examples run, its commands and options exist and are all there, its links lead somewhere."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from documents import DOCUMENTS, PAGES, ROOT, anchors, command_lines, fences, links

import lpverify
from lpverify.backends import BACKENDS
from lpverify.bounds import METHODS
from lpverify.cli import cli, main

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BUILT = ROOT / "docs" / "commands"
CFF_KEYS = {"cff-version", "message", "title", "authors"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def subcommands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every subcommand with its name, like ("figure", "tightness")."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from subcommands(command, (*path, name))


COMMANDS = dict(subcommands(cli))


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The repository's root as working directory; what examples register in tables or loggers is forgotten."""
    monkeypatch.chdir(ROOT)
    methods, backends = dict(METHODS), dict(BACKENDS)
    yield
    for table, before in ((METHODS, methods), (BACKENDS, backends)):
        table.clear()
        table.update(before)  # type: ignore[arg-type]


def run_python(path: Path) -> tuple[int, str]:
    """Run a page's blocks of Python in order, in one namespace: examples as doctests, other code as it stands.

    Returns:
        How many examples there were, and what is wrong with them.
    """
    module = type(sys)(f"documentation_{path.stem}")
    sys.modules[module.__name__] = module
    runner, wrong = doctest.DocTestRunner(optionflags=FLAGS, verbose=False), io.StringIO()
    try:
        for fence in fences(path):
            if fence.language != "python":
                continue
            if ">>>" in fence.text:
                test = doctest.DocTestParser().get_doctest(
                    fence.text, module.__dict__, name_of(path), str(path), fence.line
                )
                # Names that a block defines are for the next one, so the namespace itself is handed on, not a copy.
                test.globs = module.__dict__
                runner.run(test, out=wrong.write, clear_globs=False)
            else:
                exec(compile("\n" * fence.line + fence.text, str(path), "exec"), module.__dict__)
        return runner.tries, wrong.getvalue()
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    "path", [p for p in PAGES if any(f.language == "python" for f in fences(p))], ids=lambda p: p.stem
)
def test_examples_in_python_run(path: Path, at_root: None) -> None:
    tries, wrong = run_python(path)
    assert not wrong, wrong
    assert tries > 0


def test_examples_in_docstrings_run(at_root: None) -> None:
    for path in (ROOT / "lpverify").rglob("*.py"):
        if ">>>" in path.read_text(encoding="utf-8"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            __import__(module)
            assert doctest.testmod(sys.modules[module], optionflags=FLAGS).failed == 0


def test_python_in_the_readme_compiles() -> None:
    blocks = [fence.text for fence in fences(ROOT / "README.md") if fence.language == "python"]
    assert blocks
    for text in blocks:
        assert compile(text, "README.md", "exec").co_names


def test_the_tour_prints_what_it_says(
    at_root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lpverify",):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shown = [fence.text for fence in fences(ROOT / "docs" / "tour.md") if fence.language == "console"]
    checker, ran = doctest.OutputChecker(), 0
    for text in shown:
        for block in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, wanted = re.sub(r"\\\n\s*", "", block).partition("\n")
            words = shlex.split(command)
            assert words[0] == "lpverify"
            assert main(words[1:]) == 0
            got = capsys.readouterr().out
            assert checker.check_output(wanted, got, FLAGS), f"$ {command}\n{got}\nwanted:\n{wanted}"
            ran += 1
    assert ran >= 5


def test_every_command_has_its_options_in_the_docs() -> None:
    directives = [f.language for page in PAGES for f in fences(page)]
    for path in COMMANDS:
        assert "{command} " + " ".join(path) in directives, f"no page shows the options of {' '.join(path)}"
        if len(path) == 1:
            assert (BUILT / f"{path[0]}.md").is_file()
            assert f"]({path[0]}.md)" in (BUILT / "index.md").read_text(encoding="utf-8")


def test_every_option_explains_itself_or_names_its_values() -> None:
    for path, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option):
                told = bool(option.help) or isinstance(option.type, click.Choice | click.IntRange)
                assert told, f"{' '.join(path)} {option.opts[0]} has no help"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_command_lines_can_be_parsed(path: Path) -> None:
    for line in command_lines(path):
        words = shlex.split(line.replace("...", ""))[1:]
        assert words, line
        command: Any = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            if (words[0],) == ("report",) and "report" not in cli.commands:
                return
            assert words[0] in command.commands, f"{line}: no command {words[0]!r}"
            command = command.commands[words.pop(0)]
        parser = command.make_parser(click.Context(command))
        with contextlib.redirect_stderr(io.StringIO()):
            parser.parse_args([word for word in words if word not in ("|", ">")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{name_of(path)}: {link}"
        if anchor:
            assert anchor in anchors(file), f"{name_of(path)}: {link}; there are {sorted(anchors(file))}"


def test_the_citation_is_a_cff_file_of_this_version() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited.keys() >= CFF_KEYS
    assert cited["cff-version"] == "1.2.0"
    assert cited["authors"] == [{"name": "lpverify authors"}]
    assert cited["version"] == lpverify.__version__
    assert cited["license"] == "MIT"
    for reference in cited["references"]:
        assert reference.keys() >= {"type", "title", "authors"}


def test_the_html_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for path, command in COMMANDS.items():
        page = (tmp_path / "html" / "commands" / f"{path[0]}.html").read_text(encoding="utf-8")
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[-1] in page, f"{' '.join(path)} {option.opts[-1]}"
