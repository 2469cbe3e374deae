"""``lpverify figure polytope``: the set of outputs over a ball, and what the bound methods prove it to lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lpverify.cli.options import METHOD_NAMES, MODEL, QUICK_METHODS, REGION, SOURCE, Names, limit_threads
from lpverify.cli.pictures.stem import report, stem_option

METHODS = (*QUICK_METHODS, "lp")


@click.command()
@MODEL
@click.option("--data", required=True, metavar="NAME|FILE.npz", help="Where the example comes from.")
@SOURCE
@click.option("--index", type=click.IntRange(min=0), required=True, metavar="I", help="Which example.")
@REGION
@click.option("--outputs", type=click.IntRange(min=0), nargs=2, metavar="I J", help="Which two outputs; by default "
              "the greatest at the example and the next.")  # fmt: skip
@click.option("--difference", is_flag=True, help="Draw their difference, whose sign decides between them, and their "
              "sum.")  # fmt: skip
@click.option("--method", "methods", type=Names(*METHOD_NAMES), default=",".join(METHODS), show_default=True,
              metavar="METHODS", help="Whose outer polygons are drawn, joined by commas.")  # fmt: skip
@click.option("--directions", type=click.IntRange(min=3), default=64, show_default=True,
              help="Half-planes of an outer polygon, and attacks where the set is not exact.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=2000, show_default=True,
              help="Random points where the set is not exact.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of random points and attacks.")
@click.option("--threads", type=click.IntRange(min=1), callback=limit_threads, expose_value=False,
              help="Processor threads; torch's own choice by default.")  # fmt: skip
@stem_option
def polytope(
    model: Path,
    out: Path,
    outputs: tuple[int, int] | None,
    difference: bool,
    methods: tuple[str, ...],
    directions: int,
    samples: int,
    seed: int,
    **given: Any,
) -> None:
    """Draw two outputs over the ball about an example, and the polygons that bound methods enclose them in.

    With two inputs and norm inf the set is exact: the images of all linear regions. With more, it is shown by attacked
    and by random points, which the set contains. All in float64; nothing here is certified. STEM.npz holds what is
    drawn.
    """
    import torch

    from lpverify.bounds import METHODS as ALL
    from lpverify.cli.loading import examples_for, load_network, make_settings
    from lpverify.files import write_npz
    from lpverify.geometry.outer import picked
    from lpverify.geometry.polytope import polytope as measure
    from lpverify.plots.polytope import polytope_figure
    from lpverify.plots.style import COLUMN, save, styled

    settings = make_settings(given)
    network = load_network(model, given).detach().to(torch.float64)
    job = examples_for(network, {**given, "index": str(given["index"])}, labelled=False)
    x = torch.as_tensor(job.x).double().flatten(1)
    if outputs is None:
        first, second = network.forward(x)[0].topk(2).indices.tolist()
        outputs = (min(first, second), max(first, second))
    tried = {name: ALL[name]() for name in methods}
    for method in tried.values():
        method.require(network, settings.norm)
    rows = picked(outputs, network.output_size)
    labels = (f"output {outputs[0]}", f"output {outputs[1]}")
    if difference:
        rows, labels = rows[[0, 0]] + rows[[1, 1]] * [[-1], [1]], (" − ".join(labels), " + ".join(labels))
    data = measure(network, settings.region(x), rows, tried, count=directions, samples=samples, seed=seed)
    numbers = out.with_name(out.name + ".npz")
    write_npz(numbers, data.arrays())
    with styled():
        title = f"{model.stem}, example {job.indices[0]}, eps {settings.eps}"
        figure = polytope_figure(data, labels, title, width=COLUMN, height=COLUMN * 1.05)
        report([*save(figure, out), numbers])
