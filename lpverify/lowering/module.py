"""torch.nn.Module -> Network, through torch.export. The network keeps the module's live parameters."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lpverify.errors import ModelError, UnsupportedLayerError
from lpverify.linear import Shape
from lpverify.lowering import torch_ops, torch_shapes
from lpverify.lowering.builder import Builder, PerChannel, Value
from lpverify.lowering.torch_table import BATCH, Context, constant
from lpverify.network import Network

OPERATORS = {**torch_ops.OPERATORS, **torch_shapes.OPERATORS}


def lower_module(module: nn.Module, input_shape: tuple[int, ...], *, dtype: torch.dtype | None = None) -> Network:
    """The network that ``module`` computes in eval mode, sharing its parameters.

    Gradients flow from the network to the module's weights. Tensors derived from a weight (a folded
    batch-norm, a cast to ``dtype``) are computed here, so lower again after the weights have changed;
    ``trace(module, input_shape).network()`` does that without exporting again.

    Args:
        module: any module of one tensor input and one tensor output; its training flags are left as found.
        input_shape: the shape of one input, without the batch.
        dtype: the network's dtype; the module's own if None. Parameters are cast differentiably.

    Raises:
        UnsupportedLayerError: if an operator has no exact lowering; names the operator and the node.
        ModelError: if the module cannot be exported, for example because it branches on its data.
    """
    return trace(module, input_shape).network(dtype)


@dataclass(frozen=True, eq=False)
class Trace:
    """An exported module: its graph, and the module whose tensors the graph reads."""

    module: nn.Module
    program: Any  # torch.export.ExportedProgram, which has no complete types
    input_shape: Shape
    module_dtype: torch.dtype
    device: torch.device

    def network(
        self, dtype: torch.dtype | None = None, *, mean: PerChannel | None = None, std: PerChannel | None = None
    ) -> Network:
        """The network of the module's current weights; ``mean`` and ``std`` prepend (x - mean) / std."""
        builder = Builder(self.input_shape, dtype or self.module_dtype, self.device)
        start = builder.normalise(builder.input, mean, std)
        context = Context(builder, self.module_dtype)
        values = self._inputs(start)
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                values[node.name] = _call(context, node, values)
            elif node.op == "output":
                output = self._output(node, values)
        return builder.network(output)

    def _inputs(self, start: Value) -> dict[str, Any]:
        """What each placeholder of the graph stands for: the input or a live tensor of the module."""
        values: dict[str, Any] = {}
        for spec in self.program.graph_signature.input_specs:
            kind, name = spec.kind.name, spec.arg.name
            if kind == "USER_INPUT":
                values[name] = start
            elif kind == "PARAMETER":
                values[name] = self.module.get_parameter(spec.target)
            elif kind == "BUFFER":
                values[name] = self.module.get_buffer(spec.target)
            elif kind == "CONSTANT_TENSOR":
                values[name] = self.program.constants[spec.target]
            else:
                raise UnsupportedLayerError(f"module: input {name!r} of kind {kind} cannot be lowered")
        return values

    def _output(self, node: Any, values: dict[str, Any]) -> Value:
        (outputs,) = node.args
        found = [values[o.name] if isinstance(o, torch.fx.Node) else o for o in outputs]
        if len(found) != 1:
            raise ModelError(f"module: returns {len(found)} outputs, expected one tensor (batch, ...)")
        if not isinstance(found[0], Value):
            raise ModelError("module: its output does not depend on its input")
        return found[0]


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Export ``module`` in eval mode for one input of ``input_shape`` (no batch); raises as ``lower_module``."""
    tensors = [*module.parameters(), *module.buffers()]
    # Without a tensor of its own a module has no dtype to which the numbers in its code would be rounded.
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros((), dtype=torch.float64))
    shape = tuple(int(n) for n in input_shape)
    example = torch.zeros(BATCH, *shape, dtype=like.dtype, device=like.device)
    with _eval_mode(module), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, (example,)).run_decompositions({})
        # torch.export raises dozens of unrelated classes; whichever it is, the module was not understood.
        except Exception as error:
            raise _not_exported(module, shape, error) from None
    return Trace(module, program, shape, like.dtype, like.device)


def _call(context: Context, node: Any, values: dict[str, Any]) -> Any:
    """The value of one node of the graph: constants are computed by torch, the rest by the operator's lowering."""

    def known(argument: Any) -> Any:
        return values[argument.name]

    args = torch.fx.node.map_arg(node.args, known)
    kwargs = torch.fx.node.map_arg(node.kwargs, known)
    name, operator = _label(node), str(node.target)
    if getattr(node.target, "__name__", "") == "getitem":
        return args[0][args[1]]
    if not any(isinstance(leaf, Value) for leaf in _leaves([args, kwargs])):
        return constant(node.target, args, kwargs, name)
    lower = OPERATORS.get(operator)
    if lower is None:
        raise UnsupportedLayerError(f"operator {operator} at node {name!r} has no exact piecewise-linear lowering")
    try:
        return lower(context, name, *args, **kwargs)
    except TypeError as error:
        detail = str(error).split("() ")[-1]
        raise UnsupportedLayerError(f"operator {operator} at node {name!r}: argument refused ({detail})") from None


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        for branch in tree:
            yield from _leaves(branch)
    else:
        yield tree


def _label(node: Any) -> str:
    """The path of the torch layer that a node comes from, or else the node's own name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return str(path) if path and str(kind).startswith("torch.nn.modules.") else str(node.name)


def _not_exported(module: nn.Module, shape: Shape, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__)[:300]
    kind = type(module).__name__
    if "data-dependent" in str(error) or "DataDependent" in type(error).__name__:
        return UnsupportedLayerError(f"module {kind}: control flow depends on the input's values ({reason})")
    return ModelError(f"module {kind}: torch.export fails for an input of shape {shape}: {reason}")


@contextlib.contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; every submodule's own training flag is restored afterwards."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training
