"""Worst logits and the robust loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from training.batches import live, make_batch

from lpverify.training.robust_loss import mixed, robust_loss, worst_logits


def test_worst_logits_put_the_label_at_zero() -> None:
    margins = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, -6.0]])
    expected = [[0.0, -1.0, 2.0], [-3.0, 0.0, -4.0], [-5.0, 6.0, 0.0]]
    assert worst_logits(margins, torch.tensor([0, 1, 2])).tolist() == expected


def test_loss_by_hand() -> None:
    margins = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    expected = math.log(1 + math.exp(-1) + math.exp(2))
    assert float(robust_loss(margins, torch.tensor([1]))) == pytest.approx(expected, rel=1e-14)


def test_loss_of_exact_margins_is_the_cross_entropy() -> None:
    batch = make_batch(live("dense"))
    outputs = batch.network.forward(batch.x)
    loss = robust_loss(batch.spec.margins(outputs), batch.y)
    assert float(loss) == pytest.approx(float(F.cross_entropy(outputs, batch.y)), rel=1e-13)


def test_loss_falls_as_a_margin_rises() -> None:
    margins = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(robust_loss(margins, torch.tensor([0, 1, 2, 3, 0])))
    assert margins.grad is not None
    assert bool((margins.grad < 0).all())


def test_huge_margins_stay_finite() -> None:
    margins = torch.tensor([[-1e30, 1e30]], requires_grad=True)
    loss = robust_loss(margins, torch.tensor([0]))
    torch.autograd.backward(loss)
    assert math.isfinite(float(loss.detach()))
    assert margins.grad is not None
    assert bool(margins.grad.isfinite().all())


def test_mixture() -> None:
    batch = make_batch(live("dense"))
    margins = batch.spec.margins(batch.network.forward(batch.x)) - 0.5
    at = {share: mixed(batch, margins, share) for share in (0.0, 0.25, 1.0)}
    nominal, robust = float(at[0.25].nominal), float(at[0.25].robust)  # type: ignore[arg-type]
    assert nominal < robust
    for share, losses in at.items():
        assert float(losses.loss) == pytest.approx((1 - share) * nominal + share * robust, rel=1e-13)
    extra = torch.tensor(2.0, dtype=torch.float64)
    assert float(mixed(batch, margins, 0.25, extra).loss) == pytest.approx(float(at[0.25].loss) + 2, rel=1e-13)


def test_a_bound_that_overflowed_has_no_part_in_a_loss_without_it() -> None:
    batch = make_batch(live("dense"))
    infinite = torch.full_like(batch.spec.d, -math.inf)
    assert math.isfinite(float(mixed(batch, infinite, 0.0).loss))


def test_a_margin_that_is_no_number_is_not_robust() -> None:
    batch = make_batch(live("dense"), size=2)
    margins = torch.ones_like(batch.spec.d)
    margins[0, 0] = math.nan
    assert mixed(batch, margins, 1.0).broken.tolist() == [True, False]
