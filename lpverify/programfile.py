"""Programs as files: free-format MPS and CPLEX LP, written so that every float64 is read back bit for bit.

What readers make of these formats differs; the files keep to what HiGHS, SCIP, Gurobi and CBC read alike:

- Rows without bounds constrain nothing and are left out.
- A row with two bounds is an MPS range where the reader's sum gives both bounds exactly, else two rows, the second
  one's name ending in ``_up``. No reader takes ``-1 <= x + y <= 2`` from an LP file, so that there it is two rows.
- The objective's constant is in MPS the negative right-hand side of the objective. In LP files it is the cost of a
  column ``constant`` fixed at 1: Gurobi reads a bare number in the objective as a variable of that name.
- A name that a reader could take for a number, a keyword or a section is changed (``safe_names``).

Readers have tolerances of their own: HiGHS and SCIP drop entries of at most 1e-9, Gurobi those below 1e-13.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from lpverify.errors import ProgramError, ResourceError, UsageError
from lpverify.program import Array, Program

SUFFIXES = (".mps", ".lp", ".mps.gz", ".lp.gz")
# Readers take bounds of at least this size for infinite.
INFINITE = 1e20
# Readers hold at least 255 characters of a line, and of a name.
LINE, NAME = 200, 100
OBJECTIVE, CONSTANT = "obj", "constant"
# A letter and digits, or something with an underscore: no keyword, and nothing that begins like a number.
SAFE = re.compile(r"(?!e|inf|nan)[a-z](\d*|\w*_\w*)", re.ASCII | re.IGNORECASE)


class _Row(NamedTuple):
    """A row of the file: which row of the program, sense E, G or L, right-hand side, and the width of an MPS range."""

    source: int
    name: str
    sense: str
    rhs: float
    width: float | None = None


def write_program(program: Program, path: Path, name: str = "program", comments: Sequence[str] = ()) -> None:
    """Write a program to a file, under a temporary name first.

    Args:
        path: ends in .mps, .lp, .mps.gz or .lp.gz; its folder is made if need be.
        name: of the program, in MPS files.
        comments: lines for people, at the head of the file.

    Raises:
        UsageError: for another ending.
        ProgramError: for a program with a cone, without columns, or with finite numbers of 1e20 or more, which
            readers take for infinite.
        ResourceError: if the disk refuses; an old file of that name is left as it was.
    """
    kind = file_kind(path)
    _check(program)
    mark, lines = ("*", _mps(program, name)) if kind == ".mps" else ("\\", _lp(program))
    with _replaced(path) as file:
        for comment in comments:
            plain = " ".join(comment.split()).encode("ascii", "backslashreplace").decode()
            file.writelines(f"{mark} {part}\n" for part in textwrap.wrap(plain, LINE))
        file.writelines(line + "\n" for line in lines)


def mps_bytes(program: Program, name: str = "program") -> bytes:
    """The bytes of a program's .mps.gz file.

    Raises:
        ProgramError: as ``write_program``.
    """
    _check(program)
    return gzip.compress("".join(line + "\n" for line in _mps(program, name)).encode("ascii"), 6, mtime=0)


def file_kind(path: Path) -> str:
    """The format that a path's ending asks for, ".mps" or ".lp".

    Raises:
        UsageError: for another ending.
    """
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind not in SUFFIXES:
        raise UsageError(f"{path}: a program's file must end in one of {', '.join(SUFFIXES)}")
    return kind


def safe_names(names: Sequence[str], count: int, letter: str, taken: Iterable[str] = ()) -> list[str]:
    """Names that every reader accepts, each once.

    Args:
        names: the wanted names, or none at all for letter0, letter1 and so on.
        count: how many there are.
        taken: names that are used already.
    """
    used, found = set(taken), []
    for index, wanted in enumerate(names or [f"{letter}{i}" for i in range(count)]):
        name = re.sub(r"\W", "_", wanted, flags=re.ASCII)[:NAME]
        name = name if SAFE.fullmatch(name) else f"{letter}_{name}"
        while name in used:
            name = f"{name}_{index}"
        used.add(name)
        found.append(name)
    return found


def _check(program: Program) -> None:
    if program.cone is not None:
        raise ProgramError("program: it has a second-order cone, which .mps and .lp files cannot hold")
    if not program.num_columns:
        raise ProgramError("program: it has no columns; there is nothing to write")
    parts = {
        "objective": program.objective,
        "offset": np.array([program.offset], dtype=np.float64),
        "A": program.A.data,
        **{part: getattr(program, part) for part in ("row_lower", "row_upper", "lower", "upper")},
    }
    for part, values in parts.items():
        large = values[np.isfinite(values) & (np.abs(values) >= INFINITE)]
        if len(large):
            raise ProgramError(f"program: {part} has {large[0]}, which readers take for infinite; scale the program")


def _rows(program: Program, *, ranges: bool) -> list[_Row]:
    """The rows of the file, in order."""
    names = safe_names(program.row_names, program.num_rows, "r", (OBJECTIVE,))
    rows, used = [], {OBJECTIVE, *names}
    bounds = zip(names, _plain(program.row_lower), _plain(program.row_upper), strict=True)
    for index, (name, low, high) in enumerate(bounds):
        if low == high:
            rows.append(_Row(index, name, "E", low))
        elif ranges and (found := _range(low, high)) is not None:
            rows.append(_Row(index, name, *found))
        else:
            if low > -np.inf:
                rows.append(_Row(index, name, "G", low))
            if high < np.inf:
                second = name if low == -np.inf else safe_names([f"{name}_up"], 1, "r", used)[0]
                used.add(second)
                rows.append(_Row(index, second, "L", high))
    return rows


def _range(low: float, high: float) -> tuple[str, float, float] | None:
    """Sense, right-hand side and width from which both bounds come out exactly, if there are any."""
    if not (low > -np.inf and high < np.inf):
        return None
    near = high - low
    for width in (near, float(np.nextafter(near, 0.0)), float(np.nextafter(near, np.inf))):
        if low + width == high:
            return "G", low, width
        if high - width == low:
            return "L", high, width
    return None


def _mps(program: Program, name: str) -> Iterator[str]:
    rows = _rows(program, ranges=True)
    columns = safe_names(program.column_names, program.num_columns, "c")
    yield f"NAME {safe_names([name], 1, 'p')[0]} FREE"
    yield "ROWS"
    yield f" N {OBJECTIVE}"
    yield from (f" {row.sense} {row.name}" for row in rows)
    yield "COLUMNS"
    yield from _mps_columns(program, rows, columns)
    yield "RHS"
    if program.offset:
        yield f" RHS {OBJECTIVE} {-float(program.offset)!r}"
    yield from (f" RHS {row.name} {row.rhs!r}" for row in rows if row.rhs)
    yield "RANGES"
    yield from (f" RNG {row.name} {row.width!r}" for row in rows if row.width is not None)
    yield "BOUNDS"
    lower, upper, integer = _plain(program.lower), _plain(program.upper), program.integer.tolist()
    for column, low, high, whole in zip(columns, lower, upper, integer, strict=True):
        yield from (f" {bound}" for bound in _mps_bounds(column, low, high, whole))
    yield "ENDATA"


def _mps_columns(program: Program, rows: list[_Row], columns: list[str]) -> Iterator[str]:
    matrix = program.A[[row.source for row in rows]].tocsc()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    starts, entries, costs = matrix.indptr.tolist(), _plain(matrix.data), _plain(program.objective)
    names = [rows[i].name for i in matrix.indices.tolist()]
    inside = False
    for j, (column, whole) in enumerate(zip(columns, program.integer.tolist(), strict=True)):
        if whole != inside:
            yield f" MARKER 'MARKER' '{'INTORG' if whole else 'INTEND'}'"
            inside = whole
        # A column that occurs nowhere must still be named here.
        if costs[j] or starts[j] == starts[j + 1]:
            yield f" {column} {OBJECTIVE} {costs[j]!r}"
        yield from (f" {column} {names[k]} {entries[k]!r}" for k in range(starts[j], starts[j + 1]))
    if inside:
        yield " MARKER 'MARKER' 'INTEND'"


def _mps_bounds(column: str, low: float, high: float, whole: bool) -> Iterator[str]:
    """The bounds of one column, the lower one first: an upper one alone may change a lower one of 0.

    Whole columns get both, as readers differ in what they take a missing one for.
    """
    if low == high:
        yield f"FX BND {column} {low!r}"
    elif low == -np.inf and high == np.inf:
        yield f"FR BND {column}"
    else:
        if low == -np.inf:
            yield f"MI BND {column}"
        elif low or whole:
            yield f"LO BND {column} {low!r}"
        if high < np.inf:
            yield f"UP BND {column} {high!r}"
        elif whole:
            yield f"PL BND {column}"


def _lp(program: Program) -> Iterator[str]:
    rows = _rows(program, ranges=False)
    columns = safe_names(program.column_names, program.num_columns, "c", (CONSTANT,))
    # The objective names every column, also at cost 0, so that readers keep their order.
    costs = zip(_plain(program.objective), columns, strict=True)
    constant = [(float(program.offset), CONSTANT)] if program.offset else []
    yield "Minimize"
    yield from _lp_sum(OBJECTIVE, [*costs, *constant])
    yield "Subject To"
    matrix = program.A.copy()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    starts, entries, indices = matrix.indptr.tolist(), _plain(matrix.data), matrix.indices.tolist()
    for row in rows:
        places = range(starts[row.source], starts[row.source + 1])
        terms = [(entries[k], columns[indices[k]]) for k in places] or [(0.0, columns[0])]
        yield from _lp_sum(row.name, terms)
        yield f"  {dict(E='=', G='>=', L='<=')[row.sense]} {row.rhs!r}"
    yield "Bounds"
    binary = program.integer & (program.lower == 0) & (program.upper == 1)
    bounds = zip(columns, _plain(program.lower), _plain(program.upper), binary.tolist(), strict=True)
    yield from (line for column, low, high, is_binary in bounds for line in _lp_bounds(column, low, high, is_binary))
    if constant:
        yield f" {CONSTANT} = 1.0"
    for heading, chosen in (("Generals", program.integer & ~binary), ("Binaries", binary)):
        if chosen.any():
            yield heading
            yield from _wrapped(columns[j] for j in np.flatnonzero(chosen))
    yield "End"


def _lp_sum(name: str, terms: Iterable[tuple[float, str]]) -> Iterator[str]:
    signed = (f"{'-' if value < 0 else '+'} {abs(value)!r} {column}" for value, column in terms)
    return _wrapped((f"{name}:", *signed))


def _lp_bounds(column: str, low: float, high: float, is_binary: bool) -> Iterator[str]:
    if is_binary or (low == 0 and high == np.inf):
        return
    if low == high:
        yield f" {column} = {low!r}"
    elif low == -np.inf and high == np.inf:
        yield f" {column} free"
    else:
        yield f" {low!r} <= {column} <= {high!r}" if high < np.inf else f" {column} >= {low!r}"


def _wrapped(words: Iterable[str]) -> Iterator[str]:
    """Words in lines that begin with a space and have at most about LINE characters."""
    line = ""
    for word in words:
        if len(line) + len(word) > LINE:
            yield line
            line = " "
        line += f" {word}"
    yield line


def _plain(values: Array) -> list[float]:
    """Python floats, whose repr is the shortest text that is read back exactly; -0.0 becomes 0.0."""
    plain: list[float] = (np.asarray(values, dtype=np.float64) + 0.0).tolist()
    return plain


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of ``path`` when all is written; compressed where the name ends in .gz."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as raw:
                zipped = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.name.lower().endswith(".gz") else raw
                with zipped, io.TextIOWrapper(zipped, encoding="ascii", newline="\n") as file:
                    yield file
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(f"{path}: cannot be written ({reason})") from error
