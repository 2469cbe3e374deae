"""Reads the tokens of a VNN-LIB file into one formula. An explicit stack takes the place of recursion."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from lpverify.certificate.claim import Inequality
from lpverify.vnnlib.declare import Declarations
from lpverify.vnnlib.formula import Bound, Formula, Join, joined
from lpverify.vnnlib.property import Tensor
from lpverify.vnnlib.source import TOKEN, Source
from lpverify.vnnlib.terms import COMPARISONS, Term, add, compare, divide, multiply, number
from lpverify.vnnlib.work import Refused, Work

CONNECTIVES = frozenset(["and", "or"])
ARITHMETIC: dict[str, Callable[[list[Term], Work], Term]] = {
    "+": lambda args, work: add(args, len(args), work),
    "-": lambda args, work: add(args, 1 if len(args) > 1 else 0, work),
    "*": multiply,
    "/": divide,
}
LOGIC = CONNECTIVES | COMPARISONS | frozenset(ARITHMETIC)
COMMANDS = ("assert", "declare-const", "declare-network", "vnnlib-version")
ITEMS = ("declare-input", "declare-output", "declare-hidden", "equal-to", "isomorphic-to")
FORMULAS = (bool, Bound, Inequality, Join)
NON_FINITE = ("inf", "infinity", "nan", "oo")


class _Open:
    """A parenthesis that is not closed yet."""

    __slots__ = ("args", "logic", "operator", "position")

    def __init__(self, position: int) -> None:
        self.position, self.operator, self.logic = position, "", False
        self.args: list[Any] = []


class Reader:
    """Reads one file, command by command.

    Attributes:
        declarations: the variables declared so far.
        asserted: the formulas asserted so far.
    """

    def __init__(self, source: Source, work: Work) -> None:
        self.source, self.work = source, work
        self.declarations = Declarations(source)
        self.asserted: list[Formula] = []

    def read(self) -> Formula:
        """The conjunction of all that the file asserts."""
        source = self.source
        stack: list[_Open] = []
        names = self.declarations.names
        for match in TOKEN.finditer(source.text):
            token = match.group()
            first = token[0]
            if first == "(":
                if stack and not stack[-1].operator:
                    raise source.error(match.start(), "a ( where an operator was expected; this is not VNN-LIB")
                stack.append(_Open(match.start()))
            elif first == ")":
                if not stack:
                    raise source.error(match.start(), "a ) that closes nothing; remove it")
                closed = stack.pop()
                result = self._closed(closed, match.end())
                if stack:
                    stack[-1].args.append(result)
            elif first == ";":
                continue
            elif not stack:
                shown = source.shown(match.start(), match.end())
                raise source.error(match.start(), f"not a VNN-LIB file: {shown} stands outside of all parentheses")
            elif not stack[-1].operator:
                self._open(stack, token, match.start())
            elif not stack[-1].logic:
                if token in ("[", '"'):
                    # Refused at once: looking for the end of many of them would take quadratic time.
                    raise source.error(match.start(), f"{token} is never closed")
                stack[-1].args.append(token)
            elif token in names:
                stack[-1].args.append(names[token])
            elif first == "[":
                self._element(stack[-1], token, match.start())
            else:
                stack[-1].args.append(self._number(token, match.start()))
        if stack:
            raise source.error(stack[0].position, "this ( is never closed; the file is truncated or not VNN-LIB")
        return joined(False, self.asserted)

    def _open(self, stack: list[_Open], operator: str, position: int) -> None:
        """Note the operator of the innermost parenthesis, if it may stand there."""
        outer = stack[-2] if len(stack) > 1 else None
        if outer is None:
            known, allowed = operator in COMMANDS, ", ".join(COMMANDS)
        elif outer.operator == "assert" or outer.logic:
            known, allowed = operator in LOGIC, "and or <= < >= > = == != + - * /"
        elif outer.operator == "declare-network":
            known, allowed = operator in ITEMS, "declare-input and declare-output"
        else:
            known, allowed = False, f"names and shapes, but no parenthesis, in {outer.operator}"
        if not known:
            shown = self.source.shown(position, position + len(operator))
            raise self.source.error(position, f"unexpected {shown}; lpverify reads {allowed} here")
        stack[-1].operator, stack[-1].logic = operator, operator in LOGIC

    def _closed(self, closed: _Open, end: int) -> Any:
        """The value of a parenthesis that was just closed."""
        operator, args = closed.operator, closed.args
        try:
            if operator in COMPARISONS:
                return compare(operator, self._require(args, term=True), self.work)
            if operator in ARITHMETIC:
                if not args:
                    raise Refused("has no arguments")
                return ARITHMETIC[operator](self._require(args, term=True), self.work)
            if operator in CONNECTIVES:
                if not args:
                    raise Refused("has no arguments")
                return joined(operator == "or", self._require(args, term=False))
            if operator == "assert":
                if len(args) != 1:
                    raise Refused(f"has {len(args)} arguments; assert one formula")
                self.asserted.extend(self._require(args, term=False))
                return None
            if not operator:
                raise Refused("is empty; write a command or formula")
            return self.declarations.declare(operator, args, closed.position)
        except Refused as error:
            shown = self.source.shown(closed.position, end)
            raise self.source.error(closed.position, f"{shown} {error}") from None

    def _require(self, args: list[Any], term: bool) -> list[Any]:
        """``args``, if all of them are terms (or all of them formulas)."""
        for arg in args:
            if isinstance(arg, Tensor):
                raise Refused(f"uses {arg.name!r} of shape {list(arg.shape)} without an index; write {arg.name}[...]")
            if isinstance(arg, FORMULAS) == term:
                raise Refused("has a formula where a number or variable is expected" if term else
                              "has a number or variable where a formula is expected")
        return args

    def _element(self, top: _Open, token: str, position: int) -> None:
        """Replace the tensor before an index by the variable meant."""
        if not top.args or not isinstance(top.args[-1], Tensor):
            raise self.source.error(position, f"index {token[:40]!r} follows no declared tensor")
        try:
            top.args[-1] = self.declarations.element(top.args[-1], token)
        except Refused as error:
            raise self.source.error(position, str(error)) from None

    def _number(self, token: str, position: int) -> Fraction:
        try:
            value = number(token)
            if value is None and token.lower().lstrip("+-") in NON_FINITE:
                raise Refused("is not finite; every bound must be a finite decimal")
            if value is None:
                raise Refused("is no declared variable and no decimal; declare it first")
        except Refused as error:
            shown = self.source.shown(position, position + len(token))
            raise self.source.error(position, f"{shown} {error}") from None
        return value
