"""Certificates, witnesses and network files: round trips, and what a changed byte or field can do."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_certificates import (
    ball,
    box,
    certificate,
    duals,
    least_sampled,
    lemma,
    mixed_network,
    plain,
    positive,
    rows,
    slopes,
)
from small_certificates import leaf as make_leaf
from small_networks import random_network

from lpverify.attack.exact import exact_margins
from lpverify.certificate.claim import LabelRows, LinearRows
from lpverify.certificate.container import MAGIC, RawArray, pack, unpack
from lpverify.certificate.exact import check, check_witness
from lpverify.certificate.graph import parse_network
from lpverify.certificate.proof import Certificate, Witness, decode, decode_witness
from lpverify.errors import CertificateError
from lpverify.network import Network
from lpverify.serialize import network_bytes, raw_array

NETWORK = random_network(5, (3, 4, 4, 3), torch.float32)
PLAIN = plain(NETWORK)


def rich_certificate() -> Certificate:
    """A certificate that uses every field: lemmas, stored slopes and multipliers, a clipped ball."""
    own = slopes(2, [0, 2, 3], [[0.25, 0.5, 1.0], [0.0, 0.125, 0.75]])
    given = duals(2, [1, 2], [[0.5, -0.25], [0.0, 1.5]])
    return certificate(
        PLAIN, ball([0.25, -0.125, 0.5], "0.3", "2", ("-1", "1")), LabelRows(1, 3),
        leaf=make_leaf([1, 0], own, slopes(4, [1], [[0.5], [0.25]]), duals(4, [0, 2], [[1, -0.5], [0, 2]], np.float64)),
        lemmas=(lemma(4, [0, 3], [0, 1], (own, given)),),
    )  # fmt: skip


def linear_certificate() -> Certificate:
    return certificate(PLAIN, box([0, 0, 0], [1, 0.5, 0]), rows([[1, -1, 0.5]], [2]), "dual", "float32")


def good_witness() -> Witness:
    claim = replace(linear_certificate().claim, rows=rows([[1, 0, 0]], [-100]))
    x = np.array([0.5, 0.25, 0])
    margin = float(exact_margins(NETWORK, x, np.array([[1.0, 0, 0]]), np.array([-100.0]))[0])
    return Witness(PLAIN.sha256, claim, raw_array(x), 0, margin, margin)


def header_of(data: bytes) -> tuple[dict[str, Any], tuple[RawArray, ...]]:
    packed = unpack(data)
    return packed.header, packed.arrays


def assert_sound(network: Network, proof: Certificate) -> bool:
    """No bound that the checker gives is above a value at a sampled point of the certificate's own claim.

    Returns whether there were bounds to compare.
    """
    try:
        outcome = check(PLAIN, proof)
    except CertificateError:
        return False
    if outcome.accepted:
        assert all(bound > 0 for bound in outcome.margins) and len(outcome.margins) == proof.claim.num_rows
    least = least_sampled(network, proof.claim, 6) if outcome.margins else None
    assert least is None or all(bound <= value for bound, value in zip(outcome.margins, least, strict=True))
    return least is not None


@pytest.mark.parametrize("make", [rich_certificate, linear_certificate])
def test_certificate_round_trip(make: Callable[[], Certificate]) -> None:
    proof = make()
    data = proof.encode()
    again = decode(data)
    assert again.encode() == data
    assert check(PLAIN, again) == check(PLAIN, proof)
    assert (again.rule, again.semantics, again.claim.num_rows) == (proof.rule, proof.semantics, proof.claim.num_rows)


def test_witness_round_trip() -> None:
    found = good_witness()
    again = decode_witness(found.encode())
    assert again.encode() == found.encode() and (again.margin, again.row) == (found.margin, 0)
    assert check_witness(PLAIN, again).accepted


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=True))
def test_margins_survive_exactly(margin: float, margin32: float) -> None:
    again = decode_witness(replace(good_witness(), margin=margin, margin_float32=margin32).encode())
    assert again.margin == margin and (again.margin_float32 == margin32 or margin32 != margin32)


def test_network_round_trip_keeps_every_kind_of_map() -> None:
    data = network_bytes(mixed_network())
    parsed = parse_network(data)
    assert [m.kind for node in parsed.nodes for m in node.maps].count("conv2d") == 2
    assert network_bytes(mixed_network()) == data and plain(mixed_network(1)).sha256 != parsed.sha256


@pytest.mark.parametrize("make", [rich_certificate, linear_certificate])
def test_no_changed_byte_makes_a_bound_unsound(make: Callable[[], Certificate]) -> None:
    """Every byte of the file changed once, then 1,000 times one or two bits among the arrays."""
    data, draw, refused, compared = make().encode(), random.Random(3), 0, 0
    start = 16 + int.from_bytes(data[8:16], "little")
    changes = [[(at, draw.randrange(1, 256))] for at in range(len(data))]
    for count in (1, 2) * 500:
        changes.append([(draw.randrange(start, len(data)), 1 << draw.randrange(8)) for _ in range(count)])
    for change in changes:
        mutated = bytearray(data)
        for at, flip in change:
            mutated[at] ^= flip
        try:
            proof = decode(bytes(mutated))
        except CertificateError:
            refused += 1
            continue
        compared += assert_sound(NETWORK, proof)
    assert refused > 500 and compared > 250


def test_no_changed_byte_makes_a_witness_of_a_point_that_is_none() -> None:
    data, draw, accepted = good_witness().encode(), random.Random(4), 0
    for at in range(len(data)):
        mutated = bytearray(data)
        mutated[at] ^= 1 << draw.randrange(8)
        try:
            found = decode_witness(bytes(mutated))
        except CertificateError:
            continue
        outcome = check_witness(PLAIN, found)
        accepted += outcome.accepted
        if outcome.accepted:
            assert isinstance(found.claim.rows, LinearRows)
            C, d = np.array([found.claim.rows.C.values()], float), np.array(found.claim.rows.d.values(), float)
            assert exact_margins(NETWORK, np.array(found.x.values(), float), C, d)[0] <= 0
    assert accepted < len(data) // 4


def change_everywhere(header: Any, values: list[Any]) -> list[Any]:
    """Every header in which one entry, at any depth, is replaced by one of ``values`` or left out."""
    changed: list[Any] = []
    keys = list(header) if isinstance(header, dict) else range(len(header))
    for key in keys:
        for value in values:
            changed.append(copy.copy(header))
            changed[-1][key] = value
        changed.append(copy.copy(header))
        del changed[-1][key]
        if isinstance(header[key], dict | list):
            for inner in change_everywhere(header[key], values):
                changed.append(copy.copy(header))
                changed[-1][key] = inner
    return changed


NUMBERS = [-1, 0, 1, 2**31, 2**70, 0.5, 1e308, True]
STRANGE = [None, *NUMBERS, "", "x", "1e999", "-0.5", [], [[]], {}, {"array": 0}, {"array": 3}]


def raw_file(header: Any, arrays: tuple[RawArray, ...]) -> bytes:
    text = json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + b"".join(bytes(a.data) for a in arrays)


@pytest.mark.parametrize("make", [rich_certificate, linear_certificate])
def test_no_changed_field_makes_a_bound_unsound(make: Callable[[], Certificate]) -> None:
    (header, arrays), compared = header_of(make().encode()), 0
    for changed in change_everywhere(header, STRANGE):
        try:
            proof = decode(raw_file(changed, arrays))
        except CertificateError as error:
            assert "\n" not in str(error)
            continue
        compared += assert_sound(NETWORK, proof)
    assert compared > 10


def test_changed_fields_of_witnesses_and_networks_are_refused_or_harmless() -> None:
    header, arrays = header_of(good_witness().encode())
    for changed in change_everywhere(header, STRANGE):
        try:
            check_witness(PLAIN, decode_witness(raw_file(changed, arrays)))
        except CertificateError as error:
            assert "\n" not in str(error)
    header, arrays = header_of(network_bytes(mixed_network()))
    proof = certificate(PLAIN, box([0] * 60, [1] * 60), LabelRows(0, 3))
    for changed in change_everywhere(header, STRANGE):
        try:
            network = parse_network(raw_file(changed, arrays))
            check(network, replace(proof, network=network.sha256))
        except CertificateError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "lpverify network"}, "not a lpverify certificate"),
        ({"version": 4}, "of version 1, 2 or 3"),
        ({"extra": 1}, "unknown or missing fields: extra"),
        ({"rule": "magic"}, "rule 'magic'"),
        ({"semantics": "float16"}, "semantics 'float16'"),
        ({"tree": {"rows": {"array": 1}, "slopes": [], "duals": [], "splits": []}}, "not a single leaf"),
        ({"claim": {"label": 3, "classes": 3}}, "label 3 of 3"),
        ({"claim": {"label": True, "classes": 3}}, "label True"),
    ],
)
def test_messages_name_what_is_wrong(change: dict[str, Any], message: str) -> None:
    header, arrays = header_of(rich_certificate().encode())
    with pytest.raises(CertificateError, match=message):
        decode(pack({**header, **change}, arrays), "f")


@pytest.mark.parametrize("eps", ["0,1", "nan", "inf", "-0.1", "", "1e9999", "0x1", "+1", " 1", "1_0", "١"])
def test_eps_must_be_a_decimal(eps: str) -> None:
    proof = certificate(PLAIN, ball([0, 0, 0], eps), positive(NETWORK))
    with pytest.raises(CertificateError):
        decode(proof.encode())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_must_be_finite(bad: float) -> None:
    for region, claim_rows in (
        (ball([0, bad, 0], "0.1"), LabelRows(0, 3)),
        (box([0, 0, 0], [1, 1, bad]), LabelRows(0, 3)),
        (box([0, 0, 0], [1, 1, 1]), rows([[1, bad, 0]], [0])),
        (box([0, 0, 0], [1, 1, 1]), rows([[1, 0, 0]], [bad])),
    ):
        with pytest.raises(CertificateError):
            decode(certificate(PLAIN, region, claim_rows).encode())


def test_lower_above_upper_by_the_least_is_refused() -> None:
    with pytest.raises(CertificateError, match="lower above upper"):
        decode(certificate(PLAIN, box([0, 0, np.nextafter(1, 2)], [1, 1, 1]), LabelRows(0, 3)).encode())
