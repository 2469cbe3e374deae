"""Every VNN-LIB file of the shared benchmarks, against networks.csv and against the known counterexamples."""

from __future__ import annotations

import csv
import gzip
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from lpverify.certificate.claim import Claim, ClauseRows, RationalBox
from lpverify.vnnlib import read_property

pytestmark = pytest.mark.shared
# Counterexamples are float32 points, which may miss a decimal bound by half a unit in the last place.
NEAR = Fraction(1, 10**6)
FAMILIES = [
    "acasxu", "cifar10_resnet", "cifar_biasfield", "collins_rul_cnn", "cora_mnist", "eran_mnist_relu",
    "linearizenn", "marabou_cifar10", "metaroom", "mnist_fc", "nn4sys_lindex", "oval21_2021", "oval21_2022",
    "reach_prob_density", "rl_benchmarks", "safenlp", "sri_resnet_a", "sri_resnet_b", "test", "tllverifybench",
    "verivital_avgpool", "verivital_maxpool",
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def close(claim: Claim, point: np.ndarray) -> bool:
    assert isinstance(claim.region, RationalBox)
    ends = zip(claim.region.lower, map(float, point), claim.region.upper, strict=True)
    return all(low - NEAR <= x <= high + NEAR for low, x, high in ends)


def least_violation(claim: Claim, y: np.ndarray) -> float:
    """How far the outputs are from the nearest polytope of the unsafe set, in the worst of its rows."""
    assert isinstance(claim.rows, ClauseRows)
    return min(
        max((sum(float(c) * y[u] for u, c in zip(r.units, r.coefficients, strict=True)) + float(r.constant)
             for r in clause), default=0.0)
        for clause in claim.rows.clauses
    )


def evaluated(path: Path, point: np.ndarray) -> np.ndarray:
    data = path.read_bytes()
    session = onnxruntime.InferenceSession(gzip.decompress(data) if path.suffix == ".gz" else data)
    (wanted,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
    return session.run(None, {wanted.name: point.astype(np.float32).reshape(shape)})[0].ravel()


def test_the_families_are_those_of_the_folder(shared_data: Path) -> None:
    families = {row["onnx"].split("/")[1] for row in rows_of(shared_data / "instances.csv")}
    assert families == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_instance_of_a_family(shared_data: Path, family: str) -> None:
    networks = {row["file"]: row for row in rows_of(shared_data / "networks.csv")}
    instances = [row for row in rows_of(shared_data / "instances.csv") if row["onnx"].split("/")[1] == family]
    found = {name: read_property(shared_data / name) for name in {row["vnnlib"] for row in instances}}
    known = shared_data / "vnncomp" / family / "counterexamples.npz"
    points = np.load(known) if known.is_file() else {}
    # The five tiny networks of "test" are not in networks.csv.
    assert family == "test" or {row["onnx"] for row in instances} <= networks.keys()
    seen = 0
    for row in instances:
        prop = found[row["vnnlib"]]
        if row["onnx"] in networks:
            network = networks[row["onnx"]]
            assert (prop.inputs, prop.outputs) == (int(network["inputs"]), int(network["outputs"]))
        assert prop.claims and not any(prop.open_faces)
        if row["verdict"] != "sat":
            continue
        names = [Path(row[column].removesuffix(".gz")).stem for column in ("onnx", "vnnlib")]
        point = points["__".join(names)].ravel()
        inside = [claim for claim in prop.claims if close(claim, point)]
        assert inside, row["vnnlib"]
        y = evaluated(shared_data / row["onnx"], point)
        # Rounding in float32: onnxruntime need not add in the order of whoever found the point.
        assert min(least_violation(claim, y) for claim in inside) <= 1e-5 * max(1.0, float(np.abs(y).max())), row
        seen += 1
    assert seen == sum(row["verdict"] == "sat" for row in instances)
