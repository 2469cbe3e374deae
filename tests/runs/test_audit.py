"""Re-checking a run: a true one passes, and every kind of tampering is named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import decode, decode_witness
from lpverify.data import load_data
from lpverify.errors import CertificateError, UsageError
from lpverify.evidence import claim_of
from lpverify.lowering import load_model
from lpverify.runs.audit import audit, open_run
from lpverify.runs.folder import RADII, RESULTS, SUMMARY, RunFolder
from lpverify.runs.summary import Tally, summary
from lpverify.serialize import network_file
from lpverify.settings import Settings
from lpverify.verify import verify_stream

MODEL = Path(__file__).resolve().parents[2] / "lpverify/assets/digits-demo.safetensors"
SETTINGS = Settings("0.11", clip=("0", "1"))
CHOSEN = range(40, 60)


@pytest.fixture(scope="module")
def true_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of real results on the digits, with verdicts of both kinds."""
    path, tally = tmp_path_factory.mktemp("true") / "run", Tally()
    network, data = load_model(MODEL), load_data("digits")
    stored, sha256 = network_file(network)
    assert data.y is not None
    x, y = data.x[CHOSEN], data.y[CHOSEN]
    with RunFolder(path) as run:
        run.write_network(stored, sha256)
        for i, result in enumerate(verify_stream(network, x, y, SETTINGS, list(CHOSEN))):
            run.add(result, claim_of(SETTINGS, x[i], int(y[i]), 10))
            tally.add(result)
        options = {"eps": "0.11", "norm": "inf", "clip": ["0", "1"], "semantics": "real"}
        run.write_summary(summary(tally, options=options, network={"sha256": sha256}))
    assert tally.verdicts["verified"] >= 3 and tally.verdicts["falsified"] >= 2
    return path


@pytest.fixture
def run(true_run: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(true_run, tmp_path / "run"))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run / RESULTS).read_text().splitlines()]


def write_lines(run: Path, records: list[dict[str, Any]]) -> None:
    (run / RESULTS).write_text("".join(json.dumps(record) + "\n" for record in records))


def first(run: Path, verdict: str) -> int:
    return next(i for i, record in enumerate(lines(run)) if record["verdict"] == verdict)


def edit(run: Path, which: str, /, **change: Any) -> None:
    records = lines(run)
    records[first(run, which)].update(change)
    write_lines(run, records)


def edit_summary(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((run / SUMMARY).read_text())
    change(content)
    (run / SUMMARY).write_text(json.dumps(content))


@pytest.mark.parametrize("exact", [False, True])
def test_a_true_run_passes(true_run: Path, exact: bool) -> None:
    opened = open_run(true_run)
    found = Counter(audit(opened, exact=exact, examples=load_data("digits")))
    verdicts = Counter(record["verdict"] for record in lines(true_run))
    assert found["certificate"] == verdicts["verified"] and found["witness"] == verdicts["falsified"]
    assert found["nothing"] == verdicts["unknown"]


def test_a_run_that_was_stopped_is_checked_without_its_summary(run: Path) -> None:
    (run / SUMMARY).unlink()
    write_lines(run, lines(run)[:5])
    assert len(list(audit(open_run(run)))) == 5


def claim_more(run: Path) -> None:
    """A falsified example is passed off as verified, with another example's certificate."""
    proved = lines(run)[first(run, "verified")]["certificate"]
    edit_summary(run, lambda s: s.update(verified=s["verified"] + 1, falsified=s["falsified"] - 1))
    edit(run, "falsified", verdict="verified", certificate=proved)


def weaken_center(run: Path) -> None:
    """The certificate is moved to the input of a falsified example, label and all."""
    good, bad = lines(run)[first(run, "verified")], lines(run)[first(run, "falsified")]
    path = run / good["certificate"]
    proof = decode(path.read_bytes())
    witness = decode_witness((run / bad["counterexample"]).read_bytes())
    path.write_bytes(replace(proof, claim=witness.claim).encode())
    edit(run, "verified", label=bad["label"])


def claim_larger_radius(run: Path) -> None:
    """All questions are rewritten to a radius at which the proofs do not hold."""
    for path in (run / "certificates").iterdir():
        proof = decode(path.read_bytes())
        claim = replace(proof.claim, region=replace(proof.claim.region, eps="0.9"))
        path.write_bytes(replace(proof, claim=claim).encode())
    edit_summary(run, lambda s: s["options"].update(eps="0.9"))
    records = [record for record in lines(run) if record["verdict"] == "verified"]
    edit_summary(run, lambda s: s.update(falsified=0, unknown=0))
    write_lines(run, records)


def move_witness(run: Path) -> None:
    """A witness outside the ball."""
    path = run / lines(run)[first(run, "falsified")]["counterexample"]
    witness = decode_witness(path.read_bytes())
    far = np.full(witness.x.shape, 0.5, dtype="<f8")
    path.write_bytes(replace(witness, x=RawArray("<f8", far.shape, far.tobytes())).encode())


def flip_weight(run: Path) -> None:
    data = bytearray((run / "network.lpnet").read_bytes())
    data[-1] ^= 1
    (run / "network.lpnet").write_bytes(bytes(data))


def repeat_line(run: Path) -> None:
    write_lines(run, [*lines(run), lines(run)[0]])


def tear_last_line(run: Path) -> None:
    (run / RESULTS).write_bytes((run / RESULTS).read_bytes()[:-20])


def swap_network_and_summary(run: Path) -> None:
    flip_weight(run)
    (run / SUMMARY).unlink()


TAMPERING: list[tuple[Callable[[Path], Any], str]] = [
    (claim_more, "its evidence is about label"),
    (weaken_center, r"rejected: row \d is not proved"),
    (claim_larger_radius, r"rejected: row \d is not proved"),
    (move_witness, "rejected"),
    (flip_weight, "its network is not network.lpnet"),
    (swap_network_and_summary, "its evidence names network"),
    (repeat_line, "the index comes twice"),
    (tear_last_line, "not JSON"),
    (lambda run: edit(run, "verified", certificate=None), "verified without a certificate file"),
    (lambda run: edit(run, "verified", certificate="../run/certificates/000040.lpcert"), "without a certificate file"),
    (lambda run: edit(run, "verified", certificate="certificates/none.lpcert"), "cannot be read"),
    (lambda run: edit(run, "verified", label=99), "the line's label is 99"),
    (lambda run: edit(run, "falsified", counterexample=None), "falsified without a counterexample file"),
    (lambda run: edit(run, "verified", verdict="unknown"), r"summary\.json: \d+ verified, but the results have"),
    (lambda run: edit(run, "verified", verdict="proved"), "verdict 'proved' is none"),
    (lambda run: edit_summary(run, lambda s: s["options"].update(eps="0.2")), "different questions"),
    (lambda run: edit_summary(run, lambda s: s["options"].update(clip=None)), "different questions"),
    (lambda run: edit_summary(run, lambda s: s["options"].update(semantics="float32")), "proves real semantics"),
    (lambda run: edit_summary(run, lambda s: s.update(network={})), "its network is not"),
    (lambda run: (run / "network.lpnet").unlink(), "cannot be read"),
    (lambda run: (run / SUMMARY).write_text("[]"), "not a JSON object"),
]


@pytest.mark.parametrize(("tamper", "message"), TAMPERING)
def test_tampering_is_named(run: Path, tamper: Callable[[Path], Any], message: str) -> None:
    tamper(run)
    with pytest.raises(CertificateError, match=message):
        list(audit(open_run(run)))


def test_another_examples_proof_is_noticed_with_the_data_at_hand(run: Path) -> None:
    records = lines(run)
    records[0]["index"], records[1]["index"] = records[1]["index"], records[0]["index"]
    write_lines(run, records)
    with pytest.raises(CertificateError, match=f"not about input {records[0]['index']} of digits"):
        list(audit(open_run(run), examples=load_data("digits")))


def test_a_folder_without_results_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no results\.jsonl there"):
        open_run(tmp_path)


def test_a_folder_is_a_run_of_one_kind(run: Path) -> None:
    """Radii are compared with their own lines only: a file of radii must not make the run's eps unread."""
    (run / RADII).write_text("")
    with pytest.raises(CertificateError, match=f"holds both {RESULTS} and {RADII}"):
        open_run(run)
