"""Small models for the built-in tasks. Must not know the data beyond its shape.

Where a norm is wanted it is GroupNorm, never BatchNorm: the running averages of a BatchNorm are of one site's
biased data, are not parameters, so consensus does not reach them, and differ at every site at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """Scales pixels 0..255, uint8 or float (n, channels, height, width), to zero mean and unit deviation.

    It is a part of the model, so that training data stays in bytes and a client of the served model sends
    plain pixel values. `mean` and `deviation` are per channel, for values in [0, 1].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("deviation", 255 * torch.tensor(deviation).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = (images - self.mean) / self.deviation
        # Channels last in memory: convolutions take two thirds of the time. Said so that `torch.func` can map it.
        return scaled.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Contrast(nn.Module):
    """Scales each picture (n, channels, height, width), uint8 or float, by its own mean and deviation.

    Exposure and contrast of X-rays differ between machines, and so between hospitals, more than they tell. A part of
    the model for the reason that `Pixels` is.
    """

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        deviation, mean = torch.std_mean(pixels, dim=(1, 2, 3), keepdim=True, correction=0)
        return (pixels - mean) / (deviation + 1)


def logistic(inputs: int, classes: int) -> nn.Module:
    """Multinomial logistic regression on (n, inputs): a convex problem."""
    return nn.Linear(inputs, classes)


def mlp(inputs: int, hidden: int, classes: int) -> nn.Module:
    """One hidden layer with ReLU on (n, inputs)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def small_cnn(channels: int, size: int, classes: int, width: int = 16) -> nn.Module:
    """Two convolutions with GroupNorm on (n, channels, size, size); `size` a multiple of 4, `width` of 4."""
    return nn.Sequential(
        *_block(channels, width),
        *_block(width, 2 * width),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, classes),
    )


def lenet5(channels: int, size: int, classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with GroupNorm, for (n, channels, size, size), size >= 20."""
    side = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side**2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def strided_cnn(channels: int, size: int, classes: int, width: int = 16) -> nn.Module:
    """Three convolutions of stride 2 with GroupNorm on (n, channels, size, size) halved; `size` a multiple of 16.

    A tenth of the work of `small_cnn` on 64x64 pixels; the last layer still knows where in the picture something is.
    """
    return nn.Sequential(
        nn.AvgPool2d(2),
        *_strided_block(channels, width),
        *_strided_block(width, 2 * width),
        *_strided_block(2 * width, 4 * width),
        nn.Flatten(),
        nn.Linear(4 * width * (size // 16) ** 2, classes),
    )


def _strided_block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(4, width), nn.ReLU()


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(4, width), nn.ReLU(), nn.MaxPool2d(2)
