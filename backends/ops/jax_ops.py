"""The ops on JAX arrays, by XLA's convolutions and windows and ``jax.nn``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.arrays import Array
from .geometry import Window

elu, erf, relu, sigmoid = jax.nn.elu, lax.erf, jax.nn.relu, jax.nn.sigmoid
log_softmax, softmax, softplus = jax.nn.log_softmax, jax.nn.softmax, jax.nn.softplus


def conv2d(x: Array, weight: Array, bias: Any, window: Window, groups: int) -> Array:
    """Return the cross-correlation of images with kernels."""
    y = lax.conv_general_dilated(
        x,
        weight,
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def avg_pool2d(x: Array, window: Window) -> Array:
    """Return the means over windows."""
    return _reduced(x, 0.0, lax.add, window) * (1.0 / window.taps)


def max_pool2d(x: Array, window: Window) -> Array:
    """Return the maxima over windows."""
    return _reduced(x, -jnp.inf, lax.max, window)


def _reduced(x: Array, start: float, operation: Any, window: Window) -> Array:
    size, stride = (1, 1, *window.size), (1, 1, *window.stride)
    return lax.reduce_window(x, start, operation, size, stride, window.widths)


def pad(x: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
    """Return ``x`` with a constant around it."""
    return jnp.pad(x, widths, constant_values=value)


def gelu(x: Array, approximate: str) -> Array:
    """Return x times the probability of less than x."""
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def logsumexp(x: Array, axis: int, keepdims: bool) -> Array:
    """Return the logarithm of the sum of exp(x)."""
    return jax.nn.logsumexp(x, axis=axis, keepdims=keepdims)
