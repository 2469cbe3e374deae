"""The page and its command: what it says, what hostile text cannot do, equal bytes, refusals."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_kinds import line, page_of, read, write_run

from lpverify.cli import main
from lpverify.report.page import MARK, render

Captured = pytest.CaptureFixture[str]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}'\"&$\\frac{1}$\u2028]]>--><!--"


class Parsed(HTMLParser):
    """The elements, the texts and the contents of scripts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open == "script" else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def text_of(*runs: Path, check: bool = True) -> str:
    return Parsed(page_of(*runs, check=check).decode()).text


def test_the_page_says_what_the_run_found(runs: dict[str, Path]) -> None:
    report = read(runs["verify"])
    text = text_of(runs["verify"])
    for verdict, count in report.verdicts.items():
        assert f"{count} {verdict} {100 * count / 6:.2f} %" in text
    question = "Does the network give each input's label to every input within 0.05 of it (norm l∞, clipped to 0 to 1)?"
    assert question in text
    assert f"{report.verdicts['verified']} certificates accepted (rigorous float64)" in text
    assert "The robust error lies between 33.33 % and 50.00 %" in text
    assert "not checked" not in text and "was not checked" in text_of(runs["verify"], check=False)


@pytest.mark.parametrize("name", ["verify", "attack", "detect", "radius", "cascade", "property"])
def test_every_kind_has_a_page_of_its_own_that_loads_nothing(runs: dict[str, Path], name: str) -> None:
    page = page_of(runs[name]).decode()
    found = Parsed(page)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and "{{" not in found.text
    for tag, attributes in found.elements:
        assert tag not in ("object", "iframe", "embed", "base") and not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    assert {"svg", "style", "script"} <= {tag for tag, _ in found.elements}
    drawn = [attributes for tag, attributes in found.elements if tag == "svg" and attributes.get("role") == "img"]
    assert all("aria-labelledby" in a or a.get("aria-label") for a in drawn)
    assert all(a.get("alt") for tag, a in found.elements if tag == "img")


def test_what_a_run_went_on_after_is_said(runs: dict[str, Path], tmp_path: Path) -> None:
    note = "out of memory at batch size 4: went on with 2"
    run = write_run(tmp_path / "run", runs["verify"], [line(0)], notes=[note])
    assert f"What the run went on after {note}" in text_of(run, check=False)
    assert "went on after" not in text_of(runs["verify"], check=False)


def test_hostile_text_stays_text(runs: dict[str, Path], tmp_path: Path) -> None:
    lines = [line(i, method=HOSTILE, reason=HOSTILE, predicted=HOSTILE) for i in range(3)]
    options = dict.fromkeys(("eps", "norm", "method", "model", HOSTILE), HOSTILE) | {"clip": [HOSTILE]}
    run = write_run(
        tmp_path / "a & <b> '\"", runs["verify"], lines, options=options, stopped=HOSTILE, versions={HOSTILE: HOSTILE},
        data={"source": HOSTILE, "sha256": HOSTILE}, seconds={HOSTILE: 1}, device=HOSTILE, notes=[HOSTILE],
    )  # fmt: skip
    for page in (page_of(run, check=False).decode(), page_of(run, runs["verify"], check=False).decode()):
        found = Parsed(page)
        assert "onerror" not in {key for _, attributes in found.elements for key in attributes}
        ours = [attributes for tag, attributes in found.elements if tag == "script"]
        assert all(a == {} or a["type"] == "application/json" for a in ours) and sum(a == {} for a in ours) == 1
        assert len(found.scripts) == len(ours) and "a & <b> '\"" in found.text and "{{ 7*7 }}" in found.text
        rows = json.loads(found.scripts[-2] if page.count('"method"') == 1 else found.scripts[0])["rows"]
        assert any(" ".join(HOSTILE.split()) in row for row in rows)


def test_equal_runs_give_equal_bytes(runs: dict[str, Path]) -> None:
    chosen = [runs["verify"], runs["larger"], runs["radius"]]
    assert page_of(*chosen) == render([read(run) for run in chosen])
    assert page_of(*chosen).decode().startswith(MARK)


def test_several_runs_stand_side_by_side(runs: dict[str, Path]) -> None:
    text = text_of(*runs.values())
    assert "The runs side by side" in text and "eps ≠ 0.05 0.1 0.05 0.05 up to 1 0.05" in text
    assert "Contradiction" not in text and "run G" in text
    same = text_of(runs["verify"], runs["verify"])
    assert "on 6 shared examples all verdicts are the same" in same and "≠ " not in same.replace("marked with ≠.", "")


def test_the_command_writes_replaces_and_refuses(runs: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    out, run = tmp_path / "report.html", str(runs["verify"])
    assert main(["report", run, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out}\n"
    first = out.read_bytes()
    assert main(["report", run, "--out", str(out)]) == 0 and out.read_bytes() == first
    assert main(["report", run, "--out", str(out), "--no-check", "--images", "0"]) == 0
    assert b"<figure class=\"counterexample\"" in first and b"<figure class=\"counterexample\"" not in out.read_bytes()
    other = tmp_path / "notes.html"
    other.write_text("mine")
    capsys.readouterr()
    for arguments, message in [
        ([run, "--out", str(other)], "exists and is no report; choose another file or pass --overwrite"),
        ([run, "--out", str(tmp_path)], "is a folder"),
        ([run, "--out", str(tmp_path / "no" / "r.html")], "its folder does not exist"),
        ([str(tmp_path), "--out", str(out)], "no results.jsonl there"),
        ([str(tmp_path / "none"), "--out", str(out)], "does not exist"),
        (["--out", str(out)], "Missing argument"),
    ]:
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert other.read_text() == "mine"
    assert main(["report", run, "--out", str(other), "--overwrite"]) == 0 and other.read_text().startswith(MARK)


def test_rejected_evidence_ends_the_command(runs: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    run = write_run(tmp_path / "run", runs["verify"], [line(3, verdict="verified")])
    out = tmp_path / "r.html"
    assert main(["report", str(run), "--out", str(out)]) == 7 and not out.exists()
    assert "verified without a certificate file" in capsys.readouterr().err


def test_a_contradiction_is_shown_and_is_an_error(runs: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    label = int(read(runs["verify"], check=False).values("label")[0] or 0)
    forged = write_run(tmp_path / "forged", runs["verify"], [line(10, verdict="falsified", label=label)])
    out = tmp_path / "r.html"
    assert main(["report", str(runs["verify"]), str(forged), "--no-check", "--out", str(out)]) == 6
    error = capsys.readouterr().err
    assert "contradict each other about example 10" in error and error.count("\n") == 1
    text = Parsed(out.read_text()).text
    assert "Contradiction" in text and "verified at eps 0.05 by run A, falsified at eps 0.05 by run B" in text
    assert "not all of the evidence was checked" in text
