"""Lowering: a torch module, a checkpoint or an ONNX file becomes a Network of Affine and ReLU nodes."""

from lpverify.lowering.load import load_model
from lpverify.lowering.module import Trace, lower_module, trace

__all__ = ["Trace", "load_model", "lower_module", "trace"]
