"""The pool of open nodes: everything put in comes out once, the worst is never left behind, memory is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lpverify.search.ascent import Nodes
from lpverify.search.pool import START_ROWS, Pool

WIDTH, ROWS = 5, 2
PLENTY = 2**30


def nodes(count: int, seed: int = 0) -> Nodes:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    signs = torch.randint(-1, 2, (count, WIDTH), generator=generator, dtype=torch.int8)
    # Slopes that half precision holds exactly.
    slopes = torch.randint(0, 65, (count, WIDTH), generator=generator) / 64
    clause = torch.randint(0, 3, (count,), generator=generator)
    splits, weights = uniform(count, WIDTH), uniform(count, ROWS)
    return Nodes(signs, slopes, splits, weights, clause, -uniform(count, WIDTH), uniform(count, WIDTH))


@pytest.mark.parametrize("bounds", [0, WIDTH])
def test_everything_comes_out_once_as_it_was(bounds: int) -> None:
    pool, count = Pool(WIDTH, ROWS, bounds, PLENTY), 3 * START_ROWS + 7
    given, values = nodes(count), np.random.default_rng(0).normal(size=count)
    numbers = np.arange(count) + 100
    for part in np.array_split(np.arange(count), 5):
        pool.put(given.select(torch.as_tensor(part)), values[part], numbers[part])
    assert len(pool) == count and pool.least == values.min()
    seen: list[int] = []
    while len(pool):
        before = len(pool)
        taken, bound, number = pool.take(500)
        assert len(taken) == len(bound) == len(number) == min(500, before) == before - len(pool)
        at = number - 100
        seen += at.tolist()
        assert np.array_equal(bound, values[at])
        own = given.select(torch.as_tensor(at))
        for name in ("signs", "slopes", "splits", "weights", "clause"):
            assert torch.equal(getattr(taken, name).to(getattr(own, name)), getattr(own, name)), name
        if bounds:
            assert torch.equal(taken.lower, own.lower) and torch.equal(taken.upper, own.upper)
    assert sorted(seen) == list(range(count)) and pool.least == np.inf


def test_the_worst_is_always_among_those_taken() -> None:
    pool = Pool(WIDTH, ROWS, 0, PLENTY)
    values = np.random.default_rng(1).permutation(300).astype(float) - 400
    pool.put(nodes(300), values, np.arange(300))
    while len(pool):
        least = pool.least
        assert least in pool.take(16)[1] and not pool.least <= least


def test_in_full_memory_nodes_nearest_to_their_proof_are_taken() -> None:
    pool = Pool(WIDTH, ROWS, 0, 1)
    assert pool.limit == START_ROWS
    values = -np.random.default_rng(2).permutation(START_ROWS + 50).astype(float) - 1
    pool.put(nodes(START_ROWS), values[:START_ROWS], np.arange(START_ROWS))
    assert pool.is_full
    pool.put(nodes(50), values[START_ROWS:], np.arange(50) + START_ROWS)
    _, bound, _ = pool.take(20)
    assert sorted(bound) == sorted(values)[-20:]


def test_depth_first_the_pool_grows_by_no_more_than_a_nodes_depth() -> None:
    """Where each node taken gives two children, nearer to their proof, and at a depth of 12 none."""
    pool = Pool(WIDTH, ROWS, 0, 1)
    start, depth = START_ROWS, 12
    pool.put(nodes(start), np.full(start, -float(depth)), np.arange(start))
    most, taken = len(pool), 0
    while len(pool) and taken < 20_000:
        _, bound, _ = pool.take(4)
        taken += len(bound)
        children = np.repeat(bound[bound < -1], 2) + 1
        if len(children):
            pool.put(nodes(len(children)), children, np.zeros(len(children), np.int64))
        most = max(most, len(pool))
    assert most <= start + 4 * depth


def test_bounds_that_are_not_numbers_are_the_worst() -> None:
    pool = Pool(WIDTH, ROWS, 0, PLENTY)
    pool.put(nodes(4), np.array([-1.0, np.nan, -np.inf, -2.0]), np.arange(4))
    assert len(pool) == 4
    taken = pool.take(4)
    assert len(pool) == 0 and sorted(taken[2]) == [0, 1, 2, 3]
    # They are asked for again as bounds of children: never above 0.
    assert not (taken[1] > 0).any()


def test_taking_from_a_pool_without_columns() -> None:
    pool = Pool(0, 1, 0, PLENTY)
    empty = torch.zeros(3, 0)
    given = Nodes(empty.to(torch.int8), empty, empty, torch.ones(3, 1), torch.tensor([0, 1, 2]), empty, empty)
    pool.put(given, np.array([-1.0, -2.0, -3.0]), np.arange(3))
    assert sorted(pool.take(9)[0].clause.tolist()) == [0, 1, 2]
