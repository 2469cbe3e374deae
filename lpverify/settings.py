"""Settings: what is asked of every example, and how it is to be found."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lpverify.backends import BACKENDS
from lpverify.bounds import METHODS
from lpverify.certificate.claim import decimal
from lpverify.certificate.proof import SEMANTICS
from lpverify.errors import CertificateError, UsageError
from lpverify.problem import NORMS, Region, ball

OBJECTIVES = ("sign", "value")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Settings:
    """What is asked of every example, and how it is to be found.

    Attributes:
        eps: the radius in raw input units, a decimal >= 0 taken exactly.
        norm: "inf", "2" or "1".
        clip: two decimals that also bound every input, or None.
        method: "auto" (attacks, cheap bounds, then complete search) or one of METHODS (attacks and that bound alone).
        semantics: "real" or "float32" (see ``certificate``).
        timeout: seconds for an example; its batch stops when this times its size is spent. None: no limit, but that of
            the search (``pipeline.SEARCH_SECONDS``).
        device, dtype: where and in what precision the engines work.
        batch_size: examples at once; None chooses by the network's size.
        seed: of the attack's random starts and of solvers.
        backend, solver: the solver interface, one of BACKENDS, and which of its solvers ("" for its first choice).
        time_limit: seconds for one LP or MILP; None: no limit but the example's.
        workers: processes over which examples are spread (``sweep``), each of which runs its solvers in another one;
            1: this process, and one for solvers; 0: solvers run in this one, too, unprotected.
        scheduler: the address of a Dask scheduler over whose workers examples are spread instead; "" for none.
        objective: what MILPs are asked for, the "sign" of each margin or its "value".
    """

    eps: str
    norm: str = "inf"
    clip: tuple[str, str] | None = None
    method: str = "auto"
    semantics: str = "real"
    timeout: float | None = None
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int | None = None
    seed: int = 0
    backend: str = "highs"
    solver: str = ""
    time_limit: float | None = None
    workers: int = 1
    objective: str = "sign"
    scheduler: str = ""

    def __post_init__(self) -> None:
        choices = {
            "norm": NORMS, "semantics": SEMANTICS, "dtype": tuple(DTYPES), "method": ("auto", *METHODS),
            "backend": tuple(BACKENDS), "objective": OBJECTIVES,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        try:
            radius = decimal(self.eps)
            ends = None if self.clip is None else (decimal(self.clip[0]), decimal(self.clip[1]))
        except CertificateError as error:
            raise UsageError(f"eps or clip: {error}; write a decimal such as 0.1") from None
        if radius < 0:
            raise UsageError(f"eps: {self.eps!r} must be >= 0")
        if ends is not None and ends[0] > ends[1]:
            raise UsageError(f"clip: {self.clip!r} must be two rising numbers")
        for name in ("timeout", "time_limit"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UsageError(f"{name}: {getattr(self, name)!r} must be > 0")
        if self.workers < 0:
            raise UsageError(f"workers: {self.workers!r} must be >= 0")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size: {self.batch_size!r} must be >= 1")

    @property
    def clip_floats(self) -> tuple[float, float] | None:
        """The clip as floats, for the engines."""
        return None if self.clip is None else (float(self.clip[0]), float(self.clip[1]))

    def region(self, x: torch.Tensor) -> Region:
        """The engines' input sets about x (B, n_0)."""
        return ball(x, float(self.eps), self.norm, self.clip_floats)


def require_device(device: str) -> None:
    """Refuse a device that torch does not have, before anything is put there.

    Raises:
        UsageError: naming the device.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"device: torch cannot use {device!r} here; pass --device cpu") from None
