"""The examples of a run: for training, held out for validation, and for testing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lpverify.data import Examples, check_inside, check_labels, check_range, check_shape, load_data
from lpverify.errors import UsageError
from lpverify.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Part:
    """Examples: ``x`` (N, *input shape) float32 in raw units, ``y`` (N,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def select(self, index: Tensor) -> Part:
        """The examples of ``index``, in its order."""
        return Part(self.x[index], self.y[index])

    def first(self, count: int) -> Part:
        """The first ``count`` examples; 0: all."""
        return Part(self.x[:count], self.y[:count]) if count else self

    def to(self, device: torch.device) -> Part:
        """The examples on another device."""
        return Part(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class Splits:
    """What a run trains on and is judged by; ``validation`` and ``test`` may be None. ``sha256`` names all of it."""

    train: Part
    validation: Part | None
    test: Part | None
    sha256: str


def load_splits(config: TrainConfig, input_shape: tuple[int, ...], num_classes: int) -> Splits:
    """The examples of a config, checked against the network and its clip. A file of examples has no test split.

    Raises:
        DataError, UsageError: as ``data.load_data`` and its checks; if a class has too few examples to hold any out.
    """
    names = ("train",) if config.data.endswith(".npz") else ("train", "test")
    loaded = {name: _load(config, name, input_shape, num_classes) for name in names}
    parts = {name: _part(examples, input_shape) for name, examples in loaded.items()}
    whole = parts["train"].first(config.train_limit)
    kept, held = split(whole.y, config.validation, torch.Generator().manual_seed(config.seed))
    digest = hashlib.sha256("".join(e.sha256 for e in loaded.values()).encode()).hexdigest()
    return Splits(whole.select(kept), whole.select(held) if len(held) else None, parts.get("test"), digest)


def split(y: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices kept and held out, each rising: of every class the share, rounded, drawn at random."""
    held = torch.zeros(len(y), dtype=torch.bool)
    if share:
        for label in range(int(y.max()) + 1):
            members = (y == label).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=generator)
            held[members[order[: round(share * len(members))]]] = True
        if not held.any():
            raise UsageError(f"validation: {share!r} of {len(y)} training examples holds none out; give more")
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def _load(config: TrainConfig, name: str, input_shape: tuple[int, ...], num_classes: int) -> Examples:
    folder = None if config.data_dir is None else Path(config.data_dir)
    examples = load_data(config.data, data_dir=folder, split=name)
    check_shape(examples, input_shape)
    check_labels(examples, num_classes)
    check_range(examples, config.clip)
    if config.clip is not None:
        check_inside(examples, repr(config.eps), (repr(config.clip[0]), repr(config.clip[1])))
    return examples


def _part(examples: Examples, input_shape: tuple[int, ...]) -> Part:
    assert examples.y is not None
    return Part(torch.from_numpy(examples.x).float().reshape(-1, *input_shape), torch.from_numpy(examples.y))
