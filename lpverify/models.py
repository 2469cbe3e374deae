"""The architectures of the papers, by name.

``build(name)`` gives an untrained torch module, ``input_shape(name)`` the shape of one input. Besides the names
of ARCHITECTURES there are families with numbers in the name: ``wide-4``, ``deep-2``, ``wide-4-cifar``,
``fc-784-100-10``, and any chain of convolutions and fully connected layers, written as
``cnn(3x32x32; conv 16 4 2 0; conv 32 4 2 0; fc 100; fc 10)``, where ``conv`` is followed by channels, kernel
size, stride and padding.

Sources: Wong & Kolter 2018 (small, har, toy2d), Wong et al. 2018, "Scaling provable adversarial defenses"
(large, resnet, wide-K, deep-K). State dictionaries of the authors' checkpoints fit without renaming.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

from torch import Tensor, nn

from lpverify.errors import UsageError

MNIST = (1, 28, 28)
CIFAR = (3, 32, 32)
Shape = tuple[int, ...]
Layer = tuple[str, tuple[int, ...]]


class Branches(nn.Module):
    """A sum of convolutions of earlier values: ``Ws[k]`` reads the k-th of the last ``reach`` values.

    The parameter names are those of the authors' checkpoints.
    """

    def __init__(self, reach: int, convolutions: dict[int, nn.Conv2d]) -> None:
        super().__init__()
        self.reach = reach
        self.Ws = nn.ModuleDict({str(k): conv for k, conv in convolutions.items()})

    def forward(self, values: list[Tensor]) -> Tensor:
        """Values (B, C, H, W), oldest first -> (B, C', H', W')."""
        recent = values[-self.reach :]
        terms: list[Tensor] = [conv(recent[int(k)]) for k, conv in self.Ws.items()]
        return sum(terms[1:], start=terms[0])


class ResidualSequential(nn.Sequential):
    """Layers in sequence, among which ``Branches`` see all the values before them."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, n)."""
        values = [x]
        for layer in self:
            values.append(layer(values) if isinstance(layer, Branches) else layer(values[-1]))
        return values[-1]


def chain(shape: Shape, layers: list[Layer]) -> nn.Sequential:
    """Convolutions ("conv": channels, kernel, stride, padding) and then full layers ("fc": units), ReLUs between.

    Raises:
        UsageError: if a convolution follows a full layer or does not fit its input.
    """
    modules: list[nn.Module] = []
    flat = len(shape) == 1
    for kind, numbers in layers:
        if kind == "conv":
            if flat:
                raise UsageError("architecture: a convolution cannot follow a fully connected layer")
            channels, kernel, stride, padding = numbers
            height, width = ((n + 2 * padding - kernel) // stride + 1 for n in shape[1:])
            if min(height, width) < 1:
                raise UsageError(f"architecture: convolution {numbers} does not fit an input of shape {shape}")
            modules += [nn.Conv2d(shape[0], channels, kernel, stride=stride, padding=padding), nn.ReLU()]
            shape = (channels, height, width)
        else:
            if not flat:
                modules.append(nn.Flatten())
                shape, flat = (math.prod(shape),), True
            modules += [nn.Linear(shape[0], numbers[0]), nn.ReLU()]
            shape = (numbers[0],)
    return nn.Sequential(*modules[:-1])


def small(shape: Shape = MNIST) -> nn.Sequential:
    """Two strided convolutions of 16 and 32 channels and a layer of 100 units."""
    return chain(shape, [("conv", (16, 4, 2, 1)), ("conv", (32, 4, 2, 1)), ("fc", (100,)), ("fc", (10,))])


def large(shape: Shape = MNIST) -> nn.Sequential:
    """Four convolutions of 32, 32, 64, 64 channels and two layers of 512 units."""
    convs: list[Layer] = [("conv", (c, *k)) for c in (32, 64) for k in ((3, 1, 1), (4, 2, 1))]
    return chain(shape, [*convs, ("fc", (512,)), ("fc", (512,)), ("fc", (10,))])


def wide(k: int, shape: Shape = MNIST) -> nn.Sequential:
    """``small`` with its widths scaled: 4k and 8k channels, 128k units."""
    layers: list[Layer] = [("conv", (4 * k, 4, 2, 1)), ("conv", (8 * k, 4, 2, 1)), ("fc", (128 * k,)), ("fc", (10,))]
    return chain(shape, layers)


def deep(k: int, shape: Shape = MNIST) -> nn.Sequential:
    """k convolutions of 8 and k of 16 channels, the last of each group strided, and a layer of 100 units."""
    convs: list[Layer] = []
    for channels in (8, 16):
        convs += [("conv", (channels, 3, 1, 1))] * (k - 1) + [("conv", (channels, 4, 2, 1))]
    return chain(shape, [*convs, ("fc", (100,)), ("fc", (10,))])


def resnet() -> nn.Sequential:
    """The residual CIFAR network: a convolution of 16 channels, blocks of 16, 16, 32, 64, a layer of 1000.

    A block is relu(skip(x) + second(relu(first(x)))); the blocks of 32 and 64 channels halve the image.
    """
    modules: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for before, channels, stride in ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 64, 2)):
        first = nn.Conv2d(before, channels, 3 if stride == 1 else 4, stride=stride, padding=1)
        skip = nn.Conv2d(before, channels, stride, stride=stride)
        second = nn.Conv2d(channels, channels, 3, padding=1)
        modules += [Branches(1, {0: first}), nn.ReLU(), Branches(3, {0: skip, 2: second}), nn.ReLU()]
    modules += [nn.Flatten(), nn.Linear(64 * 8 * 8, 1000), nn.ReLU(), nn.Linear(1000, 10)]
    return ResidualSequential(*modules)


def fully_connected(sizes: list[int]) -> nn.Sequential:
    """Flatten, then linear layers of the given sizes (the first is the input's) with ReLUs between."""
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def har() -> nn.Sequential:
    """561 features of the HAR data, 500 hidden units, 6 classes."""
    return chain((561,), [("fc", (500,)), ("fc", (6,))])


def toy2d() -> nn.Sequential:
    """The 2-100-100-100-100-2 network of the paper's figures."""
    return chain((2,), [("fc", (n,)) for n in (100, 100, 100, 100, 2)])


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "small": (small, MNIST),
    "small-cifar": (lambda: small(CIFAR), CIFAR),
    "large": (large, MNIST),
    "large-cifar": (lambda: large(CIFAR), CIFAR),
    "resnet": (resnet, CIFAR),
    "har": (har, (561,)),
    "toy2d": (toy2d, (2,)),
}
FAMILIES = ("wide-K", "deep-K", "wide-K-cifar", "deep-K-cifar", "fc-N-...-N", "cnn(CxHxW; conv C K S P; ...; fc N)")


def build(name: str) -> nn.Module:
    """The untrained module of the architecture ``name``.

    Raises:
        UsageError: for an unknown name or numbers that do not fit together.
    """
    return _find(name)[0]()


def input_shape(name: str) -> Shape:
    """The shape of one input of the architecture ``name``; raises as ``build``."""
    return _find(name)[1]


def _find(name: str) -> tuple[Callable[[], nn.Module], Shape]:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if match := re.fullmatch(r"(wide|deep)-([1-9]\d{0,2})(-cifar)?", name):
        family, k, image = wide if match[1] == "wide" else deep, int(match[2]), CIFAR if match[3] else MNIST
        return lambda: family(k, image), image
    if re.fullmatch(r"fc(-[1-9]\d{0,6}){2,}", name):
        sizes = [int(n) for n in name.split("-")[1:]]
        return lambda: fully_connected(sizes), (sizes[0],)
    if name.startswith("cnn(") and name.endswith(")"):
        shape, layers = _parse_chain(name)
        return lambda: chain(shape, layers), shape
    known = ", ".join([*ARCHITECTURES, *FAMILIES])
    raise UsageError(f"architecture: {name!r} is not one of {known}; or give package.module:function")


def _parse_chain(name: str) -> tuple[Shape, list[Layer]]:
    head, *parts = [part.strip() for part in name[4:-1].split(";")]
    if not re.fullmatch(r"\d{1,6}(x\d{1,6}){0,2}", head) or head.count("x") == 1 or not parts:
        raise UsageError(f"architecture: {name!r} must begin with a shape such as 3x32x32 or 784, then layers")
    layers: list[Layer] = []
    for part in parts:
        kind, *numbers = part.split() or [""]
        wanted = {"conv": 4, "fc": 1}.get(kind)
        if wanted != len(numbers) or not all(re.fullmatch(r"\d{1,6}", n) for n in numbers):
            raise UsageError(f"architecture: {part!r} is neither 'conv CHANNELS KERNEL STRIDE PADDING' nor 'fc UNITS'")
        layers.append((kind, tuple(int(n) for n in numbers)))
        if 0 in layers[-1][1][:3]:
            raise UsageError(f"architecture: {part!r} has a 0 where a positive number must stand")
    return tuple(int(n) for n in head.split("x")), layers
