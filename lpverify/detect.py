"""Detection of adversarial examples at test time (Wong & Kolter 2018, corollary 2).

An input x is flagged unless the checker accepted a certificate that the network gives the class that it predicts at x
on all of the ball about x. No label is needed.

What that guarantees, with the ball of radius eps in a norm, inside the clip if there is one: let x0 be an input
(inside the clip) and x any input with |x - x0| <= eps. If x is not flagged, with class c, then the network gives class
c at x0 as well, for x0 lies in the ball about x. So no x that is not flagged has another class than its original:
whatever turned the class by moving an input by at most eps is flagged, without exception ("zero false negatives"). An
original that the network gets wrong by itself is no such example: it may pass, wrong as it is. Clean inputs may be
flagged; their share among those that are classified rightly is the rate of false positives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.network import Network
from lpverify.result import Result, Verdict
from lpverify.settings import Settings
from lpverify.verify import checked_inputs, verify_stream

Array = NDArray[Any]
BATCH = 256


def predictions(network: Network, x: Array) -> NDArray[np.int64]:
    """The classes (N,) with the greatest outputs in float64, of inputs x (N, ...).

    Raises:
        ShapeError, DataError: for inputs that do not fit the network or are not finite.
    """
    exact, flat = network.detach().to(torch.float64, "cpu"), checked_inputs(network, x)
    classes = np.zeros(len(flat), np.int64)
    with torch.no_grad():
        for start in range(0, len(flat), BATCH):
            part = slice(start, start + BATCH)
            classes[part] = exact.forward(torch.as_tensor(flat[part]).double()).argmax(1).numpy()
    return classes


def detect_stream(
    network: Network,
    x: Array,
    settings: Settings,
    indices: Sequence[int] | None = None,
    finished: Collection[int] = (),
) -> Iterator[Result]:
    """For each input the claim that its predicted class is that of the whole ball; flagged unless verified.

    Args:
        network: the lowered network.
        x: (N, ...) inputs, finite.
        settings: the ball, and how its claim is to be proved.
        indices: what to call each input in its result; 0..N-1 by default.
        finished: those that have a result already; see ``verify.verify_stream``.

    Returns:
        Results, in the order of ``verify_stream``. ``label`` is the predicted class; a falsified one has another class
        nearby.

    Raises:
        ShapeError, DataError, UsageError: as ``verify_stream``.
    """
    return verify_stream(network, x, predictions(network, x), settings, indices, finished)


def is_flagged(result: Result) -> bool:
    """Whether nothing certifies the predicted class."""
    return result.verdict is not Verdict.VERIFIED


@dataclass
class Detection:
    """Counts over detection results, with what their labels tell where there are any.

    Attributes:
        labels: the true class by the example's index, or None.
        examples, flagged: all results, and the flagged ones.
        right, right_flagged: those whose predicted class is the label, and the flagged ones among them.
    """

    labels: Mapping[int, int] | None = None
    examples: int = 0
    flagged: int = 0
    right: int = 0
    right_flagged: int = 0

    def add(self, result: Result) -> dict[str, Any]:
        """Count one result; returns what its line in ``results.jsonl`` says besides."""
        flagged, true = is_flagged(result), None if self.labels is None else self.labels[result.index]
        self.examples += 1
        self.flagged += flagged
        if true is not None:
            self.right += result.label == true
            self.right_flagged += flagged and result.label == true
        return {"flagged": flagged, "true_label": true}

    def parts(self) -> dict[str, Any]:
        """What the summary says besides; rates are null where there is nothing to divide by."""
        found: dict[str, Any] = {
            "flagged": self.flagged,
            "flagged_rate": self.flagged / self.examples if self.examples else None,
        }
        if self.labels is not None:
            found |= {
                "right": self.right,
                "false_positives": self.right_flagged,
                "false_positive_rate": self.right_flagged / self.right if self.right else None,
                "wrong_flagged": self.flagged - self.right_flagged,
                "wrong_passed": (self.examples - self.right) - (self.flagged - self.right_flagged),
            }
        # The claims are about predicted classes: of labels, and so of errors, the verdicts say nothing.
        nothing = dict.fromkeys(("misclassified", "clean_error", "robust_error_lower", "robust_error_upper"))
        return {"detection": found, **nothing}
