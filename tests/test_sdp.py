"""The semidefinite relaxation: between the LP and the true minimum, sound for any multipliers, small networks only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import CLASSES, NETWORKS, Random, chain, dense, enumerate_minimum, samples
from small_networks import dense_network

from lpverify.bounds.crown import CrownBound
from lpverify.bounds.lp import LPBound
from lpverify.bounds.root import root_bounds
from lpverify.bounds.sdp import Lifted, SDPBound
from lpverify.errors import UsageError
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU, as_numpy
from lpverify.problem import Box, Specification, ball


def small_conv(seed: int) -> Network:
    r = Random(seed)
    first = r.conv((1, 2, 3), 2, (2, 2), padding=(0, 1, 0, 0))
    return chain(r, (1, 2, 3), first, r.dense(first.out_size, CLASSES))


CASES: dict[str, Callable[[], Network]] = {
    "dense": lambda: dense(0, 3, 7, CLASSES),
    "one-input": lambda: dense(1, 1, 5, CLASSES),
    "wide": lambda: dense(2, 2, 10, CLASSES),
    "conv": lambda: small_conv(3),
}


def case(name: str, eps: float = 0.3, batch: int = 2) -> tuple[Network, Box, Specification]:
    """A network, boxes of which the second has a fixed input, and label claims about the predicted classes."""
    network = CASES[name]().to(torch.float64)
    x = torch.rand(batch, network.input_size, generator=torch.Generator().manual_seed(3)).double()
    box = ball(x, eps, clip=(0.0, 1.0)).box
    if network.input_size > 1:
        box.upper[1:, 0] = box.lower[1:, 0]
    return network, box, Specification.label(network.forward(x).argmax(1), CLASSES)


@pytest.mark.parametrize("name", CASES)
def test_crown_lp_sdp_and_the_true_minimum_are_in_this_order(name: str) -> None:
    network, box, spec = case(name)
    found = SDPBound().bound(network, box, spec)
    crown, lp = (method.bound(network, box, spec).margins for method in (CrownBound(), LPBound()))
    assert found.stats["failed_solves"] == 0 and found.stats["solves"] == CLASSES - 1
    assert bool((found.margins >= crown - 1e-12).all())
    # Clarabel's relative and absolute gap is 1e-8, and the LP's tolerance 1e-7.
    assert bool((found.margins >= lp - 1e-6).all())
    assert float((found.margins - lp).max()) > 1e-3 or name == "one-input"
    assert found.candidates is not None
    for i, row in np.ndindex(tuple(spec.d.shape)):
        bounds = as_numpy(box.lower[i]), as_numpy(box.upper[i])
        minimum, _ = enumerate_minimum(network, *bounds, as_numpy(spec.C[i, row]), float(spec.d[i, row]))
        assert float(found.margins[i, row]) <= minimum + 1e-9
        point = found.candidates[i, row]
        assert bool((box.lower[i] <= point).all() and (point <= box.upper[i]).all())


def test_two_neurons_by_hand() -> None:
    """m = -relu(x1 + x2) - relu(x1 - x2) on [-1, 1]^2, whose minimum is -2 at x1 = 1.

    LP: h <= (z + 2) / 2 for both, in all h1 + h2 <= x1 + 2: -3. SDP: with vectors for numbers, h.h = h.z puts h on the
    sphere with diameter z, so e.h <= (e.z + |z|) / 2 for the unit vector e of the 1; in all at most
    e.x1 + (|x1 + x2| + |x1 - x2|) / 2 <= 1 + sqrt 2, attained by x1 = e and x2 at a right angle.
    """
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    network = dense_network((weight, zero), (torch.full((1, 2), -1.0, dtype=torch.float64), zero[:1]))
    spec = Specification(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    box = Box(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    assert float(LPBound().bound(network, box, spec).margins) == pytest.approx(-3.0, abs=1e-6)
    for solver, error in (("CLARABEL", 1e-6), ("SCS", 1e-3)):
        found = float(SDPBound(solver).bound(network, box, spec).margins)
        assert found == pytest.approx(-1.0 - math.sqrt(2.0), abs=error)


@pytest.mark.parametrize("name", CASES)
def test_forward_points_are_in_the_relaxation_and_any_multipliers_are_sound(name: str) -> None:
    network, box, spec = case(name, batch=1)
    lifted = Lifted(network, box, root_bounds(network, box, "crown").layers[2])
    x = samples(box, 200, seed=0)[:, 0]
    z = network.values(x)[1]
    inputs = ((x - box.center) / box.radius).numpy()
    unstable = root_bounds(network, box, "crown").layers[2]
    units = unstable.unstable[0]
    hidden = (z.clamp(min=0) / unstable.upper)[:, units].numpy()
    vectors = np.concatenate([np.ones((len(x), 1)), inputs, hidden], axis=1)
    assert vectors.shape[1] == lifted.size
    products = (vectors[:, :, None] * vectors[:, None, :]).reshape(len(x), -1)
    values = products @ lifted.rows.T - lifted.limits
    assert float(values[:, : lifted.num_bounds].max()) <= 1e-12
    assert float(np.abs(values[:, lifted.num_bounds :]).max()) <= 1e-12
    margins = (network.forward(x) @ spec.C[0].T + spec.d[0]).numpy()
    random = np.random.default_rng(0)
    for row in range(CLASSES - 1):
        costs, constant = lifted.costs(as_numpy(spec.C[0, row]))
        np.testing.assert_allclose(vectors[:, 1:] @ costs + constant, margins[:, row], atol=1e-12)
        for size in (0.0, 0.01, 0.1, 1.0):
            y = size * random.normal(size=len(lifted.limits))
            assert lifted.bound(costs, y) + constant <= margins[:, row].min() + 1e-12
    assert lifted.bound(costs, np.full(len(lifted.limits), math.nan)) == -math.inf


def test_scs_is_sound_and_near() -> None:
    network, box, spec = case("dense")
    one, two = (SDPBound(solver).bound(network, box, spec).margins for solver in ("CLARABEL", "SCS"))
    # SCS stops at residuals of 1e-4 and 1e-5; what its multipliers prove is below the optimum by about as much.
    assert bool((two <= one + 1e-6).all())
    assert bool((two >= one - 5e-3).all())


def test_a_rescaled_network_has_the_same_bound() -> None:
    network, box, spec = case("dense")
    expected = SDPBound().bound(network, box, spec).margins
    first, last = network.nodes[1], network.nodes[3]
    assert isinstance(first, Affine) and isinstance(last, Affine)
    for k in (-40, 40):
        up = replace(first, maps=(first.maps[0].map_tensors(lambda t, k=k: t * 2.0**k),), bias=first.bias * 2.0**k)
        down = replace(last, maps=(last.maps[0].map_tensors(lambda t, k=k: t * 2.0**-k),))
        other = Network((network.nodes[0], up, network.nodes[2], down))
        torch.testing.assert_close(SDPBound().bound(other, box, spec).margins, expected, atol=1e-9, rtol=0)


def test_only_crown_proves() -> None:
    network, box, spec = case("dense")
    found = SDPBound().bound(network, box, spec)
    assert found.multipliers.rule == "crown" and not found.multipliers.lemmas
    assert found.multipliers.own is not None and not bool(found.multipliers.own.any())


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_solves_without_an_answer_keep_crowns_margins(solver: str) -> None:
    network, box, spec = case("dense")
    crown = CrownBound().bound(network, box, spec).margins
    late = SDPBound(solver, seconds=0.0).bound(network, box, spec)
    assert torch.equal(late.margins, crown) and late.stats["solves"] == 0
    short = SDPBound(solver, time_limit=1e-9).bound(network, box, spec)
    assert torch.equal(short.margins, crown)
    assert short.stats["solves"] == short.stats["failed_solves"] == CLASSES - 1


def test_only_open_rows_are_solved_when_asked_for_the_sign() -> None:
    network, box, spec = case("dense")
    open_ = ~(CrownBound().bound(network, box, spec).margins > 0)
    found = SDPBound(stop_at_zero=True).bound(network, box, spec)
    assert 0 < int(open_.sum()) < open_.numel()
    assert found.stats["solves"] == float(open_.sum()) / 2
    torch.testing.assert_close(
        found.margins[open_], SDPBound().bound(network, box, spec).margins[open_], atol=1e-6, rtol=0
    )


def test_stable_networks_need_no_solver() -> None:
    network, box, spec = case("dense", eps=1e-4)
    found = SDPBound(time_limit=0.0).bound(network, box, spec)
    assert found.stats["unstable"] == found.stats["solves"] == 0
    lower = torch.stack([spec.margins(network.forward(x)) for x in samples(box, 500, seed=0)]).amin(0)
    assert bool((found.margins <= lower + 1e-12).all()) and bool((found.margins >= lower - 1e-3).all())


def test_float32_networks_and_batches_are_taken_one_by_one_in_float64() -> None:
    network, box, spec = case("dense")
    whole = SDPBound().bound(network, box, spec).margins
    for i in range(2):
        one = SDPBound().bound(network.to(torch.float32), box.select([i]), spec.select([i])).margins
        torch.testing.assert_close(one[0], whole[i], atol=1e-6, rtol=0)


def skip_network() -> Network:
    unit, zero = Dense(torch.eye(2, dtype=torch.float64)), torch.zeros(2, dtype=torch.float64)
    return Network((Input((2,)), Affine((0,), (unit,), zero, (2,)), ReLU(1), Affine((2, 0), (unit, unit), zero, (2,))))


@pytest.mark.parametrize(
    ("build", "shown"),
    [
        (lambda: dense(0, 3, 4, 4, 3), "Affine[0], ReLU[1], Affine[2], ReLU[3], Affine[4]; "),
        (lambda: dense(0, 3, 4, 4, 4, 3), "Affine[0], ReLU[1], Affine[2], ReLU[3], Affine[4], ...; "),
        (lambda: dense(0, 3, 3), "Affine[0]; "),
        (lambda: NETWORKS["input-relu"](0), "ReLU[0], Affine[1, 0], ReLU[2], Affine[3], ReLU[4]; "),
        (skip_network, "Affine[0], ReLU[1], Affine[2, 0]; "),
    ],
)
def test_other_networks_are_refused(build: Callable[[], Network], shown: str) -> None:
    network = build().to(torch.float64)
    x = torch.zeros(1, network.input_size, dtype=torch.float64)
    spec = Specification.label(torch.tensor([0]), network.output_size)
    with pytest.raises(UsageError) as raised:
        SDPBound().bound(network, ball(x, 0.1), spec)
    advice = "give one hidden layer, Affine[0], ReLU[1], Affine[2], or use lp, lp-tight or milp"
    assert str(raised.value) == f"sdp: the network has nodes {shown}{advice}"


def test_other_regions_solvers_and_sizes_are_refused() -> None:
    network, box, spec = case("dense")
    for norm in ("1", "2"):
        with pytest.raises(UsageError, match=f"^sdp: the region is an l{norm} ball; give an l-infinity box"):
            SDPBound().bound(network, ball(box.center, 0.1, norm), spec)
    with pytest.raises(UsageError, match=r"^sdp: solver 'scs' is not one of CLARABEL, SCS$"):
        SDPBound("scs").bound(network, box, spec)
    unstable = int(root_bounds(network, box, "crown").layers[2].unstable[0].sum())
    message = f"example 0 has 3 varying inputs and {unstable} unstable neurons, {3 + unstable} in all; max_neurons is 4"
    with pytest.raises(UsageError, match=message):
        SDPBound(max_neurons=4).bound(network, box, spec)
    SDPBound(max_neurons=3 + unstable).bound(network, box, spec)


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "hidden"), [(20, 10), (40, 20), (64, 30)])
def test_larger_networks_and_their_time(inputs: int, hidden: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Up to the size of a small network on the digits; one row, about half a minute by Clarabel for the largest."""
    network = dense(0, inputs, hidden, 10).to(torch.float64)
    x = torch.rand(1, inputs, generator=torch.Generator().manual_seed(0)).double()
    box = ball(x, 0.2, clip=(0.0, 1.0)).box
    nine = Specification.label(network.forward(x).argmax(1), 10)
    spec = Specification(nine.C[:, :1], nine.d[:, :1])
    lp = float(LPBound().bound(network, box, spec).margins)
    least = float(spec.margins(network.forward(samples(box, 20000, seed=0)[:, 0])).min())
    margins = {}
    for solver in ("CLARABEL", "SCS"):
        began = time.process_time()
        found = SDPBound(solver).bound(network, box, spec)
        seconds, margin = time.process_time() - began, float(found.margins)
        with capsys.disabled():
            print(f"\n{solver}: {inputs} inputs, {found.stats['unstable']:.0f} unstable neurons: {seconds:.1f} CPU s; "
                  f"LP {lp:.3f}, SDP {margin:.3f}, least sampled {least:.3f}")  # fmt: skip
        assert found.stats["failed_solves"] == 0
        assert lp + 0.01 < margin < least
        margins[solver] = margin
    # What SCS's multipliers prove: its residuals times the size of the costs, here about 10.
    assert margins["SCS"] == pytest.approx(margins["CLARABEL"], abs=0.05)
