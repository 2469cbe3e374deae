"""Memory: how much there is, and how much a run needs at least."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lpverify.errors import ResourceError
from lpverify.network import Network
from lpverify.settings import DTYPES, Settings

# What a process may have freed without giving it back.
SLACK = 256 << 20
CGROUP = Path("/sys/fs/cgroup")


def require_memory(network: Network, settings: Settings) -> None:
    """Refuse a network that this machine cannot hold, before anything is taken for it.

    Raises:
        ResourceError: with the estimate, if even a batch of one needs more than there is.
    """
    need, have = least_needed(network, settings), available()
    if have is not None and need > have + SLACK:
        raise ResourceError(
            f"memory: the network and a batch of one need at least {gib(need)}, {gib(have)} are available; "
            "end other programs, or take a machine with more memory"
        )


def least_needed(network: Network, settings: Settings) -> int:
    """Bytes of this machine's memory that are surely needed besides what the network holds already; more will be.

    Counted are the copies of every parameter that a session keeps, and what one example takes at every node in float64.
    """
    parameters, classes = 0, network.output_size

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal parameters
        parameters += tensor.numel()
        return tensor

    network.map_tensors(count)
    # float64 for exact evaluation, float32 beside it, the network file, and float64 for the checker.
    each = (0 if network.dtype == torch.float64 and network.device.type == "cpu" else 8) + 4 + 4 + 8
    if settings.device == "cpu" and settings.dtype != "float64":
        each += DTYPES[settings.dtype].itemsize
    return each * parameters + 8 * (sum(network.sizes) + max(0, classes - 1) * classes)


def available() -> int | None:
    """Bytes that this process may still take: the least of what system, control group and limits leave.

    None where the system does not tell. Memory of files that can be dropped and of swap counts as free.
    """
    try:
        system = {line.split(":")[0]: int(line.split()[1]) << 10 for line in _lines(Path("/proc/meminfo"))}
        swap = system["SwapFree"]
        left = [system["MemAvailable"] + swap]
        status = {line.split(":")[0]: line.split()[1:] for line in _lines(Path("/proc/self/status"))}
        taken = {name: int(status[name][0]) << 10 for name in ("VmSize", "VmData")}
    except (OSError, KeyError, ValueError, IndexError):
        return None
    import resource

    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            left.append(most - taken[name])
    group = _group_left()
    if group is not None:
        left.append(group + swap)
    return max(0, min(left))


def _group_left() -> int | None:
    """What the control groups of this process (version 2) leave; None without a limit."""
    try:
        name = next(line.split("::", 1)[1] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    left = []
    folder = CGROUP / name.lstrip("/")
    while folder.is_relative_to(CGROUP):
        try:
            most = int((folder / "memory.max").read_text())
            held = int((folder / "memory.current").read_text())
            files = dict(line.split() for line in _lines(folder / "memory.stat"))
            left.append(most - held + int(files["file"]) + int(files.get("slab_reclaimable", 0)))
        except (OSError, ValueError, KeyError):
            pass  # "max", or no such group in this container's view
        folder = folder.parent
    return min(left) if left else None


def _lines(path: Path) -> list[str]:
    with open(os.fspath(path), encoding="ascii", errors="replace") as file:
        return file.read().splitlines()


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.3g} GiB"
