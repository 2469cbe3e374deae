"""Solver interfaces: one file each; BACKENDS lists them by the name that --backend and the tables use.

Importing this package imports no solver: each is imported when a program first needs it.
"""

from __future__ import annotations

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status, dual_bound
from lpverify.backends.cvxpy import CvxpyBackend
from lpverify.backends.highs import HighsBackend
from lpverify.backends.pulp import PulpBackend

_ALL: tuple[type[AbstractBackend], ...] = (HighsBackend, CvxpyBackend, PulpBackend)
BACKENDS = {backend.name: backend for backend in _ALL}

__all__ = [
    "BACKENDS",
    "AbstractBackend",
    "AbstractSession",
    "CvxpyBackend",
    "HighsBackend",
    "PulpBackend",
    "Solution",
    "Status",
    "dual_bound",
]
