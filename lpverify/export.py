"""One claim about one example as a program, for a file and other solvers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.encode import encode
from lpverify.errors import SolverError, UsageError
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification
from lpverify.program import Array, Program
from lpverify.session import Session
from lpverify.settings import Settings
from lpverify.workers import Failure

# Entries of at most this size are dropped by HiGHS and SCIP when they read a file.
DROPPED = 1e-9


def check_exportable(settings: Settings, label: int, classes: int, target: int | None) -> None:
    """Refuse what no file can hold and targets that are no other class, before any work.

    Raises:
        UsageError: for an l2 ball, which needs a second-order cone, or a target that is the label or no class.
    """
    if settings.norm == "2":
        raise UsageError("norm: an l2 ball is a second-order cone, which .mps and .lp files cannot hold; pass 1 or inf")
    if target is not None and not (0 <= target < classes and target != label):
        raise UsageError(f"target: {target} must be one of the classes 0 to {classes - 1} other than the label {label}")


def runner_up(network: Network, x: NDArray[np.floating], label: int) -> int:
    """The class other than ``label`` with the greatest output at x."""
    exact = network.detach().to(torch.float64, "cpu")
    outputs = exact.forward(torch.as_tensor(x, dtype=torch.float64).reshape(1, -1))[0]
    outputs[label] = -torch.inf
    return int(outputs.argmax())


def claim_program(
    network: Network, x: NDArray[np.floating], label: int, target: int, settings: Settings, *, milp: bool = False
) -> Program:
    """Minimise output ``label`` minus output ``target`` over the input set of the settings about x.

    Args:
        x: one input, of any shape with n_0 values.
        settings: eps, norm and clip make the input set; ``method`` gives the pre-activation bounds, in float64 (alpha
            by optimising them too). What solvers are needed for them runs as the settings say.
        milp: ReLUs exactly, by binaries, instead of relaxed.

    Raises:
        UsageError: as ``check_exportable``.
        SolverError: if the method's solver gave no answer.
    """
    check_exportable(settings, label, network.output_size, target)
    region = settings.region(torch.as_tensor(x, dtype=torch.float64).reshape(1, -1))
    every = Specification.label(torch.tensor([label]), network.output_size)
    row = slice(target - (target > label), target - (target > label) + 1)
    spec = Specification(every.C[:, row], every.d[:, row])
    with Session(network, settings) as session:
        method = session.method(settings.method, intermediate=True)
        if method.isolated:
            found = next(iter(session.solve(method, region, spec)))
            if isinstance(found, Failure):
                raise SolverError(f"{settings.method}: no pre-activation bounds: {found.reason}; pass another --method")
        else:
            found = session.bound(method, region, spec)
        encoder = encode(session.exact, region, found.layers, milp=milp)
    costs, offsets = encoder.rows(len(network.nodes) - 1, as_numpy(spec.C[0]))
    return encoder.program().with_objective(costs[0], float(offsets[0]))


def counts(program: Program) -> str:
    """Rows, columns, entries and binaries of a program, for people."""
    sizes: Array = np.abs(program.A.data)
    line = (
        f"{program.num_rows} rows, {program.num_columns} columns, {np.count_nonzero(sizes)} entries, "
        f"{np.count_nonzero(program.integer)} binaries"
    )
    small = np.count_nonzero((sizes > 0) & (sizes <= DROPPED))
    return line + (f"; HiGHS and SCIP will drop {small} entries of at most {DROPPED:g}" if small else "")
