"""A sweep: many examples spread over processes of this machine, or over the workers of a Dask cluster.

The examples are cut into tasks (``task``): a batch's shared stages are one, and each example that they leave open is
another, so that one hard example holds up no other. A task that a worker does not survive is tried once more; then a
batch is cut into its examples, and an example is given up, with the reason (``spread``). Processes of this machine are
``workers.Pool``'s; ``cluster`` uses Dask's. Tasks do the same wherever they run, in the same batches: verdicts and
certificates are those of one process with one thread.
"""

from lpverify.sweep.run import sweep
from lpverify.sweep.task import Answer, Task

__all__ = ["Answer", "Task", "sweep"]
