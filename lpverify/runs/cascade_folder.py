"""The run folder of a cascade: its results, and for every stage two run folders with the evidence.

    RUN/results.jsonl            one line an example (``CascadeResult.record``)
    RUN/summary.json             counts, options, versions (``CascadeTally.summary``)
    RUN/stages/1/answers/        a run of detection: what stage 1 was asked about balls, for its predicted classes
    RUN/stages/1/points/         a run with eps 0: which inputs stage 1 gives their labels, where that is needed

``cascade_audit`` judges all of it again.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lpverify.errors import UsageError
from lpverify.evidence import claim_of
from lpverify.files import disk, write_atomic
from lpverify.runs.cascade_audit import ANSWERS, POINTS, STAGES, is_cascade
from lpverify.runs.folder import RESULTS, SUMMARY, RunFolder
from lpverify.serialize import network_file

if TYPE_CHECKING:
    from lpverify.cascade import CascadeResult
    from lpverify.network import Network
    from lpverify.result import Result
    from lpverify.settings import Settings


class CascadeFolder:
    """An open run of a cascade, used as a context manager; what was written stays, whatever ends the run."""

    def __init__(self, path: Path, stages: tuple[Network, ...], settings: Settings, *, overwrite: bool = False) -> None:
        """Make the folder, or take an empty one.

        Raises:
            UsageError: if the folder is not empty and ``overwrite`` is off, or holds anything but a cascade's run.
            ResourceError: if it cannot be made or written.
        """
        self.path, self.settings, self.classes = path, settings, stages[0].output_size
        with disk(path):
            if path.exists() and not path.is_dir():
                raise UsageError(f"{path}: is a file; choose a folder for the run")
            if path.exists() and any(path.iterdir()):
                _remove(path, overwrite)
            path.mkdir(parents=True, exist_ok=True)
            self._results = (path / RESULTS).open("w", encoding="utf-8", newline="\n")
        self._stack = ExitStack()
        self._runs: list[dict[str, RunFolder]] = []
        self._verdicts: list[dict[str, Counter[str]]] = [{ANSWERS: Counter(), POINTS: Counter()} for _ in stages]
        for k, network in enumerate(stages, start=1):
            data, sha256 = network_file(network)
            runs = {}
            for kind in (ANSWERS, POINTS):
                runs[kind] = self._stack.enter_context(RunFolder(path / STAGES / str(k) / kind))
                runs[kind].write_network(data, sha256)
            self._runs.append(runs)

    def __enter__(self) -> CascadeFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk(self.path / RESULTS):
            self._results.close()
        self._stack.close()

    def add(self, result: CascadeResult, x: NDArray[Any]) -> None:
        """Append one result about input x: its evidence first, then its line, flushed."""
        for k, tried in enumerate(result.answer.tried):
            flagged = k + 1 != result.answer.stage
            self._keep(k, ANSWERS, tried, x, self.settings, {"flagged": flagged, "true_label": result.label})
        for k, point in result.points.items():
            self._keep(k - 1, POINTS, point, x, replace(self.settings, eps="0"), {})
        with disk(self.path / RESULTS):
            self._results.write(json.dumps(result.record(), allow_nan=False) + "\n")
            self._results.flush()

    def _keep(
        self, k: int, kind: str, result: Result, x: NDArray[Any], settings: Settings, also: dict[str, Any]
    ) -> None:
        assert result.label is not None
        self._runs[k][kind].add(result, claim_of(settings, x, result.label, self.classes), **also)
        self._verdicts[k][kind][result.verdict.value] += 1

    @property
    def networks(self) -> list[str]:
        """The SHA-256 of the stages' network files."""
        return [runs[ANSWERS].network_sha256 for runs in self._runs]

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the summaries of the stages' runs, and that of the cascade."""
        for runs, counts in zip(self._runs, self._verdicts, strict=True):
            for kind, run in runs.items():
                options = {**summary["options"], **({"eps": "0"} if kind == POINTS else {})}
                verdicts = {name: counts[kind][name] for name in ("verified", "falsified", "unknown")}
                about = {"network": {"sha256": run.network_sha256}, "data": summary["data"]}
                run.write_summary({**verdicts, "stopped": summary["stopped"], "options": options, **about})
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_atomic(self.path / SUMMARY, text.encode())


def _remove(path: Path, overwrite: bool) -> None:
    """Remove an earlier run of a cascade; refuse anything else before anything is removed."""
    if not overwrite:
        raise UsageError(f"{path}: the folder is not empty; choose another or pass --overwrite")
    known = {RESULTS, SUMMARY, STAGES}
    foreign = [p for p in path.iterdir() if p.name not in known]
    if foreign or not is_cascade(path):
        found = foreign[0] if foreign else path
        raise UsageError(f"{path}: --overwrite removes a cascade's run, but {found} belongs to none; choose another")
    for folder in (path / STAGES).iterdir():
        for kind in (ANSWERS, POINTS):
            if (folder / kind).exists():
                with RunFolder(folder / kind, overwrite=True):
                    pass
        if any(p.name not in (ANSWERS, POINTS) for p in folder.iterdir()):
            raise UsageError(f"{path}: --overwrite removes a cascade's run, but {folder} holds other files")
    shutil.rmtree(path / STAGES)
    for name in (RESULTS, SUMMARY):
        (path / name).unlink(missing_ok=True)
