"""Inputs that must be refused, or read as they are meant: the cases 6 to 27 and 41 that no other test covers.

The table of all cases is in README.md of this folder.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from commands import Captured, ask, outside, refused, refused_outside, results, save_data, save_model
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from lpverify.cli import main
from lpverify.errors import DataError, ModelError
from lpverify.lowering import lower_module
from lpverify.lowering.builder import LARGEST
from lpverify.lowering.onnx_file import lower_onnx
from lpverify.models import build
from lpverify.vnnlib import read_property

HEAD = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "".join(f"(assert ({op} X_{i} {end}))\n" for i in (0, 1) for op, end in ((">=", 0), ("<=", 1)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "net.npz")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_data(tmp_path / "data.npz", np.array([[0.25, 0.5], [0.75, 0.125]], np.float32), np.array([1, 0]))


def onnx_model(nodes: list[Any], constants: dict[str, np.ndarray], shape: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def test_one_of_each_group_by_the_real_command(model: Path, data: Path, tmp_path: Path) -> None:
    """Exit codes 2, 3, 4 and 7, each with one line on standard error and nothing on standard output."""
    run = tmp_path / "run"
    assert "eps" in refused_outside(2, *ask(model, data, run, eps="0,1"))
    code = tmp_path / "code.pth"
    torch.save(nn.Linear(2, 2), code)
    assert "save its state_dict()" in refused_outside(3, *ask(code, data, run))
    wide = save_data(tmp_path / "wide.npz", np.full((2, 2), 200.0), np.array([0, 1]))
    assert "pass --scale 255" in refused_outside(4, *ask(model, wide, run, "--clip", "0", "1"))
    assert not run.exists()
    assert main(ask(model, data, run)) == 0
    (run / "network.lpnet").write_bytes(b"LPVERIFY" + b"\xff" * 64)
    assert "network.lpnet" in refused_outside(7, "check", run)


@pytest.mark.parametrize("way", ["symlink", "hardlink"])
def test_6_external_data_that_a_link_stands_for_is_not_read(
    way: str, tmp_path: Path, data: Path, capsys: Captured
) -> None:
    """External data is refused whatever the path is, so that no link can lead anywhere."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    (os.symlink if way == "symlink" else os.link)(secret, tmp_path / "weights.bin")
    found = onnx_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((2, 2), np.float32)}, [1, 2])
    tensor = found.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (tmp_path / "net.onnx").write_bytes(found.SerializeToString())
    said = refused(capsys, 3, *ask(tmp_path / "net.onnx", data, tmp_path / "run"))
    assert "initialiser 'w' lies outside the file (external data 'weights.bin'); save the model in one file" in said


@pytest.mark.parametrize("name", ["net.pth", "net.onnx", "net.npz", "net.safetensors", "data.npz", "p.vnnlib"])
def test_7_garbage_takes_no_second(name: str, model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    bad = tmp_path / f"bad-{name}"
    for content in (b"", b"\x00" * 5000, bytes(range(256)) * 40):
        bad.write_bytes(content)
        begin = time.process_time()
        if name == "p.vnnlib":
            said = refused(capsys, 4, "verify", model, "--vnnlib", bad)
        elif name == "data.npz":
            said = refused(capsys, 4, *ask(model, bad, tmp_path / "run"))
        else:
            said = refused(capsys, 3, *ask(bad, data, tmp_path / "run"))
        # A second of processor time; the first of these imports torch and onnx.
        assert time.process_time() - begin < 1 or content == b""
        assert said.startswith(str(bad))


def test_8_options_of_operators_are_done_exactly_or_named() -> None:
    """A dilation and an auto_pad are computed; what is not known is an error that names node and attribute."""
    kernel = {"w": np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)}
    known = helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 2], auto_pad="SAME_UPPER", name="first")
    network = lower_onnx(onnx_model([known], kernel, [1, 1, 4, 4]).SerializeToString(), "net.onnx")
    assert network.shapes[-1][-3:] == (2, 4, 4)
    for attribute, value in (("auto_pad", "SAME_MIDDLE"), ("extra", 1)):
        odd = helper.make_node("Conv", ["x", "w"], ["y"], name="first", **{attribute: value})
        with pytest.raises(ModelError, match=f"net.onnx: Conv node 'first': .*{attribute}") as caught:
            lower_onnx(onnx_model([odd], kernel, [1, 1, 4, 4]).SerializeToString(), "net.onnx")
        assert caught.value.exit_code == 3


def test_10_integer_weights_are_refused_and_double_ones_kept(tmp_path: Path, data: Path, capsys: Captured) -> None:
    for kind in (np.int8, np.int64):
        np.savez(tmp_path / "whole.npz", W1=np.ones((2, 2), kind), B1=np.zeros(2))
        said = refused(capsys, 3, *ask(tmp_path / "whole.npz", data, tmp_path / "run"))
        assert said.endswith(f"W1 is of type {np.dtype(kind)}, expected floating point")
    np.savez(tmp_path / "double.npz", W1=np.full((2, 2), 0.1), B1=np.zeros(2))
    assert main(["info", str(tmp_path / "double.npz")]) == 0
    assert "widened" not in capsys.readouterr().out


def test_13_a_module_in_train_mode_is_read_as_in_use_and_the_notes_say_so() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.ReLU(), nn.Linear(3, 2)).double()
    module[1].running_mean.copy_(torch.tensor([0.5, -1.0, 0.25]))
    assert module.training
    network = lower_module(module, (2,))
    assert module.training and module[2].training
    x = torch.rand(5, 2, dtype=torch.float64)
    assert torch.allclose(network.forward(x), module.eval()(x), atol=1e-12)
    assert any("batch-norm with its running statistics" in note for note in network.notes)
    with pytest.raises(ModelError, match="training_mode"):
        odd = helper.make_node("BatchNormalization", ["x", *"wwww"], ["y"], training_mode=1, name="norm")
        ones = {"w": np.ones(2, np.float32)}
        lower_onnx(onnx_model([odd], ones, [1, 2, 1, 1]).SerializeToString(), "net.onnx")


def test_15_channels_in_another_order_are_refused_with_a_hint(tmp_path: Path, capsys: Captured) -> None:
    torch.manual_seed(0)
    architecture = "cnn(3x4x5; conv 2 2 1 0; fc 2)"
    torch.save(build(architecture).state_dict(), tmp_path / "net.pth")
    images = save_data(tmp_path / "last.npz", np.full((1, 4, 5, 3), 0.5), np.array([0]))
    said = refused(capsys, 4, *ask(tmp_path / "net.pth", images, tmp_path / "run", "--arch", architecture))
    assert "each example has shape (4, 5, 3), the network takes (3, 4, 5)" in said
    assert said.endswith("transpose x to (examples, channels, height, width)")


def test_20_a_lower_end_above_the_upper_one_by_1e_9_is_refused(
    model: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    said = refused(capsys, 4, *ask(model, data, tmp_path / "run", "--clip", "0.500000001", "0.5"))
    assert "the lower end 0.500000001 is above the upper end 0.5" in said
    crossed = tmp_path / "p.vnnlib"
    crossed.write_text(HEAD + BOX + "(assert (>= X_1 1.000000001))\n(assert (>= Y_0 0))")
    said = refused(capsys, 4, "verify", model, "--vnnlib", crossed)
    assert said == f"{crossed}, line 2: no value of input X_1 is >= 1.000000001 and <= 1.0; correct its bounds"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file declares no input"),
        (HEAD, "has no lower bound"),
        (HEAD + BOX, "line 1: the file does not constrain the output"),
        (HEAD + BOX.replace("<=", ">="), "has no upper bound"),
        (HEAD + BOX + "(assert (<= Y_0 Y_2))", "'Y_2' is no declared variable"),
        (HEAD + "(declare-const X_1 Real)" + BOX, "was declared before"),
        (HEAD + BOX + "(assert (> (* Y_0 Y_1) 0))", "product of variables"),
        (HEAD + BOX + "(assert (or (<= Y_0 0) (<= X_0 Y_0)))", "mixes inputs and outputs"),
    ],
)
def test_23_to_26_a_property_that_says_nothing_or_too_much(
    text: str, message: str, model: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_text(text)
    said = refused(capsys, 4, "verify", model, "--vnnlib", path)
    assert message in said and said.startswith(f"{path}, line ")


@pytest.mark.parametrize("opened", ["(and ", "(or (<= Y_1 0) ", "(not "])
def test_25_parentheses_100_000_deep_are_read_without_recursion(opened: str, tmp_path: Path) -> None:
    """Known formulas are exact at any depth; nothing else is read past its first line."""
    path, depth = tmp_path / "deep.vnnlib", 100_000
    path.write_text(HEAD + BOX + f"(assert {opened * depth}(>= Y_0 0.5){')' * depth})")
    begin = time.process_time()
    if opened == "(not ":
        with pytest.raises(DataError, match="line 9: unexpected 'not'"):
            read_property(path)
    else:
        assert len(read_property(path).claims) == 1
    assert time.process_time() - begin < 10
    path.write_text(HEAD + BOX + "(assert " + opened.strip() + " (" * depth)
    with pytest.raises(DataError, match="line 9: "):
        read_property(path)


@pytest.mark.slow
def test_25_a_file_of_200_mb_is_read_in_linear_time_and_little_memory(tmp_path: Path) -> None:
    """The text is there once, and what it says is folded as it is read."""
    path = tmp_path / "long.vnnlib"
    with path.open("w") as file:
        file.write(HEAD + BOX)
        for _ in range(200):
            file.write("(assert (and (<= Y_0 0.125) (>= Y_1 0.25)))\n" * 22_000)
    assert path.stat().st_size > 190e6
    line = f"from lpverify.vnnlib import read_property; print(read_property({str(path)!r}, work=10**9).summary())"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); {line}"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", limited], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0 and "boxes 1, clauses 1, rows 2" in done.stdout


def doubled(count: int, constant: bool) -> onnx.ModelProto:
    """x, or a constant, joined to itself again and again: 2^count copies."""
    first = "c" if constant else "x"
    names = [first, *(f"v{k}" for k in range(count))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1, name=b) for a, b in pairwise(names)]
    last = helper.make_node("MatMul" if constant else "Relu", ["x", names[-1]] if constant else [names[-1]], ["y"])
    return onnx_model([*nodes, last], {"c": np.ones((2, 2), np.float32)} if constant else {}, [1, 2])


@pytest.mark.parametrize("constant", [False, True])
def test_27_a_small_file_cannot_ask_for_gigabytes(constant: bool) -> None:
    with pytest.raises(ModelError, match=rf"net.onnx: .*Concat node 'v\d+'.* numbers, more than {LARGEST}") as caught:
        lower_onnx(doubled(60, constant).SerializeToString(), "net.onnx")
    assert caught.value.exit_code == 3
    huge = onnx_model([helper.make_node("Relu", ["x"], ["y"])], {}, [1, 2**20, 2**20])
    with pytest.raises(ModelError, match=rf"net.onnx: the input: shape .* numbers, more than {LARGEST}"):
        lower_onnx(huge.SerializeToString(), "net.onnx")


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("Pad", {"pads": [0, 0, 2**20, 2**20, 0, 0, 2**20, 2**20]}),
        ("Conv", {"pads": [2**20] * 4}),
        ("MaxPool", {"kernel_shape": [2**13, 2**13], "pads": [2**12] * 4}),
        ("AveragePool", {"kernel_shape": [2**13, 2**13], "pads": [2**12] * 4}),
    ],
)
def test_27_paddings_and_windows_are_limited(operator: str, options: dict[str, Any]) -> None:
    inputs = ["x", "p"] if operator == "Pad" else ["x", "w"] if operator == "Conv" else ["x"]
    constants = {"w": np.ones((1, 1, 2, 2), np.float32)}
    if operator == "Pad":
        constants["p"] = np.array(options.pop("pads"))
    node = helper.make_node(operator, inputs, ["y"], name="big", **options)
    with pytest.raises(ModelError, match=rf"{operator} node 'big': shape .* numbers, more than {LARGEST}"):
        lower_onnx(onnx_model([node], constants, [1, 1, 8, 8]).SerializeToString(), "net.onnx")


def test_41_paths_that_are_no_text_and_another_locale_work(model: Path, data: Path, tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/d\xff\xfe.npz")
    os.rename(data, strange)
    run = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")
    done = outside(*ask(model, Path(strange), Path(run)), LC_ALL="de_DE.UTF-8", LC_NUMERIC="de_DE.UTF-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["verdict"] for line in results(Path(run))] == ["falsified", "verified"]
    assert main(["check", run]) == 0
    assert "cannot be read (No such file" in refused_outside(4, *ask(model, Path(strange + "x.npz"), tmp_path / "no"))


def test_41_lines_may_end_as_elsewhere(model: Path, tmp_path: Path, capsys: Captured) -> None:
    text = HEAD + BOX + "(assert (>= Y_0 20)) ; never\n"
    for name, content in (("crlf", text.replace("\n", "\r\n").encode()), ("gz", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(content)
        assert main(["verify", str(model), "--vnnlib", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out.startswith("verified: ")
    (tmp_path / "comma").write_text(text.replace("20", "20,5"))
    assert "'20,5' is no declared variable and no decimal" in refused(
        capsys, 4, "verify", model, "--vnnlib", tmp_path / "comma"
    )


def test_what_fuzzing_found_stays_mended(data: Path, model: Path, tmp_path: Path, capsys: Captured) -> None:
    """A header that is no expression, deep nesting, an empty layer, and a signalling NaN: one line each."""
    header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': (".ljust(117) + b"\n"
    for name, arrays in (("bad-data.npz", ("x", "y")), ("bad-model.npz", ("W1", "B1"))):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for array in arrays:
                archive.writestr(f"{array}.npy", header)
    for code, chosen in ((4, (model, tmp_path / "bad-data.npz")), (3, (tmp_path / "bad-model.npz", data))):
        assert "damaged or not of the expected format" in refused(capsys, code, *ask(*chosen, tmp_path / "run"))
    (tmp_path / "deep.toml").write_text("data = " + "[" * 5000)
    assert "not a readable TOML file" in refused(capsys, 2, "train", tmp_path / "deep.toml", "--out", tmp_path / "run")
    empty = ask(model, data, tmp_path / "run", "--arch", "cnn(2;; fc 2)")
    assert "'' is neither 'conv CHANNELS KERNEL STRIDE PADDING' nor 'fc UNITS'" in refused(capsys, 2, *empty)
    signalling = np.array([[0x7FA00000, 0], [0, 0]], np.uint32).view(np.float32)
    found = onnx_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": signalling}, [1, 2])
    (tmp_path / "net.onnx").write_bytes(found.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = refused(capsys, 3, *ask(tmp_path / "net.onnx", data, tmp_path / "run"))
    assert said.endswith("initialiser 'w' is nan at index (0, 0)")


def test_attributes_of_another_type_and_names_that_are_no_text_are_refused(
    data: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "net.onnx"

    def said(change: Callable[[onnx.ModelProto], None], code: int = 3) -> str:
        node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)
        found = onnx_model([node], {"w": np.ones((2, 2), np.float32)}, [1, 2])
        change(found)
        path.write_bytes(found.SerializeToString())
        return refused(capsys, code, *ask(path, data, tmp_path / "run"))

    def typed(kind: int) -> Callable[[onnx.ModelProto], None]:
        return lambda found: setattr(found.graph.node[0].attribute[0], "type", kind)

    def valued(alpha: float) -> Callable[[onnx.ModelProto], None]:
        return lambda found: setattr(found.graph.node[0].attribute[0], "f", alpha)

    kinds = onnx.AttributeProto
    for name in ("UNDEFINED", "GRAPH", "STRING", "INT"):
        assert said(typed(getattr(kinds, name))).endswith(f"attribute 'alpha' is of type {name}")
    for alpha in (np.nan, np.inf):
        assert said(valued(alpha)).endswith(f"attribute 'alpha' is {alpha}")
    good = onnx_model([helper.make_node("LeakyRelu", ["x"], ["yy"])], {"w": np.ones((2, 2), np.float32)}, [1, 2])
    path.write_bytes(good.SerializeToString().replace(b"yy", b"\xff\xfe"))
    assert "net.onnx: " in refused(capsys, 3, *ask(path, data, tmp_path / "run"))
    constant = helper.make_node("Concat", ["w", "w"], ["c"], axis=0)
    lost = onnx_model([constant, helper.make_node("Relu", ["x"], ["y"])], {"w": np.ones((2, 2), np.float32)}, [1, 2])
    del lost.graph.node[0].output[:]
    path.write_bytes(lost.SerializeToString())
    assert refused(capsys, 3, *ask(path, data, tmp_path / "run")).endswith("has no output")


def test_a_header_that_does_not_fit_its_layers_is_the_files_fault(
    data: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"0.weight": torch.eye(2), "0.bias": torch.ones(2)}, path, {"input_shape": "[6]"})
    told = refused(capsys, 3, *ask(path, data, tmp_path / "run"))
    assert told.endswith("its header says input_shape (6,), its first layer takes 2")
