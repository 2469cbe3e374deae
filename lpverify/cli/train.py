"""``lpverify train``: from a config file to a run folder with checkpoints, or on with the run that is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lpverify.training import TrainConfig


@click.command()
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.toml")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the data set's own files; wins over "
              "the config's data_dir.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN/", help="Folder for the run; an "
              "unfinished run of the same config goes on.")  # fmt: skip
@click.option("--card/--no-card", default=True, show_default=True, help="Measure the finished model, as `lpverify "
              "evaluate` does, and write RUN/card.md.")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Also write the metrics to RUN/tensorboard; needs the extra "
              "lpverify[tensorboard].")  # fmt: skip
def train(config: Path, data_dir: Path | None, out: Path, card: bool, tensorboard: bool) -> None:
    """Train a model as CONFIG.toml says, or go on with the unfinished run in RUN/.

    A config states data, method (standard, pgd, fgsm, free, dual, ibp, crown-ibp or mtl-ibp) and epochs, mostly arch
    and eps, and what else should not be at its default. All keys, with their meaning, units and ranges, are listed by
    `python -c "import lpverify.training as t; help(t.TrainConfig)"`; benchmarks/configs has examples.

    Writes RUN/best.safetensors and RUN/last.safetensors, which `lpverify verify` takes as they are, RUN/metrics.jsonl
    (one line an epoch), RUN/summary.json and what is needed to go on after an interruption: the same command does.
    The card states clean, FGSM, PGD, dual-bound and, of the first 100 examples, certified error.

    With stages above 1 it trains a cascade: RUN/stage-1, RUN/stage-2, ..., each on the examples that those before it
    do not certify, and RUN/cascade.toml, which `lpverify verify` takes. Its card states how many of
    the first 100 examples it answers wrongly, not at all, or without a proof.
    """
    import dataclasses

    from lpverify.training import read_config
    from lpverify.training import train as run
    from lpverify.training.cascade import train_cascade
    from lpverify.training.progress import Bar

    read = read_config(config)
    if data_dir is not None:
        read = dataclasses.replace(read, data_dir=str(data_dir))
    command = shlex.join(["lpverify", "train", str(config), "--out", str(out)])
    with Bar(read.epochs) as bar:
        if read.stages > 1:
            summary = train_cascade(read, out, command=command, report=bar.report, tensorboard=tensorboard)
        else:
            summary = run(read, out, command=command, report=bar.report, tensorboard=tensorboard)
    if read.stages > 1:
        _print_stages(summary)
    else:
        _print(summary, out)
    if card:
        _write_card(read, out, command)


def _write_card(config: TrainConfig, out: Path, command: str) -> None:
    """Measure the best checkpoint or the cascade, unless its card is there already, and print the errors."""
    from lpverify.table import print_table, progress
    from lpverify.training.card import has_card, make_card
    from lpverify.training.cascade_card import has_cascade_card, make_cascade_card

    if (has_cascade_card if config.stages > 1 else has_card)(out):
        return
    if config.stages > 1:
        card = make_cascade_card(out, config, command=command, watch=progress)
    else:
        card = make_card(out, config, watch=progress)
    rows = [(name, f"{e['error']:.2%}", str(e["count"]), str(e["total"])) for name, e in card["errors"].items()]
    print_table("cascade" if config.stages > 1 else "best checkpoint", ("error", "share", "count", "of"), rows)
    click.echo(f"model card: {out / 'card.md'}")


def _print_stages(summary: dict[str, Any]) -> None:
    from lpverify.table import print_table

    rows = [
        (str(stage["stage"]), str(stage["examples"]["train"]), str(stage["left"]["train"]),
         f"{stage['summary']['last']['robust_error']:.2%}")
        for stage in summary["stages"]
    ]  # fmt: skip
    print_table("stages", ("stage", "training examples", "left uncertified", "robust error in training"), rows)
    click.echo(f"cascade: {summary['cascade']}, for lpverify verify")


def _print(summary: dict[str, Any], out: Path) -> None:
    from lpverify.table import print_table

    columns = ("clean error", "robust error")
    parts = [p for p in ("validation", "test") if f"{p}_error" in summary["last"]]
    rows = []
    for name in ("best", "last"):
        line = summary[name]
        if line is not None:
            values = [line[f"{part}_{column}"] for part in parts for column in ("error", "robust_error")]
            rows.append([name, str(line["epoch"]), *("-" if v is None else f"{v:.2%}" for v in values)])
    heads = [f"{part}: {column}" for part in parts for column in columns]
    how = "stopped early" if summary["stopped_early"] else "finished"
    print_table(f"{how} after {summary['epochs']} epochs", ("checkpoint", "epoch", *heads), rows)
    if summary["robust_overfitting"] is not None:
        click.echo(f"robust overfitting: the last checkpoint's {summary['robust_overfitting_of']} is "
                   f"{100 * summary['robust_overfitting']:+.2f} points from the best one's")  # fmt: skip
    click.echo(f"checkpoints and metrics: {out}")
