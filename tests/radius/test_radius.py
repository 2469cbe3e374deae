"""Radii: proved below, claimed between, attacked above; failing and lying solvers cost an answer, never the order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS, enumerate_minimum, rescaled
from safetensors.torch import save_file

from lpverify.attack.exact import inside
from lpverify.bounds import LPBound, LPTightBound
from lpverify.certificate import exact, rigorous
from lpverify.certificate.claim import BallRegion, decimal
from lpverify.certificate.graph import PlainNetwork, parse_network
from lpverify.certificate.proof import decode, decode_witness
from lpverify.certificate.rigorous import Outcome
from lpverify.cli import main
from lpverify.errors import SolverError, SoundnessError, UsageError
from lpverify.network import Network
from lpverify.problem import Specification, ball
from lpverify.radius import radii as radii_module
from lpverify.radius.distortion import Distortion
from lpverify.radius.radii import radii
from lpverify.radius.search import TOLERANCE
from lpverify.result import RadiusResult
from lpverify.serialize import network_bytes
from lpverify.settings import Settings

NAMES = ("affine", "deep", "shared-affine", "affine-affine", "dead-units")
# Solvers in this process: the tests replace parts of it.
HERE = Settings("0.5", workers=0, dtype="float64")


def case(name: str, seed: int, count: int = 2) -> tuple[Network, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    network = NETWORKS[name](seed).to(torch.float64)
    x = torch.rand(count, network.input_size, generator=torch.Generator().manual_seed(seed)).double()
    return network, x.numpy(), network.forward(x).argmax(1).numpy()


def judged(network: Network, x: np.ndarray[Any, Any], found: RadiusResult, settings: Settings) -> RadiusResult:
    """The result, whose evidence is what it says and passes both checkers; radii in their order."""
    plain: PlainNetwork = parse_network(network_bytes(network))
    assert 0 <= found.certified <= float(settings.eps)
    assert (found.certificate is None) == (found.certified == 0)
    if found.certificate is not None:
        proof = decode(found.certificate)
        assert isinstance(proof.claim.region, BallRegion)
        assert decimal(proof.claim.region.eps) == Fraction(repr(found.certified))
        assert exact.check(plain, proof).accepted
        assert rigorous.check(rigorous.Network(plain), [proof])[0].accepted
    nearest = found.attacked if math.isnan(found.exact_upper) else found.exact_upper
    assert found.certified < nearest <= found.attacked or nearest == found.certified == 0
    assert (found.counterexample is None) == math.isinf(nearest)
    if found.counterexample is not None:
        witness = decode_witness(found.counterexample)
        assert isinstance(witness.claim.region, BallRegion)
        assert decimal(witness.claim.region.eps) == Fraction(repr(nearest)) <= decimal(settings.eps)
        assert exact.check_witness(plain, witness).accepted
        point = np.array(witness.x.values())
        assert inside(point, x, repr(nearest), settings.norm, settings.clip)
    return found


def results(name: str, seed: int, settings: Settings) -> list[RadiusResult]:
    network, x, y = case(name, seed)
    return [judged(network, x[i], found, settings) for i, found in enumerate(radii(network, x, y, settings))]


@pytest.mark.parametrize("clip", [None, ("0", "1")])
@pytest.mark.parametrize("name", NAMES)
def test_every_method_certifies_at_least_as_much_and_none_past_the_exact_radius(
    name: str, clip: tuple[str, str] | None
) -> None:
    for seed in (2, 3) if clip is None else (3,):
        settings = replace(HERE, clip=clip)
        methods = ("crown", "lp", "lp-tight", "milp")
        found = {m: results(name, seed, replace(settings, method=m)) for m in methods}
        for crown, lp, tight, milp in zip(*found.values(), strict=True):
            assert crown.certified <= lp.certified
            # Both are searched to a share of the radius only, and their certificates are rounded.
            assert lp.certified <= tight.certified * (1 + 3 * TOLERANCE)
            assert milp.certified == tight.certified
            assert tight.certified <= milp.exact_lower <= milp.exact_upper
            assert crown.attacked >= lp.attacked == tight.attacked == milp.attacked >= milp.exact_upper
            assert math.isnan(crown.exact_lower) and math.isnan(tight.exact_upper)
            # A counterexample at the solver's point, or none within the limit.
            assert milp.exact_lower == pytest.approx(min(milp.exact_upper, 0.5), rel=2e-5)
            assert crown.method == "crown" and not milp.reason


@pytest.mark.parametrize("name", ["deep", "shared-affine"])
def test_the_exact_radius_is_where_the_enumerated_minimum_is_zero(name: str) -> None:
    network, x, y = case(name, 3)
    for i, found in enumerate(radii(network, x, y, replace(HERE, method="milp"))):
        spec = Specification.label(torch.tensor([y[i]]), network.output_size)

        def least(eps: float, i: int = i, spec: Specification = spec) -> float:
            box = ball(torch.as_tensor(x[i : i + 1]), eps)
            ends = box.lower[0].numpy(), box.upper[0].numpy()
            return min(enumerate_minimum(network, *ends, c.numpy(), 0.0)[0] for c in spec.C[0])

        assert found.exact_upper < 0.5
        assert least(found.exact_lower * (1 - 1e-5)) > 0
        assert least(found.exact_upper) <= 1e-8


@pytest.mark.parametrize("method", ["crown", "lp", "lp-tight", "milp"])
def test_a_radius_ends_at_the_limit(method: str) -> None:
    network, x, y = case("deep", 1)
    for i, found in enumerate(radii(network, x, y, replace(HERE, eps="0.003", method=method))):
        judged(network, x[i], found, replace(HERE, eps="0.003"))
        assert 0.003 * (1 - 2 * TOLERANCE) <= found.certified <= 0.003
        assert math.isinf(found.attacked) and not found.reason
        if method == "milp":
            assert found.exact_lower == 0.003 and math.isinf(found.exact_upper)


@pytest.mark.parametrize("method", ["crown", "lp", "lp-tight", "milp"])
def test_a_misclassified_input_has_radius_0(method: str) -> None:
    network, x, y = case("deep", 2)
    wrong = (y + 1) % network.output_size
    for i, found in enumerate(radii(network, x, wrong, replace(HERE, method=method))):
        judged(network, x[i], found, HERE)
        assert found.certified == found.attacked == 0 and found.certificate is None
        assert found.counterexample is not None


@pytest.mark.parametrize("k", [-17, 17])
@pytest.mark.parametrize("method", ["lp-tight", "milp"])
def test_powers_of_two_between_layers_change_little(method: str, k: int) -> None:
    network, x, y = case("deep", 3)
    settings = replace(HERE, method=method)
    twin = rescaled(network, 1, k)
    for one, other in zip(radii(network, x, y, settings), radii(twin, x, y, settings), strict=True):
        judged(twin, x[0] if one.index == 0 else x[1], other, settings)
        assert other.certified == pytest.approx(one.certified, rel=2 * TOLERANCE)
        assert other.attacked == pytest.approx(one.attacked, rel=1e-6)
        if method == "milp":
            assert other.exact_lower == pytest.approx(one.exact_lower, rel=1e-5)


@pytest.mark.parametrize("norm", ["1", "2"])
def test_other_norms(norm: str) -> None:
    """l2 has a cone, which solvers of MILPs do not know: CROWN certifies, and the exact radius is by tangents."""
    settings = replace(HERE, eps="0.9", norm=norm, clip=("0", "1"), method="milp")
    for found in results("deep", 3, settings):
        assert 0 < found.certified <= found.exact_lower
        assert found.exact_lower == pytest.approx(found.exact_upper, rel=2e-5)
        assert found.reason == "" and (found.method == "crown" or norm == "1")


@pytest.mark.parametrize("method", ["lp", "lp-tight"])
def test_a_cone_that_a_backend_does_not_know_is_refused_before_the_run(method: str) -> None:
    network, x, y = case("deep", 3)
    with pytest.raises(UsageError, match="cannot handle a second-order cone"):
        list(radii(network, x, y, replace(HERE, norm="2", method=method)))


def test_workers_answer_as_this_process_does() -> None:
    settings = replace(HERE, method="milp")
    network, x, y = case("deep", 3)
    alone, together = (list(radii(network, x, y, replace(settings, workers=n))) for n in (0, 2))
    for one, other in zip(alone, together, strict=True):
        assert one.certificate == other.certificate and one.counterexample == other.counterexample
        assert one.certified == other.certified and one.exact_lower == other.exact_lower > 0


def failing(*arguments: Any, **options: Any) -> Any:
    raise SolverError("backend highs: broken")


def test_a_solver_that_fails_leaves_crown_s_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results("deep", 3, replace(HERE, method="crown"))
    monkeypatch.setattr(LPTightBound, "bound", failing)
    monkeypatch.setattr(LPTightBound, "tightened_root", failing)
    for found, crown in zip(results("deep", 3, replace(HERE, method="milp")), expected, strict=True):
        assert found.certified == crown.certified and found.certificate == crown.certificate
        assert found.reason.count("broken") == 2 and found.method == "crown" and math.isnan(found.exact_lower)


def too_good(method: type[LPBound] | type[LPTightBound], gain: float) -> Callable[..., Any]:
    honest = method.bound

    def bound(self: Any, *arguments: Any) -> Any:
        found = honest(self, *arguments)
        return replace(found, margins=found.margins + gain)

    return bound


@pytest.mark.parametrize("gain", [0.05, 1e9, math.nan, -math.inf])
def test_margins_that_a_solver_invents_are_not_certified(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    honest = results("deep", 3, replace(HERE, method="lp"))
    crown = results("deep", 3, replace(HERE, method="crown"))
    monkeypatch.setattr(LPBound, "bound", too_good(LPBound, gain))
    for found, before, least in zip(results("deep", 3, replace(HERE, method="lp")), honest, crown, strict=True):
        assert least.certified <= found.certified <= before.certified * (1 + 2 * TOLERANCE)
        if gain > 0:
            assert found.reason.startswith("uncertified: lp claims radius")


POINTS: dict[str, Callable[[Distortion], Distortion]] = {
    "far bound": lambda found: replace(found, bound=0.49),
    "wrong point": lambda found: replace(found, point=np.full_like(found.point, 0.5), distance=1e-3),
    "NaN point": lambda found: replace(found, point=np.full_like(found.point, np.nan)),
    "no point": lambda found: replace(found, point=None, distance=math.inf),
}


@pytest.mark.parametrize("lie", POINTS)
def test_what_a_milp_invents_stays_a_claim(monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    tight = results("deep", 3, replace(HERE, method="lp-tight"))
    answer = radii_module.LeastDistortion.__call__
    monkeypatch.setattr(radii_module.LeastDistortion, "__call__", lambda self, net: POINTS[lie](answer(self, net)))
    for found, before in zip(results("deep", 3, replace(HERE, method="milp")), tight, strict=True):
        assert found.certified == before.certified and found.attacked == before.attacked
        assert before.certified < found.exact_upper <= before.attacked
        assert (lie == "far bound") == ("a counterexample is nearer" in found.reason)


def test_a_counterexample_inside_a_certified_radius_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lying method and a checker that accepts everything, against the solver's counterexample."""
    network, x, y = case("deep", 3)
    monkeypatch.setattr(LPTightBound, "bound", too_good(LPTightBound, 0.1))
    monkeypatch.setattr(radii_module.rigorous, "check", lambda checker, proofs: [Outcome(True, np.ones(2), "")])
    with pytest.raises(SoundnessError, match="is certified, but a counterexample is at distance"):
        list(radii(network, x, y, replace(HERE, method="milp")))


def test_the_run_folder_holds_the_evidence_of_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line on a worker process, its table and its check; and what a changed line is refused for."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    file, data, run = tmp_path / "model.safetensors", tmp_path / "data.npz", tmp_path / "run"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    x = torch.rand(3, 4)
    y = model(x).argmax(1)
    y[2] = (y[2] + 1) % 3
    np.savez(data, x=x.numpy(), y=y.numpy())
    ask = ["radius", str(file), "--data", str(data), "--clip", "0", "1", "--max-eps", "0.9", "--method", "milp"]
    assert main([*ask, "--workers", "1", "--out", str(run)]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "claimed: nothing fails nearer, in a solver's word; not proved" in table and "│ nearest │" in table
    lines = [json.loads(line) for line in (run / "radii.jsonl").read_text().splitlines()]
    for line in lines[:2]:
        assert 0 < line["certified"] <= line["exact_lower"] <= line["exact_upper"] <= line["attacked"]
        assert line["method"] in ("crown", "lp-tight") and line["reason"] == ""
    assert lines[2]["certified"] == lines[2]["exact_upper"] == 0 and lines[2]["certificate"] is None
    content = json.loads((run / "summary.json").read_text())
    assert content["certified"]["count"] == 2 and content["claimed"]["count"] == content["nearest"]["count"] == 3
    assert main(["check", str(run), "--data", str(data)]) == 0
    report = capsys.readouterr().out
    assert "certificates accepted: 2" in report and "counterexamples accepted: 3" in report
    for name, factor, message in (("certified", 1.01, "proves radius"), ("exact_upper", 0.99, "is for radius")):
        changed = [{**line, name: line[name] * factor} for line in lines]
        (run / "radii.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
        assert main(["check", str(run)]) == 7
        assert message in capsys.readouterr().err
