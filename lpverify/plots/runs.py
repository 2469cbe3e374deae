"""Run folders as what pictures are drawn from: counterexamples, radii, robust errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.claim import BallRegion, LabelRows
from lpverify.certificate.container import RawArray
from lpverify.certificate.graph import read_network
from lpverify.certificate.proof import decode_witness
from lpverify.errors import DataError
from lpverify.plots.gallery import Shown
from lpverify.plots.radius import Radii
from lpverify.plots.robust_error import Errors
from lpverify.plots.style import STYLES
from lpverify.runs.folder import COUNTEREXAMPLE_SUFFIX, COUNTEREXAMPLES, NETWORK, RADII, SUMMARY

# How methods of the command line are drawn: auto searches where all else fails, but radii it certifies by crown; milp
# certifies radii by lp-tight.
SEARCHED, RADIUS_METHODS = {"auto": "search"}, {"auto": "crown", "milp": "lp-tight"}


def counterexamples(run: Path, count: int) -> list[Shown]:
    """The first counterexamples of a run of ``lpverify verify`` or ``attack``, clean misclassifications left out.

    Raises:
        DataError: if the run has none, or its inputs are no images of 1 or 3 channels.
    """
    shape = read_network(run / NETWORK).nodes[0].shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        sizes = "x".join(map(str, shape))
        raise DataError(f"{run}: inputs have shape {sizes}, not that of images; expected 1xHxW or 3xHxW")
    found: list[Shown] = []
    for path in sorted((run / COUNTEREXAMPLES).glob(f"*{COUNTEREXAMPLE_SUFFIX}")):
        witness = decode_witness(path.read_bytes(), str(path))
        region, rows = witness.claim.region, witness.claim.rows
        if not isinstance(region, BallRegion) or not isinstance(rows, LabelRows):
            raise DataError(f"{path}: not about a ball and a label; the gallery shows examples, not properties")
        x, changed = _image(region.center, shape), _image(witness.x, shape)
        if not bool((x == changed).all()):
            answer = witness.row + (witness.row >= rows.label)
            found.append(Shown(int(path.stem), x, changed, rows.label, answer))
        if len(found) == count:
            break
    if not found:
        raise DataError(f"{run}: no counterexample but misclassified inputs; falsify some example first")
    return found


def radii_of(runs: Sequence[Path]) -> tuple[list[int], Radii]:
    """The examples and their radii from runs of ``lpverify radius`` on the same examples, one a method.

    Raises:
        DataError: if a run cannot be read, or two of them differ in their network, data or examples.
    """
    certified: dict[str, NDArray[np.float64]] = {}
    attacked, low, high = [], [], []
    examples: list[int] | None = None
    summaries = [_summary(run) for run in runs]
    _require_same(runs, summaries)
    for run, summary in zip(runs, summaries, strict=True):
        lines = sorted(_lines(run / RADII), key=lambda line: int(line["index"]))
        indices = [int(line["index"]) for line in lines]
        if examples is not None and indices != examples:
            raise DataError(f"{run}: examples differ from those of {runs[0]}; choose the same --index")
        examples = indices
        method = summary["options"]["method"]
        certified[RADIUS_METHODS.get(method, method)] = _numbers(lines, "certified")
        attacked.append(_numbers(lines, "attacked"))
        low.append(_numbers(lines, "exact_lower"))
        high.append(_numbers(lines, "exact_upper"))
    known = np.fmin.reduce(attacked)
    exact = np.fmax.reduce(low), np.fmin.reduce(high)
    if all(bool(np.isnan(ends).all()) for ends in exact):
        return examples or [], Radii(certified, known)
    best = np.fmax.reduce([exact[0], *certified.values()])
    return examples or [], Radii(certified, known, (best, np.fmin(exact[1], known)))


def errors_of(runs: Sequence[Path]) -> Errors:
    """Robust errors from runs of ``lpverify verify`` on the same examples, at several radii and by several methods.

    Raises:
        DataError: if a run cannot be read, or two of them differ in their network, data, norm or clip.
    """
    summaries = [_summary(run) for run in runs]
    _require_same(runs, summaries)
    radii = sorted({summary["options"]["eps"] for summary in summaries}, key=float)
    names = {SEARCHED.get(name, name) for name in (summary["options"]["method"] for summary in summaries)}
    upper = {name: np.full(len(radii), np.nan) for name in STYLES if name in names}
    lower = np.full(len(radii), np.nan)
    for run, summary in zip(runs, summaries, strict=True):
        if summary.get("robust_error_upper") is None:
            raise DataError(f"{run}: a run about no example has no robust error; give runs of `lpverify verify`")
        options = summary["options"]
        place, name = radii.index(options["eps"]), SEARCHED.get(options["method"], options["method"])
        upper[name][place] = np.fmin(upper[name][place], summary["robust_error_upper"])
        lower[place] = np.fmax(lower[place], summary["robust_error_lower"])
    return Errors(np.array([float(eps) for eps in radii]), upper, lower)


def _require_same(runs: Sequence[Path], summaries: Sequence[dict[str, Any]]) -> None:
    """Refuse runs that cannot stand in one picture."""
    for run, summary in zip(runs, summaries, strict=True):
        for what, value, first in (
            ("network", summary["network"]["sha256"], summaries[0]["network"]["sha256"]),
            ("data", summary["data"]["sha256"], summaries[0]["data"]["sha256"]),
            *((name, summary["options"][name], summaries[0]["options"][name]) for name in ("norm", "clip")),
        ):
            if value != first:
                raise DataError(f"{run}: its {what} is not that of {runs[0]}; draw them apart")


def _summary(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
        found["options"]["method"], found["options"]["eps"], found["network"]["sha256"], found["data"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run / SUMMARY}: no summary of a run about examples ({_short(error)})") from None
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({_short(error)}); give a run of `lpverify radius`") from None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _numbers(lines: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if line[name] is None else float(line[name]) for line in lines])


def _image(array: RawArray, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Channel, height, width -> height, width, and the channel last where there are three."""
    pixels = np.array(array.values(), dtype=np.float64).reshape(shape)
    return pixels[0] if shape[0] == 1 else np.moveaxis(pixels, 0, -1)
