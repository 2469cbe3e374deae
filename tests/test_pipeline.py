"""The pipeline: verdicts against exact minima, evidence that stands on its own, refusals, and lying engines."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from checking import checker_of, label_claims
from hand_made import path_absorber, rescaled_line, reverse_absorber, valley
from networks import CLASSES, NETWORKS, Clip, dense, enumerate_minimum
from torch import Tensor

from lpverify.attack.exact import exact_margins, inside
from lpverify.bounds import METHODS, AlphaBound, BoundResult, CrownBound, IntervalBound, Multipliers
from lpverify.certificate import exact, exact_linear, rigorous
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import decode
from lpverify.errors import DataError, LpverifyError, ShapeError, SoundnessError, UsageError
from lpverify.network import Network
from lpverify.problem import NORMS, Region, Specification, ball
from lpverify.result import Result, Verdict
from lpverify.serialize import network_bytes
from lpverify.verify import verify

VERIFIED, FALSIFIED, UNKNOWN = Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN


def case(name: str, seed: int, count: int = 3) -> tuple[Network, Tensor, Tensor]:
    network = NETWORKS[name](seed).to(torch.float64)
    x = torch.rand(count, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
    return network, x, network.forward(x).argmax(1)


def true_minimum(network: Network, x: Tensor, label: int, eps: float) -> float:
    """The least margin over the box, by enumeration of activation patterns."""
    box = ball(x[None], eps)
    spec = Specification.label(torch.tensor([label]), network.output_size)
    ends = box.lower[0].numpy(), box.upper[0].numpy()
    return min(enumerate_minimum(network, *ends, c.numpy(), 0.0)[0] for c in spec.C[0])


# What neither the attack nor the relaxations decide, though every margin is far from 0: (network, seed, example).
SEARCHED = {("deep", 2, 0), ("deep", 2, 2), ("shared-affine", 0, 0), ("shared-affine", 4, 1), ("input-relu", 1, 0)}


@pytest.mark.parametrize("name", ["deep", "shared-affine", "input-relu", "affine-affine"])
def test_verdicts_agree_with_the_enumerated_minimum(name: str) -> None:
    searched, verdicts = set(), set()
    for seed in range(5):
        network, x, y = case(name, seed)
        for i, result in enumerate(verify(network, x, y, "0.25")):
            least = true_minimum(network, x[i], int(y[i]), 0.25)
            verdicts.add(result.verdict)
            assert abs(least) > 1e-4 or least == 0
            assert result.verdict is FALSIFIED or result.margin_lower <= least + 1e-7
            assert (result.verdict is VERIFIED) == (least > 0) and (result.verdict is FALSIFIED) == (least <= 0)
            if result.nodes is not None:
                searched.add((name, seed, i))
    assert searched == {entry for entry in SEARCHED if entry[0] == name}
    assert verdicts == {VERIFIED, FALSIFIED}


@pytest.mark.parametrize("name", ["deep", "shared-affine", "input-relu"])
def test_without_the_search_bounds_stay_too_loose(name: str) -> None:
    for _, seed, i in (entry for entry in SEARCHED if entry[0] == name):
        network, x, y = case(name, seed)
        result = verify(network, x, y, "0.25", method="alpha")[i]
        assert (result.verdict, result.reason) == (UNKNOWN, "bounds too loose and no counterexample found")


def test_trees_of_the_search_are_proofs_of_their_own() -> None:
    """What the search verifies has more than one leaf; both checkers accept it and count the same."""
    trees = 0
    for name, seed, i in sorted(SEARCHED):
        network, x, y = case(name, seed)
        result = verify(network, x, y, "0.25")[i]
        if result.verdict is not VERIFIED:
            continue
        assert result.certificate is not None and result.leaves is not None
        proof, checker = decode(result.certificate), checker_of(network)
        (outcome,) = rigorous.check(checker, [proof])
        whole = exact.check(exact_linear.convert(parse_network(network_bytes(network))), proof)
        assert outcome.accepted and whole.accepted and outcome.leaves == whole.leaves == result.leaves
        assert result.margins.tolist() == outcome.margins.tolist() and result.margin_lower > 0
        trees += result.leaves > 1
    assert trees


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["dense", "conv", "uneven-residual"])
def test_evidence_stands_on_its_own(name: str, norm: str, clip: Clip) -> None:
    network, x, y = case(name, 7 if name == "uneven-residual" else 2, count=12)
    eps = {"inf": "0.1", "2": "0.25", "1": "0.5"}[norm]
    results = verify(network, x, y, eps, norm=norm, clip=clip)
    checker = checker_of(network)
    claims = label_claims(x, y, CLASSES, float(eps), norm, clip)
    assert {r.verdict for r in results} >= {VERIFIED, FALSIFIED}
    for i, result in enumerate(results):
        assert (result.index, result.label, result.predicted) == (i, int(y[i]), int(y[i]))
        assert (result.certificate is not None) == (result.verdict is VERIFIED)
        assert (result.counterexample is not None) == (result.verdict is FALSIFIED)
        if result.certificate is not None:
            proof = decode(result.certificate)
            outcome = rigorous.check(checker, [proof])[0]
            assert outcome.accepted and proof.semantics == "real"
            assert (proof.claim.region.eps, proof.claim.region.norm) == (eps, norm)
            assert proof.claim.region.center.values() == claims[i].region.center.values()
            assert proof.claim.region.clip == claims[i].region.clip
            assert (proof.claim.rows, proof.network) == (claims[i].rows, checker.sha256)
            assert result.margin_lower > 0 and bool((outcome.margins <= result.margins + 1e-12).all())
        if result.counterexample is not None:
            point = result.counterexample
            text = None if clip is None else (repr(clip[0]), repr(clip[1]))
            assert inside(point.x, x[i].numpy(), eps, norm, text)
            C, d = rigorous.claim_rows(claims[i])
            values = exact_margins(network, point.x, C, d)
            assert values[point.row] == min(values) <= 0 and point.margin == float(values[point.row])
            assert point.agrees == (point.margin_float32 <= 0) and not point.misclassified


@pytest.mark.parametrize(("norm", "eps"), [("2", "0.4"), ("1", "0.6")])
def test_the_search_decides_balls_too(norm: str, eps: str) -> None:
    """Inputs of an l2 or l1 ball cannot be split; phases can."""
    leaves = []
    for name, seed in itertools.product(("deep", "shared-affine", "input-relu"), range(4)):
        network, x, y = case(name, seed)
        results = verify(network, x, y, eps, norm=norm)
        assert {r.verdict for r in results} <= {VERIFIED, FALSIFIED}
        leaves += [r.leaves for r in results if r.nodes]
        proofs = [decode(r.certificate) for r in results if r.certificate is not None]
        assert all(o.accepted for o in rigorous.check(checker_of(network), proofs))
    assert max(n or 0 for n in leaves) > 2


def signature(result: Result) -> tuple[Any, ...]:
    point = None if result.counterexample is None else result.counterexample.x.tolist()
    return result.verdict, result.reason, result.method, result.margins.tobytes(), point, result.certificate


def test_a_run_can_be_repeated_to_the_bit() -> None:
    network, x, y = case("dense", 2, count=8)
    first, second = (verify(network, x, y, "0.1", seed=3) for _ in range(2))
    assert [signature(r) for r in first] == [signature(r) for r in second]


def test_batches_settle_the_same_verdicts_in_order() -> None:
    network, x, y = case("conv", 2, count=9)
    whole, parts = verify(network, x, y, "0.05"), verify(network, x, y, "0.05", batch_size=2)
    assert [(r.index, r.verdict) for r in whole] == [(r.index, r.verdict) for r in parts]
    assert {r.verdict for r in whole} >= {VERIFIED, FALSIFIED}


@pytest.mark.parametrize("method", ["interval", "dual", "crown", "alpha"])
def test_a_single_method_decides_what_it_can(method: str) -> None:
    network, x, y = case("dead-units", 7)
    assert [r.verdict for r in verify(network, x, y, "0.01", method=method)] == [VERIFIED] * 3
    proofs = [decode(r.certificate or b"") for r in verify(network, x, y, "0.01", method=method)]
    assert {p.rule for p in proofs} == {"crown" if method == "alpha" else method}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_precision_of_the_engine_and_of_the_input(dtype: str, given: torch.dtype) -> None:
    network, x, y = case("dense", 1, count=6)
    results = verify(network, x.to(given), y, "0.02", dtype=dtype)
    assert [r.verdict for r in results] == [r.verdict for r in verify(network, x, y, "0.02")]
    stored = [decode(r.certificate).claim.region.center.dtype for r in results if r.certificate is not None]
    assert stored and set(stored) == {"<f4"}


def test_misclassified_inputs_are_their_own_counterexamples() -> None:
    network, x, y = case("dense", 0)
    wrong = (y + 1) % CLASSES
    for eps in ("0", "0.1"):
        for i, result in enumerate(verify(network, x, wrong, eps)):
            assert (result.verdict, result.reason, result.method) == (FALSIFIED, "misclassified", "clean")
            assert (result.label, result.predicted) == (int(wrong[i]), int(y[i]))
            assert result.counterexample is not None and result.counterexample.misclassified
            assert bool((result.counterexample.x == x[i].numpy()).all()) and result.counterexample.margin < 0


def test_eps_zero_checks_the_point() -> None:
    network, x, y = case("conv", 0)
    for norm in NORMS:
        results = verify(network, x, y, "0", norm=norm)
        values = Specification.label(y, CLASSES).margins(network.forward(x)).numpy()
        assert [r.verdict for r in results] == [VERIFIED] * 3
        np.testing.assert_allclose(np.stack([r.margins for r in results]), values, rtol=1e-9, atol=1e-9)


POSITIVE = (np.ones((1, 1)), np.zeros(1))


@pytest.mark.parametrize("eps", ["0", "0.5"])
def test_a_margin_of_exactly_zero_is_falsified(eps: str) -> None:
    (result,) = verify(valley(0.0), np.array([[0.5]]), eps=eps, claim=POSITIVE)
    assert (result.verdict, result.reason, result.label) == (FALSIFIED, "misclassified", None)
    assert result.counterexample is not None
    assert (result.counterexample.margin, result.counterexample.x.tolist()) == (0.0, [0.5])


def test_a_tie_of_two_classes_is_falsified() -> None:
    network = dense(0, 2, 3)
    twin = network.map_tensors(lambda t: torch.cat([t[:1], t[:1], t[1:2] * 0 - 9]).double())
    (result,) = verify(twin, torch.rand(1, 2).double(), torch.tensor([0]), "0")
    assert result.verdict is FALSIFIED and result.counterexample is not None and result.counterexample.margin == 0


def test_a_counterexample_at_a_single_point_is_never_overlooked_as_verified() -> None:
    """|x - 1/2| reaches 0 at 1/2 alone, which the attack does not meet from 0.3141; only the search does."""
    (result,) = verify(valley(0.0), np.array([[0.3141]]), eps="0.4", claim=POSITIVE, method="alpha")
    assert result.verdict is UNKNOWN and result.margin_lower <= 0
    (result,) = verify(valley(0.0), np.array([[0.3141]]), eps="0.4", claim=POSITIVE)
    assert result.verdict is FALSIFIED and result.counterexample is not None
    assert (result.counterexample.x.tolist(), result.counterexample.margin) == ([0.5], 0.0)
    (above,) = verify(valley(-(2.0**-28)), np.array([[0.3141]]), eps="0.4", claim=POSITIVE)
    assert above.verdict is VERIFIED and 0 < above.margin_lower <= 2.0**-28


@pytest.mark.parametrize("k", [-44, -30, 0, 30, 44])
def test_linear_claims_on_rescaled_weights(k: int) -> None:
    x = np.array([[0.5]])
    (false,) = verify(rescaled_line(k, 5.0), x, eps="0.5", claim=POSITIVE)
    (true,) = verify(rescaled_line(k, 15.0), x, eps="0.5", claim=POSITIVE)
    assert (false.verdict, true.verdict) == (FALSIFIED, VERIFIED)
    assert true.margin_lower == pytest.approx(5.0, rel=1e-9)
    shifted = (np.array([[2.0], [-1.0]]), np.array([-9.9, 15.1]))
    assert verify(rescaled_line(k, 15.0), x, eps="0.5", claim=shifted)[0].verdict is VERIFIED
    shifted = (np.array([[2.0], [-1.0]]), np.array([-9.9, 15.0]))
    assert verify(rescaled_line(k, 15.0), x, eps="0.5", claim=shifted)[0].verdict is FALSIFIED


@pytest.mark.parametrize(("w", "absorbed"), [(20, False), (30, False), (56, True), (60, True)])
def test_a_path_that_absorbs_the_margin_is_falsified(w: int, absorbed: bool) -> None:
    """Plain float64 says 5 at x = 1, where the margin is -5, as soon as 2^w + 1 = 2^w; exact evaluation does not."""
    network = path_absorber(w, 10.0, 5.0)
    assert (float(network.forward(torch.ones(1, 1).double())) > 0) == absorbed
    for x, eps in ((0.5, "0.5"), (0.75, "0.5"), (1.0, "0")):
        (result,) = verify(network, np.array([[x]]), eps=eps, claim=POSITIVE, dtype="float64")
        assert result.verdict is FALSIFIED


def test_float32_semantics() -> None:
    network, x, y = case("dense", 1, count=6)
    real, single = (verify(network, x, y, "0.02", semantics=s) for s in ("real", "float32"))
    for a, b in zip(real, single, strict=True):
        assert (a.verdict, b.semantics) == (b.verdict, "float32")
        if b.certificate is not None and a.method == b.method:
            assert decode(b.certificate).semantics == "float32" and bool((b.margins < a.margins).all())
    (result,) = verify(reverse_absorber(30, 10.0, 5.0), np.array([[0.5]]), eps="0.5", claim=POSITIVE)
    assert result.verdict is VERIFIED
    (result,) = verify(
        reverse_absorber(30, 10.0, 5.0), np.array([[0.5]]), eps="0.5", claim=POSITIVE, semantics="float32", timeout=2
    )
    assert result.verdict is UNKNOWN and result.reason.startswith("uncertified")


def test_float32_semantics_needs_float32_weights() -> None:
    network, x, y = case("deep", 0)
    with pytest.raises(UsageError, match="float32 needs a network whose lowered parameters are float32 numbers"):
        verify(network.map_tensors(lambda t: t + 2.0**-40), x, y, "0.1", semantics="float32")


def test_a_spent_timeout_is_unknown_with_its_reason() -> None:
    network, x, y = case("dense", 2)
    for result in verify(network, x, y, "0.2", timeout=1e-9):
        assert (result.verdict, result.reason) == (UNKNOWN, "timeout (1e-09 s an example)")
        assert math.isnan(result.margin_lower)


def test_a_torch_module_equals_its_network() -> None:
    network, x, y = case("deep", 1)
    linears = [(m.maps[0].weight, m.bias) for m in network.nodes if hasattr(m, "maps")]
    layers: list[torch.nn.Module] = []
    for weight, bias in linears:
        layers += [torch.nn.ReLU()] * bool(layers) + [torch.nn.Linear(*reversed(weight.shape), dtype=torch.float64)]
        layers[-1].load_state_dict({"weight": weight, "bias": bias})
    results = verify(torch.nn.Sequential(*layers), x, y, "0.1")
    expected = verify(network, x, y, "0.1")
    assert [(r.verdict, r.margins.tolist()) for r in results if r.verdict is VERIFIED] == [
        (r.verdict, r.margins.tolist()) for r in expected if r.verdict is VERIFIED
    ]
    assert [r.verdict for r in results] == [r.verdict for r in expected]


GOOD = np.full((2, 3), 0.5)
LABELS = np.array([0, 1])
BAD: dict[str, tuple[dict[str, Any], type[LpverifyError], str]] = {
    "nan": ({"x": np.array([[0.5] * 3, [0.5, 0.5, np.nan]])}, DataError, "example 1, input 2 is nan"),
    "inf": ({"x": np.array([[np.inf] * 3, [0.5] * 3])}, DataError, "example 0, input 0 is inf"),
    "x-size": ({"x": np.zeros((2, 4))}, ShapeError, r"shape \(2, 4\), expected .* 3 values"),
    "x-flat": ({"x": np.zeros(3)}, ShapeError, r"shape \(3,\)"),
    "y-float": ({"y": np.array([0.0, 1.0])}, DataError, "expected whole labels"),
    "y-count": ({"y": np.array([0])}, DataError, r"shape \(1,\), expected whole labels of shape \(2,\)"),
    "y-range": ({"y": np.array([0, 3])}, DataError, r"label 3 of example 1 is not in 0\.\.2"),
    "y-negative": ({"y": np.array([-1, 0])}, DataError, r"label -1 of example 0"),
    "y-missing": ({"y": None}, UsageError, "give labels y or a claim"),
    "eps-negative": ({"eps": -0.1}, UsageError, "eps"),
    "eps-nan": ({"eps": math.nan}, UsageError, "eps"),
    "eps-inf": ({"eps": math.inf}, UsageError, "eps"),
    "eps-comma": ({"eps": "0,1"}, UsageError, "eps"),
    "norm": ({"norm": "3"}, UsageError, "norm: '3' is not one of inf, 2, 1"),
    "method": ({"method": "magic"}, UsageError, "method: 'magic' is not one of auto, interval"),
    "dtype": ({"dtype": "float16"}, UsageError, "dtype"),
    "semantics": ({"semantics": "fixed"}, UsageError, "semantics"),
    "timeout": ({"timeout": 0}, UsageError, "timeout"),
    "batch": ({"batch_size": 0}, UsageError, "batch_size"),
    "clip-order": ({"clip": (1, 0)}, UsageError, "clip"),
    "outside-clip": ({"x": np.array([[0.5] * 3, [0.5, 7.0, 0.5]]), "clip": (0, 1)}, DataError, "example 1, input 1"),
    "claim-shape": ({"claim": (np.ones((1, 2)), np.zeros(1))}, ShapeError, r"claim: C \(1, 2\)"),
    "claim-rows": ({"claim": (np.ones((1, 3)), np.zeros(2))}, ShapeError, r"d \(2,\)"),
    "claim-nan": ({"claim": (np.array([[1.0, np.nan, 0.0]]), np.zeros(1))}, DataError, "claim"),
    "claim-inf": ({"claim": (np.ones((1, 3)), np.array([np.inf]))}, DataError, "claim"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str) -> None:
    changes, error, text = BAD[name]
    arguments = {"x": GOOD, "y": LABELS, "eps": "0.1", **changes}
    network = NETWORKS["deep"](0).to(torch.float64)
    with pytest.raises(error, match=text) as caught:
        verify(network, arguments.pop("x"), arguments.pop("y"), arguments.pop("eps"), **arguments)
    assert "\n" not in str(caught.value)


def inflated(result: BoundResult) -> BoundResult:
    return BoundResult(result.margins + 100.0, result.layers, result.multipliers)


@pytest.mark.parametrize("method", ["interval", "crown", "alpha", "auto"])
def test_an_engine_that_lies_about_its_margins_is_not_believed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, claim, improve = IntervalBound.bound, CrownBound.claim, AlphaBound.improve
    monkeypatch.setattr(IntervalBound, "bound", lambda *a: inflated(bound(*a)))
    monkeypatch.setattr(CrownBound, "claim", staticmethod(lambda *a: inflated(claim(*a))))
    monkeypatch.setattr(AlphaBound, "improve", lambda *a: inflated(improve(*a)))
    network, x, y = case("deep", 3)
    for i, result in enumerate(verify(network, x, y, "0.25", method=method)):
        assert true_minimum(network, x[i], int(y[i]), 0.25) < 0 and result.certificate is None
        if method == "auto":
            assert result.verdict is FALSIFIED and result.method not in METHODS
            continue
        assert result.verdict is UNKNOWN
        assert result.reason.startswith("uncertified: ") and "the checker found row" in result.reason
        assert result.margin_lower < 0


@pytest.mark.parametrize("slope", [math.nan, math.inf, -3.0, 7.0])
def test_broken_slopes_and_layer_bounds_only_loosen_the_proof(slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    improve = AlphaBound.improve

    def broken(*arguments: Any) -> BoundResult:
        result = inflated(improve(*arguments))
        for values in result.multipliers.slopes.values():
            values.fill_(slope)
        for layer in result.layers.values():
            layer.lower.fill_(-1.0)
            layer.upper.fill_(1.0)
        return result

    monkeypatch.setattr(AlphaBound, "improve", broken)
    network, x, y = case("deep", 3)
    for i, result in enumerate(verify(network, x, y, "0.25", method="alpha")):
        least = true_minimum(network, x[i], int(y[i]), 0.25)
        assert result.verdict is UNKNOWN and result.margin_lower <= least + 1e-9


def test_nan_from_the_engine_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object, __: Network, ___: Region, spec: Specification) -> BoundResult:
        return BoundResult(torch.full_like(spec.d, math.nan), {}, Multipliers("interval"))

    monkeypatch.setattr(IntervalBound, "bound", lost)
    network, x, y = case("deep", 3)
    assert {r.verdict for r in verify(network, x, y, "0.25", method="interval")} == {UNKNOWN}


def test_a_checker_that_contradicts_the_clean_input_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def generous(_: rigorous.Network, proofs: list[Any]) -> list[rigorous.Outcome]:
        return [rigorous.Outcome(True, np.full(p.claim.num_rows, 1000.0), "") for p in proofs]

    monkeypatch.setattr(rigorous, "check", generous)
    network, x, y = case("affine-affine", 0)
    with pytest.raises(SoundnessError, match="nothing of this run can be trusted"):
        verify(network, x, y, "0.01")
