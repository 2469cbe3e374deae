"""What a part of the gate counts, wrong verdicts kept as files, and the report as JSON and text."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lpverify.network import Network
from lpverify.serialize import network_bytes


@dataclass(frozen=True)
class Given:
    """What parts may need: the folder of shared data, and the Python of Marabou's environment, if there is one."""

    data: Path
    marabou: Path | None = None


@dataclass(eq=False)
class Tally:
    """The counts of one part.

    Attributes:
        name: of the part.
        target: how many items (networks, vectors, instances) the whole part has.
        seconds: a limit; ``over`` says that it is reached.
        folder: where the networks of wrong verdicts are saved.
        done: items asked.
        counts: of answers, by a name made of words and spaces.
        wrong: a line for each wrong verdict.
        errors: a line for each error of the package that is no refusal.
        faults: a line for each other exception.
    """

    name: str
    target: int
    seconds: float
    folder: Path
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> float:
        """Seconds since the part began."""
        return time.perf_counter() - self.began

    @property
    def over(self) -> bool:
        """Whether the time is spent."""
        return self.spent > self.seconds

    def accuse(self, network: Network, message: str) -> None:
        """A wrong verdict: the line, and the network's file to try it again."""
        path = self._keep(network, f"{self.name}-{len(self.wrong)}")
        self.wrong.append(f"{message}; network: {path}")
        print(f"WRONG {self.wrong[-1]}", flush=True)

    def fault(self, network: Network, message: str) -> None:
        """An exception that no user should see: counted, with the network to try it again."""
        path = self._keep(network, f"{self.name}-fault-{len(self.faults)}")
        self.faults.append(f"{message}; network: {path}")
        print(f"FAULT {self.faults[-1]}", flush=True)

    def _keep(self, network: Network, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.lpnet"
        path.write_bytes(network_bytes(network))
        return path

    def entry(self, about: str) -> dict[str, Any]:
        """The part in the report; ``about`` names machine, versions and commit."""
        return {
            "items": self.done, "target": self.target, "complete": self.done >= self.target,
            "wrong": self.wrong, "faults": self.faults, "errors": sorted(set(self.errors)),
            "counts": dict(sorted(self.counts.items())), "seconds": round(self.spent), "machine": about,
        }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The parts that a report has; none without the file."""
    found: dict[str, Any] = json.loads(path.read_text())["parts"] if path.is_file() else {}
    return found


def write(path: Path, parts: dict[str, Any]) -> None:
    """The report of all parts that were run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"wrong": sum(len(part["wrong"]) for part in parts.values()), "parts": parts}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(temporary, path)


def text(parts: dict[str, Any]) -> str:
    """The report to be read."""
    lines = []
    for name, part in parts.items():
        whole = "all" if part["complete"] else "NOT ALL"
        lines.append(f"{name}: {part['items']} of {part['target']} ({whole}), {len(part['wrong'])} wrong, "
                     f"{len(part.get('faults', ()))} faults, "
                     f"{len(part['errors'])} kinds of error, {part['seconds']} s")  # fmt: skip
        lines += [f"    {count:>8}  {what}" for what, count in part["counts"].items()]
        lines += [f"    WRONG {line}" for line in part["wrong"]]
        lines += [f"    FAULT {line}" for line in part.get("faults", ())]
        lines += [f"    ERROR {line}" for line in part["errors"]]
    return "\n".join(lines)
