"""An ONNX file's bytes -> Network in float64. No external data, no unknown operator or attribute is accepted."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from lpverify.errors import ModelError, UnsupportedLayerError, UsageError
from lpverify.linear import Shape
from lpverify.lowering import onnx_ops, onnx_shapes
from lpverify.lowering.builder import Builder, PerChannel, Value, require_units
from lpverify.lowering.onnx_table import Array, Context
from lpverify.network import Network

OPERATORS = {**onnx_ops.OPERATORS, **onnx_shapes.OPERATORS}
# Before version 7, Add and its kin broadcast by attributes of their own.
OLDEST_OPSET = 7
# Operators that only move constants about (a shape being computed, say) are evaluated.
MOVES = {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather", "Cast", "Flatten"}
# The types of attributes, and those that the operators here have.
KINDS = set(onnx.AttributeProto.AttributeType.values())
PLAIN = tuple(getattr(onnx.AttributeProto, name) for name in ("INT", "FLOAT", "STRING", "INTS", "FLOATS"))
FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


def lower_onnx(
    data: bytes,
    name: str,
    *,
    input_shape: tuple[int, ...] | None = None,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> Network:
    """The network of an ONNX model; weights are widened exactly to float64.

    Args:
        data: the file's bytes, decompressed.
        name: what to call the file in messages.
        input_shape: shape of one input without the batch, needed where the file leaves it open.
        mean, std: numbers, or one per channel, of a normalisation (x - mean) / std to put in front.

    Raises:
        UnsupportedLayerError: for an operator or attribute without an exact lowering; names node and operator.
        ModelError: if the file is malformed, keeps data elsewhere, or has not one input and one output.
    """
    try:
        return _lower(_parse(data), input_shape, mean, std)
    except ModelError as error:
        raise type(error)(f"{name}: {error}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{name}: a name in it is no text in UTF-8; the file is damaged") from None


def _lower(
    model: onnx.ModelProto, input_shape: Shape | None, mean: PerChannel | None, std: PerChannel | None
) -> Network:
    graph = model.graph
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    source, target = _ends(graph, constants)
    full, notes = _input_shape(source, input_shape)
    builder = Builder(full[1:] if len(full) > 1 and full[0] == 1 else full, torch.float64)
    for note in [*_widened(graph), *notes]:
        builder.note(note)
    start = builder.normalise(builder.input, mean, std)
    values: dict[str, Any] = {**constants, source.name: builder.reshape(start, full)}
    context = Context(builder, _opset(model))
    for index, node in enumerate(graph.node):
        label = f"{node.op_type} node {node.name or (node.output[0] if node.output else index)!r}"
        _define(values, node, _result(context, node, label, values), label)
    output = values.get(target.name)
    if not isinstance(output, Value):
        raise ModelError(f"output {target.name!r} does not depend on the input")
    return builder.network(output)


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    # protobuf raises its own DecodeError; whatever it is, the bytes are not a model.
    except Exception as error:
        raise ModelError(f"not an ONNX model, or truncated ({type(error).__name__})") from None
    graph = model.graph
    if not graph.node and not graph.output:
        raise ModelError("not an ONNX model: it has no graph")
    if graph.sparse_initializer or model.functions:
        raise UnsupportedLayerError("sparse initialisers and local functions are not supported")
    return model


def _opset(model: onnx.ModelProto) -> int:
    versions = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if len(versions) != 1:
        raise ModelError(f"imports the operator set in versions {sorted(versions)}, expected exactly one")
    version = int(versions.pop())
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= version <= newest:
        raise UnsupportedLayerError(f"operator set {version} is not supported (known are {OLDEST_OPSET} to {newest})")
    return version


def _array(tensor: onnx.TensorProto, where: str = "initialiser") -> Array:
    """A stored tensor as a numpy array; its size is checked against its data, and floats must be finite."""
    label = f"{where} {tensor.name!r}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        raise ModelError(f"{label} lies outside the file (external data {location!r}); save the model in one file")
    if min(tensor.dims, default=0) < 0:
        raise ModelError(f"{label} has dimensions {list(tensor.dims)}")
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    # The helper raises what numpy raises: ValueError, TypeError, KeyError for an unknown type.
    except Exception as error:
        kind = type(error).__name__
        raise ModelError(f"{label}: its data does not fit its shape {list(tensor.dims)} ({kind})") from None
    if tensor.data_type in FLOATS:
        with np.errstate(invalid="ignore"):  # a signalling NaN
            wide = array.astype(np.float64)
            array = array if tensor.data_type == onnx.TensorProto.DOUBLE else array.astype(np.float32)
        if not np.isfinite(wide).all() and array.size > 1:
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(wide))[0])
            raise ModelError(f"{label} is {wide[index]} at index {index}")
    return array


def _ends(graph: onnx.GraphProto, constants: dict[str, Array]) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """The one input that is not an initialiser, and the one output."""
    inputs = [entry for entry in graph.input if entry.name not in constants]
    for what, entries in (("inputs", inputs), ("outputs", list(graph.output))):
        if len(entries) != 1:
            names = ", ".join(entry.name for entry in entries) or "none"
            raise ModelError(f"has {len(entries)} {what} ({names}), expected exactly one")
    return inputs[0], graph.output[0]


def _input_shape(source: onnx.ValueInfoProto, wanted: Shape | None) -> tuple[Shape, list[str]]:
    """The input's full shape with a batch of 1, and notes on what was assumed."""
    tensor = source.type.tensor_type
    if tensor.elem_type not in FLOATS:
        raise UnsupportedLayerError(f"input {source.name!r} has element type {tensor.elem_type}, expected floats")
    if not tensor.HasField("shape"):
        if wanted is None:
            raise ModelError(f"input {source.name!r} has no shape; give input_shape (--input-shape)")
        return (1, *wanted), []
    declared = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    notes: list[str] = []
    if wanted is not None:
        full = wanted if len(wanted) == len(declared) else (1, *wanted)
        if len(full) != len(declared) or any(d not in (None, n) for d, n in zip(declared, full, strict=True)):
            raise UsageError(f"input_shape: {tuple(wanted)} does not fit input {source.name!r} of shape {declared}")
        return tuple(full), notes
    if len(declared) > 1 and declared[0] is None:
        declared[0] = 1
        notes.append("the batch size, open in the file, is set to 1")
    if any(d is None for d in declared):
        raise ModelError(f"input {source.name!r} has open dimensions {declared}; give input_shape (--input-shape)")
    return tuple(d for d in declared if d is not None), notes


def _widened(graph: onnx.GraphProto) -> list[str]:
    kinds = sorted({FLOATS[t.data_type] for t in graph.initializer if t.data_type in FLOATS} - {"float64"})
    return [f"weights are widened exactly from {' and '.join(kinds)} to float64"] if kinds else []


def _result(context: Context, node: onnx.NodeProto, label: str, values: dict[str, Any]) -> Any:
    """What the node computes: a Value, or an array if it is constant."""
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    operands = [_operand(values, name, label) for name in node.input]
    if node.op_type == "Constant" and not node.domain:
        return _constant(context, node, label)
    if operands and not any(isinstance(o, Value) for o in operands) and node.op_type in MOVES and not node.domain:
        return _evaluate(context, node, operands, label)
    if operator is None:
        kind = f" of domain {node.domain!r}" if node.domain else ""
        raise UnsupportedLayerError(f"operator {label}{kind} has no exact piecewise-linear lowering")
    attributes = dict(operator.attributes)
    for attribute in node.attribute:
        if attribute.name not in attributes:
            raise UnsupportedLayerError(f"{label}: attribute {attribute.name!r} is not known")
        attributes[attribute.name] = _attribute(context, node, attribute, label)
    while operands and operands[-1] is None:
        operands.pop()
    least, most = operator.inputs
    if not least <= len(operands) <= most:
        raise ModelError(f"{label}: has {len(operands)} inputs, expected {least} to {most}")
    return operator.lower(context, label, attributes, *operands)


def _operand(values: dict[str, Any], name: str, label: str) -> Any:
    if name and name not in values:
        raise ModelError(f"{label}: reads {name!r}, which nothing before it defines")
    return values[name] if name else None


def _define(values: dict[str, Any], node: onnx.NodeProto, result: Any, label: str) -> None:
    """Record the node's first output; a dropout's mask and a max-pool's indices stay undefined."""
    more = [name for name in node.output[1:] if name]
    if more and node.op_type not in ("Dropout", "MaxPool"):
        raise UnsupportedLayerError(f"{label}: outputs {', '.join(map(repr, more))} are not supported")
    if not node.output or node.output[0] in values:
        raise ModelError(f"{label}: its output is missing or defined twice")
    values[node.output[0]] = result


def _attribute(context: Context, node: onnx.NodeProto, attribute: onnx.AttributeProto, label: str) -> Any:
    """An attribute's value, of the type that the operator set asks for; floats are finite, but the ends of a Clip."""
    wanted = _attribute_types(node.op_type, attribute.name, context.opset)
    if attribute.type not in wanted:
        kind = onnx.AttributeProto.AttributeType.Name(attribute.type) if attribute.type in KINDS else attribute.type
        raise ModelError(f"{label}: attribute {attribute.name!r} is of type {kind}")
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    is_list = attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS)
    numbers = list(value) if is_list else [value]
    for number in numbers:
        if math.isnan(number) or (math.isinf(number) and node.op_type != "Clip"):
            raise ModelError(f"{label}: attribute {attribute.name!r} is {number}")
    return numbers if is_list else value


def _attribute_types(operator: str, name: str, opset: int) -> Collection[int]:
    """What an attribute may be: what this version of the operator says, or any plain type if it does not know it."""
    try:
        known: Any = onnx.defs.get_schema(operator, opset, "").attributes
    except onnx.defs.SchemaError:
        return PLAIN
    return (getattr(onnx.AttributeProto, known[name].type.name),) if name in known else PLAIN


def _constant(context: Context, node: onnx.NodeProto, label: str) -> Array:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if len(node.attribute) != 1:
        raise ModelError(f"{label}: has {len(node.attribute)} attributes, expected one")
    attribute = node.attribute[0]
    if attribute.name == "value":
        return _array(attribute.t, label)
    if attribute.name not in kinds:
        raise UnsupportedLayerError(f"{label}: attribute {attribute.name!r} is not known")
    return np.array(_attribute(context, node, attribute, label), dtype=kinds[attribute.name])


def _evaluate(context: Context, node: onnx.NodeProto, operands: list[Any], label: str) -> Array:
    """A node on constants only, by ONNX's reference implementation."""
    helper = onnx.helper
    feeds = {name: array for name, array in zip(node.input, operands, strict=True) if name}
    require_units((_entries(node, operands),), label)
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], feeds[name].shape) for name in feeds]
    if not node.output:
        raise ModelError(f"{label}: has no output")
    graph = helper.make_graph([node], "constant", inputs, [onnx.ValueInfoProto(name=node.output[0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", context.opset)])
    try:
        outputs: Any = ReferenceEvaluator(model).run(None, feeds)
        return np.asarray(outputs[0])
    # The reference implementation raises many classes; the node's constants do not fit it.
    except Exception as error:
        raise ModelError(f"{label}: cannot be evaluated on its constants ({type(error).__name__})") from None


def _entries(node: onnx.NodeProto, operands: list[Any]) -> int:
    """At most so many entries the result has: a Gather takes a slice for each index, the others keep what they get."""
    sizes = [operand.size for operand in operands if operand is not None]
    if node.op_type != "Gather" or len(sizes) != 2 or not sizes[0]:
        return sum(sizes)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    shape = operands[0].shape
    return int(sizes[0] // (shape[axis] if -len(shape) <= axis < len(shape) else 1) * sizes[1])
