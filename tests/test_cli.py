"""The command line: exit codes, one line an error, and the whole way from a model file to a checked run.

Whatever needs torch runs in this process through ``main``, which is what the console script calls; the rest,
and one run of each kind, in a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lpverify.bounds import METHODS
from lpverify.cli import main
from lpverify.cli.options import METHOD_NAMES
from lpverify.errors import SoundnessError

ROOT = Path(__file__).resolve().parent.parent
DIGITS = str(ROOT / "lpverify/assets/digits-demo.safetensors")
ASK = ["--data", "digits", "--index", "40:52", "--eps", "0.11", "--clip", "0", "1"]


def command(*arguments: str, threads: str = "1", **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    line = [sys.executable, "-m", "lpverify", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, **options)


INTERRUPTED = "lpverify: error: interrupted; what was written is kept, and the same command goes on with it\n"
Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, code: int, *arguments: str) -> str:
    """The single line on standard error of a command that ends with ``code`` and prints nothing else."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("lpverify: error: ")
    return err


def test_from_a_model_file_to_a_checked_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command("verify", DIGITS, *ASK, "--out", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert "eps 0.11 in raw input units, norm inf, clip 0 to 1" in " ".join(done.stdout.split())
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(40, 52))
    verdicts = [line["verdict"] for line in lines]
    content = json.loads((run / "summary.json").read_text())
    assert [content[v] for v in ("verified", "falsified", "unknown")] == [
        verdicts.count(v) for v in ("verified", "falsified", "unknown")
    ]
    assert content["verified"] > 0 and content["falsified"] > 0 and content["stopped"] is None
    assert content["options"]["eps"] == "0.11" and content["options"]["clip"] == ["0", "1"]
    for extra in ([], ["--exact"], ["--data", "digits"]):
        checked = command("check", str(run), *extra)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert f"certificates accepted: {content['verified']}" in checked.stdout
        assert f"counterexamples accepted: {content['falsified']}" in checked.stdout
    (run / "certificates").joinpath(f"{lines[verdicts.index('verified')]['index']:06d}.lpcert").unlink()
    checked = command("check", str(run))
    assert checked.returncode == 7 and checked.stdout == ""
    assert checked.stderr.startswith("lpverify: error: ") and checked.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("eps", "verdicts", "code"),
    [("0.11", "unknown,falsified", 1), ("0.11", "falsified", 1), ("0.01", "unknown,falsified", 0)],
)
def test_fail_on_looks_at_the_verdicts(tmp_path: Path, eps: str, verdicts: str, code: int) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["verify", DIGITS, *ASK, "--eps", eps, *out, "--fail-on", verdicts]) == code


def test_attack_writes_a_run_that_can_be_checked(tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    assert main(["attack", DIGITS, *ASK, "--out", str(run), "--steps", "20", "--restarts", "1"]) == 0
    content = json.loads((run / "summary.json").read_text())
    assert content["verified"] == 0 and content["falsified"] > 0
    assert content["options"]["steps"] == 20 and content["unknown_reasons"] == {
        "no counterexample found": content["unknown"]
    }
    assert main(["check", str(run)]) == 0
    assert f"counterexamples accepted: {content['falsified']}" in capsys.readouterr().out


def test_bounds_prints_and_saves_the_margins(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "margins.csv"
    assert main(["bounds", DIGITS, *ASK, "--method", "interval,crown", "--out", str(out)]) == 0
    assert "least margin of each example" in capsys.readouterr().out
    header, *rows = [line.split(",") for line in out.read_text().splitlines()]
    assert header == ["index", "label", "target", "interval", "crown"] and len(rows) == 12 * 9
    assert all(row[1] != row[2] for row in rows)
    assert all(float(row[4]) >= float(row[3]) - 1e-3 for row in rows)


def test_radius_certifies_below_what_the_attack_breaks(tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    ask = ["--data", "digits", "--index", "40:46", "--clip", "0", "1", "--max-eps", "0.5", "--out", str(run)]
    assert main(["radius", DIGITS, *ask]) == 0
    table = capsys.readouterr().out
    assert "eps up to 0.5 in raw input units" in " ".join(table.split())
    lines = [json.loads(line) for line in (run / "radii.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(40, 46))
    assert all(0 < line["certified"] < line["attacked"] <= 0.5 for line in lines)
    assert main(["check", str(run), "--data", "digits"]) == 0
    assert "certificates accepted: 6" in capsys.readouterr().out
    lines[2]["certified"] *= 1.5
    (run / "radii.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "proves radius" in refused(capsys, 7, "check", str(run))


def test_info_prints_the_graph(capsys: Captured) -> None:
    assert main(["info", DIGITS]) == 0
    text = capsys.readouterr().out
    assert "conv 16 4x4 stride 2 pad 1" in text
    assert "inputs 64, outputs 10, ReLU neurons 800 in 3 layers, parameters 11442" in text


def test_the_options_name_the_methods_of_the_table() -> None:
    assert tuple(METHODS) == METHOD_NAMES


@pytest.mark.parametrize("eps", ["0,1", "nan", "inf", "-0.1", "1/10", "", "1e999"])
def test_a_radius_is_a_decimal_that_is_not_negative(eps: str) -> None:
    done = command("verify", DIGITS, "--data", "digits", "--eps", eps, "--out", "never-made")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("lpverify: error: Invalid value for '--eps'")
    assert not Path("never-made").exists()


def test_radius_zero_is_a_point_check(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["verify", DIGITS, "--data", "digits", "--index", "0:5", "--eps", "0", "--out", str(run)]) == 0
    assert json.loads((run / "summary.json").read_text())["verified"] == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument 'MODEL'"),
        ([DIGITS, "--data", "digits", "--eps", "0.1"], 2, "Missing option '--out'"),
        ([DIGITS, *ASK, "--out", "x", "--norm", "3"], 2, "'3' is not one of"),
        ([DIGITS, *ASK, "--out", "x", "--method", "simplex"], 2, "'simplex' is not one of"),
        ([DIGITS, *ASK, "--out", "x", "--fail-on", "unkown"], 2, "'unkown' is not one of"),
        ([DIGITS, *ASK, "--out", "x", "--timeout", "nan"], 2, "not a finite number > 0"),
        ([DIGITS, *ASK, "--out", "x", "--mean", "a"], 2, "is not a number"),
        ([DIGITS, *ASK, "--out", "x", "--input-shape", "1x0"], 2, "is not a shape"),
        ([DIGITS, *ASK, "--out", "x", "--batch-size", "0"], 2, "--batch-size"),
        ([DIGITS, *ASK, "--out", "x", "--device", "warp"], 2, "torch cannot use 'warp'"),
        ([DIGITS, *ASK, "--out", "x", "--clip", "0.7", "0.69999999"], 4, "is above the upper end"),
        ([DIGITS, *ASK, "--out", "x", "--index", "x"], 2, "index"),
        ([DIGITS, *ASK, "--out", "x", "--index", "390:401"], 4, "digits has 400 examples"),
        ([DIGITS, *ASK, "--out", "x", "--data", "digit"], 2, "'digit' is not one of"),
        ([DIGITS, *ASK, "--out", "x", "--data", "missing.npz"], 4, "missing.npz"),
        (["missing.pth", *ASK, "--out", "x"], 3, "missing.pth"),
        ([str(ROOT), *ASK, "--out", "x"], 3, str(ROOT)),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, code, "verify", *arguments)
    assert list(tmp_path.iterdir()) == []


class Payload:
    """Unpickling this would make a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def nan_weights() -> dict[str, torch.Tensor]:
    weights = {"0.weight": torch.ones(10, 64), "0.bias": torch.zeros(10)}
    weights["0.weight"][3, 5] = float("nan")
    return weights


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(pickle.dumps(Payload())), "bad.pth"),
        (lambda path: torch.save({"state_dict": Payload()}, path), "bad.pth"),
        (lambda path: torch.save(nn.Sequential(nn.Linear(64, 10)), path), "save"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(Path(DIGITS).read_bytes()[:1000]), "bad.pth"),
        (lambda path: torch.save(nan_weights(), path), r"0.weight"),
        (os.mkfifo, "bad.pth"),
    ],
)
def test_a_model_that_cannot_be_trusted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, make: Callable[[Path], Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bad.pth")
    assert message in refused(capsys, 3, "verify", "bad.pth", *ASK, "--out", "run")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pth"]


X, Y = np.full((3, 1, 8, 8), 0.5, dtype=np.float32), np.array([1, 2, 3])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X * 400, "y": Y}, "pass --scale 255"),
        ({"x": np.where(np.arange(64).reshape(8, 8) == 9, np.nan, X), "y": Y}, "example 0"),
        ({"x": X, "y": np.array([1, 2, 10])}, "label of example 2: 10"),
        ({"x": X, "y": np.array([1, -2, 3])}, "label of example 1: -2"),
        ({"x": X, "y": np.array([1.0, 2.0, 3.0])}, "float64, expected integers"),
        ({"x": X, "y": Y[:2]}, "(2,), expected (3,)"),
        ({"x": X}, "no labels"),
        ({"y": Y}, "no array named x"),
        ({"x": X[:, :, :7], "y": Y}, "(1, 7, 8)"),
        ({"x": np.array([object()] * 3), "y": Y}, "object"),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arrays: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", **arrays)
    ask = ["--data", "data.npz", "--eps", "0.1", "--clip", "0", "1"]
    assert message in refused(capsys, 4, "verify", DIGITS, *ask, "--out", "run")
    assert not Path("run").exists()


def test_an_input_outside_the_clip_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=X, y=Y)
    ask = ["--data", "data.npz", "--eps", "0.1", "--clip", "0.7", "1"]
    assert "example 0" in refused(capsys, 4, "verify", DIGITS, *ask, "--out", "run")


def test_a_folder_in_use_is_refused_before_any_work(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "results.jsonl").write_text("{}\n")
    assert "--overwrite" in refused(capsys, 2, "verify", DIGITS, *ASK, "--out", str(tmp_path))
    assert (tmp_path / "results.jsonl").read_text() == "{}\n"


def test_a_disk_that_fills_up_ends_with_5(tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))

    done = command("verify", DIGITS, *ASK, "--out", str(tmp_path / "run"), preexec_fn=limit)
    assert done.returncode == 5 and done.stderr.count("\n") == 1
    assert "cannot be written (File too large)" in done.stderr
    assert not (tmp_path / "run/network.lpnet").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 5, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 5, "--batch-size"),
        (SoundnessError("example 3: a bound above a point's value"), 6, "above a point's value"),
        (ZeroDivisionError("division\nby zero"), 6, "internal fault, please report it: ZeroDivisionError"),
    ],
)
def test_what_ends_a_run_early_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, error: BaseException, code: int, message: str
) -> None:
    import lpverify.verify as pipeline

    stream = pipeline.verify_stream

    def broken(*arguments: Any) -> Any:
        for count, result in enumerate(stream(*arguments)):
            if count == 5:
                raise error
            yield result

    monkeypatch.setattr(pipeline, "verify_stream", broken)
    run = tmp_path / "run"
    assert message in refused(capsys, code, "verify", DIGITS, *ASK, "--out", str(run))
    assert len((run / "results.jsonl").read_text().splitlines()) == 5
    content = json.loads((run / "summary.json").read_text())
    assert (content["stopped"], content["examples"]) == (type(error).__name__, 5)
    assert main(["check", str(run)]) == 0
    assert "the run was stopped" in capsys.readouterr().out


def test_debug_shows_the_traceback(tmp_path: Path, capsys: Captured) -> None:
    assert main(["verify", "--debug", "missing.pth", *ASK, "--out", str(tmp_path / "run")]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_termination_signal_ends_with_130(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ask = ["--data", "digits", "--eps", "0.11", "--clip", "0", "1", "--batch-size", "1", "--out", str(run)]
    line = [sys.executable, "-m", "lpverify", "verify", DIGITS, *ask]
    process = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((run / "results.jsonl").is_file() and (run / "results.jsonl").stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == INTERRUPTED
    written = [json.loads(text) for text in (run / "results.jsonl").read_text().splitlines()]
    assert 1 <= len(written) < 400
    assert json.loads((run / "summary.json").read_text())["examples"] == len(written)


def test_a_closed_standard_output_is_told(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "lpverify", "info", DIGITS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    os.close(writer)
    assert done.returncode == 5 and done.stderr == "lpverify: error: standard output was closed\n"


def test_without_a_command_the_help_is_shown() -> None:
    done = command()
    assert done.returncode == 2 and done.stdout == "" and "Commands:" in done.stderr


def test_check_refuses_what_is_no_run(tmp_path: Path, capsys: Captured) -> None:
    assert "no results.jsonl there" in refused(capsys, 2, "check", str(tmp_path))
    assert "does not exist" in refused(capsys, 2, "check", str(tmp_path / "none"))


def test_threads_are_limited_and_recorded(tmp_path: Path) -> None:
    ask = ["--data", "digits", "--index", "0:2", "--eps", "0", "--threads", "1", "--out", str(tmp_path / "run")]
    done = command("verify", DIGITS, *ask, threads="2")
    assert done.returncode == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["threads"] == 1
