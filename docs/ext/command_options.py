"""The directive ``command``: a subcommand's usage, arguments and options, read from click when the pages are built."""

from __future__ import annotations

from typing import Any, ClassVar

import click
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from lpverify.cli import cli


def find(path: list[str]) -> click.Command | None:
    """The subcommand of that name, like ["figure", "tightness"]; None if there is none."""
    command: click.Command | None = cli
    for name in path:
        command = command.commands.get(name) if isinstance(command, click.Group) else None
    return command


def describe(command: click.Command, path: list[str]) -> list[str]:
    """Lines of Markdown: the usage, the help text, and a definition list of the options."""
    context = click.Context(command, info_name=" ".join(["lpverify", *path]))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = ["```text", usage, "```", ""]
    lines += [paragraph for text in (command.help or "").split("\n\n") for paragraph in (" ".join(text.split()), "")]
    if isinstance(command, click.Group):
        return lines
    lines += ["**Options**", ""]
    for option in options(command):
        names, text = record(option, context)
        lines += [names, f": {text}", ""]
    return lines


def options(command: click.Command) -> list[click.Option]:
    """The options that a user may give, in the order of ``--help``, without ``--help`` itself."""
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def record(option: click.Option, context: click.Context) -> tuple[str, str]:
    """An option's names and what ``--help`` says of it, as Markdown."""
    help_record = option.get_help_record(context)
    assert help_record is not None
    names, text = help_record
    return f"`{names}`", literal(text) or "(no further explanation)"


def literal(text: str) -> str:
    """Help text with the characters that Markdown would take for markup written out."""
    for character in "\\*_<>[]|#":
        text = text.replace(character, "\\" + character)
    return text.replace("--", "\\-\\-")


class CommandDirective(SphinxDirective):
    """``command`` with the subcommand's name as its argument; with ``:optional:`` it may be missing."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"optional": directives.flag}

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0].split()
        command = find(path)
        if command is None:
            if "optional" in self.options:
                return [nodes.paragraph("", f"This version has no command “{' '.join(path)}”.")]
            raise self.error(f"lpverify has no command {' '.join(path)!r}")
        parent = nodes.container()
        self.state.nested_parse(StringList(describe(command, path), "click"), self.content_offset, parent)
        return parent.children


def setup(app: Any) -> dict[str, Any]:
    """Add the directive to Sphinx."""
    app.add_directive("command", CommandDirective)
    return {"parallel_read_safe": True}
