"""Worker processes for solvers: one that crashes, hangs or runs out of memory costs one answer, not the run.

Each worker has a pipe of its own, so that what happens to one cannot spoil another's messages, and the main module is
not run again, so that scripts need no ``if __name__ == "__main__"``. It loads what its tasks share once (``setup``),
then answers one task at a time on one thread; what it prints on standard output is dropped. One that overruns its
limit is killed with every process that it has started; one that is gone is replaced when a task needs it. No task is
tried twice. When the parent dies its workers die too: on Linux at once, elsewhere when their task is done.

    with Pool(setup, workers=4, memory=4 << 30) as pool:
        for outcome in pool.map(tasks, limit=30.0):
            ...  # what the task returned, or a Failure

``setup`` and the tasks travel pickled: their classes and functions must be in modules that can be imported.

No process is ever forked from the one that uses the pool, which may have threads and solvers at work. On Linux workers
are forked from a ``template``: a fresh interpreter that imports what they need and does nothing else, so that a worker
that was lost is replaced in hundredths of a second. Elsewhere, or where the imports leave a thread behind, each worker
is a fresh interpreter.
"""

from __future__ import annotations

from lpverify.workers.outcome import Failure
from lpverify.workers.pool import Pool

__all__ = ["Failure", "Pool"]
