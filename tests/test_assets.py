"""The shipped checkpoint: what its header says is so, and attacks and bounds meet on it without contradiction."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

import lpverify
from lpverify.attack import attack
from lpverify.bounds import METHODS
from lpverify.data import load_data
from lpverify.lowering.module import lower_module
from lpverify.models import build
from lpverify.network import Network
from lpverify.problem import Specification, ball

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(lpverify.__file__).parent / "assets" / "digits-pgd.safetensors"


def header() -> dict[str, str]:
    with safe_open(FILE, "pt") as file:
        return dict(file.metadata())


def shipped() -> Network:
    module = build(header()["arch"])
    module.load_state_dict(load_file(FILE))
    return lower_module(module, tuple(json.loads(header()["input_shape"]))).detach()


def test_the_header_describes_the_checkpoint() -> None:
    assert FILE.stat().st_size < 200_000
    script = runpy.run_path(str(ROOT / "benchmarks" / "train_digits.py"))
    assert header()["arch"] == script["ARCH"]
    data = load_data("digits")
    outputs = shipped().forward(torch.from_numpy(data.x))
    wrong = int((outputs.argmax(1) != torch.from_numpy(data.y)).sum())
    assert header()["clean_error"] == f"{wrong}/400 on the test split"
    assert wrong < 40
    assert header()["command"].startswith("python benchmarks/train_digits.py --eps 0.1 ")


def test_at_a_sixteenth_all_three_kinds_of_example_occur() -> None:
    network, data = shipped(), load_data("digits")
    x = torch.from_numpy(data.x).flatten(1)
    region = ball(x, 0.0625, "inf", (0.0, 1.0))
    spec = Specification.label(torch.from_numpy(data.y), 10, torch.float32)
    falsified = attack(network, region, spec, start=x).falsified
    proved = METHODS["crown"]().bound(network, region, spec).margins.amin(1) > 0
    assert not bool((falsified & proved).any())
    # Enough of each kind for a demonstration: misclassified and falsified, proved, and neither.
    assert int(falsified.sum()) > 40 and int(proved.sum()) > 300
    assert 0 < int((~falsified & ~proved).sum()) < 40
