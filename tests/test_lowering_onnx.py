"""Each ONNX operator: the lowered network equals ONNX's reference implementation in float64 to 1e-12."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lpverify.errors import ModelError, UnsupportedLayerError, UsageError
from lpverify.lowering.onnx_file import lower_onnx
from lpverify.network import Affine, Network

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
DOUBLE, INT64 = TensorProto.DOUBLE, TensorProto.INT64


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape)


def build(
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    constants: dict[str, Any] | None = None,
    opset: int = 13,
    kind: int = DOUBLE,
    output: str = "y",
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    outputs = [helper.make_tensor_value_info(output, kind, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def lower(model: onnx.ModelProto, **arguments: Any) -> Network:
    return lower_onnx(model.SerializeToString(), "net.onnx", **arguments)


def assert_same(model: onnx.ModelProto, shape: list[int]) -> Network:
    network = lower(model)
    evaluator = ReferenceEvaluator(model)
    for _ in range(3):
        x = random(*shape) * 2
        (wanted,) = evaluator.run(None, {"x": x})
        found = network.forward(torch.from_numpy(x).reshape(1, -1)).numpy().reshape(-1)
        assert found.shape == np.ravel(wanted).shape
        assert np.abs(found - np.ravel(wanted)).max() <= 1e-12 * max(1.0, float(np.abs(wanted).max()))
    return network


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["x", *inputs], ["y"], name="the_node", **attributes)


IMAGE = [1, 3, 7, 6]
ROW = [1, 5]
CASES: dict[str, tuple[onnx.NodeProto, list[int], dict[str, Any], int]] = {
    "MatMul": (node("MatMul", "w"), ROW, {"w": random(5, 3)}, 13),
    "MatMul on rows": (node("MatMul", "w"), [1, 4, 5], {"w": random(5, 3)}, 13),
    "MatMul by a vector": (node("MatMul", "w"), [2, 5], {"w": random(5)}, 13),
    "MatMul from the left": (helper.make_node("MatMul", ["w", "x"], ["y"]), [5, 2], {"w": random(3, 5)}, 13),
    "MatMul of a vector": (helper.make_node("MatMul", ["w", "x"], ["y"]), [5], {"w": random(3, 5)}, 13),
    "Gemm": (node("Gemm", "w", "b"), ROW, {"w": random(5, 3), "b": random(3)}, 13),
    "Gemm scaled": (
        node("Gemm", "w", "b", transB=1, alpha=0.5, beta=3.0),
        ROW,
        {"w": random(3, 5), "b": random(1, 3)},
        9,
    ),
    "Gemm without bias": (node("Gemm", "w"), ROW, {"w": random(5, 3)}, 11),
    "Conv": (node("Conv", "w", "b"), IMAGE, {"w": random(4, 3, 3, 2), "b": random(4)}, 9),
    "Conv geometry": (
        node("Conv", "w", kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2], group=3),
        IMAGE,
        {"w": random(6, 1, 2, 3)},
        11,
    ),
    "Conv same upper": (node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), IMAGE, {"w": random(2, 3, 4, 3)}, 11),
    "Conv same lower": (node("Conv", "w", auto_pad="SAME_LOWER"), IMAGE, {"w": random(2, 3, 4, 2)}, 11),
    "Conv valid": (node("Conv", "w", auto_pad="VALID"), IMAGE, {"w": random(2, 3, 2, 2)}, 11),
    "Conv 1-D": (
        node("Conv", "w", "b", pads=[1, 2], strides=[2]), [1, 3, 9], {"w": random(4, 3, 3), "b": random(4)}, 11),
    "BatchNormalization": (
        node("BatchNormalization", "s", "b", "m", "v", epsilon=0.01),
        IMAGE,
        {"s": random(3), "b": random(3), "m": random(3), "v": np.abs(random(3)) + 0.5},
        15,
    ),
    "Add": (node("Add", "c"), IMAGE, {"c": random(3, 1, 6)}, 13),
    "Add that broadcasts the input": (node("Add", "c"), [1, 1, 4], {"c": random(1, 3, 4)}, 13),
    "Sub": (node("Sub", "c"), ROW, {"c": random(5)}, 13),
    "Sub from a constant": (helper.make_node("Sub", ["c", "x"], ["y"]), ROW, {"c": random(1, 5)}, 13),
    "Mul": (node("Mul", "c"), IMAGE, {"c": random(1, 3, 1, 1)}, 13),
    "Div": (node("Div", "c"), ROW, {"c": np.float64(0.3081)}, 13),
    "Neg": (node("Neg"), ROW, {}, 13),
    "Add itself": (node("Add", "x"), ROW, {}, 13),
    "Relu": (node("Relu"), ROW, {}, 13),
    "LeakyRelu": (node("LeakyRelu", alpha=0.25), ROW, {}, 13),
    "Clip by attributes": (node("Clip", min=-0.5, max=1.0), ROW, {}, 6 + 1),
    "Clip by inputs": (node("Clip", "lo", "hi"), ROW, {"lo": np.float64(-0.5), "hi": np.float64(0.7)}, 13),
    "Clip from above": (node("Clip", "", "hi"), ROW, {"hi": np.float64(0.7)}, 13),
    "Abs": (node("Abs"), ROW, {}, 13),
    "Max": (node("Max", "x"), ROW, {}, 13),
    "MaxPool": (node("MaxPool", kernel_shape=[2, 3], strides=[1, 2]), IMAGE, {}, 11),
    "MaxPool padded": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 0]), IMAGE, {}, 11),
    "MaxPool dilated": (node("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]), IMAGE, {}, 11),
    "AveragePool": (node("AveragePool", kernel_shape=[2, 2], strides=[2, 2]), IMAGE, {}, 11),
    "AveragePool padded": (node("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 1, 2]), IMAGE, {}, 11),
    "AveragePool counting the padding": (
        node("AveragePool", kernel_shape=[3, 2], pads=[1, 1, 1, 1], count_include_pad=1), IMAGE, {}, 11),
    "GlobalAveragePool": (node("GlobalAveragePool"), IMAGE, {}, 13),
    "Pad by attributes": (node("Pad", pads=[0, 0, 1, 0, 0, 0, 2, 1], value=1.5), IMAGE, {}, 9),
    "Pad by inputs": (
        node("Pad", "p", "v"), IMAGE, {"p": np.array([0, 1, 0, 2, 0, 0, 1, 1]), "v": np.float64(-2)}, 13),
    "Flatten": (node("Flatten", axis=2), IMAGE, {}, 13),
    "Reshape": (node("Reshape", "s"), IMAGE, {"s": np.array([0, -1, 2])}, 13),
    "Transpose": (node("Transpose", perm=[0, 2, 3, 1]), IMAGE, {}, 13),
    "Transpose by default": (node("Transpose"), IMAGE, {}, 13),
    "Squeeze before 13": (node("Squeeze", axes=[0, 2]), [1, 3, 1, 2], {}, 11),
    "Squeeze": (node("Squeeze", "a"), [1, 3, 1, 2], {"a": np.array([-2])}, 13),
    "Unsqueeze before 13": (node("Unsqueeze", axes=[0, 3]), [3, 2], {}, 11),
    "Unsqueeze": (node("Unsqueeze", "a"), [3, 2], {"a": np.array([1, -1])}, 13),
    "Slice before 10": (node("Slice", starts=[1, 0], ends=[9, 2], axes=[1, 3]), IMAGE, {}, 9),
    "Slice": (
        node("Slice", "s", "e", "a", "t"),
        IMAGE,
        {"s": np.array([-1, 0]), "e": np.array([-100, 5]), "a": np.array([2, -1]), "t": np.array([-2, 2])},
        13,
    ),
    "Concat": (node("Concat", "x", axis=1), IMAGE, {}, 13),
    "Identity": (node("Identity"), ROW, {}, 13),
    "Dropout": (node("Dropout", ratio=0.3), ROW, {}, 10),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_the_reference(name: str) -> None:
    step, shape, constants, opset = CASES[name]
    assert_same(build([step], shape, constants, opset), shape)


def test_negative_pads_crop() -> None:
    x = torch.from_numpy(random(*IMAGE))
    for pads in ([0, 0, -1, 2, 0, 0, -2, -3], [0, -1, 0, 1, 0, 0, 0, -1]):
        network = lower(build([node("Pad", pads=pads, value=0.5)], IMAGE, opset=9))
        sides = [n for axis in (3, 2, 1, 0) for n in (pads[axis], pads[4 + axis])]
        wanted = torch.nn.functional.pad(x, sides, value=0.5)
        assert torch.equal(network.forward(x).flatten(), wanted.flatten())


def test_batch_norm_with_training_outputs_is_refused() -> None:
    step = helper.make_node("BatchNormalization", ["x", *"wwww"], ["y", "mean", "var"], name="the_node")
    with pytest.raises(UnsupportedLayerError, match="BatchNormalization node 'the_node': outputs 'mean', 'var'"):
        lower(build([step], ROW, {"w": np.ones(5)}, 9))


def test_bias_as_a_separate_add_and_a_transposed_image_cost_no_node() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["b", "bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["e", "v"], ["f"]),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    constants = {"w": random(4, 3, 2, 2), "v": random(2, 4, 3, 3), "bias": random(4)}
    network = assert_same(build(nodes, IMAGE, constants), IMAGE)
    kinds = [[type(m).__name__ for m in n.maps] for n in network.nodes if isinstance(n, Affine)]
    assert kinds == [["Conv2d"], ["Conv2d"]]


def test_shapes_computed_in_the_graph_and_constants_are_evaluated() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array([0]))),
        helper.make_node("Gather", ["s", "zero"], ["batch"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["flat", "wt"], ["y"]),
    ]
    assert_same(build(nodes, IMAGE, {"w": random(2, 126)}), IMAGE)


def test_initialisers_listed_as_inputs_are_not_inputs() -> None:
    model = build([node("MatMul", "w")], ROW, {"w": random(5, 3)})
    model.graph.input.append(helper.make_tensor_value_info("w", DOUBLE, [5, 3]))
    assert_same(model, ROW)


def test_narrow_weights_are_widened_exactly_and_noted() -> None:
    weight = random(5, 3).astype(np.float16)
    model = build([node("MatMul", "w")], ROW, {"w": weight}, kind=TensorProto.FLOAT16)
    network = lower(model)
    first = network.nodes[1]
    assert isinstance(first, Affine) and network.dtype == torch.float64
    assert np.array_equal(first.maps[0].matrix().toarray().T, weight.astype(np.float64))
    assert network.notes == ("weights are widened exactly from float16 to float64",)


def test_open_batch_becomes_one_and_other_open_dimensions_need_a_shape() -> None:
    assert "the batch size, open in the file, is set to 1" in lower(build([node("Relu")], ["N", 3])).notes
    model = build([node("Relu")], [1, "C", 4, "W"])
    with pytest.raises(ModelError, match=r"net.onnx: input 'x' has open dimensions .* give input_shape"):
        lower(model)
    assert lower(model, input_shape=(3, 4, 5)).shapes[0] == (3, 4, 5)
    assert lower(model, input_shape=(1, 3, 4, 5)).shapes[0] == (3, 4, 5)
    with pytest.raises(UsageError, match=r"input_shape: \(3, 9, 5\) does not fit"):
        lower(model, input_shape=(3, 9, 5))


def test_normalisation_is_put_in_front() -> None:
    model = build([node("Conv", "w")], IMAGE, {"w": random(2, 3, 2, 2)})
    network = lower(model, mean=(0.1, 0.2, 0.3), std=0.5)
    x = torch.from_numpy(random(1, 3, 7, 6))
    centred = (x - torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(3, 1, 1)) / 0.5
    assert torch.allclose(network.forward(x), lower(model).forward(centred), atol=1e-12)
    assert len(network.nodes) == 2
    for wrong in ({"mean": (1.0, 2.0)}, {"std": 0.0}, {"mean": float("nan")}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))}: "):
            lower(model, **wrong)


REFUSED: dict[str, tuple[onnx.NodeProto, dict[str, Any], str]] = {
    "operator": (node("Sigmoid"), {}, r"operator Sigmoid node 'the_node' has no exact"),
    "domain": (node("Relu", domain="com.example"), {}, r"operator Relu node 'the_node' of domain 'com.example'"),
    "attribute": (node("Relu", alpha=1.0), {}, r"Relu node 'the_node': attribute 'alpha' is not known"),
    "transA": (node("Gemm", "w", transA=1), {"w": random(1, 2)}, r"Gemm node 'the_node': attribute transA"),
    "product": (node("Mul", "x"), {}, r"Mul node 'the_node': a factor that depends on the input"),
    "matrix product": (node("MatMul", "x"), {}, r"MatMul node 'the_node': a product of two values"),
    "quotient": (helper.make_node("Div", ["w", "x"], ["y"]), {"w": random(5)}, r"Div node 'y': a divisor that"),
    "quantised": (node("MatMul", "w"), {"w": np.ones((5, 2), np.int8)}, r"right factor of type int8"),
    "training": (
        node("BatchNormalization", *"wwww", training_mode=1), {"w": np.ones(5)}, r"training_mode, or spatial = 0,"),
    "ceil": (
        node("MaxPool", kernel_shape=[2], strides=[2], ceil_mode=1), {}, r"expected a batch of 1 and one or two"),
    "mode": (node("Pad", pads=[0, 1, 0, 1], mode="reflect"), {}, r"Pad node 'the_node': mode 'reflect'"),
    "shape of the input": (node("Reshape", "x"), {}, r"Reshape node 'the_node': a shape that depends"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_node_and_attribute(name: str) -> None:
    step, constants, message = REFUSED[name]
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        lower(build([step], ROW, constants, 11))
    assert str(caught.value).startswith("net.onnx: ") and "\n" not in str(caught.value)


MALFORMED: dict[str, tuple[onnx.ModelProto, str]] = {
    "undefined": (build([node("Add", "nowhere")], ROW), r"Add node 'the_node': reads 'nowhere', which nothing"),
    "twice": (build([node("Relu"), node("Abs")], ROW), r"Abs node 'the_node': its output is missing or defined twice"),
    "inputs": (build([node("Gemm")], ROW), r"Gemm node 'the_node': has 1 inputs, expected 2 to 3"),
    "nan": (
        build([node("Add", "w")], ROW, {"w": np.array([0, 1, np.nan, 0, 0])}), r"'w' is nan at index \(2,\)"),
    "infinite": (build([node("Mul", "w")], ROW, {"w": np.array([np.inf, 1])}), r"'w' is inf at index \(0,\)"),
    "zero": (build([node("Div", "w")], ROW, {"w": np.zeros(5)}), r"Div node 'the_node': divides by 0"),
    "weight": (build([node("MatMul", "w")], ROW, {"w": random(4, 3)}), r"weight \(3, 4\) does not take an input of"),
    "kernel": (build([node("Conv", "w")], IMAGE, {"w": random(4, 2, 3, 3)}), r"does not fit \(3, 7, 6\)"),
    "reshape": (build([node("Reshape", "s")], ROW, {"s": np.array([2, 3])}), r"cannot reshape \(1, 5\) to \[2, 3\]"),
    "broadcast": (build([node("Add", "w")], ROW, {"w": random(4)}), r"shapes \(1, 5\), \(4,\) do not match"),
    "padding": (
        build([node("MaxPool", kernel_shape=[1, 1], pads=[1, 1, 1, 1])], IMAGE, opset=11), r"does not fit an image"),
    "opset": (build([node("Relu")], ROW, opset=6), r"operator set 6 is not supported"),
    "constant": (
        build([helper.make_node("Identity", ["w"], ["y"])], ROW, {"w": random(4)}), r"output 'y' does not depend"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_models_are_refused(name: str) -> None:
    model, message = MALFORMED[name]
    with pytest.raises(ModelError, match=message) as caught:
        lower(model)
    assert "\n" not in str(caught.value)


def test_two_inputs_or_outputs_are_listed() -> None:
    model = build([node("Add", "z")], ROW)
    model.graph.input.append(helper.make_tensor_value_info("z", DOUBLE, ROW))
    with pytest.raises(ModelError, match=r"has 2 inputs \(x, z\), expected exactly one"):
        lower(model)
    model = build([node("Relu")], ROW)
    del model.graph.output[:]
    with pytest.raises(ModelError, match=r"has 0 outputs \(none\)"):
        lower(model)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "weights.bin"])
def test_external_data_is_refused(location: str) -> None:
    model = build([node("MatMul", "w")], ROW, {"w": random(5, 3)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(ModelError, match=r"initialiser 'w' lies outside the file") as caught:
        lower(model)
    assert repr(location) in str(caught.value)


def test_a_tensor_that_lies_about_its_shape_is_refused() -> None:
    model = build([node("MatMul", "w")], ROW, {"w": random(5, 3)})
    model.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(ModelError, match="its data does not fit its shape"):
        lower(model)


def test_truncated_and_random_bytes_are_refused() -> None:
    data = build([node("MatMul", "w")], ROW, {"w": random(5, 3)}).SerializeToString()
    rng = np.random.default_rng(3)
    refused = 0
    for cut in range(1, len(data), 7):
        try:
            lower_onnx(data[:cut], "net.onnx")
        except ModelError:
            refused += 1
    # A message cut between two of its fields is still a message; everything else must be refused as a model.
    assert refused >= len(range(1, len(data), 7)) - 2
    for _ in range(200):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            lower_onnx(bytes(flipped), "net.onnx")
        except ModelError as error:
            assert str(error).startswith("net.onnx: ") and "\n" not in str(error)
