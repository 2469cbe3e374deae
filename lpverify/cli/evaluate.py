"""``lpverify evaluate``: the errors of a trained network, and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpverify.cli.options import DATA, ENGINE, MODEL, REGION, Positive

if TYPE_CHECKING:
    from lpverify.training.evaluate import Evaluation, Protocol


@click.command()
@MODEL
@DATA
@REGION
@click.option("--certify", metavar="0:500|3,7", help="Which examples the certified error is of; those of --index by "
              "default. Complete search takes its time.")  # fmt: skip
@click.option("--timeout", type=Positive(), default=10.0, show_default=True, metavar="S",
              help="Seconds an example, for the certified error.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=50, show_default=True, help="Of PGD.")
@click.option("--restarts", type=click.IntRange(min=1), default=10, show_default=True, help="Of PGD.")
@click.option("--confidence", type=Positive(), metavar="P", help="Also bound over random projections so that an "
              "example's bounds hold with probability >= P, like 0.99: a share of its own, which certifies nothing.",
              )  # fmt: skip
@click.option("--projections", type=click.IntRange(min=2), metavar="K", help="Of that bound; by default so many that "
              "no estimated norm has to grow by more than a half.")  # fmt: skip
@ENGINE
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN/",
              help="Folder for the card: that of the training, say.")  # fmt: skip
def evaluate(
    model: Path,
    out: Path,
    steps: int,
    restarts: int,
    timeout: float,
    certify: str | None,
    confidence: float | None,
    projections: int | None,
    **given: Any,
) -> None:
    """Measure clean, FGSM, PGD, dual-bound and certified error, each with its count and the command that makes it.

    Writes RUN/card.md and RUN/card.json, and the evidence of the certified error to RUN/certified, which `lpverify
    check RUN/certified` judges again. Cards and evidence that are there are replaced, nothing else is touched.
    """
    from lpverify.cli.loading import load_network
    from lpverify.data import load_data
    from lpverify.files import disk
    from lpverify.settings import require_device
    from lpverify.table import print_table, progress
    from lpverify.training.card import write_card
    from lpverify.training.evaluate import PROJECTED
    from lpverify.training.evaluate import evaluate as measure

    require_device(given["device"])
    network = load_network(model, given)
    protocol = _protocol(
        given, steps=steps, restarts=restarts, timeout=timeout, certify=certify, confidence=confidence,
        projections=projections,
    )  # fmt: skip
    examples = load_data(
        given["data"], data_dir=given["data_dir"], split=given["split"], scale=given["scale"]
    )
    with disk(out):
        out.mkdir(parents=True, exist_ok=True)
    found = measure(network, examples, protocol, model=str(model), out=out, watch=progress)
    write_card(out, model, network, found)
    print_table("errors", ("error", "share", "count", "of", "seconds"), _rows(found), _note(protocol))
    click.echo("".join(f"{m.name}: {m.meaning}\n" for m in found.measures if m.name == PROJECTED), nl=False)
    click.echo(f"model card: {out / 'card.md'}; evidence of the certified error: {out / 'certified'}")


def _protocol(given: dict[str, Any], **more: Any) -> Protocol:
    from lpverify.cli.loading import make_settings
    from lpverify.training.evaluate import Protocol

    make_settings(given)
    names = (
        "eps", "norm", "clip", "data", "data_dir", "split", "scale", "index", "device", "dtype", "batch_size", "seed"
    )  # fmt: skip
    return Protocol(**{name: given[name] for name in names}, source=tuple(_source(given)), **more)


def _source(given: dict[str, Any]) -> list[str]:
    """The options that tell how the model file is read, as they would be given again."""
    words = ["--arch", given["arch"]] if given["arch"] else []
    for name, joint in (("input_shape", "x"), ("mean", ","), ("std", ",")):
        if given[name] is not None:
            words += ["--" + name.replace("_", "-"), joint.join(map(str, given[name]))]
    return words


def _rows(found: Evaluation) -> list[tuple[str, ...]]:
    from lpverify.table import percent

    return [
        (m.name, percent(m.count, m.total), str(m.count), str(m.total), f"{m.seconds:.1f}") for m in found.measures
    ]


def _note(protocol: Protocol) -> str:
    clip = "no clip" if protocol.clip is None else f"clip {protocol.clip[0]} to {protocol.clip[1]}"
    return f"eps {protocol.eps} in raw input units, norm {protocol.norm}, {clip}"
