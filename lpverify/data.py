"""Examples from a data set's name or FILE.npz: selection by index, and the checks before anything is proved."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.arrayfile import read_npz
from lpverify.datasets import DATASETS
from lpverify.errors import DataError, ExampleError, ShapeError, UsageError
from lpverify.refusals import (
    SCALE_SHARE,
    beyond_one,
    not_finite,
    outside,
    whole_labels,
    wrong_labels,
)

Array = NDArray[Any]
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs with their labels.

    Attributes:
        x: (N, *shape) float32 or float64, finite but for the refused ones.
        y: (N,) int64, or None where the file has no labels.
        num_classes: number of classes of a named data set, None for a file.
        sha256: of shape, dtype and bytes of x and y, the same wherever they were read from.
        source: the name or path that was loaded, for messages and records.
        refused: why an example cannot be used, by position; only in data that were loaded with ``keep_going``.
    """

    x: Array
    y: NDArray[np.int64] | None
    num_classes: int | None
    sha256: str
    source: str = ""
    refused: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)


def load_data(
    name_or_path: str,
    *,
    data_dir: Path | None = None,
    split: str = "test",
    scale: float | None = None,
    keep_going: bool = False,
) -> Examples:
    """Load a named data set or FILE.npz (``x`` and, for label claims, ``y``).

    Args:
        name_or_path: a key of DATASETS, or a path that ends in .npz.
        data_dir: folder with the data set's own files (idx files of MNIST and Fashion-MNIST, gzip or not; the
            binary batches of CIFAR-10; the cropped digits of SVHN as .mat; the text files of HAR), here or one folder
            below. Without it OpenML is asked, through scikit-learn's cache; digits and toy2d need neither.
        split: "train" or "test"; a file has no splits.
        scale: divide a file's x by this, in its float dtype; integers become float32 first.
        keep_going: note in ``refused`` what would be raised about single examples of a file.

    Raises:
        DataError: if the data cannot be had or are refused: not finite, object arrays, labels that are no
            integers, damaged files, sizes that do not match.
        UsageError: for an unknown name or split, or a scale that cannot be used.
    """
    if split not in SPLITS:
        raise UsageError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"scale: {scale!r} must be finite and > 0")
    if name_or_path in DATASETS:
        if scale is not None:
            raise UsageError(f"scale: {name_or_path} comes scaled already; --scale is for FILE.npz")
        x, y, num_classes = DATASETS[name_or_path](data_dir, split)
        return make_examples(x, y, num_classes, name_or_path)
    if not name_or_path.endswith(".npz"):
        raise UsageError(f"data: {name_or_path!r} is not one of {', '.join(DATASETS)} and does not end in .npz")
    arrays = read_npz(Path(name_or_path), ("x", "y"))
    if "x" not in arrays:
        raise DataError(f"{name_or_path}: no array named x; save it with numpy.savez(FILE, x=..., y=...)")
    return make_examples(_scaled(arrays["x"], scale), arrays.get("y"), None, name_or_path, keep_going=keep_going)


def make_examples(
    x: Array, y: Array | None, num_classes: int | None = None, source: str = "data", *, keep_going: bool = False
) -> Examples:
    """Examples from arrays, with the checks that need no network.

    Args:
        keep_going: as in ``load_data``; labels may then be floats, of which the whole ones are taken.

    Raises:
        DataError: if x is empty, not (N, ...) or not finite, or y is not (N,) integers within ``num_classes``; an
            ExampleError where only single examples are at fault.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN
        x = np.ascontiguousarray(x if x.dtype in (np.float32, np.float64) else x.astype(np.float32))
    if x.ndim < 2 or not x.size:
        raise ShapeError(f"{source}: x has shape {x.shape}, expected (examples, ...) with at least one value")
    refused = not_finite(x)
    if refused and not keep_going:
        first = min(refused)
        raise ExampleError(f"{source}: example {first}, {refused[first]}; inputs must be finite")
    if y is not None:
        if y.shape != (len(x),):
            raise ShapeError(f"{source}: labels y have shape {y.shape}, expected ({len(x)},)")
        if keep_going and y.dtype.kind in "iuf":
            y, wrong = whole_labels(y)
            refused = {**wrong, **refused}
        elif y.dtype.kind not in "iu":
            kind = ExampleError if y.dtype.kind == "f" else DataError
            raise kind(f"{source}: labels y have dtype {y.dtype}, expected integers")
        elif y.dtype == np.uint64 and (y > np.iinfo(np.int64).max).any():
            raise ExampleError(f"{source}: label of example {int(y.argmax())}: {y.max()} is out of range")
        y = np.ascontiguousarray(y, dtype=np.int64)
    found = Examples(x, y, num_classes, _digest(x, y), source, refused)
    if num_classes is not None:
        check_labels(found, num_classes)
    return found


def select(examples: Examples, index: str) -> tuple[NDArray[np.int64], Examples]:
    """The examples of an index expression: "0:500", "0:100:10", "3,7", or parts of these joined by commas.

    Returns:
        Their indices (K,) in the order given, and the examples.

    Raises:
        UsageError: if the expression cannot be read, selects nothing or selects an example twice.
        DataError: if it goes past the data.
    """
    chosen: list[int] = []
    for part in index.split(","):
        chosen.extend(_indices(part.strip(), len(examples), examples.source))
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"index: {index!r} selects {'an example twice' if chosen else 'no example'}")
    order = np.array(chosen, dtype=np.int64)
    x = examples.x[order]
    y = None if examples.y is None else examples.y[order]
    refused = {place: examples.refused[i] for place, i in enumerate(chosen) if i in examples.refused}
    return order, Examples(x, y, examples.num_classes, _digest(x, y), examples.source, refused)


def check_range(examples: Examples, clip: tuple[Any, Any] | None) -> None:
    """Refuse pixels in 0..255 where the clip says that they end at 1 or so; nothing is rescaled by guess.

    Raises:
        DataError: if the clip's upper end is at most 1 and some value is above 1.5.
    """
    large = {} if clip is None else beyond_one(examples.x, clip)
    if clip is not None and large:
        example = max(large, key=lambda i: large[i])
        advice = "pass --scale 255" if large[example] <= 255 else "check the data's scale"
        raise DataError(
            f"{examples.source}: example {example} has values up to {large[example]:g}; {advice} "
            f"(the clip is {clip[0]} to {clip[1]})"
        )


def check_inside(examples: Examples, eps: str, clip: tuple[str, str] | None) -> None:
    """Refuse inputs that lie further than eps outside the clip: nothing is left of their balls.

    Raises:
        ExampleError: naming the first such example (counted within ``examples``) and its value.
    """
    if clip is None:
        return
    for example, unit in outside(examples.x, eps, clip).items():
        value = examples.x.reshape(len(examples), -1)[example, unit]
        raise ExampleError(
            f"{examples.source}: input {unit} of selected example {example} is {value:g}, further than "
            f"eps {eps} outside --clip {clip[0]} {clip[1]}; give the clip that the data keeps"
        )


def refusals(examples: Examples, num_classes: int, eps: str, clip: tuple[str, str] | None) -> dict[int, str]:
    """Why examples cannot be used for a label claim, by position: all that the checks here say of single ones.

    Raises:
        DataError: if there are no labels, or if so many examples have values far above 1 in spite of the clip (more
            than SCALE_SHARE) that it is the scale of the data set that is wrong.
    """
    if examples.y is None:
        check_labels(examples, num_classes)
    assert examples.y is not None
    found: dict[int, str] = {}
    if clip is not None:
        flat, ends = examples.x.reshape(len(examples), -1), f"the clip {clip[0]} to {clip[1]}"
        large = beyond_one(examples.x, clip)
        if len(large) > SCALE_SHARE * len(examples):
            check_range(examples, clip)
        found = {
            i: f"input {unit} is {flat[i, unit]:g}, further than eps {eps} outside {ends}"
            for i, unit in outside(examples.x, eps, clip).items()
        }
        found |= {i: f"values up to {largest:g}, above {ends}" for i, largest in large.items()}
    found = {**wrong_labels(examples.y, num_classes), **found, **examples.refused}
    return dict(sorted(found.items()))


def check_shape(examples: Examples, input_shape: tuple[int, ...]) -> None:
    """Refuse examples that do not fit a network's input; axes of length 1 and flattening make no difference.

    Raises:
        ShapeError: with both shapes, and a hint where the channels seem to come last.
    """
    got, want = examples.x.shape[1:], tuple(input_shape)
    if math.prod(got) == math.prod(want):
        squeezed = [tuple(n for n in shape if n != 1) for shape in (got, want)]
        if min(map(len, squeezed)) <= 1 or squeezed[0] == squeezed[1]:
            return
    channels_last = len(got) == len(want) == 3 and (got[2], got[0], got[1]) == want
    hint = "; channels come last: transpose x to (examples, channels, height, width)" if channels_last else ""
    raise ShapeError(f"{examples.source}: each example has shape {got}, the network takes {want}{hint}")


def check_labels(examples: Examples, num_classes: int) -> NDArray[np.int64]:
    """The labels, for a claim about ``num_classes`` outputs.

    Raises:
        DataError: if there are none; an ExampleError, which names it, if one is out of range.
    """
    if examples.y is None:
        raise DataError(f"{examples.source}: no labels; add an integer array y to the file")
    bad = np.flatnonzero((examples.y < 0) | (examples.y >= num_classes))
    if len(bad):
        raise ExampleError(
            f"{examples.source}: label of example {bad[0]}: {examples.y[bad[0]]} is not in 0..{num_classes - 1}"
        )
    return examples.y


def _indices(part: str, count: int, source: str) -> range:
    pieces = part.split(":")
    try:
        numbers = [int(p) if p.strip() else None for p in pieces]
        if len(pieces) > 3 or (len(pieces) == 1 and numbers[0] is None):
            raise ValueError
    except ValueError:
        raise UsageError(f"index: {part!r} is not a number or a range such as 0:500 or 0:100:10") from None
    start = numbers[0] or 0
    if len(pieces) == 1:
        stop, step = start + 1, 1
    else:
        stop = count if numbers[1] is None else numbers[1]
        step = numbers[2] if len(numbers) == 3 and numbers[2] is not None else 1
    if start < 0 or stop < 0 or step < 1:
        raise UsageError(f"index: {part!r} has a negative number or a step below 1")
    if stop > count or start > count:
        raise DataError(f"index {part}: {source} has {count} examples, numbered 0 to {count - 1}")
    return range(start, stop, step)


def _scaled(x: Array, scale: float | None) -> Array:
    with np.errstate(all="ignore"):  # what is not finite afterwards is refused by name
        x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
        return x if scale is None else x / x.dtype.type(scale)


def _digest(x: Array, y: NDArray[np.int64] | None) -> str:
    total = hashlib.sha256()
    for array in (x, y):
        if array is not None:
            total.update(f"{array.dtype.str}{array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
