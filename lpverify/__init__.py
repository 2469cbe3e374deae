"""lpverify: exact verification of ReLU networks.

A network, a set of inputs and a claim about the outputs come in. A checkpoint, a torch module or an ONNX file
is lowered to one graph of affine and ReLU nodes (``lowering``, ``network``), a VNN-LIB file is read into exact claims
(``vnnlib``). Attacks look for a counterexample and bound methods for a proof (``attack``, ``bounds``), some of them by
solving linear programs and MILPs that ``encode`` makes and ``backends`` hand to solvers; where bounds are too loose,
``search`` splits inputs or phases of neurons into a tree of smaller claims. None of them is trusted. They only propose
dual multipliers, from which a small checker recomputes the bound, or that of every leaf, with every rounding accounted
for (``certificate``); only that checker writes ``verified``, and only a point that was evaluated exactly writes
``falsified``. ``pipeline`` runs these stages until every example is decided (``verify``), ``sweep`` spreads examples
over processes and machines, ``properties`` runs the stages of a VNN-LIB property, ``runs`` keeps results and evidence
on disk, ``lpverify check`` judges them again from the files alone, and ``report`` shows them.

    import lpverify
    results = lpverify.verify(model, x, y, eps="0.1", clip=("0", "1"))
    margins = lpverify.bounds(model, x, y, "0.1", method="crown")

Everything named here is imported on first use: ``import lpverify`` itself loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lpverify.bounds import METHODS
    from lpverify.lowering import load_model, lower_module
    from lpverify.network import Network
    from lpverify.problem import Ball, Box, Specification
    from lpverify.result import Result, Verdict
    from lpverify.verify import bounds, verify

__all__ = [
    "METHODS",
    "Ball",
    "Box",
    "Network",
    "Result",
    "Specification",
    "Verdict",
    "__version__",
    "bounds",
    "load_model",
    "lower_module",
    "verify",
]

_HOME = {
    "METHODS": "lpverify.bounds",
    "Ball": "lpverify.problem",
    "Box": "lpverify.problem",
    "Network": "lpverify.network",
    "Result": "lpverify.result",
    "Specification": "lpverify.problem",
    "Verdict": "lpverify.result",
    "load_model": "lpverify.lowering",
    "lower_module": "lpverify.lowering",
}


class _VerifyModule(types.ModuleType):
    """The module ``lpverify.verify``, which may be called like its function ``verify``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.verify(*args, **kwargs)


class _BoundsModule(types.ModuleType):
    """The package ``lpverify.bounds``, which may be called like the function ``lpverify.verify.bounds``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("lpverify.verify").bounds(*args, **kwargs)


_CALLABLE = {"verify": _VerifyModule, "bounds": _BoundsModule}


class _Package(types.ModuleType):
    """This package. The import system stores a submodule as an attribute once it is loaded, and two of them
    share their name with a public function: these are made callable, so that both meanings hold."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLABLE and isinstance(value, types.ModuleType):
            value.__class__ = _CALLABLE[name]
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return importlib.import_module(f"lpverify.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lpverify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
