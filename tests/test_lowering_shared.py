"""Every shared network: the lowered graph in float64 equals other people's float32 runtime within rounding."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lpverify.errors import UnsupportedLayerError
from lpverify.linear import Conv2d, Dense, Sparse
from lpverify.lowering import load_model
from lpverify.network import Affine, Input, Network

pytestmark = pytest.mark.shared

UNIT = 2.0**-24
SAMPLES = 8


def float32_error(network: Network, x: Tensor) -> Tensor:
    """A bound on |float32 evaluation - real value| of every output: running error analysis, (B, n_K).

    An inner product of n terms in any order errs by at most gamma_(n+1) (|W| H + |b|), where H bounds the
    computed inputs, plus |W| times the inputs' own error. Eight more roundings a node allow for a
    normalisation that the graph folds and the runtime computes.
    """
    values = network.values(x)
    errors: list[Tensor] = []
    for node, value in zip(network.nodes, values, strict=True):
        if isinstance(node, Input):
            errors.append(torch.zeros_like(value))
        elif not isinstance(node, Affine):
            errors.append(errors[node.input])
        else:
            terms = sum(linear.fan()[0] for linear in node.maps) + len(node.maps) + 8
            gamma = terms * UNIT / (1 - terms * UNIT)
            reach, carried = node.bias.abs().expand_as(value), torch.zeros_like(value)
            for source, linear in zip(node.inputs, node.maps, strict=True):
                reach = reach + linear.abs().apply(values[source].abs() + errors[source])
                carried = carried + linear.abs().apply(errors[source])
            errors.append(carried + gamma * reach)
    return errors[-1]


def assert_agrees(network: Network, x: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> None:
    with torch.no_grad():
        wide = torch.from_numpy(x).double().flatten(1)
        ours = network.forward(wide)
        error = (ours - torch.from_numpy(outputs).double().flatten(1)).abs()
        assert bool((error <= float32_error(network, wide)).all())
        assert float(error.max()) <= 1e-4 * float(ours.abs().max())


def networks(folder: Path) -> list[str]:
    with open(folder / "networks.csv", newline="") as file:
        return [row["file"] for row in csv.DictReader(file)]


def test_every_onnx_network_equals_onnxruntime(shared_data: Path) -> None:
    files = networks(shared_data) + [f"vnncomp/test/onnx/{p.name}" for p in shared_data.glob("vnncomp/test/onnx/*")]
    files = list(dict.fromkeys(files))
    assert len(files) >= 101
    rng = np.random.default_rng(0)
    for file in files:
        data = (shared_data / file).read_bytes()
        data = gzip.decompress(data) if file.endswith(".gz") else data
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = onnxruntime.InferenceSession(data, options)
        (entry,) = session.get_inputs()
        shape = [n if isinstance(n, int) else 1 for n in entry.shape]
        x = rng.uniform(-0.5, 1, (SAMPLES, int(np.prod(shape)))).astype(np.float32)
        outputs = np.stack([session.run(None, {entry.name: row.reshape(shape)})[0].ravel() for row in x])
        assert_agrees(load_model(shared_data / file), x, outputs)


def test_folding_leaves_few_nodes_and_keeps_convolutions(shared_data: Path) -> None:
    """Normalisation, biases, reshapes, transposes and pads cost no node; only an NHWC input needs a permutation."""

    def kinds(file: str) -> list[str]:
        network = load_model(shared_data / "vnncomp" / file)
        return ["+".join(type(m).__name__ for m in n.maps) for n in network.nodes if isinstance(n, Affine)]

    assert kinds("acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx") == ["Dense"] * 7
    assert kinds("eran_mnist_relu/onnx/mnist_relu_9_200.onnx") == ["Dense"] * 9
    assert kinds("marabou_cifar10/onnx/cifar10_small.onnx") == ["Sparse", *["Conv2d"] * 2, *["Dense"] * 3]
    assert kinds("verivital_avgpool/onnx/Convnet_avgpool.onnx") == ["Conv2d", "Conv2d", "Dense"]
    assert "Sparse" not in "".join(kinds("verivital_maxpool/onnx/Convnet_maxpool.onnx"))
    resnet = kinds("cifar10_resnet/onnx/resnet_2b.onnx")
    assert resnet == ["Conv2d", "Conv2d", "Conv2d+Conv2d", "Conv2d", "Conv2d+Diagonal", "Dense", "Dense"]


def test_unsupported_networks_are_refused(shared_data: Path) -> None:
    files = sorted((shared_data / "unsupported").glob("*/*.onnx"))
    assert files
    for file in files:
        with pytest.raises(UnsupportedLayerError, match=r"operator Sigmoid node 'Sigmoid_6'") as caught:
            load_model(file)
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def reference(text: str, shape: tuple[int, ...]) -> tuple[nn.Sequential, str]:
    """The torch module of an architecture written as in torch_networks.csv, and its name in lpverify.models."""
    layers: list[nn.Module] = []
    spec = ["x".join(map(str, shape))]
    for match in re.finditer(r"Conv\((\d+),(\d+),(\d+),stride(\d+),pad(\d+)\)|Linear\((\d+),(\d+)\)|Flatten", text):
        if match[0] == "Flatten":
            layers.append(nn.Flatten())
        elif match[1]:
            channels, out, kernel, stride, padding = (int(n) for n in match.groups()[:5])
            layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.ReLU()]
            spec.append(f"conv {out} {kernel} {stride} {padding}")
        else:
            layers += [nn.Linear(int(match[6]), int(match[7])), nn.ReLU()]
            spec.append(f"fc {match[7]}")
    return nn.Sequential(*layers[:-1]), f"cnn({'; '.join(spec)})"


def state_dict(path: Path) -> dict[str, Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    loaded = loaded.get("state_dict", loaded)
    return dict(loaded[0] if isinstance(loaded, list) else loaded)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "torch_networks.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_torch_network_equals_torch(shared_data: Path) -> None:
    rng = np.random.default_rng(1)
    assert len(rows(shared_data)) == 22
    for row in rows(shared_data):
        path = shared_data / row["file"].split("/{")[0]
        sizes = re.match(r"\d+(?:x\d+x\d+)?", row["input"])
        assert sizes is not None
        shape = tuple(int(n) for n in sizes[0].split("x"))
        module, arch = reference(row["architecture"], shape)
        if path.is_dir():
            arrays = {name: torch.from_numpy(np.load(path / f"{name}.npy")) for name in ("W1", "B1", "W2", "B2")}
            weights = {"1.weight": arrays["W1"].T, "1.bias": arrays["B1"].flatten()}
            weights |= {"3.weight": arrays["W2"].T, "3.bias": arrays["B2"].flatten()}
        else:
            weights = state_dict(path)
        module.load_state_dict(weights)
        x = rng.uniform(0, 1, (SAMPLES, *shape)).astype(np.float32)
        with torch.no_grad():
            outputs = module(torch.from_numpy(x)).numpy()
        network = load_model(path, arch=arch if "Conv" in row["architecture"] else None)
        assert network.dtype == torch.float64
        assert all(isinstance(m, (Dense, Conv2d)) for n in network.nodes if isinstance(n, Affine) for m in n.maps)
        assert_agrees(network, x, outputs)


def test_normalisation_is_folded_into_the_first_convolution(shared_data: Path) -> None:
    row = next(r for r in rows(shared_data) if "cifar_conv_small_pgd" in r["file"])
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    module, arch = reference(row["architecture"], (3, 32, 32))
    module.load_state_dict(state_dict(shared_data / row["file"]))
    network = load_model(shared_data / row["file"], arch=arch, mean=mean, std=std)
    x = torch.from_numpy(np.random.default_rng(2).uniform(0, 1, (SAMPLES, 3, 32, 32)))
    centred = (x - torch.tensor(mean, dtype=torch.float64).view(3, 1, 1)) / torch.tensor(std, dtype=torch.float64).view(
        3, 1, 1
    )
    with torch.no_grad():
        assert torch.allclose(network.forward(x), module.double()(centred), rtol=1e-12, atol=1e-10)
    assert isinstance(network.nodes[1], Affine) and isinstance(network.nodes[1].maps[0], Conv2d)
    assert not any(isinstance(m, Sparse) for n in network.nodes if isinstance(n, Affine) for m in n.maps)
    assert any("rounding" in note for note in network.notes)
