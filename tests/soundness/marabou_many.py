"""Marabou on many instances, in one process of Marabou's own environment: a JSON line for each.

    PYTHON tests/soundness/marabou_many.py FOLDER

asks about every FOLDER/NAME.onnx with FOLDER/NAME.vnnlib.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
main = import_module("marabou_child").main

for model in sorted(Path(sys.argv[1]).glob("*.onnx")):
    # Before its answer: a name without one is that of a crash.
    print("\n" + json.dumps({"name": model.stem, "verdict": None}), flush=True)
    try:
        verdict = main(str(model), str(model.with_suffix(".vnnlib")))["verdict"]
    # What Marabou raises is not told apart by type.
    except Exception as error:
        verdict = f"error: {error}"
    print("\n" + json.dumps({"name": model.stem, "verdict": verdict}), flush=True)
