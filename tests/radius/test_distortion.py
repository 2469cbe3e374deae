"""The exact least distortion: against enumeration of the linear pieces, under rescaling, within limits."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cvxpy as cp
import numpy as np
import pytest
import torch
from networks import NETWORKS, TINY, Array, Clip, pieces, rescaled
from scipy.optimize import linprog
from small_networks import dense_network

from lpverify.attack import attack
from lpverify.backends import AbstractBackend, AbstractSession, CvxpyBackend, HighsBackend, Solution, Status
from lpverify.data import load_data
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.problem import NORMS, Specification, ball
from lpverify.program import Program
from lpverify.radius.distortion import Distortion, LeastDistortion, distance_of
from lpverify.session import Session
from lpverify.settings import Settings

# Shares of the distance. In l2 tangents end at 1e-5, and the reference is a cone program's, good to 1e-8.
ERROR = {"inf": 1e-6, "1": 1e-6, "2": 1e-5}
# HiGHS keeps rows to 1e-6 in scaled units.
ROW_ERROR = 1e-5
RADII = {"inf": 0.4, "2": 0.6, "1": 0.8}
# Networks and inputs with counterexamples at distances from 0.02 to 0.6.
SEEDS = {
    "affine": (0, 3), "deep": (4, 7), "sparse-diagonal": (9, 11), "input-relu": (3, 7), "shared-affine": (3, 7),
    "affine-affine": (7, 9), "dead-units": (11,),
}  # fmt: skip
CLIPS: tuple[Clip, ...] = (None, (0.1, 0.9))


def case(name: str, seed: int, clip: Clip = None) -> tuple[Network, torch.Tensor, Specification]:
    """A network, an input inside the clip, and the claim that its label there stays."""
    network = NETWORKS[name](seed).to(torch.float64)
    x = torch.rand(1, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
    x = x if clip is None else x.clamp(*clip)
    return network, x, Specification.label(network.forward(x).argmax(1), network.output_size)


def nearest_in_piece(norm: str, x: Array, G: Array, h: Array, lower: Array, upper: Array) -> float:
    """The least distance from x to {G x' <= h} in the box; infinite if that is empty."""
    n = len(x)
    eye, zero = np.eye(n), np.zeros((len(G), 1))
    if norm == "2":
        point = cp.Variable(n)
        problem = cp.Problem(cp.Minimize(cp.norm(point - x)), [G @ point <= h, point >= lower, point <= upper])
        problem.solve(solver="CLARABEL")
        return float(problem.value) if problem.status == "optimal" else math.inf
    extra = 1 if norm == "inf" else n
    T = np.ones((n, 1)) if norm == "inf" else np.eye(n)
    A = np.block([[G, np.repeat(zero, extra, 1)], [eye, -T], [-eye, -T]])
    solved = linprog(
        np.concatenate([np.zeros(n), np.ones(extra)]),
        A_ub=A, b_ub=np.concatenate([h, x, -x]),
        bounds=[*zip(lower, upper, strict=True), *[(0, None)] * extra], method="highs",
    )  # fmt: skip
    return float(solved.fun) if solved.status == 0 else math.inf


def enumerated(network: Network, x: torch.Tensor, spec: Specification, norm: str, clip: Clip, radius: float) -> float:
    """The least distortion within the box of this radius, by enumeration of the linear pieces."""
    box = ball(x, radius, "inf", clip)
    lower, upper = box.lower[0].numpy(), box.upper[0].numpy()
    best = math.inf
    for piece in pieces(network, lower, upper):
        for c, d in zip(spec.C[0].numpy(), spec.d[0].numpy(), strict=True):
            G, h = np.vstack([piece.G, c @ piece.A]), np.append(piece.h, -(c @ piece.b + d))
            best = min(best, nearest_in_piece(norm, x[0].numpy(), G, h, lower, upper))
    return best


def checked(network: Network, task: LeastDistortion) -> Distortion:
    """The task's answer; its point is where it says, and the claim fails there up to the solver's tolerance."""
    found = task(network)
    assert 0 <= found.bound <= task.radius and found.bound <= found.distance
    assert (found.point is None) == (found.row < 0) == math.isinf(found.distance)
    if found.point is not None:
        assert distance_of(found.point - task.x[0].numpy(), task.norm) == pytest.approx(found.distance, abs=1e-9)
        margins = task.spec.margins(network.forward(torch.as_tensor(found.point)[None]))[0]
        assert float(margins[found.row]) <= ROW_ERROR
        if task.clip is not None:
            assert found.point.min() >= task.clip[0] - 1e-9 and found.point.max() <= task.clip[1] + 1e-9
    return found


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", TINY)
def test_it_is_the_least_over_the_linear_pieces(name: str, norm: str, clip: Clip) -> None:
    for seed in SEEDS[name]:
        network, x, spec = case(name, seed, clip)
        found = checked(network, LeastDistortion(x, spec, RADII[norm], norm, clip))
        assert found.status is Status.OPTIMAL
        # Nothing outside this box is as near in any norm.
        expected = enumerated(network, x, spec, norm, clip, 1.001 * found.distance)
        error = ERROR[norm] * expected
        assert expected - error <= found.bound <= expected + error
        assert expected - error <= found.distance <= expected + error


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["affine", "deep", "shared-affine", "affine-affine"])
def test_where_nothing_is_near_the_radius_is_claimed(name: str, norm: str) -> None:
    network, x, spec = case(name, 1)
    assert enumerated(network, x, spec, norm, None, 0.2) > 0.2
    found = checked(network, LeastDistortion(x, spec, 0.2, norm))
    assert found.status is Status.INFEASIBLE and found.bound == 0.2 and found.point is None


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "unit"), [("dense", 1.0), ("conv", 2.5), ("residual", 2.5)])
def test_no_counterexample_is_nearer_and_the_point_is_one(name: str, unit: float, norm: str) -> None:
    """On networks too large to enumerate: an attack finds nothing nearer, and fails just past the point."""
    network, x, spec = case(name, 2)
    found = checked(network, LeastDistortion(x, spec, unit * {"inf": 0.06, "2": 0.1, "1": 0.14}[norm], norm))
    assert found.status is Status.OPTIMAL and found.point is not None
    inside = attack(network, ball(x, 0.999 * found.bound, norm), spec, steps=60, restarts=3)
    assert not bool(inside.falsified[0])
    past, start = ball(x, 1.001 * found.distance, norm), torch.as_tensor(found.point)[None]
    assert bool(attack(network, past, spec, steps=60, restarts=1, start=start).falsified[0])


@pytest.mark.parametrize("norm", NORMS)
def test_an_affine_classifier_is_at_its_distance_in_the_dual_norm(norm: str) -> None:
    """f = 3 x + 4 y - 10 at (5, 5): 25 above the line, at distances 25/7, 25/4 and 5 in l-inf, l1 and l2."""
    network = dense_network((torch.tensor([[3.0, 4.0]]).double(), torch.tensor([-10.0]).double()))
    spec = Specification(torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double())
    x = torch.full((1, 2), 5.0).double()
    found = checked(network, LeastDistortion(x, spec, 10.0, norm))
    assert found.distance == pytest.approx({"inf": 25 / 7, "1": 25 / 4, "2": 5.0}[norm], rel=ERROR[norm])
    clipped = checked(network, LeastDistortion(x, spec, 10.0, norm, (2.0, 8.0)))
    assert clipped.status is Status.INFEASIBLE and clipped.bound == 10.0
    # In l1 the second input goes down to 1, the first one pays the rest.
    nearest = checked(network, LeastDistortion(x, spec, 10.0, norm, (1.0, 8.0)))
    assert nearest.distance == pytest.approx({"inf": 25 / 7, "1": 7.0, "2": 5.0}[norm], rel=ERROR[norm])


@pytest.mark.parametrize("norm", NORMS)
def test_a_claim_that_fails_at_the_input_has_distance_0(norm: str) -> None:
    network, x, _ = case("deep", 2)
    wrong = Specification.label((network.forward(x).argmax(1) + 1) % network.output_size, network.output_size)
    found = checked(network, LeastDistortion(x, wrong, 0.3, norm))
    assert found.status is Status.OPTIMAL and found.bound == found.distance == 0
    # An input outside the clip is not a point: 0.1 is the least step back into it, and the claim fails there too.
    x = torch.full((1, 3), 1.1).double()
    far = Specification.label((network.forward(x.clamp(0, 1)).argmax(1) + 1) % network.output_size, network.output_size)
    clipped = checked(network, LeastDistortion(x, far, 1.0, norm, (0.0, 1.0)))
    assert clipped.distance == pytest.approx({"inf": 0.1, "1": 0.3, "2": 0.1 * 3**0.5}[norm], rel=1e-5)


@pytest.mark.parametrize("k", [-30, -17, 17, 30])
@pytest.mark.parametrize("norm", NORMS)
def test_powers_of_two_between_layers_change_nothing(norm: str, k: int) -> None:
    network, x, spec = case("deep", 3)
    expected = LeastDistortion(x, spec, RADII[norm], norm)(network)
    for layer in (0, 1, 2):
        found = checked(rescaled(network, layer, k), LeastDistortion(x, spec, RADII[norm], norm))
        assert found.status is Status.OPTIMAL
        assert found.distance == pytest.approx(expected.distance, rel=ERROR[norm])
        assert found.bound == pytest.approx(expected.bound, rel=ERROR[norm])


def test_rows_that_lps_prove_get_no_milp() -> None:
    network, x, spec = case("deep", 3)
    near = checked(network, LeastDistortion(x, spec, 1e-3))
    assert near.status is Status.INFEASIBLE and near.bound == 1e-3 and near.stats["milp_rows"] == 0
    assert LeastDistortion(x, spec, 0.4)(network).stats["milp_rows"] > 0


@pytest.mark.parametrize("norm", NORMS)
def test_without_time_nothing_is_claimed(norm: str) -> None:
    network, x, spec = case("conv", 2)
    found = checked(network, LeastDistortion(x, spec, RADII[norm], norm, seconds=0.0))
    assert found.status is Status.LIMIT and found.bound == 0 and found.point is None


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_another_interface_says_the_same(norm: str) -> None:
    network, x, spec = case("deep", 4)
    task = LeastDistortion(x, spec, RADII[norm], norm, (0.1, 0.9))
    other = checked(network, replace(task, backend=CvxpyBackend()))
    assert other.distance == pytest.approx(task(network).distance, rel=ERROR[norm])


def test_a_worker_says_the_same() -> None:
    network, x, spec = case("deep", 4)
    tasks = [LeastDistortion(x, spec, RADII[norm], norm) for norm in NORMS]
    with Session(network, Settings("0.1", workers=1)) as session:
        for task, there in zip(tasks, session.run(tasks, 60.0), strict=True):
            assert isinstance(there, Distortion)
            assert there.distance == task(network).distance


SLOW = pytest.mark.slow


@pytest.mark.shared
@pytest.mark.parametrize("image", [492, *(pytest.param(i, marks=SLOW) for i in (8, 92, 241, 444, 448))])
def test_published_distances(shared_data: Path, image: int) -> None:
    """MIPVerify's least distances on WK17a: the least that any run proved, which other runs exceed by the spread."""
    with (shared_data / "reference/wk17a_mipverify_samples.csv").open() as file:
        line = next(line for line in csv.DictReader(file) if line["mnist_test_index"] == str(image))
    published, spread = float(line["min_linf_distance"]), float(line["min_distance_spread"])
    network = load_model(shared_data / "torch/mipverify/WK17a_linf0.1.pth", arch="small").to(torch.float64)
    data = load_data("mnist", data_dir=shared_data / "datasets/mnist")
    assert data.y is not None and data.y[image] == int(line["label"])
    x = torch.as_tensor(data.x[image]).double().flatten()[None]
    spec = Specification.label(torch.as_tensor(data.y[image : image + 1]), 10)
    found = checked(network, LeastDistortion(x, spec, 1.02 * published, "inf", (0.0, 1.0)))
    assert found.status is Status.OPTIMAL
    assert found.bound == pytest.approx(published, abs=spread + 1e-8)
    assert found.distance == pytest.approx(published, abs=spread + 1e-8)


@dataclass(frozen=True)
class Lying(AbstractBackend):
    """HiGHS, whose answers to MILPs are changed."""

    name: ClassVar[str] = "lying"
    lie: Callable[[Solution], Solution] = lambda found: found

    def start(self, program: Program) -> AbstractSession:
        return LyingSession(HighsBackend().start(program), self.lie if program.is_mip else lambda found: found)


class LyingSession(AbstractSession):
    def __init__(self, session: AbstractSession, lie: Callable[[Solution], Solution]) -> None:
        self.session, self.lie = session, lie

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        return self.lie(self.session.minimise(objective, offset, time_limit=time_limit, stop_at=stop_at))


LIES: dict[str, Callable[[Solution], Solution]] = {
    "infeasible": lambda found: Solution(Status.INFEASIBLE),
    "failed": lambda found: Solution(Status.FAILED, message="broken"),
    "unbounded": lambda found: Solution(Status.UNBOUNDED),
    "high bound": lambda found: replace(found, bound=1e9),
    "no bound": lambda found: replace(found, bound=-math.inf),
    "NaN bound": lambda found: replace(found, bound=math.nan),
    "NaN point": lambda found: replace(found, x=None if found.x is None else np.full_like(found.x, np.nan)),
    "point elsewhere": lambda found: replace(found, x=None if found.x is None else found.x * 0 + 0.5),
}


# Without a bound the tangents of l2 go on to their last round.
@pytest.mark.parametrize(
    ("lie", "norm"), [(lie, norm) for lie in LIES for norm in NORMS if norm != "2" or "bound" not in lie]
)
def test_whatever_a_solver_says_the_answer_is_in_range(lie: str, norm: str) -> None:
    """Only a claim, but never above the radius or the point that it comes with, and never NaN."""
    network, x, spec = case("deep", 3)
    found = LeastDistortion(x, spec, RADII[norm], norm, backend=Lying(lie=LIES[lie]))(network)
    assert 0 <= found.bound <= RADII[norm] and found.bound <= found.distance
    if lie in ("failed", "unbounded"):
        assert found.status is Status.FAILED and found.bound == 0 and found.point is None
    if lie == "infeasible":
        assert found.status is Status.INFEASIBLE and found.point is None
