"""The training loop: epochs of steps, measured, saved after each, and resumed from there.

    RUN/config.toml           the config as resolved
    RUN/metrics.jsonl         one line an epoch
    RUN/last.safetensors      the weights after the last epoch
    RUN/best.safetensors      those of the epoch that early stopping likes best; without it, the last
    RUN/state.safetensors     what a resumed run goes on from
    RUN/summary.json          at the end: best and last epoch, and how far apart they are
    RUN/tensorboard/          the metrics once more, where that is asked for
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpverify.errors import UsageError
from lpverify.files import disk, write_atomic
from lpverify.problem import Specification
from lpverify.training.augment import augmented, check_augment
from lpverify.training.checkpoint import BEST, LAST, header, write_checkpoint
from lpverify.training.config import TrainConfig, differing, resolved
from lpverify.training.methods import METHODS, AbstractTrainingMethod, Batch
from lpverify.training.metrics import METRICS, Means, MetricsFile, read_metrics
from lpverify.training.model import Model, build_model, make_optimizer
from lpverify.training.schedules import eps_at, lr_at, ramp
from lpverify.training.splits import Part, Splits, load_splits
from lpverify.training.state import STATE, Live, Position, load_state, read_position, save_state
from lpverify.training.tensorboard import TENSORBOARD, Board, require_tensorboard

CONFIG, SUMMARY = "config.toml", "summary.json"

# Called after every step with the epoch (from 1), the steps of it that are done, all its steps, and its means so far.
Report = Callable[[int, int, int, Means], None]


def train(
    config: TrainConfig,
    out: Path,
    *,
    splits: Splits | None = None,
    command: str = "",
    report: Report | None = None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train a model in the folder ``out``, or go on with the run that is there; returns its summary.

    On a CPU, a run that was killed and resumed ends with the bits of one that was not.

    Args:
        splits: the examples, if not those that ``config`` names.
        command: what to write into checkpoints as their origin.
        tensorboard: also write the metrics, those of earlier epochs included, as TensorBoard's events.

    Raises:
        UsageError: if ``out`` holds something else or a run of another config, the loss stops being finite, or
            TensorBoard is not installed.
        DataError: if the data or the saved state are refused.
        ResourceError: if the disk refuses.
    """
    if config.stages != 1:
        raise UsageError(f"stages: {config.stages} is a cascade; one model is trained with stages = 1")
    if tensorboard:
        require_tensorboard()
    position = open_folder(config, out)
    if position.epoch == config.epochs or position.stopped:
        if tensorboard:
            Board(out / TENSORBOARD, read_metrics(out / METRICS)).close()
        return _summarise(config, out, position)
    with _threads(config.threads):
        model = build_model(config)
        check_augment(config, model.input_shape)
        splits = splits or load_splits(config, model.input_shape, model.num_classes)
        if position.data not in ("", splits.sha256):
            raise UsageError(f"{out}: the run that is there was trained on other data; choose another folder")
        run = _Run(config, out, METHODS[config.method].from_config(config), model, splits, command, tensorboard)
        return run.finish(position, report)


@dataclass(eq=False)
class _Run:
    """A run in progress."""

    config: TrainConfig
    out: Path
    method: AbstractTrainingMethod
    model: Model
    splits: Splits
    command: str
    tensorboard: bool

    def __post_init__(self) -> None:
        device = self.model.device
        self.part = self.splits.train.to(device)
        limit = self.config.eval_limit
        self.judges = {
            name: part.first(limit).to(device)
            for name, part in (("validation", self.splits.validation), ("test", self.splits.test))
            if part is not None
        }
        generator = torch.Generator().manual_seed(self.config.seed)
        self.live = Live(self.model.module, make_optimizer(self.config, self.model.module), generator)

    def finish(self, position: Position, report: Report | None) -> dict[str, Any]:
        """Train from ``position`` to the end."""
        config, live = self.config, self.live
        if position.epoch:
            load_state(self.out / STATE, live)
        else:
            self.method.prepare(live.module, live.generator)
            position = replace(position, config=resolved(config), data=self.splits.sha256)
        metrics = MetricsFile(self.out / METRICS, position.metrics_bytes)
        board = Board(self.out / TENSORBOARD, read_metrics(self.out / METRICS)) if self.tensorboard else None
        try:
            while position.epoch < config.epochs and not position.stopped:
                position = self._epoch(position, metrics, board, report)
        finally:
            metrics.close()
            if board is not None:
                board.close()
        return _summarise(config, self.out, position)

    def _epoch(
        self, position: Position, metrics: MetricsFile, board: Board | None, report: Report | None
    ) -> Position:
        """One epoch, measured and saved: checkpoints and the line of metrics first, the state that counts last."""
        config, epoch = self.config, position.epoch + 1
        began = time.perf_counter()
        means, minibatches = self._train_epoch(epoch, report)
        values = means.values()
        trained = time.perf_counter()
        if values["loss"] is None:
            raise UsageError(
                f"lr: {config.lr!r} let the loss of epoch {epoch} grow without bound; lower it or set grad_clip "
                f"(the epochs before are kept in {self.out})"
            )
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": position.step + minibatches * self.method.steps,
            "eps": eps_at(config, epoch - 1 / minibatches),
            "lr": lr_at(config, epoch - 1 / minibatches),
            **values,
        }
        if epoch % config.eval_every == 0 or epoch == config.epochs:
            for name, part in self.judges.items():
                judged = self.judge(part).values()
                record |= {f"{name}_{column}": value for column, value in judged.items() if column != "loss"}
        record["seconds"] = round(trained - began, 3)
        record["eval_seconds"] = round(time.perf_counter() - trained, 3)
        record["memory_peak_bytes"] = _memory_peak(self.model.device)
        best = _better(config, position.best, record)
        length = metrics.add(record)
        metadata = header(config, self.model.input_shape, epoch, self.command)
        write_checkpoint(self.out / LAST, self.live.module, metadata)
        if best is record or config.early_stopping == "none":
            write_checkpoint(self.out / BEST, self.live.module, metadata)
        position = replace(
            position,
            epoch=epoch,
            step=record["step"],
            metrics_bytes=length,
            best=best,
            stopped=_is_stale(config, best, epoch),
        )
        save_state(self.out / STATE, position, self.live)
        if board is not None:
            board.add(record)
        return position

    def _train_epoch(self, epoch: int, report: Report | None) -> tuple[Means, int]:
        """The steps of one epoch (counted from 1): their means, and the number of minibatches."""
        config, live, means = self.config, self.live, Means()
        batches = torch.split(torch.randperm(len(self.part), generator=live.generator), config.batch)
        for done, index in enumerate(batches):
            t = epoch - 1 + done / len(batches)
            chosen = self.part.select(index.to(self.model.device))
            chosen = replace(chosen, x=augmented(config, chosen.x, live.generator))
            for group in live.optimizer.param_groups:
                group["lr"] = lr_at(config, t)
            batch = self._batch(chosen, eps_at(config, t), ramp(config, t), live.generator, live.memory)
            for replay in range(self.method.steps):
                if replay:
                    batch = replace(batch, network=self.model.network())
                losses = self.method.losses(batch)
                live.optimizer.zero_grad()
                torch.autograd.backward(losses.loss)
                if config.grad_clip is not None:
                    torch.nn.utils.clip_grad_norm_(live.module.parameters(), config.grad_clip)
                live.optimizer.step()
                means.add(losses)
            if report is not None:
                report(epoch, done + 1, len(batches), means)
        return means, len(batches)

    def judge(self, part: Part) -> Means:
        """The method's own measure of some examples, at the final radius."""
        means, generator = Means(), torch.Generator().manual_seed(self.config.seed)
        memory: dict[str, Tensor] = {}
        with torch.no_grad():
            for index in torch.split(torch.arange(len(part), device=self.model.device), self.config.batch):
                batch = self._batch(part.select(index), self.config.eps, 1.0, generator, memory)
                means.add(self.method.measure(batch))
        return means

    def _batch(
        self, part: Part, eps: float, progress: float, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Batch:
        spec = Specification.label(part.y, self.model.num_classes, part.x.dtype)
        network, norm, clip = self.model.network(), self.config.norm, self.config.clip
        return Batch(network, part.x, part.y, spec, eps, progress, generator, memory, norm, clip)


def open_folder(config: TrainConfig, out: Path) -> Position:
    """Make the folder of a new run, or find where the run that is there stands."""
    with disk(out):
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; choose a folder for the run")
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (out / CONFIG).is_file():
            raise UsageError(f"{out}: the folder is not empty and holds no training run; choose another")
        if not (out / CONFIG).is_file():
            write_atomic(out / CONFIG, resolved(config).encode(), sync=True)
        there = (out / CONFIG).read_text(encoding="utf-8")
    if difference := differing(there, config):
        raise UsageError(f"{out}: holds a run with {difference}; give its config or choose another folder")
    return read_position(out / STATE) if (out / STATE).exists() else Position()


def _better(config: TrainConfig, best: dict[str, Any] | None, record: dict[str, Any]) -> dict[str, Any] | None:
    """The better of two epochs by early stopping's measure, the earlier one where they tie."""
    error, loss = {"clean": ("error", "nominal_loss"), "robust": ("robust_error", "robust_loss")}.get(
        config.early_stopping, ("", "")
    )
    if f"validation_{error}" not in record:
        return best

    def key(line: dict[str, Any]) -> tuple[float, float]:
        values = (line[f"validation_{error}"], line[f"validation_{loss}"])
        return math.inf if values[0] is None else values[0], math.inf if values[1] is None else values[1]

    return record if best is None or key(record) < key(best) else best


def _is_stale(config: TrainConfig, best: dict[str, Any] | None, epoch: int) -> bool:
    """Whether patience has run out; epochs of the ramp do not try it."""
    if not config.patience or best is None:
        return False
    begin: float = max(best["epoch"], config.eps_warmup + config.eps_ramp)
    return epoch - begin >= config.patience


def _summarise(config: TrainConfig, out: Path, position: Position) -> dict[str, Any]:
    """Write and return the summary of a run that has come to its end."""
    last = read_metrics(out / METRICS)[-1]
    judged = "test" if "test_robust_error" in last else "validation"
    column = f"{judged}_robust_error"
    best = position.best
    gap = last[column] - best[column] if best is not None and last.get(column) is not None else None
    summary = {
        "epochs": position.epoch,
        "stopped_early": position.stopped,
        "last": last,
        "best": best,
        "robust_overfitting": gap,
        "robust_overfitting_of": column if gap is not None else None,
    }
    write_atomic(out / SUMMARY, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode(), sync=True)
    return summary


def _memory_peak(device: torch.device) -> int:
    """The most memory in use so far: of torch on a GPU, of the process else (Linux counts it in KiB)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads (0: as many as it does) inside."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)
