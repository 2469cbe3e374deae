"""TrainConfig: everything that decides a training run, as one flat TOML file."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from lpverify import models
from lpverify.errors import UsageError
from lpverify.training.methods import METHODS

CHOICES = {
    "norm": ("inf", "2"),
    "eps_schedule": ("constant", "linear", "smooth"),
    "optimizer": ("adam", "sgd"),
    "lr_schedule": ("constant", "step", "cyclic", "cosine"),
    "device": ("auto", "cpu", "cuda"),
    "early_stopping": ("none", "clean", "robust"),
    "augment": ("none", "shift", "shift-flip"),
    "projection_estimator": ("median", "geometric"),
    "init": ("default", "ibp"),
}
# Number keys: the least value, whether it is allowed itself, the greatest.
RANGES: dict[str, tuple[float, bool, float]] = {
    "eps": (0, True, math.inf),
    "eps_start": (0, True, math.inf),
    "eps_warmup": (0, True, math.inf),
    "eps_ramp": (0, True, math.inf),
    "epochs": (1, True, math.inf),
    "batch": (1, True, math.inf),
    "lr": (0, False, math.inf),
    "lr_gamma": (0, False, 1),
    "lr_peak": (0, True, 1),
    "momentum": (0, True, 0.999999),
    "weight_decay": (0, True, math.inf),
    "grad_clip": (0, False, math.inf),
    "seed": (0, True, 2**63 - 1),
    "threads": (0, True, 4096),
    "validation": (0, True, 0.5),
    "patience": (0, True, math.inf),
    "shift": (1, True, math.inf),
    "train_limit": (0, True, math.inf),
    "eval_every": (1, True, math.inf),
    "eval_limit": (0, True, math.inf),
    "stages": (1, True, 100),
    "attack_radius": (0, False, math.inf),
    "attack_steps": (1, True, 10000),
    "attack_step": (0, False, math.inf),
    "attack_restarts": (1, True, 1000),
    "replays": (1, True, 1000),
    "eval_steps": (1, True, 10000),
    "projections": (0, True, 100000),
    "share": (0, True, 1),
    "regularise": (0, True, math.inf),
}
# Keys that count only with one value of another key.
ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "lr_steps": ("lr_schedule", ("step",)),
    "lr_gamma": ("lr_schedule", ("step",)),
    "lr_peak": ("lr_schedule", ("cyclic",)),
    "eps_start": ("eps_schedule", ("linear", "smooth")),
    "eps_warmup": ("eps_schedule", ("linear", "smooth")),
    "eps_ramp": ("eps_schedule", ("linear", "smooth")),
    "patience": ("early_stopping", ("clean", "robust")),
    "shift": ("augment", ("shift", "shift-flip")),
}


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Radii are in raw input units, lengths of time in epochs, fractions of them allowed.

    The keys from ``attack_radius`` on belong to methods: None takes the method's default (the fields of the classes in
    ``methods``), and a value is refused where the method does not use the key.

    Attributes:
        data: a data set's name (``datasets.DATASETS``), or FILE.npz with arrays x and y.
        data_dir: folder with the data set's own files; absent: OpenML (digits and toy2d are bundled).
        arch: a name of ``models``, or package.module:function.
        method: a key of METHODS.
        eps: radius of the ball, >= 0; what methods without a ball of their own are measured at.
        norm: of the ball: "inf" or "2".
        clip: two rising numbers that also bound every input; absent: no bounds.
        mean, std: the first layer is (x - mean) / std; a number, or one for each channel. Absent: no such layer.
        eps_schedule: "constant", or from ``eps_start`` to ``eps`` on a straight line ("linear") or slowly first
            ("smooth", see ``schedules``).
        eps_start: radius before and at the beginning of the ramp, <= eps.
        eps_warmup, eps_ramp: epochs before the ramp, epochs of the ramp.
        epochs: passes over the training examples, >= 1.
        batch: examples of a step; what is left at the end of an epoch makes a smaller step.
        optimizer: "adam" or "sgd".
        lr: the greatest learning rate, > 0.
        lr_schedule: "constant"; "step": times ``lr_gamma`` at each of the epochs ``lr_steps``; "cosine": down to 0 at
            the end of the run; "cyclic": from 0 to ``lr`` at the share ``lr_peak`` of the run and back, linearly.
        momentum, weight_decay: of the optimizer.
        grad_clip: greatest l2 norm of a step's gradient; absent: none.
        seed: of weights, order, splits, augmentation and the method's randomness.
        device: "cpu", "cuda", or "auto", the better one that is there.
        threads: of the processor; 0: torch's own choice. Runs are bit-equal only with equal threads.
        amp: the attacks' forward and backward passes in half precision; the step itself and bounds never are.
        validation: share of the training examples held out, each class alike, in [0, 0.5].
        early_stopping: what best.safetensors is best by: the held-out "clean" or "robust" error; "none": the last.
        patience: end after so many epochs without a better one; 0: never.
        augment: "shift": images move by up to ``shift`` pixels each way; "shift-flip": and are mirrored half the time.
        shift: pixels, >= 1; 4 is usual for CIFAR-10.
        train_limit: so many training examples, the first ones; 0: all.
        eval_every: measure held-out and test examples every so many epochs, and after the last.
        eval_limit: of each so many, the first ones; 0: all.
        stages: of a cascade; 1: a single model.
        attack_radius: of an attack's ball, in units of eps, > 0.
        attack_steps: gradient steps of an attack.
        attack_step: length of one step, in radii.
        attack_restarts: random starts of an attack, of whose ends the worst counts.
        replays: steps on one minibatch.
        eval_steps: PGD steps on held-out and test examples.
        projections: random projections of the bound; 0: exact.
        projection_estimator: "median" or "geometric".
        share: of the bound's loss in the whole, in [0, 1], once the ramp is over.
        init: the weights' initialisation: torch's "default", or "ibp" (Shi et al. 2021).
        regularise: factor of the regularisers of Shi et al. 2021; 0: none.
    """

    data: str
    method: str
    epochs: int
    eps: float = 0.0
    arch: str = "small"
    data_dir: str | None = None
    norm: str = "inf"
    clip: tuple[float, float] | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    eps_schedule: str = "constant"
    eps_start: float = 0.0
    eps_warmup: float = 0.0
    eps_ramp: float = 0.0
    batch: int = 64
    optimizer: str = "adam"
    lr: float = 1e-3
    lr_schedule: str = "constant"
    lr_steps: tuple[float, ...] = ()
    lr_gamma: float = 0.1
    lr_peak: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 0.0
    grad_clip: float | None = None
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    validation: float = 0.0
    early_stopping: str = "none"
    patience: int = 0
    augment: str = "none"
    shift: int = 4
    train_limit: int = 0
    eval_every: int = 1
    eval_limit: int = 1000
    stages: int = 1
    attack_radius: float | None = None
    attack_steps: int | None = None
    attack_step: float | None = None
    attack_restarts: int | None = None
    amp: bool | None = None
    replays: int | None = None
    eval_steps: int | None = None
    projections: int | None = None
    projection_estimator: str | None = None
    share: float | None = None
    init: str | None = None
    regularise: float | None = None

    def __post_init__(self) -> None:
        """Fill in the method's defaults and refuse what cannot be.

        Raises:
            UsageError: naming key and value.
        """
        for name, kind in KINDS.items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kind))
        _one_of("method", self.method, tuple(METHODS))
        for name in METHOD_KEYS - set(options(self.method)):
            if getattr(self, name) is not None:
                users = ", ".join(m for m in METHODS if name in options(m)) or "no method"
                value = getattr(self, name)
                raise UsageError(f"{name}: {value!r} has no effect with method {self.method!r}; it is for {users}")
        for name, default in options(self.method).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name, (other, values) in ONLY_WITH.items():
            if getattr(self, other) not in values and getattr(self, name) != DEFAULTS[name]:
                raise UsageError(f"{name}: {_toml(getattr(self, name))} {_only_with(name)}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) is not None:
                _one_of(name, getattr(self, name), allowed)
        for name, (least, included, greatest) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not ((value >= least if included else value > least) and value <= greatest):
                end = "" if greatest == math.inf else f" and <= {greatest:g}"
                raise UsageError(f"{name}: {value!r} must be {'>=' if included else '>'} {least:g}{end}")
        self._check_together()

    def _check_together(self) -> None:
        models.input_shape(self.arch) if ":" not in self.arch else None
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise UsageError(f"clip: {list(self.clip)!r} must be two rising numbers, like [0, 1]")
        for std in self.std if isinstance(self.std, tuple) else (self.std,):
            if std is not None and std <= 0:
                raise UsageError(f"std: {std!r} must be > 0")
        if METHODS[self.method].bounds and self.eps == 0:
            raise UsageError(f"eps: 0.0 leaves method {self.method!r} nothing to bound; give a radius, like 0.1")
        if self.eps_start > self.eps:
            raise UsageError(f"eps_start: {self.eps_start!r} must be <= eps, {self.eps!r}")
        if self.eps_schedule != "constant" and self.eps_ramp == 0:
            raise UsageError(f"eps_ramp: 0.0 leaves eps_schedule {self.eps_schedule!r} no time; give its epochs")
        if self.eps_warmup + self.eps_ramp > self.epochs:
            end = self.eps_warmup + self.eps_ramp
            raise UsageError(f"eps_ramp: {self.eps_ramp!r} ends the ramp after {end:g} epochs of {self.epochs}")
        if self.lr_schedule == "step" and not (self.lr_steps and list(self.lr_steps) == sorted(set(self.lr_steps))):
            raise UsageError(f"lr_steps: {list(self.lr_steps)!r} must be rising epochs, like [30, 40]")
        if self.early_stopping != "none" and self.validation == 0:
            raise UsageError(f"validation: 0.0 leaves early_stopping {self.early_stopping!r} nothing; give 0.1, say")

    @property
    def used(self) -> tuple[str, ...]:
        """The keys that have an effect in this run."""
        idle = {name for name, (other, values) in ONLY_WITH.items() if getattr(self, other) not in values}
        idle |= METHOD_KEYS - set(options(self.method))
        return tuple(name for name in KINDS if name not in idle)


def options(method: str) -> dict[str, Any]:
    """The keys that a method uses of its own, with its defaults."""
    return {field.name: field.default for field in fields(METHODS[method])}


def read_config(path: Path) -> TrainConfig:
    """The config of a TOML file.

    Raises:
        UsageError: one line that names the file, the key, its value and what to do.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"{path}: not a readable TOML file ({reason})") from None
    try:
        return from_dict(given)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def from_dict(given: dict[str, Any]) -> TrainConfig:
    """The config of the given keys, of which each must have an effect.

    Raises:
        UsageError: naming key and value.
    """
    for name, value in given.items():
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KINDS)}"
            raise UsageError(f"{name}: {value!r} is given to an unknown key; {hint}")
    for name in ("data", "method", "epochs"):
        if name not in given:
            raise UsageError(f"{name}: is missing; every run states data, method and epochs")
    config = TrainConfig(**given)
    for name in given:
        if name not in config.used:
            raise UsageError(f"{name}: {_toml(given[name])} {_only_with(name)}")
    return config


def resolved(config: TrainConfig) -> str:
    """TOML with every key that has an effect; reads back as an equal config."""
    values = {name: getattr(config, name) for name in config.used}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items() if value is not None)


def differing(text: str, config: TrainConfig) -> str:
    """The first key that a resolved config's text has otherwise than ``config``; "" if they agree.

    Where the data lie does not count; keys that are newer than the text have their defaults there.

    Raises:
        UsageError: if the text is no config.
    """
    there, here = (tomllib.loads(resolved(one)) for one in (from_dict(tomllib.loads(text)), config))
    for name in KINDS:
        if name != "data_dir" and there.get(name) != here.get(name):
            was, wanted = (_toml(d[name]) if name in d else "absent" for d in (there, here))
            return f"{name} = {was}, not {wanted}"
    return ""


def _only_with(name: str) -> str:
    other, values = ONLY_WITH[name]
    return f"has an effect only with {other} = {' or '.join(map(json.dumps, values))}; leave it out"


def _toml(value: Any) -> str:
    """A value of TrainConfig; JSON's strings, numbers, lists and truth values are TOML's too."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as the field's type: whole numbers serve as numbers, lists as tuples."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return value
    for one in kinds:
        if get_origin(one) is tuple and isinstance(value, list | tuple) and all(map(_is_number, value)):
            if get_args(one)[-1] is Ellipsis or len(value) == len(get_args(one)):
                return tuple(float(v) for v in value)
        elif one is float and _is_number(value):
            return float(value)
        elif one in (str, bool, int) and type(value) is one:
            return value
    raise UsageError(f"{name}: {value!r} is not {' or '.join(_words(one) for one in kinds if one is not type(None))}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list of numbers" if get_args(kind)[-1] is Ellipsis else "a list of two numbers"
    return {str: "text", bool: "true or false", int: "a whole number", float: "a finite number"}[kind]


KINDS: dict[str, Any] = get_type_hints(TrainConfig)
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(TrainConfig)}
METHOD_KEYS = {name for name in list(KINDS)[list(KINDS).index("attack_radius") :]}
