"""Runs on a disk that fills up: each must end with 5, keep its rows, and be gone on with to equal results.

    python benchmarks/disk_full.py --sizes 20 --out benchmarks/results/disk_full.json

The run is ``lpverify verify`` of the package's digits. The disk is a tmpfs of a given size where it may be mounted
(``--tmpfs FOLDER``, an empty folder; needs root), else no file may grow beyond the size (RLIMIT_FSIZE). After each run
that ends so, the rows that it has are compared with the uninterrupted run's; then the disk gets room and the same
command goes on, until all fields of the lines but the seconds, and the bytes of all evidence, are equal.

``--calls`` lets the n-th call of fsync or rename fail with ENOSPC, for n = 1, 2, ...: certificates and the store's
files go through these.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fault_runs import MODEL, Server, content

from lpverify.runs.store import read_store

ASK = ["verify", str(MODEL), "--data", "digits", "--eps", "0.05", "--clip", "0", "1", "--timeout", "600"]
ROOM, PAGE = 64 << 20, 4096
Content = tuple[list[dict[str, Any]], dict[str, bytes]]


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of so many bytes on the folder."""
    mount(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, *options: str) -> None:
    """Call mount, which must not fail."""
    subprocess.run(["mount", *options, str(folder)], check=True)


def kept(run: Path, expected: list[dict[str, Any]]) -> int:
    """How many rows there are, each of them that of the whole run; evidence that they name is there, with its bytes."""
    try:
        stored = read_store(run)
    except Exception as error:
        raise SystemExit(f"{run}: the store cannot be read: {error}") from error
    records = () if stored is None else stored.records
    known = {line["index"]: line for line in expected}
    for record in records:
        line = {name: value for name, value in record.items() if name != "seconds"}
        if line != known[record["index"]]:
            raise SystemExit(f"example {record['index']}: {line} is not {known[record['index']]}")
    return len(records)


def judge(
    server: Server, command: list[str], run: Path, log: Path, whole: Content, limit: int = 0, fail: str = ""
) -> dict[str, Any]:
    """One run that is stopped: its exit code, message and rows."""
    code = server.run([*command, str(run)], log, limit, fail)
    said = Path(f"{log}.out").read_text().splitlines()
    message = next((line for line in said if line.startswith("lpverify: error")), "")
    rows = kept(run, whole[0]) if run.is_dir() else 0
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if name in whole[1] and path.read_bytes() != whole[1][name]:
            raise SystemExit(f"{name}: is there with other bytes")
    return {"code": code, "rows": rows, "message": message.replace(str(run.parent), "")}


def main() -> None:
    """Fill the disk at every size, then let every call fail; write what followed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--index", default="0:400")
    parser.add_argument("--tmpfs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["lpverify", "verify", MODEL.name, *ASK[2:], "--index", given.index])}
    with tempfile.TemporaryDirectory() as name, Server() as server:
        folder = Path(name)
        command = [*ASK, "--index", given.index, "--out"]
        if server.run([*command, str(folder / "whole")], folder / "log") != 0:
            raise SystemExit((folder / "log.out").read_text())
        whole = content(folder / "whole")
        sizes = [path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file()]
        pages, largest = sum(-(-size // PAGE) * PAGE for size in sizes), max(sizes)
        found |= {"examples": len(whole[0]), "bytes": sum(sizes), "largest_file": largest}
        disk = given.tmpfs or folder / "disk"
        disk.mkdir(exist_ok=True)
        runs: list[dict[str, Any]] = []
        for k in range(1, given.sizes + 1):
            # From nothing to nearly all of what a run takes: its files in pages of 4 KiB, and the store's journal, with
            # at least a page for a row.
            if given.tmpfs is not None:
                size = (pages + PAGE * len(whole[0])) * k // (given.sizes + 1)
                with mounted(disk, size):
                    stopped = judge(server, command, disk / "run", folder / "log", whole)
                    mount(disk, "-o", f"remount,size={ROOM}")
                    code = server.run([*command, str(disk / "run")], folder / "log")
                    equal = code == 0 and content(disk / "run") == whole
            else:
                size = max(1, largest * k // (given.sizes + 1))
                stopped = judge(server, command, disk / "run", folder / "log", whole, size)
                code = server.run([*command, str(disk / "run")], folder / "log")
                equal = code == 0 and content(disk / "run") == whole
                shutil.rmtree(disk / "run")
            runs.append({"size": size, **stopped, "equal_after": equal})
            print(json.dumps(runs[-1]), flush=True)
        calls: list[dict[str, Any]] = []
        for k in range(given.calls):
            for call in ("fsync", "replace"):
                # Spread over a run: its first calls one by one, then further and further apart.
                place = 1 + k if k < 6 else 1 + k * k // 2
                stopped = judge(server, command, folder / "run", folder / "log", whole, fail=f"{call} {place}")
                code = server.run([*command, str(folder / "run")], folder / "log")
                equal = code == 0 and content(folder / "run") == whole
                shutil.rmtree(folder / "run", ignore_errors=True)
                calls.append({"call": call, "place": place, **stopped, "equal_after": equal})
                print(json.dumps(calls[-1]), flush=True)
    for name, done in (("sizes", runs), ("calls", calls)):
        bad = [one for one in done if one["code"] != 5 or not one["equal_after"] or not one["message"]]
        found |= {name: len(done), f"{name}_ended_with_5": sum(one["code"] == 5 for one in done),
                  f"{name}_equal_after": sum(one["equal_after"] for one in done), f"{name}_bad": bad,
                  f"{name}_rows_kept": [one["rows"] for one in done]}  # fmt: skip
    found["limit"] = "RLIMIT_FSIZE" if given.tmpfs is None else "tmpfs"
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    if found["sizes_bad"] or found["calls_bad"]:
        raise SystemExit("some run did not end with 5, or did not go on to equal results")


if __name__ == "__main__":
    main()
