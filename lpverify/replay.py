"""What is kept of a solver that crashed: its program as an MPS file, and a text that says how to solve it again.

Nothing of it is a pickle: reading it runs no code. The program is built again in this process, for the one that the
solver had is gone with its process; no solver is asked for it.
"""

from __future__ import annotations

import numpy as np
import torch

from lpverify.bounds.base import AbstractBoundMethod
from lpverify.bounds.crown import CrownBound
from lpverify.encode import encode
from lpverify.errors import ProgramError
from lpverify.network import as_numpy
from lpverify.problem import Region, Specification
from lpverify.programfile import mps_bytes
from lpverify.result import MOST_CRASHES, Replay
from lpverify.session import Session
from lpverify.versions import versions

# Programs of larger networks or files are left out.
LARGEST_UNITS = 50_000
LARGEST_BYTES = 8 << 20
PROGRAMS = {
    "lp": "the LP whose rows the method solves",
    "lp-tight": "the LP that the method begins with; it solves others for tighter pre-activation bounds, of which one "
    "may have crashed",
    "milp": "the MILP over CROWN's bounds; the method solves LPs for tighter ones first, of which one may have crashed",
}


def replay_of(
    session: Session,
    method: AbstractBoundMethod,
    index: int,
    label: int | None,
    region: Region,
    spec: Specification,
    reason: str,
) -> Replay | None:
    """What to keep of one example's crash, or nothing where enough was kept.

    Args:
        index, label: the example's.
        region, spec: its input set and claim, a batch of one.
        reason: how the solver ended.
    """
    if session.replays >= MOST_CRASHES:
        return None
    session.replays += 1
    program, row, said = _program(session, method, region.to(torch.float64, "cpu"), spec.to(torch.float64, "cpu"))
    asked, found = session.settings, versions()
    clip = "" if asked.clip is None else f" --clip {asked.clip[0]} {asked.clip[1]}"
    ball = f"--eps {asked.eps} --norm {asked.norm}{clip}"
    packages = ", ".join(f"{name} {found[name]}" for name in ("lpverify", "highspy", "cvxpy", "pulp") if name in found)
    lines = [
        f"{method.name}: {reason}",
        f"example {index}, label {label}, {ball}, backend {asked.backend} {asked.solver}".rstrip(),
        packages,
        "",
        f"{index:06d}.mps.gz: {said}" if program else f"no program: {said}",
    ]
    if program:
        lines += [
            f"Its objective is row {row} of the claim, the one with CROWN's least bound. Any solver reads the file:",
            f"    python -c \"import highspy; h = highspy.Highs(); h.readModel('{index:06d}.mps.gz'); h.run()\"",
        ]
    lines += [
        "The example again, as it was: the command of the run with",
        f"    --index {index} --out ANOTHER_FOLDER",
        "Its other rows and bounds, MODEL and DATA as in summary.json:",
        f"    lpverify export MODEL --data DATA --index {index} {ball} --relaxation lp --target CLASS --out FILE.mps",
    ]
    return Replay("\n".join(lines) + "\n", program)


def _program(
    session: Session, method: AbstractBoundMethod, region: Region, spec: Specification
) -> tuple[bytes, int, str]:
    """The program's file, empty without one; the row of its objective; what it is, or why there is none."""
    network = session.exact
    if method.name not in PROGRAMS:
        return b"", 0, f"{method.name} solves none that a file can hold"
    if sum(network.sizes) > LARGEST_UNITS:
        return b"", 0, f"the network has more than {LARGEST_UNITS} units"
    with torch.no_grad():
        found = CrownBound().bound(network, region, spec)
    row = int(found.margins[0].argmin())
    encoder = encode(network, region, found.layers, milp=method.name == "milp")
    costs, offsets = encoder.rows(len(network.nodes) - 1, as_numpy(spec.C[0])[row : row + 1])
    offset = float(offsets[0]) + float(spec.d[0, row])
    try:
        data = mps_bytes(encoder.program().with_objective(np.asarray(costs[0]), offset), method.name.replace("-", "_"))
    except ProgramError as error:
        return b"", row, str(error)
    if len(data) > LARGEST_BYTES:
        return b"", row, f"its file would have {len(data)} bytes, of at most {LARGEST_BYTES}"
    return data, row, PROGRAMS[method.name]
