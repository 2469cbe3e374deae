"""Whether other solvers read our .mps and .lp files to the same optimum.

    PYTHONPATH=.:tests python benchmarks/read_back.py make FOLDER    write programs and FOLDER/expected.json
    python benchmarks/read_back.py read FOLDER [--csv FILE]          ask every solver that is installed here,
                                                                     adding to FILE

``make`` needs lpverify; ``read`` needs only solvers: highspy, pyscipopt, gurobipy (whose wheel has a licence for at
most 2000 rows and columns) and PuLP, for its CBC. The programs are those of ``tests/random_programs.py``, and the
relaxation and the MILP of random networks and of the shipped digits network. What is expected is the optimum of the
arrays by scipy's HiGHS. Exit code 1 says that some solver found something else.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

# Relative to 1 + |optimum|: solvers take rows for satisfied within 1e-6.
TOLERANCE = 1e-5
INFEASIBLE, UNBOUNDED, EITHER, TOO_LARGE = "infeasible", "unbounded", "infeasible or unbounded", "too large"
VERDICTS = ("same", "differs", TOO_LARGE)
SIZES = (5, 12, 10, 3)
IMAGES = 3


def make(folder: Path) -> None:
    """Write every program in both formats, and what its optimum is."""
    from random_programs import named_programs, optimum

    from lpverify.programfile import write_program

    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, float | str] = {}
    for name, program in [*named_programs(), *network_programs()]:
        expected[name] = optimum(program)
        for kind in ("mps", "lp"):
            write_program(program, folder / f"{name}.{kind}", name)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{folder}: {len(expected)} programs")


def network_programs() -> Iterator[tuple[str, Any]]:
    """The encodings of random networks, and of the digits network for the first images and the runner-up."""
    import torch
    from networks import dense

    from lpverify.bounds import CrownBound
    from lpverify.data import load_data
    from lpverify.encode import encode
    from lpverify.lowering import load_model
    from lpverify.problem import Specification, ball

    points = torch.rand(6, 1, SIZES[0], generator=torch.Generator().manual_seed(0)).double()
    digits = load_data("digits")
    assets = Path(__file__).resolve().parent.parent / "lpverify" / "assets"
    shipped = load_model(assets / "digits-demo.safetensors").to(torch.float64).detach()
    images = torch.as_tensor(digits.x[:IMAGES]).double().flatten(1)
    tries = [
        ("random-net", dense(seed, *SIZES).to(torch.float64), x, 0.3, norm)
        for seed, x in enumerate(points)
        for norm in ("inf", "1")
    ]
    tries += [("digits", shipped, image.unsqueeze(0), 0.03, "inf") for image in images]
    for number, (name, network, x, eps, norm) in enumerate(tries):
        outputs = network.forward(x)[0]
        label, target = outputs.topk(2).indices.tolist()
        region = ball(x, eps, norm, (0.0, 1.0))
        spec = Specification.label(torch.tensor([label]), network.output_size)
        layers = CrownBound().bound(network, region, spec).layers
        row = torch.zeros(1, network.output_size, dtype=torch.float64)
        row[0, label], row[0, target] = 1.0, -1.0
        for milp in (False, True):
            encoder = encode(network, region, layers, milp=milp)
            costs, offsets = encoder.rows(len(network.nodes) - 1, row.numpy())
            program = encoder.program().with_objective(costs[0], offsets[0])
            yield f"{name}-{number}-{'milp' if milp else 'lp'}", program


def read(folder: Path, table: Path | None) -> int:
    """Ask every installed solver about every file; print counts and what differs, and add the counts to a table."""
    expected = json.loads((folder / "expected.json").read_text())
    rows: list[list[str | int]] = []
    for solver, (package, solve) in SOLVERS.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            print(f"{solver}: not installed ({package})")
            continue
        for kind in ("mps", "lp"):
            found = {name: solve(folder / f"{name}.{kind}") for name in expected}
            verdicts = {name: judge(got, expected[name]) for name, got in found.items()}
            rows.append([solver, version, kind, *(list(verdicts.values()).count(v) for v in VERDICTS)])
            counts = ", ".join(f"{v} {n}" for v, n in zip(VERDICTS, rows[-1][3:], strict=True))
            print(f"{solver}, {package} {version}, .{kind}: {counts}")
            for name in (n for n, v in verdicts.items() if v == "differs"):
                print(f"    {name}: {expected[name]} expected, {found[name]} found")
    if table is not None:
        new = not table.exists()
        with table.open("a", newline="") as file:
            header = [("solver", "version", "kind", *(v.replace(" ", "_") for v in VERDICTS))] if new else []
            csv.writer(file, lineterminator="\n").writerows([*header, *rows])
    return int(any(row[3 + VERDICTS.index("differs")] for row in rows))


def judge(got: float | str, want: float | str) -> str:
    """Whether a solver found what the arrays have: same, differs, or too large."""
    if got == TOO_LARGE:
        return TOO_LARGE
    if isinstance(want, str) or isinstance(got, str):
        return "same" if got == want or (got == EITHER and want in (INFEASIBLE, UNBOUNDED)) else "differs"
    return "same" if math.isclose(got, want, rel_tol=TOLERANCE, abs_tol=TOLERANCE) else "differs"


def by_highs(path: Path) -> float | str:
    """The optimum by highspy; without presolve, which is wrong about some MILPs in 1.14.0 (its issue 2957)."""
    import highspy

    solver = highspy.Highs()
    solver.silent()
    # A warning says that entries of at most 1e-9 were dropped.
    if solver.readModel(str(path)) == highspy.HighsStatus.kError:
        return "not read"
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("presolve", "off")
    solver.run()
    status = solver.getModelStatus()
    named = {"kInfeasible": INFEASIBLE, "kUnbounded": UNBOUNDED, "kUnboundedOrInfeasible": EITHER}
    return float(solver.getObjectiveValue()) if status.name == "kOptimal" else named.get(status.name, status.name)


def by_scip(path: Path) -> float | str:
    """The optimum by SCIP."""
    import pyscipopt

    model = pyscipopt.Model()
    model.hideOutput()
    try:
        model.readProblem(str(path))
    except OSError as error:
        return f"not read: {error}"
    model.setParam("limits/gap", 0.0)
    model.optimize()
    status = model.getStatus()
    return float(model.getObjVal()) if status == "optimal" else {"inforunbd": EITHER}.get(status, status)


def by_gurobi(path: Path) -> float | str:
    """The optimum by Gurobi."""
    import gurobipy

    named = {3: INFEASIBLE, 4: EITHER, 5: UNBOUNDED}
    with gurobipy.Env(params={"OutputFlag": 0, "MIPGap": 0.0, "Threads": 1}) as env:
        try:
            with gurobipy.read(str(path), env) as model:
                model.optimize()
                return float(model.ObjVal) if model.Status == 2 else named.get(model.Status, f"status {model.Status}")
        except gurobipy.GurobiError as error:
            return TOO_LARGE if error.errno == gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED else f"not read: {error}"


def by_cbc(path: Path) -> float | str:
    """The optimum by CBC's own program, which prints eight digits behind the point."""
    import pulp

    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "solution"
        command = [pulp.PULP_CBC_CMD.pulp_cbc_path, path, "ratio", "0", "solve", "solution", found]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        if not found.exists():
            return "not read"
        head = found.read_text().splitlines()[0]
    if head.startswith("Optimal - objective value "):
        return float(head.split()[-1])
    return INFEASIBLE if "infeasible" in head.lower() else head.split()[0].lower()


SOLVERS: dict[str, tuple[str, Callable[[Path], float | str]]] = {
    "HiGHS": ("highspy", by_highs),
    "SCIP": ("pyscipopt", by_scip),
    "Gurobi": ("gurobipy", by_gurobi),
    "CBC": ("pulp", by_cbc),
}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "read"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    if given.action == "read":
        return read(given.folder, given.csv)
    make(given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
