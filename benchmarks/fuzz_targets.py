"""What is fuzzed: for each kind of file a good one, the command that reads it, and what may follow.

A command on a damaged file may refuse it, with one line on standard error and the exit code of that kind, or work. If
it works it has read another network, input or claim, and its verdicts are about that: they must pass the exact check.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from mutations import Mutate, bytewise, in_archive, wordwise
from onnx import helper, numpy_helper
from safetensors.torch import save_file

from lpverify.certificate.exact import check as check_exactly
from lpverify.certificate.exact import check_witness
from lpverify.certificate.graph import read_network
from lpverify.certificate.proof import decode, decode_witness
from lpverify.cli import explain, main
from lpverify.training.config import read_config

PROPERTY = """; the first output must stay below the second
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(assert (or (and (>= X_0 -0.5) (<= X_0 0.25) (>= X_1 0) (<= X_1 1e-1))
            (and (>= X_0 0.5) (<= X_0 0.75) (>= X_1 0) (<= X_1 0.1))))
(assert (or (>= Y_0 (+ Y_1 3.5)) (and (<= Y_1 -2) (> (* 2 Y_0) 1))))
"""
CONFIG = """data = "digits"
method = "pgd"
arch = "cnn(1x8x8; conv 4 3 1 1; fc 10)"
epochs = 3
eps = 0.1
clip = [0, 1]
mean = [0.5]
std = [0.25]
eps_schedule = "linear"
eps_ramp = 2
lr_schedule = "step"
lr_steps = [1, 2]
attack_steps = 5
"""
# Parameters from here on are too large for the exact checker, see ``recheck``.
LARGEST = 2.0**20


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        file: the name of the file that is damaged, within a folder of good ones.
        mutate: how.
        codes: exit codes that may follow.
        run: the command on the folder; returns exit code, standard output and standard error.
        then: called where the exit code was 0; raises AssertionError if what it left is not right.
    """

    file: str
    mutate: Mutate
    codes: tuple[int, ...]
    run: Callable[[Path], tuple[int, str, str]]
    then: Callable[[Path], None]


def commanded(*arguments: str) -> tuple[int, str, str]:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def good_files(folder: Path) -> None:
    """Write one good file of each kind, and a run with certificates and counterexamples."""
    draw = np.random.default_rng(0)
    weights = {
        "W1": draw.normal(size=(2, 3)), "B1": draw.normal(size=3), "W2": draw.normal(size=(3, 2)), "B2": np.zeros(2)
    }  # fmt: skip
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    np.savez(folder / "net.npz", **weights)
    x = draw.random((4, 2)).astype(np.float32)
    hidden = np.maximum(x @ weights["W1"] + weights["B1"], 0)
    np.savez(folder / "data.npz", x=x, y=(hidden @ weights["W2"]).argmax(1))
    state = {f"{i}.{what}": torch.tensor(weights[f"{letter}{i}"].T.copy()) for i in (1, 2)
             for what, letter in (("weight", "W"), ("bias", "B"))}  # fmt: skip
    save_file(state, folder / "net.safetensors", {"input_shape": "[2]", "mean": "0.5", "std": "[2.0]"})
    torch.save(state, folder / "net.pth")
    (folder / "net.onnx").write_bytes(onnx_bytes())
    np.savez(folder / "image.npz", x=draw.random((1, 1, 5, 5)).astype(np.float32), y=np.array([1]))
    (folder / "p.vnnlib").write_text(PROPERTY)
    (folder / "config.toml").write_text(CONFIG)
    code, _, err = verified(folder, "net.npz", "data.npz", "0.2", "good")
    assert code == 0, err
    for kind, name in (("certificates", "proof.lpcert"), ("counterexamples", "point.lpwit")):
        first = min((folder / "good" / kind).iterdir(), default=None)
        assert first is not None, f"the good run has no {kind}"
        (folder / name).write_bytes(first.read_bytes())


def onnx_bytes() -> bytes:
    """A small convolutional network with the operators that move shapes about."""
    draw = np.random.default_rng(1)
    constants = {
        "k": draw.normal(size=(2, 1, 2, 2)).astype(np.float32), "w": draw.normal(size=(8, 3)).astype(np.float32),
        "b": draw.normal(size=3).astype(np.float32), "flat": np.array([1, -1]), "low": np.float32([0.0]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], strides=[1, 1], pads=[0, 0, 0, 0], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["flat"], ["shape"], axis=0),
        helper.make_node("Reshape", ["m", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"], alpha=0.5),
        helper.make_node("LeakyRelu", ["g"], ["l"], alpha=0.25),
        helper.make_node("Add", ["l", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1, 5, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    data: bytes = model.SerializeToString()
    return data


def verified(folder: Path, model: str, data: str, eps: str, out: str = "run") -> tuple[int, str, str]:
    """Verify a model on data, in a run folder."""
    ask = ["--data", str(folder / data), "--eps", eps, "--timeout", "2", "--overwrite", "--out", str(folder / out)]
    return commanded("verify", str(folder / model), *ask)


def recheck(folder: Path) -> None:
    """The run's verdicts pass the check, and the exact one if no parameter is too large for it.

    The exact checker rounds multipliers to 2^-48 and bounds to 2^-40, whatever their size: times a weight of 1e30 this
    is more than any margin, and it rejects what the rigorous one proves.
    """
    network = read_network(folder / "run/network.lpnet")
    arrays = [node.bias for node in network.nodes if node.bias] + [
        array for node in network.nodes for linear in node.maps for array in linear.arrays.values()
    ]
    moderate = all(abs(value) < LARGEST for array in arrays for value in array.values())
    for options in ([], ["--exact"])[: 1 + moderate]:
        code, _, err = commanded("check", str(folder / "run"), *options)
        assert code == 0, f"check {' '.join(options)} says {err}"


def read_property_too(folder: Path) -> tuple[int, str, str]:
    """Decide a property, in a run folder."""
    ask = ["--vnnlib", str(folder / "p.vnnlib"), "--timeout", "2", "--overwrite", "--out", str(folder / "run")]
    return commanded("verify", str(folder / "net.npz"), *ask)


def check_evidence(kind: str, name: str) -> Callable[[Path], tuple[int, str, str]]:
    """Put the damaged file into the good run and check that, with its data at hand."""

    def run(folder: Path) -> tuple[int, str, str]:
        place = min((folder / "good" / kind).iterdir())
        kept = place.read_bytes()
        place.write_bytes((folder / name).read_bytes())
        try:
            return commanded("check", str(folder / "good"), "--data", str(folder / "data.npz"))
        finally:
            place.write_bytes(kept)

    return run


def still_a_proof(folder: Path) -> None:
    """A certificate that was accepted is one for the same claim to the exact checker, too."""
    found, good = decode((folder / "proof.lpcert").read_bytes()), min((folder / "good/certificates").iterdir())
    assert found.claim == decode(good.read_bytes()).claim and found.semantics == "real"
    assert check_exactly(read_network(folder / "good/network.lpnet"), found).accepted


def still_a_point(folder: Path) -> None:
    """As ``still_a_proof``, of a counterexample."""
    good = min((folder / "good/counterexamples").iterdir())
    found = decode_witness((folder / "point.lpwit").read_bytes())
    assert found.claim == decode_witness(good.read_bytes()).claim
    assert check_witness(read_network(folder / "good/network.lpnet"), found).accepted


def configured(folder: Path) -> tuple[int, str, str]:
    """Read a training config, without the training."""
    try:
        read_config(folder / "config.toml")
    except Exception as error:
        code, message = explain(error)
        return code, "", f"lpverify: error: {message}\n"
    return 0, "", ""


def nothing(_: Path) -> None:
    """Nothing more to be checked."""


def on_model(name: str, data: str) -> Callable[[Path], tuple[int, str, str]]:
    """Verify the damaged model on good data."""
    return lambda folder: verified(folder, name, data, "0.05")


TARGETS: dict[str, Target] = {
    "onnx": Target("net.onnx", bytewise, (0, 3, 4), on_model("net.onnx", "image.npz"), recheck),
    "safetensors": Target("net.safetensors", bytewise, (0, 3, 4), on_model("net.safetensors", "data.npz"), recheck),
    "pth": Target("net.pth", in_archive, (0, 3, 4), on_model("net.pth", "data.npz"), recheck),
    "npz model": Target("net.npz", in_archive, (0, 3, 4), on_model("net.npz", "data.npz"), recheck),
    "npz data": Target("data.npz", in_archive, (0, 4), lambda f: verified(f, "net.npz", "data.npz", "0.05"), recheck),
    "vnnlib": Target("p.vnnlib", wordwise, (0, 4), read_property_too, recheck),
    "certificate": Target(
        "proof.lpcert", bytewise, (0, 7), check_evidence("certificates", "proof.lpcert"), still_a_proof),
    "counterexample": Target(
        "point.lpwit", bytewise, (0, 7), check_evidence("counterexamples", "point.lpwit"), still_a_point),
    "config": Target("config.toml", wordwise, (0, 2), configured, nothing),
}  # fmt: skip


def faults_of(target: Target, folder: Path, good: bytes, seed: int) -> tuple[int, list[str]]:
    """Damage the target's file, ``good``, as ``seed`` says and run its command: the exit code, and what was wrong.

    The damaged file is left where it is.
    """
    (folder / target.file).write_bytes(target.mutate(good, random.Random(seed)))
    code, out, err = target.run(folder)
    wrong = []
    if code not in target.codes:
        wrong.append(f"exit code {code}: {err.strip()[:300]}")
    elif code and (out or err.count("\n") != 1 or not err.startswith("lpverify: error: ")):
        wrong.append(f"not one line on standard error: {out[:100]!r} {err[:300]!r}")
    elif not code:
        try:
            target.then(folder)
        except AssertionError as error:
            wrong.append(f"a verdict from garbage: {error}")
    return code, wrong
