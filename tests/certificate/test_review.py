"""False claims and hostile files that a checker once accepted or answered with something else than a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_certificates import (
    affine_net,
    ball,
    box,
    certificate,
    duals,
    leaf,
    least_sampled,
    lemma,
    mixed_network,
    plain,
    positive,
    rows,
    slopes,
)

from lpverify.certificate import exact, rigorous
from lpverify.certificate.container import RawArray, pack
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import Certificate, decode, decode_witness
from lpverify.errors import CertificateError
from lpverify.linear import Sparse
from lpverify.network import Affine, Input, Network
from lpverify.serialize import raw_array


def both(network: Network, proof: Certificate) -> tuple[bool, bool]:
    """Whether the rigorous and the exact checker accept a certificate after a round trip through its file."""
    parsed, again = plain(network), decode(proof.encode())
    return rigorous.check(rigorous.Network(parsed), [again])[0].accepted, exact.check(parsed, again).accepted


def test_a_lemma_whose_sum_overflows_to_infinity_proves_nothing() -> None:
    # h_i = relu(a x_i - a y_i - t/2) is 0 at the center, where z = 0.4 n t and the output 0.25 - 0.4 < 0. With the
    # stored slopes 1 the bound of -z adds n times a before any -a, so that float64 overflows upwards.
    n, a = 128, 0.99 * 2.0**1023
    t = 2.0**-13 * a
    first = np.concatenate([np.eye(n), -np.eye(n)], axis=1) * a
    network = affine_net(
        (first.tolist(), [-0.5 * t] * n), ([[-1.0] * n], [0.4 * n * t]), ([[-1.0 / (n * t)]], [0.25])
    )
    tight = lemma(4, [0], [1], (slopes(2, range(n), [[1.0] * n]),))
    region = ball([1.0] * (2 * n), "0.00006103515625")
    for rule in ("crown", "dual", "dual-tight", "interval"):
        proof = certificate(plain(network), region, positive(network), rule, lemmas=(tight,))
        assert both(network, proof) == (False, False)
    least = least_sampled(network, proof.claim, 1)
    assert least is not None and least[0] < 0


def test_rounding_is_charged_where_the_squares_of_the_center_underflow() -> None:
    # The exact value is 2^-45 (1 - 4 2^-54 - (1 - 2^-53)) < 0; added from the left float64 gets 2^-98.
    C = [2.0**500, *[-(2.0**446)] * 4, -(1 - 2.0**-53) * 2.0**500]
    network = Network((Input((6,)),))
    proof = certificate(plain(network), ball([2.0**-545] * 6, "0", "2"), rows([C], [0.0]))
    assert both(network, proof) == (False, False)


def test_interval_certificates_with_slopes_are_checked_in_a_batch() -> None:
    network = affine_net(([[1.0], [-1.0]], [0.0, 0.0]), ([[-1.0, -1.0]], [1.0]))
    parsed, own = plain(network), slopes(2, [0], [[0.5]])
    proofs = [
        certificate(parsed, ball([0.0], eps), rows([[1.0]], [0.0]), "interval", "real", leaf([0], own),
                    (lemma(2, [0, 1], [0, 1], (slopes(2, [0], [[1.0], [1.0]]),)),))
        for eps in ("0.01", "5")
    ]  # fmt: skip
    outcomes = rigorous.check(rigorous.Network(parsed), proofs)
    assert [o.accepted for o in outcomes] == [True, False]
    assert outcomes[1].margins[0] == pytest.approx(-9.0)


@pytest.mark.parametrize("node", [2, 4, 7])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_lemma_without_neurons_changes_nothing(node: int, norm: str) -> None:
    network = mixed_network()
    proof = certificate(
        plain(network), ball([0.5] * 60, "0.01", norm), rows([[1.0, 0.0, 0.0]], [9.0]), lemmas=(lemma(node, [], []),)
    )
    assert both(network, proof) == (True, True)


def test_a_lemma_that_bounds_a_side_twice_is_refused() -> None:
    network = mixed_network()
    proof = certificate(
        plain(network), ball([0.5] * 60, "0.01"), positive(network), lemmas=(lemma(2, [3, 4, 3], [0, 0, 0]),)
    )
    with pytest.raises(CertificateError, match="twice"):
        decode(proof.encode())


@pytest.mark.parametrize("eps", ["1e308", "1e309", "1e999"])
def test_a_radius_beyond_float64_is_not_proved(eps: str) -> None:
    network = affine_net(([[1.0]], [1.0]))
    assert both(network, certificate(plain(network), ball([0.0], eps), positive(network))) == (False, False)
    wide = certificate(plain(network), ball([0.0], "0.5", "inf", (f"-{eps}", eps)), positive(network))
    assert both(network, wide) == (True, True)


def test_a_margin_beyond_float64_is_refused_with_a_message() -> None:
    network = affine_net(*[([[2.0**1000]], [0.0])] * 3)
    outcome = exact.check(plain(network), certificate(plain(network), ball([1.0], "0"), rows([[-1.0]], [0.0])))
    assert not outcome.accepted and "-inf" in outcome.message


def test_rows_of_a_sparse_map_without_entries() -> None:
    pick = Sparse(torch.tensor([1]), torch.tensor([0]), torch.tensor([1.0]).double(), (2,), (2,))
    network = Network((Input((2,)), Affine((0,), (pick,), torch.tensor([1.0, 1.0]).double(), (2,))))
    proof = certificate(plain(network), ball([0.5, 0.5], "0.1"), positive(network))
    assert both(network, proof) == (True, True)


def test_a_witness_with_a_margin_that_is_no_float() -> None:
    header = {
        "format": "lpverify counterexample", "version": 1, "network": "", "claim": {"label": 0, "classes": 2},
        "region": {"kind": "box", "lower": {"array": 0}, "upper": {"array": 0}},
        "x": {"array": 0}, "row": 0, "margin": 10**400, "margin_float32": "0",
    }  # fmt: skip
    with pytest.raises(CertificateError, match="margins"):
        decode_witness(pack(header, [raw_array(np.zeros(1))]))


@pytest.mark.parametrize(("dtype", "tiny", "huge"), [(torch.float64, 1e-310, 1e308), (torch.float32, 1e-40, 1e38)])
def test_nothing_is_checked_where_subnormal_numbers_count_as_zero(dtype: torch.dtype, tiny: float, huge: float) -> None:
    # f = 0.001 - relu(tiny x) is about -0.009 at x = huge.
    network = affine_net(([[tiny]], [0.0]), ([[-1.0]], [0.001])).to(dtype)
    parsed, ready = plain(network), rigorous.Network(plain(network))
    proof = certificate(parsed, box([huge], [huge]), positive(network))
    assert both(network, proof) == (False, False)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers to zero")
    try:
        for attempt in (
            lambda: rigorous.check(ready, [proof]),
            lambda: rigorous.Network(parsed),
            lambda: exact.check(parsed, proof),
            lambda: decode(proof.encode()),
        ):
            with pytest.raises(CertificateError, match="subnormal"):
                attempt()
    finally:
        torch.set_flush_denormal(False)
    assert both(network, proof) == (False, False)


@pytest.mark.parametrize(("neurons", "message"), [([0, 0], "twice"), ([-1, 0], "no neuron -1")])
def test_a_neuron_listed_twice_in_memory_counts_once_or_is_refused(neurons: list[int], message: str) -> None:
    # f = relu(x) - 1.25 on [1, 2] is -0.25 at x = 1; counted twice the multiplier 0.5 would prove 0.25.
    network = affine_net(([[1.0]], [0.0]), ([[1.0]], [-1.25]))
    twice = leaf([0], duals(2, neurons, [[0.5, 0.5]]))
    proof = certificate(plain(network), box([1.0], [2.0]), positive(network), leaf=twice)
    outcome = rigorous.check(rigorous.Network(plain(network)), [proof])[0]
    assert not outcome.accepted and message in outcome.message
    if min(neurons) < 0:
        with pytest.raises(CertificateError, match=r"0\.\.0"):
            exact.check(plain(network), proof)
    else:
        assert not exact.check(plain(network), proof).accepted
    with pytest.raises(CertificateError):
        decode(proof.encode())


def convolution(in_shape: list[int], groups: int, padding: int, stride: int, weight: RawArray) -> bytes:
    channels = weight.shape[0]
    linear: dict[str, Any] = {
        "kind": "conv2d", "weight": {"array": 0}, "in_shape": in_shape, "stride": [stride, stride],
        "padding": [0, 0, padding, padding], "dilation": [1, 1], "groups": groups,
    }  # fmt: skip
    affine = {"kind": "affine", "inputs": [0], "shape": [channels], "bias": {"array": 1}, "maps": [linear]}
    header = {
        "format": "lpverify network", "version": 1, "nodes": [{"kind": "input", "shape": in_shape}, affine]
    }  # fmt: skip
    return pack(header, [weight, raw_array(np.zeros(channels))])


@pytest.mark.parametrize(
    "data",
    [
        convolution([1, 2**14, 2**14], 1, 0, 2**14, raw_array(np.ones((1, 1, 1, 1)))),
        convolution([1, 1, 1], 1, 2**38 - 1, 2**38, raw_array(np.ones((1, 1, 1, 1)))),
        convolution([40000, 1, 1], 40000, 0, 1, raw_array(np.ones((40000, 1, 1, 1)))),
        convolution([1, 0, 1], 1, 1, 1, raw_array(np.ones((1, 1, 1, 1)))),
    ],
    ids=["input", "padding", "groups", "empty"],
)
def test_small_network_files_that_would_take_much_memory_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateError, match=r"too large|no units"):
        parse_network(data)
