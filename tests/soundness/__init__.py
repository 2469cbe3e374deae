"""The soundness gate: many questions whose answers are known otherwise, and no wrong verdict (``make soundness``).

    OMP_NUM_THREADS=1 PYTHONPATH=.:tests python -m soundness [--only PART,...] [--share 0.1] [--seconds 600]

``PARTS`` (in ``__main__``) lists the parts, one file each. Each asks engines through the package's public functions and
judges what comes out by arithmetic of its own (``judging``). ``report`` counts.
"""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
# Modules there find each other by bare names.
sys.path += [str(_TESTS), str(_TESTS / "certificate"), str(_TESTS.parent / "benchmarks")]
