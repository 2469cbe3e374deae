"""What a row becomes and gains at a ReLU, in the rigorous checker; the rounding argument is in ``rigorous_bounds``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpverify.certificate.rigorous_linear import Array, Flags, Index, Rows, Windows, dense
from lpverify.certificate.rigorous_region import TINY, inner, products


@dataclass(frozen=True)
class Explicit:
    """Given multipliers ``values`` (B, m, k) at ``neurons`` (k,), and what is known there.

    They count where ``given`` (B, 1 or m, k) is true; elsewhere the row follows the tables. ``lower`` and ``upper``
    bound z; ``bias`` and ``error`` (E) are those that this ReLU charges; each (B or 1, 1, k).
    """

    neurons: Index
    values: Array
    given: Flags
    lower: Array
    upper: Array
    bias: Array
    error: Array

    def gain(self, w: Array, gamma: float) -> Array:
        """Lower bounds of the sums of phi(w, v; l, u) + v b - |v| E over the neurons, for w (B, m, k): (B, m)."""
        v, lower, upper = self.values, self.lower, self.upper
        at_lower = w * np.maximum(lower, 0.0) - v * lower
        at_upper = w * np.maximum(upper, 0.0) - v * upper
        at_kink = np.where((lower < 0) & (upper > 0), 0.0, np.inf)
        phi = np.minimum(np.minimum(at_lower, at_upper), at_kink)
        # Where a product above overflows, so does size: the gain is then minus infinity or NaN.
        reach = np.maximum(np.abs(lower), np.abs(upper)) + np.abs(self.bias) + self.error
        size = (np.abs(v) + np.abs(w)) * reach
        gains = phi + v * self.bias - np.abs(v) * self.error - (8 * gamma * size + TINY)
        if not gains.shape[2]:
            return np.zeros(gains.shape[:2])
        # One after the other: then neurons that count only for others in the batch do not change the rounding.
        total: Array = np.cumsum(np.where(self.given, gains, 0.0), axis=2)[:, :, -1]
        return total


@dataclass(frozen=True)
class Tables:
    """A ReLU's tables, (B, n) or (B, m, n): slopes and gains for positive and for negative row entries.

    ``explicit`` overrides them at its neurons.
    """

    lower_slope: Array
    upper_slope: Array
    lower_gain: Array
    upper_gain: Array
    explicit: Explicit | None = None

    def select(self, examples: Index) -> Tables:
        """The tables of some examples."""
        return Tables(
            self.lower_slope[examples], self.upper_slope[examples], self.lower_gain[examples], self.upper_gain[examples]
        )


def absorb(rows: Rows, table: Tables, gamma: float, mirrored: bool) -> tuple[Rows, Array, Array]:
    """Rows behind a ReLU and what they add to the bound (and, without stored multipliers, to the mirror's)."""
    own = table.explicit
    if own is None:
        return _by_slopes(rows, table, mirrored)
    rest = dense(rows).copy()
    w = np.take(rest, own.neurons, axis=2)
    rest[:, :, own.neurons] = np.where(own.given, 0.0, w)
    passed, low, high = _by_slopes(rest, table, mirrored)
    passed = dense(passed)
    passed[:, :, own.neurons] = np.where(own.given, own.values, np.take(passed, own.neurons, axis=2))
    return passed, low + own.gain(w, gamma), high


def _by_slopes(rows: Rows, table: Tables, mirrored: bool) -> tuple[Rows, Array, Array]:
    """v = slope * w by the sign of w, and the gains; dense rows are overwritten, which saves half the time."""
    even, odd = (table.lower_slope + table.upper_slope) / 2, (table.lower_slope - table.upper_slope) / 2
    even_gain, odd_gain = (table.lower_gain + table.upper_gain) / 2, (table.lower_gain - table.upper_gain) / 2
    if isinstance(rows, Windows) and even.ndim == 3:
        rows = rows.dense()
    if isinstance(rows, Windows):
        plain, bent = inner(rows, even_gain, odd_gain)
        (a, b) = rows.gather(even, odd)
        return rows.with_values(rows.values * a + np.abs(rows.values) * b), plain + bent, bent - plain
    size = np.abs(rows)
    plain, bent = products(rows, even_gain), products(size, odd_gain)
    if even.ndim == 2:
        even, odd = even[:, None], odd[:, None]
    rows *= even
    if not mirrored:
        size *= odd
        rows += size
    return rows, plain + bent, bent - plain
