"""Encodings: forward points are feasible, optima are right, sizes are as documented, duals are the multipliers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import hand_made
import numpy as np
import pytest
import torch
from networks import CLASSES, NETWORKS, TINY, Array, Clip, enumerate_minimum, permuted, rescaled, samples
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from small_networks import random_network
from torch import Tensor

from lpverify.backends.base import Status, dual_bound
from lpverify.backends.cvxpy import CvxpyBackend
from lpverify.backends.highs import HighsBackend
from lpverify.bounds.root import root_bounds
from lpverify.encode import Encoder, encode
from lpverify.errors import ProgramError, UsageError
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU, as_numpy
from lpverify.problem import Ball, Box, LayerBounds, Region, Specification, ball
from lpverify.program import Program

RADII = {"inf": 0.2, "2": 0.4, "1": 0.7}
REGIONS: dict[str, tuple[str, Clip, float]] = {
    # Norm, clip, and how far the first coordinate of the center is moved.
    "box": ("inf", None, 0.0),
    "clipped-box": ("inf", (0.0, 1.0), 0.0),
    "l1": ("1", None, 0.0),
    "clipped-l1": ("1", (0.0, 1.0), 0.0),
    "l1-center-outside": ("1", (0.0, 1.0), 0.3),
    "l2": ("2", None, 0.0),
    "clipped-l2": ("2", (0.0, 1.0), 0.0),
}
# Their MILPs would take seconds each on the whole radius.
LARGE = ("conv", "uneven-conv", "residual", "uneven-residual")
LINEAR = [name for name in REGIONS if "l2" not in name]
ALL_NETWORKS: dict[str, Callable[[int], Network]] = {
    **NETWORKS, "random": lambda seed: random_network(seed, (4, 8, 6, CLASSES)),
}  # fmt: skip
# The solver's feasibility tolerance is 1e-7 for LPs and 1e-6 for MILPs, each times duals and big-M below 10.
LP_ERROR, MILP_ERROR = 1e-6, 1e-5


def case(
    name: str, where: str, eps: float | None = None
) -> tuple[Network, Region, Specification, dict[int, LayerBounds]]:
    """A float64 network, the region of one example, the predicted class as claim, and CROWN's layer bounds."""
    network = ALL_NETWORKS[name](7).to(torch.float64)
    norm, clip, moved = REGIONS[where]
    x = torch.rand(1, network.input_size, generator=torch.Generator().manual_seed(3)).double()
    spec = Specification.label(network.forward(x).argmax(1), CLASSES)
    if moved:
        x[0, 0] = 1 + moved
    radius = RADII[norm] / (2 if name in LARGE else 1)
    region = ball(x, radius if eps is None else eps, norm, clip)
    return network, region, spec, layer_bounds(network, region)


def layer_bounds(network: Network, region: Region) -> dict[int, LayerBounds]:
    return root_bounds(network, region, "crown").layers


def points(region: Region, count: int, seed: int = 1) -> Tensor:
    """Points of the region of one example, (count, n_0); ``samples`` may leave a ball whose center is clipped away."""
    x = samples(region, 20 * count, seed)[:, 0]
    if isinstance(region, Ball):
        away = torch.linalg.vector_norm(x - region.point, ord=float(region.norm), dim=-1)
        x = x[away <= region.eps * (1 + 1e-12)]
    assert len(x) >= count
    return x[:: len(x) // count][:count]


def column_values(network: Network, region: Region, program: Program, x: Tensor) -> Array:
    """The program's point that belongs to an input x (n_0,), column by column by its name."""
    values = [as_numpy(v[0]) for v in network.values(x[None])]
    center = as_numpy(region.point[0]) if isinstance(region, Ball) else np.zeros(network.input_size)

    def value(name: str) -> float:
        kind, *where = name.split("_")
        if kind == "x":
            return float(values[0][int(where[0])])
        if kind in "ab":
            i = int(where[0])
            return max(0.0, float(values[0][i] - center[i]) * (1 if kind == "a" else -1))
        z = float(values[network.sources(int(where[0]))[0]][int(where[1])])
        return {"h": max(z, 0.0), "p": max(-z, 0.0), "d": float(z > 0)}[kind]

    return np.array([value(name) for name in program.column_names])


def objective_program(encoder: Encoder, spec: Specification, row: int) -> Program:
    """The encoder's program with a row of the claim as its objective."""
    objectives, offsets = encoder.rows(len(encoder.network.nodes) - 1, as_numpy(spec.C[0]))
    return encoder.program().with_objective(objectives[row], float(offsets[row] + spec.d[0, row]))


def solve(program: Program) -> tuple[float, Array]:
    """The optimum of an LP or MILP without a cone by scipy, independent of the package's backends."""
    assert program.cone is None
    rows = [LinearConstraint(program.A, program.row_lower, program.row_upper)] if program.num_rows else []
    options = {"mip_rel_gap": 0.0} if program.is_mip else {}
    solved = milp(
        program.objective, constraints=rows, bounds=Bounds(program.lower, program.upper),
        integrality=program.integer.astype(int), options=options,
    )  # fmt: skip
    assert solved.status == 0, solved.message
    return program.value(solved.x), solved.x


def row_duals(program: Program) -> tuple[float, Array]:
    """The optimum of an LP and the duals of its rows, >= 0 where held from below."""
    equal = program.row_lower == program.row_upper
    assert np.isneginf(program.row_lower[~equal]).all()
    options: dict[str, Any] = {}
    if equal.any():
        options |= {"A_eq": program.A[equal], "b_eq": program.row_upper[equal]}
    if (~equal).any():
        options |= {"A_ub": program.A[~equal], "b_ub": program.row_upper[~equal]}
    bounds = np.stack([program.lower, program.upper], axis=1)
    solved = linprog(program.objective, bounds=bounds, method="highs", **options)
    assert solved.status == 0, solved.message
    duals = np.zeros(program.num_rows)
    duals[equal], duals[~equal] = solved.eqlin.marginals, solved.ineqlin.marginals
    return float(solved.fun) + program.offset, duals


def least_over(region: Region, w: Array) -> float:
    """The least w . x over the region of one example: where an l1 ball is clipped, over the intersection."""
    lower, upper = as_numpy(region.lower[0]), as_numpy(region.upper[0])
    if isinstance(region, Box):
        return float(np.where(w > 0, lower, upper) @ w)
    # From the point nearest to the center, spend what is left of eps where w.x falls most steeply.
    if region.norm == "2":
        return float(w @ as_numpy(region.point[0]) - float(region.eps[0]) * np.linalg.norm(w))
    center, left = as_numpy(region.point[0]), float(region.eps[0])
    x = np.clip(center, lower, upper)
    left -= float(np.abs(x - center).sum())
    for i in np.argsort(-np.abs(w)):
        room = x[i] - lower[i] if w[i] > 0 else upper[i] - x[i]
        step = min(room, max(left, 0.0))
        x[i] -= math.copysign(step, w[i])
        left -= step
    return float(w @ x)


def certificate_bound(
    network: Network, region: Region, layers: dict[int, LayerBounds], v: dict[int, Array], c: Array, d: float
) -> float:
    """The certificate's bound B(v) of c . f(x) + d on any graph, in plain float64.

    d + sum v.b + min w_0.x + sum phi(w, v; l, u), phi = min over z in {l, u} and, if l < 0 < u, 0 of
    w max(z, 0) - v z; v = w at active neurons and 0 at inactive ones.
    """
    rows = {k: np.zeros(n) for k, n in enumerate(network.sizes)}
    rows[len(network.nodes) - 1] = c.copy()
    total = d
    for index in range(len(network.nodes) - 1, 0, -1):
        node, w = network.nodes[index], rows[index]
        if isinstance(node, Affine):
            total += float(w @ as_numpy(node.bias))
            for source, linear in zip(node.inputs, node.maps, strict=True):
                rows[source] += linear.matrix().T @ w
        elif isinstance(node, ReLU):
            lower, upper = (as_numpy(t[0]) for t in (layers[index].lower, layers[index].upper))
            unstable = (lower < 0) & (upper > 0)
            passed = np.where(unstable, v[index], np.where(lower >= 0, w, 0.0))
            below, above = -passed * lower, (w - passed) * upper
            total += float(np.minimum(np.minimum(below, above), 0.0)[unstable].sum())
            rows[node.input] += passed
    return total + least_over(region, rows[0])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("where", REGIONS)
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_forward_points_are_feasible_and_have_the_networks_values(name: str, where: str, exact: bool) -> None:
    network, region, spec, layers = case(name, where)
    encoder = encode(network, region, layers, milp=exact)
    program = encoder.program()
    objectives, offsets = encoder.rows(len(network.nodes) - 1, as_numpy(spec.C[0]))
    for x in points(region, 40):
        column = column_values(network, region, program, x)
        assert program.violation(column) <= 1e-12
        forward = network.values(x[None])
        for got, expected in zip(encoder.values(column), forward, strict=True):
            np.testing.assert_allclose(got, as_numpy(expected[0]), atol=1e-12, rtol=0)
        margins = as_numpy(spec.margins(forward[-1])[0])
        np.testing.assert_allclose(objectives @ column + offsets + as_numpy(spec.d[0]), margins, atol=1e-12, rtol=0)
        for unit in range(network.output_size):
            objective, offset = encoder.unit(len(network.nodes) - 1, unit)
            assert objective @ column + offset == pytest.approx(float(forward[-1][0, unit]), abs=1e-12)


@pytest.mark.parametrize("where", LINEAR)
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_milp_optimum_is_attained_by_the_network_and_no_relaxation_is_above_it(name: str, where: str) -> None:
    """Attained by the network, so not below its minimum; not above it, as every forward point is feasible."""
    network, region, spec, layers = case(name, where)
    relaxed, exact = encode(network, region, layers), encode(network, region, layers, milp=True)
    least = spec.margins(network.forward(points(region, 500))).amin(0)
    for row in range(CLASSES - 1):
        lp, _ = solve(objective_program(relaxed, spec, row))
        program = objective_program(exact, spec, row)
        optimum, column = solve(program)
        x = torch.as_tensor(exact.expressions[0].at(column))[None]
        assert float(spec.margins(network.forward(x))[0, row]) == pytest.approx(optimum, abs=MILP_ERROR)
        assert lp <= optimum + MILP_ERROR
        assert optimum <= float(least[row]) + MILP_ERROR
        assert solve(program.relaxed())[0] == pytest.approx(lp, abs=LP_ERROR)


@pytest.mark.parametrize("where", ["box", "clipped-box"])
@pytest.mark.parametrize("name", TINY)
def test_milp_optimum_is_the_minimum_by_enumeration(name: str, where: str) -> None:
    network, region, spec, layers = case(name, where)
    box = as_numpy(region.lower[0]), as_numpy(region.upper[0])
    for row in range(CLASSES - 1):
        minimum, _ = enumerate_minimum(network, *box, as_numpy(spec.C[0, row]), float(spec.d[0, row]))
        relaxed = objective_program(encode(network, region, layers), spec, row)
        exact = objective_program(encode(network, region, layers, milp=True), spec, row)
        assert solve(relaxed)[0] <= minimum + LP_ERROR
        assert solve(exact)[0] == pytest.approx(minimum, abs=MILP_ERROR)


@pytest.mark.parametrize("where", REGIONS)
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_only_unstable_neurons_have_columns_and_rows(name: str, where: str) -> None:
    network, region, _, layers = case(name, where)
    unstable = sum(int(layer.unstable.sum()) for layer in layers.values())
    if where == "box":
        assert unstable > 0 or name == "affine"
    for exact in (False, True):
        encoder = encode(network, region, layers, milp=exact)
        program = encoder.program()
        named = sum(named_units(program, index, layer) for index, layer in layers.items())
        l1 = "l1" in where
        assert program.num_columns == network.input_size * (2 if l1 else 1) + unstable * (3 if exact else 2) + named
        assert program.num_rows == int(l1) + unstable * (3 if exact else 2) + named
        assert int(program.integer.sum()) == (unstable if exact else 0)
        assert len(set(program.column_names)) == program.num_columns
        assert len(set(program.row_names)) == program.num_rows
        assert (program.cone is not None) == ("l2" in where)
        for index, neurons in encoder.neurons.items():
            np.testing.assert_array_equal(neurons.units, as_numpy(layers[index].unstable[0]).nonzero()[0])
            for i, unit in enumerate(neurons.units):
                assert program.column_names[neurons.first_column + i] == f"h_{index}_{unit}"
                assert program.row_names[neurons.first_row + i] == f"z_{index}_{unit}"


def named_units(program: Program, index: int, layer: LayerBounds) -> int:
    """How many active neurons of a ReLU have a column and a row of their own: all of them or none."""
    active = as_numpy(layer.active[0]).nonzero()[0]
    with_column = [f"h_{index}_{unit}" in program.column_names for unit in active]
    assert with_column == [f"z_{index}_{unit}" in program.row_names for unit in active]
    assert all(with_column) or not any(with_column)
    return sum(with_column)


@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_a_point_has_no_rows_and_its_margin_as_optimum(name: str) -> None:
    for where in LINEAR[:4]:
        network, region, spec, layers = case(name, where, eps=0.0)
        x = region.lower
        for exact in (False, True):
            encoder = encode(network, region, layers, milp=exact)
            assert encoder.program().num_rows == int("l1" in where)
            for row in range(CLASSES - 1):
                expected = float(spec.margins(network.forward(x))[0, row])
                assert solve(objective_program(encoder, spec, row))[0] == pytest.approx(expected, abs=1e-12)


def test_an_l2_cone_is_the_ball_itself() -> None:
    """One affine map: the least c.x over the ball is c.center - eps |c|, at center - eps c / |c|."""
    network, region, spec, layers = case("affine", "l2")
    assert isinstance(region, Ball)
    program = objective_program(encode(network, region, layers), spec, 0)
    cone = program.cone
    assert cone is not None and program.num_rows == 0
    np.testing.assert_array_equal(cone.columns, np.arange(network.input_size))
    step = program.objective / np.linalg.norm(program.objective)
    best = cone.center - cone.radius * step
    least, _ = region.extremes(torch.as_tensor(program.objective)[None, None])
    assert program.violation(best) <= 1e-12
    assert program.violation(best - 0.01 * step) >= 0.009
    assert program.value(best) == pytest.approx(float(least) + program.offset, abs=1e-12)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("name", "where", "eps"),
    [("conv", "box", 0.2), ("residual", "clipped-l1", 0.7), ("shared-affine", "clipped-l1", 0.7)],
)
def test_active_neurons_with_columns_of_their_own_change_nothing(
    name: str, where: str, eps: float, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, region, spec, layers = case(name, where, eps)
    named = encode(network, region, layers, milp=exact)
    monkeypatch.setattr(Encoder, "_named", lambda self, index, z, *rest: z)
    substituted = encode(network, region, layers, milp=exact)
    sizes = [encoder.program().num_columns for encoder in (named, substituted)]
    assert sizes[0] > sizes[1]
    for row in range(CLASSES - 1):
        one, two = (solve(objective_program(encoder, spec, row))[0] for encoder in (named, substituted))
        assert two == pytest.approx(one, abs=MILP_ERROR if exact else LP_ERROR)


def assert_multipliers_reproduce(
    encoder: Encoder, region: Region, layers: dict[int, LayerBounds], spec: Specification, row: int, optimum: float,
    duals: Array,
) -> None:  # fmt: skip
    program = objective_program(encoder, spec, row)
    assert dual_bound(program, duals) == pytest.approx(optimum, abs=1e-6)
    multipliers = encoder.multipliers(duals)
    assert sorted(multipliers) == list(encoder.network.relus)
    for index, v in multipliers.items():
        assert v.shape == (encoder.network.sizes[index],)
        assert not v[~as_numpy(layers[index].unstable[0])].any()
    c, d = as_numpy(spec.C[0, row]), float(spec.d[0, row])
    bound = certificate_bound(encoder.network, region, layers, multipliers, c, d)
    assert bound == pytest.approx(optimum, abs=1e-6)


@pytest.mark.parametrize("where", LINEAR)
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_row_duals_are_multipliers_that_prove_the_optimum(name: str, where: str) -> None:
    network, region, spec, layers = case(name, where)
    encoder = encode(network, region, layers)
    noise = np.random.default_rng(0)
    for row in range(CLASSES - 1):
        optimum, duals = row_duals(objective_program(encoder, spec, row))
        assert_multipliers_reproduce(encoder, region, layers, spec, row, optimum, duals)
        # No other multipliers prove more: the LP's optimum is the best of all.
        c, d = as_numpy(spec.C[0, row]), float(spec.d[0, row])
        other = encoder.multipliers(duals + noise.normal(size=len(duals)) * 0.1)
        assert certificate_bound(network, region, layers, other, c, d) <= optimum + 1e-6


@pytest.mark.parametrize("where", LINEAR)
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_a_hot_started_backend_gives_the_same_optima_and_multipliers(name: str, where: str) -> None:
    network, region, spec, layers = case(name, where)
    encoder = encode(network, region, layers)
    session = HighsBackend().open(encoder.program())
    for row in range(CLASSES - 1):
        program = objective_program(encoder, spec, row)
        found = session.minimise(program.objective, program.offset)
        assert found.status is Status.OPTIMAL and found.row_duals is not None
        assert found.bound == pytest.approx(solve(program)[0], abs=LP_ERROR)
        assert_multipliers_reproduce(encoder, region, layers, spec, row, found.bound, found.row_duals)


@pytest.mark.parametrize("k", [-40, -17, 17, 40])
@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_a_backend_is_not_misled_by_a_rescaled_layer(name: str, k: int) -> None:
    network, region, spec, layers = case(name, "clipped-box")
    encoder = encode(network, region, layers)
    other = rescaled(network, 0, k)
    moved = encode(other, region, layer_bounds(other, region))
    session = HighsBackend().open(moved.program())
    for row in range(CLASSES - 1):
        expected, program = solve(objective_program(encoder, spec, row))[0], objective_program(moved, spec, row)
        assert session.minimise(program.objective, program.offset).bound == pytest.approx(expected, abs=LP_ERROR)


@pytest.mark.parametrize("name", ["affine", "dense", "residual", "input-relu", "shared-affine"])
def test_an_l2_program_through_a_conic_solver(name: str) -> None:
    network, region, spec, layers = case(name, "l2")
    encoder = encode(network, region, layers)
    session = CvxpyBackend().open(encoder.program())
    least = spec.margins(network.forward(points(region, 500))).amin(0)
    for row in range(CLASSES - 1):
        program = objective_program(encoder, spec, row)
        found = session.minimise(program.objective, program.offset)
        assert found.status is Status.OPTIMAL and found.x is not None and found.row_duals is not None
        assert program.violation(found.x) <= 1e-6
        assert found.objective == pytest.approx(found.bound, abs=1e-6)
        assert found.bound <= float(least[row]) + 1e-6
        assert_multipliers_reproduce(encoder, region, layers, spec, row, found.bound, found.row_duals)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_growth_layer_by_layer_is_the_encoding_at_once(name: str, exact: bool) -> None:
    network, region, _, layers = case(name, "clipped-box")
    whole = encode(network, region, layers, milp=exact).program()
    encoder = Encoder(network, region, milp=exact)
    seen = points(region, 200)
    for index in network.relus:
        (source,) = network.sources(index)
        size = network.sizes[source]
        objectives, offsets = encoder.rows(source, np.eye(size))
        program = encoder.program()
        values = as_numpy(network.values(seen)[source])
        for unit in range(0, size, max(1, size // 5)):
            objective, offset = encoder.unit(source, unit)
            np.testing.assert_array_equal(objective, objectives[unit])
            assert offset == offsets[unit]
            least = solve(program.with_objective(objective, offset))[0]
            assert least <= values[:, unit].min() + MILP_ERROR
            # CROWN's bounds are those of a looser relaxation.
            assert least >= float(layers[index].lower[0, unit]) - MILP_ERROR
        encoder.relu(index, as_numpy(layers[index].lower[0]), as_numpy(layers[index].upper[0]))
    encoder.reach(len(network.nodes) - 1)
    assert_same(encoder.program(), whole)


def assert_same(one: Program, two: Program) -> None:
    assert (one.A != two.A).nnz == 0
    for name in ("objective", "row_lower", "row_upper", "lower", "upper", "integer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (one.column_names, one.row_names) == (two.column_names, two.row_names)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_rescaled_and_permuted_networks_have_the_same_optimum(name: str, exact: bool) -> None:
    network, region, spec, layers = case(name, "clipped-box")
    optima = [solve(objective_program(encode(network, region, layers, milp=exact), spec, row))[0] for row in (0, 1)]
    others = [rescaled(network, layer, k) for layer, k in itertools.product((0, 1), (-6, 6))]
    for other in (permuted(network, seed=5), *others):
        encoder = encode(other, region, layer_bounds(other, region), milp=exact)
        for row, optimum in enumerate(optima):
            # An absolute feasibility tolerance weighs 2^6 times as much in a rescaled layer.
            assert solve(objective_program(encoder, spec, row))[0] == pytest.approx(optimum, abs=64 * LP_ERROR)


@pytest.mark.parametrize("k", [-40, -13, 13, 40])
@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_a_rescaled_layer_gives_the_same_program_in_other_units(name: str, k: int) -> None:
    """Powers of two only move exponents: rows "z" and "t" of the layer and its columns are 2^k times as large."""
    network, region, spec, _ = case(name, "clipped-box")
    other = rescaled(network, 0, k)
    first = network.relus[0]
    one, two = (encode(n, region, layer_bounds(n, region)) for n in (network, other))
    for row in range(CLASSES - 1):
        plain, moved = (objective_program(encoder, spec, row) for encoder in (one, two))
        columns = np.array([name.startswith((f"h_{first}_", f"p_{first}_")) for name in plain.column_names])
        rows = np.array([name.startswith(f"z_{first}_") for name in plain.row_names])
        cuts = np.array([name.startswith(f"t_{first}_") for name in plain.row_names])
        unit_c, unit_r = np.where(columns, 2.0**k, 1.0), np.where(rows | cuts, 2.0**-k, 1.0)
        scaled = sparse.diags_array(unit_r) @ moved.A @ sparse.diags_array(unit_c)
        np.testing.assert_array_equal(scaled.toarray(), plain.A.toarray())
        np.testing.assert_array_equal(moved.row_upper * unit_r, plain.row_upper)
        np.testing.assert_array_equal(moved.upper / unit_c, plain.upper)
        np.testing.assert_array_equal(moved.objective * unit_c, plain.objective)
        assert moved.offset == plain.offset


HAND_MADE = {
    # Network and its least value over [0, 1], by algebra.
    "rescaled-line": (hand_made.rescaled_line(20, 3.0), -7.0),
    "absorber": (hand_made.absorber(10, 2.0, 0.5), -1.5),
    "reverse-absorber": (hand_made.reverse_absorber(10, 2.0, 0.5), 0.5),
    "path-absorber": (hand_made.path_absorber(10, 2.0, 0.5), -1.5),
    "plateau": (hand_made.plateau(4, 2.0**-30), -2.0),
    "valley": (hand_made.valley(0.25), -0.25),
    "big-m": (hand_made.big_m(3, 0.5), -0.25),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_networks_with_a_known_minimum(name: str) -> None:
    network, minimum = HAND_MADE[name]
    n = network.input_size
    region = Box(torch.zeros(1, n, dtype=torch.float64), torch.ones(1, n, dtype=torch.float64))
    spec = Specification(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    layers = layer_bounds(network, region)
    for exact in (False, True):
        encoder = encode(network, region, layers, milp=exact)
        program = objective_program(encoder, spec, 0)
        for x in points(region, 20):
            column = column_values(network, region, program, x)
            assert program.violation(column) <= 1e-12 * (1 + np.abs(column).max())
        optimum, _ = solve(program)
        assert optimum == pytest.approx(minimum, abs=1e-6) if exact else optimum <= minimum + 1e-6


def one_neuron() -> Network:
    """relu(2 x - 1) - x over x in [0, 2]: z in [-1, 3]."""
    first, last, skip = (Dense(torch.tensor([[w]], dtype=torch.float64)) for w in (2.0, 1.0, -1.0))
    minus, zero = torch.tensor([-1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    hidden, output = Affine((0,), (first,), minus, (1,)), Affine((2, 0), (last, skip), zero, (1,))
    return Network((Input((1,)), hidden, ReLU(1), output))


def test_one_neuron_by_hand() -> None:
    """Columns x, h, p[, d]; z = 2 x - 1 = h - p, so h - p - 2 x = -1; l = -1, u = 3: h + 3 p <= 3.

    Over 4: h/4 + 3p/4 <= 3/4. The LP's minimum of h - x is at z = 0 (h = p = 0, x = 1/2): -1/2, the true one too.
    """
    region = Box(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64))
    layers = {2: LayerBounds(torch.tensor([[-1.0]]), torch.tensor([[3.0]]))}
    spec = Specification(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    program = objective_program(encode(one_neuron(), region, layers), spec, 0)
    assert program.column_names == ("x_0", "h_2_0", "p_2_0") and program.row_names == ("z_2_0", "t_2_0")
    np.testing.assert_array_equal(program.A.toarray(), [[-2, 1, -1], [0, 0.25, 0.75]])
    np.testing.assert_array_equal(program.row_lower, [-1, -np.inf])
    np.testing.assert_array_equal(program.row_upper, [-1, 0.75])
    np.testing.assert_array_equal([program.lower, program.upper], [[0, 0, 0], [2, 3, 1]])
    np.testing.assert_array_equal(program.objective, [-1, 1, 0])
    exact = objective_program(encode(one_neuron(), region, layers, milp=True), spec, 0)
    assert exact.column_names == ("x_0", "h_2_0", "p_2_0", "d_2_0")
    assert exact.row_names == ("z_2_0", "a_2_0", "b_2_0")
    np.testing.assert_array_equal(exact.A.toarray(), [[-2, 1, -1, 0], [0, 1, 0, -3], [0, 0, 1, 1]])
    np.testing.assert_array_equal(exact.row_upper, [-1, 0, 1])
    np.testing.assert_array_equal(exact.integer, [False, False, False, True])
    for one in (program, exact):
        value, column = solve(one)
        assert value == pytest.approx(-0.5, abs=1e-9) and column[0] == pytest.approx(0.5, abs=1e-9)


def test_a_region_of_two_examples_is_refused() -> None:
    network = NETWORKS["dense"](7).to(torch.float64)
    region = ball(torch.rand(2, network.input_size, dtype=torch.float64), 0.1)
    with pytest.raises(UsageError, match=r"^encode: the region has 2 examples; give one$"):
        Encoder(network, region)


@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_bounds_that_are_not_finite_are_refused(side: str, value: float) -> None:
    """NaN must not count as a stable neuron, whose ReLU would be left out."""
    network, region, _, layers = case("dense", "box")
    broken = {k: LayerBounds(layer.lower.clone(), layer.upper.clone()) for k, layer in layers.items()}
    getattr(broken[network.relus[0]], side)[0, 4] = value
    with pytest.raises(ProgramError, match=f"encode: node {network.relus[0]}, unit 4"):
        encode(network, region, broken)


def test_matrices_are_kept_until_a_parameter_changes_in_place() -> None:
    network = NETWORKS["residual"](7).to(torch.float64)
    for index, node in enumerate(network.nodes):
        if not isinstance(node, Affine):
            continue
        kept = network.matrices(index)
        for matrix, linear in zip(kept, node.maps, strict=True):
            np.testing.assert_array_equal(matrix.toarray(), linear.matrix().toarray())
        assert network.matrices(index) is kept
        for place in range(len(node.maps)):
            before = network.matrices(index)
            tensors: list[Tensor] = []
            node.maps[place].map_tensors(lambda t, into=tensors: into.append(t) or t)  # type: ignore[misc]
            with torch.no_grad():
                tensors[0].mul_(2.0)
            after = network.matrices(index)
            np.testing.assert_array_equal(after[place].toarray(), 2 * before[place].toarray())
            assert network.matrices(index) is after
