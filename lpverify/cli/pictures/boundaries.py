"""``lpverify figure boundaries``: the classes of a network of two inputs, and which balls about examples are theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import DATA, ENGINE, METHOD_NAMES, MODEL, REGION
from lpverify.cli.pictures.stem import report, stem_option


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", type=click.Choice(("auto", *METHOD_NAMES)), default="auto", show_default=True,
              help="What certifies the balls.")  # fmt: skip
@ENGINE
@stem_option
def boundaries(model: Path, out: Path, **given: Any) -> None:
    """Draw the decision boundaries of a network of two inputs, exactly, with the balls about the examples.

    A ball is drawn by its verdict: verified, falsified or unknown. STEM.npz holds what is drawn.
    """
    raise NotImplementedError
