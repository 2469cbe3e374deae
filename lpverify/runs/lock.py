"""One process a run folder: a lock file that holds the owner's process id."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lpverify.errors import UsageError

LOCK = "lock"


class Lock:
    """Held from its making until ``release``; the system lets go of it when the process ends, however it ends.

    A file that a killed process left behind locks nothing: the next owner takes it over. On systems without POSIX
    locks nothing is locked.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock of a folder.

        Raises:
            UsageError: naming the process that holds it.
            OSError: if the file cannot be written.
        """
        self._path = folder / LOCK
        self._descriptor: int | None = _taken(self._path)

    def release(self) -> None:
        """Let go, and remove the file."""
        if self._descriptor is None:
            return
        # Removed while it is held: whoever waits with this file open sees that it is no longer the folder's.
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


def _taken(path: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise UsageError(
                f"{path.parent}: process {owner} is writing this run; wait for it, or choose another folder"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that the path names now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
