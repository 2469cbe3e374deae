"""Training a cascade (Wong et al. 2018, "Scaling provable adversarial defenses"; thesis, algorithm 4).

Each stage is trained by the same config, on the examples that no stage before it certifies for the class it predicts:
those are the ones that will reach it. The dual bound in floating point selects them; what a finished cascade certifies
is decided by ``cascade`` and the checker.

    RUN/config.toml            the config as resolved
    RUN/stage-1/               the run of stage 1, as ``loop`` describes it
    RUN/stage-1-left.npz       what stage 1 and those before it leave: indices of examples, by part
    RUN/cascade.toml           the finished stages, for ``lpverify verify``
    RUN/summary.json           for each stage its examples, what it leaves, and its own summary
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpverify.arrayfile import read_npz
from lpverify.detect import predictions
from lpverify.errors import DataError, UsageError
from lpverify.files import write_atomic, write_npz
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.settings import Settings
from lpverify.training.checkpoint import BEST
from lpverify.training.config import TrainConfig
from lpverify.training.loop import SUMMARY, Report, open_folder, train
from lpverify.training.model import build_model, choose_device
from lpverify.training.splits import Part, Splits, load_splits
from lpverify.training.tensorboard import require_tensorboard
from lpverify.verify import bound_table

CASCADE = "cascade.toml"
PARTS = ("train", "validation", "test")
# What selects the examples of the next stage.
METHOD = "dual"
# Examples bounded at once between two looks at the clock of whoever waits.
CHUNK = 1000

Left = dict[str, NDArray[np.int64]]


def train_cascade(
    config: TrainConfig,
    out: Path,
    *,
    splits: Splits | None = None,
    command: str = "",
    report: Report | None = None,
    tensorboard: bool = False,
    begin: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train ``config.stages`` stages in the folder ``out``, or go on with those that are there; returns the summary.

    A cascade ends early where its stages certify every training example.

    Args:
        splits, command, report, tensorboard: as in ``loop.train``.
        begin: called with a stage, from 1, and the number of its training examples before it is trained.

    Raises:
        UsageError, DataError, ResourceError: as ``loop.train``.
    """
    if config.stages < 2:
        raise UsageError(f"stages: {config.stages} is no cascade; give at least 2, or train a single model")
    if ":" in config.arch:
        raise UsageError(f"arch: {config.arch!r} is code of your own; stages are read by names of lpverify.models")
    if tensorboard:
        require_tensorboard()
    open_folder(config, out)
    model = build_model(config)
    splits = splits or load_splits(config, model.input_shape, model.num_classes)
    single, stages = replace(config, stages=1), []
    left: Left = {name: np.arange(len(part)) for name, part in _parts(splits).items()}
    for k in range(1, config.stages + 1):
        folder = out / f"stage-{k}"
        if begin is not None:
            begin(k, len(left["train"]))
        summary = train(
            single, folder, splits=reduced(splits, left), command=command, report=report, tensorboard=tensorboard
        )
        before = {name: len(indices) for name, indices in left.items()}
        left = _left(out / f"stage-{k}-left.npz", folder / BEST, config, splits, left)
        after = {name: len(indices) for name, indices in left.items()}
        stages.append({"stage": k, "examples": before, "left": after, "summary": summary})
        if not after["train"]:
            break
    files = [f"stage-{stage['stage']}/{BEST}" for stage in stages]
    write_atomic(out / CASCADE, f"stages = {json.dumps(files)}\n".encode(), sync=True)
    done = {"stages": stages, "cascade": str(out / CASCADE)}
    write_atomic(out / SUMMARY, (json.dumps(done, indent=2, allow_nan=False) + "\n").encode(), sync=True)
    return done


def uncertified(network: Network, x: Tensor, settings: Settings) -> NDArray[np.int64]:
    """The indices, rising, of the inputs x (N, ...) that the settings' method does not certify for the class that the
    network predicts there: those with a margin that is not > 0, in the engine's arithmetic."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK].numpy()
        margins = bound_table(network, part, predictions(network, part), settings, [settings.method])
        found.append(start + np.flatnonzero(~(margins[settings.method] > 0).all(1)))
    return np.concatenate(found)


def reduced(splits: Splits, left: Left) -> Splits:
    """The examples that are left. Where none is left for validation or testing, all of that part are kept."""
    digest, chosen = hashlib.sha256(splits.sha256.encode()), {}
    for name, part in _parts(splits).items():
        indices = left[name] if len(left[name]) else np.arange(len(part))
        digest.update(name.encode() + indices.tobytes())
        chosen[name] = part.select(torch.as_tensor(indices))
    return Splits(chosen["train"], chosen.get("validation"), chosen.get("test"), digest.hexdigest())


def _parts(splits: Splits) -> dict[str, Part]:
    return {name: getattr(splits, name) for name in PARTS if getattr(splits, name) is not None}


def _left(file: Path, checkpoint: Path, config: TrainConfig, splits: Splits, left: Left) -> Left:
    """What of ``left`` the stage of a checkpoint does not certify either; kept in a file for a resumed run."""
    digest = np.frombuffer(hashlib.sha256(checkpoint.read_bytes()).digest(), np.uint8)
    kept = _kept(file, digest, left)
    if kept is not None:
        return kept
    network = load_model(checkpoint)
    clip = None if config.clip is None else (repr(config.clip[0]), repr(config.clip[1]))
    device = choose_device(config.device).type
    settings = Settings(repr(config.eps), config.norm, clip, method=METHOD, device=device)
    found = {
        name: left[name][uncertified(network, part.x[torch.as_tensor(left[name])].cpu(), settings)]
        for name, part in _parts(splits).items()
    }
    write_npz(file, {"checkpoint": digest, **found}, sync=True)
    return found


def _kept(file: Path, digest: NDArray[np.uint8], left: Left) -> Left | None:
    """What the file says, if it is about this checkpoint."""
    try:
        arrays = read_npz(file, ("checkpoint", *left)) if file.is_file() else {}
    except DataError:
        return None
    if set(arrays) != {"checkpoint", *left} or not np.array_equal(arrays["checkpoint"], digest):
        return None
    return {name: arrays[name].astype(np.int64) for name in left}
