"""The pool of worker processes: whatever one does, the others answer, and none is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_tasks import Job, Setup

from lpverify.errors import ResourceError, SolverError, SoundnessError, UsageError
from lpverify.workers import Failure, Pool
from lpverify.workers import pool as pool_module

TESTS = Path(__file__).resolve().parent
HERE_OR_THERE = pytest.mark.parametrize("workers", [0, 1, 2])
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system does not do this for us")
HANG = ("echo", 0, 100.0)


@pytest.fixture(params=["forked", "fresh"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers forked from a template, and interpreters of their own."""
    if request.param == "fresh":
        monkeypatch.setattr(pool_module, "POSSIBLE", False)


def outcomes(jobs: list[Job], workers: int = 2, limit: float | None = 60.0, **options: Any) -> list[Any]:
    with Pool[Job, Any](Setup(), workers, **options) as pool:
        return list(pool.map(jobs, limit))


def ask(pool: Pool[Job, Any], *jobs: Job) -> list[Any]:
    return list(pool.map(jobs))


def gone(pid: int) -> bool:
    """Whether no such process runs; one that has ended and waits to be reaped by init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def all_gone(pids: list[int], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not all(map(gone, pids)):
        time.sleep(0.02)
    return all(map(gone, pids))


def noted(folder: Path, count: int) -> list[int]:
    """The process ids that tasks have left in a folder, once there are so many."""
    end = time.monotonic() + 30
    while len(found := [int(file.name) for file in folder.iterdir()]) < count:
        assert time.monotonic() < end, "the tasks did not begin"
        time.sleep(0.02)
    return found


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """A script without a guard, which reads its arguments from sys.argv and has warnings as errors."""
    head = f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]\n"
    head += "from worker_tasks import Setup\nfrom lpverify.workers import Failure, Pool\n"
    line = [sys.executable, "-X", "dev", "-W", "error", "-c", head + textwrap.dedent(text), *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@HERE_OR_THERE
def test_order_is_kept(workers: int) -> None:
    rng = random.Random(0)
    jobs: list[Job] = [("echo", i, rng.random() * 0.02) for i in range(40)]
    assert outcomes(jobs, workers) == list(range(40))


@HERE_OR_THERE
def test_exceptions_become_one_line(workers: int) -> None:
    jobs: list[Job] = [
        ("fail", "row 3\n  of 4"), ("fail", ""), ("system_exit", 3), ("like_torch",), ("missing",), ("echo", None)
    ]  # fmt: skip
    assert outcomes(jobs, workers) == [
        Failure("ValueError: row 3 of 4"),
        Failure("ValueError"),
        Failure("SystemExit: 3"),
        Failure("out of memory"),
        Failure("AttributeError: 'Worker' object has no attribute 'missing'"),
        None,
    ]


@HERE_OR_THERE
def test_contradictory_evidence_is_no_failure(workers: int) -> None:
    with Pool[Job, Any](Setup(), workers) as pool:
        with pytest.raises(SoundnessError, match=r"^row 1: bound above the margin$"):
            ask(pool, ("echo", 1), ("unsound", "row 1: bound above the margin"))
        assert ask(pool, ("echo", 2)) == [2]


@HERE_OR_THERE
def test_no_tasks_start_nothing(workers: int) -> None:
    with Pool[Job, Any](Setup("error"), workers) as pool:
        assert ask(pool) == []


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (("segfault",), "solver crashed (signal 11)"),
        (("null",), "solver crashed (signal 11)"),
        (("exit", 3), "solver crashed (exit code 3)"),
        (("exit", 0), "solver crashed (exit code 0)"),
        (("kill",), "solver crashed (signal 9; is the system short of memory?)"),
        (("unpicklable",), "TypeError: cannot pickle '_thread.lock' object"),
        (("unreadable",), "its answer cannot be read: ValueError: invalid literal for int() with base 10: 'none'"),
    ],
)
def test_a_crash_costs_one_answer(job: Job, reason: str) -> None:
    assert outcomes([("echo", 1), job, ("echo", 2), ("echo", 3)]) == [1, Failure(reason), 2, 3]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("job", [HANG, ("stubborn",)])
def test_a_task_past_its_limit_is_ended(job: Job) -> None:
    began = time.monotonic()
    late = Failure("solver exceeded its limit of 0.5 s and was ended")
    assert outcomes([job, ("echo", 1), job, ("echo", 2)], limit=0.5) == [late, 1, late, 2]
    assert time.monotonic() - began < 10


def test_the_limit_does_not_count_the_start() -> None:
    with Pool[Job, Any](Setup(seconds=1.0), 1) as pool:
        assert list(pool.map([("echo", 1)], limit=0.5)) == [1]


@pytest.mark.usefixtures("both_ways")
def test_a_killed_worker_takes_its_programs_along(tmp_path: Path) -> None:
    assert "exceeded" in outcomes([("program", str(tmp_path))], limit=1.0)[0].reason
    assert all_gone(noted(tmp_path, 2))


@pytest.mark.usefixtures("both_ways")
@LINUX
def test_memory_is_limited_and_given_back() -> None:
    found = outcomes([("count",), ("bomb",), ("count",)], workers=1, memory=1 << 28)
    assert found[1] == Failure("out of memory (limit 0.25 GiB)")
    # The worker that ran out of memory is not used again.
    assert found[0][0] != found[2][0] and found[2][1] == 1


def test_a_hundred_tasks_with_random_crashes_are_all_answered() -> None:
    found = outcomes([("maybe", seed) for seed in range(100)])
    fates = {"solver crashed (signal 11)", "solver crashed (exit code 9)"}
    wrong = {i: o for i, o in enumerate(found) if o != i}
    assert len(found) == 100 and 15 < len(wrong) < 45
    assert all(o.reason in fates or o == Failure(f"ValueError: {i}") for i, o in wrong.items())
    assert {o.reason for o in wrong.values()} > fates


@pytest.mark.usefixtures("both_ways")
def test_workers_are_reused_and_an_idle_one_that_died_costs_nothing() -> None:
    with Pool[Job, Any](Setup(), 1) as pool:
        (first, _), (again, done) = ask(pool, ("count",), ("count",))
        assert (again, done) == (first, 2)
        os.kill(first, signal.SIGKILL)
        assert all_gone([first])
        ((other, done),) = ask(pool, ("count",))
        assert other != first and done == 1


def test_tasks_are_taken_one_by_one_and_answered_at_once() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[Job]:
        for i in range(100):
            taken.append(i)
            yield "echo", i, 0.3

    with Pool[Job, Any](Setup(), 2) as pool:
        # Both have started: else the first may answer many tasks before the second is there.
        ask(pool, ("pid", 0.5), ("pid", 0.5))
        found = pool.map(jobs())
        assert taken == []
        assert [next(found), next(found)] == [0, 1]
        assert len(taken) <= 6


def test_two_workers_work_at_the_same_time() -> None:
    with Pool[Job, Any](Setup(), 2) as pool:
        pids = set(ask(pool, ("pid", 0.3), ("pid", 0.3)))
        assert len(pids) == 2
        began = time.monotonic()
        ask(pool, ("pid", 1.0), ("pid", 1.0))
        assert time.monotonic() - began < 1.8


@pytest.mark.usefixtures("both_ways")
def test_one_map_at_a_time_and_closing_one_early_ends_its_tasks(tmp_path: Path) -> None:
    with Pool[Job, Any](Setup(), 2) as pool:
        ask(pool, ("pid", 0.3), ("pid", 0.3))
        found = pool.map([("echo", 1), ("noted", str(tmp_path), *HANG)])
        assert next(found) == 1
        with pytest.raises(UsageError, match="another map"):
            next(pool.map([("echo", 2)]))
        pids = noted(tmp_path, 1)
        found.close()  # type: ignore[attr-defined]
        assert all(map(gone, pids))
        assert ask(pool, ("echo", 2)) == [2]


def test_standard_output_is_not_spoiled(capfd: pytest.CaptureFixture[str]) -> None:
    assert outcomes([("chatter",)]) == ["done"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("both_ways")
def test_workers_have_one_thread_no_input_a_session_of_their_own_and_ignore_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (threads, session, empty), still = outcomes([("environment",), ("interrupt",)], workers=1)
    assert threads == "1" and session != os.getsid(0) and empty and still == "still here"


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("error", SolverError, "^a worker could not start: ValueError: no such file$"),
        ("crash", SolverError, r"^a worker could not start: solver crashed \(signal 11\)$"),
        ("ours", ResourceError, "^disk: full$"),
    ],
)
def test_a_setup_that_fails_ends_the_run(fault: str, error: type[Exception], text: str) -> None:
    with Pool[Job, Any](Setup(fault), 2) as pool, pytest.raises(error, match=text):
        ask(pool, *[("echo", i) for i in range(10)])


@pytest.mark.usefixtures("both_ways")
@LINUX
def test_a_worker_goes_first_where_the_system_is_short_of_memory() -> None:
    assert outcomes([("sacrifice",)]) == ["1000"]


@pytest.mark.usefixtures("both_ways")
@LINUX
def test_too_little_memory_to_start_is_said() -> None:
    with Pool[Job, Any](Setup("bomb"), 1, memory=1 << 28) as pool, pytest.raises(SolverError) as caught:
        ask(pool, ("echo", 1))
    told = "a worker could not start: out of memory (limit 0.25 GiB); the memory limit, 0.25 GiB, may be too small"
    assert str(caught.value) == told


@pytest.mark.usefixtures("both_ways")
def test_a_later_start_that_fails_costs_one_answer(tmp_path: Path) -> None:
    with Pool[Job, Any](Setup("later", str(tmp_path / "started")), 1) as pool:
        found = ask(pool, ("echo", 1), ("exit", 3), ("echo", 2))
    assert found[:2] == [1, Failure("solver crashed (exit code 3)")]
    assert found[2] == Failure("a worker could not start: solver crashed (exit code 7)")


@pytest.mark.parametrize("options", [{"workers": -1}, {"workers": 1, "memory": 0}])
def test_options_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"^{list(options)[-1]}: "):
        Pool(Setup(), **options)


@pytest.mark.usefixtures("both_ways")
def test_large_tasks_and_answers() -> None:
    blocks = [os.urandom(1 << 22) for _ in range(4)]
    assert outcomes([("echo", block) for block in blocks]) == blocks


LOOP = """
    with Pool(Setup(), 3) as pool:
        for outcome in pool.map([("noted", sys.argv[1], *job) for job in (("echo", 0, 100.0), ("stubborn",))]):
            print(outcome)
"""


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    parent = script(LOOP, str(tmp_path))
    pids = noted(tmp_path, 2)
    parent.send_signal(signal.SIGINT)
    out, err = parent.communicate(timeout=10)
    assert all(map(gone, pids))
    assert out == "" and err.splitlines()[-1] == "KeyboardInterrupt"
    assert "Warning" not in err and "leaked" not in err


@LINUX
def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    jobs = '[("stubborn",), ("echo", 0, 100.0), ("program", sys.argv[1])]'
    parent = script(LOOP.replace('(("echo", 0, 100.0), ("stubborn",))', jobs), str(tmp_path))
    pids = noted(tmp_path, 4)
    pids += {parent_of(pid) for pid in pids} - {parent.pid}
    parent.kill()
    assert parent.wait(10) == -signal.SIGKILL
    # Nothing holds the parent's standard error any more, so that this returns.
    assert parent.communicate(timeout=10) == ("", "")
    assert all_gone(pids)


@pytest.mark.parametrize("way", ["file", "-c", "-"])
def test_scripts_need_no_guard_and_end_without_a_word(tmp_path: Path, way: str) -> None:
    text = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
from worker_tasks import Setup
from lpverify.workers import Pool
print("once")
with Pool(Setup(), 2) as pool:
    print(list(pool.map([("echo", 1), ("exit", 3), ("chatter",)])))
    rest = pool.map([("echo", 1), ("echo", 2, 100.0)])
    next(rest)
"""
    (tmp_path / "script.py").write_text(text)
    program = {"file": [str(tmp_path / "script.py")], "-c": ["-c", text], "-": ["-"]}[way]
    line = [sys.executable, "-X", "dev", "-W", "error", *program]
    done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=60)
    assert done.stdout == "once\n[1, Failure(reason='solver crashed (exit code 3)'), 'done']\n"
    assert (done.returncode, done.stderr) == (0, "")


@LINUX
def test_workers_come_from_one_template_which_is_replaced_when_it_is_lost() -> None:
    with Pool[Job, Any](Setup(), 2) as pool:
        first, again = ask(pool, ("parent", 0.3), ("parent", 0.3))
        assert first == again != os.getpid()
        os.kill(first, signal.SIGKILL)
        # What has been forked answers still; the next comes from another.
        assert ask(pool, ("echo", 1), ("exit", 3), ("exit", 3))[0] == 1
        assert ask(pool, ("parent", 0.3), ("parent", 0.3))[0] not in (first, os.getpid())


@LINUX
def test_a_template_that_is_lost_while_it_starts_costs_nothing(tmp_path: Path) -> None:
    with Pool[Job, Any](Setup(), 2, modules=["waits_to_be_killed"]) as pool:
        os.environ["WAITS_IN"] = str(tmp_path)
        try:
            threading.Thread(target=lambda: os.kill(noted(tmp_path, 1)[0], signal.SIGKILL)).start()
            assert ask(pool, ("echo", 1), ("echo", 2)) == [1, 2]
        finally:
            del os.environ["WAITS_IN"]
        assert len(list(tmp_path.iterdir())) == 1


@LINUX
@pytest.mark.parametrize("workers", [1, 2, 6])
def test_where_an_import_leaves_a_thread_nothing_is_forked(workers: int) -> None:
    with Pool[Job, Any](Setup(), workers, modules=["no_such_module", "leaves_a_thread"]) as pool:
        first: list[Job] = [("parent", 0.3)] * workers
        assert ask(pool, *first, ("exit", 3), ("parent",)) == [
            *[os.getpid()] * workers, Failure("solver crashed (exit code 3)"), os.getpid()
        ]  # fmt: skip


@pytest.mark.usefixtures("both_ways")
def test_a_crash_takes_the_programs_along_and_is_seen_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    assert outcomes([("left_behind", str(tmp_path), 3)], limit=None) == [Failure("solver crashed (exit code 3)")]
    assert time.monotonic() - began < 10 and all_gone(noted(tmp_path, 1))


@pytest.mark.usefixtures("both_ways")
def test_limits_of_years_are_limits() -> None:
    assert outcomes([("echo", 1)], limit=1e10) == [1]


@LINUX
@pytest.mark.usefixtures("both_ways")
def test_where_dead_children_are_ignored_ends_are_told_all_the_same() -> None:
    text = """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with Pool(Setup(), 1) as pool:
            print([outcome for outcome in pool.map([("exit", 3), ("echo", 1), ("exit", 4), ("echo", 2)])])
    """
    out, err = script(text).communicate(timeout=30)
    assert "1, Failure(reason='solver crashed (exit code 4)'), 2]" in out and "Traceback" not in err


@LINUX
@pytest.mark.usefixtures("both_ways")
def test_a_task_beyond_the_memory_costs_its_answer() -> None:
    found = outcomes([("echo", 1), ("echo", bytes(1 << 28)), ("echo", 2)], workers=1, memory=1 << 28)
    assert found == [1, Failure("out of memory (limit 0.25 GiB)"), 2]


@LINUX
def test_what_a_worker_starts_has_no_more_memory_than_it() -> None:
    assert outcomes([("hard_limit",)], memory=1 << 28) == [1 << 28]


@pytest.mark.usefixtures("both_ways")
def test_another_thread_may_stop_a_pool(tmp_path: Path) -> None:
    pool = Pool[Job, Any](Setup(), 2)
    jobs: list[Job] = [("noted", str(tmp_path), *HANG)] * 5

    def stop() -> None:
        noted(tmp_path, 2)
        pool.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    began = time.monotonic()
    with pool:
        found = list(pool.map(jobs))
    stopping.join()
    assert len(found) == 2 and all("crashed" in failure.reason for failure in found)
    assert time.monotonic() - began < 30 and all_gone(noted(tmp_path, 2))


@LINUX
def test_an_end_that_is_interrupted_is_no_end_of_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two interrupts in a row: the second while the first one ends the workers."""
    pool = Pool[Job, Any](Setup(), 1)
    assert ask(pool, ("echo", 1)) == [1]
    (worker,) = pool._workers
    process, once = worker._process, [True]
    original = type(process).kill

    def kill(self: Any) -> None:
        original(self)
        if once and once.pop():
            raise KeyboardInterrupt

    monkeypatch.setattr(type(process), "kill", kill)
    with pytest.raises(KeyboardInterrupt):
        pool.close()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    pool.close()
    for descriptor in opened:
        os.close(descriptor)


@LINUX
@pytest.mark.usefixtures("both_ways")
def test_lost_workers_leave_no_descriptor_open() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    with Pool[Job, Any](Setup(), 2) as pool:
        both: list[Job] = [("pid", 0.3)] * 2
        ask(pool, ("exit", 3), *both, *both)
        busy = opened()
        ask(pool, *[("exit", 3)] * 20, *both, *both)
        assert opened() == busy
    assert opened() == before
