"""``lpverify figure polytope``: the set of outputs over a ball, and what the bound methods prove it to lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import DATA, ENGINE, METHOD_NAMES, MODEL, REGION, Names
from lpverify.cli.pictures.stem import report, stem_option

METHODS = ("interval", "dual", "crown", "alpha", "lp")


@click.command()
@MODEL
@DATA
@REGION
@click.option("--method", "methods", type=Names(*METHOD_NAMES), default=",".join(METHODS), show_default=True,
              metavar="METHODS", help="Whose outer polygons are drawn, joined by commas.")  # fmt: skip
@ENGINE
@stem_option
def polytope(model: Path, out: Path, methods: tuple[str, ...], **given: Any) -> None:
    """Draw the outputs that the ball about an example reaches, and the outer polygons of bound methods."""
    raise NotImplementedError
