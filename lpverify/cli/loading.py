"""From the options of a command to a network, its examples and the run's description."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpverify.errors import DataError, ExampleError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lpverify.data import Examples
    from lpverify.network import Network
    from lpverify.runs.store import Header
    from lpverify.settings import Settings

SOURCE = ("data_dir", "split", "scale")
SETTINGS = (
    "eps", "norm", "clip", "method", "semantics", "timeout", "device", "dtype", "batch_size", "seed",
    "backend", "solver", "time_limit", "workers", "scheduler", "objective",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Job:
    """A network and the chosen examples: ``indices`` (K,) in the data set, ``x`` (K, ...), ``y`` (K,) (or (0,)).

    Attributes:
        examples: the chosen ones, those included that are refused by themselves.
        refused: why, by index in the data set; ``indices``, ``x`` and ``y`` are without them.
        asked: (K + refused,) all chosen indices, in order.
    """

    network: Network
    examples: Examples
    indices: NDArray[np.int64]
    x: NDArray[Any]
    y: NDArray[np.int64]
    asked: NDArray[np.int64]
    refused: dict[int, str] = field(default_factory=dict)


def load_network(model: Path, given: dict[str, Any]) -> Network:
    """The lowered network of the options in ``cli.options.MODEL``; files are refused with ModelError."""
    from lpverify.lowering import load_model

    if ":" in (given["arch"] or "") and os.getcwd() not in sys.path:
        # One's own module lies beside one's own files.
        sys.path.append(os.getcwd())
    return load_model(
        model, arch=given["arch"], input_shape=given["input_shape"], mean=given["mean"], std=given["std"]
    )


def say_assumed(model: Path, network: Network) -> None:
    """Say what of the network is not in its file, once all else has been found to be good."""
    from lpverify.lowering.checkpoint import ASSUMED

    if ASSUMED in network.notes:
        click.echo(f"{model}: {ASSUMED}; for other activations give --arch or an ONNX file", err=True)


def load_job(model: Path, given: dict[str, Any], *, labelled: bool = True) -> Job:
    """Everything that a command on examples needs, checked: the network first, then data, labels and range.

    Args:
        labelled: data without labels are refused; else ``y`` is empty where there are none.
    """
    from lpverify.settings import require_device

    require_device(given["device"])
    job = examples_for(load_network(model, given), given, labelled=labelled)
    say_assumed(model, job.network)
    return job


def examples_for(network: Network, given: dict[str, Any], *, labelled: bool = True) -> Job:
    """``load_job`` for a network that is there."""
    from lpverify.data import check_inside, check_range, check_shape, load_data, select

    keep_going = bool(given.get("keep_going"))
    try:
        every = load_data(given["data"], **{name: given[name] for name in SOURCE}, keep_going=keep_going)
        indices, examples = select(every, given["index"] if given["index"] is not None else f"0:{len(every)}")
        check_shape(examples, network.shapes[0])
        if keep_going:
            return _without_refused(network, examples, indices, given)
        check_range(examples, given["clip"])
        if given.get("eps") is not None:
            check_inside(examples, given["eps"], given["clip"])
        y = _labels(examples, network.output_size, labelled)
    except ExampleError as error:
        hint = "; --keep-going goes on with the other examples" if "keep_going" in given else ""
        raise ExampleError(f"{error}{hint}") from None
    return Job(network, examples, indices, examples.x, y, indices)


def _without_refused(network: Network, examples: Examples, indices: NDArray[np.int64], given: dict[str, Any]) -> Job:
    """The job of the examples that can be used, with the reasons of the others."""
    import numpy as np

    from lpverify.data import refusals

    found = refusals(examples, network.output_size, given["eps"], given["clip"])
    kept = np.array([place for place in range(len(examples)) if place not in found], dtype=np.int64)
    assert examples.y is not None
    refused = {int(indices[place]): reason for place, reason in found.items()}
    return Job(network, examples, indices[kept], examples.x[kept], examples.y[kept], indices, refused)


def _labels(examples: Examples, classes: int, labelled: bool) -> NDArray[np.int64]:
    import numpy as np

    from lpverify.data import check_labels

    if examples.y is None and not labelled:
        return np.zeros(0, np.int64)
    return check_labels(examples, classes)


def make_settings(given: dict[str, Any]) -> Settings:
    """The pipeline's settings: the given options that it knows.

    Raises:
        DataError: if the clip's lower end is above its upper end.
    """
    clip = given["clip"]
    if clip is not None and Fraction(clip[0]) > Fraction(clip[1]):
        raise DataError(f"clip: the lower end {clip[0]} is above the upper end {clip[1]}; give --clip LO HI")
    from lpverify.settings import Settings

    return Settings(**{name: given[name] for name in SETTINGS if name in given})


def describe(model: Path, given: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The "options" of a summary: the settings and where network and normalisation came from."""
    options = asdict(settings)
    options["clip"] = list(settings.clip) if settings.clip is not None else None
    for name in ("mean", "std", "input_shape"):
        options[name] = list(given[name]) if given[name] is not None else None
    return {"model": str(model), "arch": given["arch"], **options}


def header(job: Job, command: str, sha256: str, settings: Settings, asked: dict[str, Any] | None = None) -> Header:
    """What a run's results depend on, by which one that is gone on with is known.

    Where examples are decided is left out, for in the same batches they are decided alike; so is the number of threads,
    which may change the last bits of what is proved and nothing else. A limit of time is not left out: it decides what
    is tried.

    Args:
        asked: options besides the settings.
    """
    from lpverify.session import batch_size

    more = {"index": _ranges(job.asked.tolist()), "batch_size": batch_size(job.network, settings), **(asked or {})}
    if job.refused:
        more["keep_going"] = True
    return settings_header(command, sha256, job.examples.sha256, settings, more)


def settings_header(command: str, sha256: str, data: str, settings: Settings, asked: dict[str, Any]) -> Header:
    """The header of a run about ``data`` (a SHA-256); ``asked`` is added to the settings, or replaces them."""
    from lpverify.runs.store import Header, canonical

    options = {name: value for name, value in asdict(settings).items() if name not in ("workers", "scheduler")}
    return Header(command, sha256, data, canonical({**options, **asked}))


def _ranges(indices: list[int]) -> str:
    """Indices in order, like 0:500,7."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1]:
            parts[-1][1] += 1
        else:
            parts.append([index, index + 1])
    return ",".join(str(first) if end == first + 1 else f"{first}:{end}" for first, end in parts)


def provenance(job: Job, sha256: str, settings: Settings) -> dict[str, Any]:
    """What a summary says of the network, the data and the machine."""
    import torch

    from lpverify.versions import machine

    return {
        "network": {"sha256": sha256, "notes": list(job.network.notes)},
        "data": {
            "source": job.examples.source, "sha256": job.examples.sha256, "index": _ranges(job.asked.tolist()),
        },
        **machine(settings.device, torch.get_num_threads()),
    }
