"""``lpverify train``: from a config file to a run folder with checkpoints, or on with the run that is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.toml")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the data set's own files; wins over "
              "the config's data_dir.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN/", help="Folder for the run; an "
              "unfinished run of the same config goes on.")  # fmt: skip
def train(config: Path, data_dir: Path | None, out: Path) -> None:
    """Train a model as CONFIG.toml says, or go on with the unfinished run in RUN/.

    Writes RUN/best.safetensors and RUN/last.safetensors, which `lpverify verify` takes as they are, RUN/metrics.jsonl
    (one line an epoch), RUN/summary.json and what is needed to go on after an interruption: the same command does.
    """
    import dataclasses

    from lpverify.training import read_config
    from lpverify.training import train as run
    from lpverify.training.progress import Bar

    read = read_config(config)
    if data_dir is not None:
        read = dataclasses.replace(read, data_dir=str(data_dir))
    command = shlex.join(["lpverify", "train", str(config), "--out", str(out)])
    with Bar(read.epochs) as bar:
        summary = run(read, out, command=command, report=bar.report)
    _print(summary, out)


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
