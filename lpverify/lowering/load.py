"""One entrance for every kind of model file."""

from __future__ import annotations

from pathlib import Path

from lpverify.errors import UsageError
from lpverify.lowering.builder import PerChannel
from lpverify.lowering.checkpoint import lower_checkpoint, read_checkpoint
from lpverify.lowering.modelfile import kind_of, read_onnx_bytes
from lpverify.network import Network


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> Network:
    """The network of a model file, in float64 and without gradients.

    Args:
        path: ``.onnx``, ``.onnx.gz``, a torch checkpoint (``.pt``, ``.pth``, or any file of torch.save),
            ``.safetensors``, or ``.npz`` or a folder with W1, B1, W2, B2, ... of layers y = x W + B.
        arch: for a checkpoint: a name of ``lpverify.models``, or ``package.module:function`` of your own, called
            without arguments. Checkpoints of linear layers alone, and files that name theirs, need none.
        input_shape: the shape of one input, without the batch, where the file leaves it open.
        mean, std: numbers, or one per channel: a layer (x - mean) / std is put in front.

    Raises:
        UsageError: for an unknown architecture or arguments that do not fit.
        UnsupportedLayerError: if an operator has no exact lowering; names it and the node.
        ModelError: if the file cannot be trusted or read, or does not fit its architecture.
    """
    file = Path(path)
    kind = kind_of(file)
    if kind != "onnx":
        checkpoint = read_checkpoint(file, kind)
        return lower_checkpoint(checkpoint, arch=arch, input_shape=input_shape, mean=mean, std=std)
    if arch is not None:
        raise UsageError(f"arch: {file} is an ONNX file, which holds its own graph; leave arch out")
    from lpverify.lowering.onnx_file import lower_onnx

    return lower_onnx(read_onnx_bytes(file), str(file), input_shape=input_shape, mean=mean, std=std)
