"""Times of the core kernels by pytest-benchmark, to compare commits on one machine; never part of the tests.

    make bench
    make bench BENCH_ARGS="--benchmark-save=before"
    make bench BENCH_ARGS="--benchmark-compare=before --benchmark-compare-fail=median:30%"

CPU time of one thread: the shipped digits networks and random inputs, so that no data are needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from common import HERE
from pytest_benchmark.fixture import BenchmarkFixture

from lpverify.bounds import METHODS
from lpverify.certificate import exact, rigorous
from lpverify.certificate.exact_linear import convert
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import Certificate
from lpverify.encode import encode
from lpverify.evidence import certificate, claim_of
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.problem import Region, Specification, ball
from lpverify.serialize import network_bytes
from lpverify.settings import Settings
from lpverify.training.projection import estimated_layers

pytestmark = pytest.mark.benchmark(timer=time.process_time, min_rounds=5, max_time=0.5)
BATCH, EPS = 20, "0.05"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The times are those of one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(count: int, dtype: torch.dtype) -> tuple[Network, Region, Specification]:
    """The digits network of standard training, balls about random inputs, the claim of the predicted label."""
    network = load_model(HERE.parent / "lpverify" / "assets" / "digits-standard.safetensors").to(dtype)
    x = torch.rand(count, network.input_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = network.forward(x).argmax(1)
    return network.detach(), ball(x, float(EPS)), Specification.label(y, network.output_size, dtype)


@pytest.mark.parametrize("method", ["interval", "dual", "crown", "alpha"])
def test_bound(benchmark: BenchmarkFixture, method: str) -> None:
    found = benchmark(METHODS[method]().bound, *problem(BATCH, torch.float32))
    assert found.margins.shape == (BATCH, 9)


def test_gradient_of_dual(benchmark: BenchmarkFixture) -> None:
    network, region, spec = problem(BATCH, torch.float32)
    live = network.map_tensors(lambda tensor: tensor.clone().requires_grad_(True))
    benchmark(lambda: METHODS["dual"]().bound(live, region, spec).margins.sum().backward())


def test_projections(benchmark: BenchmarkFixture) -> None:
    network, region, _ = problem(BATCH, torch.float32)
    benchmark(lambda: estimated_layers(network, region, 10, torch.Generator().manual_seed(0)))


def test_lp(benchmark: BenchmarkFixture) -> None:
    found = benchmark(METHODS["lp"]().bound, *problem(1, torch.float64))
    assert found.margins.shape == (1, 9)


def test_encode(benchmark: BenchmarkFixture) -> None:
    network, region, spec = problem(1, torch.float64)
    layers = METHODS["crown"]().bound(network, region, spec).layers
    program = benchmark(lambda: encode(network, region, layers).program())
    assert program.num_columns > 0


def certificates(count: int) -> tuple[Any, list[Certificate]]:
    """The plain network, and CROWN's certificates."""
    network, region, spec = problem(count, torch.float64)
    plain = parse_network(network_bytes(network))
    settings, found = Settings(EPS), []
    for i in range(count):
        bound = METHODS["crown"]().bound(network, region.select([i]), spec.select([i]))
        center = region.box.center[i].numpy()
        claim = claim_of(settings, center, int(network.forward(region.box.center[[i]]).argmax()), network.output_size)
        found.append(certificate(plain.sha256, "real", claim, bound, 0, list(range(9))))
    return plain, found


@pytest.mark.parametrize("checker", ["rigorous", "exact"])
def test_check(benchmark: BenchmarkFixture, checker: str) -> None:
    plain, found = certificates(1)
    runs: dict[str, Callable[[], Any]] = {}
    if checker == "rigorous":
        network = rigorous.Network(plain)
        runs[checker] = lambda: rigorous.check(network, found)
    else:
        converted = convert(plain)
        runs[checker] = lambda: exact.check(converted, found[0])
    assert benchmark(runs[checker])
