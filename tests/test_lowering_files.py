"""Model files: every kind that is read, and one clear line for every file that cannot be trusted."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lpverify.errors import ModelError, UsageError
from lpverify.lowering import load_model
from lpverify.models import build
from lpverify.network import Affine, Network

TINY = "cnn(1x5x5; conv 2 3 1 0; fc 3)"


def tiny_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build(TINY).state_dict()


def dense_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).state_dict()


def dense_outputs(state: dict[str, Tensor], x: Tensor) -> Tensor:
    w1, b1, w2, b2 = (t.double() for t in state.values())
    return (x @ w1.T + b1).relu() @ w2.T + b2


def assert_dense(network: Network, state: dict[str, Tensor]) -> None:
    x = torch.randn(5, 6, dtype=torch.float64)
    assert network.dtype == torch.float64
    assert torch.allclose(network.forward(x), dense_outputs(state, x), atol=1e-12)
    assert not any(n.bias.requires_grad for n in network.nodes if isinstance(n, Affine))


def user_architecture() -> nn.Module:
    """The function that the tests below name as the user's own."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    module.input_shape = (2, 3)
    return module


def not_a_module() -> int:
    return 3


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"state_dict": [s]}])
@pytest.mark.parametrize("legacy", [False, True])
def test_linear_state_dictionaries_need_no_architecture(
    tmp_path: Path, wrap: Callable[[Any], Any], legacy: bool
) -> None:
    state = dense_state()
    torch.save(wrap(state), tmp_path / "net.model", _use_new_zipfile_serialization=not legacy)
    network = load_model(tmp_path / "net.model")
    assert_dense(network, state)
    assert network.notes[0] == "weights are widened exactly from float32 to float64"
    assert load_model(str(tmp_path / "net.model"), input_shape=(2, 3)).shapes[0] == (2, 3)


def test_half_precision_is_widened_and_noted(tmp_path: Path) -> None:
    state = {k: v.bfloat16() for k, v in dense_state().items()}
    torch.save(state, tmp_path / "net.pt")
    network = load_model(tmp_path / "net.pt")
    assert_dense(network, state)
    assert "widened exactly from bfloat16" in network.notes[0]


def test_safetensors_and_numpy_layers(tmp_path: Path) -> None:
    state = dense_state()
    save_file(state, tmp_path / "net.safetensors")
    assert_dense(load_model(tmp_path / "net.safetensors"), state)
    w1, b1, w2, b2 = (t.numpy() for t in state.values())
    arrays = {"W1": w1.T, "B1": b1, "W2": w2.T, "B2": b2[None]}
    np.savez(tmp_path / "net.npz", **arrays)
    assert_dense(load_model(tmp_path / "net.npz"), state)
    (tmp_path / "folder").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    assert_dense(load_model(tmp_path / "folder"), state)


def test_layers_of_a_safetensors_file_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """By name 10.weight would come before 2.weight, and as all widths are equal nobody would notice."""
    path = tmp_path / "net.safetensors"
    deep = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(4, 4), nn.ReLU())][:-1]).double()
    for prefix, suffix in (("", ""), ("layers.", ""), ("fc", "_x")):
        named = (key.partition(".") for key in deep.state_dict())
        keys = [f"{prefix}{number}{suffix}.{part}" for number, _, part in named]
        save_file(dict(zip(keys, deep.state_dict().values(), strict=True)), path)
        x = torch.rand(5, 4, dtype=torch.float64)
        assert torch.allclose(load_model(path).forward(x), deep(x), atol=1e-12)
    for keys in (("first", "second"), ("a.0", "b.1"), ("x1.2", "x2.1"), ("0", "out")):
        save_file({f"{key}.weight": torch.eye(4) for key in keys}, path)
        with pytest.raises(ModelError, match=r"by name.*do not say the order.*give arch"):
            load_model(path)
    save_file({"out.weight": torch.eye(4), "out.bias": torch.ones(4)}, path)
    assert load_model(path).output_size == 4


def test_a_header_describes_its_network(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    header = {"arch": TINY, "mean": "[0.5]", "std": "0.25", "input_shape": json.dumps([1, 5, 5])}
    save_file(tiny_state(), path, header)
    module = build(TINY).double()
    module.load_state_dict(tiny_state())
    x = torch.rand(3, 1, 5, 5, dtype=torch.float64)
    assert torch.allclose(load_model(path).forward(x), module((x - 0.5) / 0.25), atol=1e-12)
    assert torch.allclose(load_model(path, mean=0.0, std=1.0).forward(x), module(x), atol=1e-12)
    for entry, message in (({"arch": "os:getcwd"}, "header entry arch"), ({"mean": '"x"'}, "header entry mean")):
        save_file(tiny_state(), path, {**header, **entry})
        with pytest.raises(ModelError, match=message):
            load_model(path)


def test_the_users_own_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    state = dense_state()
    torch.save(state, tmp_path / "net.pth")
    network = load_model(tmp_path / "net.pth", arch="test_lowering_files:user_architecture")
    assert network.shapes[0] == (2, 3)
    assert_dense(network, state)
    for arch, message in (
        ("test_lowering_files:absent", r"arch: test_lowering_files:absent cannot be called \(AttributeError"),
        ("no_such_package:f", r"arch: no_such_package:f cannot be called \(ModuleNotFoundError"),
        ("test_lowering_files:not_a_module", r"returned a int, expected a torch.nn.Module"),
        ("smal", r"architecture: 'smal' is not one of small, "),
    ):
        with pytest.raises(UsageError, match=message):
            load_model(tmp_path / "net.pth", arch=arch)


class Payload:
    """Pickled, it would create a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class Whole(nn.Linear):
    pass


def saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


def written(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def npz_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("W1", "B1", "W2"):
            archive.writestr(f"{name}.npy", bytes(2**20))
            archive.filelist[-1].file_size = 2**30  # what the directory then says


def lying_npy(path: Path) -> None:
    path.mkdir()
    for name in ("W1", "B1"):
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 1)})
        (path / f"{name}.npy").write_bytes(buffer.getvalue() + bytes(64))


def object_npz(path: Path) -> None:
    np.savez(path, W1=np.array([[1.0, None]], dtype=object), B1=np.zeros(1))


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def spoiled(index: tuple[int, int], value: float) -> dict[str, Tensor]:
    state = dense_state()
    state["3.weight"][index] = value
    return state


def without_bias_match() -> dict[str, Tensor]:
    state = dense_state()
    state["1.bias"] = torch.zeros(5)
    return state


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("net.pth", lambda path: None, r"cannot be read \(No such file"),
    "empty": ("net.pth", written(b""), r"0 bytes"),
    "directory": ("net.pth", lambda path: path.mkdir(), r"is a directory; give a model file"),
    "pipe": ("net.pth", lambda path: os.mkfifo(path), r"not a regular file"),
    "garbage": ("net.pth", written(b"garbage, not a network"), r"truncated, or neither a torch checkpoint"),
    "garbage pickle": ("net.pth", written(b"\x80\x02" + bytes(range(200))), r"damaged|truncated"),
    "truncated": ("net.pth", written(torch_bytes(dense_state())[:-300]), r"truncated or damaged archive"),
    "code": ("net.pth", lambda path: torch.save({"w": Payload(path.parent / "ran")}, path), r"holds pickled code"),
    "pickle": ("net.pth", lambda path: path.write_bytes(pickle.dumps(Payload(path.parent / "ran"))), r"pickled code"),
    "module": ("net.pth", saved(Whole(2, 2)), r"whole module .*save its state_dict\(\)"),
    "exported": ("net.pt2", written(b"PK\x03\x04"), r"\(.pt2\) can execute code"),
    "torchscript": ("net.pt", torchscript, r"a TorchScript program"),
    "two networks": ("net.pth", saved({"state_dict": [{}, {}, {}]}), r"'state_dict' is a list of 3; save the one"),
    "a tensor": ("net.pth", saved(torch.zeros(3)), r"holds a Tensor, expected a dict of tensors"),
    "a number": ("net.pth", saved({"epoch": 3}), r"entry 'epoch' is a int, expected a tensor"),
    "nan": ("net.pth", saved(spoiled((1, 2), float("nan"))), r"3.weight is nan at index \(1, 2\)"),
    "infinite": ("net.pth", saved(spoiled((2, 0), -float("inf"))), r"3.weight is -inf at index \(2, 0\)"),
    "sparse": ("net.pth", saved({"0.weight": torch.eye(2).to_sparse()}), r"0.weight is a torch.sparse_coo tensor"),
    "bias": ("net.pth", saved(without_bias_match()), r"1.weight is \(4, 6\), its bias \(5,\)"),
    "order": (
        "net.pth", saved({"a.weight": torch.zeros(3, 4), "b.weight": torch.zeros(2, 5)}),
        r"b.weight \(2, 5\) does not follow \(3, 4\); give arch"),
    "convolutions": ("net.pth", saved(tiny_state()), r"not only linear layers \(0.weight \(2, 1, 3, 3\)\); give arch"),
    "safetensors": ("net.safetensors", written(b"\x10\0\0\0\0\0\0\0{not json"), r"damaged safetensors file"),
    "bomb": ("net.npz", npz_bomb, r"would unpack to 3221225472 bytes, more than the limit of 2147483648"),
    "objects": ("net.npz", object_npz, r"object array"),
    "other arrays": ("net.npz", lambda path: np.savez(path, a=np.zeros(3)), r"expected W1, B1, W2, B2"),
    "lying header": ("folder", lying_npy, r"folder"),
    "archive": ("net.pth", lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), r"archive"),
    "onnx": ("net.onnx", written(b"\xff\xff\xff garbage"), r"not an ONNX model"),
    "onnx, empty graph": ("net.onnx", written(b"\x08\x07"), r"not an ONNX model: it has no graph"),
    "onnx, gzip": ("net.onnx.gz", written(gzip.compress(b"x" * 1000)[:-9]), r"truncated gzip file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_line_quickly_and_run_no_code(name: str, tmp_path: Path) -> None:
    file, make, message = BAD[name]
    path = tmp_path / file
    make(path)
    started = time.perf_counter()
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert time.perf_counter() - started < 5
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "ran").exists()


def changed(**entries: Tensor | None) -> dict[str, Tensor]:
    state: dict[str, Any] = {**tiny_state(), **entries}
    return {k: v for k, v in state.items() if v is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(**{"0.bias": None}), r"does not fit architecture '.*': missing 0.bias$"),
        (changed(extra=torch.zeros(2)), r"unexpected extra$"),
        (changed(**{"3.weight": torch.zeros(3, 7)}), r"3.weight is \(3, 7\), expected \(3, 18\)$"),
        (changed(**{"0.bias": torch.zeros(2, dtype=torch.int64)}), r"0.bias is of type torch.int64, expected"),
    ],
)
def test_tensors_must_fit_the_architecture(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "net.pth", arch=TINY)


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(dense_state(), tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"input_shape: \(7,\) has 7 entries"):
        load_model(tmp_path / "net.pth", input_shape=(7,))
    with pytest.raises(UsageError, match="mean: 2 numbers fit neither"):
        load_model(tmp_path / "net.pth", mean=(1.0, 2.0))
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="is an ONNX file, which holds its own graph"):
        load_model(tmp_path / "net.onnx", arch="small")


def test_every_damaged_byte_of_a_checkpoint_is_refused_or_harmless(tmp_path: Path) -> None:
    """Cut anywhere or with any bit turned, a file raises ModelError or gives some network; never anything else."""
    save_file(dense_state(), tmp_path / "good.safetensors")
    files = {"net.pth": torch_bytes(dense_state()), "net.safetensors": (tmp_path / "good.safetensors").read_bytes()}
    rng = np.random.default_rng(0)
    refused = 0
    for file, data in files.items():
        path = tmp_path / file
        for _ in range(60):
            broken = bytearray(data[: int(rng.integers(1, len(data)))] if rng.random() < 0.5 else data)
            broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(broken))
            try:
                load_model(path)
            except ModelError as error:
                refused += 1
                assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 50
