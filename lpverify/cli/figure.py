"""``lpverify figure NAME``: pictures of the user's own model; each is one file of ``cli.pictures``."""

from __future__ import annotations

import click

from lpverify.cli.pictures.boundaries import boundaries
from lpverify.cli.pictures.gallery import gallery
from lpverify.cli.pictures.polytope import polytope
from lpverify.cli.pictures.radius import radius
from lpverify.cli.pictures.robust_error import robust_error
from lpverify.cli.pictures.tightness import tightness


@click.group()
def figure() -> None:
    """Draw a picture of a model: PDF and PNG, one column wide, and the numbers in it as a file beside them."""


for picture in (boundaries, gallery, polytope, radius, robust_error, tightness):
    figure.add_command(picture)
