"""Bound methods: one file each; METHODS lists them by the name that --method and the tables use."""

from __future__ import annotations

from lpverify.bounds.alpha import AlphaBound
from lpverify.bounds.base import AbstractBoundMethod, BoundResult, Multipliers
from lpverify.bounds.crown import CrownBound
from lpverify.bounds.dual import DualBound
from lpverify.bounds.interval import IntervalBound
from lpverify.bounds.lp import LPBound
from lpverify.bounds.lp_tight import LPTightBound
from lpverify.bounds.milp import MILPBound
from lpverify.bounds.sdp import SDPBound

_ALL: tuple[type[AbstractBoundMethod], ...] = (
    IntervalBound,
    DualBound,
    CrownBound,
    AlphaBound,
    LPBound,
    LPTightBound,
    MILPBound,
    SDPBound,
)
METHODS = {method.name: method for method in _ALL}

__all__ = [
    "METHODS",
    "AbstractBoundMethod",
    "AlphaBound",
    "BoundResult",
    "CrownBound",
    "DualBound",
    "IntervalBound",
    "LPBound",
    "LPTightBound",
    "MILPBound",
    "Multipliers",
    "SDPBound",
]
