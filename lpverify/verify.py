"""The public functions: verify, bounds, and their batch-wise forms for the command line.

Label claims by default; any linear claim C f(x) + d > 0 through ``verify(..., claim=(C, d))``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.bounds import METHODS, BoundResult
from lpverify.certificate.claim import LinearRows
from lpverify.errors import DataError, ShapeError, UsageError
from lpverify.evidence import ball_claim, claim_of
from lpverify.network import Network, as_numpy
from lpverify.problem import Specification
from lpverify.progress import Asked
from lpverify.result import Result
from lpverify.serialize import raw_array
from lpverify.session import Session, solver_method
from lpverify.settings import Settings
from lpverify.sweep import sweep
from lpverify.sweep.cut import cuts
from lpverify.sweep.verifying import VerifyBatch
from lpverify.workers import Failure

Array = NDArray[Any]


def verify_stream(
    network: Network,
    x: Array,
    y: Array,
    settings: Settings,
    indices: Sequence[int] | None = None,
    finished: Collection[int] = (),
) -> Iterator[Result]:
    """Verify label claims batch by batch, on as many processes as ``settings.workers`` says, or on a cluster.

    Args:
        network: the lowered network.
        x: (N, ...) float32 or float64 inputs, finite.
        y: (N,) labels.
        indices: what to call each example in its result; 0..N-1 by default.
        finished: those that have a result already, from an earlier process. Nothing is yielded of them, but the others'
            results are what they would have been: batches are cut by place, whatever is finished in them.

    Returns:
        The results: in the order of the examples from this process alone, else as they come.

    Raises:
        ShapeError, DataError: for inputs that do not fit the network, are not finite, or labels out of range.
        UsageError: for float32 semantics of a network without float32 parameters.
        ResourceError: where processes or the cluster cannot be had, or are lost.
    """
    flat, labels = checked_inputs(network, x), checked_labels(network, x, y)
    names = range(len(flat)) if indices is None else indices
    tasks = _batches(network, settings, flat, labels, names, finished)
    return sweep(network, settings, tasks, solver_method(settings))


def verify_in(
    session: Session, x: Array, y: NDArray[np.int64], indices: Sequence[int], finished: Collection[int] = ()
) -> Iterator[Result]:
    """As ``verify_stream``, in order and in an open session; x (N, n_0) and y (N,) as the checks there leave them."""
    for batch in _batches(session.exact, session.settings, x, y, indices, finished):
        yield from batch.run(session)


def _batches(
    network: Network,
    settings: Settings,
    x: Array,
    y: NDArray[np.int64],
    indices: Sequence[int],
    finished: Collection[int],
) -> Iterator[VerifyBatch]:
    """The batches of label claims in which something is left to do."""
    classes = network.output_size
    for cut in cuts(network, settings, x, y, indices, finished):
        labels = cut.y.tolist()
        claims = [claim_of(settings, row, label, classes) for row, label in zip(cut.x, labels, strict=True)]
        spec = Specification.label(torch.as_tensor(cut.y), classes)
        yield VerifyBatch(Asked(cut.indices, cut.x, claims, spec, labels, cut.finished))


def verify(
    model: Any,
    x: Any,
    y: Any = None,
    eps: str | float = "0",
    *,
    claim: tuple[Any, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
    **options: Any,
) -> list[Result]:
    """Verify a model on inputs: every perturbation within eps keeps the label, or C f(x) + d > 0.

    Args:
        model: a Network, a torch module, or the path of a model file.
        x: (N, ...) inputs (array or tensor).
        y: (N,) labels; or give ``claim``.
        eps: the radius; a string is taken as an exact decimal, a float as its shortest decimal.
        claim: (C, d) with C (m, n_K) and d (m,), the same for every input, instead of labels.
        input_shape: shape of one input, where the model does not tell and x does not show it.
        options: the other fields of Settings, and ``arch`` for a model file.
    """
    inputs = _array(x)
    network = as_network(model, input_shape or inputs.shape[1:], options.pop("arch", None))
    settings = Settings(decimal_text(eps), **_decimal_clip(options))
    if claim is None:
        if y is None:
            raise UsageError("verify: give labels y or a claim (C, d)")
        return _in_order(verify_stream(network, inputs, _array(y), settings))
    flat = checked_inputs(network, inputs)
    C, d = np.asarray(_array(claim[0]), np.float64), np.asarray(_array(claim[1]), np.float64)
    if C.ndim != 2 or C.shape[1] != network.output_size or d.shape != C.shape[:1]:
        raise ShapeError(f"claim: C {C.shape} and d {d.shape}, expected (m, {network.output_size}) and (m,)")
    if not (np.isfinite(C).all() and np.isfinite(d).all()):
        raise DataError("claim: C or d has an entry that is NaN or infinite; give finite numbers")
    tasks = _linear_batches(network, settings, flat, LinearRows(raw_array(C), raw_array(d)), (C, d))
    return _in_order(sweep(network, settings, tasks, solver_method(settings)))


def _linear_batches(
    network: Network, settings: Settings, x: Array, rows: LinearRows, claim: tuple[Array, Array]
) -> Iterator[VerifyBatch]:
    """The batches of one linear claim about every input."""
    C, d = (torch.as_tensor(side) for side in claim)
    for cut in cuts(network, settings, x, np.zeros(len(x), np.int64), range(len(x))):
        claims = [ball_claim(row, settings.eps, settings.norm, settings.clip, rows) for row in cut.x]
        spec = Specification(C.expand(len(cut.x), -1, -1), d.expand(len(cut.x), -1))
        yield VerifyBatch(Asked(cut.indices, cut.x, claims, spec, [None] * len(cut.x)))


def _in_order(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.index)


def bounds(model: Any, x: Any, y: Any, eps: str | float, method: str = "crown", **options: Any) -> BoundResult:
    """One method's margins for label claims: tensors in the engine's arithmetic, nothing checked.

    Args:
        model, x, y, eps: as in ``verify``.
        method: one of METHODS.
        options: norm, clip, device, dtype, backend, solver, time_limit, timeout, objective, arch, input_shape.
            Solvers run in this process.
    """
    inputs = _array(x)
    network = as_network(model, options.pop("input_shape", None) or inputs.shape[1:], options.pop("arch", None))
    settings = Settings(decimal_text(eps), method=method, **_decimal_clip(options))
    if method not in METHODS:
        raise UsageError(f"method: {method!r} is not one of {', '.join(METHODS)}")
    flat = torch.as_tensor(checked_inputs(network, inputs)).double()
    spec = Specification.label(torch.as_tensor(checked_labels(network, inputs, _array(y))), network.output_size)
    session = Session(network, settings)
    return session.bound(session.method(method), settings.region(flat), spec)


def bound_table(
    network: Network, x: Array, y: Array, settings: Settings, methods: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """The margins (N, m) of several methods side by side; NaN where a solver failed."""
    flat, labels = checked_inputs(network, x), checked_labels(network, x, y)
    table: dict[str, list[Array]] = {name: [] for name in methods}
    with Session(network, settings) as session:
        for start in range(0, len(flat), session.batch_size):
            part = slice(start, start + session.batch_size)
            spec = Specification.label(torch.as_tensor(labels[part]), network.output_size)
            region = settings.region(torch.as_tensor(flat[part]).double())
            for name in methods:
                method = session.method(name)
                if method.isolated:
                    table[name].extend(
                        np.full(spec.d.shape[1:], np.nan) if isinstance(r, Failure) else as_numpy(r.margins)
                        for r in session.solve(method, region, spec)
                    )
                else:
                    table[name].append(as_numpy(session.bound(method, region, spec).margins).astype(np.float64))
    return {name: np.concatenate([np.atleast_2d(p) for p in parts]) for name, parts in table.items()}


def as_network(model: Any, input_shape: tuple[int, ...] | None = None, arch: str | None = None) -> Network:
    """A Network from a Network, a torch module (needs ``input_shape``) or the path of a model file."""
    if isinstance(model, Network):
        return model
    from lpverify.lowering import load_model, lower_module

    if isinstance(model, torch.nn.Module):
        if not input_shape:
            raise UsageError("verify: a torch module needs input_shape, or inputs of shape (N, *input_shape)")
        return lower_module(model, tuple(input_shape))
    return load_model(model, arch=arch)


def decimal_text(value: str | float) -> str:
    """A number as the decimal that is meant: a string as it is, a float by its shortest decimal."""
    return value if isinstance(value, str) else repr(float(value))


def _decimal_clip(options: dict[str, Any]) -> dict[str, Any]:
    clip = options.get("clip")
    if clip is None:
        return options
    return {**options, "clip": (decimal_text(clip[0]), decimal_text(clip[1]))}


def _array(values: Any) -> Array:
    return as_numpy(values) if isinstance(values, torch.Tensor) else np.asarray(values)


def checked_inputs(network: Network, x: Array) -> Array:
    """x as (N, n_0) floats in the dtype it has (integers become float64); refuses misfits."""
    if x.ndim < 2 or int(np.prod(x.shape[1:])) != network.input_size:
        raise ShapeError(f"x: shape {x.shape}, expected (N, ...) with {network.input_size} values an example")
    flat = x.reshape(len(x), -1)
    flat = flat if flat.dtype in (np.float32, np.float64) else flat.astype(np.float64)
    if not np.isfinite(flat).all():
        bad = np.argwhere(~np.isfinite(flat))[0]
        raise DataError(f"x: example {bad[0]}, input {bad[1]} is {flat[tuple(bad)]}; remove or repair it")
    return flat


def checked_labels(network: Network, x: Array, y: Array) -> NDArray[np.int64]:
    """y as int64 labels of the network's classes; refuses anything else."""
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise DataError(f"y: {y.dtype} of shape {y.shape}, expected whole labels of shape ({len(x)},)")
    labels = y.astype(np.int64)
    bad = np.flatnonzero((labels < 0) | (labels >= network.output_size))
    if len(bad):
        raise DataError(f"y: label {labels[bad[0]]} of example {bad[0]} is not in 0..{network.output_size - 1}")
    return labels
