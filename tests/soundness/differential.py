"""Part 6: the complete search beside HiGHS's MILP, and beside Marabou where its environment is named.

A contradiction is settled by exact arithmetic: if our certificate or witness is accepted, the other one is wrong and is
counted; if not, our verdict is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rescaled import Instance, ask, claim_of

from lpverify.backends.highs import HighsBackend
from lpverify.certificate import exact
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.errors import LpverifyError
from lpverify.result import Result, Verdict
from lpverify.serialize import network_bytes
from soundness.judging import Case, answer, bad_witness, property_text
from soundness.layers import Layers, network_of, random_layers, with_constant
from soundness.report import Given, Tally

SHAPES = ((4, 12, 10, 1), (6, 16, 10, 1), (5, 8, 8, 8, 1), (10, 20, 1), (8, 14, 12, 1))
# The share of the range of sampled outputs that the least of them is above 0; the true least output is lower.
DISTANCES = (0.4, 0.25, 0.15, 0.08, 0.03)
MARABOU_SECONDS = 900.0
SAME = {"verified": "robust", "falsified": "falsified", "unsat": "robust", "sat": "falsified", "robust": "robust"}


def total(given: Given) -> int:
    """Instances of the whole part."""
    return 520


def case(seed: int) -> tuple[Case, Layers]:
    """A random network with weights of two decimals' size, inside [0, 1], whose least output is not far from 0."""
    rng = np.random.default_rng(20_000 + seed)
    sizes = SHAPES[seed % len(SHAPES)]
    layers = random_layers(rng, sizes, bits=8)
    x, eps = 0.4 + (rng.random(sizes[0]) * 12.8).round() / 64, str(rng.choice(["0.1", "0.2", "0.3"]))
    values = x + float(eps) * rng.uniform(-1, 1, (2000, sizes[0]))
    for number, (weight, bias) in enumerate(layers):
        values = values @ weight.T + bias
        values = values.clip(min=0) if number < len(layers) - 1 else values
    low, high = values.min(), values.max()
    constant = DISTANCES[seed % len(DISTANCES)] * (high - low) - low
    layers = with_constant(layers, round(float(constant) * 256) / 256)
    return Case(f"differential {seed}", network_of(layers), x, eps), layers


def run(tally: Tally, items: int, given: Given) -> None:
    """All instances by the search and MILP; then by Marabou."""
    results: dict[str, tuple[Case, Result]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(items):
            if tally.over:
                break
            asked, layers = case(seed)
            try:
                result = answer(asked, "auto", "real", timeout=20.0)
            except LpverifyError as error:
                tally.errors.append(f"{asked.name}: {type(error).__name__}: {error}")
                continue
            tally.counts[f"auto: {result.verdict.value}"] += 1
            instance = Instance(asked.name, False, asked.x.astype(np.float32), asked.eps, np.eye(1))
            other = claim_of(ask(asked.network, instance, HighsBackend(), milp=True), milp=True)
            _settle(tally, asked, result, "MILP", other)
            results[f"{seed:04}"] = asked, result
            onnx.save(onnx_model(layers), folder / f"{seed:04}.onnx")
            (folder / f"{seed:04}.vnnlib").write_text(property_text(asked))
            tally.done += 1
        if given.marabou is None:
            tally.counts["Marabou: not asked (no --marabou)"] = 1
            return
        for key, verdict in _marabou(given.marabou, folder).items():
            _settle(tally, *results[key], "Marabou", verdict)


def _settle(tally: Tally, asked: Case, result: Result, name: str, other: str) -> None:
    """Count one comparison; judge our evidence where the two contradict each other."""
    ours, theirs = SAME.get(result.verdict.value, "none"), SAME.get(other, "none")
    if "none" in (ours, theirs):
        tally.counts[f"{name}: {other}, auto {result.verdict.value}"] += 1
    elif ours == theirs:
        tally.counts[f"{name}: agrees"] += 1
    elif accepted(asked, result):
        tally.counts[f"{name}: contradicted by exact evidence"] += 1
        print(f"  {name} is wrong on {asked.name}: {other}, but {result.verdict.value}", flush=True)
    else:
        tally.accuse(asked.network, f"{asked.name}: {result.verdict.value}, but {name} says {other}")


def accepted(asked: Case, result: Result) -> bool:
    """Whether exact arithmetic accepts a result's evidence."""
    if result.verdict is Verdict.FALSIFIED:
        return not bad_witness(asked, result)
    assert result.certificate is not None
    return exact.check(parse_network(network_bytes(asked.network)), decode(result.certificate)).accepted


def onnx_model(layers: Layers) -> onnx.ModelProto:
    """The network in float32, which holds all its weights."""
    nodes, tensors, last = [], [], "x"
    for k, (weight, bias) in enumerate(layers):
        tensors += [numpy_helper.from_array(weight.astype(np.float32), f"w{k}"),
                    numpy_helper.from_array(bias.astype(np.float32), f"b{k}")]  # fmt: skip
        nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        last = f"z{k}"
        if k < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"h{k}"]))
            last = f"h{k}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
            for name, size in (("x", layers[0][0].shape[1]), (last, len(layers[-1][1])))]  # fmt: skip
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _marabou(python: Path, folder: Path) -> dict[str, str]:
    """Marabou's words by the instance's name; where it stopped before an answer, there is none."""
    command = [str(python), str(Path(__file__).with_name("marabou_many.py")), str(folder)]
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (folder / "out").open("w+") as out:
        try:
            subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, env=variables, timeout=MARABOU_SECONDS)
        except subprocess.TimeoutExpired:
            print("  Marabou: out of time", file=sys.stderr, flush=True)
        out.seek(0)
        lines = [json.loads(line) for line in out if line.startswith('{"name"')]
    return {line["name"]: line["verdict"] for line in lines if line["verdict"] is not None}
