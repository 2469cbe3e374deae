"""The card of a trained cascade: its errors, as ``lpverify verify RUN/cascade.toml`` counts them, and its stages.

Asked at an input, a cascade gives the class of the first stage that is certified there, or no certificate (see
``cascade``). Of these answers and of the verdicts one run counts all errors:

    clean            the answer is wrong; where there is no certificate, the class of the last stage counts
    no certificate   no stage is certified at the input
    wrong            a stage is certified for a wrong class
    error            either of these two: the robust error of a cascade in its papers
    certified        not verified: stages that disagree count too
"""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lpverify.cascade import Cascade, CascadeResult, CascadeTally, read_cascade
from lpverify.data import check_inside, check_labels, check_range, check_shape, select
from lpverify.files import write_atomic
from lpverify.lowering import load_model
from lpverify.runs.cascade_folder import CascadeFolder
from lpverify.training.card import (
    CARD_JSON,
    CARD_MD,
    CERTIFY_SECONDS,
    CONFIG,
    command_lines,
    error_lines,
    origin_lines,
    protocol_of,
)
from lpverify.training.cascade import CASCADE
from lpverify.training.config import TrainConfig
from lpverify.training.evaluate import CERTIFIED, Measure, unwatched
from lpverify.versions import machine

CascadeWatch = Callable[[Iterable[CascadeResult], int, str], Iterator[CascadeResult]]


def make_cascade_card(
    folder: Path,
    config: TrainConfig,
    *,
    command: str = "",
    certify: str | None = None,
    timeout: float = CERTIFY_SECONDS,
    watch: CascadeWatch = unwatched,
) -> dict[str, Any]:
    """Verify a finished cascade as its config says, on test examples, and write ``card.json`` and ``card.md``.

    Args:
        folder: the cascade's run; the evidence goes to its folder ``certified``, or replaces what is there.
        command: that of the training.
        certify: the examples; None: the first ``card.CERTIFY``, or all where there are fewer.
        timeout: seconds an example and stage.
        watch: wraps a stream of so many results with a name, for a progress bar.

    Raises:
        ModelError, ShapeError, DataError, ResourceError: as reading, verifying and writing may.
    """
    model = folder / CASCADE
    protocol, examples = protocol_of(config, certify, timeout)
    stages, settings = read_cascade(model, load_model), protocol.settings(timeout=timeout)
    indices, chosen = select(examples, protocol.certify or "")
    check_shape(chosen, stages[0].shapes[0])
    check_range(chosen, protocol.clip)
    check_inside(chosen, protocol.eps, protocol.clip)
    y, began = check_labels(chosen, stages[0].output_size), time.perf_counter()
    about = {
        "data": {"source": chosen.source, "sha256": chosen.sha256},
        **machine(protocol.device, torch.get_num_threads()),
    }
    options = {"model": str(model), **asdict(settings), "mean": None, "std": None}
    results, tally = [], CascadeTally(len(stages))
    with (
        CascadeFolder(folder / CERTIFIED, stages, settings, overwrite=True) as run,
        Cascade(stages, settings) as cascade,
    ):
        stream = cascade.verify(chosen.x, y, indices.tolist())
        for position, result in enumerate(watch(stream, len(y), CERTIFIED)):
            run.add(result, chosen.x[position])
            tally.add(result)
            results.append(result)
        seconds = time.perf_counter() - began
        network = {"stages": run.networks, "notes": [list(stage.notes) for stage in stages]}
        spent = {"verify": round(seconds, 6), "total": round(seconds, 6)}
        run.write_summary(tally.summary(stopped=None, options=options, seconds=spent, network=network, **about))
    words = ("--timeout", f"{timeout:g}", "--out", f"RUN/{CERTIFIED}")
    verify = protocol.command("verify", str(model), protocol.certify, *words)
    config_text = (folder / CONFIG).read_text(encoding="utf-8")
    card = {
        "model": str(model),
        "checkpoint_sha256": _digest(folder),
        "command": command,
        "config": tomllib.loads(config_text),
        "evidence": str(folder / CERTIFIED),
        "stages": _stages(results, tally, model),
        "errors": {m.name: m.record() for m in _measures(results, tally, verify, seconds)},
        "protocol": protocol.record(),
        "network": network,
        **about,
    }
    write_atomic(folder / CARD_JSON, (json.dumps(card, indent=2, allow_nan=False) + "\n").encode())
    write_atomic(folder / CARD_MD, _markdown(card, config_text).encode())
    return card


def has_cascade_card(folder: Path) -> bool:
    """Whether the folder's card is about its stages as they are now."""
    try:
        card = json.loads((folder / CARD_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and card.get("checkpoint_sha256") == _digest(folder)


def _digest(folder: Path) -> str:
    """One SHA-256 of the cascade's file and its stages' checkpoints."""
    files = [CASCADE, *_files(folder / CASCADE)]
    digests = [hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _files(cascade: Path) -> list[str]:
    return [str(file) for file in tomllib.loads(cascade.read_text(encoding="utf-8"))["stages"]]


def _measures(results: list[CascadeResult], tally: CascadeTally, command: str, seconds: float) -> list[Measure]:
    n = len(results)
    clean = sum((r.answer.predicted[-1] if r.answer.label is None else r.answer.label) != r.label for r in results)
    missing, verdicts = n - tally.right - tally.wrong, tally.verdicts
    counts = (
        ("clean", clean, "the answer is wrong; where there is no certificate, the last stage's class counts"),
        ("no certificate", missing, "no stage is certified at the input"),
        ("wrong", tally.wrong, "a stage is certified for a wrong class"),
        ("error", missing + tally.wrong, "no certificate, or a wrong one"),
        (CERTIFIED, n - verdicts["verified"],
         f"not verified by auto: {verdicts['falsified']} falsified, {verdicts['unknown']} unknown"),
    )  # fmt: skip
    return [Measure(name, count, n, meaning, command, seconds) for name, count, meaning in counts]


def _stages(results: list[CascadeResult], tally: CascadeTally, model: Path) -> list[dict[str, Any]]:
    """For each stage its file, the answers that it gives, and how many inputs it would get wrong by itself."""
    return [
        {"file": file, "answers": answers, "clean_errors": sum(r.answer.predicted[k] != r.label for r in results)}
        for k, (file, answers) in enumerate(zip(_files(model), tally.stages, strict=True))
    ]


def _markdown(card: dict[str, Any], config: str) -> str:
    n = card["errors"][CERTIFIED]["total"]
    lines = [
        *error_lines(card),
        "One command makes them all: they are counts of one run.",
        "",
        "## Stages",
        "",
        f"| stage | file | answers of {n} | wrong by itself, clean |",
        "|---|---|---|---|",
        *(f"| {k} | {s['file']} | {s['answers']} | {s['clean_errors']} |" for k, s in enumerate(card["stages"], 1)),
        "",
        "## Commands",
        "",
    ]
    lines += command_lines({**card, "errors": {"all": card["errors"][CERTIFIED]}}, card["command"])[2:]
    return "\n".join([*lines[:-1], *origin_lines(card, config)]) + "\n"
