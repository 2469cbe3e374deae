"""``lpverify figure NAME``: pictures of the user's own model; each is one file of ``cli.pictures``."""

from __future__ import annotations

import click

from lpverify.cli.pictures.boundaries import boundaries
from lpverify.cli.pictures.polytope import polytope


@click.group()
def figure() -> None:
    """Draw a picture of a model: PDF and PNG, one column wide, and the numbers in it as a file beside them."""


for picture in (boundaries, polytope):
    figure.add_command(picture)
