"""Part 2: the networks of the assets and of the shared data, and their twins with a layer in other units.

A twin has a layer times 2^k and the next one times 2^-k. It is the same function, so its verdict must be the network's
own or unknown, and its witness one of the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import inputs, jobs
from rescaled import rescale

from lpverify.attack.exact import exact_margins, inside
from lpverify.data import load_data
from lpverify.errors import LpverifyError, SoundnessError
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.problem import Specification
from lpverify.result import Result, Verdict
from lpverify.verify import verify
from soundness.report import Given, Tally

ASSETS = Path(__file__).resolve().parents[2] / "lpverify" / "assets"
# Radii by the number of inputs: one that is often proved, one that is often not.
RADII = {2: ("0.05", "0.3"), 64: ("0.03", "0.15"), 784: ("0.01", "0.06"), 3072: ("0.002", "0.02")}
POWERS = (-40, -17, 17, 40)
ENGINES = ("auto", "crown")
MOST_RELUS = 5000
LIMIT = 4.0


def sources(given: Given) -> list[tuple[str, Callable[[], tuple[Network, Any]]]]:
    """A name and what loads the network and (images, ...) inputs: the assets, then by size those of the shared data."""
    found: list[tuple[str, Callable[[], tuple[Network, Any]]]] = []
    for path in sorted(ASSETS.glob("*.safetensors")):
        if (data := path.stem.split("-")[0]) in ("digits", "toy2d"):
            found.append((path.stem, partial(_asset, path, data)))
    if (given.data / "networks.csv").is_file():
        for line in sorted(jobs(given.data, True), key=lambda line: int(line["relus"])):
            if line.pop("relus") <= MOST_RELUS:
                found.append((line["file"], partial(_shared, given.data, **line)))
    return found


def _asset(path: Path, data: str) -> tuple[Network, Any]:
    return load_model(path), load_data(data).x[:3]


def _shared(data: Path, file: str, **options: Any) -> tuple[Network, Any]:
    network = load_model(data / file, **options)
    return network, inputs(data, network.input_size, 2)


def total(given: Given) -> int:
    """Networks of the whole part."""
    return len(sources(given))


def run(tally: Tally, items: int, given: Given) -> None:
    """Every network at a few points, radii and k."""
    for name, load in sources(given)[:items]:
        if tally.over:
            return
        network, points = load()
        x = np.asarray(points, np.float32).reshape(len(points), -1)
        with torch.no_grad():
            labels = network.forward(torch.as_tensor(x).double()).argmax(1).numpy()
        if network.output_size > 1:
            for radius in RADII.get(network.input_size, ("0.005", "0.05")):
                for i in range(len(x)):
                    _compare(tally, name, network, x[i], int(labels[i]), radius)
        else:
            tally.counts["networks with one output, left out"] += 1
        tally.done += 1
        print(f"  {name}: {tally.spent:.0f} s", flush=True)


def _compare(tally: Tally, name: str, network: Network, x: Any, label: int, radius: str) -> None:
    """The network and its twins on one question."""
    seen: dict[Verdict, str] = {}
    probe = torch.as_tensor(np.random.default_rng(0).random((20, x.size)))
    for k in (0, *POWERS):
        twin = rescale(network, k) if k else network
        if not torch.equal(twin.forward(probe), network.forward(probe)):
            tally.counts["twins that are not the same function, left out"] += 1
            continue
        for engine in ENGINES:
            what = f"{name}, label {label}, eps {radius}, k {k}, {engine}"
            try:
                (result,) = verify(twin, x[None], np.array([label]), radius, method=engine, timeout=LIMIT, workers=0)
            except SoundnessError as error:
                tally.accuse(twin, f"{what}: {error}")
                continue
            except LpverifyError as error:
                tally.errors.append(f"{name}: {type(error).__name__}: {error}")
                continue
            tally.counts[f"{'twin' if k else 'network'}, {engine}: {result.verdict.value}"] += 1
            seen.setdefault(result.verdict, what)
            if {Verdict.VERIFIED, Verdict.FALSIFIED} <= set(seen):
                tally.accuse(twin, f"{seen[Verdict.VERIFIED]} is verified, {seen[Verdict.FALSIFIED]} is falsified")
            if result.verdict is Verdict.FALSIFIED and not _is_witness(network, result, x, label, radius):
                tally.accuse(twin, f"{what}: the witness is none of the network")


def _is_witness(network: Network, result: Result, x: Any, label: int, radius: str) -> bool:
    """Whether a twin's witness is one of the network."""
    if result.counterexample is None:
        return False
    point = result.counterexample.x
    C = Specification.label(torch.tensor([label]), network.output_size).C[0].numpy()
    margins = exact_margins(network, point, C, np.zeros(len(C)))
    return inside(point, x, radius, "inf", None) and min(margins) <= 0
