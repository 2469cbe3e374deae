"""The eight families of networks that fool verifiers, with their exact answers by algebra; 250 cases or so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hand_made import absorber, big_m, long_path, path_absorber, plateau, rescaled_line, reverse_absorber, valley
from networks import rescaled

from lpverify.network import Affine, Network
from soundness.judging import Case

KAPPA = 10.0
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 2, 0))


def families() -> dict[str, list[Case]]:
    """All cases, by family."""
    found = {
        "path absorber": list(_path_absorbers()),
        "absorber": list(_absorbers()),
        "reverse absorber": list(_reverse_absorbers()),
        "tiny weight": list(_tiny_weights()),
        "plateau": list(_plateaus()),
        "valley": list(_valleys()),
        "big M": list(_big_ms()),
        "overflow": list(_overflows()),
    }
    return found | {"rescaled twin": list(_twins(found))}


def unit_case(name: str, network: Network, least: float | Fraction, *, float32_fails: bool = False) -> Case:
    """The box [0, 1] in every input."""
    return Case(name, network, np.full(network.input_size, 0.5), "0.5", Fraction(least), float32_fails)


def shifted(network: Network, by: float) -> Network:
    """A constant more at the output."""
    last = network.nodes[-1]
    assert isinstance(last, Affine)
    return Network((*network.nodes[:-1], replace(last, bias=last.bias + by)))


def _path_absorbers() -> Iterator[Case]:
    for w in (20, 26, 30, 40, 48, 52, 53, 54, 55, 56, 60):
        for m in (9.0, 10.0, 11.0):
            order = ORDERS[(w + int(m)) % 3]
            yield unit_case(f"path absorber w {w} m {m} order {order}", path_absorber(w, KAPPA, m, order), m - KAPPA)
        yield unit_case(f"path absorber w {w} m 15", path_absorber(w, KAPPA, 15.0), 5)


def _absorbers() -> Iterator[Case]:
    for w in (20, 24, 25, 26, 30, 40, 52, 53, 54, 56, 60):
        for m in (9.0, 10.0, 11.0):
            yield unit_case(f"absorber w {w} m {m}", absorber(w, KAPPA, m), m - KAPPA)


def _reverse_absorbers() -> Iterator[Case]:
    for w in (20, 23, 25, 26, 30, 40, 53, 54, 60):
        for m in (5.0, 0.0, -1.0):
            # In float32 x + 2^23 loses x = 1/2, so that relu(x) + relu(2^23) - relu(x + 2^23) is 1/2, and 10 times that
            # is all of m; the sum loses more for greater w.
            yield unit_case(f"reverse absorber w {w} m {m}", reverse_absorber(w, KAPPA, m), m, float32_fails=w >= 23)


def _tiny_weights() -> Iterator[Case]:
    for k in (20, 30, 31, 34, 40, 60, 100):
        for m in (9.0, 10.0, 11.0):
            yield unit_case(f"tiny weight k {k} m {m}", rescaled_line(k, m), m - KAPPA)


def _plateaus() -> Iterator[Case]:
    for n in (2, 4, 8):
        for power in (-27, -30, -34):
            eta = 2.0**power
            least = -n / 2 * eta * 2.0**30
            for target in (least, 0.0, eta):
                # All of these are few bits: no sum here rounds.
                network = shifted(plateau(n, eta), target - least)
                yield unit_case(f"plateau n {n} eta 2^{power} least {target}", network, target)


def _valleys() -> Iterator[Case]:
    for delta in (0.0, *(sign * 2.0**-power for power in (10, 20, 28, 40) for sign in (1, -1))):
        for x, eps in ((0.5, "0.5"), (0.3125, "0.4"), (0.75, "0.25")):
            yield Case(f"valley delta {delta} about {x}", valley(delta), np.array([x]), eps, -Fraction(delta))


def _big_ms() -> Iterator[Case]:
    for power in (4, 10, 14, 17, 20, 24, 30):
        for g in (1.0, 2.0**-5):
            for by in (0.0, g / 2, g):
                yield unit_case(f"big M 2^{power} g {g} and {by}", shifted(big_m(power, g), by), by - g / 2)


def _overflows() -> Iterator[Case]:
    for one, two in ((120, 20), (100, 40), (120, 7), (64, 64)):
        for m in (9.0, 10.0, 11.0):
            order = ORDERS[one % 3]
            network = long_path(2.0**one, 2.0**two, KAPPA, m, order)
            yield unit_case(f"overflow 2^{one} 2^{two} m {m}", network, m - KAPPA)


def _twins(others: dict[str, list[Case]]) -> Iterator[Case]:
    """Cases of the other families with the first layer times 2^k and the second times 2^-k."""
    base = [others["absorber"][1], others["absorber"][2], others["plateau"][0], others["plateau"][4],
            others["valley"][1], others["valley"][4], others["big M"][1], others["big M"][8]]  # fmt: skip
    for case in base:
        for k in (-34, -17, 17, 34):
            yield replace(case, name=f"{case.name} times 2^{k}", network=rescaled(case.network, 0, k))
