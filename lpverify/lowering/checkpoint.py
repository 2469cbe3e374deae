"""Checkpoint files -> named tensors -> Network. Nothing here unpickles code."""

from __future__ import annotations

import importlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lpverify import models
from lpverify.arrayfile import NOT_A_HEADER, read_npz
from lpverify.errors import DataError, ModelError, UsageError
from lpverify.linear import Shape
from lpverify.lowering.builder import Builder, PerChannel
from lpverify.lowering.modelfile import SAVE
from lpverify.lowering.module import trace
from lpverify.network import Network

MAX_LAYERS = 64
# A state dictionary names no activations. This is what its network is called then.
ASSUMED = "read as linear layers in the file's order with ReLUs between"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file's tensors, in float64 where they were floating point, and its text metadata.

    Attributes:
        kind: of the file: "torch" (tensors in the order of the layers), "safetensors" (by name), "npz" or "folder".
    """

    name: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    notes: tuple[str, ...]
    kind: str


def read_checkpoint(path: Path, kind: str) -> Checkpoint:
    """The tensors of a file of the given kind ("torch", "safetensors", "npz", "folder").

    Raises:
        ModelError: if it holds anything but named finite tensors, or is truncated or damaged.
    """
    metadata: dict[str, str] = {}
    if kind == "torch":
        tensors = _torch_tensors(path)
    elif kind == "safetensors":
        tensors, metadata = _safetensors(path)
    else:
        tensors = _numpy_layers(path, kind)
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()} - {"float64"}
    notes = (f"weights are widened exactly from {' and '.join(sorted(kinds))} to float64",) if kinds else ()
    wide = {k: _widened(path, k, t) for k, t in tensors.items()}
    return Checkpoint(str(path), wide, metadata, notes, kind)


def lower_checkpoint(
    checkpoint: Checkpoint,
    *,
    arch: str | None = None,
    input_shape: Shape | None = None,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> Network:
    """The network of a checkpoint: of the architecture ``arch``, or of fully connected layers without one.

    A ``.safetensors`` header may name ``arch``, ``input_shape``, ``mean`` and ``std``; arguments win.

    Raises:
        UsageError: for an unknown architecture or an argument that does not fit.
        ModelError: if the tensors do not fit the architecture.
    """
    described = _described(checkpoint)
    arch = arch or described.get("arch")
    input_shape = input_shape or described.get("input_shape")
    mean = described.get("mean") if mean is None else mean
    std = described.get("std") if std is None else std
    if arch is None:
        return _fully_connected(checkpoint, input_shape, mean, std, described.get("input_shape"))
    module, shape = architecture(arch, input_shape)
    _fill(module, checkpoint, arch)
    lowered = trace(module, shape).network(torch.float64, mean=mean, std=std).detach()
    return Network(lowered.nodes, (*checkpoint.notes, *lowered.notes))


# Reading ------------------------------------------------------------------------------------------------------


def _torch_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"Unsupported (?:class|operand) (\S+)", str(error))
        what = f" ({found[1].rstrip('.,')})" if found else ""
        raise ModelError(f"{path}: damaged, or holds pickled code or a whole module{what}; {SAVE}") from None
    # Damaged bytes make torch raise RuntimeError, EOFError, KeyError, AttributeError, UnicodeDecodeError and more.
    except Exception as error:
        raise ModelError(f"{path}: truncated or damaged torch file ({type(error).__name__}); save it again") from None
    return _state_dict(path, loaded)


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The state dictionary, which may lie under "state_dict", there perhaps in a list of one."""
    found = loaded
    if isinstance(loaded, Mapping) and "state_dict" in loaded:
        found = loaded["state_dict"]
        if isinstance(found, list):
            if len(found) != 1:
                raise ModelError(f"{path}: 'state_dict' is a list of {len(found)}; save the one network that is meant")
            found = found[0]
    if not isinstance(found, Mapping) or not found:
        raise ModelError(f"{path}: holds a {type(found).__name__}, expected a dict of tensors; {SAVE}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ModelError(f"{path}: entry {key!r} is a {type(value).__name__}, expected a tensor; {SAVE}")
    return dict(found)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: truncated or damaged safetensors file ({reason})") from None


def _numpy_layers(path: Path, kind: str) -> dict[str, Tensor]:
    """W1, B1, W2, B2, ... of layers y = x W + B, as a state dictionary of linear layers."""
    names = tuple(f"{letter}{k}" for k in range(1, MAX_LAYERS + 1) for letter in "WB")
    try:
        if kind == "npz":
            arrays = read_npz(path, names)
        else:
            files = {name: path / f"{name}.npy" for name in names}
            arrays = {n: np.load(f, mmap_mode="r", allow_pickle=False) for n, f in files.items() if f.is_file()}
    except (DataError, OSError, ValueError, EOFError, RecursionError, *NOT_A_HEADER) as error:
        text = " ".join(str(error).split())[:250]
        raise ModelError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    count = len(arrays) // 2
    if not count or set(arrays) != set(names[: 2 * count]):
        raise ModelError(f"{path}: has the arrays {', '.join(sorted(arrays)) or 'none'}, expected W1, B1, W2, B2, ...")
    tensors = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ModelError(f"{path}: {name} is of type {array.dtype}, expected floating point")
        tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
        if name[0] == "W":
            tensors[f"{name[1:]}.weight"] = tensor.T
        else:
            tensors[f"{name[1:]}.bias"] = tensor.flatten()
    return tensors


def _widened(path: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise ModelError(f"{path}: {key} is a {tensor.layout} tensor of {tensor.dtype}, expected plain real numbers")
    if not tensor.is_floating_point():
        return tensor
    wide = tensor.detach().double()
    if not bool(wide.isfinite().all()):
        index = tuple(int(i) for i in (~wide.isfinite()).nonzero()[0])
        raise ModelError(f"{path}: {key} is {float(wide[index])} at index {index}")
    return wide


# Lowering -----------------------------------------------------------------------------------------------------


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the file's own header says of its network. It may name an architecture, never code to import."""
    known: dict[str, Any] = {}
    for key in ("input_shape", "mean", "std"):
        if key in checkpoint.metadata:
            try:
                value = json.loads(checkpoint.metadata[key])
            except (ValueError, RecursionError):
                value = None
            numbers = value if isinstance(value, list) else [value]
            wanted = (int,) if key == "input_shape" else (int, float)
            if not numbers or not all(type(n) in wanted for n in numbers):
                raise ModelError(f"{checkpoint.name}: header entry {key} is {checkpoint.metadata[key]!r}, not numbers")
            known[key] = tuple(numbers) if isinstance(value, list) or key == "input_shape" else value
    if "arch" in checkpoint.metadata:
        known["arch"] = checkpoint.metadata["arch"]
        try:
            models.input_shape(known["arch"])
        except UsageError as error:
            raise ModelError(f"{checkpoint.name}: header entry arch: {error}") from None
    return known


def _fully_connected(
    checkpoint: Checkpoint,
    input_shape: Shape | None,
    mean: PerChannel | None,
    std: PerChannel | None,
    said: Shape | None,
) -> Network:
    """Linear layers in the order of the file, with ReLUs between; ``said`` is the input shape in its header, if any."""
    layers = _chained(checkpoint)
    width = layers[0][1].shape[1]
    shape = tuple(input_shape) if input_shape else (width,)
    builder = Builder(shape, torch.float64)
    if builder.input.size != width:
        if shape == said:
            raise ModelError(f"{checkpoint.name}: its header says input_shape {said}, its first layer takes {width}")
        raise UsageError(f"input_shape: {shape} has {builder.input.size} entries, {checkpoint.name} takes {width}")
    # Arrays named W1, B1, W2, ... are weights of ReLU networks by their convention.
    meant = ASSUMED if checkpoint.kind in ("torch", "safetensors") else "read as linear layers with ReLUs between"
    for note in (*checkpoint.notes, meant):
        builder.note(note)
    value = builder.reshape(builder.normalise(builder.input, mean, std), (width,))
    for position, (name, weight, bias) in enumerate(layers):
        value = builder.relu(value) if position else value
        value = builder.linear(value, weight, bias, name)
    return builder.network(value)


def _chained(checkpoint: Checkpoint) -> list[tuple[str, Tensor, Tensor | None]]:
    """(layer, weight, bias) of a checkpoint that holds nothing but linear layers, each fitting the one before."""
    layers: list[tuple[str, Tensor, Tensor | None]] = []
    left = dict(checkpoint.tensors)
    for key in _numbered(checkpoint) if checkpoint.kind == "safetensors" else checkpoint.tensors:
        layer, _, part = key.rpartition(".")
        if part == "weight" and left[key].ndim == 2 and left[key].is_floating_point():
            weight, bias = left.pop(key), left.pop(f"{layer}.bias", None)
            if bias is not None and tuple(bias.shape) != (len(weight),):
                raise ModelError(f"{checkpoint.name}: {key} is {tuple(weight.shape)}, its bias {tuple(bias.shape)}")
            if layers and layers[-1][1].shape[0] != weight.shape[1]:
                before = tuple(layers[-1][1].shape)
                raise ModelError(f"{checkpoint.name}: {key} {tuple(weight.shape)} does not follow {before}; give arch")
            layers.append((layer, weight, bias))
    if left or not layers:
        key = next(iter(left), "none")
        shape = f" {tuple(left[key].shape)}" if key in left else ""
        raise ModelError(
            f"{checkpoint.name}: not only linear layers ({key}{shape}); give arch (--arch), for example small"
        )
    return layers


def _numbered(checkpoint: Checkpoint) -> list[str]:
    """The tensors' names in the order of the numbers in them, as in 0.weight, 2.weight, 10.weight.

    Raises:
        ModelError: if the layers' names differ in more than one number each.
    """
    found = {key: re.fullmatch(r"(.*?)(\d+)(\D*)", key.rpartition(".")[0]) for key in checkpoint.tensors}
    if len({key.rpartition(".")[0] for key in found}) == 1:
        return list(found)
    if None in found.values() or len({(m[1], m[3]) for m in found.values() if m is not None}) > 1:
        raise ModelError(
            f"{checkpoint.name}: a safetensors file has its tensors by name, and {', '.join(list(found)[:4])} do not "
            "say the order of the layers by one number each; give arch (--arch), or save with torch.save"
        )
    return sorted(found, key=lambda key: int(m[2]) if (m := found[key]) else 0)


def architecture(arch: str, input_shape: Shape | None) -> tuple[nn.Module, Shape]:
    """A module in float64 and the shape of its input, by name or from the user's own package.module:function."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", arch):
        return models.build(arch).double(), tuple(input_shape or models.input_shape(arch))
    place, _, function = arch.partition(":")
    try:
        module = getattr(importlib.import_module(place), function)()
    # The user's own code may raise anything; it is named as theirs.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"arch: {arch} cannot be called ({type(error).__name__}: {reason})") from None
    if not isinstance(module, nn.Module):
        raise UsageError(f"arch: {arch} returned a {type(module).__name__}, expected a torch.nn.Module")
    shape = input_shape or getattr(module, "input_shape", None)
    if not isinstance(shape, (tuple, list)):
        raise UsageError(f"arch: give input_shape (--input-shape), or the module of {arch} an attribute input_shape")
    return module.double(), tuple(int(n) for n in shape)


def _fill(module: nn.Module, checkpoint: Checkpoint, arch: str) -> None:
    """Load the tensors; every key and shape must match."""
    own, given = module.state_dict(), checkpoint.tensors
    wrong = [f"missing {key}" for key in own if key not in given]
    wrong += [f"unexpected {key}" for key in given if key not in own]
    for key in own:
        if key in given and own[key].shape != given[key].shape:
            wrong.append(f"{key} is {tuple(given[key].shape)}, expected {tuple(own[key].shape)}")
        elif key in given and own[key].is_floating_point() != given[key].is_floating_point():
            wrong.append(f"{key} is of type {given[key].dtype}, expected {own[key].dtype}")
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ModelError(f"{checkpoint.name}: does not fit architecture {arch!r}: {'; '.join(wrong[:4])}{more}")
    module.load_state_dict(given)
