"""The benchmark of VNN-LIB instances: lists, samples, limits, and what becomes of each kind of answer."""

from __future__ import annotations

import csv
import sys
import textwrap
import threading
import time
from pathlib import Path

import benchmark_path  # noqa: F401
import instance_summary
import instances
import pytest
from child import run
from instance_list import Instance, read, sample
from marabou_child import parts

PINNED = ("first/30.vnnlib", "first/35.vnnlib", "first/40.vnnlib", "first/43.vnnlib", "first/46.vnnlib")
# What the program says of a property is in the property's file: the answer, the seconds to wait, the check's line.
FAKE = """
    import json, pathlib, sys, time
    if sys.argv[1] == "check":
        said = (pathlib.Path(sys.argv[2]) / "check").read_text()
        print(said)
        sys.exit(0 if "accepted" in said else 7)
    options = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
    said = json.loads(pathlib.Path(options["--vnnlib"]).read_text())
    with open(options["--vnnlib"] + ".calls", "a") as file:
        file.write("called\\n")
    time.sleep(said.pop("sleep", 0))
    if "crash" in said:
        sys.exit(said["crash"])
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir()
    (out / "check").write_text(said.pop("check", ""))
    (out / "proof.npz").write_bytes(b"0" * 1234)
    print("chatter")
    print(json.dumps({"seconds": 0.5, "method": "auto", "reason": ""} | said))
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    file = tmp_path / "fake.py"
    file.write_text(textwrap.dedent(FAKE))
    return [sys.executable, str(file)]


def instance(folder: Path, said: str, expected: str = "unsat", name: str = "p") -> Instance:
    (folder / f"{name}.vnnlib").write_text(said)
    return Instance("onnx/a.onnx", f"{name}.vnnlib", 60.0, expected, folder)


def test_lists_with_and_without_a_header_are_read(tmp_path: Path) -> None:
    (tmp_path / "with.csv").write_text(
        "onnx,vnnlib,timeout,verdict,source\nvnncomp/f/onnx/a.onnx,vnncomp/f/vnnlib/p.vnnlib,116.0,sat,who\n"
    )
    (tmp_path / "without.csv").write_text("./onnx/a.onnx,./vnnlib/p.vnnlib,116\n\n")
    (first,), (second,) = read(tmp_path / "with.csv"), read(tmp_path / "without.csv")
    assert first == Instance("vnncomp/f/onnx/a.onnx", "vnncomp/f/vnnlib/p.vnnlib", 116.0, "sat", tmp_path)
    assert second == Instance("./onnx/a.onnx", "./vnnlib/p.vnnlib", 116.0, "", tmp_path)
    assert (first.family, second.family) == ("f", tmp_path.name)


@pytest.mark.parametrize("line", ["a.onnx,p.vnnlib", "a.onnx,p.vnnlib,soon"])
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.csv").write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"list.csv: {line}: expected onnx,vnnlib,timeout"):
        read(tmp_path / "list.csv")


def test_the_compressed_file_is_taken_where_there_is_only_that(tmp_path: Path) -> None:
    there = instance(tmp_path, "")
    assert there.property_file == tmp_path / "p.vnnlib"
    (tmp_path / "p.vnnlib").rename(tmp_path / "p.vnnlib.gz")
    assert there.property_file == tmp_path / "p.vnnlib.gz"


def family(name: str, count: int) -> list[Instance]:
    return [Instance(f"{name}/onnx/a.onnx", f"{name}/{i}.vnnlib", 1.0, "", Path("/list")) for i in range(count)]


def test_a_sample_depends_only_on_the_seed_and_the_family() -> None:
    first, second = family("first", 50), family("second", 3)
    drawn = sample(first, 5, 0)
    # Pinned: a run of another tool on the same sample must stay comparable.
    assert tuple(i.vnnlib for i in drawn) == PINNED
    assert sample([*second, *first], 5, 0) == second + drawn
    assert sample(first[::-1], 5, 0) == drawn[::-1]
    assert sample(first, 5, 1) != drawn


def test_output_exit_code_and_cpu_time_of_a_program() -> None:
    source = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint('out'); sys.exit('err')"
    ended = run([sys.executable, "-c", source], wall=60)
    assert (ended.code, ended.out, ended.err, ended.killed) == (1, "out\n", "err\n", False)
    assert 0.3 <= ended.cpu <= 30


@pytest.mark.parametrize(("limits", "source"), [
    ({"wall": 0.5}, "import time; time.sleep(60)"),
    ({"wall": 60, "cpu": 0.3}, "while True: pass"),
])  # fmt: skip
def test_a_limit_ends_the_program(limits: dict[str, float], source: str) -> None:
    began = time.perf_counter()
    ended = run([sys.executable, "-c", source], wall=limits["wall"], cpu=limits.get("cpu"))
    assert ended.killed and ended.code == -9
    assert time.perf_counter() - began < 30


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    inner = f"import time; time.sleep(2); open({str(mark)!r}, 'w')"
    source = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}])"
    assert run([sys.executable, "-c", source], wall=60).code == 0
    time.sleep(3)
    assert not mark.exists()


def test_a_stop_ends_the_program() -> None:
    stop = threading.Event()
    stop.set()
    assert run([sys.executable, "-c", "import time; time.sleep(60)"], wall=60, stop=stop).killed


PROVED = '{"verdict": "verified", "leaves": 3, "certificate": "proof.npz", "check": "certificate accepted: 3 leaves"}'


def test_a_proof_is_checked_and_measured(tmp_path: Path, program: list[str]) -> None:
    line = instances.Runner(program, threads=2).measure(instance(tmp_path, PROVED), 10)
    expected = {"verdict": "unsat", "ok": "yes", "leaves": "3", "certificate_bytes": 1234, "certified": "yes",
                "overrun": "no", "own_s": 0.5, "method": "auto", "limit_s": 10, "threads": 2}  # fmt: skip
    assert {key: line[key] for key in expected} == expected
    assert set(line) <= set(instances.COLUMNS)


@pytest.mark.parametrize(("said", "expected"), [
    ('{"verdict": "verified", "certificate": "proof.npz", "check": "node 4: clause 0 is not proved"}',
     {"verdict": "unsat", "ok": "yes", "certified": "no"}),
    ('{"verdict": "verified", "certificate": null, "check": "accepted: nothing"}',
     {"verdict": "unsat", "certified": "no", "certificate_bytes": ""}),
    ('{"verdict": "falsified", "certificate": null, "check": "counterexamples accepted: 1"}',
     {"verdict": "sat", "ok": "no", "certified": "yes", "certificate_bytes": ""}),
    ('{"verdict": "unknown", "reason": "uncertified"}', {"verdict": "unknown", "ok": "", "reason": "uncertified"}),
    ('{"verdict": "maybe"}', {"verdict": "error", "ok": "", "reason": "exit code 0: "}),
    ('{"crash": "no such operator"}', {"verdict": "error", "ok": "", "reason": "exit code 1: no such operator"}),
])  # fmt: skip
def test_other_answers(tmp_path: Path, program: list[str], said: str, expected: dict[str, object]) -> None:
    line = instances.Runner(program).measure(instance(tmp_path, said), 10)
    assert {key: line[key] for key in expected} == expected
    assert line["overrun"] == "no"


def test_an_overrun_is_marked_and_then_killed(tmp_path: Path, program: list[str]) -> None:
    late = instance(tmp_path, '{"verdict": "unknown", "sleep": 3}')
    line = instances.Runner(program, grace=20).measure(late, 0.1)
    assert (line["verdict"], line["overrun"]) == ("unknown", "yes")
    line = instances.Runner(program, grace=0.1).measure(late, 0.1)
    assert (line["verdict"], line["reason"], line["overrun"]) == ("timeout", "killed", "yes")


def test_a_run_is_continued(tmp_path: Path, program: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p", "q"):
        instance(tmp_path, PROVED, name=name)
    listed, out = tmp_path / "list.csv", tmp_path / "out.csv"
    command = ["instances.py", "--instances", str(listed), "--out", str(out), "--program", " ".join(program)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    listed.write_text("onnx/a.onnx,p.vnnlib,60\n")
    assert instances.main() == 0
    listed.write_text("onnx,vnnlib,timeout,verdict\nonnx/a.onnx,p.vnnlib,60,unsat\nonnx/a.onnx,q.vnnlib,60,sat\n")
    assert instances.main() == 1
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["vnnlib"], line["ok"]) for line in lines] == [("p.vnnlib", ""), ("q.vnnlib", "no")]
    assert (tmp_path / "p.vnnlib.calls").read_text() == "called\n"


def test_the_summary_compares_where_both_are_right() -> None:
    def ours(name: str, verdict: str, wall: str, **more: str) -> dict[str, str]:
        certified = "yes" if verdict in ("sat", "unsat") else ""
        line = {"family": "f", "onnx": "a", "vnnlib": name, "verdict": verdict, "ok": "yes", "reason": "",
                "certified": certified, "overrun": "no", "wall_s": wall, "check_s": "0.1"}  # fmt: skip
        return line | more

    mine = [ours("1", "sat", "1"), ours("2", "unsat", "3"), ours("3", "unsat", "8", certified="no"),
            ours("4", "unknown", "9", reason="uncertified", overrun="yes")]  # fmt: skip
    other = [ours("1", "sat", "5"), ours("2", "sat", "7", ok="no"), ours("3", "timeout", "60", ok="")]
    cells = "f | 4 | 3 | 0 | 2 | 1 | 3 | 4 | 0.1 | 3 | 2 | 1 | 6 | 6 | 1 | 1 | 5"
    lines = instance_summary.table(mine, other, "wall_s").splitlines()
    assert lines[2:] == [f"| {cells} |", f"| all{cells[1:]} |"]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")


def test_a_property_is_split_into_its_disjuncts() -> None:
    text = """
        (declare-const X_0 Real) ; the only input
        (assert (or (and (>= X_0 0)
                         (<= X_0 1)) (>= X_0 2)))
        (assert (or (<= Y_0 3) (<= Y_0 Y_1)))
    """
    first, second = ["(assert (>= X_0 0))", "(assert (<= X_0 1))"], ["(assert (>= X_0 2))"]
    outputs = ["(assert (<= Y_0 3))"], ["(assert (<= Y_0 Y_1))"]
    expected = [["(declare-const X_0 Real)", *box, *output] for box in (first, second) for output in outputs]
    assert [part.splitlines() for part in parts(text)] == expected
