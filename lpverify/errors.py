"""The exception tree. Every message is one line: what, where (argument, file, tensor, index), what to do.

Each class carries the exit code that the command line returns for it (``exit_code``).
"""

from __future__ import annotations

from typing import ClassVar


class LpverifyError(Exception):
    """Base of every error that lpverify raises on purpose."""

    exit_code: ClassVar[int] = 6


class UsageError(LpverifyError, ValueError):
    """An option or argument cannot be used: an unknown method, eps < 0, a resume with other options."""

    exit_code = 2


class ModelError(LpverifyError, ValueError):
    """The model file does not describe a network that can be trusted or read."""

    exit_code = 3


class UnsupportedLayerError(ModelError, NotImplementedError):
    """An operator or attribute has no exact lowering; the message names the operator and the node."""


class DataError(LpverifyError, ValueError):
    """Inputs, labels, the radius's clip or the claim are refused; the message names the example."""

    exit_code = 4


class ExampleError(DataError):
    """One example by itself is refused; the others may be good."""


class ShapeError(DataError):
    """An array has the wrong shape: the message gives the argument, what was got and what was expected."""


class ProgramError(LpverifyError, ValueError):
    """An LP or MILP has data that no solver may see: NaN, infinite entries, bounds that cross."""


class SolverError(LpverifyError, RuntimeError):
    """A solver is missing, or cannot handle the program that it was given."""


class ResourceError(LpverifyError, RuntimeError):
    """Memory, disk or device ran out; results already made are kept."""

    exit_code = 5


class CertificateError(LpverifyError, ValueError):
    """A certificate or witness file is malformed, foreign, or does not prove its claim."""

    exit_code = 7


class SoundnessError(LpverifyError, RuntimeError):
    """Two pieces of evidence contradict each other. Nothing inside the package catches this."""


# What torch and drivers say, which have no class of their own for it on a processor.
_FULL = ("allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a device; torch is not loaded for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    is_system = isinstance(error, RuntimeError | OSError) and not isinstance(error, LpverifyError)
    return is_system and any(words in str(error) for words in _FULL)
