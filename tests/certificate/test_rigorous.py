"""The rigorous checker: no certificate whatever gets a bound above a value, and honest ones lose only rounding."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from checking import (
    assert_below,
    checker_of,
    exactly_inside,
    label_claims,
    points_of,
    propose,
    region_of,
    sampled_least,
)
from hand_made import absorber, big_m, long_path, path_absorber, plateau, rescaled_line, reverse_absorber, valley
from lp_certificates import checked_bounds, lp_leaf
from networks import CLASSES, NETWORKS, TINY, Clip, enumerate_minimum, permuted, rescaled
from small_certificates import duals
from torch import Tensor

from lpverify.attack.exact import exact_margins
from lpverify.bounds import METHODS, AbstractBoundMethod, AlphaBound, BoundResult, DualBound, Multipliers
from lpverify.certificate import rigorous
from lpverify.certificate.claim import Claim, LabelRows, LinearRows
from lpverify.certificate.container import RawArray, unpack
from lpverify.certificate.proof import RULES, SEMANTICS, UNIT_SLOPE, Certificate, Leaf, Slopes, decode
from lpverify.errors import CertificateError
from lpverify.evidence import ball_claim, box_claim
from lpverify.network import Network
from lpverify.problem import NORMS, Specification
from lpverify.serialize import raw_array

REGIONS: list[tuple[str, Clip]] = list(itertools.product(NORMS, (None, (0.0, 1.0))))
RADII = {"inf": 0.2, "2": 0.4, "1": 0.7}
METHOD_CASES: dict[str, AbstractBoundMethod] = {
    **{name: METHODS[name]() for name in ("interval", "dual", "crown")},  # those without a solver, and alpha
    "alpha": AlphaBound(steps=6),
    "dual-tight": DualBound(tighten=True),
    "alpha-intermediate": AlphaBound(steps=6, intermediate=True),
}


def case(name: str, norm: str, clip: Clip, batch: int = 2) -> tuple[Network, Specification, list[Claim]]:
    network = NETWORKS[name](7).to(torch.float64)
    x = torch.rand(batch, network.input_size, generator=torch.Generator().manual_seed(3)).double()
    labels = network.forward(x).argmax(1)
    return network, Specification.label(labels, CLASSES), label_claims(x, labels, CLASSES, RADII[norm], norm, clip)


def run(network: Network, spec: Specification, claims: list[Claim], method: AbstractBoundMethod) -> list[BoundResult]:
    return [method.bound(network, region_of(claim), spec.select([i])) for i, claim in enumerate(claims)]


@pytest.mark.parametrize("name", NETWORKS)
def test_checked_margins_are_sound_and_lose_only_rounding(name: str) -> None:
    for norm, clip in REGIONS:
        network, spec, claims = case(name, norm, clip)
        checker = checker_of(network)
        values = [sampled_least(network, claim) for claim in claims]
        for label, method in METHOD_CASES.items():
            results = run(network, spec, claims, method)
            proofs = [propose(checker, [claim], result)[0] for claim, result in zip(claims, results, strict=True)]
            # Rounding a slope to 16 bits costs more than any sum. With lemmas the checker repeats CROWN's bounds of
            # later layers on the tightened ones, which need not be better than those that the engine kept.
            loss = {"alpha": 1e-4, "alpha-intermediate": 2e-3}.get(label, 1e-9)
            for outcome, result, least in zip(rigorous.check(checker, proofs), results, values, strict=True):
                proposed = result.margins[0].numpy()
                scale = 1 + np.abs(proposed)
                assert_below(outcome.margins, least, (norm, clip, label))
                assert outcome.accepted == bool((outcome.margins > 0).all())
                assert bool((outcome.margins >= proposed - loss * scale).all()), (norm, clip, label)
                # Where affine maps alone lead to the input, the checker's intervals use the ball, the engine's its box.
                if not label.startswith("alpha") and not (label == "interval" and norm != "inf"):
                    assert bool((outcome.margins <= proposed + 1e-12 * scale).all()), (norm, clip, label)


@pytest.mark.parametrize("name", TINY)
def test_checked_margins_are_below_the_enumerated_minimum(name: str) -> None:
    network, spec, claims = case(name, "inf", None)
    checker = checker_of(network)
    proofs = {label: propose(checker, [claim], result)[0]
              for label, method in METHOD_CASES.items()
              for claim, result in zip(claims[:1], run(network, spec, claims[:1], method), strict=True)}  # fmt: skip
    outcomes = dict(zip(proofs, rigorous.check(checker, list(proofs.values())), strict=True))
    box = region_of(claims[0])
    C, d = rigorous.claim_rows(claims[0])
    for row in range(len(d)):
        _, point = enumerate_minimum(network, box.lower[0].numpy(), box.upper[0].numpy(), C[row], d[row])
        inside = exactly_inside(point, claims[0])
        assert inside is not None
        value = exact_margins(network, inside, C[row : row + 1], d[row : row + 1])
        for label, outcome in outcomes.items():
            assert_below(outcome.margins[row : row + 1], value, label)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outcome_does_not_depend_on_the_batch(name: str) -> None:
    for norm, clip in (("inf", None), ("2", (0.0, 1.0))):
        network, spec, claims = case(name, norm, clip, batch=5)
        checker = checker_of(network)
        proofs = [p for method in METHOD_CASES.values()
                  for claim, result in zip(claims, run(network, spec, claims, method), strict=True)
                  for p in propose(checker, [claim], result)]  # fmt: skip
        together = rigorous.check(checker, proofs)
        for proof, outcome in zip(proofs, together, strict=True):
            alone = rigorous.check(checker, [proof])[0]
            np.testing.assert_allclose(alone.margins, outcome.margins, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["dense", "deep", "conv", "residual", "shared-affine"])
def test_lemmas_prove_what_optimised_layer_bounds_propose(name: str, norm: str) -> None:
    network, spec, claims = case(name, norm, None)
    checker = checker_of(network)
    method = AlphaBound(steps=20, intermediate=True)
    stored = 0
    for i, (claim, result) in enumerate(zip(claims, run(network, spec, claims, method), strict=True)):
        proof = propose(checker, [claim], result)[0]
        stored += sum(lemma.neurons.shape[0] for lemma in proof.lemmas)
        outcome = rigorous.check(checker, [decode(proof.encode())])[0]
        assert_below(outcome.margins, sampled_least(network, claim))
        assert bool((outcome.margins >= result.margins[0].numpy() - 2e-3).all())
        if norm != "inf":
            continue
        plain = AlphaBound(steps=20).bound(network, region_of(claim), spec.select([i]))
        bare = rigorous.check(checker, propose(checker, [claim], plain))[0]
        assert float(outcome.margins.sum()) >= float(bare.margins.sum()) - 1e-2
    assert stored > 0


def random_proofs(
    checker: rigorous.Network, claim: Claim, rows: int, count: int, rule: str, semantics: str, seed: int
) -> Iterator[Certificate]:
    """Certificates that give random slopes and multipliers at random neurons to copies of the claim's first row."""
    rng = np.random.default_rng(seed)
    C, d = rigorous.claim_rows(claim)
    repeated = LinearRows(raw_array(np.repeat(C[:1], rows, axis=0)), raw_array(np.repeat(d[:1], rows)))
    listed = RawArray("<i4", (rows,), np.arange(rows, dtype="<i4").tobytes())
    relus = [i for i, node in enumerate(checker.nodes) if node.kind == "relu"]
    for _ in range(count):
        tables, given = [], []
        for node in relus:
            size = checker.nodes[node].size
            neurons = np.flatnonzero(rng.random(size) < rng.choice([0.2, 0.6, 1.0])).astype("<i4")
            values = rng.integers(0, UNIT_SLOPE + 1, (rows, len(neurons))).astype("<u2")
            corners = rng.random(values.shape) < 0.2
            values[corners] = rng.choice([0, UNIT_SLOPE], int(corners.sum()))
            raw = RawArray("<i4", neurons.shape, neurons.tobytes())
            tables.append(Slopes(node, raw, RawArray("<u2", values.shape, values.tobytes())))
            few = np.flatnonzero(rng.random(size) < rng.choice([0.0, 0.2, 0.6]))
            given.append(duals(node, few, rng.normal(size=(rows, len(few))) * rng.choice([0.1, 1.0, 10.0])))
        own = Leaf(listed, tuple(tables), tuple(given))
        yield Certificate(checker.sha256, semantics, rule, Claim(claim.region, repeated), own)


def check_random_multipliers(total: int) -> int:
    """Bounds of ``total`` random multiplier vectors, against the least exact value sampled; how many were finite."""
    names, rows, finite = ["dense", "deep", "conv", "residual", "shared-affine", "input-relu"], 100, 0
    settings = list(itertools.product(names, REGIONS, ("dual", "dual-tight", "crown")))
    each = -(-total // (len(settings) * rows))
    for seed, (name, (norm, clip), rule) in enumerate(settings):
        network, _, claims = case(name, norm, clip, batch=1)
        checker = checker_of(network)
        least = sampled_least(network, claims[0], count=500)[:1] * rows
        semantics = SEMANTICS[seed % 2]
        for proof in random_proofs(checker, claims[0], rows, each, rule, semantics, seed):
            margins = rigorous.check(checker, [proof])[0].margins
            assert_below(margins, least, (name, norm, clip, rule, semantics))
            finite += int(np.isfinite(margins).sum())
    return finite


def test_one_hundred_thousand_random_multipliers_never_prove_too_much() -> None:
    assert check_random_multipliers(100_000) >= 100_000


def float32_evaluations(network: Network, x: Tensor, seed: int) -> Tensor:
    """Outputs of the float32 network in several orders of summation, in float64: (evaluations, B, n_K)."""
    single = network.to(torch.float32)
    outputs = [single.forward(x), single.forward(x[:1].expand_as(x)) if len(x) == 1 else single.forward(x)]
    outputs += [permuted(single, seed + i).forward(x) for i in range(4)]
    outputs += [blocked_forward(single, x, size) for size in (1, 2, 5)]
    return torch.stack(outputs).double()


def blocked_forward(network: Network, x: Tensor, size: int) -> Tensor:
    """The float32 network with every inner product summed in blocks of ``size`` terms, in order."""
    value = x
    for node in network.nodes[1:]:
        if not hasattr(node, "maps"):
            value = value.clamp(min=0)
            continue
        matrix = torch.from_numpy(node.maps[0].matrix().toarray()).float()
        total = node.bias.expand(len(x), -1)
        for start in range(0, matrix.shape[1], size):
            part = value[:, start : start + size].unsqueeze(1) * matrix[:, start : start + size]
            total = total + part.sum(2)
        value = total
    return value


@pytest.mark.parametrize("name", ["affine", "dense", "deep", "conv"])
def test_float32_bounds_hold_for_float32_sums_in_any_order(name: str) -> None:
    for norm, clip in (("inf", None), ("2", (0.0, 1.0))):
        network, spec, claims = case(name, norm, clip)
        checker = checker_of(network)
        for i, claim in enumerate(claims):
            C, _ = rigorous.claim_rows(claim)
            x = points_of(claim, 400, seed=1).float()
            values = float32_evaluations(network, x, seed=0).numpy() @ C.T
            result = METHODS["crown"]().bound(network, region_of(claim), spec.select([i]))
            real, single = (rigorous.check(checker, propose(checker, [claim], result, s))[0] for s in SEMANTICS)
            # A point rounded to float32 leaves the region by 1e-7 at most.
            assert bool((single.margins <= values.min((0, 1)) + 1e-6).all())
            assert bool((single.margins < real.margins).all())
            assert bool((single.margins > real.margins - 1e-3).all())


def test_float32_bounds_at_a_point_hold_for_float32_values() -> None:
    """At a point the two semantics differ by rounding alone, and float32 evaluations use some of it."""
    network = NETWORKS["dense"](7).to(torch.float64)
    x = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))
    labels = network.forward(x.double()).argmax(1)
    claims = label_claims(x, labels, CLASSES, 0.0, "inf", None)
    checker, spec = checker_of(network), Specification.label(labels, CLASSES)
    outputs = float32_evaluations(network, x, seed=3)
    rule = BoundResult(torch.zeros(50, 2), {}, Multipliers("crown"))
    real, single = (rigorous.check(checker, propose(checker, claims, rule, s)) for s in SEMANTICS)
    below_real = 0
    for i, (a, b) in enumerate(zip(real, single, strict=True)):
        values = outputs[:, i].numpy() @ spec.C[i].numpy().T
        assert bool((b.margins <= values.min(0)).all())
        below_real += int((values.min(0) < a.margins).sum())
    assert below_real > 10


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A certificate's bytes with one or two changes: a bit, an array's byte, the length, or a field of the header."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        end = min(16 + int.from_bytes(data[8:16], "little"), len(data) - 1)
        kind = rng.choice((0, 1, 1, 1, 2, 3, 3, 3))
        if kind == 0:
            place = rng.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        elif kind == 1:
            place = rng.randrange(end, len(data))
            data = data[:place] + rng.randbytes(1) + data[place + 1 :]
        elif kind == 2:
            place = rng.randrange(len(data))
            data = data[:place] if rng.random() < 0.5 else data + rng.randbytes(4)
        else:
            old, new = rng.choice(REPLACEMENTS)
            header = data[16:end].replace(old, new, 1)
            data = data[:8] + len(header).to_bytes(8, "little") + header + data[end:]
    return data


REPLACEMENTS = [
    (b'"rule":"crown"', b'"rule":"dual"'), (b'"rule":"crown"', b'"rule":"interval"'),
    (b'"rule":"crown"', b'"rule":"dual-tight"'), (b'"semantics":"real"', b'"semantics":"float32"'),
    (b'"eps":"0.2"', b'"eps":"0.3"'), (b'"eps":"0.2"', b'"eps":"2"'), (b'"eps":"0.2"', b'"eps":"0"'),
    (b'"eps":"0.2"', b'"eps":"1e9"'), (b'"norm":"inf"', b'"norm":"2"'), (b'"norm":"inf"', b'"norm":"1"'),
    (b'"clip":null', b'"clip":["0","1"]'), (b'"clip":null', b'"clip":["1","0"]'), (b'"label":', b'"label":1'),
    (b'"label":0', b'"label":2'), (b'"label":1', b'"label":0'), (b'"label":2', b'"label":1'),
    (b'"node":2', b'"node":4'), (b'"node":4', b'"node":2'), (b'"node":4', b'"node":3'), (b'"node":4', b'"node":99'),
    (b'"array":1', b'"array":2'), (b'"array":3', b'"array":5'), (b'"array":4', b'"array":6'),
    (b'"lemmas":[{', b'"lemmas":[],"x":[{'), (b'"<u2"', b'"<f4"'), (b'"shape":[', b'"shape":[1,'),
    (b'"duals":[{', b'"duals":[],"x":[{'), (b'"duals":[{', b'"slopes":[{'), (b'"duals":[{', b'"duals":[{"node":2},{'),
    (b'"<f4"', b'"<f8"'), (b'"<f4"', b'"<i4"'),
    (b'"slopes":[{', b'"slopes":[{"node":2},{'), (b'"version":2', b'"version":1'), (b'"classes":3', b'"classes":4'),
]  # fmt: skip


def check_mutations(count: int) -> tuple[int, int]:
    """How many of ``count`` mutated certificates still decode, and how many of these are accepted."""
    rng, decoded, accepted = random.Random(0), 0, 0
    bases = []
    for name in ("dense", "deep", "conv"):
        network, spec, claims = case(name, "inf", None)
        checker = checker_of(network)
        for claim, result in zip(claims, run(network, spec, claims, METHOD_CASES["alpha-intermediate"]), strict=True):
            proof = propose(checker, [claim], result)[0]
            bases.append((network, checker, proof.encode()))
            # The same lemmas before the multipliers that the relaxation's duals give.
            own, _ = lp_leaf(network, claim, checked_bounds(network, proof), np.float32)
            bases.append((network, checker, replace(proof, leaf=own).encode()))
    for number in range(count):
        network, checker, data = bases[number % len(bases)]
        try:
            proof = decode(mutated(data, rng))
        except CertificateError:
            continue
        decoded += 1
        outcome = rigorous.check(checker, [proof])[0]
        accepted += outcome.accepted
        if proof.claim.inputs == network.input_size and proof.claim.outputs == network.output_size:
            if outcome.margins.max(initial=-np.inf) > -np.inf:
                assert_below(outcome.margins, sampled_least(network, proof.claim, count=100), number)
        else:
            assert not outcome.accepted
    return decoded, accepted


def test_two_thousand_mutated_certificates_never_prove_too_much() -> None:
    decoded, accepted = check_mutations(2000)
    assert decoded >= 500 and accepted > 0


def test_a_certificate_of_another_network_or_shape_is_rejected() -> None:
    network, spec, claims = case("deep", "inf", None, batch=1)
    other, _, wide = case("dense", "inf", None, batch=1)
    proof = propose(checker_of(network), claims, run(network, spec, claims, METHOD_CASES["crown"])[0])[0]
    outcome = rigorous.check(checker_of(other), [proof])[0]
    assert not outcome.accepted and "names another network" in outcome.message
    checker = checker_of(network)
    foreign = Certificate(checker.sha256, "real", "crown", wide[0], proof.leaf)
    assert "has 5 inputs" in rigorous.check(checker, [foreign])[0].message
    empty = ball_claim(np.array([2.0, 0.5, 0.5]), "0.1", "inf", ("0", "1"), LabelRows(0, CLASSES))
    assert rigorous.check(checker, [Certificate(checker.sha256, "real", "crown", empty, proof.leaf)])[0].message == (
        "the region is empty"
    )
    wide_weights = network.map_tensors(lambda t: t + 2.0**-40)
    checker = checker_of(wide_weights)
    single = Certificate(checker.sha256, "float32", "crown", claims[0], proof.leaf)
    assert "no float32 numbers" in rigorous.check(checker, [single])[0].message
    assert unpack(proof.encode()).header["rule"] in RULES


ONE = LinearRows(raw_array(np.array([[1.0]])), raw_array(np.array([0.0])))


def hand_checked(network: Network, semantics: str = "real", start: float = 0.0) -> dict[str, rigorous.Outcome]:
    """The outcome of every method's certificate for "the output is > 0 where every input is in [start, 1]"."""
    checker, inputs = checker_of(network), network.input_size
    claim = box_claim(np.full(inputs, start), np.ones(inputs), ONE)
    spec = Specification(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            label: rigorous.check(
                checker, propose(checker, [claim], method.bound(network, region_of(claim), spec), semantics)
            )[0]
            for label, method in METHOD_CASES.items()
        }


FALSE_CLAIMS: dict[str, Callable[[], Network]] = {
    **{f"path-absorber-{w}": lambda w=w: path_absorber(w, 10.0, 5.0) for w in range(20, 61, 2)},
    **{
        f"path-absorber-{w}-{''.join(map(str, order))}": lambda w=w, order=order: path_absorber(w, 10.0, 5.0, order)
        for w in (27, 54, 56, 60)
        for order in itertools.permutations(range(3))
    },
    **{f"absorber-{w}": lambda w=w: absorber(w, 10.0, 5.0) for w in range(20, 61, 4)},
    **{f"line-{k}": lambda k=k: rescaled_line(k, 5.0) for k in range(-44, 45, 4)},
    **{f"line-tie-{k}": lambda k=k: rescaled_line(k, 10.0) for k in (-44, -30, 0, 30, 44)},
    **{f"plateau-{n}": lambda n=n: plateau(n, 2.0**-27) for n in (2, 10)},
    "plateau-small": lambda: plateau(4, 2.0**-40),
    "valley-tie": lambda: valley(0.0),
    "valley-below": lambda: valley(2.0**-28),
    "valley-just-below": lambda: valley(2.0**-50),
    **{f"big-m-{p}": lambda p=p: big_m(p, 1.0) for p in (4, 20, 40)},
    "overflow-float32": lambda: long_path(2.0**120, 2.0**20, 10.0, 5.0),
    "overflow-float64": lambda: long_path(2.0**1000, 2.0**500, 10.0, 5.0),
}


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", FALSE_CLAIMS)
def test_false_claims_of_hand_made_networks_are_never_accepted(name: str, semantics: str) -> None:
    network = FALSE_CLAIMS[name]()
    # The least value is at the middle of the valley and at the upper corner of the others.
    worst = np.full(network.input_size, 0.5 if name.startswith("valley") else 1.0)
    value = exact_margins(network, worst, np.ones((1, 1)), np.zeros(1))
    assert value[0] <= 0
    # From 1/4 on, neurons of the paths are active beyond any rounding, so that nothing but sums can go wrong.
    for start in (0.0, 0.25):
        for label, outcome in hand_checked(network, semantics, start).items():
            assert not outcome.accepted, label
            assert_below(outcome.margins, value, label)


TRUE_CLAIMS: dict[str, tuple[Callable[[], Network], float]] = {
    **{f"path-absorber-{w}": (lambda w=w: path_absorber(w, 10.0, 15.0), 5.0) for w in (20, 26, 30)},
    **{f"absorber-{w}": (lambda w=w: absorber(w, 10.0, 15.0), 5.0) for w in (20, 30)},
    **{f"line-{k}": (lambda k=k: rescaled_line(k, 15.0), 5.0) for k in range(-44, 45, 4)},
    **{f"reverse-absorber-{w}": (lambda w=w: reverse_absorber(w, 10.0, 5.0), 5.0) for w in (20, 25, 30)},
    "valley-above": (lambda: valley(-(2.0**-28)), 2.0**-28),
}


@pytest.mark.parametrize("name", TRUE_CLAIMS)
def test_true_claims_of_hand_made_networks_are_accepted(name: str) -> None:
    build, minimum = TRUE_CLAIMS[name]
    outcomes = hand_checked(build())
    # Interval arithmetic cannot cancel two paths; the dual lines are exact on stable neurons.
    for label in ("dual", "crown", "alpha"):
        assert outcomes[label].accepted, (label, outcomes[label].margins)
        assert float(outcomes[label].margins[0]) <= minimum
        assert float(outcomes[label].margins[0]) == pytest.approx(minimum, rel=1e-3)


@pytest.mark.parametrize("w", [54, 56, 60])
def test_a_path_that_float64_loses_is_not_proved_although_the_claim_is_true(w: int) -> None:
    outcomes = hand_checked(path_absorber(w, 10.0, 15.0))
    assert not any(outcome.accepted for outcome in outcomes.values())


@pytest.mark.parametrize("w", [25, 30])
def test_float32_semantics_refuses_what_float32_evaluates_otherwise(w: int) -> None:
    network = reverse_absorber(w, 10.0, 5.0)
    assert float(network.to(torch.float32).forward(torch.ones(1, 1))) == -5.0
    assert not any(outcome.accepted for outcome in hand_checked(network, "float32").values())
    assert hand_checked(network)["crown"].accepted


@pytest.mark.parametrize("name", ["dense", "deep", "conv"])
def test_a_rescaled_layer_pair_has_the_same_outcome(name: str) -> None:
    network, _, claims = case(name, "inf", None)
    rule = BoundResult(torch.zeros(2, 2), {}, Multipliers("crown"))

    def margins(twin: Network) -> np.ndarray:
        checker = checker_of(twin)
        return np.stack([o.margins for o in rigorous.check(checker, propose(checker, claims, rule))])

    expected = margins(network)
    for layer, k in itertools.product(range(len(network.relus)), range(-44, 45, 4)):
        np.testing.assert_allclose(margins(rescaled(network, layer, k)), expected, rtol=1e-9, atol=1e-9)
