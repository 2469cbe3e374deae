"""The solver interfaces that the benchmarks compare, by short names."""

from __future__ import annotations

from lpverify.backends.base import AbstractBackend
from lpverify.backends.highs import HighsBackend


def backends() -> dict[str, AbstractBackend]:
    """Every backend with every solver that is tested."""
    found: dict[str, AbstractBackend] = {"highs": HighsBackend()}
    try:
        from lpverify.backends.cvxpy import CvxpyBackend
        from lpverify.backends.pulp import PulpBackend
    except ImportError:
        return found
    return found | {
        "cvxpy-HIGHS": CvxpyBackend(solver="HIGHS"),
        "cvxpy-CLARABEL": CvxpyBackend(solver="CLARABEL"),
        "pulp-CBC": PulpBackend(solver="CBC"),
        "pulp-HiGHS": PulpBackend(solver="HiGHS"),
    }
