"""Which search a claim gets, by the shape of its input set and by what the root bounds say."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lpverify.bounds.alpha import has_relus_below
from lpverify.network import Network

# With at most so many inputs that can move, boxes are split to the end; up to MANY they are tried for a share first.
FEW_INPUTS, MANY_INPUTS = 8, 20
# A MILP is asked for points with at most so many unstable neurons: with 48 HiGHS takes ten times as long as the tree.
MOST_BINARIES = 40
# Entries that bounding one node's pre-activations anew may take.
MOST_ENTRIES = 4_000_000


class Route(enum.Enum):
    """What is split, in order: the searches' names."""

    INPUTS = ("inputs",)
    INPUTS_THEN_PHASES = ("inputs", "phases")
    PHASES_THEN_INPUTS = ("phases", "inputs")
    PHASES = ("phases",)


def route(inputs: int, unstable: int, is_box: bool) -> Route:
    """The searches for a claim that bounds and attacks left open.

    Args:
        inputs: how many inputs are not fixed by their bounds.
        unstable: how many neurons the root bounds leave unstable.
        is_box: whether the input set is a box (only those can be split at inputs).
    """
    if not is_box or inputs > MANY_INPUTS:
        return Route.PHASES
    if unstable <= 4 * inputs:
        return Route.PHASES_THEN_INPUTS
    return Route.INPUTS if inputs <= FEW_INPUTS else Route.INPUTS_THEN_PHASES


def retightens(network: Network, unstable: Mapping[int, int]) -> bool:
    """Whether every node's pre-activations may be bounded anew: a pass down for each unstable neuron of each ReLU."""
    return sum(count * sum(network.sizes[:k]) for k, count in unstable.items()) <= MOST_ENTRIES


def has_stacked_relus(network: Network) -> bool:
    """Whether some ReLU lies below another one: else no phase tightens any pre-activation's bounds."""
    return any(has_relus_below(network, k) for k in network.relus)
