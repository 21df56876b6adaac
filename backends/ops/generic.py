"""The ops made of the tape's primitives: for NumPy, CuPy and any other array-API namespace.

Plain, traced and multicomplex arrays go through the same lines. What decides, such as which entry
of a window is the largest, is computed from plain real parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.arrays import Array, device_of, is_complex, like, namespace
from ..tape.contraction import matmul
from ..tape.functions import add, subtract, sum_, where
from ..tape.linear import LINEAR
from ..tape.record import FUNCTIONS, apply, namespace_of, plain
from ..tape.shaping import permute_dims, reshape, take
from ..tape.windows import padded, patches
from .geometry import Window

_multiply, _divide, _exp, _log = (FUNCTIONS[name] for name in ("multiply", "divide", "exp", "log"))

# Images --------------------------------------------------------------------------------------


def conv2d(x: Any, weight: Any, bias: Any, window: Window, groups: int) -> Array:
    """Return W X, with one row of W for each kernel and one column of X for each window."""
    outputs = weight.shape[0]
    columns = _patches(pad(x, window.widths, 0.0), window)
    samples_and_places = columns.shape[3:]
    X = reshape(columns, (groups, -1, math.prod(samples_and_places)))
    W = reshape(weight, (groups, outputs // groups, -1))
    y = reshape(matmul(W, X), (outputs, *samples_and_places))
    if bias is not None:
        y = add(y, reshape(bias, (outputs, 1, 1, 1)))
    return permute_dims(y, (1, 0, 2, 3))


def columns(x: Array, window: Window) -> Array:
    """Return what the kernels of a convolution see of plain images, (N, H' W', C k_h k_w)."""
    taps = _patches(pad(x, window.widths, 0.0), window)
    xp, N = namespace(taps), taps.shape[3]
    flat = xp.reshape(taps, (math.prod(taps.shape[:3]), N, -1))
    return xp.permute_dims(flat, (1, 2, 0))


def avg_pool2d(x: Any, window: Window) -> Array:
    """Return the means over windows."""
    total = sum_(_patches(pad(x, window.widths, 0.0), window), (1, 2))
    return permute_dims(total * (1.0 / window.taps), (1, 0, 2, 3))


def max_pool2d(x: Any, window: Window) -> Array:
    """Return the entries at the maxima, a selection: linear, and holomorphic."""
    x = pad(x, window.widths, -math.inf)
    positions = _maxima(_real(x), window)
    return reshape(take(reshape(x, (-1,)), positions, 0), positions.shape)


def _maxima(x: Array, window: Window) -> Array:
    """Return, for each window, the position of its first maximum in the flattened images."""
    xp = namespace(x)
    (N, C, H, W), (rows, columns) = x.shape, window.size
    taps = patches(xp, x, window.size, window.stride, window.dilation)
    flat = xp.reshape(taps, (C, rows * columns, N, *taps.shape[4:]))
    best = xp.permute_dims(xp.argmax(flat, axis=1), (1, 0, 2, 3))
    n, c, i, j = (
        xp.reshape(xp.arange(length, device=device_of(x)), (-1, *[1] * (3 - axis)))
        for axis, length in enumerate(best.shape)
    )
    row = i * window.stride[0] + best // columns
    column = j * window.stride[1] + best % columns
    return ((n * C + c) * H + row) * W + column


def pad(x: Any, widths: Sequence[tuple[int, int]], value: float) -> Array:
    """Return ``x`` with a constant around it."""
    if not any(map(any, widths)):
        return x
    y = apply(LINEAR["zero_pad"], x, widths=tuple(widths))
    if value == 0:
        return y
    xp = namespace_of(x)
    inside = padded(xp, xp.ones(tuple(x.shape), dtype=xp.bool, device=device_of(x)), widths)
    return where(inside, y, like(_real(x), value))


def _patches(x: Any, window: Window) -> Any:
    """Return the columns (C, k_h, k_w, N, H', W')."""
    size, stride, dilation = window.size, window.stride, window.dilation
    return apply(LINEAR["patches"], x, size=size, stride=stride, dilation=dilation)


# Activations ---------------------------------------------------------------------------------

erf, sigmoid = FUNCTIONS["erf"], FUNCTIONS["sigmoid"]


def relu(x: Any) -> Array:
    """Return max(x, 0)."""
    return where(_real(x) > 0, x, like(_real(x), 0.0))


def elu(x: Any, alpha: float) -> Array:
    """Return x, or alpha (exp(x) - 1) where it is not positive."""
    positive = _real(x) > 0
    below = FUNCTIONS["expm1"](where(positive, like(_real(x), 0.0), x))
    return where(positive, x, below * alpha)


def gelu(x: Any, approximate: str) -> Array:
    """Return x P(X < x), from the complement of erf, which is accurate where P is small."""
    if approximate == "none":
        return _multiply(FUNCTIONS["erfc"](x * -math.sqrt(0.5)), x * 0.5)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * (x + _multiply(FUNCTIONS["tanh"](inner), x))


def softplus(x: Any) -> Array:
    """Return log(exp(x) + exp(0))."""
    return FUNCTIONS["logaddexp"](x, like(_real(x), 0.0))


# Logits --------------------------------------------------------------------------------------


def logsumexp(x: Any, axis: int, keepdims: bool) -> Array:
    """Return the logarithm of the sum of exp(x)."""
    shift = _shift(x, axis)
    total = _log(sum_(_exp(subtract(x, shift)), axis, keepdims=keepdims))
    return add(total, shift if keepdims else namespace(shift).squeeze(shift, axis=axis))


def log_softmax(x: Any, axis: int) -> Array:
    """Return the logarithm of :func:`softmax`."""
    shifted = subtract(x, _shift(x, axis))
    return subtract(shifted, _log(sum_(_exp(shifted), axis, keepdims=True)))


def softmax(x: Any, axis: int) -> Array:
    """Return exp(x) divided by its sum."""
    powers = _exp(subtract(x, _shift(x, axis)))
    return _divide(powers, sum_(powers, axis, keepdims=True))


def _shift(x: Any, axis: int) -> Array:
    """Return the maximum along an axis as a constant: no result depends on it."""
    value = _real(x)
    xp = namespace(value)
    top = xp.max(value, axis=axis, keepdims=True)
    return xp.where(xp.isfinite(top), top, xp.zeros_like(top))


def _real(x: Any) -> Array:
    """Return the real part of the plain value."""
    value = plain(x)
    return namespace(value).real(value) if is_complex(value) else value
