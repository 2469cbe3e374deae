"""Each torch layer: the lowered network equals the module to 1e-12, and so do the gradients of every parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lpverify.errors import ModelError, UnsupportedLayerError
from lpverify.linear import Conv2d, Dense, Diagonal, Sparse
from lpverify.lowering import lower_module, trace
from lpverify.network import Affine, Network, ReLU

Function = Callable[[Tensor], Tensor]


class Apply(nn.Module):
    """A function as a module, after some layers so that folding has neighbours."""

    def __init__(self, function: Function, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.function(x)


def randomised(module: nn.Module) -> nn.Module:
    """Random parameters and running statistics in float64 (fresh modules have zeros and ones)."""
    generator = torch.Generator().manual_seed(0)
    module = module.double()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return module


def assert_same(module: nn.Module, shape: tuple[int, ...]) -> Network:
    """Values and gradients agree; every parameter that the module uses is reached. Returns the network."""
    module = randomised(module).eval()
    network = lower_module(module, shape, dtype=torch.float64)
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    ours, theirs = network.forward(x), module(x)
    scale = max(1.0, float(theirs.detach().abs().max()))
    assert float((ours - theirs.flatten(1)).detach().abs().max()) <= 1e-12 * scale
    assert network.output_size == theirs[0].numel()
    parameters = [p for p in module.parameters() if p.requires_grad]
    if parameters:
        weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        wanted = torch.autograd.grad((theirs * weight).sum(), parameters)
        found = torch.autograd.grad((ours * weight.flatten(1)).sum(), parameters)
        for a, b in zip(found, wanted, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max() + 1))
    return network


def affine_maps(network: Network) -> list[list[str]]:
    return [[type(m).__name__ for m in node.maps] for node in network.nodes if isinstance(node, Affine)]


IMAGE = (3, 9, 8)
# fmt: off
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear on rows": (lambda: nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)), (4, 5)),
    "matmul": (lambda: Apply(lambda x: x @ torch.arange(6.0).double().view(3, 2), nn.Linear(4, 3)), (4,)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), IMAGE),
    "conv stride": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 0)), IMAGE),
    "conv dilation": (lambda: nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2), IMAGE),
    "conv groups": (lambda: nn.Conv2d(3, 6, 3, groups=3), IMAGE),
    "conv same, odd": (lambda: nn.Conv2d(3, 4, 3, padding="same"), IMAGE),
    "conv same, even": (lambda: nn.Conv2d(3, 4, 4, padding="same", dilation=1), IMAGE),
    "conv 1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 10)),
    "batch-norm after conv": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), IMAGE),
    "batch-norm before padded conv": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)), IMAGE),
    "batch-norm before grouped conv": (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2)),
        (4, 6, 5),
    ),
    "batch-norm 1d": (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), (5,)),
    "batch-norm without affine": (lambda: nn.BatchNorm1d(5, affine=False), (5,)),
    "avg-pool": (lambda: Apply(lambda x: F.avg_pool2d(x, 2), nn.Conv2d(3, 2, 3)), IMAGE),
    "avg-pool padded": (lambda: nn.AvgPool2d(3, stride=2, padding=1), IMAGE),
    "avg-pool without padding in the count": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "avg-pool divisor": (lambda: nn.AvgPool2d(3, 2, divisor_override=5), IMAGE),
    "adaptive avg-pool": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), IMAGE),
    "adaptive avg-pool to 3x2": (lambda: nn.AdaptiveAvgPool2d((3, 2)), IMAGE),
    "mean": (lambda: Apply(lambda x: x.mean((2, 3)), nn.Conv2d(3, 4, 3)), IMAGE),
    "mean of one axis": (lambda: Apply(lambda x: x.mean(2, keepdim=True)), IMAGE),
    "max-pool": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2)), IMAGE),
    "max-pool 3x2": (lambda: nn.MaxPool2d((3, 2), stride=(1, 2)), IMAGE),
    "max-pool padded": (lambda: nn.MaxPool2d(3, stride=2, padding=1), IMAGE),
    "max-pool padded after relu": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)), IMAGE),
    "max-pool dilated": (lambda: nn.MaxPool2d(2, stride=1, padding=1, dilation=3), IMAGE),
    "max-pool 1x1": (lambda: nn.MaxPool2d(1, stride=2), IMAGE),
    "flatten": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(84, 3)), IMAGE),
    "reshape": (lambda: Apply(lambda x: x.reshape(x.size(0), 2, -1)[:, 1]), IMAGE),
    "view": (lambda: Apply(lambda x: x.view(-1, 216)), IMAGE),
    "permute": (lambda: Apply(lambda x: x.permute(0, 2, 3, 1).flatten(1), nn.Conv2d(3, 2, 3)), IMAGE),
    "channels last": (
        lambda: Apply(lambda x: (x.permute(0, 2, 3, 1) * torch.arange(1.0, 3).double()).relu().permute(0, 3, 1, 2),
                      nn.Conv2d(3, 2, 3)),
        IMAGE,
    ),
    "transpose of a sum": (lambda: Apply(lambda x: x.transpose(1, 2) + x.reshape(x.size(0), 9, 3, 8)), IMAGE),
    "squeeze": (lambda: Apply(lambda x: x.unsqueeze(1).squeeze(1).unsqueeze(-1)), (5,)),
    "slices": (lambda: Apply(lambda x: torch.cat([x[:, 1:3], x[:, ::2], x[:, 4:5]], 1), nn.Linear(4, 5)), (4,)),
    "chunk": (lambda: Apply(lambda x: torch.maximum(*x.chunk(2, 1)), nn.Linear(4, 6)), (4,)),
    "pad": (lambda: Apply(lambda x: F.pad(x, (1, 2, 0, 3)), nn.Conv2d(3, 2, 3)), IMAGE),
    "pad with a value": (lambda: Apply(lambda x: F.pad(x, (1, -2, 0, 3), value=1.5), nn.Conv2d(3, 2, 3)), IMAGE),
    "add a constant": (lambda: Apply(lambda x: 3 + x + torch.arange(8.0).double(), nn.Conv2d(3, 2, 3, 1, 1)), IMAGE),
    "subtract": (lambda: Apply(lambda x: 1 - (x - 2.5), nn.Linear(4, 5)), (4,)),
    "multiply and divide": (lambda: Apply(lambda x: -x * 3 / torch.arange(1.0, 6).double(), nn.Linear(4, 5)), (4,)),
    "sum with a factor": (lambda: Apply(lambda x: torch.add(x, x.relu(), alpha=3), nn.Linear(4, 5)), (4,)),
    "broadcast sum": (lambda: Apply(lambda x: x + x[:, :, :1], nn.Conv2d(3, 2, 3)), IMAGE),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.1)), (4,)),
    "relu": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 5), nn.ReLU()), (4,)),
    "relu twice": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 2)), (4,)),
    "leaky relu": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.1), nn.Linear(5, 2)), (4,)),
    "prelu": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4)), IMAGE),
    "hardtanh": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Hardtanh(-0.5, 0.7)), (4,)),
    "relu6": (lambda: Apply(lambda x: F.relu6(5 * x), nn.Linear(4, 5)), (4,)),
    "clamp": (lambda: Apply(lambda x: x.clamp(-1, 2) + x.clamp(min=0.3) - x.clamp(max=0.1), nn.Linear(4, 5)), (4,)),
    "abs": (lambda: Apply(lambda x: x.abs() - (-x).abs().relu() + torch.abs(x - 1), nn.Linear(4, 5)), (4,)),
    "maximum": (lambda: Apply(lambda x: torch.maximum(x, 2 * x - 1) + torch.minimum(x, -x), nn.Linear(4, 5)), (4,)),
    "weight-norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), (4,)),
    "tied weights": (lambda: Apply(lambda x: x, *([nn.Linear(4, 4)] * 2)), (4,)),
}
# fmt: on


@pytest.mark.parametrize("name", MODULES)
def test_layer_is_exact_and_differentiable(name: str) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    assert_same(make(), shape)


class Residual(nn.Module):
    """A pre-activation residual block with batch-norm, a strided shortcut and an identity shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.inner = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.side = nn.Conv2d(3, 4, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.side(x) + self.second(self.inner(self.first(self.norm(x).relu())).relu())
        out: Tensor = y.relu() + y
        return out


def test_residual_block() -> None:
    network = assert_same(Residual(), IMAGE)
    assert ["Conv2d", "Conv2d"] in affine_maps(network)
    assert not any("Sparse" in kinds for kinds in affine_maps(network))


def test_batch_norm_and_normalisation_leave_one_convolution() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.register_buffer("mean", torch.rand(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(self.conv((x - self.mean) / 0.25)).relu()
            return out

    network = assert_same(Normalised(), IMAGE)
    assert affine_maps(network) == [["Conv2d"]] and isinstance(network.nodes[-1], ReLU)
    assert any(note.startswith("folded with a rounding in float64") for note in network.notes)


def test_transposes_between_convolutions_cost_nothing() -> None:
    make, shape = MODULES["channels last"]
    assert affine_maps(assert_same(make(), shape)) == [["Conv2d"]]


def test_max_pool_and_average_pool_are_convolutions() -> None:
    assert {k for kinds in affine_maps(assert_same(nn.MaxPool2d(3, 2), IMAGE)) for k in kinds} <= {"Conv2d", "Diagonal"}
    network = assert_same(nn.AvgPool2d(2), IMAGE)
    assert affine_maps(network) == [["Conv2d"]] and not network.notes
    assert "rounded" in assert_same(nn.AvgPool2d(3), IMAGE).notes[0]


def test_live_parameters_are_the_modules_own() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    network = lower_module(module, (1, 4, 4))
    first, last = network.nodes[1], network.nodes[-1]
    assert isinstance(first, Affine) and isinstance(last, Affine)
    assert isinstance(first.maps[0], Conv2d) and first.maps[0].weight is module[0].weight
    assert isinstance(last.maps[0], Dense) and last.maps[0].weight is module[3].weight
    with torch.no_grad():
        module[3].bias.add_(1.0)
    x = torch.rand(2, 1, 4, 4)
    assert torch.allclose(trace(module, (1, 4, 4)).network().forward(x), module(x), atol=1e-6)


def test_dtype_casts_differentiably_and_training_flags_are_restored() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 2))
    module[1].eval()
    network = lower_module(module, (4,), dtype=torch.float64)
    assert network.dtype == torch.float64
    assert [m.training for m in module] == [True, False, True, True] and module.training
    network.forward(torch.rand(3, 4, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_numbers_in_the_code_are_rounded_as_torch_rounds_them() -> None:
    module = Apply(lambda x: x * 0.1)
    module.register_buffer("float32", torch.zeros(()))
    network = lower_module(module, (2,), dtype=torch.float64)
    node = network.nodes[1]
    assert isinstance(node, Affine) and isinstance(node.maps[0], Diagonal)
    assert node.maps[0].weight[0].item() == torch.tensor(0.1).item()


def test_dead_code_is_dropped() -> None:
    def function(x: Tensor) -> Tensor:
        x.relu().abs()
        return x[:, :2]

    network = assert_same(Apply(function, nn.Linear(4, 5)), (4,))
    assert affine_maps(network) == [["Dense"]] and len(network.nodes) == 2


REFUSED: dict[str, tuple[Function, str]] = {
    "sigmoid": (torch.sigmoid, r"operator aten.sigmoid.default at node 'sigmoid'"),
    "softmax": (lambda x: F.softmax(x, 1), r"operator aten.softmax.int at node 'softmax'"),
    "gelu": (F.gelu, r"operator aten.gelu.default at node 'gelu'"),
    "product": (lambda x: x * x, r"node 'mul': a product of two values"),
    "quotient": (lambda x: 1 / x, r"operator aten.reciprocal.default|node 'div': a division by"),
    "batch mean": (lambda x: x - x.mean(0), r"node 'mean': an operation along the batch axis"),
    "batch mixing reshape": (lambda x: x.reshape(-1), r"node 'view|node 'reshape': a reshape"),
    "batch flip": (lambda x: x.flip(0), r"operator aten.flip.default at node 'flip'"),
    "batch transpose": (lambda x: x.permute(1, 0), r"node 'permute': a transpose that moves the batch"),
    "random": (lambda x: x + torch.rand(4), r"operator aten.rand.default at node 'rand' is random"),
    "branch": (lambda x: x if x.sum() > 0 else -x, r"control flow depends on the input's values"),
    "sort": (lambda x: x.sort(1)[0], r"operator aten.sort.default at node 'sort'"),
    "cast": (lambda x: x.to(torch.float16), r"node '.*': a cast to torch.float16"),
    "constant output": (lambda x: torch.ones(2, 3), r"does not depend on its input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_operator_and_node(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(ModelError, match=message) as caught:
        lower_module(Apply(function), (4,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), r"padding of mode 'reflect'"),
        (nn.MaxPool2d(2, stride=2, ceil_mode=True), r"ceil_mode"),
        (nn.BatchNorm2d(1, track_running_stats=False), r"operator aten|statistics of the batch"),
        (nn.AdaptiveAvgPool2d(4), r"adaptive pooling"),
        (nn.ELU(), r"operator aten.elu.default at node '0'"),
        (nn.Sigmoid(), r"operator aten.sigmoid.default at node '0'"),
    ],
)
def test_refused_layers_are_named_by_their_path(layer: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        lower_module(nn.Sequential(layer), (1, 5, 5))


def test_two_outputs_and_wrong_shapes_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x.relu()

    with pytest.raises(ModelError, match="returns 2 outputs"):
        lower_module(Two(), (4,))
    with pytest.raises(ModelError, match=r"torch.export fails for an input of shape \(3,\)"):
        lower_module(nn.Linear(4, 2), (3,))


@given(
    channels=st.integers(1, 3), out=st.integers(1, 3), groups=st.integers(1, 2),
    height=st.integers(4, 8), width=st.integers(4, 8), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), norm=st.booleans(),
)  # fmt: skip
@settings(max_examples=15, deadline=None, derandomize=True)
def test_convolution_shapes(
    channels: int, out: int, groups: int, height: int, width: int, norm: bool, **geometry: Any
) -> None:
    sizes = zip(geometry["kernel"], geometry["padding"], geometry["dilation"], (height, width), strict=True)
    if any(d * (k - 1) + 1 > n + 2 * p for k, p, d, n in sizes):
        return
    stride, padding, dilation = geometry["stride"], geometry["padding"], geometry["dilation"]
    channels, out = channels * groups, out * groups
    conv = nn.Conv2d(channels, out, geometry["kernel"], stride, padding, dilation, groups)
    layers = [nn.BatchNorm2d(channels), conv, nn.BatchNorm2d(out)] if norm else [conv]
    network = assert_same(nn.Sequential(*layers, nn.ReLU()), (channels, height, width))
    (node,) = (n for n in network.nodes if isinstance(n, Affine))
    assert isinstance(node.maps[0], Conv2d) and not isinstance(node.maps[0], Sparse)
    assert affine_maps(network) == [["Conv2d"]]
