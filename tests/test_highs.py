"""HiGHS by itself: statuses, hot starts, limits, interruption, threads."""

from __future__ import annotations

import gc
import itertools
import math
import os
import signal
import threading
import time
import weakref
from typing import Any

import highspy
import numpy as np
import pytest
from programs import LPS, MIPS, boxed_lp, market_split
from random_programs import EDGES, program

from lpverify.backends import CvxpyBackend, HighsBackend, Status
from lpverify.backends.scaling import equilibrate
from lpverify.errors import SolverError

TEXTBOOK, KNAPSACK = LPS["textbook"].program, MIPS["knapsack"].program
COSTS = TEXTBOOK.objective


def test_time_of_a_session_starts_anew() -> None:
    """HiGHS counts the seconds of all runs together; the limit is for each."""
    given, objectives = boxed_lp(1, 60, 40)
    session = HighsBackend().open(given)
    began = time.perf_counter()
    while time.perf_counter() - began < 1.0:
        for objective in objectives:
            assert session.minimise(objective, time_limit=0.5).status is Status.OPTIMAL


def test_stop_at_ends_early() -> None:
    """A market split's optimum is out of reach, but not on which side of -1 or of 10^6 it is."""
    given = market_split(5, 40).with_objective(market_split(5, 40).objective, 7.0)
    below = HighsBackend().solve(given, stop_at=6.0, time_limit=20.0)
    assert below.status is Status.STOPPED and below.bound > 6.0 and below.seconds < 10.0
    above = HighsBackend().solve(given, stop_at=1e6, time_limit=20.0)
    assert above.status is Status.STOPPED and above.objective <= 1e6 and above.seconds < 10.0
    assert above.x is not None and given.violation(above.x) <= 1e-6 * 5000
    assert above.bound <= above.objective


def highs_statuses() -> list[str]:
    return sorted(set(highspy.HighsModelStatus.__members__) - {"kOptimal", "kInfeasible", "kUnbounded", "kTimeLimit"})


def test_session_goes_on_after_an_early_end() -> None:
    """HiGHS keeps a callback's wish to stop; the next solve must not hear it. Nor may the old point or limit stay."""
    given = market_split(3, 12)
    session = HighsBackend().open(given)
    for _ in range(2):
        assert session.minimise(given.objective, stop_at=1e6).status is Status.STOPPED
        assert session.minimise(given.objective, time_limit=0.0).status is Status.LIMIT
        found = session.minimise(-given.objective, time_limit=20.0)
        assert found.status is Status.OPTIMAL
        assert found.bound == pytest.approx(found.objective)
        assert found.objective == pytest.approx(HighsBackend().solve(given.with_objective(-given.objective)).objective)


@pytest.mark.parametrize("status", highs_statuses())
def test_other_statuses_of_highs_are_failures(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highspy.Highs, "getModelStatus", lambda self: highspy.HighsModelStatus.__members__[status])
    session = HighsBackend().open(TEXTBOOK)
    for _ in range(2):
        found = session.minimise(np.array([-3.0, -5.0]))
        assert found.status is Status.FAILED
        assert status in found.message


def test_error_of_highs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    run = highspy.Highs.run
    monkeypatch.setattr(highspy.Highs, "run", lambda self: (run(self), highspy.HighsStatus.kError)[1])
    found = HighsBackend().solve(TEXTBOOK)
    assert found.status is Status.FAILED and "error" in found.message


def test_optimal_without_numbers_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    true = highspy.Highs.getSolution

    def broken(self: Any) -> Any:
        solution = true(self)
        solution.col_value = [math.nan] * 2
        solution.row_dual = [math.inf] * 3
        return solution

    monkeypatch.setattr(highspy.Highs, "getSolution", broken)
    found = HighsBackend().solve(TEXTBOOK)
    assert found.status is Status.FAILED and found.x is None and found.row_duals is None
    assert found.bound == -math.inf and math.isnan(found.objective)


def test_hot_start_that_fails_is_tried_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    true, failures = highspy.Highs.getModelStatus, iter([False, True, False])
    monkeypatch.setattr(
        highspy.Highs,
        "getModelStatus",
        lambda self: highspy.HighsModelStatus.kUnknown if next(failures) else true(self),
    )
    session = HighsBackend().open(TEXTBOOK)
    assert session.minimise(np.array([-3.0, -5.0])).bound == -36.0
    assert session.minimise(np.array([-5.0, -3.0])).bound == pytest.approx(-29.0)
    assert next(failures, None) is None


def test_entries_left_out_are_said() -> None:
    made = program([1, 1], [(1, 2), (0, 1)], [(1, [1, 2.0**-50], math.inf)], [0, 1])
    found = HighsBackend().solve(made)
    assert "left out 1 of 2 entries" in found.message


def test_program_that_highs_refuses_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highspy.Highs, "passModel", lambda self, *_: highspy.HighsStatus.kError)
    found = HighsBackend().solve(TEXTBOOK)
    assert found.status is Status.FAILED and found.x is None and found.bound == -math.inf
    assert found.message == "HiGHS refused the program"


@pytest.mark.parametrize("kind", ["LP", "MIP"])
def test_interrupt_ends_a_solve(kind: str) -> None:
    """Ctrl-C in the middle; HiGHS works as before afterwards. The MIP takes years, the LP some ten seconds."""
    given = boxed_lp(0, 3000, 2000)[0] if kind == "LP" else market_split(5, 40)
    session = HighsBackend().open(given)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    began = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        session.minimise(given.objective, time_limit=30.0)
    timer.join()
    assert time.perf_counter() - began < 5.0
    with pytest.raises(SolverError, match="interrupted; open another"):
        session.minimise(given.objective)
    for backend in (HighsBackend(), HighsBackend(threads=2), CvxpyBackend()):
        assert backend.solve(KNAPSACK).bound == pytest.approx(-220.0)
        assert backend.solve(TEXTBOOK).bound == pytest.approx(-36.0)


def test_numbers_of_threads_may_differ() -> None:
    known = LPS["textbook"]
    one, two = HighsBackend(threads=1).open(known.program), HighsBackend(threads=2).open(known.program)
    for session in (one, two, one, CvxpyBackend(threads=2).open(known.program), two):
        found = session.minimise(known.program.objective)
        assert found.status is Status.OPTIMAL and found.bound == pytest.approx(-36.0)


def test_sessions_are_freed() -> None:
    """A HiGHS instance dies with its session: callbacks hold no circle that nothing can free."""
    session: Any = HighsBackend().start(equilibrate(TEXTBOOK)[0])
    session.minimise(COSTS)
    solver = weakref.ref(session._highs)
    assert isinstance(solver(), highspy.Highs)
    del session
    gc.collect()
    assert solver() is None


def test_presolve_keeps_the_optimum_of_a_small_milp() -> None:
    """HiGHS 1.14.0 reduces this one wrongly and calls another value optimal (its issue 2957)."""
    given = EDGES["binaries"]
    whole = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    # The last column covers what the others take beyond the row's 3, at a cost of 1 for each 1.5.
    rest = np.maximum(whole @ given.A.toarray()[0, :3] - 3.0, 0.0) / 1.5
    best = float((whole @ given.objective[:3] + rest)[rest <= 1].min())
    found = HighsBackend().solve(given)
    assert found.status is Status.OPTIMAL and found.objective == pytest.approx(best, abs=1e-9)
    assert found.bound <= best + 1e-9
