"""VNN-LIB files: what an input set must not lead to. Standard library only.

    source    the file's text, its tokens, and messages with line numbers
    terms     linear terms in exact rationals and their comparisons
    formula   formulas, and the union of parts (box, polytope) that one describes
    declare   the variables of VNN-LIB 1.0 and the tensors of 2.0
    parse     tokens to one formula, without recursion
    property  parts to the claims of certificates

A file describes the unsafe set. ``read_property`` gives the claims that it is empty: a polytope {all of its
constraints hold} becomes a clause {one of them fails}, a union of polytopes over one box becomes one claim.
Constants are exact. Reading takes time linear in the length of the file, unless a nested and/or must be
multiplied out, which is refused beyond a stated number of entries.
"""

from __future__ import annotations

from pathlib import Path

from lpverify.vnnlib.formula import Crossed, parts
from lpverify.vnnlib.parse import Reader
from lpverify.vnnlib.property import Property, Tensor, Unbounded, merged
from lpverify.vnnlib.source import CAP, Source, read_source
from lpverify.vnnlib.work import WORK, Refused, Work

__all__ = ["Property", "Tensor", "parse_property", "read_property"]


def read_property(path: Path | str, cap: int = CAP, work: int = WORK) -> Property:
    """Read a VNN-LIB file of version 1.0 or 2.0, gzipped or not.

    Args:
        path: the file.
        cap: most bytes that it may have, decompressed.
        work: most entries that its union of boxes with polytopes may need beyond the text itself.

    Raises:
        DataError: if the file cannot be read or used; the message names file, line, text and remedy.
    """
    return parse_property(read_source(Path(path), cap), Work(work))


def parse_property(source: Source, work: Work) -> Property:
    """As ``read_property``, from the text of a file."""
    reader = Reader(source, work)
    formula = reader.read()
    declared = reader.declarations
    try:
        x, y = declared.tensors()
        claims, open_faces = merged(parts(formula, work), x.size, y.size, work)
    except Unbounded as error:
        name = x.names[error.index]
        raise source.error(
            declared.position(error.index), f"input {name} has no {error.side} bound; give every input both bounds"
        ) from None
    except Crossed as error:
        raise source.error(
            declared.position(error.index), f"no value of input {x.names[error.index]} is {error}; correct its bounds"
        ) from None
    except Refused as error:
        raise source.error(0, f"the file {error}") from None
    if claims and not any(claim.num_rows for claim in claims):
        raise source.error(0, "the file does not constrain the output; assert what the network must not answer")
    return Property(x, y, claims, open_faces, declared.version, source.sha256)
