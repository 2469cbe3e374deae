"""Solver interfaces: one file each; BACKENDS lists them by the name that --backend and the tables use.

Importing this package imports no solver: each is imported when a program first needs it.
"""

from __future__ import annotations

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status, dual_bound
from lpverify.backends.highs import HighsBackend

_ALL: tuple[type[AbstractBackend], ...] = (HighsBackend,)
BACKENDS = {backend.name: backend for backend in _ALL}

__all__ = [
    "BACKENDS",
    "AbstractBackend",
    "AbstractSession",
    "HighsBackend",
    "Solution",
    "Status",
    "dual_bound",
]
