"""Networks on which floating-point verifiers are known to fail. Every answer is by algebra; all have one output."""

from __future__ import annotations

import torch
from torch import Tensor

from lpverify.linear import Dense, Diagonal
from lpverify.network import Affine, Input, Network, ReLU


def _tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _two_layers(weight: object, bias: object, out: object, constant: float) -> Network:
    """constant + out . relu(weight x + bias)."""
    first, last = _tensor(weight), _tensor([out])
    return Network((
        Input((first.shape[1],)), Affine((0,), (Dense(first),), _tensor(bias), (len(first),)), ReLU(1),
        Affine((2,), (Dense(last),), _tensor([constant]), (1,)),
    ))  # fmt: skip


def path_absorber(w: int, kappa: float, m: float, order: tuple[int, ...] = (0, 1, 2)) -> Network:
    """m - kappa (a1 + a2 - a3) with a1 = a3 = 2^w x and a2 = x: least m - kappa at x = 1 of [0, 1].

    ``order`` is that of the three neurons: which sums lose the 1 depends on it.
    """
    return long_path(2.0 ** (w // 2), 2.0 ** (w - w // 2), kappa, m, order)


def long_path(one: float, two: float, kappa: float, m: float, order: tuple[int, ...] = (0, 1, 2)) -> Network:
    """As ``path_absorber``, with 2^w as a product over two layers; 2^120 2^20 overflows in float32."""
    first, second, last = ([values[i] for i in order] for values in ((one, 1, one), (two, 1, two), (-1, -1, 1)))
    return Network((
        Input((1,)), Affine((0,), (Dense(_tensor([[f] for f in first])),), _tensor([0.0] * 3), (3,)), ReLU(1),
        Affine((2,), (Diagonal(_tensor(second), (3,)),), _tensor([0.0] * 3), (3,)), ReLU(3),
        Affine((4,), (Dense(kappa * _tensor([last])),), _tensor([m]), (1,)),
    ))  # fmt: skip


def absorber(w: int, kappa: float, m: float) -> Network:
    """m - kappa (relu(x + 2^w) - relu(2^w)): least m - kappa at x = 1."""
    return _two_layers([[1.0], [0.0]], [2.0**w, 2.0**w], [-kappa, kappa], m)


def reverse_absorber(w: int, kappa: float, m: float) -> Network:
    """m - kappa relu(relu(x) + relu(2^w) - relu(x + 2^w)): m everywhere; float32 sums give m - kappa for w >= 25."""
    return Network((
        Input((1,)), Affine((0,), (Dense(_tensor([[0.0], [1.0], [1.0]])),), _tensor([2.0**w, 2.0**w, 0.0]), (3,)),
        ReLU(1), Affine((2,), (Dense(_tensor([[1.0, -1.0, 1.0]])),), _tensor([0.0]), (1,)), ReLU(3),
        Affine((4,), (Dense(_tensor([[-kappa]])),), _tensor([m]), (1,)),
    ))  # fmt: skip


def rescaled_line(k: int, m: float) -> Network:
    """m - 10 x as relu(2^k x) with output weight -10 2^-k: least m - 10 at x = 1."""
    return _two_layers([[2.0**k]], [0.0], [-10.0 * 2.0**-k], m)


def plateau(n: int, eta: float) -> Network:
    """n/2 eta 2^30 - sum of eta relu(2^30 x_i): least -n/2 eta 2^30 at all ones."""
    return _two_layers((2.0**30 * torch.eye(n)).tolist(), [0.0] * n, [-eta] * n, n / 2 * eta * 2.0**30)


def valley(delta: float) -> Network:
    """|x - 1/2| - delta: least -delta, at x = 1/2 alone."""
    return _two_layers([[1.0], [-1.0]], [-0.5, 0.5], [1.0, 1.0], -delta)


def big_m(power: int, g: float) -> Network:
    """g/2 - (relu(s) - relu(s - g)) with s = 2^power (x - 1/2): least -g/2 at x = 1."""
    slope = 2.0**power
    return _two_layers([[slope], [slope]], [-slope / 2, -slope / 2 - g], [-1.0, 1.0], g / 2)
