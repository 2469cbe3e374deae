"""Cascades: the rule of answers, what verified means, against brute force on inputs of one and two numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import dense
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from small_networks import dense_network

from lpverify.cascade import DISAGREE, NO_CERTIFICATE, Cascade, CascadeResult, CascadeTally, read_cascade
from lpverify.cli import main
from lpverify.errors import DataError, ModelError
from lpverify.lowering import load_model
from lpverify.network import Network
from lpverify.result import Verdict
from lpverify.settings import Settings

DIGITS = Path(__file__).resolve().parent.parent / "lpverify/assets/digits-demo.safetensors"
ARCH = "cnn(1x8x8; conv 8 3 1 1; conv 16 4 2 1; fc 32; fc 10)"
Points = NDArray[np.float64]


def step(at: float) -> Network:
    """One input: class 0 below ``at``, class 1 above."""
    return dense_network((torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([at, -at]).double()))


def constant(label: int) -> Network:
    """One input, always the same class of two."""
    bias = torch.tensor([1.0, -1.0] if label == 0 else [-1.0, 1.0]).double()
    return dense_network((torch.zeros(2, 1).double(), bias))


def verified(stages: list[Network], x: float, label: int, eps: str = "0.1", **options: Any) -> CascadeResult:
    with Cascade(stages, Settings(eps, method="crown", **options)) as cascade:
        return next(cascade.verify(np.array([[x]]), np.array([label])))


def answer(stages: list[Network], x: float, eps: str = "0.1") -> tuple[int | None, int | None]:
    with Cascade(stages, Settings(eps, method="crown")) as cascade:
        found = next(cascade.predict(np.array([[x]])))
    return found.stage, found.label


def test_the_first_certified_stage_answers() -> None:
    stages = [step(0.5), step(0.25), step(0.0)]
    assert answer(stages, 0.75) == (1, 1) and answer(stages, 0.55) == (2, 1)
    assert answer(stages, 0.45) == (2, 1) and answer(stages, 0.3) == (1, 0)
    assert answer(stages[:1], 0.5) == (None, None)


def test_a_certificate_at_the_input_alone_does_not_suffice() -> None:
    """At 0.45 stage 1 is too near to its step and stage 2 answers, 1, rightly; at 0.38, within eps, stage 1 does, 0."""
    stages = [step(0.5), constant(1)]
    found = verified(stages, 0.45, 1)
    assert (found.answer.stage, found.answer.label, found.answer.predicted) == (2, 1, (0, 1))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, DISAGREE)
    assert answer(stages, 0.38) == (1, 0)


@pytest.mark.parametrize(
    ("stages", "x", "label", "verdict", "reason", "stage"),
    [
        ([step(0.5), constant(1)], 0.55, 1, "verified", "", 2),
        ([step(0.5), constant(1)], 0.75, 1, "verified", "", 1),
        ([step(0.5), constant(1)], 0.75, 0, "falsified", "stage 1 is certified for class 1", 1),
        ([step(0.5), constant(1)], 0.25, 0, "unknown", DISAGREE, 1),
        ([step(0.5), step(0.45)], 0.5, 1, "unknown", NO_CERTIFICATE, None),
        ([step(0.5)], 0.55, 0, "unknown", NO_CERTIFICATE, None),
        ([constant(0)], 0.55, 0, "verified", "", 1),
        # A tie at the input is no class, and proves nothing.
        ([step(0.5), constant(1)], 0.5, 1, "unknown", DISAGREE, 2),
    ],
)  # fmt: skip
def test_verdicts_by_hand(
    stages: list[Network], x: float, label: int, verdict: str, reason: str, stage: int | None
) -> None:
    found = verified(stages, x, label)
    assert (found.verdict.value, found.reason, found.answer.stage) == (verdict, reason, stage)
    if verdict == "verified":
        assert found.answer.tried[-1].certificate is not None
        assert all(point.certificate is not None for point in found.points.values())
        assert sorted([*found.points, stage]) == list(range(1, len(stages) + 1))


def brute_answers(stages: list[Network], points: Points, grid: Points, inside: Callable[[Points], Any]) -> list[Any]:
    """What a cascade answers at each point if every stage is certified wherever a grid of the ball has one class.

    The grid proves nothing, so that this certifies more than any sound method on balls that the grid fills, and
    each ball's grid holds the inputs from which its center is reached.
    """
    found = []
    for point in points:
        around = point + grid
        around = around[inside(around)]
        classes = [stage.forward(torch.as_tensor(around)).argmax(1).unique().tolist() for stage in stages]
        found.append(next((c[0] for c in classes if len(c) == 1), None))
    return found


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("clip", [None, ("-0.75", "0.75")])
def test_verified_means_no_wrong_answer_in_the_ball(norm: str, clip: tuple[str, str] | None) -> None:
    """Inputs, points of balls and grids lie on one lattice of a power of two, where differences are exact."""
    stages = [dense(seed, 2, 8, 3).to(torch.float64) for seed in (1, 4, 9)]
    # Near each other, so that they mostly agree, and not always.
    first = stages[0]
    stages[1:] = [Network(tuple(map(_mixed, first.nodes, other.nodes))) for other in stages[1:]]
    unit, reach = 1 / 32, 4
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1) * unit] * 2), -1).reshape(-1, 2)
    order = {"inf": np.inf, "2": 2, "1": 1}[norm]
    grid = offsets[np.linalg.norm(offsets, order, axis=1) <= reach * unit]
    limit = np.inf if clip is None else 0.75

    def inside(points: Points) -> Any:
        return (np.abs(points) <= limit).all(1)

    x = np.random.default_rng(3).integers(-24, 25, (40, 2)) * unit
    settings = Settings(str(reach * unit), norm, clip, method="crown")
    seen = set()
    with Cascade(stages, settings) as cascade:
        labels = np.array([r.predicted[0] for r in cascade.predict(x)])
        labels[::7] = (labels[::7] + 1) % 3
        for row, label, found in zip(x, labels.tolist(), cascade.verify(x, labels), strict=True):
            seen.add((found.verdict.value, found.reason[:5]))
            near = row + grid
            near = near[inside(near)]
            brute = brute_answers(stages, near, grid, inside)
            if found.verdict is Verdict.VERIFIED:
                assert set(brute) <= {label, None}
                # The cascade as it is, asked at some of the points; at x itself it answers.
                assert {a.label for a in cascade.predict(near[::9])} <= {label, None}
                assert brute_answers(stages, row[None], grid, inside) == [label]
            elif found.verdict is Verdict.FALSIFIED:
                assert next(cascade.predict(row[None])).label != label
                witness = found.points[found.answer.stage or 0].counterexample
                assert witness is not None and (witness.x == row).all()
            elif found.reason == NO_CERTIFICATE:
                assert next(cascade.predict(row[None])).label is None
    assert {("verified", ""), ("falsified", "stage"), ("unknown", "no ce"), ("unknown", "stage")} <= seen


def _mixed(a: Any, b: Any) -> Any:
    """A node between two of the same kind, nearer to the first."""
    if not hasattr(a, "bias"):
        return a
    (one,), (two,) = a.maps, b.maps
    return type(a)(a.inputs, (type(one)(one.weight + 0.25 * two.weight),), a.bias + 0.25 * b.bias, a.shape)


def test_an_input_outside_the_clip_is_refused() -> None:
    with pytest.raises(DataError, match=r"inside --clip 0 0\.5"):
        verified([constant(0)], 0.55, 0, clip=("0", "0.5"))
    assert verified([constant(0)], 0.5, 0, clip=("0", "0.5")).verdict is Verdict.VERIFIED


def test_the_error_of_a_cascade_counts_missing_and_wrong_answers() -> None:
    stages, x = [step(0.5), step(0.45)], np.array([[0.75], [0.5], [0.25], [0.58]])
    tally = CascadeTally(2)
    with Cascade(stages, Settings("0.1", method="crown")) as cascade:
        for found in cascade.verify(x, np.array([1, 1, 1, 1])):
            tally.add(found)
    summary = tally.summary()
    assert [summary[k] for k in ("certified_right", "no_certificate", "certified_wrong")] == [2, 1, 1]
    assert (summary["error"], summary["robust_error_upper"], summary["answers_by_stage"]) == (0.5, 0.5, [2, 1])
    assert [summary[verdict.value] for verdict in Verdict] == [2, 1, 1]
    assert CascadeTally(1).summary()["error"] is None


@pytest.fixture(scope="module")
def cascade_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits by the shipped network with all its weights moved a little, then by itself, with shifted classes."""
    folder = tmp_path_factory.mktemp("cascade")
    tensors, generator = load_file(DIGITS), torch.Generator().manual_seed(0)
    header = {"arch": ARCH, "input_shape": "[1, 8, 8]"}
    moved = {k: t + 0.1 * t.abs().mean() * torch.randn(t.shape, generator=generator) for k, t in tensors.items()}
    save_file(tensors, folder / "a.safetensors", header)
    save_file(moved, folder / "b.safetensors", header)
    turned = {k: t.roll(1, 0) if k.startswith("7.") else t for k, t in tensors.items()}
    save_file(turned, folder / "c.safetensors", header)
    (folder / "good.toml").write_text('stages = ["b.safetensors", "a.safetensors"]\n')
    (folder / "odd.toml").write_text('stages = ["a.safetensors", "c.safetensors"]\n')
    (folder / "bad.toml").write_text('stages = ["c.safetensors", "a.safetensors"]\n')
    return folder


ASK = ["--data", "digits", "--index", "60:90", "--eps", "0.1", "--clip", "0", "1", "--method", "crown"]


def test_the_command_verifies_and_check_agrees(
    cascade_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["verify", str(cascade_file / "good.toml"), *ASK, "--out", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert summary["verified"] == sum(line["verdict"] == "verified" for line in lines) > 10
    assert summary["error"] == (30 - summary["certified_right"]) / 30 and min(summary["answers_by_stage"]) > 0
    for extra in ([], ["--exact"], ["--data", "digits"]):
        capsys.readouterr()
        assert main(["check", str(run), *extra]) == 0
        assert f"cascade: {summary['verified']} verified, {summary['falsified']} falsified" in capsys.readouterr().out
    # A stage's own run is one of detection.
    assert main(["check", str(run / "stages" / "1" / "answers")]) == 0
    assert "of 30; the claims are about the predicted classes" in capsys.readouterr().out
    assert main(["verify", str(cascade_file / "good.toml"), *ASK, "--out", str(run)]) == 2
    assert main(["verify", str(cascade_file / "good.toml"), *ASK, "--out", str(run), "--overwrite"]) == 0
    assert main(["check", str(run)]) == 0
    (run / "stages" / "1" / "notes.txt").write_text("mine")
    assert main(["verify", str(cascade_file / "good.toml"), *ASK, "--out", str(run), "--overwrite"]) == 2
    assert (run / "stages" / "1" / "notes.txt").exists() and (run / "results.jsonl").exists()


def test_stages_that_disagree_verify_nothing(cascade_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ask = ["verify", str(cascade_file / "odd.toml"), *ASK, "--out", str(run), "--fail-on", "verified"]
    assert main(ask) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["certified_right"] == summary["unknown_reasons"][DISAGREE] > 0 == summary["certified_wrong"]
    assert main(["check", str(run), "--data", "digits"]) == 0


def test_a_wrong_answer_is_falsified_by_a_certificate_and_a_witness(
    cascade_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    ask = ["verify", str(cascade_file / "bad.toml"), *ASK, "--out", str(run), "--fail-on", "falsified"]
    assert main(ask) == 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["falsified"] == summary["certified_wrong"] > 0 == summary["verified"]
    capsys.readouterr()
    assert main(["check", str(run), "--data", "digits"]) == 0
    assert f"cascade: 0 verified, {summary['falsified']} falsified" in capsys.readouterr().out


def relabel(run: Path, **change: Any) -> None:
    """Change the first verified line of a run."""
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    next(line for line in lines if line["verdict"] == "verified").update(change)
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def swap(run: Path) -> None:
    """Let stage 2 take stage 1's evidence."""
    (run / "stages" / "2").rename(run / "aside")
    (run / "stages" / "1").rename(run / "stages" / "2")
    (run / "aside").rename(run / "stages" / "1")


def drop_points(run: Path) -> None:
    """Forget what stage 2 says at the inputs."""
    for name in ("results.jsonl", "summary.json"):
        (run / "stages" / "2" / "points" / name).unlink()
    (run / "stages" / "2" / "points" / "results.jsonl").write_text("")


def drop_stage(run: Path) -> None:
    """Forget stage 2 altogether."""
    (run / "stages" / "2").rename(run.parent / "aside")


def other_input(run: Path) -> None:
    """Give two inputs' point certificates of stage 2 to each other."""
    lines = [json.loads(line) for line in (run / "stages/2/points/results.jsonl").read_text().splitlines()]
    first = lines[0]
    second = next(line for line in lines[1:] if line["label"] == first["label"])
    first["certificate"], second["certificate"] = second["certificate"], first["certificate"]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "stages/2/points/results.jsonl").write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: relabel(run, label=99), "has no certificate that says so"),
        (lambda run: relabel(run, stage=None), "with stage None"),
        (lambda run: relabel(run, stage=2), "stage 2 has no certificate that says so"),
        (lambda run: relabel(run, verdict="falsified"), "has no certificate that says so"),
        (lambda run: relabel(run, verdict="unknown"), "numbers of verified are not those"),
        (lambda run: relabel(run, index=10**6), "has no certificate that says so"),
        (swap, "its stages are not the 2 of the folder"),
        (drop_points, "nothing says so of stage 2 at the input"),
        (drop_stage, "its stages are not the 1 of the folder"),
        (other_input, "is about another input or another claim"),
    ],
)  # fmt: skip
def test_check_refuses_a_run_that_was_changed(
    cascade_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], message: str
) -> None:
    run = tmp_path / "run"
    assert main(["verify", str(cascade_file / "good.toml"), *ASK, "--out", str(run)]) == 0
    change(run)
    assert main(["check", str(run)]) == 7
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages = []", "expected the one key stages"),
        ("stages = [1]", "expected the one key stages"),
        ('stages = ["a.safetensors"]\neps = 1', "expected the one key stages"),
        ("stages = [", "not a readable cascade file"),
        ('stages = ["a.safetensors", "d.safetensors"]', "stages must agree"),
    ],
)
def test_a_file_that_is_no_cascade_is_refused(cascade_file: Path, text: str, message: str) -> None:
    file = cascade_file / "x.toml"
    file.write_text(text)
    save_file({"0.weight": torch.zeros(10, 4), "0.bias": torch.zeros(10)}, cascade_file / "d.safetensors")
    with pytest.raises(ModelError, match=message):
        read_cascade(file, load_model)


def test_a_cascade_takes_no_property(cascade_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(cascade_file / "good.toml"), "--vnnlib", "p.vnnlib"]) == 2
    assert "a cascade answers about examples" in capsys.readouterr().err
