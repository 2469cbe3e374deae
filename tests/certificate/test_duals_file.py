"""Stored multipliers in the file and on the way to it: round trips, refusals, and what methods propose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from checking import checker_of, propose, region_of
from lp_certificates import case, checked_bounds, ends, lp_lemmas, margins, proof_of
from networks import CLASSES, NETWORKS, Array
from small_certificates import (
    affine_net,
    box,
    certificate,
    duals,
    leaf,
    lemma,
    plain,
    positive,
    slopes,
    table_values,
)
from triangle import relaxation

from lpverify.bounds import AlphaBound, BoundResult, CrownBound, Multipliers
from lpverify.bounds.base import LemmaRows
from lpverify.certificate import exact, rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.container import RawArray, pack, unpack
from lpverify.certificate.proof import Certificate, Leaf, decode
from lpverify.errors import CertificateError
from lpverify.network import Network
from lpverify.problem import LayerBounds, Specification

NETWORK, CLAIM = case("deep")
RICH = proof_of(
    NETWORK, CLAIM,
    leaf([1, 0], slopes(2, [1], [[1], [0]]),
         duals(2, [0, 3], [[1, -2], [0.5, 0]]), duals(6, [1], [[1e300], [0]], np.float64)),
)  # fmt: skip
RICH = replace(RICH, lemmas=(lemma(4, [2], [1], [slopes(2, [2], [[0.5]]), duals(2, [1, 2], [[3, -3]])]),))


def old_file(proof: Certificate) -> bytes:
    """The certificate as version 1 wrote it."""
    packed = unpack(proof.encode())
    header = copy.deepcopy({**packed.header, "version": 1})
    for owner in (header["tree"], *header["lemmas"]):
        assert owner.pop("duals") == []
    return pack(header, packed.arrays)


def test_a_round_trip_keeps_every_multiplier() -> None:
    again = decode(RICH.encode())
    assert again.encode() == RICH.encode()
    for kept, made in zip(again.tables(), RICH.tables(), strict=True):
        assert type(kept) is type(made) and kept.node == made.node
        assert kept.values.dtype == made.values.dtype and kept.values.values() == made.values.values()
    assert unpack(RICH.encode()).header["version"] == 2


def test_files_of_version_1_are_still_read() -> None:
    for method in (CrownBound(), AlphaBound(steps=4, intermediate=True)):
        labels = Specification.label(torch.tensor([0]), CLASSES)
        (proof,) = propose(checker_of(NETWORK), [CLAIM], method.bound(NETWORK, region_of(CLAIM), labels))
        again = decode(old_file(proof))
        assert again.encode() == proof.encode()


def edited(change: Callable[[dict[str, Any]], None], *more: RawArray) -> bytes:
    """RICH's file with a changed header; arrays ``more`` are the last ones."""
    packed = unpack(RICH.encode())
    header = copy.deepcopy(packed.header)
    change(header)
    return pack(header, [*packed.arrays, *more])


COUNT = len(unpack(RICH.encode()).arrays)
LAST = {"array": COUNT}


def set_leaf(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["tree"]["duals"][0].update({field: value})


def raw(values: Any, dtype: str) -> RawArray:
    array = np.array(values, dtype)
    return RawArray(dtype, array.shape, array.tobytes())


MALFORMED: list[tuple[Callable[[dict[str, Any]], Any], Sequence[RawArray], str]] = [
    (lambda h: h.update(version=1), [], "the tree is not a single leaf with rows and slopes$"),
    (lambda h: h["tree"].pop("duals"), [], "the tree is not a single leaf with rows and duals and slopes"),
    (lambda h: h["lemmas"][0].pop("duals"), [], "a lemma has unknown or missing fields"),
    (lambda h: h["tree"].update(duals={}), [], "duals are not a list"),
    (lambda h: h["tree"].update(duals=None), [], "duals are not a list"),
    (lambda h: h["tree"].update(duals=[[]]), [], "duals have unknown or missing fields"),
    (lambda h: h["tree"]["duals"][0].pop("values"), [], "duals have unknown or missing fields"),
    (set_leaf("extra", 0), [], "duals have unknown or missing fields"),
    (set_leaf("node", -1), [], "-1 is not a node"),
    (set_leaf("node", True), [], "True is not a node"),
    (set_leaf("node", 6), [], "duals of node 6 are given twice"),
    (set_leaf("values", LAST), [raw([[1, 2, 3]] * 2, "<f4")], r"duals are <f4 \(2, 3\)"),
    (set_leaf("values", LAST), [raw([[1, 2]], "<f4")], r"duals are <f4 \(1, 2\)"),
    (set_leaf("values", LAST), [raw([1, 2], "<f4")], "expected 2 axes"),
    (set_leaf("values", LAST), [raw([[1, 2]] * 2, "<u2")], "duals are <u2"),
    (set_leaf("values", LAST), [raw([[1, 2]] * 2, "<i8")], "duals are <i8"),
    (set_leaf("values", LAST), [raw([[1, 2], [np.nan, 0]], "<f4")], "a multiplier of node 2 is not finite"),
    (set_leaf("values", LAST), [raw([[1, 2], [np.inf, 0]], "<f8")], "a multiplier of node 2 is not finite"),
    (set_leaf("values", LAST), [raw([[1, 2], [-np.inf, 0]], "<f4")], "a multiplier of node 2 is not finite"),
    (set_leaf("neurons", LAST), [raw([3, 0], "<i4")], "the neurons of duals do not rise"),
    (set_leaf("neurons", LAST), [raw([3, 3], "<i4")], "the neurons of duals do not rise"),
    (set_leaf("neurons", LAST), [raw([-1, 3], "<i4")], "an index array"),
    (set_leaf("neurons", LAST), [raw([0, 3], "<i8")], "an index array is <i8"),
    (set_leaf("neurons", {"array": COUNT + 1}), [raw([0, 3], "<i4")], "refers to no array"),
]


@pytest.mark.parametrize(("change", "more", "message"), MALFORMED)
def test_malformed_multipliers_are_refused(
    change: Callable[[dict[str, Any]], Any], more: Sequence[RawArray], message: str
) -> None:
    with pytest.raises(CertificateError, match=message) as caught:
        decode(edited(change, *more), "f")
    assert str(caught.value).startswith("f: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("own", [leaf([0, 1], duals(1, [0], [[1], [1]])), leaf([0, 1], duals(2, [4], [[1], [1]])),
                                 leaf([0, 1], duals(99, [0], [[1], [1]]))])  # fmt: skip
def test_multipliers_of_neurons_that_are_none_are_refused(own: Leaf) -> None:
    for proof in (replace(RICH, leaf=own), replace(RICH, lemmas=(lemma(4, [0, 1], [0, 0], own.duals),))):
        outcome = rigorous.check(checker_of(NETWORK), [proof])[0]
        assert not outcome.accepted and "node" in outcome.message
        with pytest.raises(CertificateError, match="node"):
            exact.check(plain(NETWORK), proof)


def test_multipliers_override_slopes_and_only_where_they_are_given() -> None:
    node, bare = NETWORK.relus[0], proof_of(NETWORK, CLAIM, leaf([]))
    width = range(NETWORK.sizes[node])
    table = duals(node, [0, 2], [[0.25, -0.5]] * 2)
    over = [margins(NETWORK, replace(bare, leaf=leaf([0, 1], slopes(node, width, [[s, 0.5, s, 0.5]] * 2), table)))
            for s in (0.0, 1.0)]  # fmt: skip
    assert over[0][0].tolist() == over[1][0].tolist() and over[0][1] == over[1][1]
    none = margins(NETWORK, replace(bare, leaf=leaf([0, 1], duals(node, [], np.zeros((2, 0))))))
    assert none[0].tolist() == margins(NETWORK, bare)[0].tolist()
    # A lemma's multipliers above the neurons that it bounds are never reached.
    above = lemma(4, [0], [0], [duals(6, [0], [[1e30]])])
    assert (
        margins(NETWORK, replace(bare, lemmas=(above,)))[1]
        == margins(NETWORK, replace(bare, lemmas=(lemma(4, [0], [0]),)))[1]
    )


# From the engines' side


def proposed(network: Network, claim: Claim, lemmas: bool) -> tuple[BoundResult, Array]:
    """A method's result that has multipliers alone: the duals of the relaxation on CROWN's bounds."""
    labels = Specification(*(torch.from_numpy(t)[None] for t in rigorous.claim_rows(claim)))
    result = CrownBound().bound(network, region_of(claim), labels)
    proof, _ = lp_lemmas(network, claim) if lemmas else (proof_of(network, claim, leaf([])), {})
    stored = []
    for each in proof.lemmas:
        wide = {t.node: torch.tensor(table_values(t))[None] for t in each.duals}
        neurons, sides = (torch.tensor(t.values())[None].long() for t in (each.neurons, each.sides))
        first = torch.zeros(1, dtype=torch.long)
        stored.append(LemmaRows(each.node, first, neurons, sides, torch.ones_like(neurons).bool(), {}, wide))
    bounds = checked_bounds(network, proof)
    layers = {k: LayerBounds(*(torch.from_numpy(t)[None] for t in pair)) for k, pair in bounds.items()}
    C, d = rigorous.claim_rows(claim)
    solved = [relaxation(network, ends(claim), bounds, c) for c in C]
    optimum = np.array([s.optimum for s in solved]) + d
    own = {k: torch.from_numpy(np.stack([s.duals[k] for s in solved]))[None] for k in bounds}
    # Lemmas are given at neurons that CROWN finds unstable, the leaf's multipliers at those that still are.
    multipliers = Multipliers("crown", {}, tuple(stored), own)
    return replace(result, layers=layers if not lemmas else result.layers, multipliers=multipliers), optimum


@pytest.mark.parametrize("lemmas", [False, True])
@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "affine"])
def test_a_method_that_has_multipliers_alone_is_certified(name: str, lemmas: bool) -> None:
    network, claim = case(name, 2)
    result, optimum = proposed(network, claim, lemmas)
    (proof,) = propose(checker_of(network), [claim], result)
    assert list(proof.leaf.rows.values()) == [0, 1] and not proof.leaf.slopes
    assert {t.node for t in proof.leaf.duals} == {k for k, x in result.layers.items() if bool(x.unstable.any())}
    for found in margins(network, proof):
        np.testing.assert_allclose(np.array(found, float), optimum, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("values", "dtype", "stored"),
    [
        ([[1.0, -0.1]], "<f4", [1.0, float(np.float32(-0.1))]),
        ([[0.0, 0.0]], "<f4", [0.0, 0.0]),
        ([[1.0, 1e31]], "<f8", [1.0, 1e31]),
        ([[1e-31, -1e-40]], "<f8", [1e-31, -1e-40]),
        ([[1.0, -1e-40]], "<f4", [1.0, float(np.float32(-1e-40))]),
        ([[np.nan, np.inf]], "<f4", [0.0, 0.0]),
        ([[-np.inf, 0.1]], "<f4", [0.0, float(np.float32(0.1))]),
    ],
)
def test_multipliers_are_stored_in_float32_where_it_is_wide_enough(
    values: Any, dtype: str, stored: list[float]
) -> None:
    network = affine_net(([[1.0], [-1.0], [1.0]], [0.0, 0.0, 9.0]), ([[1.0, 1.0, 1.0]], [0.0]))
    claim = certificate(plain(network), box([-1.0], [1.0]), positive(network)).claim
    spec = Specification(torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double())
    result = CrownBound().bound(network, region_of(claim), spec)
    wide = torch.tensor([[[*values[0], 7.0]]], dtype=torch.float64)
    both = Multipliers("crown", {2: torch.ones(1, 1, 3)}, (), {2: wide})
    (proof,) = propose(checker_of(network), [claim], replace(result, multipliers=both))
    assert not proof.leaf.slopes
    (table,) = proof.leaf.duals
    assert table.values.dtype == dtype and list(table.values.values()) == stored
    assert list(table.neurons.values()) == [0, 1]
