"""Part 3: tiny networks against the exact enumeration of activation patterns.

The least output is placed at a chosen distance from 0: a share of its range, less than a solver's tolerance, or as near
as the last bias allows.
"""

from __future__ import annotations

import numpy as np

from lpverify.bounds import METHODS
from lpverify.certificate.proof import SEMANTICS
from soundness.exact_minimum import least
from soundness.judging import ENGINES, Case, ask, ask_bounds
from soundness.layers import network_of, random_layers, with_constant
from soundness.report import Given, Tally

HIDDEN = ((12,), (6, 6), (4, 4, 4), (3, 3, 3, 3), (8, 4), (5,), (4, 3))
DISTANCES = (0.05, -0.05, 0.002, -0.002, 2.0**-22, -(2.0**-22), 2.0**-40, -(2.0**-40), 0.0)
# Beside the complete search and every bound method alone, one of the other engines in turn asks a network.
OTHERS = tuple(engine for engine in ENGINES if engine != "auto")
# The slowest bound has one network in so many.
SDP_EVERY = 15


def total(given: Given) -> int:
    """Networks of the whole part."""
    return 1080


def case(seed: int) -> Case:
    """One of the networks; even ones have parameters that are float32 numbers."""
    rng = np.random.default_rng(seed)
    inputs, outputs = 1 + seed % 2, 1 + (seed // 2) % 2
    layers = random_layers(rng, (inputs, *HIDDEN[seed % len(HIDDEN)], outputs))
    x = (rng.normal(size=inputs) * 16).round() / 16
    eps = str(rng.choice(["0.3", "0.5", "0.75", "1.1"]))
    bare = Case(f"tiny {seed}", network_of(layers), x, eps)
    value, _, _ = least(layers, *bare.ends)
    constant = float(DISTANCES[seed % len(DISTANCES)] - value)
    if seed % 2 == 0:
        constant = float(np.float32(constant))
    # The sum of bias and constant may round: the least output is that of the network which comes out.
    moved = with_constant(layers, constant)
    if seed % 2 == 0:
        moved[-1] = (moved[-1][0], moved[-1][1].astype(np.float32).astype(np.float64))
    value, _, _ = least(moved, *bare.ends)
    return Case(bare.name, network_of(moved), x, eps, value)


def run(tally: Tally, items: int, given: Given) -> None:
    """Every network: the search, all bound methods alone, and one other engine."""
    for seed in range(items):
        if tally.over:
            return
        asked = case(seed)
        assert asked.least is not None
        tally.counts[f"networks whose least output is {'>' if asked.least > 0 else '<='} 0"] += 1
        semantics = SEMANTICS[(seed // 2) % 2] if seed % 2 == 0 else "real"
        ask_bounds(tally, asked, [name for name in METHODS if name != "sdp" or seed % SDP_EVERY == 0])
        ask(tally, asked, "auto", semantics)
        ask(tally, asked, OTHERS[seed % len(OTHERS)], semantics)
        tally.done += 1
