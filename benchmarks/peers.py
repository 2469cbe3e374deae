"""Bounds by other people's libraries, on the same module, inputs and claims: auto_LiRPA and convex_adversarial.

Each is used where it can be imported (PYTHONPATH will do). What depends on the network alone is built once,
outside the timed call; what depends on the images is inside it, as it is for lpverify.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

# Images (B, 1, 28, 28) and claim rows C (B, m, 10) of one batch -> lower bounds (B, m).
BatchBound = Callable[[Tensor, Tensor], Tensor]
NAMES = ("convex_adversarial", "auto_LiRPA")


def find_peers() -> dict[str, Any]:
    """The libraries that can be imported here; a line is printed for each that cannot."""
    found: dict[str, Any] = {}
    for name in NAMES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = importlib.import_module(name)
        except ImportError as error:
            print(f"{name} is left out: {error}; put its source on PYTHONPATH", flush=True)
    return found


def peer_bounds(peers: dict[str, Any], module: nn.Module, shape: tuple[int, ...], eps: float) -> dict[Any, BatchBound]:
    """Bound functions by (task, tool), over l-infinity balls of radius eps without clipping.

    Args:
        peers: from ``find_peers``.
        module: the network, in the dtype of the comparison.
        shape: the shape of one image.
    """
    bounds: dict[Any, BatchBound] = {}
    if "convex_adversarial" in peers:
        bounds["dual", "convex_adversarial"] = _convex_adversarial(peers["convex_adversarial"], module, eps)
    if "auto_LiRPA" in peers:
        # "same-slope" is the dual network's relaxation; "adaptive" is CROWN's, and the library's default.
        for task, slopes in (("dual", "same-slope"), ("crown", "adaptive")):
            bounds[task, "auto_LiRPA"] = _auto_lirpa(peers["auto_LiRPA"], module, shape, eps, slopes)
    return bounds


def _convex_adversarial(library: Any, module: nn.Module, eps: float) -> BatchBound:
    def bound(x: Tensor, C: Tensor) -> Tensor:
        lower: Tensor = library.DualNetwork(module, x, eps)(C)
        return lower

    return bound


def _auto_lirpa(library: Any, module: nn.Module, shape: tuple[int, ...], eps: float, slopes: str) -> BatchBound:
    graphs: dict[int, Any] = {}
    ball = library.PerturbationLpNorm(norm=math.inf, eps=eps)

    def bound(x: Tensor, C: Tensor) -> Tensor:
        # A graph is built for a batch size; the timed calls find it here.
        if len(x) not in graphs:
            options = {"conv_mode": "patches", "activation_bound_option": slopes}
            graphs[len(x)] = library.BoundedModule(module, x.new_zeros(len(x), *shape), bound_opts=options)
        region = library.BoundedTensor(x, ball)
        lower: Tensor = graphs[len(x)].compute_bounds(x=(region,), C=C, method="CROWN", bound_upper=False)[0]
        return lower

    return bound
