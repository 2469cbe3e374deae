"""Options that several subcommands share, and the types of their values. Imports nothing heavy."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click

from lpverify.certificate.claim import decimal
from lpverify.errors import CertificateError

Command = TypeVar("Command", bound=Callable[..., Any])

QUICK_METHODS = ("interval", "dual", "crown", "alpha")
METHOD_NAMES = (*QUICK_METHODS, "lp", "lp-tight", "milp", "sdp")
BACKEND_NAMES = ("highs", "cvxpy", "pulp")
NORMS = ("inf", "2", "1")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LARGEST = Fraction(10) ** 300


class Decimal(click.ParamType[str]):
    """A finite decimal, kept as the text that was given: certificates state the radius exactly."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself, if it is a decimal."""
        text = str(value).strip()
        try:
            exact = decimal(text)
        except CertificateError:
            self.fail(f"{value!r} is not a decimal number; write it like {_decimal_like(text)}", param, ctx)
        if abs(exact) > LARGEST:
            self.fail(f"{value!r} is too large", param, ctx)
        return text


def _decimal_like(text: str) -> str:
    """An example; for a fraction like 8/255 the decimal next to it."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or not int(found[2]):
        return "0.1 or 1e-3"
    return repr(int(found[1]) / int(found[2]))


class Radius(Decimal):
    """A decimal >= 0."""

    name = "eps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself, if it is a decimal >= 0."""
        text = super().convert(value, param, ctx)
        if decimal(text) < 0:
            self.fail(f"{value!r} is negative; a radius is >= 0", param, ctx)
        return text


class Numbers(click.ParamType[tuple[float, ...]]):
    """Finite numbers joined by commas, one for each channel."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number, nor several joined by commas", param, ctx)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not finite", param, ctx)
        return numbers


class Positive(click.ParamType[float]):
    """A finite number > 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (number > 0 and math.isfinite(number)):
            self.fail(f"{value!r} is not a finite number > 0", param, ctx)
        return number


class InputShape(click.ParamType[tuple[int, ...]]):
    """The shape of one input, like 1x28x28."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The shape as whole numbers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).replace(",", "x").split("x")
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a shape like 1x28x28", param, ctx)
        return tuple(int(part) for part in parts)


class Names(click.ParamType[tuple[str, ...]]):
    """Several of the given names, joined by commas."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.name = ",".join(allowed)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, each once."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        for name in names:
            if name not in self.allowed:
                self.fail(f"{name!r} is not one of {', '.join(self.allowed)}", param, ctx)
        return names


@dataclass(frozen=True)
class Options:
    """A group of options that a command takes together."""

    decorators: tuple[Callable[[Command], Command], ...]

    def __call__(self, command: Command) -> Command:
        for decorate in reversed(self.decorators):
            command = decorate(command)
        return command


def limit_threads(ctx: click.Context, param: click.Parameter, threads: int | None) -> None:
    """Let torch and numpy use so many threads; both read the environment when they are first loaded."""
    if threads is not None:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)


MODEL = Options((
    click.argument("model", type=click.Path(path_type=Path)),
    click.option("--arch", metavar="NAME|MODULE:FUNCTION", help="The architecture of a checkpoint that is not fully "
                 "connected: a name of lpverify.models, or a function that builds the torch module."),
    click.option("--input-shape", type=InputShape(), help="The shape of one input, like 1x28x28, where the file "
                 "leaves it open."),
    click.option("--mean", type=Numbers(), help="Prepend (x - mean) / std; one number, or one a channel."),
    click.option("--std", type=Numbers(), help="See --mean."),
))  # fmt: skip

SOURCE = Options((
    click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the data set's own files; "
                 "without it they come from OpenML (digits and toy2d are bundled)."),
    click.option("--split", type=click.Choice(("train", "test")), default="test", show_default=True),
    click.option("--scale", type=Positive(), help="Divide the x of FILE.npz by this, 255 for bytes."),
))  # fmt: skip


def data_options(required: bool = True) -> Options:
    """Where the examples come from, and which."""
    return Options((
        click.option("--data", required=required, metavar="NAME|FILE.npz", help="mnist, fashion-mnist, digits, har, "
                     "svhn, cifar10, toy2d, or a file with arrays x and y."),
        SOURCE,
        click.option("--index", metavar="0:500|3,7", help="Which examples; all by default."),
    ))  # fmt: skip


DATA = data_options()

CLIP = Options((
    click.option("--norm", type=click.Choice(NORMS), default="inf", show_default=True),
    click.option("--clip", nargs=2, type=Decimal(), metavar="LO HI", help="Keep the inputs inside [LO, HI]; not "
                 "done by default."),
))  # fmt: skip


def region_options(required: bool = True) -> Options:
    """The ball about each example."""
    return Options((
        click.option("--eps", type=Radius(), required=required, help="Radius in raw input units, an exact decimal."),
        CLIP,
    ))  # fmt: skip


REGION = region_options()

ENGINE = Options((
    click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda", help="Where bounds are computed; "
                 "the checker always runs on the CPU."),
    click.option("--dtype", type=click.Choice(("float32", "float64")), default="float32", show_default=True,
                 help="Arithmetic of the search, which proves nothing itself."),
    click.option("--batch-size", type=click.IntRange(min=1), help="Examples at once; chosen to fit by default."),
    click.option("--threads", type=click.IntRange(min=1), callback=limit_threads, expose_value=False,
                 help="Processor threads; torch's own choice by default."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the attack's random starts."),
))  # fmt: skip

PROOF = Options((
    click.option("--semantics", type=click.Choice(("real", "float32")), default="real", show_default=True,
                 help="The network as a real function, or every float32 evaluation of it."),
    click.option("--timeout", type=Positive(), metavar="S", help="Seconds for an example; for a property, for all "
                 "of it, loading included."),
))  # fmt: skip

WORKERS = click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes over "
                       "which examples are spread. Each runs its solvers in another one, so that one that crashes or "
                       "hangs costs one answer; 0 runs them unprotected.")  # fmt: skip

SOLVER = Options((
    click.option("--backend", type=click.Choice(BACKEND_NAMES), default="highs", show_default=True,
                 help="The solver interface of lp, lp-tight and milp."),
    click.option("--solver", default="", metavar="NAME", help="Which of the interface's solvers; its first choice by "
                 "default."),
    click.option("--time-limit", type=Positive(), metavar="S", help="Seconds for one LP or MILP."),
    WORKERS,
))  # fmt: skip

SCHEDULER = click.option("--scheduler", default="", metavar="ADDRESS", help="Spread the examples over the workers of "
                         "the Dask scheduler at this address, like tcp://127.0.0.1:8786, in place of "
                         "--workers.")  # fmt: skip

OBJECTIVE = click.option("--objective", type=click.Choice(("sign", "value")), default="sign", show_default=True,
                         help="What MILPs are asked for: which sign a margin has, or its exact value.")  # fmt: skip


def out_options(required: bool = True) -> Options:
    """The run folder."""
    return Options((
        click.option("--out", type=click.Path(path_type=Path), required=required, metavar="RUN/",
                     help="Folder for results."),
        click.option("--overwrite", is_flag=True, help="Replace the run that is in the folder."),
    ))  # fmt: skip


OUT = out_options()
