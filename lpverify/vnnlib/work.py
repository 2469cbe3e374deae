"""The refusal of a formula, before file and line are known, and the count of work that it may take."""

from __future__ import annotations

WORK = 10_000_000


class Refused(Exception):
    """Why a term or formula cannot be taken; the reader adds file, line and text."""


class Work:
    """Counts the entries that are copied or changed again: nested sums and disjunctions may need very many.

    Attributes:
        limit: entries that may be spent.
        spent: entries that were spent.
    """

    def __init__(self, limit: int = WORK) -> None:
        self.limit, self.spent = limit, 0

    def spend(self, entries: int) -> None:
        """Count ``entries``; raises Refused once they are more than ``limit``."""
        self.spent += entries
        if self.spent > self.limit:
            raise Refused(
                f"needs more than {self.limit} entries as a union of boxes with polytopes; split it into several files"
            )
