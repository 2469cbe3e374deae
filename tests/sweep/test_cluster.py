"""Sweeps on a Dask cluster of this machine: a scheduler and its workers as processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmark_path  # noqa: F401
import pytest
from distributed import Client
from local_cluster import Cluster
from networks import dense
from sweep.compared import said
from sweep.sweep_tasks import Numbers

from lpverify.cli import main
from lpverify.data import load_data
from lpverify.errors import ResourceError, SoundnessError
from lpverify.lowering import load_model
from lpverify.runs.store import read_store
from lpverify.settings import Settings
from lpverify.sweep import sweep
from lpverify.verify import verify_stream

pytest.importorskip("distributed", reason="needs the extra lpverify[distributed]")

HERE = Path(__file__).resolve()
DIGITS = HERE.parents[2] / "lpverify" / "assets" / "digits-demo.safetensors"


def started(folder: Path) -> Cluster:
    return Cluster(folder, 2, HERE.parents[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as found:
        yield found


def told(cluster: Cluster, tasks: list[Numbers]) -> list[str]:
    return sorted(sweep(dense(0, 2, 3, 2), Settings("0.5", scheduler=cluster.address), tasks))


def test_a_cluster_finds_what_one_process_finds(cluster: Cluster) -> None:
    examples, network = load_data("digits"), load_model(DIGITS)
    assert examples.y is not None
    settings = Settings("0.07", clip=("0", "1"), batch_size=3, timeout=600.0)
    one, there = (
        sorted(map(said, verify_stream(network, examples.x[52:61], examples.y[52:61], s)))
        for s in (settings, replace(settings, scheduler=cluster.address))
    )
    assert one == there and len(one) == 9 and any(dict(line[0])["method"] == "phase splits" for line in one)


def test_a_poison_costs_its_example_and_no_worker_of_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [Numbers((n, n + 1), tmp_path, left=(n,), poison=(3,)) for n in (0, 2, 4)]
    reason = "given up after 2 tries: worker crashed (signal 11)"
    assert told(cluster, tasks) == [f"{n} eps 0.5" if n != 3 else f"3 {reason}" for n in range(6)]
    assert all(worker.poll() is None for worker in cluster.workers)


def test_small_tasks_travel_in_bundles(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, sent = Client.submit, []

    def counted(client: Client, *arguments: Any, **options: Any) -> Any:
        sent.append(options["key"])
        return submit(client, *arguments, **options)

    monkeypatch.setattr(Client, "submit", counted)
    tasks = [Numbers((n,), tmp_path, poison=(100,)) for n in range(200)]
    reason = "given up after 2 tries: worker crashed (signal 11)"
    assert told(cluster, tasks) == sorted(f"{n} eps 0.5" if n != 100 else f"100 {reason}" for n in range(200))
    assert len(set(sent)) == len(sent) < 100


def test_a_task_past_its_limit_is_ended(cluster: Cluster, tmp_path: Path) -> None:
    found = told(cluster, [Numbers((1,), tmp_path, limit=0.2, slow=True), Numbers((2,), tmp_path)])
    assert found == ["1 given up after 2 tries: worker exceeded its limit of 0.2 s and was ended", "2 eps 0.5"]


def test_contradictory_evidence_ends_the_sweep(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SoundnessError, match="two and two are five"):
        told(cluster, [Numbers((1,), tmp_path, false=True)])


def test_without_a_scheduler_or_a_worker_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lpverify.sweep.cluster.CONNECT_SECONDS", 1.0)
    with pytest.raises(ResourceError, match=r"^scheduler tcp://127.0.0.1:1: does not answer \(.*\); start one with"):
        list(sweep(dense(0, 2, 3, 2), Settings("0.5", scheduler="tcp://127.0.0.1:1"), [Numbers((1,), tmp_path)]))


def test_lost_workers_tasks_run_elsewhere_and_a_lost_scheduler_keeps_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One worker is killed in the middle of a run, then the scheduler; the same command ends it in this process."""
    lost = started(tmp_path)
    run = tmp_path / "run"
    command = [
        "verify", str(DIGITS), "--data", "digits", "--index", "0:160", "--eps", "0.05", "--clip", "0", "1",
        "--method", "crown", "--batch-size", "1", "--timeout", "600", "--out", str(run),
    ]  # fmt: skip

    def rows() -> int:
        stored = read_store(run) if run.exists() else None
        return 0 if stored is None else len(stored.records)

    def kill() -> None:
        for victim, count in ((lost.workers[0], 5), (lost.scheduler, 25)):
            while rows() < count:
                time.sleep(0.01)
            os.killpg(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        assert main([*command, "--scheduler", lost.address]) == 5
    finally:
        lost.close()
    assert f"scheduler {lost.address}: is gone; what was written is kept" in capsys.readouterr().err
    assert 25 <= rows() < 160
    assert main(command) == 0
    assert rows() == 160 and "going on after" in capsys.readouterr().err
    assert main(["check", str(run)]) == 0
