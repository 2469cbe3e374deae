"""Counterexamples as they stand on the page: small images where inputs are images, else the greatest changes."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from lpverify.certificate.claim import BallRegion, BoxRegion, LabelRows, RationalBox
from lpverify.certificate.proof import Witness, decode_witness
from lpverify.errors import CertificateError
from lpverify.runs.folder import COUNTEREXAMPLE_SUFFIX, COUNTEREXAMPLES

Array = NDArray[np.float64]
NAME = re.compile(re.escape(COUNTEREXAMPLES) + r"/[0-9]{1,20}" + re.escape(COUNTEREXAMPLE_SUFFIX))
# Inputs that are listed where there is no image, those that moved most first.
LISTED = 8


@dataclass(frozen=True)
class Change:
    """Input number ``unit``: its value in the example, or the ends of its range, and in the counterexample."""

    unit: int
    before: str
    after: str
    moved: str


@dataclass(frozen=True)
class Picture:
    """One counterexample.

    Attributes:
        index: of the example.
        caption: what the network says there, and by which margin.
        images: name and data URI of the input, the change and the counterexample; none where inputs are no images.
        size: (width, height) of the images in pixels.
        changes: the inputs that moved most; none where there are images.
    """

    index: int
    caption: str
    images: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    changes: tuple[Change, ...]


def pictures(
    run: Path, records: Iterable[Mapping[str, Any]], shape: tuple[int, ...], count: int
) -> tuple[Picture, ...]:
    """The first ``count`` counterexamples of a run, those of misclassified inputs, which show nothing, left out.

    Args:
        run: the folder.
        records: its lines; each names the file of its counterexample or none.
        shape: of the network's input.

    Raises:
        CertificateError: if a counterexample's file cannot be read, or lies outside the run.
    """
    found: list[Picture] = []
    for record in records:
        if len(found) >= count:
            break
        name = record.get("counterexample")
        if name is not None:
            picture = _picture(int(record["index"]), _witness(run, name), shape)
            if picture is not None:
                found.append(picture)
    return tuple(found)


def _witness(run: Path, name: Any) -> Witness:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CertificateError(f"{run}: {str(name)[:60]!r} is no file of a counterexample; run `lpverify check` on it")
    try:
        return decode_witness((run / name).read_bytes(), str(run / name))
    except OSError as error:
        raise CertificateError(f"{run / name}: cannot be read ({error.strerror}); make the run again") from None


def _picture(index: int, witness: Witness, shape: tuple[int, ...]) -> Picture | None:
    region = witness.claim.region
    x = np.array(witness.x.values(), dtype=np.float64)
    if not isinstance(region, BallRegion):
        return Picture(index, _caption(witness), (), (0, 0), _in_box(region, x))
    center = np.array(region.center.values(), dtype=np.float64)
    if bool((x == center).all()):
        return None
    moved = x - center
    caption = _caption(witness, float(np.abs(moved).max()))
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1 and int(np.prod(shape)) == len(x):
        return Picture(index, caption, _images(center, x, shape), (shape[2], shape[1]), ())
    order = np.argsort(-np.abs(moved), kind="stable")[:LISTED].tolist()
    changes = tuple(Change(i, f"{center[i]:.4g}", f"{x[i]:.4g}", f"{moved[i]:+.3g}") for i in order)
    return Picture(index, caption, (), (0, 0), changes)


def _caption(witness: Witness, moved: float | None = None) -> str:
    rows, margin = witness.claim.rows, f"margin {witness.margin:.3g}"
    if moved is not None:
        margin += f", changed by up to {moved:.3g}"
    if isinstance(rows, LabelRows):
        return f"label {rows.label}, called {witness.row + (witness.row >= rows.label)}; {margin}"
    return f"clause {witness.row} of the claim fails; {margin}"


def _in_box(region: BoxRegion | RationalBox, x: Array) -> tuple[Change, ...]:
    """The first inputs of a point in a box, whose range stands for the example."""
    if isinstance(region, BoxRegion):
        low, high = list(region.lower.values()), list(region.upper.values())
    else:
        low, high = [_float(v) for v in region.lower], [_float(v) for v in region.upper]
    return tuple(Change(i, f"{low[i]:.4g} to {high[i]:.4g}", f"{x[i]:.6g}", "") for i in range(min(LISTED, len(x))))


def _float(value: Fraction) -> float:
    """The nearest float64, infinite where there is none."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _images(center: Array, x: Array, shape: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    """The input, the change on a scale of its own, and the counterexample on that of the input."""
    before, after = center.reshape(shape), x.reshape(shape)
    change = (after - before).mean(0)
    top = float(np.abs(change).max()) or 1.0
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    span = high - low or 1.0
    coloured = matplotlib.colormaps["RdBu_r"]((change / top + 1) / 2)
    return (
        ("input", _png(_pixels((before - low) / span))),
        ("change", _png(coloured)),
        ("result", _png(_pixels((after - low) / span))),
    )


def _pixels(image: Array) -> Array:
    """(channels, height, width) in 0 to 1 -> what a PNG takes; one channel is drawn as ink on paper."""
    if image.shape[0] == 3:
        return np.moveaxis(image, 0, -1)
    return np.repeat(1 - image[0][:, :, None], 3, axis=2)


def _png(pixels: Array) -> str:
    """An image (height, width, 3 or 4) in 0 to 1 as a data URI."""
    data = io.BytesIO()
    nothing: Any = {"Software": None}
    imsave(data, np.clip(np.nan_to_num(pixels[..., :3]), 0, 1), format="png", metadata=nothing)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
