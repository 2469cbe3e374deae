"""The exact side of a witness: integer evaluation against fractions, membership, and points moved inside."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_networks import dense_network, mnist_conv_network, random_network
from torch import Tensor

from lpverify.attack import attack
from lpverify.attack.exact import exact_margins, inside, into_exact_box, into_intervals, make_counterexample
from lpverify.attack.membership import inside_intervals
from lpverify.data import load_data
from lpverify.errors import DataError, ModelError, ShapeError, UsageError
from lpverify.linear import Conv2d, Dense, Diagonal, Sparse
from lpverify.network import Affine, Input, Network, ReLU, as_numpy
from lpverify.problem import NORMS, Specification, ball

CLIPS = (None, ("0", "1"))


def by_fractions(network: Network, x: np.ndarray, C: np.ndarray, d: np.ndarray) -> list[Fraction]:
    """C f(x) + d by the definition: one fraction at a time, from the maps' sparse matrices."""
    values: list[list[Fraction]] = [[Fraction(float(v)) for v in x]]
    for node in network.nodes[1:]:
        if isinstance(node, ReLU):
            values.append([max(v, Fraction(0)) for v in values[node.input]])
        elif isinstance(node, Affine):
            total = [Fraction(float(b)) for b in node.bias]
            for source, linear in zip(node.inputs, node.maps, strict=True):
                for i, j, w in zip(*_entries(linear.matrix()), strict=True):
                    total[i] += Fraction(float(w)) * values[source][j]
            values.append(total)
    return [
        sum((Fraction(float(w)) * v for w, v in zip(row, values[-1], strict=True)), Fraction(float(shift)))
        for row, shift in zip(C, d, strict=True)
    ]


def _entries(matrix: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    coo = matrix.tocoo()  # type: ignore[attr-defined]
    return coo.row, coo.col, coo.data


FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda v: abs(v) < 1e150)


@given(st.lists(FLOATS, min_size=6, max_size=6), st.lists(FLOATS, min_size=2, max_size=2), st.integers(0, 10**6))
@settings(deadline=None, max_examples=150)
def test_any_floats_are_evaluated_exactly(weights: list[float], x: list[float], seed: int) -> None:
    first = torch.tensor(weights, dtype=torch.float64).reshape(3, 2)
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp2(torch.randint(-60, 60, (3,), generator=generator).double())
    network = dense_network(
        (first, torch.randn(3, generator=generator, dtype=torch.float64)),
        (torch.randn(3, 3, generator=generator, dtype=torch.float64) * scale, torch.zeros(3, dtype=torch.float64)),
        (torch.randn(2, 3, generator=generator, dtype=torch.float64), torch.ones(2, dtype=torch.float64)),
    )
    C, d = np.array([[1.0, -1.0], [0.1, 1e-30]]), np.array([0.0, 5e-324])
    assert exact_margins(network, np.array(x), C, d) == by_fractions(network, np.array(x), C, d)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [((1, 1), (0, 0, 0, 0), (1, 1), 1), ((2, 1), (1, 0, 2, 1), (1, 1), 2), ((1, 2), (2, 2, 1, 1), (2, 2), 1)],
)
def test_a_graph_of_every_map_is_evaluated_exactly(
    stride: tuple[int, int], padding: tuple[int, int, int, int], dilation: tuple[int, int], groups: int
) -> None:
    rng = torch.Generator().manual_seed(0)
    conv = Conv2d(torch.randn(4, 2 // groups, 3, 2, generator=rng), (2, 6, 5), stride, padding, dilation, groups)
    n = conv.out_size
    swap = Sparse(torch.arange(n), torch.arange(n).flip(0), torch.randn(n, generator=rng), (n,), (n,))
    network = Network((
        Input((2, 6, 5)),
        Affine((0,), (conv,), torch.randn(n, generator=rng), conv.out_shape),
        ReLU(1),
        Affine((1, 2, 2), (Diagonal(torch.randn(n, generator=rng), (n,)), swap, Diagonal(torch.ones(n), (n,))),
               torch.zeros(n), (n,)),
        Affine((), (), torch.randn(3, generator=rng), (3,)),
        Affine((3, 4), (Dense(torch.randn(3, n, generator=rng)), Diagonal(torch.ones(3), (3,))), torch.zeros(3), (3,)),
    ))  # fmt: skip
    x = torch.randn(60, generator=rng).numpy()
    C, d = np.eye(3), np.zeros(3)
    got = exact_margins(network, x, C, d)
    assert got == by_fractions(network, x, C, d)
    forward = network.to(torch.float64).forward(torch.from_numpy(x).double().unsqueeze(0))[0]
    assert np.allclose([float(v) for v in got], forward.numpy(), atol=1e-10)


def path_absorber(width: int, kappa: float, margin: float) -> Network:
    """margin - kappa * (a1 + a2 - a3) with a1 = a3 = 2^width x along two layers and a2 = x: margin - kappa x."""
    up, low = 2.0 ** (width // 2), 2.0 ** (width - width // 2)
    column = torch.tensor([[up], [1.0], [up]], dtype=torch.float64)
    return dense_network(
        (column, torch.zeros(3, dtype=torch.float64)),
        (torch.diag(torch.tensor([low, 1.0, low], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64)),
        (-kappa * torch.tensor([[1.0, 1.0, -1.0]], dtype=torch.float64), torch.tensor([margin], dtype=torch.float64)),
    )


@pytest.mark.parametrize("width", [4, 26, 54, 60, 120, 900])
def test_cancellation_that_float64_loses_is_exact(width: int) -> None:
    network = path_absorber(width, 3.0, 2.0)
    x, C, d = np.array([1.0]), np.ones((1, 1)), np.zeros(1)
    assert exact_margins(network, x, C, d) == [Fraction(-1)]
    found = make_counterexample(network, network.to(torch.float32), x, C, d)
    assert found is not None and found.margin == -1.0 and found.row == 0
    if width >= 54:
        assert float(network.forward(torch.ones(1, 1, dtype=torch.float64))) != -1.0
        assert not found.agrees


def test_a_witness_names_its_least_row_and_a_tie_is_one() -> None:
    network = dense_network((torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)))
    spec = Specification.label(torch.tensor([1]), 3)
    C, d = spec.C[0].numpy(), spec.d[0].numpy()

    def at(*x: float) -> object:
        return make_counterexample(network, network.to(torch.float32), np.array(x), C, d, misclassified=True)

    assert at(0.0, 1.0, 0.5) is None
    assert at(1.0 - 2**-53, 1.0, 0.5) is None
    tie = at(0.5, 1.0, 1.0)
    assert tie is not None and (tie.row, tie.margin, tie.margin_float32, tie.agrees) == (1, 0.0, 0.0, True)
    worse = at(3.0, 1.0, 2.0)
    assert worse is not None and (worse.row, worse.margin, worse.misclassified) == (0, -2.0, True)


def test_margins_beyond_float64_stay_signed() -> None:
    huge = torch.tensor([[-1e308]], dtype=torch.float64)
    network = dense_network((huge, torch.zeros(1, dtype=torch.float64)))
    found = make_counterexample(network, network.to(torch.float32), np.array([100.0]), np.ones((1, 1)), np.zeros(1))
    assert found is not None and found.margin == -math.inf


def test_bad_points_and_weights_are_refused() -> None:
    network = random_network(0, (3, 4, 2))
    C, d = np.eye(2), np.zeros(2)
    for error, x, claim in (
        (ShapeError, np.zeros(4), C), (DataError, np.array([0, np.nan, 0]), C), (ShapeError, np.zeros(3), np.eye(3)),
        (DataError, np.zeros(3), np.full((2, 2), np.inf)),
    ):  # fmt: skip
        with pytest.raises(error):
            exact_margins(network, x, claim, d)
    broken = dense_network((torch.tensor([[math.inf, 0.0]]), torch.zeros(1)))
    with pytest.raises(ModelError, match="node 1"):
        exact_margins(broken, np.zeros(2), np.eye(1), np.zeros(1))


coordinate = st.one_of(st.floats(-1, 2, width=32), st.floats(-1, 2), st.sampled_from([0.1, 0.3, 1e-9, 5e-324]))
decimal = st.one_of(
    st.sampled_from(["0", "0.1", "0.3", "1e-9", "2", "0.0000000000000000001", "1e-30"]),
    st.decimals(0, 2, places=6, allow_nan=False).map(str),
)


@given(
    st.lists(st.tuples(coordinate, st.floats(-5, 5)), min_size=1, max_size=8),
    decimal, st.sampled_from(NORMS), st.sampled_from(CLIPS), st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(deadline=None, max_examples=400)
def test_moved_points_are_inside_exactly(
    pairs: list[tuple[float, float]], eps: str, norm: str, clip: tuple[str, str] | None, dtype: type
) -> None:
    center = np.array([p[0] for p in pairs], dtype=dtype)
    x = np.array([p[1] for p in pairs])
    if clip is not None:
        assume(bool(((center >= 0) & (center <= 1)).all()))
    moved = into_exact_box(x, center, eps, norm, clip)
    assert moved is not None
    assert inside(moved, center, eps, norm, clip) and moved.dtype == np.float64
    assert np.array_equal(moved, moved.astype(dtype).astype(np.float64))
    # Independently of the code under test: the definition, in fractions.
    offsets = [Fraction(float(a)) - Fraction(float(c)) for a, c in zip(moved, center, strict=True)]
    radius = Fraction(eps)
    length = {"inf": max(abs(o) for o in offsets), "1": sum(abs(o) for o in offsets)}.get(norm)
    assert (sum(o * o for o in offsets) <= radius**2) if length is None else (length <= radius)
    if clip is not None:
        assert all(0 <= v <= 1 for v in moved)
    # A point that is inside on the grid stays where it is.
    assert np.array_equal(into_exact_box(moved, center, eps, norm, clip), moved)
    if norm == "inf" and clip is None:
        # No float of the grid between the moved point and where it wanted to go is inside.
        further = np.nextafter(moved.astype(dtype), np.where(x > moved, np.inf, -np.inf).astype(dtype))
        for value, wish, c, v in zip(moved, x.astype(dtype), center, further, strict=True):
            assert value == wish or abs(Fraction(float(v)) - Fraction(float(c))) > radius


def test_l2_and_l1_points_lose_almost_nothing() -> None:
    rng = np.random.default_rng(0)
    center = rng.random(784).astype(np.float32)
    for norm, order in (("2", 2), ("1", 1)):
        far = center + rng.standard_normal(784)
        moved = into_exact_box(far, center, "1.5", norm)
        assert moved is not None
        length = np.linalg.norm(moved - center, ord=order)
        assert 1.5 - 2e-4 < length <= 1.5


def test_the_decimal_radius_is_not_its_float() -> None:
    center, tenth = np.array([0.0]), np.array([0.1])
    assert Fraction(0.1) > Fraction(1, 10)
    assert not inside(tenth, center, "0.1")
    moved = into_exact_box(tenth, center, "0.1")
    assert moved is not None and moved[0] == np.nextafter(0.1, 0)
    assert not inside(np.array([1.0 + 2**-52]), np.array([1.0]), "0.1", "inf", ("0", "1"))
    # The interval [0.1 - 1/10, ...] begins at 5.55e-18, where floats lie far closer than the rounding of 0.1 - 0.1.
    edge = into_exact_box(np.array([-1.0]), tenth, "0.1")
    assert edge is not None and 0 <= Fraction(edge[0]) - (Fraction(0.1) - Fraction(1, 10)) < Fraction(1, 2**105)
    assert not inside(np.array([np.nan]), center, "1") and not inside(np.array([np.inf]), center, "1")


def test_a_center_outside_the_clip_and_empty_sets() -> None:
    center = np.array([1.05, 0.5], dtype=np.float32)
    for norm in NORMS:
        moved = into_exact_box(np.array([2.0, 2.0]), center, "0.1", norm, ("0", "1"))
        assert moved is not None and inside(moved, center, "0.1", norm, ("0", "1")) and moved[0] <= 1
    with pytest.raises(DataError, match="input 0"):
        into_exact_box(center, center, "0.01", "inf", ("0", "1"))
    # Two coordinates that are each within reach of the clip, but not both in l1: the set is empty.
    assert into_exact_box(np.ones(2), np.array([1.08, 1.08]), "0.1", "1", ("0", "1")) is None
    # 0.1 is no float: the interval [0.1, 0.1] holds none.
    tenth = Fraction(1, 10)
    assert into_intervals(np.array([0.1]), [(tenth, tenth)]) is None
    assert not inside_intervals(np.array([0.1]), [(tenth, tenth)])
    assert into_intervals(np.array([np.nan, 1e300]), [(tenth, 1 + tenth)] * 2, np.float32) is not None


@pytest.mark.parametrize("eps", ["-0.1", "nan", "inf", "0,1", "", "1e99999999"])
def test_a_radius_that_is_no_decimal_is_refused(eps: str) -> None:
    with pytest.raises(UsageError):
        into_exact_box(np.zeros(2), np.zeros(2), eps)


def test_unknown_norms_and_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="input 1"):
        into_exact_box(np.zeros(2), np.array([0, np.nan]), "0.1")
    with pytest.raises(UsageError, match="norm"):
        inside(np.zeros(2), np.zeros(2), "0.1", "3")
    with pytest.raises(ShapeError):
        inside(np.zeros(2), np.zeros(3), "0.1")
    with pytest.raises(ShapeError):
        into_exact_box(np.zeros(2), np.zeros(3), "0.1")


@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.sampled_from(CLIPS), st.sampled_from(["0.1", "0.35", "1"]))
@settings(deadline=None, max_examples=60)
def test_every_point_of_an_attack_becomes_an_exact_witness_or_none(
    seed: int, norm: str, clip: tuple[str, str] | None, eps: str
) -> None:
    network = random_network(seed, (6, 10, 8, 3), torch.float32)
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed))
    spec = Specification.label(network.forward(x).argmax(1), 3, torch.float32)
    bounds = None if clip is None else (float(clip[0]), float(clip[1]))
    found = attack(network, ball(x, float(eps), norm, bounds), spec, start=x, steps=8)
    for i in range(len(x)):
        center = as_numpy(x[i])
        moved = into_exact_box(as_numpy(found.points[i]), center, eps, norm, clip)
        assert moved is not None and inside(moved, center, eps, norm, clip)
        witness = make_counterexample(network, network, moved, as_numpy(spec.C[i]), as_numpy(spec.d[i]))
        # Moving a point by an ulp shifts its margin by rounding only.
        if abs(float(found.margins[i])) > 1e-4:
            assert (witness is not None) == bool(found.falsified[i])
        if witness is not None:
            margins = by_fractions(network, moved, as_numpy(spec.C[i]), as_numpy(spec.d[i]))
            assert witness.margin == float(min(margins)) <= 0 and margins[witness.row] == min(margins)


@pytest.mark.shared
def test_the_mnist_convolution_takes_well_under_two_seconds(shared_data: Path) -> None:
    network = mnist_conv_network(shared_data / "torch" / "convex_adversarial" / "mnist.pth")
    data = load_data("mnist", data_dir=shared_data / "datasets" / "mnist")
    x: Tensor = torch.from_numpy(data.x[:3]).flatten(1)
    spec = Specification.label(torch.from_numpy(data.y[:3]), 10)
    wide = network.to(torch.float64)
    forward = spec.margins(wide.forward(x.double()))
    for i in range(3):
        begin = time.perf_counter()
        margins = exact_margins(network, as_numpy(x[i]), as_numpy(spec.C[i]), as_numpy(spec.d[i]))
        assert time.perf_counter() - begin < 2
        assert np.allclose([float(m) for m in margins], as_numpy(forward[i]), atol=1e-11, rtol=0)
