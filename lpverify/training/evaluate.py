"""The errors of a trained network: clean, FGSM, PGD, dual bound and certified, each with the command that makes it.

Nothing here attacks or bounds by itself: the numbers are those of ``lpverify attack``, ``bounds`` and ``verify``. An
example that the network gets wrong counts as wrong in every one of them. On the same examples

    clean <= FGSM <= PGD <= certified error <= 1,

for a witness is a point that was evaluated exactly and a certificate excludes it; the certified error is the share not
verified. The dual bound's error counts the examples with a margin that is not > 0, in the engine's float32. Where it is
asked for, ``projected`` counts the same of a bound that holds only with a probability (``probable``): it is told apart
from the certified error, has no place in this order, and certifies nothing.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.data import Examples, check_inside, check_labels, check_range, check_shape, select
from lpverify.errors import UsageError
from lpverify.evidence import claim_of
from lpverify.falsify import attack_stream
from lpverify.network import Network
from lpverify.result import Result, Verdict
from lpverify.runs.folder import RunFolder
from lpverify.runs.summary import Tally, summary
from lpverify.serialize import network_file
from lpverify.settings import Settings
from lpverify.training.probable import check_probable, probable
from lpverify.verify import bound_table, verify_stream
from lpverify.versions import machine

T = TypeVar("T")
Watch = Callable[[Iterable[Result], int, str], Iterator[Result]]
CERTIFIED, PROJECTED = "certified", "projected"


def unwatched(results: Iterable[T], total: int, what: str) -> Iterator[T]:
    """No progress bar."""
    return iter(results)


@dataclass(frozen=True)
class Protocol:
    """How a network is measured.

    Attributes:
        eps, norm, clip: the ball, as in ``Settings``.
        data, data_dir, split, scale: of ``data.load_data``, for the commands.
        index: the examples of the clean, attacked and dual errors; None for all.
        certify: those of the certified error, as indices of the data set; None for the same as ``index``.
        steps, restarts: of PGD.
        timeout: seconds an example for the certified error.
        confidence: with which the bound over random projections holds for an example, in (0, 1); None: not measured.
        projections: of that bound; None: ``probable`` chooses.
        device, dtype, batch_size, seed: see ``Settings``.
        source: arguments of the commands that tell how the model file is read, like ("--arch", "small").
    """

    eps: str
    norm: str = "inf"
    clip: tuple[str, str] | None = None
    data: str = "mnist"
    data_dir: Path | None = None
    split: str = "test"
    scale: float | None = None
    index: str | None = None
    certify: str | None = None
    steps: int = 50
    restarts: int = 10
    timeout: float = 10.0
    confidence: float | None = None
    projections: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int | None = None
    seed: int = 0
    source: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a confidence that cannot be had.

        Raises:
            UsageError: see ``probable.check_probable``.
        """
        if self.confidence is not None:
            check_probable(self.norm, self.confidence, self.projections)
        elif self.projections is not None:
            raise UsageError(f"projections: {self.projections} has an effect only with confidence; give --confidence")

    def settings(self, method: str = "auto", timeout: float | None = None) -> Settings:
        """The pipeline's settings for one of the measurements."""
        return Settings(
            self.eps, self.norm, self.clip, method=method, timeout=timeout,
            device=self.device, dtype=self.dtype, batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """The protocol for a JSON file."""
        return {**asdict(self), "data_dir": None if self.data_dir is None else str(self.data_dir)}

    def command(self, name: str, model: str, index: str | None, *more: str) -> str:
        """The command line that measures one number again; an option at its default is left out."""
        words = ["lpverify", name, model, *self.source, "--data", self.data]
        for option, value, default in (
            ("--data-dir", self.data_dir, None), ("--split", self.split, "test"), ("--scale", self.scale, None),
            ("--index", index, None), ("--eps", self.eps, None), ("--norm", self.norm, "inf"),
            ("--clip", self.clip, None), ("--device", self.device, "cpu"), ("--dtype", self.dtype, "float32"),
            ("--batch-size", self.batch_size, None), ("--seed", self.seed, 0),
        ):  # fmt: skip
            if value != default:
                words += [option, *(value if isinstance(value, tuple) else (str(value),))]
        return shlex.join([*words, *more])


@dataclass(frozen=True)
class Measure:
    """One error: ``count`` of ``total`` examples, what it says, and the command that makes it again."""

    name: str
    count: int
    total: int
    meaning: str
    command: str
    seconds: float

    @property
    def error(self) -> float:
        """The share, in [0, 1]."""
        return self.count / self.total

    def record(self) -> dict[str, Any]:
        """The measure for a JSON file."""
        return {**asdict(self), "error": self.error}


@dataclass(frozen=True)
class Evaluation:
    """The errors of one network under one protocol: clean, fgsm, pgd, dual, projected where asked for, certified.

    Attributes:
        measures: in this order.
        protocol: how they were measured.
        network, data: the SHA-256 of both; ``source``: the data set's name.
        machine: device, threads and versions (``summary.machine``).
    """

    measures: tuple[Measure, ...]
    protocol: Protocol
    network: str
    data: str
    source: str
    machine: dict[str, Any]

    def __getitem__(self, name: str) -> Measure:
        return next(measure for measure in self.measures if measure.name == name)

    def record(self) -> dict[str, Any]:
        """The evaluation for a JSON file."""
        return {
            "errors": {m.name: m.record() for m in self.measures},
            "protocol": self.protocol.record(),
            "network": {"sha256": self.network},
            "data": {"source": self.source, "sha256": self.data},
            **self.machine,
        }


def evaluate(
    network: Network,
    examples: Examples,
    protocol: Protocol,
    *,
    model: str,
    out: Path | None = None,
    watch: Watch = unwatched,
) -> Evaluation:
    """Measure a network; the verified and falsified examples' evidence goes to ``out``/certified.

    Args:
        network: the lowered network.
        examples: the whole data set, with labels; the protocol says which of them count.
        model: the network's file, for the commands.
        out: where the folder of the certified run is put, or replaced; None keeps no evidence.
        watch: wraps a stream of so many results with a name, for a progress bar.

    Raises:
        ShapeError, DataError, UsageError: for data that do not fit the network or the ball, or a protocol that
            cannot be used.
    """
    indices, chosen, y = _select(network, examples, protocol, protocol.index)
    loose = protocol.settings()
    searches: dict[str, tuple[str, dict[str, Any]]] = {
        "fgsm": ("wrong after one fast gradient step", {"method": "fgsm", "steps": 1, "restarts": 1}),
        "pgd": (f"wrong after PGD of {protocol.steps} steps and {protocol.restarts} restarts",
                {"method": "pgd", "steps": protocol.steps, "restarts": protocol.restarts}),
    }  # fmt: skip
    measures = []
    for name, (meaning, search) in searches.items():
        began = time.perf_counter()
        stream = attack_stream(network, chosen.x, y, loose, indices.tolist(), loss="margin", **search)
        tally = _counted(watch(stream, len(y), name))
        more = [word for key, value in search.items() for word in (f"--{_OPTION.get(key, key)}", str(value))]
        command = protocol.command("attack", model, protocol.index, *more, "--out", f"RUN/{name}")
        seconds = time.perf_counter() - began
        if name == "fgsm":
            measures.append(Measure("clean", tally.misclassified, len(y), "wrong without any change", command, seconds))
        measures.append(Measure(name, tally.verdicts[Verdict.FALSIFIED], len(y), meaning, command, seconds))
    measures.append(_dual(network, chosen.x, y, protocol, model))
    if protocol.confidence is not None:
        measures.append(_projected(network, chosen.x, y, protocol, model, protocol.confidence))
    measures.append(_certified(network, examples, protocol, model, out, watch))
    sha256 = network_file(network)[1]
    where = machine(protocol.device, torch.get_num_threads())
    return Evaluation(tuple(measures), protocol, sha256, examples.sha256, examples.source, where)


_OPTION = {"method": "attack"}


def _select(
    network: Network, examples: Examples, protocol: Protocol, index: str | None
) -> tuple[NDArray[np.int64], Examples, NDArray[np.int64]]:
    """Indices, examples and labels, checked."""
    indices, chosen = select(examples, index or f"0:{len(examples)}")
    check_shape(chosen, network.shapes[0])
    check_range(chosen, protocol.clip)
    check_inside(chosen, protocol.eps, protocol.clip)
    return indices, chosen, check_labels(chosen, network.output_size)


def _counted(results: Iterable[Result]) -> Tally:
    tally = Tally()
    for result in results:
        tally.add(result)
    return tally


def _dual(network: Network, x: NDArray[Any], y: NDArray[np.int64], protocol: Protocol, model: str) -> Measure:
    began = time.perf_counter()
    margins = bound_table(network, x, y, protocol.settings("dual"), ["dual"])["dual"]
    count = int((~(margins > 0).all(1)).sum())
    command = protocol.command("bounds", model, protocol.index, "--method", "dual")
    meaning = "some margin of the dual bound is not > 0"
    return Measure("dual", count, len(y), meaning, command, time.perf_counter() - began)


def _projected(
    network: Network, x: NDArray[Any], y: NDArray[np.int64], protocol: Protocol, model: str, confidence: float
) -> Measure:
    began = time.perf_counter()
    found = probable(network, x, y, protocol.settings(), confidence, protocol.projections)
    words = ["--confidence", f"{confidence!r}", "--projections", str(found.projections)]
    for option, value in (("--certify", protocol.certify), ("--timeout", f"{protocol.timeout:g}"),
                          ("--steps", protocol.steps), ("--restarts", protocol.restarts)):  # fmt: skip
        words += [] if value is None else [option, str(value)]
    meaning = (
        f"some margin of the dual bound by {found.projections} projections is not > 0; the margins hold for an example "
        f"with probability >= {confidence!r}, and certify nothing"
    )
    command = protocol.command("evaluate", model, protocol.index, *words, "--out", "RUN/")
    return Measure(PROJECTED, int(found.open.sum()), len(y), meaning, command, time.perf_counter() - began)


def _certified(
    network: Network, examples: Examples, protocol: Protocol, model: str, out: Path | None, watch: Watch
) -> Measure:
    began = time.perf_counter()
    index = protocol.certify or protocol.index
    indices, chosen, y = _select(network, examples, protocol, index)
    settings, tally = protocol.settings(timeout=protocol.timeout), Tally()
    folder = None if out is None else out / CERTIFIED
    with nullcontext(None) if folder is None else RunFolder(folder, overwrite=True) as run:
        data, sha256 = network_file(network)
        if run is not None:
            run.write_network(data, sha256)
        stream = verify_stream(network, chosen.x, y, settings, indices.tolist())
        for position, result in enumerate(watch(stream, len(y), CERTIFIED)):
            tally.add(result)
            if run is not None:
                run.add(result, claim_of(settings, chosen.x[position], int(y[position]), network.output_size))
        seconds = time.perf_counter() - began
        if run is not None:
            run.write_summary(_summary(tally, settings, protocol, network, sha256, chosen, model, seconds))
    command = protocol.command(
        "verify", model, index, "--timeout", f"{protocol.timeout:g}", "--out", f"RUN/{CERTIFIED}"
    )
    count, falsified = len(y) - tally.verdicts[Verdict.VERIFIED], tally.verdicts[Verdict.FALSIFIED]
    meaning = f"not verified by auto: {falsified} falsified, {count - falsified} unknown"
    return Measure(CERTIFIED, count, len(y), meaning, command, seconds)


def _summary(
    tally: Tally, settings: Settings, protocol: Protocol, network: Network, sha256: str, chosen: Examples, model: str,
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """The ``summary.json`` of the certified run, as ``lpverify verify`` writes it."""
    clip = None if settings.clip is None else list(settings.clip)
    return summary(
        tally,
        stopped=None,
        options={"model": model, **asdict(settings), "clip": clip, "mean": None, "std": None},
        seconds={"verify": round(seconds, 6), "total": round(seconds, 6)},
        network={"sha256": sha256, "notes": list(network.notes)},
        data={"source": chosen.source, "sha256": chosen.sha256},
        **machine(protocol.device, torch.get_num_threads()),
    )
