"""The growing proof tree: what it writes, how it bounds its memory, and what happens when there is no room."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deciding import decide
from tiny_claims import tiny

from lpverify.certificate.container import RawArray
from lpverify.certificate.tree import LEAF, walk
from lpverify.errors import ResourceError, ShapeError
from lpverify.result import Verdict
from lpverify.search import row_store
from lpverify.search.route import Route
from lpverify.search.row_store import Room, RowStore
from lpverify.search.tree import LeafProof, TreeBuilder


def read(raw: RawArray) -> np.ndarray[Any, np.dtype[Any]]:
    return np.frombuffer(raw.data, dtype=raw.dtype).reshape(raw.shape)


def grown(random: np.random.Generator, builder: TreeBuilder, leaves: int, columns: int) -> dict[int, LeafProof]:
    """Split nodes at random and close all leaves in random order; what each node was closed with."""
    open_nodes, proofs = [0], {}
    for neuron in range(leaves - 1):
        node = open_nodes.pop(int(random.integers(len(open_nodes))))
        open_nodes += builder.split_phase(node, 1, neuron)
    for node in random.permutation(open_nodes).tolist():
        count, depth = int(random.integers(1, 4)), len(builder.path(node))
        kinds = random.integers(0, 2, 3)
        proofs[node] = LeafProof(
            tuple(random.integers(-1, 5, count).tolist()),
            random.integers(1, 3, (count, 2)).astype(np.float64) if kinds[0] else None,
            random.integers(0, 3, (count, columns)).astype(np.uint16) if kinds[1] else None,
            random.standard_normal((count, columns)).astype(np.float32) if kinds[2] else None,
            random.standard_normal((count, depth)).astype(np.float32),
        )
        builder.close(node, proofs[node])
    return proofs


@pytest.mark.parametrize("piece", [1, 100, 2**22])
def test_every_leaf_is_written_with_what_it_was_closed_with(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "PIECE", piece)
    random = np.random.default_rng(0)
    for _ in range(20):
        builder = TreeBuilder()
        proofs = grown(random, builder, int(random.integers(1, 30)), 4)
        tree = builder.encode([0], "root", [(1, np.arange(4))])
        tables = {name: read(getattr(tree, name)) for name in ("rows", "combos", "slopes", "slope_of", "duals",
                                                               "dual_of", "phases", "counts")}  # fmt: skip
        nodes = [node for node in builder.preorder() if builder.kinds[node] == LEAF]
        assert len(nodes) == tree.num_leaves == builder.leaves == len(list(walk(bytes(tree.kinds.data))))
        ends, at_phase = np.cumsum([0, *tables["counts"]]).tolist(), 0
        for node, (start, stop) in zip(nodes, pairwise(ends), strict=True):
            proof, rows = proofs[node], slice(start, stop)
            assert stop - start == len(proof.rows)
            if proof.weights is None:
                assert tuple(tables["rows"][rows].tolist()) == proof.rows
            else:
                assert (tables["combos"][-2 - tables["rows"][rows]] == proof.weights).all()
            for table, own in (("slope", proof.slopes), ("dual", proof.duals)):
                used = tables[f"{table}_of"][rows]
                assert (used == -1).all() if own is None else (tables[f"{table}s"][used] == own).all()
            assert proof.phases is not None
            assert (tables["phases"][at_phase : at_phase + proof.phases.size] == proof.phases.ravel()).all()
            at_phase += proof.phases.size
        assert at_phase == len(tables["phases"])
        for name in ("slopes", "duals", "combos"):
            assert len(np.unique(tables[name], axis=0)) == len(tables[name])


def test_a_leaf_without_proof_is_not_written() -> None:
    builder = TreeBuilder()
    left, right = builder.split_input(0, 3, 0.5)
    builder.close(left, LeafProof((0,)))
    with pytest.raises(KeyError, match=str(right)):
        builder.encode([0], "leaf")


def test_rows_already_read_are_not_changed_by_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "PIECE", 8)
    store, rows = RowStore("<u2", Room()), np.arange(30, dtype=np.uint16).reshape(10, 3)
    assert [store.add(row) for row in rows[:6]] == list(range(6))
    early = store.array()
    assert [store.add(row) for row in rows] == list(range(10))
    assert (read(early) == rows[:6]).all()
    assert (read(store.array(3)) == rows).all()
    with pytest.raises(ShapeError, match="3 entries"):
        store.add(np.zeros(4, dtype=np.uint16))
    with pytest.raises(ShapeError, match="3 entries"):
        store.array(4)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(row_store, "PIECE", 8)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: SIM115
    builder = TreeBuilder()
    with pytest.raises(ResourceError, match=r"No space left on device.*TMPDIR"):
        builder.close(0, LeafProof((0,), slopes=np.zeros((1, 8), np.uint16)))


def test_trees_together_are_not_larger_than_their_room() -> None:
    room = Room(limit=2**20)
    first, second = TreeBuilder(room), TreeBuilder(room)
    first.close(0, LeafProof((0,), slopes=np.zeros((1, 2**18), np.uint16)))
    with pytest.raises(ResourceError, match="larger than 1 MiB"):
        second.close(0, LeafProof((0,), slopes=np.ones((1, 2**18), np.uint16)))


def test_splits_without_leaves_need_room_too() -> None:
    builder, node = TreeBuilder(Room(limit=520)), 0
    for index in range(10):
        node, _ = builder.split_input(node, index, 0.5)
    with pytest.raises(ResourceError, match="larger than 0 MiB"):
        builder.split_input(node, 10, 0.5)


@pytest.mark.parametrize("way", [Route.INPUTS, Route.PHASES])
def test_a_search_without_room_for_its_proof_ends_in_unknown(way: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tree", "phase_proofs"):
        monkeypatch.setattr(f"lpverify.search.{module}.Room", partial(Room, 24))
    seen = set()
    for seed in range(8):
        asked = tiny("residual", "linear", "box", 700 + seed, 0.01)
        found = decide(asked.network, asked.claim, route=way)
        if found.verdict is Verdict.UNKNOWN:
            seen.add(found.reason)
    assert seen == {"the proof has become larger than 0 MiB"}
