"""A comparison: every method of a case on every example, checked against each other, appended to a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify import __version__
from lpverify.comparison.case import Case
from lpverify.comparison.layers import layers_path, save_layers
from lpverify.comparison.measure import Bench, Example, Measured
from lpverify.comparison.orderings import violations
from lpverify.comparison.rows import ATTACK, Group, Row, RowFile
from lpverify.errors import SoundnessError
from lpverify.serialize import network_bytes
from lpverify.session import Session
from lpverify.settings import Settings

# Hexadecimal digits of a network's SHA-256 in the file.
HASH_DIGITS = 12


@dataclass(frozen=True)
class Options:
    """How a comparison is run.

    Attributes:
        device, dtype: of the engines.
        backend, solver: of the methods that need one.
        seed: of the attack's starts and of solvers.
        layers: folder for pre-activation bounds; None keeps none.
        commit: of the code, for the file.
    """

    device: str = "cpu"
    dtype: str = "float64"
    backend: str = "highs"
    solver: str = ""
    seed: int = 0
    layers: Path | None = None
    commit: str = ""


def compare(case: Case, file: RowFile, options: Options) -> Iterator[list[Row]]:
    """Measure what the file does not have yet; yields each group of rows once it is there.

    Raises:
        SoundnessError: for two numbers in the wrong order; the case is saved in a folder beside the file.
        UsageError: if a method cannot do what is asked on this network.
    """
    settings = Settings(
        case.radii[0], case.norm, case.clip, device=options.device, dtype=options.dtype, seed=options.seed,
        backend=options.backend, solver=options.solver, objective="value",
    )  # fmt: skip
    with Session(case.network, settings) as session:
        bench = Bench(session)
        for eps in case.radii:
            for position in range(len(case.x)):
                group = _group(case, session.plain.sha256, eps, options.dtype, position)
                methods = case.methods_of(position)
                if not file.has(group, methods):
                    example = Example(
                        case.x[position], int(case.y[position]), int(case.indices[position]),
                        replace(settings, eps=eps), session.exact.output_size,
                    )  # fmt: skip
                    rows = _measure(case, bench, example, methods, group, options, file.path)
                    file.add(rows)
                    yield rows


def _group(case: Case, sha256: str, eps: str, dtype: str, position: int) -> Group:
    clip = " ".join(case.clip or ())
    return case.name, sha256[:HASH_DIGITS], eps, case.norm, clip, dtype, int(case.indices[position])


def _measure(
    case: Case, bench: Bench, example: Example, methods: Sequence[str], group: Group, options: Options, out: Path
) -> list[Row]:
    """The rows of one group; raises once they are in the wrong order."""
    measured = [bench.measure(name, example, case.costly.get(name)) for name in methods]
    clean, _ = bench.uppers(example, [example.x.astype(np.float64)])
    uppers = np.min([clean, *(found.uppers for found in measured if len(found.uppers))], axis=0)
    rows = _rows(measured, uppers, example, group, options)
    wrong = violations(measured, uppers, options.dtype)
    if wrong:
        folder = save_case(out.parent / "violations" / f"{case.name}-{example.settings.eps}-{example.index}",
                           case, example, rows, [str(violation) for violation in wrong])  # fmt: skip
        where = f"{case.name}, eps {example.settings.eps}, example {example.index}"
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise SoundnessError(f"{where}, {wrong[0]}{more}; the case is saved in {folder}")
    if options.layers is not None:
        save_layers(layers_path(options.layers, case.name, example.settings.eps, example.index), measured)
    return rows


def save_case(folder: Path, case: Case, example: Example, rows: Sequence[Row], wrong: Sequence[str]) -> Path:
    """Save what is needed to look into a violation: network.lpnet, x.npy, case.json with the rows; returns the folder.

    The network file is the one that ``lpverify check`` reads; NaN is null in the JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.lpnet").write_bytes(network_bytes(case.network))
    np.save(folder / "x.npy", example.x)
    lines = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()} for row in rows]
    settings = {"eps": example.settings.eps, "norm": case.norm, "clip": case.clip, "label": example.label}
    content = {"violations": list(wrong), **settings, "rows": lines}
    (folder / "case.json").write_text(json.dumps(content, indent=1) + "\n")
    return folder


def _rows(
    measured: Sequence[Measured], uppers: NDArray[np.float64], example: Example, group: Group, options: Options
) -> list[Row]:
    targets = [target for target in range(example.classes) if target != example.label]
    known = [found.certified for found in measured if found.method != ATTACK]
    known += [found.margins for found in measured if found.method == "milp"]
    best = np.full(len(targets), np.nan)
    for lower in known:
        best = np.fmax(best, lower)
    name, sha256, eps, norm, clip, dtype, index = group
    return [
        Row(
            name, sha256, eps, norm, clip, found.method, index, example.label, target,
            float(found.margins[i]), float(found.certified[i]), float(best[i]), float(uppers[i]),
            float(abs(uppers[i] - found.margins[i])), found.unstable, found.verdict,
            int(found.certified[i] > 0), found.seconds, found.cpu, found.note, options.device, dtype,
            __version__, torch.__version__, options.commit, len(measured) * len(targets),
        )
        for found in measured
        for i, target in enumerate(targets)
    ]  # fmt: skip
