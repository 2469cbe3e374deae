"""Phase splits decide: trees that both checkers accept, in little memory, with refused leaves, and never a lie."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from deciding import SETTINGS, check_evidence
from enumeration import least
from networks import dense
from relaxed_networks import network_of, random_nodes, region_of, relaxed_of
from tiny_claims import KINDS, Tiny, random_region, random_rows, settled, tiny
from torch import Tensor

from lpverify.certificate.claim import Claim
from lpverify.certificate.rigorous_tree import Leaves, Root
from lpverify.certificate.tree import Tree
from lpverify.result import Verdict
from lpverify.search.ascent import Nodes, Pass, Relaxed
from lpverify.search.attack import attack_claim
from lpverify.search.branching import RANKING, ranks
from lpverify.search.relu_split import PhaseOptions, split_phases
from lpverify.search.route import Route
from lpverify.search.solve import Found, solve
from lpverify.search.task import Goal
from lpverify.session import Session


def decide(asked: Tiny, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 60.0, **changes: Any) -> tuple[Found, Any]:
    """Phase splits alone, with changed options and without an attack; and what the last search said."""
    outcomes: list[Any] = []

    def split(task: Any, clauses: Any, options: PhaseOptions | None = None) -> Any:
        outcomes.append(split_phases(task, clauses, replace(options or PhaseOptions(), **changes)))
        return outcomes[-1]

    monkeypatch.setattr("lpverify.search.solve.split_phases", split)
    monkeypatch.setattr("lpverify.search.solve.route", lambda *shape: Route.PHASES)
    with Session(asked.network, SETTINGS) as session:
        found = solve(session, asked.claim, deadline=time.perf_counter() + seconds, attack_first=False)
        check_evidence(session, asked.claim, found)
    return found, outcomes[-1] if outcomes else None


def shallow(kind: str, seed: int, distance: float) -> Tiny:
    """One layer of up to eight ReLUs."""
    network, rng = dense(seed, 3, 5 + seed % 4, 3).detach().to(torch.float64), np.random.default_rng(seed)
    claim = Claim(random_region("box", 3, rng), random_rows(kind, 3, rng))
    network, claim = settled(network, claim, distance)
    return Tiny(network, claim, least(network, claim).value, f"shallow {kind} {seed} {distance}")


def splits_by_depth(tree: Tree) -> list[set[int]]:
    """The neurons that are split at each depth."""
    found: dict[int, set[int]] = {}
    depths, places = [0], iter(tree.places.values()[1::2])
    for kind in tree.kinds.values():
        depth = depths.pop()
        if kind:
            found.setdefault(depth, set()).add(next(places))
            depths += [depth + 1, depth + 1]
    return [found[depth] for depth in sorted(found)]


def verdict(asked: Tiny) -> Verdict:
    return Verdict.VERIFIED if asked.least > 0 else Verdict.FALSIFIED


@pytest.mark.parametrize("kind", ("label", "linear"))
@pytest.mark.parametrize(
    "changes", [{}, {"retighten": True}, {"batch": 1, "memory": 1}, {"candidates": 1}, {"few": 10**6}],
    ids=["default", "retighten", "narrow", "scores", "trials"],
)  # fmt: skip
def test_every_way_to_search_decides_the_same(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        asked = tiny("residual", kind, "box", 700 + seed, 0.01 * (-1) ** seed)
        found, _ = decide(asked, monkeypatch, **changes)
        assert found.verdict is verdict(asked), (asked.name, found.reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", (0.005, -0.005))
def test_one_layer_is_decided_as_by_enumeration(kind: str, distance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(8):
        asked = shallow(kind, 760 + seed, distance)
        found, _ = decide(asked, monkeypatch)
        assert found.verdict is verdict(asked), (asked.name, found.reason)


def test_one_layer_is_split_in_the_order_of_the_gains_at_its_clauses_root(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: dict[int, Tensor] = {}

    def recorded(relaxed: Relaxed, root: Nodes, found: Pass, batch: int) -> Tensor:
        assert len(root) == 1 and not root.signs.any()
        ranked[int(root.clause)] = ranks(relaxed, root, found, batch)
        return ranked[int(root.clause)]

    monkeypatch.setattr("lpverify.search.relu_split.ranks", recorded)
    deepest = 0
    for seed in range(6):
        ranked.clear()
        _, outcome = decide(shallow("label", 780 + seed, 0.002), monkeypatch, programs=0)
        trees = [tree for tree in outcome.trees if tree.num_leaves > 1] if outcome is not None else []
        for tree, clause in zip(trees, sorted(ranked), strict=True):
            ((_, neurons),) = tree.columns
            order = [neurons.values()[i] for i in ranked[clause].argsort(descending=True).tolist()]
            levels = splits_by_depth(tree)
            assert levels == [{neuron} for neuron in order[: len(levels)]]
            deepest = max(deepest, len(levels))
    assert deepest >= 3


def test_stacked_relus_are_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*args: Any) -> Tensor:
        raise AssertionError("ranked")

    monkeypatch.setattr("lpverify.search.relu_split.ranks", unwanted)
    asked = tiny("residual", "linear", "box", 700, 0.02)
    found, outcome = decide(asked, monkeypatch)
    assert found.verdict is Verdict.VERIFIED and outcome.nodes > 0


@pytest.mark.parametrize("batch", (1, 3))
def test_ranks_are_the_same_in_any_batches_and_say_what_both_children_gain(batch: int) -> None:
    network = network_of("dense", 3)
    relaxed, _ = relaxed_of(network, region_of("inf", network.input_size, 3), 3)
    nodes, _ = random_nodes(relaxed, 1, 3, 0.0)
    found = relaxed.run(nodes)
    gains = ranks(relaxed, nodes, found, batch)
    assert gains.shape == (relaxed.width,) and relaxed.width > batch
    assert torch.allclose(gains, ranks(relaxed, nodes, found, 10**6), rtol=1e-9, atol=0)
    column = int(gains.argmax())
    _, reached = relaxed.ascend(relaxed.children(nodes, found, torch.tensor([column])), RANKING)
    low, high = ((bound.clamp(max=0) - found.bound[0]).item() for bound in reached.bound)
    assert gains[column].item() == pytest.approx(low * high, rel=1e-6) and low > 0 and high > 0


def test_proofs_have_one_tree_a_clause_and_its_bounds_say_how_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    for retighten in (False, True):
        for seed in range(6):
            asked = tiny("plane", "linear", "box", 720 + seed, 0.005)
            _, outcome = decide(asked, monkeypatch, retighten=retighten)
            for tree in outcome.trees if outcome is not None else ():
                assert isinstance(tree, Tree) and tree.bounds == ("leaf" if retighten else "root")
                assert tree.clauses.shape == (1,)
                seen += 1
    assert seen >= 6


def test_leaves_that_the_checker_refuses_are_split_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first leaves are refused for no reason: the proof is larger, and accepted."""
    asked = tiny("residual", "linear", "box", 700, 0.02)
    plain, _ = decide(asked, monkeypatch)
    assert plain.verdict is Verdict.VERIFIED and plain.method == "phase splits"
    bounds, refused = Root.bounds, 0

    def strict(self: Root, leaves: Leaves, *args: Any, **options: Any) -> Any:
        nonlocal refused
        refused += 1
        return bounds(self, leaves, *args, **options) - (1e6 if refused <= 2 else 0.0)

    monkeypatch.setattr(Root, "bounds", strict)
    found, _ = decide(asked, monkeypatch)
    assert refused > 2 and found.verdict is Verdict.VERIFIED and found.leaves > plain.leaves


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_lies_proves_nothing_false(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bounds too large by 1000: every node seems proved, and the checker refuses it."""
    honest = Relaxed.run

    def lying(self: Relaxed, *args: Any, **options: Any) -> Any:
        found = honest(self, *args, **options)
        return replace(found, bound=found.bound + 1e3)

    monkeypatch.setattr(Relaxed, "run", lying)
    for seed in range(3):
        for sign in (1, -1):
            asked = tiny("plane", kind, "box", 740 + seed, 0.02 * sign)
            found, _ = decide(asked, monkeypatch, seconds=10.0)
            assert found.verdict in (verdict(asked), Verdict.UNKNOWN)


def test_without_time_nothing_is_decided_and_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tiny("residual", "linear", "box", 700, 0.02)
    found, outcome = decide(asked, monkeypatch, nodes=2)
    assert found.verdict is Verdict.UNKNOWN and "nodes open" in found.reason and not outcome.proved


@pytest.mark.parametrize("constant", ("CHECK_SHARE", "LEAF_SECONDS"))
def test_the_search_ends_while_there_is_time_to_check_its_proof(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves that are said to take ages to check once more leave no time to find others."""
    asked = tiny("residual", "linear", "box", 700, 0.02)
    monkeypatch.setattr(f"lpverify.search.phase_proofs.{constant}", 1e9)
    found, outcome = decide(asked, monkeypatch, batch=1)
    assert found.verdict is Verdict.UNKNOWN and found.reason.startswith("timeout with") and outcome.nodes > 0


def test_descents_begin_at_the_searchs_points_and_keep_to_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, share, spent, starts = tiny("residual", "linear", "box", 700, 0.02), 0.25, [0.0], []
    began = time.perf_counter()

    def attack(goal: Goal, *, start: Tensor, **options: Any) -> bool:
        assert bool((start >= goal.region.lower - 1e-6).all() and (start <= goal.region.upper + 1e-6).all())
        # Its last call alone may pass the share.
        assert spent[0] <= share * (time.perf_counter() - began)
        time.sleep(0.01)
        spent[0] += 0.01
        starts.append(start)
        return False

    for name, value in (("DESCENT_SHARE", share), ("DESCENT_SECONDS", 0.0), ("attack_claim", attack)):
        monkeypatch.setattr(f"lpverify.search.relu_split.{name}", value)
    found, _ = decide(asked, monkeypatch, batch=1)
    assert found.verdict is Verdict.VERIFIED and starts and all(len(start) for start in starts)


def test_a_descent_decides_what_no_node_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of nodes are never tried: only descents are left to find the counterexample."""
    asked, goals = tiny("residual", "linear", "box", 701, -0.02), []

    def attack(goal: Goal, **options: Any) -> bool:
        goals.append(goal)
        monkeypatch.setattr(Goal, "try_points", honest)
        return attack_claim(goal, **options)

    honest = Goal.try_points
    for name, value in (("DESCENT_SHARE", 1e9), ("attack_claim", attack)):
        monkeypatch.setattr(f"lpverify.search.relu_split.{name}", value)
    monkeypatch.setattr("lpverify.search.solve.attack_claim", lambda *args, **options: False)
    monkeypatch.setattr(Goal, "try_points", lambda *args: False)
    found, outcome = decide(asked, monkeypatch)
    assert goals and outcome.falsified and found.verdict is Verdict.FALSIFIED
