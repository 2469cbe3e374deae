"""``lpverify info``: the lowered graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import MODEL


@click.command()
@MODEL
def info(model: Path, **given: Any) -> None:
    """Print the lowered graph: nodes, linear maps, shapes, parameters, ReLUs, and what was noted on the way."""
    from lpverify.cli.loading import load_network
    from lpverify.describe import node_rows, totals
    from lpverify.table import print_table

    network = load_network(model, given)
    print_table(str(model), ("node", "kind", "reads", "shape", "maps", "parameters"), node_rows(network))
    for line in totals(network):
        click.echo(line)
