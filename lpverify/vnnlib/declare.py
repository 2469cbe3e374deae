"""The variables that a VNN-LIB file declares: X_i and Y_j one by one (1.0), or the tensors of a network (2.0)."""

from __future__ import annotations

import math
import re
from typing import Any

from lpverify.vnnlib.property import Tensor
from lpverify.vnnlib.source import Source
from lpverify.vnnlib.work import Refused

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
INDEX = re.compile(r"\[\s*(?:[0-9]{1,9}\s*(?:,\s*[0-9]{1,9}\s*)*)?\]")
VERSION = re.compile(r"<([0-9]{1,3})\.([0-9]{1,3})>")
KINDS = ("real", "float32", "float64")
SIZE = 10**8


class Declarations:
    """What is declared so far.

    Attributes:
        names: for each name the variable (i: input i, -1 - j: output j), or the tensor that needs an index.
        version: "1.0", or the version that the file states.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.names: dict[str, int | Tensor] = {}
        self.version = "1.0"
        self._stated = False
        self._network = False
        self._sides: dict[bool, Tensor] = {}
        self._counts = {"X": 0, "Y": 0}
        self._positions: dict[int, int] = {}
        self._last = {"X": -1, "Y": -1}

    def declare(self, command: str, args: list[Any], position: int) -> Any:
        """Take one command other than assert; raises Refused."""
        if command == "declare-const":
            return self._constant(args, position)
        if command == "vnnlib-version":
            return self._version(args)
        if command == "declare-network":
            return self._whole(args)
        if command in ("equal-to", "isomorphic-to"):
            raise Refused("compares two networks; lpverify reads properties of one network")
        if command == "declare-hidden":
            raise Refused("names a hidden node; lpverify reads constraints on inputs and outputs only")
        if self._network:
            raise Refused("belongs to a second network; lpverify reads properties of one network")
        return self._tensor(command == "declare-output", args, position)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The input and the output; raises Refused if either is not declared, or has gaps."""
        if self._network:
            return self._sides[False], self._sides[True]
        for letter, what in (("X", "input"), ("Y", "output")):
            count = self._counts[letter]
            if not count:
                raise Refused(f"declares no {what}; is it a VNN-LIB file? Write (declare-const {letter}_0 Real)")
            if count != self._last[letter] + 1:
                sign = -1 if letter == "Y" else 1
                gap = next(k for k in range(count) if (k if sign > 0 else -1 - k) not in self._positions)
                raise Refused(f"declares {letter}_{self._last[letter]} but not {letter}_{gap}; declare all of them")
        return (Tensor("X", "Real", (self._counts["X"],), False), Tensor("Y", "Real", (self._counts["Y"],), False))

    def position(self, variable: int) -> int:
        """Where a variable was declared."""
        return self._positions[0 if self._network else variable]

    def element(self, tensor: Tensor, token: str) -> int:
        """The variable that an index such as [0,3] means; raises Refused.

        One index may stand for all where no more than one dimension is longer than 1.
        """
        if not INDEX.fullmatch(token):
            raise Refused(f"index {token[:40]!r} of {tensor.name!r} is no list of integers")
        index = _integers(token)
        shape = tensor.shape
        if len(index) == 1 and shape and max(shape) == tensor.size:
            shape = (tensor.size,)
        if len(index) != len(shape) or any(k >= size for k, size in zip(index, shape, strict=True)):
            raise Refused(f"index {token[:40]!r} does not fit {tensor.name!r} of shape {list(tensor.shape)}")
        flat = 0
        for k, size in zip(index, shape, strict=True):
            flat = flat * size + k
        return -1 - flat if tensor is self._sides.get(True) else flat

    def _constant(self, args: list[Any], position: int) -> None:
        if self._stated or self._network:
            raise Refused("is VNN-LIB 1.0 in a file of another version; declare a network")
        if len(args) != 2 or args[1] != "Real":
            raise Refused("is not of the form (declare-const X_0 Real)")
        found = VARIABLE.fullmatch(args[0])
        if not found:
            raise Refused("names neither an input X_i nor an output Y_j; rename the variable")
        if args[0] in self.names:
            raise Refused("was declared before; remove one of the two")
        letter, index = found[1], int(found[2])
        variable = index if letter == "X" else -1 - index
        self.names[args[0]] = variable
        self._positions[variable] = position
        self._counts[letter] += 1
        self._last[letter] = max(self._last[letter], index)

    def _version(self, args: list[Any]) -> None:
        found = VERSION.fullmatch(args[0]) if len(args) == 1 else None
        if not found:
            raise Refused("is not of the form (vnnlib-version <2.0>)")
        if self._stated or self.names:
            raise Refused("must be the first command")
        if found[1] != "2":
            raise Refused("states a version that lpverify does not read; it reads 1.0 (not stated) and 2.0")
        self._stated, self.version = True, f"{found[1]}.{found[2]}"

    def _tensor(self, output: bool, args: list[Any], position: int) -> Tensor:
        what = "output" if output else "input"
        form = f"is not of the form (declare-{what} NAME real [1,5])"
        if len(args) not in (3, 4) or not NAME.fullmatch(args[0]) or not INDEX.fullmatch(args[2]):
            raise Refused(form)
        if len(args) == 4 and args[3][0] != '"':
            raise Refused(f"has the option {args[3][:40]!r}, which lpverify does not read; remove it")
        if args[1].lower() not in KINDS:
            raise Refused(f"has elements of type {args[1][:40]!r}; lpverify reads {', '.join(KINDS)}")
        shape = _integers(args[2])
        if 0 in shape or math.prod(shape) > SIZE:
            raise Refused(f"has {math.prod(shape)} elements; from 1 to {SIZE} are read")
        if output in self._sides:
            raise Refused(f"is the second {what}; lpverify reads networks with one input and one output")
        if args[0] in self.names:
            raise Refused("has a name that was declared before; use another one")
        found = Tensor(args[0], args[1], shape, True)
        self._sides[output] = found
        self.names[args[0]] = found if shape else (-1 if output else 0)
        self._positions[-1 if output else 0] = position
        return found

    def _whole(self, args: list[Any]) -> None:
        if self.names and not self._sides:
            raise Refused("follows variables of VNN-LIB 1.0; use one version")
        if not args or not isinstance(args[0], str) or not NAME.fullmatch(args[0]):
            raise Refused("has no name; write (declare-network N (declare-input ...) (declare-output ...))")
        if not self._sides.keys() == {False, True} or len(args) != 3:
            raise Refused("must declare one input and one output")
        self._network = True
        if not self._stated:
            self.version = "2.0"


def _integers(token: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", token)))
