"""What a VNN-LIB file says: the claims that its unsafe set is empty, one for each box of inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from lpverify.certificate.claim import Claim, ClauseRows, Inequality, RationalBox
from lpverify.vnnlib.formula import Part, Ranges
from lpverify.vnnlib.terms import require_common
from lpverify.vnnlib.work import Work


@dataclass(frozen=True)
class Tensor:
    """The input or the output as declared.

    Attributes:
        name: "X" or "Y" in VNN-LIB 1.0, the declared name in 2.0.
        kind: the element type as written, such as "Real" or "float32".
        shape: sizes, () for a scalar; elements are counted row by row.
        indexed: whether elements are written name[i,j] (2.0) and not name_i (1.0).
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    indexed: bool

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The elements as a file writes them, in order."""
        if not self.indexed:
            return tuple(f"{self.name}_{index}" for index in range(self.size))
        if not self.shape:
            return (self.name,)
        return tuple(f"{self.name}[{','.join(map(str, index))}]" for index in product(*map(range, self.shape)))


@dataclass(frozen=True)
class Property:
    """A VNN-LIB file: its unsafe set is empty iff every claim holds on all points of its box that ``inside`` admits.

    Attributes:
        x: the input, of n_0 elements.
        y: the output, of n_K elements.
        claims: one for each distinct box, in order of appearance; none if no input is unsafe.
        open_faces: for each claim the sides of its box that the file leaves out by < or >, as (input, upper side).
        version: "1.0", or the version that the file states.
        sha256: of the decompressed file, in hexadecimal.
    """

    x: Tensor
    y: Tensor
    claims: tuple[Claim, ...]
    open_faces: tuple[tuple[tuple[int, bool], ...], ...]
    version: str
    sha256: str

    @property
    def inputs(self) -> int:
        """Number of inputs n_0."""
        return self.x.size

    @property
    def outputs(self) -> int:
        """Number of outputs n_K."""
        return self.y.size

    def inside(self, claim: int, point: Sequence[Fraction | float]) -> bool:
        """Whether ``point`` lies in the box of claim number ``claim``, and on no face that the file leaves out.

        A proof for the closed box is a proof for the open one; a counterexample of the file must be ``inside``.
        """
        box = self.claims[claim].region
        assert isinstance(box, RationalBox)
        closed = all(low <= x <= high for low, x, high in zip(box.lower, point, box.upper, strict=True))
        return closed and all(
            point[index] != (box.upper if upper else box.lower)[index] for index, upper in self.open_faces[claim]
        )

    def summary(self) -> str:
        """One line: sizes, number of boxes, clauses and rows."""
        clauses = sum(len(claim.clauses) for claim in self.claims)
        rows = sum(claim.num_rows for claim in self.claims)
        return (
            f"VNN-LIB {self.version}, {self.inputs} inputs, {self.outputs} outputs, "
            f"boxes {len(self.claims)}, clauses {clauses}, rows {rows}"
        )


Box = tuple[RationalBox, tuple[tuple[int, bool], ...]]


class Unbounded(Exception):
    """An input without both bounds: its number, and the side that is missing."""

    def __init__(self, index: int, side: str) -> None:
        super().__init__(index, side)
        self.index, self.side = index, side


def merged(
    parts: Sequence[Part], inputs: int, outputs: int, work: Work
) -> tuple[tuple[Claim, ...], tuple[tuple[tuple[int, bool], ...], ...]]:
    """The claims of a union of parts, and their open faces: one claim for each box, one clause for each polytope.

    Raises:
        Unbounded: if an input has no lower or no upper bound in a part.
        Refused: if the boxes are too many or too long.
    """
    boxes: dict[int, Box] = {}
    claims: dict[Box, dict[tuple[Inequality, ...], None]] = {}
    clauses: dict[int, dict[tuple[Inequality, ...], None]] = {}
    for part in parts:
        key = id(part.box)
        if key not in boxes:
            work.spend(inputs if len(boxes) else 0)
            boxes[key] = _closed(part.box, inputs)
            clauses[key] = claims.setdefault(boxes[key], {})
        clauses[key].setdefault(tuple(dict.fromkeys(part.rows)))
    built = tuple(Claim(box, ClauseRows(outputs, tuple(found))) for (box, _), found in claims.items())
    return built, tuple(faces for _, faces in claims)


def _closed(box: Ranges, inputs: int) -> Box:
    """The closed box with the faces that are not in ``box``."""
    lower, upper, faces = [], [], []
    for index in range(inputs):
        found = box.get(index)
        if found is None or found.lower is None or found.upper is None:
            raise Unbounded(index, "lower" if found is None or found.lower is None else "upper")
        lower.append(found.lower)
        upper.append(found.upper)
        if found.lower_open:
            faces.append((index, False))
        if found.upper_open:
            faces.append((index, True))
    require_common(lower + upper)
    return RationalBox(tuple(lower), tuple(upper)), tuple(faces)
