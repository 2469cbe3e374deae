"""Lists of VNN-LIB instances: reading, families, and the sample that all scripts share (standard library only)."""

from __future__ import annotations

import argparse
import csv
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The names of the first three columns; a competition's file has these and no header.
COLUMNS = ("onnx", "vnnlib", "timeout")


@dataclass(frozen=True)
class Instance:
    """One network with one property.

    Attributes:
        onnx, vnnlib: as the list writes them, relative to ``folder``.
        timeout: seconds that its benchmark allows.
        expected: ``sat``, ``unsat``, or empty where it is not known.
        folder: that of the list, absolute.
    """

    onnx: str
    vnnlib: str
    timeout: float
    expected: str
    folder: Path

    @property
    def family(self) -> str:
        """The folder that holds the folder ``onnx``; without such a folder that of the list."""
        folders = (self.folder / self.onnx).parent.parts
        return folders[folders.index("onnx") - 1] if "onnx" in folders else self.folder.name

    @property
    def model(self) -> Path:
        """The network's file."""
        return _present(self.folder / self.onnx)

    @property
    def property_file(self) -> Path:
        """The VNN-LIB file."""
        return _present(self.folder / self.vnnlib)


def _present(path: Path) -> Path:
    """The file, or its compressed form where there is only that: the competitions list names without ``.gz``."""
    packed = path.with_name(path.name + ".gz")
    return packed if packed.is_file() and not path.is_file() else path


def read(path: Path) -> list[Instance]:
    """The instances of a list with or without a header.

    Raises:
        ValueError: for a line without the three columns or with a timeout that is no number.
    """
    with path.open(newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    header = list(COLUMNS)
    if lines and lines[0][: len(COLUMNS)] == header:
        header = lines.pop(0)
    found, folder = [], path.resolve().parent
    for line in lines:
        cells = dict(zip(header, line, strict=False))
        try:
            seconds = float(cells["timeout"])
        except (KeyError, ValueError):
            raise ValueError(f"{path}: {','.join(line)}: expected {','.join(COLUMNS)}") from None
        found.append(Instance(cells["onnx"], cells["vnnlib"], seconds, cells.get("verdict", ""), folder))
    return found


def sample(instances: Sequence[Instance], count: int, seed: int) -> list[Instance]:
    """At most ``count`` of each family, in the order given.

    What is drawn depends on the seed, the family's name and the set of its instances, not on the other families
    nor on the order of the list.
    """
    families: dict[str, list[Instance]] = {}
    for instance in instances:
        families.setdefault(instance.family, []).append(instance)
    drawn: set[Instance] = set()
    for family, members in families.items():
        ordered = sorted(members, key=lambda i: (i.onnx, i.vnnlib))
        # A string seeds by its SHA-512: the same draw in every Python version.
        drawn.update(random.Random(f"{seed} {family}").sample(ordered, min(count, len(ordered))))
    return [instance for instance in instances if instance in drawn]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which instances, and how long each."""
    data = Path(os.environ.get("LPVERIFY_SHARED", HERE.parents[1] / "shared" / "data"))
    parser.add_argument("--instances", type=Path, default=data / "instances.csv", help="the list")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds, if its own timeout is not less")
    parser.add_argument("--family", action="append", help="only this family, in the order given; repeatable")
    parser.add_argument("--sample", type=int, help="so many instances of each family, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)


def chosen(arguments: argparse.Namespace) -> list[Instance]:
    """The instances that the options of :func:`add_options` ask for.

    Raises:
        ValueError: if there is no such family.
    """
    found = read(arguments.instances)
    if arguments.sample is not None:
        found = sample(found, arguments.sample, arguments.seed)
    if not arguments.family:
        return found
    known = dict.fromkeys(instance.family for instance in found)
    for family in arguments.family:
        if family not in known:
            raise ValueError(f"no family {family}; {arguments.instances} has {', '.join(known)}")
    return [i for family in arguments.family for i in found if i.family == family]
