"""Random changes of training images that keep their class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpverify.errors import UsageError
from lpverify.training.config import TrainConfig


def check_augment(config: TrainConfig, input_shape: tuple[int, ...]) -> None:
    """Refuse shifts of what is no image (C, H, W), or of more than its sides."""
    if config.augment != "none" and len(input_shape) != 3:
        raise UsageError(f"augment: {config.augment!r} needs images (C, H, W); {config.arch} takes {input_shape}")
    if config.augment != "none" and config.shift >= min(input_shape[1:]):
        raise UsageError(f"shift: {config.shift} moves all of an image {input_shape} out; give fewer pixels, like 2")


def augmented(config: TrainConfig, x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) changed as ``config.augment`` says."""
    if config.augment == "none":
        return x
    x = shifted(x, config.shift, generator)
    return mirrored(x, generator) if config.augment == "shift-flip" else x


def shifted(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each shifted by up to so many pixels along both sides; zeros come in."""
    batch, _, height, width = x.shape
    top, left = torch.randint(2 * pixels + 1, (2, batch, 1), generator=generator)
    rows = (top + torch.arange(height)).unsqueeze(2).to(x.device)
    columns = (left + torch.arange(width)).unsqueeze(1).to(x.device)
    image = torch.arange(batch, device=x.device).reshape(-1, 1, 1)
    padded = F.pad(x, (pixels, pixels, pixels, pixels)).permute(0, 2, 3, 1)
    return padded[image, rows, columns].permute(0, 3, 1, 2).contiguous()


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each mirrored left to right half of the time."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(flip.reshape(-1, 1, 1, 1).to(x.device), x.flip(3), x)
