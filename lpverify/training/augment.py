"""Random changes of training images that keep their class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARE = 8


def shift_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each shifted by up to an eighth of its sides (zeros come in) and mirrored half of the time.

    For CIFAR-10 these are the usual shifts by 4 pixels.
    """
    batch, _, height, width = x.shape
    down, right = height // SHARE, width // SHARE
    top = torch.randint(2 * down + 1, (batch, 1), generator=generator)
    left = torch.randint(2 * right + 1, (batch, 1), generator=generator)
    flip = torch.rand(batch, 1, generator=generator) < 0.5
    rows = (top + torch.arange(height)).to(x.device)
    across = torch.arange(width)
    columns = (left + torch.where(flip, across.flip(0), across)).to(x.device)
    padded = F.pad(x, (right, right, down, down))
    image = torch.arange(batch, device=x.device).reshape(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()
