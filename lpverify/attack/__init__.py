"""Counterexample search. An attack only proposes points; ``exact`` decides whether one is a witness.

``ATTACKS`` lists the methods by name; ``attack`` runs one on a batch, in the network's dtype and device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lpverify.attack.base import AttackOptions, AttackResult
from lpverify.attack.fgsm import fgsm
from lpverify.attack.pgd import pgd
from lpverify.attack.steepest import project, start_point
from lpverify.errors import ShapeError, UsageError
from lpverify.network import Network
from lpverify.problem import Region, Specification

__all__ = ["ATTACKS", "AttackOptions", "AttackResult", "attack"]

Attack = Callable[[Network, Region, Specification, Tensor, AttackOptions], AttackResult]

ATTACKS: dict[str, Attack] = {"fgsm": fgsm, "pgd": pgd}


def attack(
    network: Network,
    region: Region,
    spec: Specification,
    *,
    method: str = "pgd",
    steps: int = 40,
    restarts: int = 2,
    loss: str = "margin",
    seed: int = 0,
    schedule: str = "linear",
    step_size: float = 0.25,
    early_stop: bool = True,
    start: Tensor | None = None,
    clauses: tuple[tuple[int, ...], ...] | None = None,
    deadline: float = math.inf,
) -> AttackResult:
    """Search the region of each of B examples for a point where the claim fails.

    Args:
        network: in the dtype and on the device of the search.
        region, spec: B input sets and B claims; converted to the network's dtype and device.
        method: a key of ATTACKS.
        steps, restarts, loss, seed, schedule, step_size, early_stop, clauses, deadline: see ``AttackOptions``.
        start: (B, n_0) or (B, *input shape) where the first run begins, the clean inputs say; moved into
            the region. By default the region's middle.

    Returns:
        The best point of each example. With ``early_stop=False`` its margin is the least that was met, an
        upper bound of the region's minimum up to rounding.

    Raises:
        UsageError: for an unknown method, loss or schedule, or a count out of range.
        ShapeError: if network, region, claim and start do not fit together.
    """
    if method not in ATTACKS:
        raise UsageError(f"attack method: {method!r} is not one of {', '.join(ATTACKS)}")
    options = AttackOptions(
        steps, restarts, loss, schedule, step_size, seed, early_stop, clauses=clauses, deadline=deadline
    )
    network = network.detach()
    region = region.to(network.dtype, network.device)
    spec = spec.to(network.dtype, network.device)
    begin = start_point(region) if start is None else start.detach().flatten(1).to(region.lower)
    wanted, got = (len(spec.d), network.input_size, network.output_size), (*region.lower.shape, spec.C.shape[2])
    if got != wanted or begin.shape != region.lower.shape or not spec.d.shape[1]:
        raise ShapeError(
            f"attack: region and claim are for {got}, start {tuple(begin.shape)}, claim {tuple(spec.C.shape)}; "
            f"expected (examples, inputs, outputs) {wanted} and at least one row"
        )
    if not len(begin):
        return AttackResult(begin, begin.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=begin.device))
    begin = project(begin, region)
    chunk = max(1, options.max_floats // (options.targets(spec) * sum(network.sizes)))
    parts = [
        ATTACKS[method](network, region.select(part), spec.select(part), begin[part], options)
        for part in torch.split(torch.arange(len(begin), device=begin.device), chunk)
    ]
    return AttackResult(
        torch.cat([p.points for p in parts]),
        torch.cat([p.margins for p in parts]),
        torch.cat([p.rows for p in parts]),
    )
