"""Data sets, selection by index, and every refusal of a bad file."""

from __future__ import annotations

import gzip
import io
import os
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from lpverify import arrayfile
from lpverify.data import check_inside, check_labels, check_range, check_shape, load_data, make_examples, select
from lpverify.errors import DataError, LpverifyError, ShapeError, UsageError

X = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
Y = np.array([1, 0])


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def one_line(error: pytest.ExceptionInfo[LpverifyError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def npy(header: dict[str, object], body: bytes) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + body


def write_zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return str(path)


def test_toy2d_is_the_same_for_ever_and_leaves_room_between_balls() -> None:
    data = load_data("toy2d")
    assert data.x.shape == (12, 2)
    assert data.x.dtype == np.float32
    assert set(data.y.tolist()) == {0, 1}
    assert data.num_classes == 2
    assert ((data.x >= 0) & (data.x < 1)).all()
    distances = np.abs(data.x[:, None] - data.x[None]).max(2) + np.eye(12)
    assert distances.min() > 0.16
    assert load_data("toy2d", split="train").sha256 == data.sha256
    assert data.sha256 == "3fae0cdc1ea80a162d138a1d576229cdc15e8257b2df135558352256842efa81"


def test_digits_have_a_fixed_split_and_exact_sixteenths() -> None:
    train, test = load_data("digits", split="train"), load_data("digits")
    assert (train.x.shape, test.x.shape) == ((1397, 1, 8, 8), (400, 1, 8, 8))
    assert test.x.dtype == np.float32 and test.num_classes == 10
    assert np.array_equal(test.x * 16, np.round(test.x * 16)) and test.x.max() == 1
    assert train.sha256 != test.sha256 == load_data("digits").sha256


@pytest.mark.shared
def test_mnist_and_fashion_are_read_as_float32_quotients(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "datasets" / "mnist"
    mnist = load_data("mnist", data_dir=folder)
    assert mnist.x.shape == (10000, 1, 28, 28) and mnist.y is not None
    assert mnist.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    levels = np.array([np.float32(k) / np.float32(255) for k in range(256)], dtype=np.float32)
    assert np.array_equal(mnist.x.ravel(), levels[np.frombuffer(raw, np.uint8)])
    # The same bytes without gzip, in a folder below the one that is named.
    plain = tmp_path / "mnist"
    plain.mkdir()
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (plain / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
    assert load_data("mnist", data_dir=tmp_path).sha256 == mnist.sha256
    fashion = load_data("fashion-mnist", data_dir=shared_data / "datasets", split="train")
    assert fashion.x.shape == (60000, 1, 28, 28)
    assert np.bincount(fashion.y).tolist() == [6000] * 10


def write_cifar10(path: Path, labels: list[int]) -> np.ndarray:
    """A binary batch: for each image its label and 1024 bytes each of red, green and blue, row after row."""
    images = np.random.default_rng(labels[0]).integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    path.write_bytes(b"".join(bytes([y]) + image.tobytes() for y, image in zip(labels, images, strict=True)))
    return images


def test_cifar10_batches_are_channel_first_and_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    parts = [write_cifar10(folder / f"data_batch_{k}.bin", [k, 9, 0]) for k in range(1, 6)]
    test = write_cifar10(folder / "test_batch.bin", [7, 8])
    train = load_data("cifar10", data_dir=tmp_path, split="train")
    assert train.y is not None and train.y.tolist() == [label for k in range(1, 6) for label in (k, 9, 0)]
    assert np.array_equal(train.x, np.concatenate(parts).astype(np.float32) / np.float32(255))
    examples = load_data("cifar10", data_dir=folder)
    assert examples.y is not None and examples.y.tolist() == [7, 8] and examples.num_classes == 10
    assert examples.x.dtype == np.float32 and np.array_equal(examples.x, test.astype(np.float32) / np.float32(255))


def test_bad_cifar10_folders_are_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "test_batch.bin", [7, 10])
    with pytest.raises(DataError) as error:
        load_data("cifar10", data_dir=tmp_path)
    one_line(error, "label of example 1", "10", "0..9")
    (tmp_path / "test_batch.bin").write_bytes(b"1234")
    with pytest.raises(DataError) as error:
        load_data("cifar10", data_dir=tmp_path)
    one_line(error, "test_batch.bin", "3073 bytes each")
    # The other version's file would run code, were it unpickled.
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(DataError) as error:
        load_data("cifar10", data_dir=tmp_path, split="train")
    one_line(error, "holds no data_batch_1.bin", "binary version", "--data-dir")
    assert not Path("ran").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_svhn_mat_files_are_transposed_and_ten_is_zero(tmp_path: Path, packed: bool) -> None:
    """Axes of X: row, column, channel, image."""
    X = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for split, labels in (("train", [10, 1, 9, 5]), ("test", [2, 10, 10, 3])):
        y = np.array(labels, dtype=np.uint8)[:, None]
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": X, "y": y}, do_compression=packed)
    examples = load_data("svhn", data_dir=tmp_path)
    assert examples.y is not None and examples.y.tolist() == [2, 0, 0, 3] and examples.num_classes == 10
    assert examples.x.shape == (4, 3, 32, 32) and examples.x.dtype == np.float32
    for i, channel, row, column in ((0, 0, 1, 2), (3, 2, 31, 0), (1, 1, 5, 30)):
        assert examples.x[i, channel, row, column] == np.float32(X[row, column, channel, i]) / np.float32(255)
    train = load_data("svhn", data_dir=tmp_path, split="train")
    assert train.y is not None and train.y.tolist() == [0, 1, 9, 5]


MAT_IMAGES, MAT_LABELS = np.zeros((32, 32, 3, 2), np.uint8), np.array([[1], [2]], np.uint8)


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"X": MAT_IMAGES}, "its y is missing"),
        ({"X": "pixels", "y": MAT_LABELS}, "its X is char"),
        ({"X": MAT_IMAGES.transpose(3, 2, 0, 1), "y": MAT_LABELS}, "X has shape (2, 3, 32, 32)"),
        ({"X": MAT_IMAGES.astype(float), "y": MAT_LABELS}, "of float64"),
        ({"X": MAT_IMAGES, "y": MAT_LABELS - 1}, "1 to 10"),
        ({"X": MAT_IMAGES, "y": MAT_LABELS / 2}, "1 to 10"),
        ({"X": MAT_IMAGES, "y": MAT_LABELS[:1]}, "labels"),
    ],
)
def test_other_mat_files_are_refused(tmp_path: Path, arrays: dict[str, object], part: str) -> None:
    scipy.io.savemat(tmp_path / "test_32x32.mat", arrays)
    with pytest.raises(DataError) as error:
        load_data("svhn", data_dir=tmp_path)
    one_line(error, part)


@pytest.mark.parametrize("cut", [0, 60, 200, -30])
def test_damaged_mat_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "test_32x32.mat"
    scipy.io.savemat(path, {"X": MAT_IMAGES, "y": MAT_LABELS}, do_compression=True)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as error:
        load_data("svhn", data_dir=tmp_path)
    one_line(error, "test_32x32.mat")
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    with pytest.raises(DataError) as error:
        load_data("svhn", data_dir=tmp_path)
    one_line(error, "test_32x32.mat")


def test_a_mat_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy.io.savemat(tmp_path / "bomb.mat", {"X": np.zeros((2, 10**6))}, do_compression=True)
    monkeypatch.setattr("scipy.io.loadmat", None)  # unpacking would fail otherwise than by DataError
    with pytest.raises(DataError) as error:
        arrayfile.read_mat(tmp_path / "bomb.mat", ("X",), cap=10**6)
    one_line(error, "bomb.mat", "limit of 1000000")


def write_har(folder: Path, split: str, labels: list[int]) -> np.ndarray:
    """The UCI files: numbers of 16 columns such as -2.0294171e-002, labels 1 to 6."""
    features = np.random.default_rng(labels[0]).uniform(-1, 1, (len(labels), 561))
    lines = ["".join(f" {v: .7e}".replace("e-0", "e-00").replace("e+0", "e+00") for v in row) for row in features]
    (folder / f"X_{split}.txt").write_text("\n".join(lines) + "\n")
    (folder / f"y_{split}.txt").write_text("".join(f"{label}\n" for label in labels))
    return features


def test_har_text_files_have_classes_from_zero(tmp_path: Path) -> None:
    wanted = {}
    for split, labels in (("train", [5, 5, 4]), ("test", [6, 1])):
        folder = tmp_path / "UCI HAR Dataset" / split
        folder.mkdir(parents=True)
        wanted[split] = write_har(folder, split, labels), [label - 1 for label in labels]
    for split, (features, classes) in wanted.items():
        for folder in (tmp_path, tmp_path / "UCI HAR Dataset", tmp_path / "UCI HAR Dataset" / split):
            examples = load_data("har", data_dir=folder, split=split)
            assert examples.y is not None and examples.y.tolist() == classes and examples.num_classes == 6
            np.testing.assert_allclose(examples.x, features, rtol=0, atol=1e-7)
    # A single example is one still.
    write_har(tmp_path, "test", [3])
    assert load_data("har", data_dir=tmp_path).x.shape == (1, 561)


@pytest.mark.parametrize(
    ("x", "y", "part"),
    [
        ("0.1 spam\n0.2 0.3\n", "1\n1\n", "HAR"),
        ("0.1 0.2\n", "1\n", "2 numbers a line, expected the 561"),
        ("0 " * 561, "7\n", "label of example 0"),
        ("0 " * 561, "1\n2\n", "labels"),
        ("0 " * 561, "1.5\n", "HAR"),
        ("nan " * 561, "1\n", "must be finite"),
    ],
)
def test_other_text_files_are_refused(tmp_path: Path, x: str, y: str, part: str) -> None:
    (tmp_path / "X_test.txt").write_text(x)
    (tmp_path / "y_test.txt").write_text(y)
    with pytest.raises(DataError) as error:
        load_data("har", data_dir=tmp_path)
    one_line(error, part)


def test_openml_is_split_in_stored_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, **options: object) -> SimpleNamespace:
        asked.append((name, options["version"]))
        data = np.repeat(np.arange(60002.0)[:, None] % 256, 784, axis=1)
        return SimpleNamespace(data=data, target=np.array(["3"] * 60000 + ["7", "8"], dtype=object))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    examples = load_data("mnist")
    assert asked == [("mnist_784", 1)]
    assert examples.y is not None and examples.y.tolist() == [7, 8]
    assert examples.x[1, 0, 0, 0] == np.float32(60001 % 256) / np.float32(255)


def test_openml_failure_is_one_line_that_names_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **options: object) -> SimpleNamespace:
        raise OSError("no route\nto host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    for name in ("mnist", "fashion-mnist", "har", "svhn", "cifar10"):
        with pytest.raises(DataError) as error:
            load_data(name)
        one_line(error, "--data-dir", "no route to host")


@given(st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i4", "|u1", "|b1"]), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=30)
def test_npz_of_any_number_type_and_order_is_read(tmp_path_factory, dtype: str, fortran: bool, packed: bool) -> None:
    x = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    (np.savez_compressed if packed else np.savez)(path, x=np.asfortranarray(x) if fortran else x, y=Y.astype(np.uint8))
    examples = load_data(str(path))
    assert examples.x.dtype == (np.float64 if dtype == "<f8" else np.float32)
    assert np.array_equal(examples.x, x.astype(np.float64))
    assert examples.y is not None and examples.y.dtype == np.int64


def test_scale_divides_in_float32(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=np.arange(256, dtype=np.uint8).reshape(2, 128), y=Y)
    scaled = load_data(path, scale=255)
    assert np.array_equal(scaled.x.ravel(), np.arange(256, dtype=np.float32) / np.float32(255))
    check_range(scaled, (0, 1))
    with pytest.raises(DataError) as error:
        check_range(load_data(path), ("0", "1"))
    one_line(error, "example 1", "values up to 255; pass --scale 255")
    check_range(load_data(path), None)
    check_range(load_data(path), (0, 255))


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": np.where(np.arange(24).reshape(2, 3, 4) == 17, np.nan, X), "y": Y}, ("example 1", "(1, 1)", "nan")),
        ({"x": np.where(np.arange(24).reshape(2, 3, 4) == 2, -np.inf, X), "y": Y}, ("example 0", "(0, 2)", "-inf")),
        ({"x": X, "y": Y.astype(float)}, ("labels", "float64")),
        ({"x": X, "y": np.array([1, 2, 3])}, ("(3,)", "(2,)")),
        ({"x": X, "y": Y[:, None]}, ("(2, 1)",)),
        ({"x": X.ravel()}, ("(24,)",)),
        ({"x": np.zeros((0, 4))}, ("(0, 4)",)),
        ({"data": X}, ("no array named x",)),
        ({"x": X.astype(complex)}, ("complex",)),
        ({"x": np.array([["a"]])}, ("<U1",)),
        ({"x": X, "y": np.array([1, 2**63], dtype=np.uint64)}, ("example 1",)),
    ],
)
def test_bad_arrays_are_refused_by_name(tmp_path: Path, arrays: dict[str, np.ndarray], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        load_data(save(tmp_path / "a.npz", **arrays))
    one_line(error, "a.npz", *parts)


def test_labels_are_checked_against_the_outputs(tmp_path: Path) -> None:
    examples = load_data(save(tmp_path / "a.npz", x=X, y=np.array([2, 11])))
    assert check_labels(examples, 12).tolist() == [2, 11]
    with pytest.raises(DataError) as error:
        check_labels(examples, 10)
    one_line(error, "example 1", "11", "0..9")
    with pytest.raises(DataError) as error:
        check_labels(load_data(save(tmp_path / "b.npz", x=X)), 10)
    one_line(error, "no labels")


def test_shapes_are_compared_up_to_ones_and_flattening() -> None:
    image = make_examples(np.zeros((2, 3, 8, 9)), None)
    check_shape(image, (3, 8, 9))
    check_shape(image, (216,))
    check_shape(make_examples(np.zeros((2, 28, 28)), None), (1, 28, 28))
    check_shape(make_examples(np.zeros((2, 216)), None), (3, 8, 9))
    for shape in ((3, 9, 8), (217,), (9, 3, 8)):
        with pytest.raises(ShapeError):
            check_shape(image, shape)
    with pytest.raises(ShapeError) as error:
        check_shape(make_examples(np.zeros((2, 8, 9, 3)), None), (3, 8, 9))
    one_line(error, "channels come last", "(8, 9, 3)", "(3, 8, 9)")


def test_select_reads_ranges_and_lists() -> None:
    examples = make_examples(np.arange(20.0).reshape(10, 2), np.arange(10))
    for text, want in {"0:3": [0, 1, 2], "3,7": [3, 7], "0:10:4": [0, 4, 8], "8:": [8, 9], "1,5:7": [1, 5, 6]}.items():
        order, part = select(examples, text)
        assert order.tolist() == want == part.y.tolist()
        assert np.array_equal(part.x, examples.x[want])
    for text in ("10", "0:11", "11:", "3,99"):
        with pytest.raises(DataError) as error:
            select(examples, text)
        one_line(error, "10 examples")
    for text in ("", "a", "1:2:3:4", "-1", "0:-1", "0:5:0", "5:5", "3,3", "1,,2", "0.5", "0:99999999999999999999:-1"):
        with pytest.raises(UsageError) as usage:
            select(examples, text)
        one_line(usage, "index")


def truncated(path: Path) -> str:
    save(path, x=np.random.default_rng(0).random((50, 40)), y=np.arange(50))
    path.write_bytes(path.read_bytes()[:-300])
    return str(path)


def flipped(path: Path) -> str:
    save(path, x=np.random.default_rng(0).random((50, 40)))
    data = bytearray(path.read_bytes())
    data[5000] ^= 255
    path.write_bytes(data)
    return str(path)


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return str(path)


def garbage(path: Path) -> str:
    path.write_bytes(os.urandom(3000))
    return str(path)


def folder(path: Path) -> str:
    path.mkdir()
    return str(path)


def fifo(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


def missing(path: Path) -> str:
    return str(path)


def pickled(path: Path) -> str:
    return save(path, x=np.array([{"a": 1}, None], dtype=object))


def lying_header(path: Path) -> str:
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**20)}
    return write_zip(path, [("x.npy", npy(header, b"\0" * 800))])


def negative_shape(path: Path) -> str:
    header = {"descr": "<f8", "fortran_order": False, "shape": (-10, -10)}
    return write_zip(path, [("x.npy", npy(header, b"\0" * 800))])


def twice(path: Path) -> str:
    body = npy({"descr": "<f8", "fortran_order": False, "shape": (2, 1)}, b"\0" * 16)
    with pytest.warns(UserWarning, match="Duplicate"):
        return write_zip(path, [("x.npy", body), ("x.npy", body)])


def lying_directory(path: Path) -> str:
    """The central directory claims 1.5 GiB for a member of some bytes."""
    write_zip(path, [("x.npy", npy({"descr": "<f8", "fortran_order": False, "shape": (2**27, 1)}, b"\0" * 80))])
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = struct.pack("<I", 3 * 2**29)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    "make",
    [truncated, flipped, empty, garbage, folder, fifo, missing, pickled, lying_header, negative_shape, twice,
     lying_directory],
)  # fmt: skip
def test_bad_files_are_refused_at_once(tmp_path: Path, make: Callable[[Path], str]) -> None:
    path = make(tmp_path / "bad.npz")
    begin = time.perf_counter()
    with pytest.raises(DataError) as error:
        load_data(path)
    one_line(error, "bad.npz")
    assert time.perf_counter() - begin < 1


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((2, 10**6)))
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # unpacking would fail otherwise than by DataError
    with pytest.raises(DataError) as error:
        arrayfile.read_npz(path, ("x",), cap=10**6)
    one_line(error, "bomb.npz", "limit of 1000000")


IMAGES = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 3) + bytes(range(18))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        IMAGES[:10],
        IMAGES[:-1],
        IMAGES + b"x",
        bytes([0, 0, 8, 1]) + IMAGES[4:],
        bytes([0, 0, 13, 3]) + IMAGES[4:],
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2**31) + bytes(18),
        gzip.compress(IMAGES, mtime=0)[:-9],
        gzip.compress(IMAGES[:-4], mtime=0),
        gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**10, 2**10, 2**10), mtime=0),
        b"\x1f\x8bnonsense",
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(data)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes(2))
    with pytest.raises(DataError) as error:
        load_data("mnist", data_dir=tmp_path)
    one_line(error, "t10k-images-idx3-ubyte")


def test_missing_idx_files_and_unknown_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_data("mnist", data_dir=tmp_path)
    one_line(error, "t10k-images-idx3-ubyte", "--data-dir")
    with pytest.raises(DataError) as error:
        load_data("svhn", data_dir=tmp_path)
    one_line(error, "test_32x32.mat", "--data-dir")
    for call in (
        lambda: load_data("imagenet"),
        lambda: load_data("digits", split="val"),
        lambda: load_data("digits", scale=16),
        lambda: load_data("a.npz", scale=0),
        lambda: load_data("a.npz", scale=float("nan")),
    ):
        with pytest.raises(UsageError):
            call()


def test_a_clip_that_excludes_an_input_is_refused_by_name() -> None:
    examples = make_examples(np.array([[0.2, 0.4], [0.4, 0.9]], np.float32), np.array([0, 1]), source="mine")
    check_inside(examples, "0.3", ("0", "0.6"))
    with pytest.raises(DataError, match=r"mine: input 1 of selected example 1 is 0\.9, further than eps 0\.2"):
        check_inside(examples, "0.2", ("0", "0.6"))


def test_images_fit_a_network_whose_input_has_one_long_axis() -> None:
    examples = make_examples(np.zeros((2, 1, 4, 4), np.float32), np.array([0, 1]))
    for shape in ((16,), (16, 1), (1, 4, 4), (4, 4)):
        check_shape(examples, shape)
    with pytest.raises(ShapeError):
        check_shape(examples, (2, 8))
