"""Integer products: rounded down by less than one unit, and the same by columns as by rows."""

from __future__ import annotations

import random

import pytest
from networks import NETWORKS
from small_certificates import plain

from lpverify.certificate.exact_linear import Matrix, convert, scaled


def matrices() -> list[Matrix]:
    nodes = [node for name in NETWORKS for node in convert(plain(NETWORKS[name](1))).nodes]
    return [matrix for node in nodes for matrix in node.maps]


@pytest.mark.parametrize("bits", [1, 20, 40, 60, 61, 62, 63, 64, 100, 130, 200])
def test_a_product_rounded_down_is_at_most_one_unit_below(bits: int) -> None:
    source = random.Random(bits)
    for matrix in matrices():
        for _ in range(20):
            units = source.sample(range(len(matrix.rows)), source.randint(1, len(matrix.rows)))
            v = {unit: source.randrange(-(2**bits), 2**bits + 1) for unit in units}
            exactly, (rounded, exponent) = matrix.transpose(v), matrix.transpose_down(v)
            for unit in exactly.keys() | rounded.keys():
                less = exactly.get(unit, 0) - scaled(rounded.get(unit, 0), exponent)
                assert 0 <= less < max(scaled(1, exponent), 1)
                assert abs(rounded.get(unit, 0)) < 2**63
            # Enough digits stay: the largest entry that the product could have fills 60 bits.
            assert scaled(2**58, exponent) <= max(matrix.largest, 1) * sum(map(abs, v.values())) or not any(v.values())


@pytest.mark.parametrize("magnitude", [False, True])
def test_products_by_columns_are_those_by_rows(magnitude: bool) -> None:
    source, dense = random.Random(0), 0
    for matrix in matrices():
        dense += matrix.dense
        for bits in (1, 40, 64, 90):
            x = [source.randrange(-(2**bits), 2**bits + 1) * source.randint(0, 1) for _ in range(max(matrix.units) + 1)]
            assert matrix.apply_often(x, magnitude=magnitude) == matrix.apply(x, magnitude=magnitude)
    assert dense
