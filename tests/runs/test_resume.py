"""Runs that are killed, interrupted or out of disk are gone on with, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmark_path  # noqa: F401
import fault_runs
import kill_resume
import numpy as np
import pytest

from lpverify.cli import main

ROOT = Path(__file__).resolve().parents[2]
DIGITS = str(ROOT / "lpverify/assets/digits-demo.safetensors")
COUNT, SIZE = 12, 4
# Solvers in the process itself, for a worker takes longer to start than the run; time for all, for what a limit of
# time decides is not the same twice.
VERIFY = ["verify", DIGITS, "--data", "digits", "--index", f"52:{52 + COUNT}", "--eps", "0.09", "--clip", "0", "1",
          "--workers", "0", "--timeout", "600"]  # fmt: skip
RADIUS = ["radius", DIGITS, "--data", "digits", "--index", "40:52", "--batch-size", "4"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with fault_runs.Server() as started:
        yield started


@pytest.fixture(scope="module")
def whole(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in batches of SIZE that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert server.run([*VERIFY, "--batch-size", str(SIZE), "--out", str(folder / "run")], folder / "log") == 0
    return folder / "run"


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return {name: found[name] for name in ("examples", "verified", "falsified", "unknown", "misclassified", "stopped")}


@pytest.mark.parametrize("size", [SIZE, 1])
def test_killed_at_random_moments(server: Any, whole: Path, tmp_path: Path, size: int) -> None:
    command = [*VERIFY, "--batch-size", str(size), "--out", str(tmp_path / "run")]
    if size == 1:
        assert server.run([*command[:-1], str(tmp_path / "whole")], tmp_path / "whole.log") == 0
        whole = tmp_path / "whole"
    draw, kills, had = random.Random(size), 0, 0
    seconds = json.loads((whole / "summary.json").read_text())["seconds"]["total"]
    while kills < 4 and server.killed(command, tmp_path / "log", draw.uniform(0.0, seconds)):
        kills += 1
        assert had <= fault_runs.rows(tmp_path / "run") <= COUNT
        had = fault_runs.rows(tmp_path / "run")
        if had:
            assert main(["check", str(tmp_path / "run")]) == 0
    assert kills and server.run(command, tmp_path / "log") == 0
    assert fault_runs.content(tmp_path / "run") == fault_runs.content(whole)
    assert summary(tmp_path / "run") == summary(whole)
    alone, together = (kill_resume.begun(tmp_path / "log", kind) for kind in ("alone", "batch"))
    assert alone and together.keys() == {str(index) for index in range(52, 52 + COUNT)}
    assert sum(n - 1 for n in alone.values()) <= kills
    assert sum(n - 1 for n in together.values()) <= kills * size


def test_two_processes_are_killed_and_one_goes_on(server: Any, whole: Path, tmp_path: Path) -> None:
    """What one process finds, and its workers end with the one that was killed."""
    run = tmp_path / "run"
    command = [*VERIFY, "--batch-size", str(SIZE), "--out", str(run)]
    child = server.start([*command, "--workers", "2"], tmp_path / "log")
    while not kill_resume.rows(run):
        time.sleep(0.01)
    workers = descendants(child)
    os.kill(child, 9)
    assert server.end() == -9 and len(workers) >= 2
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.02)
    assert 0 < kill_resume.rows(run) < COUNT
    assert main(["check", str(run)]) == 0
    assert server.run(command, tmp_path / "log") == 0
    assert kill_resume.content(run) == kill_resume.content(whole)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started and that are still there, and theirs."""
    own = [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()]
    return own + [other for child in own for other in descendants(child)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_full_disk_keeps_the_rows_and_the_run_is_gone_on_with(server: Any, whole: Path, tmp_path: Path) -> None:
    command = [*VERIFY, "--batch-size", str(SIZE), "--out", str(tmp_path / "run")]
    for limit in (20_000, 50_000):
        assert server.run(command, tmp_path / "log", limit) == 5
        (line,) = (tmp_path / "log.out").read_text().splitlines()[-1:]
        assert line.startswith("lpverify: error: ") and "cannot be written" in line
    had = fault_runs.rows(tmp_path / "run")
    assert 0 < had < COUNT
    assert main(["check", str(tmp_path / "run")]) == 0
    assert server.run(command, tmp_path / "log") == 0
    assert fault_runs.content(tmp_path / "run") == fault_runs.content(whole)


def test_radii_killed_in_the_middle(server: Any, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert server.run([*RADIUS, "--out", str(whole)], tmp_path / "log") == 0
    expected = [json.loads(line) for line in (whole / "radii.jsonl").read_text().splitlines()]
    child = server.start([*RADIUS, "--out", str(run)], tmp_path / "log")
    while not fault_runs.rows(run):
        time.sleep(0.01)
    os.kill(child, 9)
    assert server.end() == -9 and 0 < fault_runs.rows(run) < 12
    assert server.run([*RADIUS, "--out", str(run)], tmp_path / "log") == 0
    found = [json.loads(line) for line in (run / "radii.jsonl").read_text().splitlines()]
    for line in expected + found:
        del line["seconds"]
    assert found == expected
    assert fault_runs.evidence(run) == fault_runs.evidence(whole)


def test_what_was_asked_must_be_the_same(server: Any, tmp_path: Path, capsys: Captured) -> None:
    ask = ["verify", DIGITS, "--data", "digits", "--index", "40:43", "--clip", "0", "1", "--method", "crown"]
    run = tmp_path / "run"
    assert main([*ask, "--eps", "0.05", "--out", str(run)]) == 0
    before = fault_runs.content(run)
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 1, 8, 8), np.float32), y=np.zeros(3, int))
    others = {
        "eps 0.05 there, 0.06 here": [*ask, "--eps", "0.06"],
        "index 40:43 there, 40:44 here": [*ask, "--eps", "0.05", "--index", "40:44"],
        "method crown there, dual here": [*ask, "--eps", "0.05", "--method", "dual"],
        "timeout null there, 3.0 here": [*ask, "--eps", "0.05", "--timeout", "3"],
        "model ": [*ask, "--eps", "0.05", "--mean", "0.5", "--std", "2"],
        "data ": [*ask, "--eps", "0.05", "--data", str(tmp_path / "x.npz"), "--index", "0:3"],
        "command verify there, detect here": ["detect", *ask[1:], "--eps", "0.05"],
    }
    for message, command in others.items():
        capsys.readouterr()
        assert main([*command, "--out", str(run)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "choose another folder or pass --overwrite" in err
        assert "holds another run" in err and (message in err or message == "data ")
    assert fault_runs.content(run) == before
    # What does not change results may change; a finished run is shown again.
    assert main([*ask, "--eps", "0.05", "--workers", "2", "--out", str(run), "--fail-on", "verified"]) == 1
    out, err = capsys.readouterr()
    assert "the run is finished; nothing is computed again" in err and "3 examples" in out
    assert fault_runs.content(run) == before
    assert main([*ask, "--eps", "0.06", "--out", str(run), "--overwrite"]) == 0


def test_an_interrupted_run_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    import lpverify.verify as module

    ask = ["verify", DIGITS, "--data", "digits", "--index", "52,40:50", "--eps", "0.05", "--clip", "0", "1",
           "--method", "crown", "--batch-size", "4"]  # fmt: skip
    assert main([*ask, "--out", str(tmp_path / "whole")]) == 0
    stream = module.verify_stream

    def broken(*arguments: Any) -> Any:
        for count, result in enumerate(stream(*arguments)):
            if count == 3:
                raise KeyboardInterrupt
            yield result

    run = tmp_path / "run"
    for turn in range(3):
        monkeypatch.setattr(module, "verify_stream", broken)
        assert main([*ask, "--out", str(run)]) == 130
        content = summary(run)
        assert (content["examples"], content["stopped"]) == (3 * (turn + 1), "KeyboardInterrupt")
        assert main(["check", str(run)]) == 0
    monkeypatch.setattr(module, "verify_stream", stream)
    capsys.readouterr()
    assert main([*ask, "--out", str(run)]) == 0
    assert "going on after 9 of 11 examples" in capsys.readouterr().err
    assert fault_runs.content(run) == fault_runs.content(tmp_path / "whole")
    assert summary(run) == summary(tmp_path / "whole")


def test_results_are_exported(tmp_path: Path, capsys: Captured) -> None:
    ask = ["verify", DIGITS, "--data", "digits", "--index", "40:43", "--eps", "0.05", "--method", "crown"]
    run = tmp_path / "run"
    assert main([*ask, "--out", str(run)]) == 0
    lines = (run / "results.jsonl").read_text()
    for extra in ([], ["--jsonl"]):
        capsys.readouterr()
        assert main(["results", str(run), *extra]) == 0
        assert capsys.readouterr().out == lines
    assert main(["results", str(run), "--csv", "--out", str(tmp_path / "r.csv")]) == 0
    header, *rows = (tmp_path / "r.csv").read_text().splitlines()
    assert header.split(",")[:4] == ["index", "label", "predicted", "verdict"] and len(rows) == 3
    assert main(["results", str(run), "--parquet"]) == 2
    assert "give --out FILE" in capsys.readouterr().err
    (run / "run.sqlite").unlink()
    assert main(["results", str(run)]) == 0
    assert capsys.readouterr().out == lines
    assert main(["results", str(tmp_path)]) == 2


PROPERTY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)
(assert (or
  (and (>= X_0 -1) (<= X_0 0) (>= X_1 0) (<= X_1 1) (>= Y_0 {}))
  (and (>= X_0 0.25) (<= X_0 2) (>= X_1 0) (<= X_1 1) (>= Y_1 2.5))
  (and (>= X_0 0.5) (<= X_0 2) (>= X_1 0) (<= X_1 1) (>= Y_1 2.5))))"""


@pytest.mark.parametrize(("least", "verdict", "message"), [
    ("1.5", "verified", "claims proved: 3 of 3"), ("0.5", "falsified", "counterexample accepted"),
])  # fmt: skip
def test_a_property_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, least: str, verdict: str, message: str
) -> None:
    """The network is f(x) = (|x_0|, |x_0| - x_1)."""
    import lpverify.properties as module

    eye, out = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]), np.array([[1.0, 1.0], [1.0, 1.0], [0.0, -1.0]])
    np.savez(tmp_path / "abs.npz", W1=eye, B1=np.array([0.0, 0.0, 8.0]), W2=out, B2=np.array([0.0, 8.0]))
    (tmp_path / "p.vnnlib").write_text(PROPERTY.format(least))
    ask = ["verify", str(tmp_path / "abs.npz"), "--vnnlib", str(tmp_path / "p.vnnlib"), "--json"]
    assert main([*ask, "--out", str(tmp_path / "whole")]) == 0
    stream = module.verify_property

    def broken(*arguments: Any, **options: Any) -> Any:
        yield next(stream(*arguments, **options))
        raise KeyboardInterrupt

    run = tmp_path / "run"
    monkeypatch.setattr(module, "verify_property", broken)
    assert main([*ask, "--out", str(run)]) == 130
    assert fault_runs.rows(run) == 1 and main(["check", str(run)]) == 0
    monkeypatch.setattr(module, "verify_property", stream)
    for said in ("going on after 1 of 3 claims", "the run is finished"):
        capsys.readouterr()
        assert main([*ask, "--out", str(run)]) == 0
        printed = capsys.readouterr()
        found = json.loads(printed.out.splitlines()[-1])
        assert said in printed.err and found["verdict"] == verdict
        assert (found["counterexample"] is not None) == (verdict == "falsified")
        if verdict == "falsified":
            assert found["counterexample"]["Y"][0] >= 0.5
    assert main(["check", str(run)]) == 0 and message in capsys.readouterr().out
    (tmp_path / "p.vnnlib").write_text(PROPERTY.format("1.75"))
    assert main([*ask, "--out", str(run)]) == 2
    assert "data " in capsys.readouterr().err
    assert fault_runs.evidence(run) == fault_runs.evidence(tmp_path / "whole")
