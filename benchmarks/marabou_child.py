"""Marabou on one instance; run by ``marabou.py`` with the Python of Marabou's own environment.

    PYTHON benchmarks/marabou_child.py MODEL.onnx FILE.vnnlib[.gz]

Prints one JSON object on the last line: ``verdict`` (Marabou's word), ``way``, ``load_cpu``, ``solve_cpu``, ``error``.
``way`` is ``native`` if Marabou's own VNN-LIB reader took the file, and ``parts N`` if it raised and the property was
given to it as N queries without disjunctions, the network loaded anew for each.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def commands(text: str) -> list[Any]:
    """The commands of a VNN-LIB file as nested lists of words."""
    stack: list[list[Any]] = [[]]
    for word in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if word == "(":
            stack.append([])
        elif word == ")":
            last = stack.pop()
            stack[-1].append(last)
        else:
            stack[-1].append(word)
    return stack[0]


def disjuncts(term: Any) -> list[list[Any]]:
    """A formula as a disjunction of conjunctions of comparisons."""
    if term[0] == "or":
        return [part for argument in term[1:] for part in disjuncts(argument)]
    if term[0] == "and":
        products = itertools.product(*(disjuncts(argument) for argument in term[1:]))
        return [[line for part in product for line in part] for product in products]
    return [[term]]


def parts(text: str) -> Iterator[str]:
    """The property's disjuncts, each as a VNN-LIB file without disjunctions."""
    lines = commands(text)
    declared = [line for line in lines if line[0] != "assert"]
    for product in itertools.product(*(disjuncts(line[1]) for line in lines if line[0] == "assert")):
        flat = [["assert", comparison] for part in product for comparison in part]
        yield "".join(written(line) + "\n" for line in declared + flat)


def written(term: Any) -> str:
    """A nested list as text again."""
    return term if isinstance(term, str) else f"({' '.join(written(part) for part in term)})"


def solve(model: str, text: str, folder: Path) -> tuple[str, float, float]:
    """Marabou's verdict and the CPU seconds of loading the network and of the rest."""
    from maraboupy import Marabou

    file = folder / "property.vnnlib"
    file.write_text(text)
    began = time.process_time()
    network = Marabou.read_onnx(model)
    loaded = time.process_time()
    options = Marabou.createOptions(verbosity=0)
    verdict, _, _ = network.solve(verbose=False, options=options, propertyFilename=str(file))
    return verdict, loaded - began, time.process_time() - loaded


def main(model: str, property_file: str) -> dict[str, Any]:
    """The object to be printed."""
    opened = gzip.open if property_file.endswith(".gz") else open
    with opened(property_file, "rt") as file:
        text = file.read()
    with tempfile.TemporaryDirectory() as folder:
        try:
            verdict, load, seconds = solve(model, text, Path(folder))
            return {"verdict": verdict, "way": "native", "load_cpu": load, "solve_cpu": seconds, "error": ""}
        # What Marabou raises is not told apart by type.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        found = [solve(model, part, Path(folder)) for part in parts(text)]
    words = {verdict for verdict, _, _ in found}
    verdict = "sat" if "sat" in words else "unsat" if words <= {"unsat"} else "unknown"
    load, seconds = (sum(times) for times in list(zip(*found, strict=True))[1:])
    return {
        "verdict": verdict, "way": f"parts {len(found)}", "load_cpu": load, "solve_cpu": seconds, "error": reason
    }  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    result = main(*sys.argv[1:3])
    # Marabou writes to the same descriptor from C++, buffered apart from Python's own output.
    print(f"\n{json.dumps(result)}", flush=True)
