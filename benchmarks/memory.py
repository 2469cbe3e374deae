"""Peak memory of CROWN's bounds and of the rigorous check, one process a network.

    python benchmarks/memory.py --data ../shared/data --out benchmarks/results/memory.csv

Each network of networks.csv and torch_networks.csv gets one batch of the size that ``lpverify verify`` chooses
itself: MNIST or CIFAR-10 test images where they fit, else uniform numbers in [0, 1]; a small l-infinity ball; the
claim that the predicted class stays (with one output: that the output stays above its value minus 1). The peak
is the process's resident memory (getrusage), which contains Python and torch themselves.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GIB = 2**30
# Radii, by the number of inputs: images of 784 and of at least 3072 values; everything else.
RADII = {784: "0.01", 3072: "0.002", 5376: "0.002"}
COLUMNS = (
    "network", "inputs", "relus", "batch_size", "eps", "status", "load_s", "bounds_s", "check_s", "load_gib",
    "bounds_gib", "peak_gib",
)  # fmt: skip


def jobs(data: Path, first_of_kind: bool) -> Iterator[dict[str, Any]]:
    """The networks of both tables, with what loading them needs."""
    seen = set()
    with (data / "networks.csv").open() as file:
        for line in csv.DictReader(file):
            kind = (line["family"], line["input_shape"], line["relus"])
            if not first_of_kind or kind not in seen:
                yield {"file": line["file"], "relus": int(line["relus"])}
            seen.add(kind)
    with (data / "torch_networks.csv").open() as file:
        for line in csv.DictReader(file):
            kind = (line["architecture"], line["normalisation"])
            if not first_of_kind or kind not in seen:
                yield {"file": line["file"].split("/{")[0], "relus": int(line["relus"])} | loading(line)
            seen.add(kind)


def loading(line: dict[str, str]) -> dict[str, Any]:
    """``arch``, ``mean`` and ``std`` of a line of torch_networks.csv."""
    layers = []
    for part in line["architecture"].split("-"):
        if found := re.match(r"Conv\(\d+,(\d+),(\d+),stride(\d+),pad(\d+)\)", part):
            layers.append("conv " + " ".join(found.groups()))
        elif found := re.match(r"Linear\(\d+,(\d+)\)", part):
            layers.append(f"fc {found[1]}")
    options: dict[str, Any] = {}
    if any(layer.startswith("conv") for layer in layers):
        options["arch"] = f"cnn({line['input'].split()[0]}; {'; '.join(layers)})"
    lists = re.findall(r"\[([\d.,]+)\](/255)?", line["normalisation"].replace("[0,1]", ""))
    if len(lists) == 2:
        numbers = [[float(n) / (255 if scaled else 1) for n in text.split(",")] for text, scaled in lists]
        options |= {"mean": tuple(numbers[0]), "std": tuple(numbers[1])}
    return options


def inputs(data: Path, size: int, count: int) -> Any:
    """Test images of MNIST or CIFAR-10 where the size fits, else uniform numbers: (count, size) float32."""
    import numpy as np

    if size == 784:
        from lpverify.data import load_data

        images = load_data("mnist", data_dir=data / "datasets" / "mnist").x.reshape(-1, 784)
    elif size == 3072:
        table = np.loadtxt(data / "datasets" / "cifar10_samples" / "cifar10_test_first100.csv", delimiter=",")
        # Height, width, channel in the file; the networks take channels first.
        images = table[:, 1:].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).reshape(-1, 3072) / 255
    else:
        images = np.random.default_rng(0).random((count, size))
    return np.resize(images, (count, size)).astype(np.float32)


def run_one(data: Path, job: dict[str, Any], limit_gib: float) -> None:
    """Load, bound, check; a line of JSON on standard output after each step."""
    limit = int(limit_gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start = time.perf_counter()

    def report(stage: str, **more: Any) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        seconds = time.perf_counter() - start
        print(json.dumps({f"{stage}_s": round(seconds, 2), f"{stage}_gib": round(peak, 3)} | more), flush=True)

    import torch

    from lpverify.bounds import METHODS
    from lpverify.certificate import rigorous
    from lpverify.certificate.claim import LabelRows, LinearRows
    from lpverify.evidence import ball_claim, certificate
    from lpverify.lowering.load import load_model
    from lpverify.network import as_numpy
    from lpverify.problem import Specification
    from lpverify.serialize import raw_array
    from lpverify.session import Session
    from lpverify.settings import Settings

    torch.set_num_threads(1)
    options = {key: job[key] for key in ("arch", "mean", "std") if key in job}
    network = load_model(data / job["file"], **options)
    settings = Settings(RADII.get(network.input_size, "0.01"))
    session = Session(network, settings)
    count, classes = session.batch_size, network.output_size
    report("load", inputs=network.input_size, batch_size=count, eps=settings.eps)
    x = inputs(data, network.input_size, count)
    with torch.no_grad():
        outputs = session.exact.forward(torch.as_tensor(x).double())
        y = outputs.argmax(1)
        spec = Specification.label(y, classes)
        rows: list[Any] = [LabelRows(int(label), classes) for label in y]
        if classes == 1:
            spec = Specification(torch.ones(count, 1, 1).double(), 1 - outputs)
            pairs = zip(as_numpy(spec.C), as_numpy(spec.d), strict=True)
            rows = [LinearRows(raw_array(C), raw_array(d)) for C, d in pairs]
        engine = session.engine
        region = settings.region(torch.as_tensor(x).double()).to(engine.dtype)
        bound = METHODS["crown"]().bound(engine, region, spec.to(engine.dtype))
    report("bounds")
    claims = [ball_claim(point, settings.eps, "inf", None, row) for point, row in zip(x, rows, strict=True)]
    names = list(range(spec.d.shape[1]))
    sha = session.plain.sha256
    certificates = [certificate(sha, "real", claim, bound, i, names) for i, claim in enumerate(claims)]
    found = rigorous.check(session.checker, certificates)
    report("check", status=f"ok, {sum(o.accepted for o in found)} of {count} proved")


def measure(data: Path, job: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one network in a process of its own, ended at the time limit; a line of the CSV."""
    command = [sys.executable, "-W", "ignore", __file__, "--data", str(data), "--job", json.dumps(job)]
    command += ["--memory-limit", str(arguments.memory_limit)]
    line: dict[str, Any] = {"network": job["file"], "relus": job["relus"], "status": "time limit"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        end, usage, code = time.monotonic() + arguments.timeout, None, None
        while usage is None:
            # The child's own usage, which the subprocess module does not give.
            pid, status, rusage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                usage, code = rusage, os.waitstatus_to_exitcode(status)
                child.returncode = code
            elif time.monotonic() > end:
                child.kill()
                end = float("inf")
            else:
                time.sleep(0.02)
        output, errors = child.communicate()
    for text in output.splitlines():
        line |= json.loads(text)
    if code not in (0, -9):
        line["status"] = f"failed: {(errors.strip().splitlines() or [str(code)])[-1][:160]}"
    stages = ("load_s", "bounds_s", "check_s")
    ends = [0.0] + [line[s] for s in stages if s in line]
    line |= {s: round(ends[i + 1] - ends[i], 2) for i, s in enumerate(stages[: len(ends) - 1])}
    return line | {"peak_gib": round(usage.ru_maxrss * 1024 / GIB, 3)}


def main() -> int:
    """Measure all networks; the CSV grows line by line. 1 if one failed or passed the memory goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # As the command line sets it (``lpverify.cli.main``); the child processes inherit it.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    here = Path(__file__).resolve().parent
    shared = Path(os.environ.get("LPVERIFY_SHARED", here.parents[1] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=shared, help="folder with networks.csv")
    parser.add_argument("--only", default="", help="only networks whose file name contains this")
    parser.add_argument("--first-of-kind", action="store_true", help="one network of each family, input and size")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds a network")
    parser.add_argument("--memory-limit", type=float, default=12.0, help="GiB of data that a process may ask for")
    parser.add_argument("--goal", type=float, default=4.0, help="GiB that the peak should stay under")
    parser.add_argument("--out", type=Path, default=here / "results" / "memory.csv")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_one(arguments.data, arguments.job, arguments.memory_limit)
        return 0
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    above = []
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for job in jobs(arguments.data, arguments.first_of_kind):
            if arguments.only not in job["file"]:
                continue
            line = measure(arguments.data, job, arguments)
            writer.writerow(line)
            file.flush()
            print(", ".join(f"{c} {line[c]}" for c in COLUMNS if c in line), flush=True)
            if line["peak_gib"] > arguments.goal or not line["status"].startswith("ok"):
                above.append(line)
    print(f"{len(above)} networks above {arguments.goal:g} GiB or not finished")
    for line in above:
        print(f"  {line['network']}: {line['peak_gib']} GiB, {line['status']}")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
