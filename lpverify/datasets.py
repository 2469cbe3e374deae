"""The named data sets as arrays, from local files, scikit-learn or OpenML.

Files of their own are idx (MNIST, Fashion-MNIST), the binary version (CIFAR-10), cropped digits as .mat (SVHN) and the
UCI text files (HAR). Pixels are in [0, 1]: k / 255 (digits: k / 16), both as float32. Images are (channel, height,
width). Splits are fixed: MNIST, Fashion-MNIST, CIFAR-10, SVHN and HAR have their own; digits, which has none, takes the
first 1397 of scikit-learn's 1797 images as train and the last 400 as test. From OpenML, which stores both splits one
after the other, train is the first part; its images are taken to be channel by channel. toy2d is made here, of points
in the unit square, and its one split serves as both.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.arrayfile import read_idx, read_mat, require_file
from lpverify.errors import DataError

Array = NDArray[Any]
# Inputs (N, *shape) float32, labels (N,), number of classes.
Loaded = tuple[Array, Array, int]

DIGITS_TRAIN = 1397
CIFAR10_RECORD, HAR_FEATURES = 1 + 3 * 32 * 32, 561
TOY_POINTS, TOY_DISTANCE = 12, 0.16


def _unit(pixels: Array, largest: int) -> NDArray[np.float32]:
    """Integers 0..largest as float32 quotients."""
    return np.asarray(pixels.astype(np.float32) / np.float32(largest))


def _digits(data_dir: Path | None, split: str) -> Loaded:
    from sklearn.datasets import load_digits

    bundled = load_digits()
    part = slice(None, DIGITS_TRAIN) if split == "train" else slice(DIGITS_TRAIN, None)
    return _unit(bundled.images[part].reshape(-1, 1, 8, 8), 16), bundled.target[part].astype(np.int64), 10


def _idx_pair(openml: str, folders: tuple[str, ...]) -> Callable[[Path | None, str], Loaded]:
    def load(data_dir: Path | None, split: str) -> Loaded:
        if data_dir is None:
            return _openml(openml, 60000, (1, 28, 28), split)
        prefix = "train" if split == "train" else "t10k"
        images = read_idx(_find(data_dir, folders, f"{prefix}-images-idx3-ubyte"), 3)
        labels = read_idx(_find(data_dir, folders, f"{prefix}-labels-idx1-ubyte"), 1)
        return _unit(images[:, None], 255), labels, 10

    return load


def _cifar10(data_dir: Path | None, split: str) -> Loaded:
    """The binary version; the other is pickled, and what unpickles runs code."""
    if data_dir is None:
        return _openml("CIFAR_10", 50000, (3, 32, 32), split)
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
    files = [_find(data_dir, ("cifar-10-batches-bin", "cifar10"), name, "the binary version's files") for name in names]
    for path in files:
        if require_file(path) % CIFAR10_RECORD:
            raise DataError(f"{path}: not a CIFAR-10 binary batch, whose images take {CIFAR10_RECORD} bytes each")
    rows = np.concatenate([np.fromfile(path, dtype=np.uint8).reshape(-1, CIFAR10_RECORD) for path in files])
    return _unit(rows[:, 1:].reshape(-1, 3, 32, 32), 255), rows[:, 0], 10


def _svhn(data_dir: Path | None, split: str) -> Loaded:
    """Format 2, cropped digits; the digit 0 is stored as class 10."""
    if data_dir is None:
        x, y, _ = _openml("SVHN", 73257, (3, 32, 32), split)
        return x, y % 10, 10
    path = _find(data_dir, ("svhn", "SVHN"), f"{split}_32x32.mat")
    arrays = read_mat(path, ("X", "y"))
    x, y = arrays["X"], arrays["y"].ravel()
    if x.dtype != np.uint8 or x.shape[:3] != (32, 32, 3) or x.ndim != 4:
        raise DataError(f"{path}: X has shape {x.shape} of {x.dtype}, expected bytes (32, 32, 3, images)")
    if not np.isin(y, np.arange(1, 11)).all():
        raise DataError(f"{path}: y has other values than the whole numbers 1 to 10")
    return _unit(x.transpose(3, 2, 0, 1), 255), y.astype(np.int64) % 10, 10


def _har(data_dir: Path | None, split: str) -> Loaded:
    if data_dir is None:
        return _openml("har", 7352, (HAR_FEATURES,), split, pixels=False)
    folders = (split, f"UCI HAR Dataset/{split}")
    files = [_find(data_dir, folders, f"{kind}_{split}.txt") for kind in "Xy"]
    try:
        x, y = np.loadtxt(files[0], dtype=np.float64, ndmin=2), np.loadtxt(files[1], dtype=np.int64, ndmin=1)
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())[:100]
        raise DataError(f"{files[0].parent}: not the text files of HAR ({text})") from None
    if x.shape[1] != HAR_FEATURES:
        raise DataError(f"{files[0]}: has {x.shape[1]} numbers a line, expected the {HAR_FEATURES} features of HAR")
    return x.astype(np.float32), y - 1, 6


def _toy2d(data_dir: Path | None, split: str) -> Loaded:
    """The problem of Wong & Kolter 2018, appendix B.1: 12 points at l-infinity distances above 0.16, labels at random.

    A classifier that is right on all balls of radius 0.08 exists, as these do not touch.
    """
    generator = np.random.default_rng(0)
    points = np.empty((0, 2), dtype=np.float32)
    while len(points) < TOY_POINTS:
        point = generator.random((1, 2), dtype=np.float32)
        if (np.abs(points - point).max(1) > TOY_DISTANCE).all():
            points = np.concatenate([points, point])
    return points, generator.integers(0, 2, TOY_POINTS), 2


def _find(data_dir: Path, folders: tuple[str, ...], name: str, what: str = "the data set's files") -> Path:
    """The file, plain or .gz, in the data folder or one of the usual folders below it."""
    for folder in ("", *folders):
        for ending in ("", ".gz"):
            path = Path(data_dir, folder, name + ending)
            if path.exists():
                return path
    raise DataError(f"{data_dir}: holds no {name} or {name}.gz; give the folder of {what} as --data-dir")


def _openml(name: str, train: int, shape: tuple[int, ...], split: str, *, pixels: bool = True) -> Loaded:
    """A data set of OpenML, version 1: the first ``train`` rows are the train split, the others the test split."""
    from sklearn.datasets import fetch_openml

    parser = "auto" if importlib.util.find_spec("pandas") else "liac-arff"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each retry warns; the error below says it once
            bunch = fetch_openml(name, version=1, as_frame=False, parser=parser)
    except Exception as error:  # urllib, http, socket, hashing and parsing errors alike: the data are not to be had
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"OpenML {name}: cannot be fetched ({text}); give local files with --data-dir") from None
    part = slice(None, train) if split == "train" else slice(train, None)
    x = np.asarray(bunch.data[part], dtype=np.float32).reshape(-1, *shape)
    y = np.asarray(bunch.target[part]).astype(np.int64)
    return (_unit(x, 255), y, 10) if pixels else (x, y - 1, 6)


DATASETS: dict[str, Callable[[Path | None, str], Loaded]] = {
    "mnist": _idx_pair("mnist_784", ("mnist", "MNIST/raw")),
    "fashion-mnist": _idx_pair("Fashion-MNIST", ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw")),
    "digits": _digits,
    "har": _har,
    "svhn": _svhn,
    "cifar10": _cifar10,
    "toy2d": _toy2d,
}
