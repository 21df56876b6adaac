"""The ops on tensors, by PyTorch's own functions.

Under a complex step these are called with complex tensors inside the mode that extends them
(``strategies/torch_extension.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F

from ...core.arrays import Array
from ..strategies.torch_functions import convolution
from .geometry import Window

erf, relu, sigmoid = torch.erf, torch.relu, torch.sigmoid
log_softmax, logsumexp, softmax = torch.log_softmax, torch.logsumexp, torch.softmax


def conv2d(x: Array, weight: Array, bias: Any, window: Window, groups: int) -> Array:
    """Return the cross-correlation of images with kernels."""
    x, padding = _symmetric(x, window, 0.0)
    conv = convolution("conv2d") if x.is_complex() or weight.is_complex() else F.conv2d
    return conv(x, weight, bias, window.stride, padding, window.dilation, groups)


def avg_pool2d(x: Array, window: Window) -> Array:
    """Return the means over windows."""
    x, padding = _symmetric(x, window, 0.0)
    return F.avg_pool2d(x, window.size, window.stride, padding)


def max_pool2d(x: Array, window: Window) -> Array:
    """Return the maxima over windows."""
    x, padding = _symmetric(x, window, -math.inf)
    return torch.max_pool2d(x, window.size, window.stride, padding)


def pad(x: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
    """Return ``x`` with a constant around it."""
    return F.pad(x, list(chain.from_iterable(reversed(widths))), value=value)


def _symmetric(x: Array, window: Window, value: float) -> tuple[Array, list[int]]:
    """Return images and the padding that is left to a function that knows only symmetric ones."""
    if window.is_symmetric:
        return x, [before for before, _ in window.padding]
    return pad(x, window.widths, value), [0, 0]


def elu(x: Array, alpha: float) -> Array:
    """Return x, or alpha (exp(x) - 1) where it is not positive."""
    return F.elu(x, alpha)


def gelu(x: Array, approximate: str) -> Array:
    """Return x times the probability of less than x."""
    return F.gelu(x, approximate=approximate)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)), which PyTorch by default replaces by x beyond 20."""
    return F.softplus(x, threshold=40.0)
